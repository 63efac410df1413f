//! Whatever a peer sends, signed or not, the engine neither panics nor contradicts itself.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use remuda_engine::{Config, Effect, EngineCore, Event, Outcome};
use remuda_proto::message::native::Announcement;
use remuda_proto::{
    Body, Date, Frames, Header, Identity, Instant, Key, Machine, MsgId, MsgType, Now, Packer, RemoteError, Session,
};
use serde_json::json;

fn engine(packer: Packer, key: &str) -> (EngineCore, Session) {
    let session = |name: &str| Session::new(name.into(), "u", Key::new(key), packer, 1);
    let announcement = Announcement { functions: vec!["f".into()], process: true, ..Announcement::default() };
    let engine = EngineCore::new(Config {
        session: session("engine"),
        id: None,
        again: false,
        announcement,
        null: false,
        registration_timeout: Duration::from_secs(5),
        max_missed_pings: 50,
    });
    (engine, session("peer"))
}

fn msg_type() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "apply_request",
        "execute_request",
        "kernel_info_request",
        "abort_request",
        "shutdown_request",
        "signal_request",
        "clear_request",
        "registration_reply",
        "foo_request",
        "comm_msg",
    ])
}

/// Packed parts: sensible, nearly sensible, and noise.
fn part() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => prop::sample::select(vec![
            json!({}),
            json!({"remuda": {"function": "f"}}),
            json!({"remuda": {"function": "g"}}),
            json!({"remuda": {"process": {"argv": ["x"]}}}),
            json!({"remuda": {"process": {"argv": ["x"], "input": "stdin"}}}),
            json!({"remuda": {"stop": true}, "msg_ids": []}),
            json!({"msg_ids": ["m0", "m1", "m2"]}),
            json!({"msg_ids": "m3", "remuda": {"stop": true}}),
            json!({"sig": 15}),
            json!({"status": "ok", "id": 1, "hb_period": 100}),
            json!({"is_broadcast": true, "label": {"deep": [1, null]}}),
            json!([1, 2]),
            json!(null),
        ])
        .prop_map(|value| value.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Signed { link: u8, id: u8, msg_type: &'static str, metadata: Vec<u8>, content: Vec<u8>, buffer: Option<Vec<u8>> },
    Noise { link: u8, parts: Vec<Vec<u8>> },
    Finish(bool),
    Wait(u64),
    Ping,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_u8, 0..6_u8, msg_type(), part(), part(), prop::option::of(prop::collection::vec(any::<u8>(), 0..8)))
            .prop_map(|(link, id, msg_type, metadata, content, buffer)| Step::Signed {
                link, id, msg_type, metadata, content, buffer
            }),
        1 => (0..3_u8, prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 5..8))
            .prop_map(|(link, parts)| Step::Noise { link, parts }),
        3 => any::<bool>().prop_map(Step::Finish),
        1 => (0..4_000_u64).prop_map(Step::Wait),
        1 => Just(Step::Ping),
    ]
}

fn event(link: u8, body: Body) -> Event {
    let frames = Frames::new([Identity::from(&b"c"[..])], body.clone());
    match link {
        0 => Event::Registered(body),
        1 => Event::Shell(frames),
        _ => Event::Control(frames),
    }
}

fn noise(parts: &[Vec<u8>]) -> Body {
    let mut all = vec![b"<IDS|MSG>".to_vec()];
    all.extend(parts.iter().cloned());
    Frames::from_parts(all).expect("a delimiter and five frames or more").body
}

proptest! {
    /// Method: random steps against a registered engine. Its only driver duty, to end what was started, is kept.
    #[test]
    fn nothing_that_a_peer_sends_breaks_an_engine(steps in prop::collection::vec(step(), 0..60)) {
        let (mut engine, mut peer) = engine(Packer::Json, "key");
        let mut now = Now { instant: Instant(1), date: Date(1) };
        let mut out = Vec::new();
        let (mut running, mut line): (Option<MsgId>, VecDeque<MsgId>) = (None, VecDeque::new());
        engine.handle(now, Event::Start, &mut out);
        let granted = json!({"status": "ok", "id": 1, "hb_period": 100});
        let reply = peer.message(now.date, MsgType::RegistrationReply, None, &json!({}), &granted, &[]).unwrap().1;
        engine.handle(now, Event::Registered(reply), &mut out);
        for step in steps {
            out.clear();
            match step {
                Step::Signed { link, id, msg_type, metadata, content, buffer } => {
                    let header = Header { msg_id: format!("m{id}").into(), ..peer.header(now.date, msg_type.into()) };
                    let header = serde_json::to_vec(&header).unwrap();
                    let body = peer.sign_parts([&header, b"{}", &metadata, &content], buffer.map(Bytes::from));
                    engine.handle(now, event(link, body), &mut out);
                }
                Step::Noise { link, parts } => engine.handle(now, event(link, noise(&parts)), &mut out),
                Step::Finish(well) => {
                    if let Some(msg_id) = running.take() {
                        let outcome = if well {
                            Outcome::Value { pickle: Bytes::new(), msgpack: Bytes::new(), buffers: Vec::new() }
                        } else {
                            Outcome::Failed(RemoteError::new("E", "e"))
                        };
                        running = line.pop_front();
                        let done = Event::TaskDone { msg_id, outcome, at: now.date, next: running.clone() };
                        engine.handle(now, done, &mut out);
                    }
                }
                Step::Wait(ms) => {
                    now.instant = now.instant + Duration::from_millis(ms);
                    engine.on_deadline(now, &mut out);
                    prop_assert!(engine.deadline().is_none_or(|at| at > now.instant), "every deadline was met");
                }
                Step::Ping => engine.handle(now, Event::Ping, &mut out),
            }
            while !out.is_empty() {
            let mut answers = Vec::new();
            for effect in &out {
                match effect {
                    Effect::LineUp { msg_id, .. } => line.push_back(msg_id.clone()),
                    Effect::StartNext => {
                        prop_assert!(running.is_none(), "one at a time");
                        running = line.pop_front();
                        answers.push(Event::Began { msg_id: running.clone(), at: now.date });
                    }
                    Effect::Withdraw { msg_id } => {
                        line.retain(|lined| lined != msg_id);
                        answers.push(Event::Withdrawn { msg_id: msg_id.clone() });
                    }
                    Effect::Start { msg_id, .. } => prop_assert!(running.replace(msg_id.clone()).is_none(), "one at a time"),
                    Effect::Signal { msg_id, .. } => prop_assert_eq!(running.as_ref(), Some(msg_id)),
                    _ => {}
                }
            }
            out.clear();
            answers.into_iter().for_each(|event| engine.handle(now, event, &mut out));
            engine.check();
            }
        }
    }

    /// The same with noise alone, under both packers and no key, so that all of it is believed.
    #[test]
    fn noise_that_is_believed_breaks_nothing(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 5..8),
        link in 0..3_u8,
        msgpack: bool,
    ) {
        let packer = if msgpack { Packer::Msgpack } else { Packer::Json };
        let (mut engine, _) = engine(packer, "");
        let mut out = Vec::new();
        engine.handle(Now::default(), Event::Start, &mut out);
        engine.handle(Now::default(), event(link, noise(&parts)), &mut out);
        engine.check();
    }
}
