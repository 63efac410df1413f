//! The relay of iopub: what engines publish, to every client.

use remuda_proto::message::parent_msg_id;
use remuda_proto::monitor::Monitor;
use remuda_proto::{Body, Envelope, Identity, Instant, Machine, MsgType, Now, Refusal, Session};

/// All that can happen to the relay of output.
#[derive(Clone, Debug)]
pub enum OutputEvent {
    /// An engine published something.
    FromEngine {
        /// Its first frame before the delimiter, if there is one.
        topic: Option<Identity>,
        /// The message, not yet verified.
        body: Body,
    },
}

/// All that the relay of output can ask for.
#[derive(Clone, Debug)]
pub enum OutputEffect {
    /// Publish to the clients.
    Publish {
        /// The topic: clients that subscribe go by it.
        topic: Identity,
        /// The message as it came.
        body: Body,
    },
    /// Tell the hub.
    Monitor(Monitor),
    /// A message had no effect: log and count it.
    Refused {
        /// Its topic, as near as it comes to a sender.
        from: Identity,
        /// Why.
        refusal: Refusal,
    },
}

/// Carries what engines publish to every client, and tells the hub of all but `status`
/// (`controller/hub.py: save_iopub_message`).
#[derive(Debug)]
pub struct OutputRelay {
    /// Verifies what passes.
    session: Session,
    /// Largest message relayed, in bytes.
    max_message_bytes: usize,
}

impl OutputRelay {
    /// A relay of output.
    pub fn new(session: Session) -> Self {
        Self { session, max_message_bytes: usize::MAX }
    }

    /// The same, but output of more than `max_message_bytes` is not relayed.
    #[must_use]
    pub fn with_message_limit(self, max_message_bytes: usize) -> Self {
        Self { max_message_bytes, ..self }
    }

    fn relay(&self, topic: &Identity, body: Body, out: &mut Vec<OutputEffect>) -> Result<(), Refusal> {
        self.session.key().verify(&body)?;
        Refusal::check_size(&body, self.max_message_bytes)?;
        let envelope = Envelope::read(self.session.packer(), &body)?;
        let parent = parent_msg_id(self.session.packer(), &body)?;
        out.push(OutputEffect::Publish { topic: topic.clone(), body: body.clone() });
        if envelope.msg_type != MsgType::Status {
            out.push(OutputEffect::Monitor(Monitor::Output { envelope, parent, body }));
        }
        Ok(())
    }
}

impl Machine for OutputRelay {
    type Event = OutputEvent;
    type Effect = OutputEffect;

    fn handle(&mut self, _now: Now, event: OutputEvent, out: &mut Vec<OutputEffect>) {
        let OutputEvent::FromEngine { topic, body } = event;
        // An XPUB engine greets every subscriber with an `iopub_welcome` that has no topic, and so no taker.
        let Some(topic) = topic else { return };
        if let Err(refusal) = self.relay(&topic, body, out) {
            out.push(OutputEffect::Refused { from: topic, refusal });
        }
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn on_deadline(&mut self, _now: Now, _out: &mut Vec<OutputEffect>) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use remuda_proto::{Key, MsgId, Packer, SessionId, VerifyError};
    use serde_json::json;

    fn session(id: &str, key: &str) -> Session {
        Session::new(SessionId::from(id), "u", Key::new(key), Packer::Json, 1)
    }

    fn published(key: &str, msg_type: &str, parent: Option<&[u8]>) -> Body {
        let mut engine = session("e-1", key);
        engine.message(Now::default().date, msg_type.into(), parent, &json!({}), &json!({}), &[]).unwrap().1
    }

    fn relay(topic: Option<&str>, body: &Body) -> Vec<OutputEffect> {
        let mut out = Vec::new();
        let topic = topic.map(|topic| Identity::from(topic.as_bytes()));
        let event = OutputEvent::FromEngine { topic, body: body.clone() };
        OutputRelay::new(session("c", "k")).handle(Now::default(), event, &mut out);
        out
    }

    #[test]
    fn output_goes_to_the_clients_and_to_the_hub() {
        let body = published("k", "stream", Some(br#"{"msg_id": "m"}"#));
        let out = relay(Some("engine.0.stdout"), &body);
        let [
            OutputEffect::Publish { topic, body: sent },
            OutputEffect::Monitor(Monitor::Output { envelope, parent, body: seen }),
        ] = &out[..]
        else {
            panic!("{out:?}")
        };
        assert_eq!((topic.as_bytes(), sent, seen), (&b"engine.0.stdout"[..], &body, &body));
        assert_eq!((&envelope.msg_type, parent), (&MsgType::Stream, &Some(MsgId::from("m"))));
    }

    #[test]
    fn the_hub_sees_a_shutdown_but_no_status() {
        let out = relay(Some("engine.0.status"), &published("k", "status", None));
        assert!(matches!(&out[..], [OutputEffect::Publish { .. }]), "{out:?}");
        let out = relay(Some("engine.0.shutdown"), &published("k", "shutdown_reply", None));
        let [_, OutputEffect::Monitor(Monitor::Output { envelope, parent: None, .. })] = &out[..] else {
            panic!("{out:?}")
        };
        assert_eq!((&envelope.msg_type, envelope.session.as_str()), (&MsgType::ShutdownReply, "e-1"));
    }

    #[test]
    fn a_welcome_without_a_topic_goes_nowhere() {
        assert!(relay(None, &published("k", "iopub_welcome", None)).is_empty());
    }

    #[test]
    fn garbage_is_refused() {
        let out = relay(Some("t"), &published("other", "stream", None));
        assert!(
            matches!(&out[..], [OutputEffect::Refused { refusal: Refusal::Verify(VerifyError::Invalid), .. }]),
            "{out:?}"
        );
        for parts in [[&b"[]"[..], b"{}", b"{}", b"{}"], [br#"{"msg_id": "a", "msg_type": "b"}"#, b"5", b"{}", b"{}"]] {
            let out = relay(Some("t"), &session("e-1", "k").sign_parts(parts, []));
            assert!(matches!(&out[..], [OutputEffect::Refused { refusal: Refusal::Unpack(_), .. }]), "{out:?}");
        }
    }
}
