//! Questions and their answers.

use std::time::Duration;

use remuda_hub::store::NoStore;
use remuda_hub::{Config, Effect, Event};
use remuda_proto::message::content::{ControllerInfo, RemudaStatus};
use remuda_proto::message::{MsgType, Status};
use remuda_proto::monitor::Queue;
use remuda_proto::{BodyBuilder, Key, Machine, Packer, Refusal, Session, VerifyError};
use serde_json::{Value, json};

use super::support::{Story, client, refusal};

#[test]
fn a_reply_has_the_request_as_its_parent() {
    let mut story = Story::new();
    let body = story.message("connection_request", &json!({}));
    let out = story.event(Event::Query { from: [client()].into_iter().collect(), body: body.clone() });
    let [Effect::Reply { body: reply, .. }] = &out[..] else { panic!("{out:?}") };
    assert_eq!(reply.parent_header(), body.header(), "byte for byte");
    assert_eq!(story.read(reply).content, json!({"status": "ok", "engines": {}}));
}

#[test]
fn an_unknown_type_is_a_hub_error() {
    let mut story = Story::new();
    for (msg_type, evalue) in [
        ("foo_request", "\"Bad Message Type: 'foo_request'\""),
        ("apply_request", "\"Bad Message Type: 'apply_request'\""),
    ] {
        let answer = story.ask(msg_type, &json!({}));
        assert_eq!(answer.error(), ("hub_error", "KeyError", evalue));
        assert_eq!(answer.parent["msg_type"], msg_type);
    }
}

#[test]
fn what_is_not_supported_says_so() {
    let mut story = Story::new();
    for msg_type in ["become_dask_request", "stop_distributed_request"] {
        let answer = story.ask(msg_type, &json!({"query": {}}));
        let text = format!("{msg_type} is not supported by this controller");
        assert_eq!(answer.error(), ("hub_error", "NotImplementedError", &*text));
    }
}

#[test]
fn a_message_that_cannot_be_believed_gets_no_answer() {
    let mut story = Story::new();
    let ask = |story: &mut Story, body| story.event(Event::Query { from: [client()].into_iter().collect(), body });
    let good = story.message("connection_request", &json!({}));
    assert_eq!(ask(&mut story, good.clone()).len(), 1);
    assert_eq!(refusal(&ask(&mut story, good.clone())), &Refusal::Verify(VerifyError::Duplicate));

    for (key, error) in [("", VerifyError::Unsigned), ("other", VerifyError::Invalid)] {
        let mut session = Session::new("s".into(), "eve", Key::new(key), Packer::Json, 1);
        let (_, body) =
            session.message(story.now.date, MsgType::ShutdownRequest, None, &json!({}), &json!({}), &[]).unwrap();
        let out = ask(&mut story, body);
        assert_eq!(out, [Effect::Refused { from: Some(client()), refusal: Refusal::Verify(error) }]);
    }
    assert_eq!(story.hub.deadline(), None, "it had no effect");

    for parts in [
        ["{", "{}", "{}", "{}"],
        ["{}", "{}", "{}", "{}"],
        ["{\"msg_id\": \"a\", \"msg_type\": \"x\"}", "{}", "{}", "{"],
    ] {
        let parts = parts.map(str::as_bytes);
        let body = story.client.sign_parts(parts, []);
        assert!(matches!(refusal(&ask(&mut story, body)), Refusal::Unpack(_)));
    }
}

#[test]
fn an_empty_key_believes_everybody_and_knows_no_replay() {
    let mut story = Story::new();
    let session = |id: &str| Session::new(id.into(), "ann", Key::new(""), Packer::Json, 1);
    story.hub = remuda_hub::Hub::new(Config::default(), session("hub"));
    let header = r#"{"msg_id": "a", "msg_type": "connection_request"}"#;
    let mut builder = BodyBuilder::default();
    for part in ["nonsense", header, "{}", "{}", "{}"] {
        builder.push(part.as_bytes());
    }
    let body = builder.finish().unwrap();
    for _ in 0..2 {
        let out = story.event(Event::Query { from: [client()].into_iter().collect(), body: body.clone() });
        assert!(matches!(&out[..], [Effect::Reply { .. }]), "{out:?}");
    }
}

#[test]
fn content_that_is_no_map_is_a_hub_error() {
    let mut story = Story::new();
    let answer = story.ask("queue_request", &json!([1]));
    assert_eq!(answer.error(), ("hub_error", "TypeError", "the content is not a map: [1]"));
}

#[test]
fn malformed_contents_name_the_key() {
    let mut story = Story::new();
    story.engine("a");
    for (msg_type, content, ename, about) in [
        ("queue_request", json!({}), "KeyError", "'targets'"),
        ("load_request", json!({}), "KeyError", "'targets'"),
        ("queue_request", json!({"targets": {}}), "TypeError", "`targets`"),
        ("queue_request", json!({"targets": true}), "TypeError", "`targets`"),
        ("result_request", json!({}), "KeyError", "'msg_ids'"),
        ("result_request", json!({"msg_ids": 7}), "TypeError", "`msg_ids`"),
        ("result_request", json!({"msg_ids": ["a", null]}), "TypeError", "`msg_ids`"),
        ("purge_request", json!({"msg_ids": {}}), "TypeError", "`msg_ids`"),
        ("purge_request", json!({"engine_ids": 0}), "TypeError", "`engine_ids`"),
    ] {
        let answer = story.ask(msg_type, &content);
        let (reply, name, evalue) = answer.error();
        assert_eq!((reply, name), ("hub_error", ename), "{content}");
        assert!(evalue.contains(about), "{content}: {evalue}");
    }
}

#[test]
fn targets_are_all_engines_or_one_or_a_list() {
    let mut story = Story::new();
    assert_eq!(story.queue_reply(&json!({"targets": null})), json!({"unassigned": 0}), "no engine is no error");
    for uuid in ["a", "b"] {
        story.engine(uuid);
    }
    for (targets, ids) in [
        (json!(null), vec!["0", "1"]),
        (json!(1), vec!["1"]),
        (json!("a"), vec!["0"]),
        (json!([1, "a"]), vec!["1", "0"]),
    ] {
        let reply = story.queue_reply(&json!({"targets": targets}));
        let keys: Vec<_> = reply.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, [ids, vec!["unassigned"]].concat());
    }
}

#[test]
fn targets_that_are_no_engines_are_listed() {
    let mut story = Story::new();
    story.engine("a");
    for (targets, evalue) in [
        (json!([]), "No Engines Registered"),
        (json!([77]), "No Such Engine: [77]"),
        (json!(-1), "No Such Engine: [-1]"),
        (json!(["x", 0, null, 1.5]), "No Such Engine: ['x', None, 1.5]"),
    ] {
        for msg_type in ["queue_request", "load_request"] {
            let answer = story.ask(msg_type, &json!({"targets": targets, "verbose": false}));
            assert_eq!(answer.error(), ("hub_error", "IndexError", evalue));
        }
    }
}

#[test]
fn a_verbose_answer_lists_ids_in_the_order_in_which_they_came() {
    let mut story = Story::new();
    story.engine("a");
    story.engine("b");
    for id in ["m1", "m2", "m3"] {
        story.direct(id, "a");
    }
    for id in ["t1", "t2", "t3"] {
        story.task_on(id, "a");
    }
    for id in ["w1", "w2"] {
        story.request(id, Queue::Task, None);
    }
    story.ends("m1", Queue::Mux, Some("a"), Status::Ok);
    story.ends("t1", Queue::Task, Some("a"), Status::Ok);
    assert_eq!(
        story.queue_reply(&json!({"targets": null, "verbose": true})),
        json!({
            "0": {"queue": ["m2", "m3"], "completed": ["m1", "t1"], "tasks": ["t2", "t3"]},
            "1": {"queue": [], "completed": [], "tasks": []},
            "unassigned": ["w1", "w2"],
        })
    );
}

#[test]
fn load_is_what_an_engine_has_to_do() {
    let mut story = Story::new();
    for uuid in ["a", "b"] {
        story.engine(uuid);
    }
    story.direct("m", "b");
    story.task_on("t", "b");
    let answer = story.ask("load_request", &json!({"targets": null}));
    assert_eq!(answer.msg_type, MsgType::LoadReply);
    assert_eq!(answer.content, json!({"status": "ok", "0": 0, "1": 2}));
}

#[test]
fn history_is_in_the_order_in_which_clients_asked() {
    let mut story = Story::new();
    story.engine("a");
    story.direct("z", "a");
    story.request("a", Queue::Task, None);
    story.now.date.0 -= 1_500_000;
    story.direct("between", "a");
    let answer = story.ask("history_request", &json!({}));
    assert_eq!(answer.msg_type, MsgType::HistoryReply);
    assert_eq!(answer.content, json!({"status": "ok", "history": ["z", "between", "a"]}));
}

#[test]
fn nothing_is_said_of_history_where_none_is_kept() {
    let mut story = Story::with(NoStore::default());
    let no_data = ("NoData", "NoDB backend doesn't store any data. ");
    assert_eq!(story.ask("history_request", &json!({})).error(), ("history_reply", no_data.0, no_data.1));
    let answer = story.ask("result_request", &json!({"msg_ids": ["x"]}));
    assert_eq!(answer.error(), ("result_reply", no_data.0, no_data.1));
    assert_eq!(story.ask("purge_request", &json!({"msg_ids": "all"})).content, json!({"status": "ok"}));
}

#[test]
fn a_purge_drops_records_and_no_counts() {
    let mut story = Story::new();
    for uuid in ["a", "b"] {
        story.engine(uuid);
    }
    for (id, engine) in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b")] {
        story.direct(id, engine);
        story.ends(id, Queue::Mux, Some(engine), Status::Ok);
    }
    story.direct("live", "a");
    let history = |story: &mut Story| story.ask("history_request", &json!({})).content["history"].clone();
    let purge = |story: &mut Story, content: Value| {
        let answer = story.ask("purge_request", &content);
        assert_eq!((&answer.msg_type, &answer.content), (&MsgType::PurgeReply, &json!({"status": "ok"})));
    };
    purge(&mut story, json!({"msg_ids": ["a1", "never-was"], "engine_ids": []}));
    assert_eq!(history(&mut story), json!(["a2", "b1", "b2", "live"]));
    purge(&mut story, json!({"msg_ids": [], "engine_ids": [0]}));
    assert_eq!(history(&mut story), json!(["b1", "b2", "live"]));
    purge(&mut story, json!({"msg_ids": "b1"}));
    purge(&mut story, json!({}));
    assert_eq!(history(&mut story), json!(["b2", "live"]));
    purge(&mut story, json!({"msg_ids": "all"}));
    assert_eq!(history(&mut story), json!(["live"]));
    assert_eq!(story.queues()["0"], json!({"queue": 1, "completed": 2, "tasks": 0}));
}

#[test]
fn a_purge_that_goes_wrong_says_so_in_its_own_reply() {
    let mut story = Story::new();
    story.engine("a");
    story.direct("done", "a");
    story.ends("done", Queue::Mux, Some("a"), Status::Ok);
    story.direct("live", "a");
    let answer = story.ask("purge_request", &json!({"msg_ids": ["done", "live"]}));
    assert_eq!(answer.error(), ("purge_reply", "IndexError", "msg pending: 'live'"));
    assert_eq!(story.ask("history_request", &json!({})).content["history"], json!(["done", "live"]));
    let answer = story.ask("purge_request", &json!({"msg_ids": ["done"], "engine_ids": [99]}));
    assert_eq!(answer.error(), ("purge_reply", "IndexError", "No such engine: 99"));
    assert_eq!(story.ask("history_request", &json!({})).content["history"], json!(["live"]), "as stock does it");
}

#[test]
fn a_shutdown_is_answered_then_published_then_done() {
    let mut story = Story::new();
    let out = story.query("shutdown_request", &json!({}));
    let [Effect::Reply { body: reply, .. }, Effect::Notify(notice)] = &out[..] else { panic!("{out:?}") };
    let (reply, notice) = (story.read(reply), story.read(notice));
    assert_eq!((reply.msg_type, reply.content), (MsgType::ShutdownReply, json!({"status": "ok"})));
    assert_eq!((notice.msg_type, notice.content), (MsgType::ShutdownNotification, json!({"status": "ok"})));
    assert_eq!(notice.parent["msg_type"], "shutdown_request");
    assert_eq!(story.pass(Duration::from_millis(900)), []);
    assert_eq!(story.query("shutdown_request", &json!({})).len(), 2, "a second one changes nothing");
    assert_eq!(story.pass(Duration::from_millis(100)), [Effect::Exit]);
    assert_eq!(story.hub.deadline(), None);
}

#[test]
fn a_stop_is_at_once() {
    let mut story = Story::new();
    assert_eq!(story.event(Event::Stop), [Effect::Exit]);
}

#[test]
fn remudas_own_answers_come_only_to_who_asks_for_them() {
    let controller =
        ControllerInfo { version: "0.1.0".into(), pid: 7, scheme: "leastload".into(), ..Default::default() };
    let mut story = Story::configured(Config { controller: controller.clone(), ..Config::default() });
    story.engine("stock");
    story.engine_that(&json!({"uuid": "native", "remuda": {
        "version": "0.1.0", "host": "h", "pid": 9, "functions": ["mul"], "process": true}}));
    story.request("w", Queue::Task, None);
    story.task_on("t", "native");
    for (id, status) in [("ok", Status::Ok), ("bad", Status::Error), ("not", Status::Aborted)] {
        story.task_on(id, "stock");
        story.ends(id, Queue::Task, Some("stock"), status);
    }

    assert_eq!(story.ask("connection_request", &json!({})).content.get("remuda"), None);
    let answer = story.ask("connection_request", &json!({"remuda": {}}));
    assert_eq!(serde_json::from_value::<ControllerInfo>(answer.content["remuda"].clone()).unwrap(), controller);

    assert_eq!(story.queues().get("remuda"), None);
    let reply = story.queue_reply(&json!({"targets": null, "remuda": true}));
    let status: RemudaStatus = serde_json::from_value(reply["remuda"].clone()).unwrap();
    assert_eq!((status.waiting, status.running), (1, 1));
    assert_eq!((status.done.ok, status.done.error, status.done.aborted), (1, 1, 1));
    let stock = &status.engines["0"];
    assert_eq!((stock.uuid.as_str(), stock.native, &*stock.state), ("stock", false, "idle"));
    assert_eq!((stock.completed, stock.tasks), (2, 0));
    let native = &status.engines["1"];
    assert!(native.native && native.process);
    assert_eq!((&*native.host, native.pid, &native.functions[..]), ("h", 9, &["mul".to_owned()][..]));
    assert_eq!((native.tasks, &*native.state), (1, "busy"));
}

#[test]
fn messagepack_is_spoken_as_well() {
    let mut story = Story::packed(Packer::Msgpack);
    story.engine("a");
    story.direct("m", "a");
    story.publishes("stream", "a", Some("m"), &json!({"name": "stdout", "text": "hi"}));
    story.ends("m", Queue::Mux, Some("a"), Status::Ok);
    let answer = story.ask("result_request", &json!({"msg_ids": ["m"]}));
    assert_eq!(answer.content["m"]["io"]["stdout"], "hi");
    assert_eq!(answer.content["m"]["result_content"], json!({"status": "ok"}));
    assert_eq!(story.ask("history_request", &json!({})).content["history"], json!(["m"]));
    let answer = story.ask("queue_request", &json!({}));
    assert_eq!(answer.error(), ("hub_error", "KeyError", "'targets'"));
}
