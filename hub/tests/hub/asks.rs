//! A store that answers late: nobody waits for it but who asked, and its answer is of the time when it was asked.

use remuda_hub::store::{StoreError, Write};
use remuda_hub::{Effect, Event, MAX_ASKS};
use remuda_proto::message::Status;
use remuda_proto::monitor::{Monitor, Queue, Ticket};
use remuda_proto::{Identity, Machine};
use serde_json::json;

use super::support::{LONG, Story, refusal};

fn slow() -> Story {
    let mut story = Story::new();
    story.is_slow = true;
    story
}

/// The content of the one reply.
fn content(story: &Story, out: &[Effect]) -> serde_json::Value {
    let [Effect::Reply { body, .. }] = out else { panic!("one reply is due: {out:?}") };
    story.read(body).content
}

#[test]
fn the_hub_goes_on_while_the_store_is_slow() {
    let mut story = slow();
    story.engine("e");
    story.task_on("t", "e");
    story.ends("t", Queue::Task, Some("e"), Status::Ok);
    assert_eq!(story.query("db_request", &json!({"query": {}, "keys": ["msg_id"]})), []);
    assert_eq!(story.query("history_request", &json!({})), []);
    assert_eq!(story.ask("connection_request", &json!({})).content["status"], "ok");
    story.task_on("later", "e");
    let out = story.store_answers();
    let [first, second] = &out[..] else { panic!("{out:?}") };
    assert_eq!(content(&story, std::slice::from_ref(first))["records"], json!([{"msg_id": "t"}]));
    assert_eq!(content(&story, std::slice::from_ref(second))["history"], json!(["t"]));
}

#[test]
fn a_task_that_ends_while_the_store_looks_for_it_is_pending() {
    let mut story = slow();
    story.engine("e");
    story.task_on("t", "e");
    assert_eq!(story.query("result_request", &json!({"msg_ids": ["t"]})), []);
    story.ends("t", Queue::Task, Some("e"), Status::Ok);
    let out = story.store_answers();
    assert_eq!(content(&story, &out)["pending"], json!(["t"]), "its result was not there when it was asked for");
    story.query("result_request", &json!({"msg_ids": ["t"]}));
    let out = story.store_answers();
    assert_eq!(content(&story, &out)["completed"], json!(["t"]));
}

#[test]
fn requests_of_an_engine_that_left_are_pending_until_their_replies_are_on_record() {
    let mut story = slow();
    story.engine("e");
    for id in ["answered", "lost"] {
        story.direct(id, "e");
    }
    story.query("unregistration_request", &json!({"id": 0}));
    assert_eq!(story.pass(LONG), []);
    assert_eq!(story.status_of("lost"), "pending");
    assert_eq!(story.ends("answered", Queue::Mux, Some("e"), Status::Ok), [], "a late reply counts till then");
    assert_eq!(story.store_answers(), []);
    assert_eq!((story.status_of("lost"), story.status_of("answered")), ("completed", "completed"));
    story.is_slow = false;
    let query = json!({"query": {"state": "error"}, "keys": ["msg_id"]});
    assert_eq!(story.ask("db_request", &query).content["records"], json!([{"msg_id": "lost"}]));
}

#[test]
fn a_client_that_asks_too_much_of_a_slow_store_is_told_so() {
    let mut story = slow();
    for _ in 0..MAX_ASKS {
        assert_eq!(story.query("history_request", &json!({})), []);
    }
    let answer = story.ask("history_request", &json!({}));
    let (_, ename, evalue) = answer.error();
    assert_eq!(ename, "RuntimeError");
    assert!(evalue.starts_with("4096 questions wait for the task records"), "{evalue}");
    assert_eq!(story.store_answers().len(), MAX_ASKS);
}

#[test]
fn a_scheduler_never_waits_for_what_is_not_recorded() {
    let mut story = Story::new();
    story.engine("e");
    let mut marked = |queue, engine: Option<&str>, ticket: u64| {
        let (envelope, body) = story.apply("m", &json!({}));
        let ticket = Some(Ticket(ticket));
        let engine = engine.map(Into::into);
        let client = Some(Identity::from(&b"c"[..]));
        let mut out = Vec::new();
        story.hub.handle(
            story.now,
            Event::Monitor(Monitor::Request { queue, engine, client, envelope, body, ticket }),
            &mut out,
        );
        out
    };
    let out = marked(Queue::Mux, Some("e"), 7);
    let [Effect::Store(Write::Add(record)), Effect::Store(mark)] = &out[..] else { panic!("{out:?}") };
    assert_eq!(record.reply_to, Some(Identity::from(&b"c"[..])));
    assert_eq!(*mark, Write::Mark { queue: Queue::Mux, ticket: Ticket(7) }, "after what it is about");
    for (queue, engine) in
        [(Queue::Mux, Some("e")), (Queue::Mux, Some("nowhere")), (Queue::Broadcast, None), (Queue::Task, None)]
    {
        let out = marked(queue, engine, 8);
        let [Effect::Store(Write::Mark { queue: of, ticket: Ticket(8) }), Effect::Refused { .. }] = &out[..] else {
            panic!("{out:?}")
        };
        assert_eq!(*of, queue);
    }
}

#[test]
fn trouble_of_the_store_is_told_to_who_asks_for_the_state() {
    let mut story = Story::new();
    story.event(Event::StoreTrouble(Some(StoreError::Failed("disk full".to_owned()))));
    story.event(Event::StoreRefused { changes: 3 });
    let dump = |story: &mut Story| {
        story.query("dump_request", &json!({}));
        let out = story.pass(LONG);
        content(story, &out)["hub"].clone()
    };
    let hub = dump(&mut story);
    assert_eq!(
        (&hub["store_trouble"], &hub["store_errors"]),
        (&json!("the task records failed: disk full"), &json!(3))
    );
    story.event(Event::StoreTrouble(None));
    assert_eq!(dump(&mut story)["store_trouble"], json!(null));
}

#[test]
fn a_task_waits_again_only_if_it_was_there() {
    let mut story = Story::new();
    assert!(matches!(refusal(&story.requeued("t")), remuda_proto::Refusal::Unexpected(_)));
}
