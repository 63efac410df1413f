//! Whatever peers send, the hub neither panics nor grows beyond its limits.

use proptest::prelude::*;
use remuda_hub::heart::{self, HeartMonitor};
use remuda_hub::store::MemoryStore;
use remuda_hub::{Event, Limits};
use remuda_proto::{BodyBuilder, Identity, Instant, Machine, Now};
use serde_json::{Value, json};

use super::support::{Story, client};

const TYPES: &[&str] = &[
    "connection_request",
    "registration_request",
    "unregistration_request",
    "queue_request",
    "load_request",
    "result_request",
    "history_request",
    "purge_request",
    "shutdown_request",
    "db_request",
    "resubmit_request",
    "nonsense",
];

/// Any JSON, with a liking for what the hub looks at.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..4_u32).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-d]".prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
        Just(json!("all")),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        let key = prop_oneof![
            4 => proptest::sample::select(&["uuid", "id", "remuda", "targets", "verbose", "msg_ids", "engine_ids",
                "status_only", "version", "functions", "pid",
                "query", "keys", "msg_id", "submitted", "label", "$in", "$lt", "$glob", "$mod", "$or", "$not"][..]).prop_map(str::to_owned),
            1 => "\\PC{0,3}",
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((key, inner), 0..6).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// One thing that a peer, or two, do.
#[derive(Clone, Debug)]
enum Step {
    Ask(&'static str, Value),
    Raw(Vec<Vec<u8>>),
    Signed([Vec<u8>; 4]),
    Beat(String),
    Stop(String),
    Publish(&'static str, String, Value),
    Pass(u64),
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        value().prop_map(|value| value.to_string().into_bytes()),
        Just(br#"{"msg_id": "a", "msg_type": "result_request"}"#.to_vec()),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let types = || proptest::sample::select(TYPES);
    let output = proptest::sample::select(&["stream", "shutdown_reply", "execute_input", "error", "status"][..]);
    prop_oneof![
        6 => (types(), value()).prop_map(|(msg_type, content)| Step::Ask(msg_type, content)),
        1 => proptest::collection::vec(bytes(), 5..8).prop_map(Step::Raw),
        2 => [bytes(), bytes(), bytes(), bytes()].prop_map(Step::Signed),
        2 => "[a-d]".prop_map(Step::Beat),
        1 => "[a-d]".prop_map(Step::Stop),
        2 => (output, "[a-d]", value()).prop_map(|(msg_type, engine, content)| Step::Publish(msg_type, engine, content)),
        1 => (0..40_u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn no_query_makes_the_hub_panic(steps in proptest::collection::vec(step(), 1..30)) {
        let limits = Limits { records: 5, size_bytes: 5_000, cull_fraction: 0.1 };
        let mut story = Story::with(MemoryStore::new(limits));
        for uuid in ["a", "b"] {
            story.engine(uuid);
        }
        for id in ["a", "b", "c"] {
            story.direct(id, "a");
        }
        let from = || [client()].into_iter().collect();
        for step in steps {
            match step {
                Step::Ask(msg_type, content) => drop(story.query(msg_type, &content)),
                Step::Raw(parts) => {
                    let mut builder = BodyBuilder::default();
                    parts.iter().for_each(|part| builder.push(part));
                    let out = story.event(Event::Query { from: from(), body: builder.finish().unwrap() });
                    prop_assert!(out.len() <= 1);
                }
                Step::Signed(parts) => {
                    let body = story.client.sign_parts(parts.each_ref().map(Vec::as_slice), []);
                    story.event(Event::Query { from: from(), body });
                }
                Step::Beat(uuid) => drop(story.beat(&[&uuid])),
                Step::Stop(uuid) => drop(story.event(Event::StoppedHearts(vec![uuid.into()]))),
                Step::Publish(msg_type, engine, content) => {
                    story.publishes(msg_type, &engine, Some("a"), &content);
                }
                Step::Pass(seconds) => drop(story.pass(std::time::Duration::from_secs(seconds))),
            }
        }
    }

    #[test]
    fn no_pong_makes_the_monitor_panic(
        pongs in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..4), any::<bool>(), 0..9_u64), 0..60),
    ) {
        let mut monitor = HeartMonitor::new(heart::Config::default(), Instant(0));
        let mut now = Now::default();
        let mut ping = Vec::new();
        for (heart, right, seconds) in pongs {
            now.instant = now.instant + std::time::Duration::from_secs(seconds);
            let mut out = Vec::new();
            monitor.on_deadline(now, &mut out);
            if let Some(heart::Effect::Ping(bytes)) = out.pop() {
                ping = bytes;
            }
            let payload = if right { ping.clone() } else { heart.clone() };
            monitor.handle(now, heart::Event::Pong { heart: Identity::from(&heart[..]), payload }, &mut out);
            monitor.check();
        }
    }
}
