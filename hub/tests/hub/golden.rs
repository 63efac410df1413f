//! Our replies beside those that a stock hub gave to the same questions.

use std::collections::BTreeSet;
use std::path::Path;

use remuda_proto::message::Status;
use remuda_proto::monitor::Queue;
use serde_json::{Value, json};

use super::support::Story;

/// A question and the answer that a stock hub gave.
struct Exchange {
    name: String,
    request: Value,
    reply: Value,
}

fn captured(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/tests/golden").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn exchanges(file: &str) -> Vec<Exchange> {
    let messages = captured(file);
    let pair = |pair: &[Value]| {
        let (request, reply) = (pair[0]["readable"].clone(), pair[1]["readable"].clone());
        let name = pair[0]["name"].as_str().unwrap().to_owned();
        (reply["parent_header"]["msg_id"] == request["header"]["msg_id"]).then_some(Exchange { name, request, reply })
    };
    messages.windows(2).filter_map(pair).collect()
}

/// A hub with two engines, where everything that is asked for by id has ended.
fn story(exchanges: &[Exchange]) -> Story {
    let mut story = Story::new();
    for uuid in ["e-0", "e-1"] {
        story.engine(uuid);
    }
    let asked = exchanges.iter().filter_map(|exchange| exchange.request["content"]["msg_ids"].as_array()).flatten();
    let ids: BTreeSet<_> = asked.filter_map(Value::as_str).filter(|id| *id != "no-such-task").collect();
    for id in ids {
        assert_eq!(story.direct(id, "e-0"), []);
        assert_eq!(story.ends(id, Queue::Mux, Some("e-0"), Status::Ok), []);
    }
    story
}

/// The same keys all the way down, except in messages that are not the hub's own.
fn same_keys(name: &str, stock: &Value, ours: &Value) {
    let (Value::Object(stock), Value::Object(ours)) = (stock, ours) else { return };
    let keys = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(keys(stock), keys(ours), "{name}");
    for (key, value) in stock {
        let foreign = ["header", "metadata", "result_header", "result_metadata", "result_content", "engines"];
        if !foreign.contains(&key.as_str()) {
            same_keys(name, value, &ours[key]);
        }
    }
}

#[test]
fn replies_have_the_keys_of_stock_replies() {
    // Load is told by decimal id on purpose; to repeat a request is answered with an id of its own; dask needs Python.
    // To compare with what is not there is no error.
    let apart = ["load_request", "resubmit_request", "become_dask_request"];
    let exchanges: Vec<_> = ["query.json", "connection.json"].into_iter().flat_map(exchanges).collect();
    let mut story = story(&exchanges);
    let mut compared = 0;
    for Exchange { name, request, reply } in &exchanges {
        let msg_type = request["header"]["msg_type"].as_str().unwrap();
        if apart.contains(&msg_type) || name.starts_with("db_null_compared") {
            continue;
        }
        let ours = story.ask(msg_type, &request["content"]);
        assert_eq!(reply["header"]["msg_type"], ours.msg_type.as_str(), "{name}");
        same_keys(name, &reply["content"], &ours.content);
        for key in ["status", "ename", "evalue"] {
            assert_eq!(reply["content"].get(key), ours.content.get(key), "{name}");
        }
        assert_eq!(ours.parent["msg_type"], msg_type, "{name}");
        compared += 1;
    }
    assert!(compared >= 14, "only {compared} of {} exchanges were compared", exchanges.len());
}

#[test]
fn registrations_are_answered_with_the_keys_of_stock() {
    let reply = |name: &str| {
        let all = captured("controller_side.json");
        let found = all.iter().find(|message| message["name"] == name).unwrap_or_else(|| panic!("no {name}"));
        found["readable"].clone()
    };
    let mut story = Story::new();
    let uuid = json!({"uuid": "11111111-222222222222333333333333"});
    for name in ["accepted/registration_reply", "refused/registration_reply"] {
        let stock = reply(name);
        let ours = story.ask("registration_request", &uuid);
        assert_eq!(ours.parent, stock["parent_header"], "empty");
        for key in ["id", "status", "ename", "evalue"] {
            assert_eq!(ours.content.get(key), stock["content"].get(key), "{name}");
        }
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(keys(&ours.content), keys(&stock["content"]), "{name}");
    }
}
