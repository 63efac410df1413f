//! What the hub makes of the schedulers' traffic.

use std::time::Duration;

use remuda_hub::Effect;
use remuda_hub::store::NoStore;
use remuda_proto::message::Status;
use remuda_proto::monitor::Queue;
use remuda_proto::{Machine, Refusal};
use serde_json::json;

use super::support::{LONG, Story, refusal};

#[test]
fn a_direct_request_is_in_the_queue_of_its_engine_until_it_is_answered() {
    let mut story = Story::new();
    story.engine("a");
    story.engine("b");
    assert_eq!(story.direct("m", "b"), []);
    assert_eq!(
        story.queues(),
        json!({
            "0": {"queue": 0, "completed": 0, "tasks": 0},
            "1": {"queue": 1, "completed": 0, "tasks": 0},
            "unassigned": 0,
        })
    );
    assert_eq!(story.status_of("m"), "pending");
    assert_eq!(story.ends("m", Queue::Mux, Some("b"), Status::Ok), []);
    assert_eq!(story.queues()["1"], json!({"queue": 0, "completed": 1, "tasks": 0}));
    assert_eq!(story.status_of("m"), "completed");
}

#[test]
fn a_task_waits_then_is_with_its_engine_then_is_completed() {
    let mut story = Story::new();
    story.engine("a");
    story.request("t", Queue::Task, None);
    assert_eq!(story.queues(), json!({"0": {"queue": 0, "completed": 0, "tasks": 0}, "unassigned": 1}));
    story.sent("t", "a");
    assert_eq!(story.queues(), json!({"0": {"queue": 0, "completed": 0, "tasks": 1}, "unassigned": 0}));
    story.ends("t", Queue::Task, Some("a"), Status::Error);
    assert_eq!(story.queues(), json!({"0": {"queue": 0, "completed": 1, "tasks": 0}, "unassigned": 0}));
}

#[test]
fn a_task_that_is_tried_again_is_counted_on_its_last_engine_only() {
    let mut story = Story::new();
    for uuid in ["a", "b"] {
        story.engine(uuid);
    }
    story.task_on("t", "a");
    assert_eq!(story.requeued("t"), []);
    let queues = story.queues();
    assert_eq!((&queues["0"]["tasks"], &queues["unassigned"]), (&json!(0), &json!(1)));
    story.sent("t", "b");
    let queues = story.queues();
    assert_eq!((&queues["0"]["tasks"], &queues["1"]["tasks"]), (&json!(0), &json!(1)));
    story.ends("t", Queue::Task, None, Status::Error);
    let queues = story.queues();
    for id in ["0", "1"] {
        assert_eq!(queues[id], json!({"queue": 0, "completed": 0, "tasks": 0}), "the scheduler's error is nobody's");
    }
    assert_eq!(story.status_of("t"), "completed");
}

#[test]
fn an_aborted_task_is_nobodys_and_an_aborted_direct_request_counts() {
    let mut story = Story::new();
    story.engine("a");
    story.task_on("t", "a");
    story.ends("t", Queue::Task, Some("a"), Status::Aborted);
    assert_eq!(story.queues()["0"]["completed"], 0);
    story.direct("m", "a");
    story.ends("m", Queue::Mux, Some("a"), Status::Aborted);
    assert_eq!(story.queues()["0"]["completed"], 1);
}

#[test]
fn a_direct_request_for_nobody_is_not_tracked() {
    let mut story = Story::new();
    assert_eq!(refusal(&story.direct("m", "x")), &Refusal::UnknownEngine(b"x"[..].into()));
    assert_eq!(refusal(&story.request("m", Queue::Mux, None)), &Refusal::NoTarget);
    assert_eq!(story.status_of("m"), "unknown");
}

#[test]
fn a_reply_counts_once_and_only_from_the_engine_that_was_asked() {
    let mut story = Story::new();
    for uuid in ["a", "b"] {
        story.engine(uuid);
    }
    story.direct("m", "a");
    story.task_on("t", "a");
    let unexpected = |id: &str| Refusal::Unexpected(id.into());
    assert_eq!(refusal(&story.ends("m", Queue::Mux, Some("b"), Status::Ok)), &unexpected("m"));
    assert_eq!(refusal(&story.ends("m", Queue::Mux, None, Status::Ok)), &unexpected("m"));
    assert_eq!(refusal(&story.ends("m", Queue::Task, Some("a"), Status::Ok)), &unexpected("m"), "another scheduler");
    assert_eq!(refusal(&story.ends("t", Queue::Mux, Some("a"), Status::Ok)), &unexpected("t"));
    assert_eq!(refusal(&story.sent("m", "b")), &unexpected("m"));
    assert_eq!(refusal(&story.ends("made-up", Queue::Task, Some("a"), Status::Ok)), &unexpected("made-up"));
    assert_eq!(story.ends("m", Queue::Mux, Some("a"), Status::Ok), []);
    assert_eq!(refusal(&story.ends("m", Queue::Mux, Some("a"), Status::Ok)), &unexpected("m"));
    assert_eq!(story.queues()["0"], json!({"queue": 0, "completed": 1, "tasks": 1}));
}

#[test]
fn a_request_that_comes_twice_changes_nothing() {
    let mut story = Story::new();
    story.engine("a");
    story.direct("m", "a");
    let known = Refusal::Resubmitted("m".into());
    assert_eq!(refusal(&story.direct("m", "a")), &known);
    assert_eq!(refusal(&story.request("m", Queue::Task, None)), &known);
    story.ends("m", Queue::Mux, Some("a"), Status::Ok);
    assert_eq!(refusal(&story.direct("m", "a")), &known);
    assert_eq!(story.status_of("m"), "completed");
}

#[test]
fn the_direct_requests_of_a_dead_engine_are_given_up_after_a_while() {
    let mut story = Story::new();
    story.engine("a");
    story.direct("m", "a");
    story.direct("late", "a");
    story.query("unregistration_request", &json!({"id": 0}));
    assert_eq!(story.queues(), json!({"unassigned": 0}), "dead engines are not listed");
    assert_eq!(story.status_of("m"), "pending");
    assert_eq!(story.ends("late", Queue::Mux, Some("a"), Status::Ok), [], "a result on its way still counts");
    assert_eq!(story.pass(Duration::from_secs(29)), []);
    assert_eq!(story.status_of("m"), "pending");
    assert_eq!(story.pass(Duration::from_secs(1)), [], "nobody is told");
    assert_eq!(story.hub.deadline(), None);

    let answer = story.ask("result_request", &json!({"msg_ids": ["m", "late"]}));
    assert_eq!(answer.content["late"]["result_content"]["status"], "ok");
    let result = &answer.content["m"];
    assert_eq!(
        result["result_content"],
        json!({"status": "error", "ename": "EngineError", "evalue": "Engine 0 died while running task 'm'",
            "traceback": ["EngineError: Engine 0 died while running task 'm'"], "engine_info": {}})
    );
    assert_eq!(result["result_metadata"]["engine"], "a", "stock leaves it null, and its client fails on that");
    assert_eq!(result["result_header"]["msg_type"], "apply_reply");
    assert!(result["result_header"]["msg_id"].is_string());
    let unexpected = story.ends("m", Queue::Mux, Some("a"), Status::Ok);
    assert_eq!(refusal(&unexpected), &Refusal::Unexpected("m".into()), "too late");
}

#[test]
fn tasks_of_a_dead_engine_are_left_to_the_scheduler() {
    let mut story = Story::new();
    for uuid in ["a", "b"] {
        story.engine(uuid);
    }
    for task in ["moved", "failed", "back"] {
        story.task_on(task, "a");
    }
    story.query("unregistration_request", &json!({"id": 0}));
    story.pass(LONG);
    for task in ["moved", "failed", "back"] {
        assert_eq!(story.status_of(task), "pending");
    }
    assert_eq!(story.sent("moved", "b"), []);
    assert_eq!(story.sent("back", "a"), [], "the scheduler did not know yet");
    assert_eq!(story.queues()["1"]["tasks"], 1);
    story.ends("moved", Queue::Task, Some("b"), Status::Ok);
    story.ends("failed", Queue::Task, None, Status::Error);
    story.ends("back", Queue::Task, Some("a"), Status::Ok);
    assert_eq!(story.queues(), json!({"1": {"queue": 0, "completed": 1, "tasks": 0}, "unassigned": 0}));
    assert_eq!(story.hub.waiting_and_running(), (0, 0));
}

#[test]
fn output_is_kept_with_its_request() {
    let mut story = Story::new();
    story.engine("a");
    story.direct("m", "a");
    for (msg_type, content) in [
        ("status", json!({"execution_state": "busy"})),
        ("execute_input", json!({"code": "print(1)", "execution_count": 1})),
        ("stream", json!({"name": "stdout", "text": "one"})),
        ("stream", json!({"name": "stderr", "text": "err"})),
        ("stream", json!({"name": "stdout", "text": " two"})),
        ("execute_result", json!({"data": {"text/plain": "7"}})),
        ("display_data", json!({"data": {}})),
        ("error", json!({"ename": "E"})),
        ("comm_open", json!({"comm_id": "c"})),
    ] {
        assert_eq!(story.publishes(msg_type, "a", Some("m"), &content), [], "{msg_type}");
    }
    story.ends("m", Queue::Mux, Some("a"), Status::Ok);
    let answer = story.ask("result_request", &json!({"msg_ids": "m"}));
    assert_eq!(
        answer.content["m"]["io"],
        json!({"execute_input": "print(1)", "execute_result": {"data": {"text/plain": "7"}}, "error": {"ename": "E"},
            "stdout": "one two", "stderr": "err"})
    );
}

#[test]
fn output_of_no_request_is_dropped_and_damaged_output_refused() {
    let mut story = Story::new();
    let text = json!({"name": "stdout", "text": "x"});
    assert_eq!(story.publishes("stream", "a", None, &text), []);
    assert_eq!(story.publishes("stream", "a", Some("broadcast_a"), &text), []);
    assert_eq!(story.status_of("broadcast_a"), "unknown");
    for content in [json!({"name": "stdin", "text": "x"}), json!({"name": "stdout"}), json!(7)] {
        let out = story.publishes("stream", "a", Some("m"), &content);
        assert!(matches!(refusal(&out), Refusal::Unpack(_)));
    }
}

#[test]
fn without_records_tasks_are_counted_all_the_same() {
    let mut story = Story::with(NoStore::default());
    story.engine("a");
    story.task_on("t", "a");
    story.publishes("stream", "a", Some("t"), &json!({"name": "stdout", "text": "x"}));
    assert_eq!(story.status_of("t"), "pending");
    story.ends("t", Queue::Task, Some("a"), Status::Ok);
    assert_eq!(story.status_of("t"), "completed");
    story.direct("m", "a");
    story.query("unregistration_request", &json!({"id": 0}));
    assert_eq!(story.pass(LONG), Vec::<Effect>::new());
    assert_eq!(story.status_of("m"), "completed");
}

#[test]
fn each_copy_of_a_broadcast_is_a_request_to_its_engine() {
    let mut story = Story::new();
    for uuid in ["a", "b"] {
        story.engine(uuid);
    }
    for (id, engine) in [("x_a", "a"), ("x_b", "b")] {
        assert_eq!(story.request(id, Queue::Broadcast, Some(engine)), []);
    }
    assert!(matches!(story.ends("x_a", Queue::Mux, Some("a"), Status::Ok)[..], [Effect::Refused { .. }]));
    assert_eq!(story.ends("x_a", Queue::Broadcast, Some("a"), Status::Ok), []);
    assert_eq!(story.queues()["0"], json!({"queue": 0, "completed": 1, "tasks": 0}));
    assert_eq!(story.queues()["1"], json!({"queue": 1, "completed": 0, "tasks": 0}));
    assert_eq!(story.status_of("x_b"), "pending");
    story.query("unregistration_request", &json!({"id": 1}));
    story.pass(LONG);
    assert_eq!(story.status_of("x_b"), "completed", "given up as a direct request is");
    let query = json!({"query": {"queue": "broadcast", "engine_uuid": "b"}, "keys": ["result_content"]});
    let records = story.ask("db_request", &query).content["records"].clone();
    assert_eq!((&records[0]["msg_id"], &records[0]["result_content"]["ename"]), (&json!("x_b"), &json!("EngineError")));
}
