//! Process definitions, as a client asks for them.

use remuda_hub::store::NoStore;
use serde_json::{Value, json};

use super::support::Story;

fn ask(story: &mut Story, content: &Value) -> Value {
    let answer = story.ask("process_definition_request", content);
    assert_eq!(answer.msg_type.as_str(), "process_definition_reply", "{answer:?}");
    answer.content
}

fn refused(story: &mut Story, content: &Value) -> (String, String) {
    let answer = story.ask("process_definition_request", content);
    let (msg_type, ename, evalue) = answer.error();
    assert_eq!(msg_type, "hub_error");
    (ename.to_owned(), evalue.to_owned())
}

#[test]
fn definitions_are_created_told_changed_listed_and_deleted() {
    for mut story in [Story::new(), Story::with(NoStore::default())] {
        let tr = json!({"name": "tr", "exec": "tr", "argv": ["-d", "x"], "timeout": 5.0});
        let created = ask(&mut story, &json!({"action": "create", "definition": tr}));
        let record = json!({"id": 1, "definition": tr, "created": story.now.date, "updated": story.now.date});
        assert_eq!(created, json!({"definition": record, "status": "ok"}));
        assert_eq!(ask(&mut story, &json!({"action": "get", "which": "tr"})), created);
        assert_eq!(ask(&mut story, &json!({"action": "get", "which": 1})), created);
        let changed = ask(&mut story, &json!({"action": "update", "which": "tr", "definition": {"exec": "wc"}}));
        assert_eq!(changed["definition"]["definition"], json!({"exec": "wc"}));
        let listed = ask(&mut story, &json!({"action": "list", "limit": 1}));
        assert_eq!(listed, json!({"definitions": [changed["definition"]], "total": 1, "status": "ok"}));
        assert_eq!(ask(&mut story, &json!({"action": "delete", "which": 1})), changed);
        assert_eq!(ask(&mut story, &json!({"action": "list"}))["total"], 0);
    }
}

#[test]
fn what_cannot_be_done_says_why() {
    let mut story = Story::new();
    ask(&mut story, &json!({"action": "create", "definition": {"exec": "tr", "name": "tr"}}));
    let large = json!({"exec": "x".repeat(70_000)});
    for (content, ename, says) in [
        (json!({}), "TypeError", "`action`"),
        (json!({"action": "drop"}), "TypeError", "`drop`"),
        (json!({"action": "get"}), "TypeError", "`which`"),
        (json!({"action": "get", "which": "x"}), "KeyError", "no process definition `x`"),
        (json!({"action": "delete", "which": 7}), "KeyError", "no process definition `7`"),
        (json!({"action": "create", "definition": []}), "TypeError", "map"),
        (json!({"action": "create", "definition": {"argv": 5, "timeout": 0}}), "ValueError", "`exec` is missing"),
        (json!({"action": "create", "definition": {"argv": 5, "timeout": 0}}), "ValueError", "`timeout` is `0`"),
        (json!({"action": "create", "definition": large}), "ValueError", "70011 bytes"),
        (json!({"action": "create", "definition": {"exec": "x", "name": "tr"}}), "NameTaken", "definition 1"),
        (
            json!({"action": "update", "which": 1, "definition": {"exec": "x"}, "expected": {}}),
            "DefinitionChanged",
            "definition 1",
        ),
    ] {
        let (name, text) = refused(&mut story, &content);
        assert!(name == ename && text.contains(says), "{content}: {name}: {text}");
    }
    assert_eq!(ask(&mut story, &json!({"action": "list"}))["total"], 1, "nothing has changed");
}
