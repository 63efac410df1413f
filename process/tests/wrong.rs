//! Each wrong definition has a message that names its key, and a definition with several problems names them all.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use remuda_process::Definition;
use serde_json::{Value, json};

fn with(key: &str, value: Value) -> Value {
    let mut definition = json!({"exec": "tr"});
    definition[key] = value;
    definition
}

fn input(adapter: impl Into<Value>) -> Value {
    json!({"exec": "tr", "argv": ["${input_file}"], "input_adapter": adapter.into()})
}

#[test]
fn what_is_wrong_is_named_by_its_key() {
    let service = |adapter: &str| json!({"exec": "x", "argv": ["${output_file}"], "process_type": "service", "output_adapter": {"output_type": adapter}});
    let table: Vec<(Value, &str, &str)> = vec![
        (json!([]), "definition", "`[]`"),
        (json!("tr"), "definition", "`tr`"),
        (json!(null), "definition", "`null`"),
        (json!({}), "exec", "is missing"),
        (json!({"exec": null}), "exec", "is missing"),
        (json!({"exec": ""}), "exec", "is empty"),
        (json!({"exec": 5}), "exec", "`5`"),
        (json!({"exec": "a\0b"}), "exec", "NUL"),
        (with("exce", json!("x")), "exce", "did you mean `exec`?"),
        (with("Timeout", json!(1)), "Timeout", "did you mean `timeout`?"),
        (with("zzzzzzzzzz", json!(1)), "zzzzzzzzzz", "`priority`"),
        (with("name", json!("a b")), "name", "`a b`"),
        (with("name", json!("")), "name", "letters"),
        (with("name", json!("42")), "name", "digits alone"),
        (with("name", json!(42)), "name", "`42`"),
        (with("argv", json!("-d x")), "argv", "list"),
        (with("argv", json!(["-d", 5])), "argv[1]", "`5`"),
        (with("argv", json!(["-d", null])), "argv[1]", "text"),
        (with("argv", json!(["a\0"])), "argv[0]", "NUL"),
        (with("argv", json!(["-i", "${input_file}"])), "argv[1]", "`input_adapter`"),
        (with("argv", json!(["-o", "${output_file}"])), "argv[1]", "`output_adapter`"),
        (with("cwd", json!(7)), "cwd", "folder"),
        (with("cwd", json!("")), "cwd", "is empty"),
        (with("environment", json!(["A=1"])), "environment", "map"),
        (with("environment", json!({"A": 1})), "environment.A", "`1`"),
        (with("environment", json!({"A=B": "1"})), "environment.A=B", "variable"),
        (with("environment", json!({"": "1"})), "environment.", "variable"),
        (with("environment", json!({"A": "\0"})), "environment.A", "NUL"),
        (with("environment", json!({"IN": "${input_file}"})), "environment.IN", "`input_adapter`"),
        (with("timeout", json!(0)), "timeout", "more than 0"),
        (with("timeout", json!(-1.5)), "timeout", "`-1.5`"),
        (with("timeout", json!("10")), "timeout", "`10`"),
        (with("application", json!("")), "application", "is empty"),
        (with("application", json!({})), "application", "label"),
        (with("process_type", json!("services")), "process_type", "did you mean `service`?"),
        (with("process_type", json!(1)), "process_type", "`single` or `service`"),
        (with("input_adapter", json!("stdin")), "input_adapter", "input_type"),
        (input(json!({})), "input_adapter.input_type", "is missing"),
        (input(json!({"input_type": "file"})), "input_adapter.input_type", "`file`"),
        (input(json!({"input_type": "file_argv", "chunk_size": 5})), "input_adapter.chunk_size", "`file_append`"),
        (input(json!({"input_type": "file_append", "chunk_size": 0})), "input_adapter.chunk_size", "`0`"),
        (input(json!({"input_type": "file_append", "tcp_port": 80})), "input_adapter.tcp_port", "`stream_tcp`"),
        (input(json!({"input_type": "stream_pipe", "chunk_sise": 1})), "input_adapter.chunk_sise", "`chunk_size`"),
        (with("input_adapter", json!({"input_type": "stream_tcp"})), "input_adapter.tcp_port", "is missing"),
        (
            with("input_adapter", json!({"input_type": "stream_tcp", "tcp_port": 70000})),
            "input_adapter.tcp_port",
            "`70000`",
        ),
        (with("input_adapter", json!({"input_type": "stdin", "chunk_size": 1})), "input_adapter.chunk_size", "`stdin`"),
        (with("input_adapter", json!({"input_type": "file_argv"})), "input_adapter", "`${input_file}`"),
        (with("output_adapter", json!({"output_type": "file_argv"})), "output_adapter", "`${output_file}`"),
        (with("output_adapter", json!({"output_type": "stderr"})), "output_adapter.output_type", "`stdout`"),
        (
            with("output_adapter", json!({"output_type": "stdout", "chunk_size": 1})),
            "output_adapter.chunk_size",
            "nothing",
        ),
        (with("output_adapter", json!({})), "output_adapter.output_type", "is missing"),
        (with("needs", json!("cpus=2")), "needs", "map"),
        (with("needs", json!({"cpus": 0})), "needs.cpus", "`0`"),
        (with("needs", json!({"gpu": "1"})), "needs.gpu", "`1`"),
        (with("needs", json!({"9gpu": 1})), "needs.9gpu", "letter"),
        (with("needs", json!({"label": [1]})), "needs.label", "word"),
        (with("limits", json!(5)), "limits", "map"),
        (with("limits", json!({"memory": 5})), "limits.memory", "`memory_bytes`"),
        (with("limits", json!({"cpu_seconds": -5})), "limits.cpu_seconds", "`-5`"),
        (with("retries", json!(-1)), "retries", "`-1`"),
        (with("retries", json!(1.5)), "retries", "whole"),
        (with("priority", json!("high")), "priority", "`high`"),
        (with("restart", json!({"policy": "always"})), "restart", "services"),
        (json!({"exec": "x", "process_type": "service", "restart": {}}), "restart.policy", "is missing"),
        (
            json!({"exec": "x", "process_type": "service", "restart": {"policy": "on_failure"}}),
            "restart.policy",
            "`on-failure`",
        ),
        (
            json!({"exec": "x", "process_type": "service", "restart": {"policy": "always", "backoff": -1}}),
            "restart.backoff",
            "0 or more",
        ),
        (
            json!({"exec": "x", "process_type": "service", "restart": {"policy": "always", "max_backoff": "1"}}),
            "restart.max_backoff",
            "seconds",
        ),
        (json!({"exec": "x", "process_type": "service", "retries": 1}), "retries", "`limit`"),
        (service("file_argv"), "output_adapter.output_type", "`stdout`"),
        (
            json!({"exec": "x", "argv": ["${input_file}"], "cwd": "${input_file}", "input_adapter": {"input_type": "file_argv"}}),
            "cwd",
            "replaced",
        ),
    ];
    for (definition, key, says) in table {
        let problems = Definition::read(&definition).err().unwrap_or_else(|| panic!("{definition} is taken"));
        let named = problems.iter().any(|problem| problem.key == key && problem.reason.contains(says));
        assert!(named, "{definition}: no `{key}` with `{says}` in: {problems}");
        assert_eq!(problems.iter().count(), 1, "{definition}: {problems}");
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let definition = json!({
        "exce": "tr", "argv": [1, "${output_file}"], "timeout": 0, "input_adapter": {"input_type": "stream_tcp", "chunk_size": "x"},
        "limits": {"file_bytes": "1G"}, "restart": {"limit": -1}
    });
    let problems = Definition::read(&definition).unwrap_err();
    let keys: Vec<&str> = problems.by_key().into_keys().collect();
    for key in [
        "exce",
        "exec",
        "argv[0]",
        "timeout",
        "input_adapter.tcp_port",
        "input_adapter.chunk_size",
        "limits.file_bytes",
        "restart.policy",
        "restart.limit",
    ] {
        assert!(keys.contains(&key), "{key} in {problems}");
    }
    assert!(problems.to_string().contains("`timeout` is `0`: give a number of seconds, more than 0"), "{problems}");
}
