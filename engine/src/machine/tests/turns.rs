//! Which tasks run, which are lined up, and which wait.

use super::*;

#[test]
fn requests_have_their_turn_in_order_of_arrival() {
    let mut story = Story::serving();
    story.program(&["a"]);
    assert_eq!(story.program(&["b"]), ["line up #1: b"]);
    let told = story.shell(MsgType::ApplyRequest, &json!({}), &[]);
    assert_eq!(told[0], "engine.3.status status of #2: busy");
    assert!(told.contains(&"Shell [mux, 0x0001] apply_reply of #2: UnmetDependency".to_owned()), "{told:?}");
    assert_eq!(story.program(&["c"]), ["line up #3: c"]);
    assert_eq!(story.engine.load(), 3);
    let told = story.ended(0, outcome(Some(0), None));
    assert_eq!(told.last().unwrap(), "engine.3.status status of #1: busy");
    let told = story.ended(1, outcome(Some(0), None));
    assert_eq!(told.last().unwrap(), "engine.3.status status of #3: busy");
    story.ended(3, outcome(Some(0), None));
    assert_eq!(story.engine.load(), 0);
}

#[test]
fn what_was_lined_up_too_late_for_the_last_end_is_begun_beside_what_runs() {
    // Two slots; both ends are on their way, and found nothing lined up.
    let mut story = Story::with(2, &[]);
    for name in ["a", "b", "c", "d", "e"] {
        story.program(&[name]);
    }
    let lined: Vec<MsgId> = std::mem::take(&mut story.line).into();
    assert_eq!(lined, story.sent[2..]);
    assert_eq!(story.ended(0, outcome(Some(0), None)).last().unwrap(), "start next");
    assert_eq!(story.ended(1, outcome(Some(0), None)).last().unwrap(), "start next");
    let began = |msg_id: Option<&MsgId>| Event::Began { msg_id: msg_id.cloned(), at: Date(5) };
    assert_eq!(story.step(began(Some(&lined[0]))), ["engine.3.status status of #2: busy"]);
    // The second is asked to begin beside it, and that was already done at the end of the first, of which we hear now.
    let (stdout, stderr) = (Bytes::new(), Bytes::new());
    let outcome = Outcome::Program { ended: outcome(Some(0), None), stdout, stderr, output: None };
    let done = Event::TaskDone { msg_id: lined[0].clone(), outcome, at: Date(6), next: Some(lined[1].clone()) };
    assert_eq!(story.step(done).last().unwrap(), "engine.3.status status of #3: busy");
    assert_eq!(story.step(began(Some(&lined[2]))), ["engine.3.status status of #4: busy"]);
    assert_eq!(story.engine.load(), 2);
    story.ended(4, self::outcome(Some(0), None));
    let (metadata, ..) = story.reply();
    assert_eq!(metadata["started"], json!("1970-01-01T00:00:00.000005Z"));
}

#[test]
fn nothing_is_lined_up_behind_what_takes_something_else() {
    let mut story = Story::with(3, &[]);
    assert_eq!(story.program_with(&json!({"needs": {"cpus": 2}}))[1], "start #0: a");
    assert_eq!(story.program_with(&json!({}))[1], "start #1: a");
    assert!(story.program_with(&json!({})).is_empty(), "what ends first may be too little, or too much");
    let told = story.ended(0, outcome(Some(0), None));
    assert_eq!(told.last().unwrap(), "start #2: a");
    assert_eq!(story.program_with(&json!({}))[1], "start #3: a");
    assert_eq!(story.program_with(&json!({})), ["line up #4: a"]);
}

#[test]
fn nothing_goes_before_what_is_lined_up() {
    let mut story = Story::with(3, &[("gpu", 1)]);
    let gpu = json!({"needs": {"gpu": 1}});
    assert_eq!(story.program_with(&gpu)[1], "start #0: a");
    assert_eq!(story.program_with(&gpu), ["line up #1: a"]);
    assert!(story.program_with(&json!({})).is_empty(), "though there are slots enough");
    let told = story.ended(0, outcome(Some(0), None));
    assert_eq!(told.last().unwrap(), "start #2: a");
}

#[test]
fn a_place_that_was_kept_for_what_had_begun_already_is_free_again() {
    let mut story = Story::with(2, &[]);
    for name in ["a", "b", "c"] {
        story.program(&[name]);
    }
    // The end of the first found nothing lined up; that of the second did, before it could be begun beside it.
    let lined = story.line.pop_front();
    assert_eq!(story.ended(0, outcome(Some(0), None)).last().unwrap(), "start next");
    story.line.extend(lined);
    assert_eq!(story.ended(1, outcome(Some(0), None)).last().unwrap(), "engine.3.status status of #2: busy");
    assert!(story.step(Event::Began { msg_id: None, at: Date(5) }).is_empty());
    assert_eq!(story.program(&["d"])[1], "start #3: d");
}

#[test]
fn as_many_run_at_once_as_there_is_room_for_in_order_of_arrival() {
    let mut story = Story::with(3, &[("gpu", 1)]);
    let starts = |told: Vec<String>| told.into_iter().filter(|line| line.starts_with("start")).collect::<Vec<_>>();
    assert_eq!(starts(story.program_with(&json!({"needs": {"cpus": 2, "gpu": 1}}))), ["start #0: a"]);
    assert_eq!(starts(story.program_with(&json!({"needs": {"gpu": 1}}))), [""; 0], "the gpu is taken");
    assert_eq!(starts(story.program_with(&json!({}))), [""; 0], "there is room, but it is not its turn");
    assert_eq!(story.engine.load(), 3);
    assert_eq!(starts(story.ended(0, outcome(Some(0), None))), ["start #1: a", "start #2: a"]);
    assert_eq!(starts(story.program_with(&json!({"attempt": 7}))), ["start #3: a"]);
    assert!(story.last.iter().any(|effect| matches!(effect, Effect::Start { attempt: 7, .. })));
    assert_eq!(starts(story.program_with(&json!({}))), [""; 0], "all slots are taken");
    // They end in any order, and each reply is that of its own task.
    for number in [3, 1, 2, 4] {
        let told = story.ended(number, outcome(Some(0), None));
        assert!(told.iter().any(|line| line.contains(&format!("apply_reply of #{number}"))), "{told:?}");
    }
    assert_eq!(story.engine.load(), 0);
}

#[test]
fn what_is_too_much_for_an_engine_is_for_another() {
    let mut story = Story::with(2, &[]);
    for needs in [json!({"cpus": 3}), json!({"gpu": 1}), json!({"label": "big"})] {
        story.program_with(&json!({"needs": needs}));
        let (metadata, content, _) = story.reply();
        assert_eq!(metadata["dependencies_met"], json!(false));
        assert!(content["evalue"].as_str().unwrap().ends_with("engine 3 has cpus=2"), "{content}");
    }
}
