//! What engines of an earlier controller are asked, and how what they were sent before is sent once more.

use std::time::Duration;

use remuda_proto::message::probe::{Has, Probe, ProbeContent, ProbeReplyContent};
use remuda_proto::{Body, Date, Identity, MsgId, MsgType, Packer, Session};
use serde_json::{Map, Value, json};

/// How soon a question is asked again that has no answer: the connection that it went into may not have been there yet.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Most time between two times that it is asked. An engine may be busy for hours before it answers.
pub(crate) const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Who an engine believes it answers when the controller itself asks, or repeats a task. No message goes to that name.
pub(crate) fn hub_identity() -> Identity {
    Identity::from(&b"hub"[..])
}

/// The question what an engine has, and its id; under the id that it was asked by before, if it was.
pub(crate) fn question(
    session: &mut Session,
    date: Date,
    asked: Option<&MsgId>,
    assigned: Vec<MsgId>,
) -> (MsgId, Body) {
    let mut header = session.header(date, MsgType::KernelInfoRequest);
    if let Some(msg_id) = asked {
        header.msg_id = msg_id.clone();
    }
    let content = ProbeContent { remuda: Some(Probe { assigned }) };
    let body = session.assemble(&header, None, &json!({}), &content, &[]);
    (header.msg_id, body.expect("a list of text has a packed form"))
}

/// What a native engine answers that it has; `None` from a stock one.
pub(crate) fn answer(packer: Packer, body: &Body) -> Option<Vec<MsgId>> {
    let reply: ProbeReplyContent = packer.unpack(body.content()).ok()?;
    let Has { has } = reply.remuda?;
    Some(has)
}

/// The same message in other bytes: who has had it already drops it, by its signature. Its metadata has a mark that is used
/// once, and that nobody reads; its parent header, if the metadata cannot have one. `attempt` is said in its metadata.
pub(crate) fn again(session: &mut Session, date: Date, body: &Body, attempt: Option<usize>) -> Body {
    let packer = session.packer();
    let mark = session.header(date, MsgType::KernelInfoRequest).msg_id;
    let marked = |part: &[u8]| {
        let Ok(Value::Object(mut map)) = packer.unpack(part) else { return None };
        let Value::Object(ours) = map.entry("remuda").or_insert_with(|| Value::Object(Map::new())) else { return None };
        ours.insert("sent_again".to_owned(), json!(mark));
        attempt.into_iter().for_each(|attempt| drop(ours.insert("attempt".to_owned(), json!(attempt))));
        Some(packer.pack(&map).expect("what was unpacked can be packed"))
    };
    let (parent, metadata) = match marked(body.metadata()) {
        Some(metadata) => (body.parent_header().to_vec(), metadata),
        None => match marked(body.parent_header()) {
            Some(parent) => (parent, body.metadata().to_vec()),
            None => return body.clone(),
        },
    };
    let buffers = (0..body.buffer_count()).filter_map(|index| body.buffer(index));
    session.sign_parts([body.header(), &parent, &metadata, body.content()], buffers)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use remuda_proto::{Envelope, Key, SessionId};

    use super::*;

    #[test]
    fn what_is_sent_again_differs_in_its_signature_and_in_nothing_that_is_read() {
        for packer in [Packer::Json, Packer::Msgpack] {
            let mut session = Session::new(SessionId::from("s"), "u", Key::new("k"), packer, 1);
            let metadata = json!({"retries": 2, "remuda": {"priority": 5}});
            let buffers = [Bytes::from_static(b"b")];
            let made = session.message(Date(0), MsgType::ApplyRequest, None, &metadata, &json!({"a": 1}), &buffers);
            let (msg_id, body) = made.unwrap();
            let once = again(&mut session, Date(1), &body, None);
            let twice = again(&mut session, Date(1), &once, Some(3));
            for sent in [&once, &twice] {
                session.key().verify(sent).unwrap();
                assert_eq!(Envelope::read(packer, sent).unwrap().msg_id, msg_id);
                assert_eq!((sent.content(), sent.buffer(0)), (body.content(), body.buffer(0)));
                let metadata: Value = packer.unpack(sent.metadata()).unwrap();
                assert_eq!((&metadata["retries"], &metadata["remuda"]["priority"]), (&json!(2), &json!(5)));
            }
            assert_ne!(body.signature(), once.signature());
            assert_ne!(once.signature(), twice.signature());
        }
    }

    #[test]
    fn what_has_no_place_for_a_mark_in_its_metadata_has_it_elsewhere() {
        for packer in [Packer::Json, Packer::Msgpack] {
            for metadata in [json!(12), json!({"remuda": "mine"})] {
                let mut session = Session::new(SessionId::from("s"), "u", Key::new("k"), packer, 1);
                let made = session.message(Date(0), MsgType::ApplyRequest, None, &metadata, &json!({}), &[]);
                let (msg_id, body) = made.unwrap();
                let once = again(&mut session, Date(1), &body, None);
                session.key().verify(&once).unwrap();
                assert_eq!(Envelope::read(packer, &once).unwrap().msg_id, msg_id);
                assert_eq!(once.metadata(), body.metadata());
                assert_ne!(once.signature(), body.signature());
            }
        }
    }

    #[test]
    fn a_question_that_is_asked_again_keeps_its_id() {
        let mut session = Session::new(SessionId::from("s"), "u", Key::new("k"), Packer::Json, 1);
        let (id, first) = question(&mut session, Date(0), None, vec!["t".into()]);
        let (same, second) = question(&mut session, Date(1), Some(&id), Vec::new());
        assert_eq!(id, same);
        assert_ne!(first.signature(), second.signature());
        assert_eq!(answer(Packer::Json, &first), None, "a question is no answer");
    }
}
