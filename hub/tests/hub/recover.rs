//! What a hub takes over from the records of an earlier controller.

use std::time::Duration;

use remuda_hub::record::{Outcome, TaskRecord};
use remuda_hub::store::{MemoryStore, TaskStore, Write};
use remuda_hub::{Config, Effect, Event, Limits, recovered, undelivered};
use remuda_proto::message::Status;
use remuda_proto::monitor::Queue;
use remuda_proto::recovery::Recovered;
use remuda_proto::{Date, Identity, Key, Packer, Session};
use serde_json::json;

use super::support::{KEY, Story};

/// A record of a request, as the earlier controller left it.
fn record(story: &mut Story, id: &str, queue: Queue, engine: Option<&str>, metadata: &serde_json::Value) -> TaskRecord {
    let (envelope, body) = story.apply(id, metadata);
    let record = TaskRecord::new(envelope.msg_id, Packer::Json, queue, body, Date(5_000_000));
    TaskRecord { engine: engine.map(Into::into), reply_to: Some(Identity::from(&b"c"[..])), ..record }
}

fn session(packer: Packer) -> Session {
    Session::new("new".into(), "ann", Key::new(KEY), packer, 1)
}

/// A hub that took over a waiting task, a running one, and a direct request.
fn took_over() -> Story {
    let mut story = Story::new();
    let records = [("waits", Queue::Task, None), ("runs", Queue::Task, Some("e")), ("direct", Queue::Mux, Some("e"))]
        .map(|(id, queue, engine)| record(&mut story, id, queue, engine, &json!({})));
    let mut store = MemoryStore::new(Limits::default());
    records.iter().for_each(|record| store.write(Write::Add(Box::new(record.clone()))));
    let mut story = Story::with(store);
    let now = story.now.date;
    let taken: Vec<Recovered> =
        records.iter().map(|record| recovered(&session(Packer::Json), record, now).unwrap()).collect();
    assert_eq!(story.event(Event::Recover(taken)), []);
    story
}

#[test]
fn what_was_taken_over_is_pending_and_ends_like_any_other() {
    let mut story = took_over();
    assert_eq!(story.hub.waiting_and_running(), (1, 2));
    for id in ["waits", "runs", "direct"] {
        assert_eq!(story.status_of(id), "pending");
    }
    assert!(matches!(&story.request("waits", Queue::Task, None)[..], [Effect::Refused { .. }]), "it is there already");
    story.engine("e");
    assert_eq!(story.sent("waits", "e"), []);
    for (id, queue) in [("waits", Queue::Task), ("runs", Queue::Task), ("direct", Queue::Mux)] {
        assert_eq!(story.ends(id, queue, Some("e"), Status::Ok), []);
        assert_eq!(story.status_of(id), "completed");
    }
    assert_eq!(story.hub.waiting_and_running(), (0, 0));
}

#[test]
fn a_reply_is_sent_anew_with_its_request_as_its_parent_to_who_is_still_owed_it() {
    let mut story = Story::new();
    let open = record(&mut story, "t", Queue::Task, Some("e"), &json!({}));
    assert!(undelivered(&session(Packer::Json), &open).is_none(), "there is no reply");
    let body = open.request.clone();
    let outcome = Outcome { packer: Packer::Json, body, received: Date(6_000_000), status: Status::Ok };
    let done = TaskRecord { outcome: Some(outcome), ..open };
    let reply = undelivered(&session(Packer::Json), &done).unwrap();
    session(Packer::Json).key().verify(&reply.body).unwrap();
    assert_eq!(reply.body.parent_header(), done.request.header());
    assert_eq!((reply.queue, reply.client.as_bytes(), reply.engine), (Queue::Task, &b"c"[..], Some("e".into())));
    assert!(undelivered(&session(Packer::Msgpack), &done).is_none(), "it is from another cluster");
    assert!(undelivered(&session(Packer::Json), &TaskRecord { reply_to: None, ..done }).is_none(), "it was delivered");
}

#[test]
fn a_direct_request_whose_engine_stays_away_is_given_up_at_last() {
    let mut story = took_over();
    let config = Config::default();
    assert_eq!(story.pass(config.registration_timeout), []);
    assert_eq!(story.status_of("direct"), "pending", "the engine has more time than one that left");
    assert_eq!(story.pass(config.recovery_timeout), []);
    assert_eq!(story.status_of("direct"), "completed");
    assert_eq!(story.status_of("runs"), "pending", "this is for the task scheduler to decide");
}

#[test]
fn a_request_is_signed_anew_and_knows_its_past() {
    let mut story = Story::new();
    let waiting = record(&mut story, "m", Queue::Task, None, &json!({"retries": 4}));
    let new = session(Packer::Json);
    let taken = recovered(&new, &waiting, Date(7_500_000)).unwrap();
    assert_eq!(new.key().verify(&taken.body), Ok(()));
    assert_eq!(taken.body.header(), waiting.request.header());
    assert_eq!(taken.body.buffers().collect::<Vec<_>>(), waiting.request.buffers().collect::<Vec<_>>());
    assert_eq!((taken.retries, taken.waited), (4, Duration::from_millis(2500)), "as it was asked for");
    assert_eq!(taken.client, Some(Identity::from(&b"c"[..])));
    let mut tried = waiting;
    tried.assign("e".into(), 3);
    tried.requeue(2);
    let taken = recovered(&new, &tried, Date(0)).unwrap();
    assert_eq!((taken.retries, &taken.tried[..], taken.engine), (2, &["e".into()][..], None));
    assert_eq!(taken.waited, Duration::ZERO, "the clock was set back");
    assert!(recovered(&session(Packer::Msgpack), &tried, Date(0)).is_none(), "that is of another cluster");
}
