//! Aborts, stops, signals, and other control requests.

use super::*;

#[test]
fn an_aborted_task_is_answered_at_once_and_one_still_on_its_way_on_arrival() {
    let mut story = Story::serving();
    story.program(&["a"]);
    story.program(&["b"]);
    let late = story.message(MsgType::ApplyRequest, &json!({}), &json!({"remuda": {"function": "mul"}}), &[]);
    let ids = [&story.sent[0], &story.sent[1], &story.sent[2]].map(MsgId::as_str);
    let told = story.control(MsgType::AbortRequest, &json!({"msg_ids": ids}));
    assert_eq!(
        told,
        [
            "engine.3.status status of #3: busy",
            "withdraw #1",
            "Control [mux, 0x0001] abort_reply of #3: ok",
            "engine.3.status status of #3: idle",
        ]
    );
    let withdrawn = story.line.pop_front().unwrap();
    let twice = story.control(MsgType::AbortRequest, &json!({"msg_ids": [withdrawn]}));
    assert!(!twice.iter().any(|line| line.starts_with("withdraw")), "once is enough: {twice:?}");
    assert_eq!(
        story.step(Event::Withdrawn { msg_id: withdrawn }),
        [
            "engine.3.status status of #1: busy",
            "Shell [mux, 0x0001] apply_reply of #1: aborted",
            "engine.3.status status of #1: idle",
        ]
    );
    let told = story.step(Event::Shell(frames(late)));
    assert_eq!(told[1], "Shell [mux, 0x0001] apply_reply of #2: aborted");
    assert_eq!(story.reply().0["status"], json!("aborted"));
    assert_eq!(story.ended(0, outcome(Some(0), None)).len(), 2, "the running one went on");
}

#[test]
fn what_began_before_it_could_be_taken_back_goes_on_or_is_stopped() {
    let mut story = Story::serving();
    for name in ["a", "b", "c"] {
        story.program(&[name]);
    }
    let [aborted, stopped] = [1, 2].map(|task| story.sent[task].clone());
    story.control(MsgType::AbortRequest, &json!({"msg_ids": [aborted]}));
    let stop = json!({"msg_ids": [stopped], "remuda": {"stop": true}});
    assert!(story.control(MsgType::AbortRequest, &stop).contains(&"withdraw #2".to_owned()));
    assert_eq!(story.ended(0, outcome(Some(0), None)).last().unwrap(), "engine.3.status status of #1: busy");
    assert_eq!(story.ended(1, outcome(Some(0), None)).last().unwrap(), "signal #2: 15");
    story.ended(2, outcome(None, Some(15)));
    assert_eq!(story.reply().1["ename"], json!("TaskStopped"));
}

#[test]
fn an_abort_without_ids_empties_the_queue() {
    let mut story = Story::serving();
    for name in ["a", "b", "c"] {
        story.program(&[name]);
    }
    assert!(story.program_with(&json!({"needs": {"cpus": 0.5}})).is_empty());
    let told = story.control(MsgType::AbortRequest, &json!({}));
    assert_eq!(told.iter().filter(|line| line.contains("aborted")).count(), 1, "{told:?}");
    assert_eq!(told.iter().filter(|line| line.starts_with("withdraw")).count(), 2);
    for msg_id in std::mem::take(&mut story.line) {
        story.step(Event::Withdrawn { msg_id });
    }
    assert_eq!(story.engine.load(), 1);
    story.control(MsgType::AbortRequest, &json!({"msg_ids": 5}));
    assert_eq!(story.reply().1["ename"], json!("ValueError"));
}

#[test]
fn a_program_told_to_stop_is_killed_after_a_grace() {
    let mut story = Story::serving();
    story.program(&["a"]);
    let ids = json!({"msg_ids": [story.sent[0].as_str()], "remuda": {"stop": true}});
    assert!(story.control(MsgType::AbortRequest, &ids).contains(&"signal #0: 15".to_owned()));
    let again = story.control(MsgType::AbortRequest, &ids);
    assert!(!again.iter().any(|line| line.starts_with("signal")), "once is enough: {again:?}");
    assert_eq!(story.engine.deadline(), Some(story.now.instant + STOP_GRACE));
    assert_eq!(story.pass(STOP_GRACE), ["signal #0: 9"]);
    assert!(story.pass(STOP_GRACE).is_empty());
    story.ended(0, outcome(None, Some(9)));
    let (_, content, buffers) = story.reply();
    assert_eq!(content["ename"], json!("TaskStopped"));
    assert_eq!((&content["remuda"]["process"]["signal"], buffers.len()), (&json!(9), 3));
}

#[test]
fn a_program_that_runs_for_longer_than_it_may_is_stopped() {
    let mut story = Story::serving();
    let limited = |limit: f64| json!({"run_timeout": limit});
    story.program_with(&limited(1.5));
    story.program_with(&limited(1.5));
    let limit = Duration::from_millis(1500);
    assert_eq!(story.pass(limit), ["signal #0: 15"]);
    assert_eq!(story.pass(STOP_GRACE), ["signal #0: 9"]);
    story.ended(0, outcome(None, Some(9)));
    let (_, content, _) = story.reply();
    assert_eq!(content["ename"], json!("RunTimeout"));
    assert_eq!(content["remuda"]["process"]["stopped"], json!("run_timeout"));
    assert_eq!(story.engine.deadline(), Some(story.now.instant + limit), "the time in the queue does not count");
    story.pass(limit);
    story.ended(1, outcome(Some(0), None));
    assert_eq!(story.reply().1["ename"], json!("RunTimeout"), "whatever its exit code, it is not done");
    for wrong in [0.0, -1.0] {
        story.program_with(&limited(wrong));
        assert!(story.reply().1["evalue"].as_str().unwrap().contains("run_timeout"));
    }
}

#[test]
fn each_of_several_programs_is_stopped_by_itself() {
    let mut story = Story::with(3, &[]);
    story.program_with(&json!({"run_timeout": 1.0}));
    story.program_with(&json!({"run_timeout": 2.0}));
    story.program(&["c"]);
    assert_eq!(story.pass(Duration::from_secs(1)), ["signal #0: 15"]);
    let ids = json!({"msg_ids": [story.sent[2].as_str()], "remuda": {"stop": true}});
    assert!(story.control(MsgType::AbortRequest, &ids).contains(&"signal #2: 15".to_owned()));
    assert_eq!(story.pass(Duration::from_secs(1)), ["signal #1: 15"]);
    assert_eq!(story.pass(Duration::from_secs(1)), ["signal #0: 9", "signal #2: 9"]);
}

#[test]
fn parts_of_what_a_program_wrote_are_read_while_it_runs_and_after() {
    let mut story = Story::serving();
    story.program(&["a"]);
    let task = story.sent[0].clone();
    let ask =
        |offset: u64| json!({"msg_id": task.as_str(), "stream": "stdout", "offset": offset, "max_bytes": 1 << 30});
    assert_eq!(story.control(MsgType::OutputRequest, &ask(5)), ["read 0: 5"]);
    let Effect::ReadOutput { part, .. } = &story.last[0] else { panic!("{:?}", story.last) };
    assert_eq!(part.max_bytes, remuda_proto::message::content::MAX_OUTPUT_PART);
    assert_eq!(story.control(MsgType::OutputRequest, &ask(6)), ["read 1: 6"]);
    let part = OutputPart { from: Some(7), bytes: Bytes::from_static(b"part") };
    let read = |number| Event::OutputRead { number, part: Ok(part.clone()) };
    let told = story.step(read(1));
    assert!(told[0].contains("output_reply of #2: ok"), "{told:?}");
    story.ended(0, outcome(Some(0), None));
    story.step(read(0));
    let Effect::Reply { link: Link::Control, body, .. } = &story.last[0] else { panic!("{:?}", story.last) };
    assert_eq!(body.buffer(0).unwrap(), &b"part"[..]);
    let content: Value = serde_json::from_slice(body.content()).unwrap();
    assert_eq!((&content["ended"], &content["offset"]), (&json!(true), &json!(7)));
    let release = json!({"msg_id": task.as_str(), "stream": "stdout", "release": true});
    assert_eq!(story.control(MsgType::OutputRequest, &release)[0], "release #0");
    let wrong = story.control(MsgType::OutputRequest, &json!({"msg_id": 5}));
    assert!(wrong[0].contains("error") || wrong[0].contains("ValueError"), "{wrong:?}");
}

#[test]
fn a_program_that_succeeds_just_before_it_is_stopped_has_succeeded() {
    let mut story = Story::serving();
    story.program(&["a"]);
    story.control(MsgType::AbortRequest, &json!({"remuda": {"stop": true}}));
    story.ended(0, outcome(Some(0), None));
    assert_eq!(story.reply().1["status"], json!("ok"));
    assert_ne!(story.engine.deadline(), Some(story.now.instant + STOP_GRACE), "nothing is left to kill");
}

#[test]
fn a_function_is_told_to_stop_and_never_killed() {
    let mut story = Story::serving();
    story.function("mul");
    let told = story.control(MsgType::AbortRequest, &json!({"remuda": {"stop": true}}));
    let signals = |told: &[String]| told.iter().filter(|line| line.starts_with("signal")).count();
    assert_eq!(signals(&told), 1, "{told:?}");
    let again = story.control(MsgType::AbortRequest, &json!({"remuda": {"stop": true}}));
    assert_eq!((signals(&again), story.engine.running.deadline()), (0, None));
}

#[test]
fn a_signal_goes_to_the_program_that_runs() {
    let mut story = Story::serving();
    for (sig, status) in
        [(json!(2), json!("ok")), (json!("SIGUSR1"), json!("error")), (json!("nonsense"), json!("error"))]
    {
        story.control(MsgType::SignalRequest, &json!({"sig": sig}));
        assert_eq!(story.reply().1["status"], status, "{sig}, with nothing that runs");
    }
    story.program(&["a"]);
    let task = story.sent.len() - 1;
    let told = story.control(MsgType::SignalRequest, &json!({"sig": "SIGINT"}));
    assert!(told.contains(&format!("signal #{task}: 2")), "{told:?}");
}

#[test]
fn a_shutdown_is_answered_published_and_obeyed() {
    let mut story = Story::serving();
    story.program(&["a"]);
    let told = story.control(MsgType::ShutdownRequest, &json!({"restart": false}));
    assert_eq!(
        told,
        [
            "engine.3.status status of #1: busy",
            "Control [mux, 0x0001] shutdown_reply of #1: ok",
            "engine.3.status status of #1: idle",
            "engine.3.shutdown shutdown_reply of #1: ok",
            "exit Shutdown",
        ]
    );
    assert!(story.ended(0, outcome(None, Some(9))).is_empty(), "the end of what was killed is no contradiction");
}

#[test]
fn other_control_requests_are_answered() {
    let mut story = Story::serving();
    for (msg_type, status) in [
        ("clear_request", "ok"),
        ("kernel_info_request", "ok"),
        ("debug_request", "error"),
        ("interrupt_request", "error"),
    ] {
        let told = story.control(msg_type.into(), &json!({}));
        assert!(told[1].contains(&msg_type.replace("_request", "_reply")), "{told:?}");
        assert_eq!(story.reply().1["status"], json!(status), "{msg_type}");
    }
}
