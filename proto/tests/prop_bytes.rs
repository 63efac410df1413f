//! Whatever bytes come, nothing panics; and what is written is read again.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use proptest::prelude::*;
use remuda_proto::message::metadata::{ReplyEnvelope, TaskMetadata};
use remuda_proto::message::native::Runs;
use remuda_proto::message::{content, parent_msg_id};
use remuda_proto::{
    Body, BodyBuilder, ClientConnection, DELIMITER, Date, Dependency, EngineConnection, Envelope, Frames, Header, Key,
    MsgId, MsgType, Packer, RemoteError, SeenSignatures, Session, new_session_id,
};
use serde_json::{Value, json};

/// Bytes that are sometimes close to what is expected, so that more than the first check is reached.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let texts = [
        "{}",
        "[]",
        "null",
        "\u{80}",
        "<IDS|MSG>",
        "5",
        "\"x\"",
        r#"{"msg_id": "a", "msg_type": "apply_request", "session": "s", "date": "2026-11-22T01:37:19Z"}"#,
        r#"{"msg_id": null, "msg_type": []}"#,
        r#"{"after": ["a"], "follow": {"dependencies": []}, "timeout": 1e400, "targets": null, "retries": -9e99}"#,
        r#"{"status": "error", "ename": "E", "evalue": null, "engine_info": []}"#,
        r#"{"status": "ok", "remuda": {"process": {"argv": []}}}"#,
        r#"{"remuda": {"function": "\ud800"}}"#,
    ];
    prop_oneof![
        2 => prop::collection::vec(any::<u8>(), 0..64),
        3 => prop::sample::select(texts.map(|text| text.as_bytes().to_vec()).to_vec()),
        1 => json().prop_map(|value| value.to_string().into_bytes()),
        1 => json().prop_map(|value| Packer::Msgpack.pack(&value).unwrap()),
    ]
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no such number", |number| number.is_finite()).prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let key = prop::sample::select(vec!["msg_id", "after", "status", "remuda", "process", "é", ""]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..5).prop_map(|pairs| Value::Object(
                pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            )),
        ]
    })
}

fn body(frames: &[Vec<u8>]) -> Option<Body> {
    let mut builder = BodyBuilder::default();
    frames.iter().for_each(|frame| builder.push(frame));
    builder.finish().ok()
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(frames in prop::collection::vec(frame(), 0..12)) {
        let mut whole = frames.clone();
        whole.insert(frames.len() / 2, DELIMITER.to_vec());
        if let Ok(frames) = Frames::from_parts(&whole) {
            prop_assert_eq!(frames.parts().map(<[u8]>::to_vec).collect::<Vec<_>>(), whole);
        }
        let Some(body) = body(&frames) else { return Ok(()) };
        let _ = format!("{body:?}");
        let _ = Key::new("k").verify(&body);
        let _ = SeenSignatures::new(4).check(&body);
        for packer in [Packer::Json, Packer::Msgpack] {
            let _ = Envelope::read(packer, &body);
            let _ = parent_msg_id(packer, &body);
            let _ = packer.unpack::<Header>(body.header());
            let _ = TaskMetadata::read(packer, &body).map(|metadata| (metadata.timeout(), metadata.retries()));
            let _ = ReplyEnvelope::read(packer, &body);
            let _ = Runs::read(packer, &MsgType::ApplyRequest, &body);
            let _ = packer.unpack::<RemoteError>(body.content());
            let _ = packer.unpack::<content::AbortRequest>(body.content());
            let _ = packer.unpack::<content::RegistrationRequest>(body.content());
            let _ = packer.unpack::<content::QueueRequest>(body.content());
            let _ = packer.unpack::<content::ResultRequest>(body.content());
            let _ = packer.unpack::<content::PurgeRequest>(body.content());
        }
        let _ = serde_json::from_slice::<ClientConnection>(body.content());
        let _ = serde_json::from_slice::<EngineConnection>(body.content());
    }

    #[test]
    fn what_a_session_writes_is_believed_and_read_again(
        content in json(), metadata in json(), key in ".{0,40}", buffers in prop::collection::vec(
            prop::collection::vec(any::<u8>(), 0..100), 0..4),
    ) {
        for packer in [Packer::Json, Packer::Msgpack] {
            let mut session = Session::new(new_session_id([9; 16]), "ann", Key::new(&key), packer, 1);
            let buffers: Vec<Bytes> = buffers.iter().cloned().map(Bytes::from).collect();
            let (id, body) = session
                .message(Date(0), MsgType::ApplyRequest, None, &metadata, &content, &buffers)
                .unwrap();
            prop_assert_eq!(Key::new(&key).verify(&body), Ok(()));
            prop_assert_eq!(Envelope::read(packer, &body).unwrap().msg_id, id);
            prop_assert_eq!(&packer.unpack::<Value>(body.content()).unwrap(), &content);
            prop_assert_eq!(&packer.unpack::<Value>(body.metadata()).unwrap(), &metadata);
            let read: Vec<Bytes> = (0..body.buffer_count()).map(|index| body.buffer(index).unwrap()).collect();
            prop_assert_eq!(read, buffers);
        }
    }

    #[test]
    fn a_changed_bit_is_noticed(content in json(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let session = Session::new(new_session_id([9; 16]), "ann", Key::new("k"), Packer::Json, 1);
        let content = content.to_string();
        let signed = session.sign_parts([b"{}", b"{}", b"{}", content.as_bytes()], []);
        let mut parts: Vec<Vec<u8>> = signed.parts().map(<[u8]>::to_vec).collect();
        let bytes: usize = parts.iter().map(Vec::len).sum();
        let mut at = at.index(bytes);
        for part in &mut parts {
            if at < part.len() {
                part[at] ^= 1 << bit;
                break;
            }
            at -= part.len();
        }
        prop_assert!(Key::new("k").verify(&body(&parts).unwrap()).is_err());
    }

    #[test]
    fn a_date_is_read_as_it_was_written(micros in -62_135_596_800_000_000_i64..253_402_300_799_999_999) {
        prop_assert_eq!(Date::parse(&Date(micros).to_string()), Some(Date(micros)));
    }

    #[test]
    fn a_dependency_is_read_as_it_was_written(
        ids in prop::collection::vec("[a-z]{1,4}", 0..5), all in any::<bool>(), kind in 0..3,
    ) {
        let mut dependency = Dependency::all_succeed(ids.iter().map(|id| MsgId::from(&**id)));
        (dependency.all, dependency.success, dependency.failure) = (all, kind != 1, kind != 0);
        let text = serde_json::to_string(&dependency).unwrap();
        prop_assert_eq!(serde_json::from_str::<Dependency>(&text).unwrap(), dependency);
    }
}

#[test]
fn deep_nesting_is_refused_and_not_followed() {
    for depth in [1_000, 100_000] {
        let text = "[".repeat(depth);
        assert!(Packer::Json.unpack::<Value>(text.as_bytes()).is_err());
        let arrays = vec![0x91; depth];
        assert!(Packer::Msgpack.unpack::<Value>(&arrays).is_err());
    }
    assert_eq!(json!([]), Packer::Json.unpack::<Value>(b"[]").unwrap());
}
