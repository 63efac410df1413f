//! Whatever bytes come, no machine of this crate panics, and none loses count.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes_of::Bytes;
use proptest::prelude::*;
use remuda_proto::message::native::Capability;
use remuda_proto::{Body, BodyBuilder, EngineId, Frames, Identity, Key, Machine, Now, Packer, Session, SessionId};
use remuda_scheduler::{
    Channel, OutputEvent, OutputRelay, Relay, RelayEvent, TaskConfig, TaskEffect, TaskEvent, TaskScheduler,
};

mod bytes_of {
    //! Bytes that are nearly right: they get further than random ones.

    use proptest::prelude::*;

    pub(crate) type Bytes = Vec<u8>;

    const PARTS: &[&str] = &[
        "{}",
        "[]",
        "null",
        "5",
        r#""text""#,
        r#"{"msg_id": "a", "msg_type": "apply_request", "session": "s"}"#,
        r#"{"msg_id": "b", "msg_type": "execute_request"}"#,
        r#"{"msg_id": "c", "msg_type": "abort_request"}"#,
        r#"{"msg_id": "", "msg_type": ""}"#,
        r#"{"msg_id": 5, "msg_type": "apply_request"}"#,
        r#"{"after": ["a"], "follow": ["a", "b"], "targets": ["e", "f"], "retries": 3, "timeout": 1.5}"#,
        r#"{"after": {"dependencies": ["a"], "all": false, "failure": true}, "timeout": -1e300}"#,
        r#"{"after": {"dependencies": "a"}, "retries": 1e99, "timeout": 1e308}"#,
        r#"{"follow": {"dependencies": [["a"]]}, "targets": [null], "label": {"a": [1]}}"#,
        r#"{"status": "ok", "dependencies_met": false}"#,
        r#"{"status": "error", "engine": "e", "msg_id": "a"}"#,
        r#"{"status": 5, "dependencies_met": "no", "engine": {}}"#,
        r#"{"msg_ids": ["a", "b"]}"#,
        r#"{"msg_ids": "a"}"#,
        r#"{"remuda": {"function": "f"}}"#,
        r#"{"remuda": {"process": {"argv": []}}}"#,
        r#"{"remuda": 5}"#,
    ];

    pub(crate) fn part() -> impl Strategy<Value = Bytes> {
        let known = prop::sample::select(PARTS).prop_map(|text| text.as_bytes().to_vec());
        let packed = prop::sample::select(PARTS).prop_map(|text| {
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            remuda_proto::Packer::Msgpack.pack(&value).unwrap()
        });
        let spoiled = (known.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut bytes, at, byte)| {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        });
        let random = prop::collection::vec(any::<u8>(), 0..40);
        prop_oneof![6 => known, 3 => packed, 2 => spoiled, 1 => random]
    }
}

#[derive(Clone, Debug)]
struct Message {
    parts: [Bytes; 4],
    signed: bool,
    idents: Vec<Bytes>,
    from_client: bool,
}

fn message() -> impl Strategy<Value = Message> {
    let ident = prop_oneof![3 => Just(b"e".to_vec()), 1 => prop::collection::vec(any::<u8>(), 0..8)];
    let part = bytes_of::part;
    ((part(), part(), part(), part()), prop::bool::weighted(0.9), prop::collection::vec(ident, 0..3), any::<bool>())
        .prop_map(|((header, parent, metadata, content), signed, idents, from_client)| Message {
            parts: [header, parent, metadata, content],
            signed,
            idents,
            from_client,
        })
}

fn session(packer: Packer) -> Session {
    Session::new(SessionId::from("s"), "u", Key::new("k"), packer, 1)
}

fn body(signer: &Session, message: &Message) -> Body {
    let parts = message.parts.each_ref().map(Vec::as_slice);
    if message.signed {
        return signer.sign_parts(parts, []);
    }
    let mut builder = BodyBuilder::default();
    builder.push(b"0000");
    parts.into_iter().for_each(|part| builder.push(part));
    builder.finish().unwrap()
}

fn ident(bytes: &[u8]) -> Identity {
    Identity::from(bytes)
}

proptest! {
    #[test]
    fn the_task_scheduler_survives_any_bytes(
        packer in prop::sample::select(vec![Packer::Json, Packer::Msgpack]),
        messages in prop::collection::vec(message(), 1..40),
    ) {
        let signer = session(packer);
        let mut scheduler = TaskScheduler::new(TaskConfig::default(), session(packer));
        let mut out = Vec::new();
        let mut now = Now::default();
        for uuid in ["e", "f"] {
            let capability = Capability::stock();
            scheduler.handle(now, TaskEvent::Registered { uuid: uuid.into(), capability }, &mut out);
        }
        for message in messages {
            let body = body(&signer, &message);
            let from = ident(message.idents.first().map_or(b"e", |bytes| bytes));
            let event = if message.from_client {
                TaskEvent::Submit { client: from, body }
            } else {
                TaskEvent::Result { engine: from, client: ident(b"c"), body }
            };
            out.clear();
            scheduler.handle(now, event, &mut out);
            let refused = out.iter().any(|effect| matches!(effect, TaskEffect::Refused { .. }));
            prop_assert!(!refused || out.len() == 1, "{out:?}");
            prop_assert!(message.signed || refused, "{out:?}");
            now.instant.0 += 1_000_000_000;
            scheduler.on_deadline(now, &mut out);
            scheduler.check();
        }
    }

    #[test]
    fn the_relays_survive_any_bytes(
        packer in prop::sample::select(vec![Packer::Json, Packer::Msgpack]),
        messages in prop::collection::vec(message(), 1..20),
    ) {
        let signer = session(packer);
        let now = Now::default();
        for channel in [Channel::Mux, Channel::Control] {
            let mut relay = Relay::new(channel, session(packer));
            let registered =
                RelayEvent::Registered { uuid: "e".into(), id: EngineId(0), capability: Capability::stock() };
            relay.handle(now, registered, &mut Vec::new());
            for message in &messages {
                let frames = Frames::new(message.idents.iter().map(|bytes| ident(bytes)), body(&signer, message));
                let event = if message.from_client {
                    RelayEvent::FromClient { client: ident(b"c"), frames }
                } else {
                    RelayEvent::FromEngine { engine: ident(b"e"), frames }
                };
                let mut out = Vec::new();
                relay.handle(now, event, &mut out);
                prop_assert!(!out.is_empty(), "something is always said or done");
                relay.check();
            }
        }
        let mut output = OutputRelay::new(session(packer));
        for message in &messages {
            let topic = message.idents.first().map(|bytes| ident(bytes));
            output.handle(now, OutputEvent::FromEngine { topic, body: body(&signer, message) }, &mut Vec::new());
        }
    }
}
