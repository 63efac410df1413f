//! What requests are answered.

use super::*;

#[test]
fn a_function_gives_its_result_in_both_forms() {
    let mut story = Story::serving();
    assert_eq!(story.function("mul"), ["engine.3.status status of #0: busy", "start #0: mul"]);
    let (pickle, msgpack) = (Bytes::from_static(b"p"), Bytes::from_static(b"m"));
    assert_eq!(
        story.done(0, Outcome::Value { pickle: pickle.clone(), msgpack: msgpack.clone(), buffers: Vec::new() }),
        ["Shell [mux, 0x0001] apply_reply of #0: ok", "engine.3.status status of #0: idle"]
    );
    let (metadata, content, buffers) = story.reply();
    assert_eq!(content, json!({"status": "ok", "remuda": "function"}));
    assert_eq!(buffers, [pickle, msgpack]);
    let metadata: ReplyMetadata = serde_json::from_value(metadata).unwrap();
    assert_eq!((metadata.engine.as_str(), metadata.status), ("engine-uuid", Status::Ok));
    assert!(metadata.dependencies_met && metadata.engine_info.is_none());
}

#[test]
fn metadata_of_a_broadcast_is_repeated() {
    let mut story = Story::serving();
    let metadata = json!({"is_broadcast": true, "is_coalescing": true, "original_msg_id": "o", "label": "l", "x": 1});
    let body = story.message(MsgType::ApplyRequest, &metadata, &json!({}), &[]);
    story.step(Event::Shell(frames(body)));
    let (metadata, ..) = story.reply();
    for (key, value) in [
        ("is_broadcast", json!(true)),
        ("is_coalescing", json!(true)),
        ("original_msg_id", json!("o")),
        ("label", json!("l")),
    ] {
        assert_eq!(metadata[key], value, "{key}");
    }
    let odd = json!({"is_broadcast": "yes", "original_msg_id": 5});
    let body = story.message(MsgType::ApplyRequest, &odd, &json!({}), &[]);
    story.step(Event::Shell(frames(body)));
    assert_eq!(story.reply().0["is_broadcast"], json!(false));
}

#[test]
fn metadata_that_makes_no_sense_costs_no_request_its_answer() {
    for metadata in [json!(12), json!("x"), json!([[]]), json!(null), json!({"label": {}, "is_broadcast": []})] {
        let mut story = Story::serving();
        let body = story.message(MsgType::KernelInfoRequest, &metadata, &json!({}), &[]);
        story.step(Event::Shell(frames(body)));
        assert_eq!(story.reply().0["status"], json!("ok"), "{metadata}");
    }
}

#[test]
fn a_program_gives_its_output_and_what_it_wrote_is_published_before() {
    let mut story = Story::serving();
    assert_eq!(story.program(&["echo", "hi"])[1], "start #0: echo hi");
    let msg_id = story.sent[0].clone();
    let output = |msg_id| Event::Output { msg_id, stream: Stream::Stdout, text: "hi\n".into() };
    assert_eq!(story.step(output(msg_id.clone())), ["engine.3.stdout stream of #0: hi\n"]);
    story.ended(0, outcome(Some(0), None));
    let (_, content, buffers) = story.reply();
    assert_eq!(content["remuda"]["process"]["exit_code"], json!(0));
    assert_eq!(buffers[1..], [&b"out"[..], b"oh\nno\n"]);
    assert!(story.step(output(msg_id)).is_empty(), "it ended");
}

#[test]
fn a_program_that_fails_is_an_error_with_all_it_wrote() {
    let mut story = Story::serving();
    story.program(&["prog"]);
    assert_eq!(
        story.ended(0, outcome(Some(3), None)),
        [
            "engine.3.error error of #0: ProcessFailed",
            "Shell [mux, 0x0001] apply_reply of #0: ProcessFailed",
            "engine.3.status status of #0: idle"
        ]
    );
    let (metadata, content, buffers) = story.reply();
    assert_eq!(content["status"], json!("error"));
    assert_eq!(content["evalue"], json!("`prog` exited with code 3"));
    assert_eq!(content["traceback"], json!(["oh", "no", "ProcessFailed: `prog` exited with code 3"]));
    assert_eq!(content["engine_info"], json!({"engine_uuid": "engine-uuid", "engine_id": 3, "method": "apply"}));
    assert_eq!(metadata["engine_info"], json!({"engine_uuid": "engine-uuid", "engine_id": 3}));
    assert_eq!(content["remuda"]["process"]["exit_code"], json!(3));
    assert_eq!(buffers.len(), 3);
}

#[test]
fn what_it_cannot_run_is_sent_elsewhere() {
    let mut story = Story::serving();
    for (msg_type, content, ename, words) in [
        (MsgType::ApplyRequest, json!({}), "UnmetDependency", "native engine"),
        (
            MsgType::ApplyRequest,
            json!({"remuda": {"function": "pow"}}),
            "UnmetDependency",
            "`pow`; it runs programs and the functions `div`, `mul`",
        ),
        (MsgType::ExecuteRequest, json!({"code": "1"}), "NotImplementedError", "runs no Python code"),
    ] {
        let told = story.shell(msg_type, &content, &[]);
        assert!(!told.iter().any(|line| line.contains(".error")), "it has not failed: {told:?}");
        let (metadata, content, _) = story.reply();
        assert_eq!(metadata["dependencies_met"], json!(false));
        assert_eq!(content["ename"], json!(ename));
        assert!(content["evalue"].as_str().unwrap().contains(words), "{content}");
    }
}

#[test]
fn a_task_that_makes_no_sense_fails() {
    let mut story = Story::serving();
    for content in [
        json!({"remuda": {"process": {"argv": []}}}),
        json!({"remuda": {"process": {"argv": [""]}}}),
        json!({"remuda": {"process": {"argv": ["cat"], "input": "stdin"}}}),
        json!({"remuda": {"dance": {}}}),
        json!({"remuda": 5}),
        json!([1]),
    ] {
        story.shell(MsgType::ApplyRequest, &content, &[]);
        let (metadata, reply, _) = story.reply();
        assert_eq!((&reply["ename"], &metadata["dependencies_met"]), (&json!("ValueError"), &json!(true)), "{content}");
    }
}

#[test]
fn other_requests_are_answered_and_other_messages_are_not() {
    let mut story = Story::serving();
    story.shell(MsgType::KernelInfoRequest, &json!({}), &[]);
    assert_eq!(story.reply().1["implementation"], json!("remuda"));
    let told = story.shell("history_request".into(), &json!({}), &[]);
    assert!(told.iter().any(|line| line.contains("history_reply of #1: NotImplementedError")), "{told:?}");
    assert_eq!(story.shell("comm_msg".into(), &json!({}), &[]), ["refused Shell: type"]);
}

#[test]
fn a_forged_or_replayed_message_has_no_effect() {
    let mut story = Story::serving();
    let body = story.message(MsgType::ApplyRequest, &json!({}), &json!({}), &[]);
    assert!(!story.step(Event::Shell(frames(body.clone()))).is_empty());
    assert_eq!(story.step(Event::Shell(frames(body.clone()))), ["refused Shell: replay"]);
    assert_eq!(story.step(Event::Control(frames(body))), ["refused Control: replay"]);
    let mut forger = Session::new("f".into(), "u", Key::new("other"), Packer::Json, 1);
    let body = forger.message(Date(0), MsgType::ShutdownRequest, None, &json!({}), &json!({}), &[]).unwrap().1;
    assert_eq!(story.step(Event::Control(frames(body))), ["refused Control: signature"]);
}

#[test]
fn a_null_engine_answers_none_and_publishes_nothing() {
    let mut story = Story::serving();
    story.engine.null = true;
    assert_eq!(story.shell(MsgType::ApplyRequest, &json!({}), &[]), ["Shell [mux, 0x0001] apply_reply of #0: ok"]);
    assert_eq!(story.reply().2, [pickle::NONE]);
}

#[test]
fn msgpack_does_as_well_as_json() {
    let mut story = Story::new(Packer::Msgpack);
    story.serve();
    story.program(&["a"]);
    story.ended(0, outcome(Some(3), None));
    let (metadata, content, _) = story.reply();
    assert_eq!((&content["ename"], &metadata["status"]), (&json!("ProcessFailed"), &json!("error")));
    assert_eq!(content["remuda"]["process"]["exit_code"], json!(3));
    story.function("mul");
    story.done(1, Outcome::Failed(RemoteError::new("FunctionError", "no")));
    assert_eq!(story.reply().1["engine_info"]["method"], json!("apply"));
    story.control(MsgType::ShutdownRequest, &json!({}));
    assert_eq!(story.reply().1, json!({"status": "ok", "restart": false}));
}

#[test]
fn the_routing_of_a_broadcast_is_echoed_whole() {
    let mut story = Story::serving();
    let body = story.message(MsgType::ApplyRequest, &json!({}), &json!({}), &[]);
    let idents: Vec<Identity> = ["leaf", "root", "client"].map(|text| Identity::from(text.as_bytes())).into();
    story.step(Event::Shell(Frames::new(idents.clone(), body)));
    let echoed = story.last.iter().find_map(|effect| match effect {
        Effect::Reply { idents, .. } => Some(idents.to_vec()),
        _ => None,
    });
    assert_eq!(echoed, Some(idents));
}

#[test]
fn a_task_that_wants_no_word_of_its_begin_and_end_has_none() {
    let mut story = Story::serving();
    let told = story.program_with(&json!({"quiet": true}));
    assert_eq!(told, ["start #0: a"]);
    let told = story.ended(0, outcome(Some(0), None));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("apply_reply of #0"));
}
