//! A definition that is read and written is the same, and gives the task that it says; nothing that is read panics.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;
use remuda_process::{Definition, LOG_BYTES, ProcessType, RestartPolicy};
use remuda_proto::message::native::{ProgramInput, ProgramOutput};
use serde_json::{Map, Value, json};

/// Text that is no placeholder and has no NUL byte.
const TEXT: &str = "[a-zA-Z0-9 $=/é\\\\\"'\n-]{1,12}";

fn optional(strategy: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Option<Value>> {
    proptest::option::of(strategy).boxed()
}

fn text() -> impl Strategy<Value = Value> {
    TEXT.prop_map(Value::from)
}

fn chunked(kind: &'static str) -> impl Strategy<Value = Value> {
    proptest::option::of(1..=u32::MAX).prop_map(move |chunk| {
        let mut adapter = json!({"input_type": kind});
        if kind == "stream_tcp" {
            adapter["tcp_port"] = json!(9000);
        }
        if let Some(chunk) = chunk {
            adapter["chunk_size"] = json!(chunk);
        }
        adapter
    })
}

fn input() -> impl Strategy<Value = Value> {
    let plain = |kind: &'static str| Just(json!({"input_type": kind}));
    prop_oneof![
        plain("stdin"),
        plain("file_argv"),
        chunked("file_append"),
        chunked("stream_pipe"),
        chunked("stream_tcp")
    ]
}

fn output() -> impl Strategy<Value = Value> {
    proptest::sample::select(vec!["stdout", "file_argv", "file_append", "pipe"])
        .prop_map(|kind| json!({"output_type": kind}))
}

/// Definitions without a mistake, with their keys in the order in which they are written.
fn definition() -> impl Strategy<Value = Value> {
    let environment = proptest::collection::btree_map("[A-Z_]{1,5}", proptest::option::of(TEXT), 1..4);
    let needs = prop_oneof![
        Just(json!({"cpus": 2})),
        Just(json!({"cpus": 0.5, "gpu": 1, "label": ["a", "b"]})),
        Just(json!({"memory": 1.25}))
    ];
    let seconds = prop_oneof![(1..1_000_000_u32).prop_map(Value::from), (0.001..1e6).prop_map(Value::from)];
    let restart = prop_oneof![
        Just(json!({"policy": "never"})),
        Just(json!({"policy": "on-failure", "limit": 3, "backoff": 0.5})),
        Just(json!({"policy": "always", "backoff": 0, "max_backoff": 1.5, "reset_after": 60}))
    ];
    let first = (
        optional("[a-z][a-z0-9_.-]{0,8}".prop_map(Value::from)),
        text().prop_map(Some).boxed(),
        optional(proptest::collection::vec(TEXT, 1..4).prop_map(|argv| json!(argv))),
        optional(text()),
        optional(environment.prop_map(|environment| json!(environment))),
        optional(seconds),
        optional(text()),
    );
    let second = (
        optional(Just(json!("single"))),
        optional(input()),
        optional(output()),
        optional(needs),
        optional(Just(json!({"cpu_seconds": 5, "memory_bytes": 1_u64 << 40}))),
        optional((1..=u32::MAX).prop_map(Value::from)),
        optional((i32::MIN..0).prop_map(Value::from)),
    );
    (first, second, proptest::option::of(restart)).prop_map(|(first, second, restart)| {
        let keys = ["name", "exec", "argv", "cwd", "environment", "timeout", "application"];
        let first = <[Option<Value>; 7]>::from(first);
        let others = ["process_type", "input_adapter", "output_adapter", "needs", "limits", "retries", "priority"];
        let second = <[Option<Value>; 7]>::from(second);
        let mut map = Map::new();
        for (key, value) in keys.into_iter().zip(first).chain(others.into_iter().zip(second)) {
            if let Some(value) = value {
                map.insert(key.to_owned(), value);
            }
        }
        make_agree(&mut map, restart);
        Value::Object(map)
    })
}

/// Has files named where there are files, and makes a service of what is to be started again.
fn make_agree(map: &mut Map<String, Value>, restart: Option<Value>) {
    if map.get("process_type").is_some() && restart.is_some() {
        // A service is started again in another way.
        map.shift_remove("retries");
    }
    if let Some(restart) = restart.filter(|_| map.contains_key("process_type")) {
        map["process_type"] = json!("service");
        map.shift_remove("output_adapter");
        map.insert("restart".to_owned(), restart);
    }
    let kind = |adapter: &str, key: &str| map.get(adapter).and_then(|adapter| adapter[key].as_str()).map(str::to_owned);
    let has_input = kind("input_adapter", "input_type")
        .is_some_and(|kind| matches!(&*kind, "file_argv" | "file_append" | "stream_pipe"));
    let has_output = kind("output_adapter", "output_type").is_some_and(|kind| kind != "stdout");
    let exec = map["exec"].as_str().unwrap().to_owned();
    let mut named = exec;
    named += if has_input { "${input_file}" } else { "" };
    named += if has_output { "${output_file}" } else { "" };
    map["exec"] = Value::from(named);
}

proptest! {
    #[test]
    fn what_is_read_is_written_the_same(value in definition()) {
        let definition = Definition::read(&value).map_err(|problems| TestCaseError::fail(format!("{value}: {problems}")))?;
        let written = Value::Object(definition.to_json());
        prop_assert_eq!(written.to_string(), value.to_string());
        prop_assert_eq!(Definition::read(&written).unwrap(), definition);
    }

    #[test]
    fn no_value_panics(mut value in definition(), key in "[a-z_]{1,12}", odd in prop_oneof![
        Just(Value::Null), any::<bool>().prop_map(Value::from), any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from), ".{0,80}".prop_map(Value::from), Just(json!([[]])), Just(json!({"": {}}))
    ]) {
        let keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        for at in keys.into_iter().chain([key]) {
            let before = value.get(&at).cloned();
            value[&at] = odd.clone();
            if let Err(problems) = Definition::read(&value) {
                prop_assert!(!problems.to_string().is_empty());
            }
            match before {
                Some(before) => value[&at] = before,
                None => drop(value.as_object_mut().unwrap().shift_remove(&at)),
            }
        }
    }
}

#[test]
fn a_definition_gives_the_task_that_it_says() {
    let definition = Definition::read(&json!({
        "name": "convert", "exec": "conv", "argv": ["${input_file}", "${output_file}"], "cwd": "/tmp",
        "environment": {"A": "1", "B": null}, "timeout": 2.5, "application": "image",
        "input_adapter": {"input_type": "file_append", "chunk_size": 10},
        "output_adapter": {"output_type": "file_append"}, "needs": {"cpus": 2, "label": "big"},
        "limits": {"open_files": 20}, "retries": 3, "priority": -1
    }))
    .unwrap();
    let task = definition.task();
    assert_eq!(task.process.argv, ["conv", "${input_file}", "${output_file}"]);
    assert_eq!((task.process.env["A"].as_deref(), task.process.env["B"].as_deref()), (Some("1"), None));
    assert_eq!(task.process.cwd.as_deref(), Some("/tmp"));
    assert_eq!(task.process.input, Some(ProgramInput::AppendedFile(NonZeroU32::new(10).unwrap())));
    assert_eq!(task.process.output, Some(ProgramOutput::GrowingFile));
    assert_eq!(task.process.limits.open_files, Some(20));
    assert_eq!(task.needs.to_string(), "cpus=2,label=big,label=image");
    assert_eq!((task.run_timeout, task.retries, task.priority), (Some(Duration::from_millis(2500)), 3, -1));
    assert_eq!((definition.name(), definition.process_type()), (Some("convert"), ProcessType::Single));
}

#[test]
fn each_adapter_is_one_of_the_engine() {
    for (adapter, argument, input) in [
        (json!({"input_type": "stdin"}), "", ProgramInput::Stdin),
        (json!({"input_type": "file_argv"}), "${input_file}", ProgramInput::File),
        (json!({"input_type": "stream_pipe"}), "${input_file}", ProgramInput::Pipe(NonZeroU32::new(65_536).unwrap())),
        (
            json!({"input_type": "stream_tcp", "tcp_port": 99, "chunk_size": 7}),
            "",
            ProgramInput::Tcp(99, NonZeroU32::new(7).unwrap()),
        ),
    ] {
        let value = json!({"exec": "x", "argv": [argument], "input_adapter": adapter});
        assert_eq!(Definition::read(&value).unwrap().task().process.input, Some(input));
    }
    for (kind, argument, output) in [
        ("stdout", "", None),
        ("file_argv", "${output_file}", Some(ProgramOutput::File)),
        ("file_append", "${output_file}", Some(ProgramOutput::GrowingFile)),
        ("pipe", "${output_file}", Some(ProgramOutput::Pipe)),
    ] {
        let value = json!({"exec": "x", "argv": [argument], "output_adapter": {"output_type": kind}});
        assert_eq!(Definition::read(&value).unwrap().task().process.output, output);
    }
}

#[test]
fn a_service_is_kept_running_as_it_says() {
    let task = |restart: Value| {
        let definition = json!({"exec": "x", "process_type": "service", "restart": restart});
        Definition::read(&definition).unwrap().task()
    };
    let said = task(json!({"policy": "always", "limit": 3, "backoff": 0.5, "max_backoff": 8, "reset_after": 2}));
    let restart = said.restart.unwrap();
    assert_eq!((restart.policy, restart.limit), (RestartPolicy::Always, Some(3)));
    assert_eq!((restart.backoff_ms, restart.max_backoff_ms, restart.reset_after_ms), (500, 8_000, 2_000));
    assert_eq!(said.process.log_bytes, Some(LOG_BYTES));
    let unsaid = task(Value::Null).restart.unwrap();
    assert_eq!((unsaid.policy, unsaid.limit, unsaid.backoff_ms), (RestartPolicy::OnFailure, None, 1_000));
    let single = Definition::read(&json!({"exec": "x"})).unwrap().task();
    assert_eq!((single.restart, single.process.log_bytes), (None, None));
}
