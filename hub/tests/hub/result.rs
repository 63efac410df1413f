//! Results, and the records that they are made of.

use remuda_hub::store::MemoryStore;
use remuda_hub::{Effect, Limits};
use remuda_proto::message::{MsgType, Status};
use remuda_proto::monitor::{Monitor, Queue};
use serde_json::json;

use super::support::{Story, client};

fn limited(records: usize, size_bytes: usize) -> Story {
    let limits = Limits { records, size_bytes, cull_fraction: 0.1 };
    Story::with(MemoryStore::new(limits))
}

fn history(story: &mut Story) -> Vec<String> {
    let history = story.ask("history_request", &json!({})).content["history"].clone();
    serde_json::from_value(history).unwrap()
}

#[test]
fn results_come_sorted_with_their_buffers_in_one_row() {
    let mut story = Story::new();
    story.engine("e");
    for id in ["c", "a", "b"] {
        story.direct(id, "e");
    }
    for id in ["c", "a"] {
        story.ends(id, Queue::Mux, Some("e"), Status::Ok);
    }
    let answer = story.ask("result_request", &json!({"msg_ids": ["c", "b", "a", "c"], "status_only": false}));
    assert_eq!(answer.msg_type, MsgType::ResultReply);
    assert_eq!(answer.content["status"], "ok");
    assert_eq!((&answer.content["pending"], &answer.content["completed"]), (&json!(["b"]), &json!(["a", "c"])));
    let buffers: Vec<_> = answer.body.buffers().collect();
    assert_eq!(buffers, [b"result of a", b"result of c"]);
    let keys: Vec<_> = answer.content.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["status", "pending", "completed", "a", "c"]);

    let result = &answer.content["a"];
    let keys: Vec<_> = result.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["header", "metadata", "result_metadata", "result_header", "result_content", "received", "io"]);
    assert_eq!(result["header"]["msg_id"], "a");
    assert_eq!(result["metadata"], json!({"label": null}));
    assert_eq!(result["result_metadata"]["engine"], "e");
    assert_eq!(result["result_header"]["msg_type"], "apply_reply");
    assert_eq!(result["result_content"], json!({"status": "ok"}));
    assert_eq!(result["received"], story.now.date.to_string());
    assert_eq!(
        result["io"],
        json!({"execute_input": null, "execute_result": null, "error": null, "stdout": "", "stderr": ""})
    );
}

#[test]
fn the_status_alone_is_two_lists() {
    let mut story = Story::new();
    story.engine("e");
    story.direct("a", "e");
    story.task_on("b", "e");
    story.ends("b", Queue::Task, Some("e"), Status::Error);
    let answer = story.ask("result_request", &json!({"msg_ids": ["b", "a"], "status_only": true}));
    assert_eq!(answer.content, json!({"status": "ok", "pending": ["a"], "completed": ["b"]}));
    assert_eq!(answer.body.buffer_count(), 0);
}

#[test]
fn one_unknown_id_spoils_the_answer() {
    let mut story = Story::new();
    story.engine("e");
    story.direct("a", "e");
    story.ends("a", Queue::Mux, Some("e"), Status::Ok);
    for status_only in [true, false] {
        let answer = story.ask("result_request", &json!({"msg_ids": ["a", "x"], "status_only": status_only}));
        assert_eq!(answer.error(), ("result_reply", "KeyError", "'No such message: x'"));
        assert_eq!(answer.body.buffer_count(), 0);
    }
    let answer = story.ask("result_request", &json!({"msg_ids": []}));
    assert_eq!(answer.content, json!({"status": "ok", "pending": [], "completed": []}));
}

#[test]
fn who_asks_for_it_is_told_which_ids_nobody_knows() {
    let mut story = Story::new();
    story.engine("e");
    story.direct("a", "e");
    story.direct("b", "e");
    story.ends("a", Queue::Mux, Some("e"), Status::Ok);
    for status_only in [true, false] {
        let request = json!({"msg_ids": ["a", "b", "x"], "status_only": status_only, "remuda": {}});
        let answer = story.ask("result_request", &request);
        let told = ["completed", "pending", "unknown"].map(|key| answer.content[key].clone());
        assert_eq!(told, [json!(["a"]), json!(["b"]), json!(["x"])]);
        assert_eq!(answer.content["a"].is_null(), status_only);
    }
}

#[test]
fn a_question_that_came_behind_requests_is_answered_on_the_hubs_own_socket() {
    let mut story = Story::new();
    story.engine("e");
    story.request("a", Queue::Task, None);
    let content = json!({"msg_ids": ["a", "b"], "status_only": true, "remuda": {}});
    let body = story.message("result_request", &content);
    let out = story.monitor(Monitor::Asked { client: client(), body: body.clone() });
    let [Effect::Reply { to, body: reply }] = &out[..] else { panic!("{out:?}") };
    assert_eq!(to[..], [client()]);
    let answer = story.read(reply);
    assert_eq!(answer.parent["msg_type"], "result_request");
    assert_eq!((&answer.content["pending"], &answer.content["unknown"]), (&json!(["a"]), &json!(["b"])));
    let again = story.monitor(Monitor::Asked { client: client(), body });
    assert!(matches!(&again[..], [Effect::Refused { .. }]), "{again:?}");
}

#[test]
fn a_result_whose_record_is_gone_is_a_hub_error() {
    let mut story = Story::new();
    story.engine("e");
    story.direct("a", "e");
    story.ends("a", Queue::Mux, Some("e"), Status::Ok);
    story.ask("purge_request", &json!({"msg_ids": ["a"]}));
    assert_eq!(story.status_of("a"), "completed");
    let answer = story.ask("result_request", &json!({"msg_ids": ["a"]}));
    assert_eq!(answer.error(), ("hub_error", "KeyError", "'a'"));
}

#[test]
fn the_oldest_records_go_a_tenth_at_a_time() {
    let mut story = limited(20, 1 << 20);
    for at in 0..20 {
        story.request(&format!("t{at:02}"), Queue::Task, None);
    }
    assert_eq!(history(&mut story).len(), 20);
    story.request("t20", Queue::Task, None);
    let left = history(&mut story);
    assert_eq!((left.len(), &*left[0], &*left[18]), (19, "t02", "t20"));
    assert_eq!(story.status_of("t00"), "pending", "what runs is known without a record");
    story.engine("e");
    story.sent("t00", "e");
    story.publishes("stream", "e", Some("t00"), &json!({"name": "stdout", "text": "x"}));
    story.ends("t00", Queue::Task, Some("e"), Status::Ok);
    assert_eq!(history(&mut story).len(), 19, "a record that was dropped stays dropped");
    let answer = story.ask("result_request", &json!({"msg_ids": ["t00"]}));
    assert_eq!(answer.error(), ("hub_error", "KeyError", "'t00'"));
}

#[test]
fn records_make_room_when_they_grow() {
    let mut story = limited(1024, 18_000);
    story.engine("e");
    for id in ["a", "b", "c"] {
        story.direct(id, "e");
    }
    let text = "x".repeat(4_500);
    for id in ["a", "b", "c"] {
        story.publishes("stream", "e", Some(id), &json!({"name": "stdout", "text": text}));
    }
    assert_eq!(history(&mut story), ["a", "b", "c"]);
    story.publishes("stream", "e", Some("c"), &json!({"name": "stderr", "text": text}));
    assert_eq!(history(&mut story), ["b", "c"], "the oldest first, down to nine tenths");
    story.publishes("stream", "e", Some("c"), &json!({"name": "stderr", "text": "y".repeat(30_000)}));
    assert_eq!(history(&mut story), Vec::<String>::new(), "even the one that grew");
    assert_eq!(story.publishes("stream", "e", Some("c"), &json!({"name": "stderr", "text": "z"})), []);
}

#[test]
fn a_store_without_room_keeps_nothing() {
    for (records, size_bytes) in [(0, 1 << 20), (10, 0)] {
        let mut story = limited(records, size_bytes);
        story.request("t", Queue::Task, None);
        assert_eq!(history(&mut story), Vec::<String>::new());
        assert_eq!(story.status_of("t"), "pending");
    }
}
