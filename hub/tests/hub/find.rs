//! `db_request` and `resubmit_request`.

use remuda_hub::Effect;
use remuda_hub::store::NoStore;
use remuda_proto::message::{Envelope, MsgType, Status};
use remuda_proto::monitor::Queue;
use remuda_proto::{Body, Packer};
use serde_json::{Value, json};

use super::support::Story;

/// Four requests: `a` and `b` direct, on engine `e` and `f`, of which `a` has ended well and printed; `c` a task that
/// failed on `f`; `d` a task that waits, with the label `last`.
fn story() -> Story {
    let mut story = Story::new();
    for uuid in ["e", "f"] {
        story.engine(uuid);
    }
    story.direct("a", "e");
    story.direct("b", "f");
    story.task_on("c", "f");
    let (envelope, body) = story.apply("d", &json!({"label": "last", "retries": 2}));
    story.took(Queue::Task, None, envelope, body);
    story.publishes("stream", "e", Some("a"), &json!({"name": "stdout", "text": "printed\n"}));
    story.ends("a", Queue::Mux, Some("e"), Status::Ok);
    story.ends("c", Queue::Task, Some("f"), Status::Error);
    story
}

fn found(story: &mut Story, query: &Value) -> Vec<String> {
    let answer = story.ask("db_request", &json!({"query": query, "keys": ["msg_id"]}));
    assert_eq!(answer.content["status"], "ok", "{query}: {answer:?}");
    let ids = answer.content["records"].as_array().unwrap().iter();
    ids.map(|record| record["msg_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn each_operator_finds_what_it_says() {
    let mut story = story();
    let submitted = |story: &mut Story, id: &str| {
        let content = json!({"query": {"msg_id": id}, "keys": ["submitted"]});
        story.ask("db_request", &content).content["records"][0]["submitted"].clone()
    };
    let (b, c) = (submitted(&mut story, "b"), submitted(&mut story, "c"));
    for (query, ids) in [
        (json!({}), "abcd"),
        (json!({"msg_id": "b"}), "b"),
        (json!({"msg_id": null}), ""),
        (json!({"queue": "mux", "engine_uuid": "e"}), "a"),
        (json!({"queue": "mux", "engine_uuid": "nobody"}), ""),
        (json!({"msg_id": {"$eq": "c"}}), "c"),
        (json!({"engine_uuid": {"$ne": "f"}}), "ad"),
        (json!({"completed": {"$ne": null}}), "ac"),
        (json!({"completed": null}), "bd"),
        (json!({"completed": {"$exists": true}}), "ac"),
        (json!({"completed": {"$exists": 0}}), "bd"),
        (json!({"submitted": {"$lt": b}}), "a"),
        (json!({"submitted": {"$lte": b}}), "ab"),
        (json!({"submitted": {"$gt": b}}), "cd"),
        (json!({"submitted": {"$gte": b, "$lt": c}}), "b"),
        (json!({"submitted": b}), "b"),
        (json!({"submitted": "no date"}), ""),
        (json!({"completed": {"$gt": "2001-01-01T00:00:00Z"}}), "ac"),
        (json!({"completed": {"$not": {"$gt": "2001-01-01T00:00:00Z"}}}), "bd"),
        (json!({"msg_id": {"$in": ["d", "x", "a"]}}), "ad"),
        (json!({"msg_id": {"$in": []}}), ""),
        (json!({"msg_id": {"$nin": ["d", "x", "a"]}}), "bc"),
        (json!({"engine_uuid": {"$in": [null, "e"]}}), "ad"),
        (json!({"engine_uuid": {"$nin": ["f"]}}), "ad"),
        (json!({"msg_id": {"$lt": "b"}}), "a"),
        (json!({"label": "last"}), "d"),
        (json!({"label": {"$glob": "l*[s-u]"}}), "d"),
        (json!({"label": {"$all": ["last", "last"]}}), "d"),
        (json!({"label": {"$mod": [2, 0]}}), ""),
        (json!({"stdout": {"$glob": "*rint*"}}), "a"),
        (json!({"stdout": ""}), "bcd"),
        (json!({"result_content": {"$eq": {"status": "ok"}}}), "a"),
        (json!({"metadata": {"$eq": {"retries": 2.0, "label": "last"}}}), "d"),
        (json!({"result_buffers": null}), "bd"),
        (json!({"buffers": {"$ne": null}}), "abcd"),
        (json!({"$or": [{"msg_id": "a"}, {"label": "last"}]}), "ad"),
        (json!({"$or": []}), ""),
        (json!({"$and": [{"queue": "mux"}, {"$not": {"msg_id": "a"}}]}), "b"),
    ] {
        assert_eq!(found(&mut story, &query).concat(), ids, "{query}");
    }
}

#[test]
fn a_record_has_the_fields_of_stock_and_no_buffers() {
    let mut story = story();
    let answer = story.ask("db_request", &json!({"query": {"msg_id": "a"}, "keys": null}));
    assert_eq!(answer.msg_type, MsgType::DbReply);
    assert_eq!((&answer.content["buffer_lens"], &answer.content["result_buffer_lens"]), (&json!(null), &json!(null)));
    assert_eq!(answer.body.buffer_count(), 0);
    let record = answer.content["records"][0].as_object().unwrap();
    let keys: Vec<_> = record.keys().map(String::as_str).collect();
    assert_eq!(
        keys.join(" "),
        "msg_id header metadata content submitted client_uuid engine_uuid started completed resubmitted received \
         result_header result_metadata result_content queue execute_input execute_result error stdout stderr label"
    );
    assert_eq!(record["submitted"], record["header"]["date"]);
    assert_eq!(record["completed"], record["result_header"]["date"]);
    assert_eq!(record["started"], record["result_metadata"]["started"]);
    assert_eq!(record["client_uuid"], "client");
    assert_eq!((&record["queue"], &record["engine_uuid"]), (&json!("mux"), &json!("e")));
    assert_eq!(
        (&record["stdout"], &record["error"], &record["label"]),
        (&json!("printed\n"), &json!(null), &json!(null))
    );

    story.publishes("display_data", "e", Some("a"), &json!({"data": {"text/plain": "x"}}));
    let answer = story.ask("db_request", &json!({"query": {"display_data": {"$ne": null}}}));
    assert_eq!(answer.content["records"][0]["display_data"], json!({"data": {"text/plain": "x"}}));
}

#[test]
fn buffers_that_are_named_follow_record_by_record() {
    let mut story = story();
    let query = json!({"msg_id": {"$in": ["a", "b"]}});
    let answer = story.ask("db_request", &json!({"query": query, "keys": ["result_buffers", "buffers", "queue"]}));
    assert_eq!(answer.content["records"], json!([{"msg_id": "a", "queue": "mux"}, {"msg_id": "b", "queue": "mux"}]));
    assert_eq!(answer.content["buffer_lens"], json!([2, 2]));
    assert_eq!(answer.content["result_buffer_lens"], json!([1, 0]));
    let buffers: Vec<_> = answer.body.buffers().collect();
    assert_eq!(buffers, [&b"f"[..], b"a", b"result of a", b"f", b"b"]);

    let answer = story.ask("db_request", &json!({"query": query, "keys": ["result_buffers"]}));
    assert_eq!((&answer.content["buffer_lens"], &answer.content["result_buffer_lens"]), (&json!(null), &json!([1, 0])));
    assert_eq!(answer.body.buffer_count(), 1);
}

#[test]
fn a_query_that_makes_no_sense_is_a_db_reply() {
    let mut story = story();
    for (content, ename, evalue) in [
        (json!({"query": {"nosuch": 1}}), "KeyError", "\"Illegal testing key(s): {'nosuch'}\""),
        (json!({"query": {"msg_id": {"$foo": 1}}}), "KeyError", "'$foo'"),
        (json!({"query": {}, "keys": ["x"]}), "KeyError", "\"Bad record key(s): ['x']\""),
        (json!({"query": [1]}), "TypeError", "`query` is not a map: [1]"),
        (json!({"query": {"label": {"$mod": [0, 1]}}}), "ZeroDivisionError", "integer modulo by zero"),
    ] {
        assert_eq!(story.ask("db_request", &content).error(), ("db_reply", ename, evalue), "{content}");
    }
    let mut story = Story::with(NoStore::default());
    for (msg_type, content) in [("db_request", json!({"query": {}})), ("resubmit_request", json!({"msg_ids": ["a"]}))] {
        let reply = msg_type.replace("request", "reply");
        let error = (&*reply, "NoData", "NoDB backend doesn't store any data. ");
        assert_eq!(story.ask(msg_type, &content).error(), error);
    }
}

#[test]
fn records_of_either_packer_are_shown_the_same() {
    let mut story = Story::packed(Packer::Msgpack);
    story.engine("e");
    story.direct("a", "e");
    story.ends("a", Queue::Mux, Some("e"), Status::Ok);
    assert_eq!(found(&mut story, &json!({"completed": {"$ne": null}, "header": {"$ne": {}}})), ["a"]);
}

/// Asks for requests to be repeated; what the task scheduler gets, and the reply.
fn resubmit(story: &mut Story, ids: &Value) -> (Vec<(String, Body)>, Value) {
    let mut repeated = Vec::new();
    for effect in story.query("resubmit_request", &json!({"msg_ids": ids})) {
        match effect {
            Effect::Resubmit { msg_id, body } => repeated.push((msg_id.to_string(), body)),
            Effect::Reply { body, .. } => {
                let answer = story.read(&body);
                assert_eq!(answer.msg_type, MsgType::ResubmitReply);
                return (repeated, answer.content);
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("no reply")
}

#[test]
fn a_request_is_repeated_under_a_new_id_and_its_result_is_for_the_hub() {
    let mut story = story();
    let (repeated, reply) = resubmit(&mut story, &json!(["a", "d", "a"]));
    let ids: Vec<_> = repeated.iter().map(|(id, _)| id.clone()).collect();
    assert_eq!(reply, json!({"status": "ok", "resubmitted": {"a": ids[0], "d": ids[1]}}));
    let body = &repeated[0].1;
    story.client.key().verify(body).unwrap();
    let part = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let (mut header, mut parent) = (part(body.header()), part(body.parent_header()));
    assert_eq!((&header["msg_id"], &parent["msg_id"]), (&json!(ids[0]), &json!("a")));
    assert_ne!(header["date"], parent["date"]);
    for key in ["msg_id", "date"] {
        header.as_object_mut().unwrap().shift_remove(key);
        parent.as_object_mut().unwrap().shift_remove(key);
    }
    assert_eq!(header, parent, "session and username stay those of the first client");
    let buffers: Vec<_> = body.buffers().collect();
    assert_eq!(buffers, [&b"f"[..], b"a"]);
    assert_eq!(Envelope::read(Packer::Json, body).unwrap().msg_type, MsgType::ApplyRequest);

    assert_eq!(story.status_of(&ids[0]), "pending", "before the scheduler says anything");
    assert_eq!(story.queues()["unassigned"], 3);
    assert_eq!(story.sent(&ids[0], "f"), []);
    assert_eq!(story.ends(&ids[0], Queue::Task, Some("f"), Status::Ok), []);
    let answer = story.ask("result_request", &json!({"msg_ids": [ids[0]]}));
    assert_eq!(answer.content["completed"], json!([ids[0]]));
    assert_eq!(found(&mut story, &json!({"resubmitted": ids[0]})), ["a"]);
    assert_eq!(found(&mut story, &json!({"msg_id": ids[0], "queue": "task", "client_uuid": "client"})), [&*ids[0]]);
}

#[test]
fn what_cannot_be_repeated_is_named_and_nothing_is_repeated() {
    let mut story = story();
    let (repeated, reply) = resubmit(&mut story, &json!(["a", "x", "y"]));
    assert_eq!(repeated, []);
    assert_eq!((&reply["ename"], &reply["evalue"]), (&json!("KeyError"), &json!("\"No such msg(s): ['x', 'y']\"")));
    let answer = story.ask("resubmit_request", &json!({}));
    assert_eq!(answer.error(), ("hub_error", "KeyError", "'msg_ids'"));
}

#[test]
fn a_repeated_request_keeps_what_its_client_asked_for() {
    let mut story = story();
    for (metadata, kept) in [
        (json!({"label": "l", "retries": 2, "timeout": 5.5, "targets": ["e"]}), None),
        (
            json!({"after": ["a", "d"], "follow": {"all": false, "success": true, "failure": true, "dependencies": ["c"]}}),
            None,
        ),
        (json!({"after": ["forgotten"], "follow": ["a", "forgotten"], "retries": 1}), Some(json!({"retries": 1}))),
    ] {
        let id = format!("t{}", story.now.date.0);
        let (envelope, body) = story.apply(&id, &metadata);
        story.took(Queue::Task, None, envelope, body);
        let (repeated, _) = resubmit(&mut story, &json!(id));
        let seen: Value = serde_json::from_slice(repeated[0].1.metadata()).unwrap();
        assert_eq!(seen, kept.unwrap_or(metadata));
    }
    let (envelope, body) = story.apply("direct", &json!({"label": "l", "targets": [["e", 0]], "is_broadcast": true}));
    story.took(Queue::Mux, Some("e"), envelope, body);
    let (repeated, _) = resubmit(&mut story, &json!("direct"));
    assert_eq!(repeated[0].1.metadata(), br#"{"label":"l"}"#, "any engine may run it now");
}
