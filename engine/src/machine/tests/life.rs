//! Registration, the heartbeat, the end.

use super::*;

#[test]
fn an_engine_registers_then_connects() {
    let mut story = Story::new(Packer::Json);
    let asked = story.step(Event::Start);
    assert_eq!(asked.len(), 1);
    assert!(asked[0].starts_with(r#"hub registration_request: {"uuid":"engine-uuid","remuda":{"version":"1.2.3""#));
    let reply = json!({"id": 3, "status": "ok", "hb_period": 1000});
    let body = story.message(MsgType::RegistrationReply, &json!({}), &reply, &[]);
    assert_eq!(story.step(Event::Registered(body.clone())), ["connect as 3", "engine.3.status status: starting"]);
    assert_eq!(story.step(Event::Registered(body)), ["refused Hub: replay"]);
}

#[test]
fn a_registration_that_is_refused_ends_the_engine_with_the_reason() {
    let mut story = Story::new(Packer::Json);
    story.step(Event::Start);
    let content = json!({"status": "error", "ename": "KeyError", "evalue": "in use", "traceback": []});
    let body = story.message(MsgType::RegistrationReply, &json!({}), &content, &[]);
    story.step(Event::Registered(body));
    let [Effect::Exit(Ending::Refused(error))] = &story.last[..] else { panic!("{:?}", story.last) };
    assert_eq!(error.to_string(), "KeyError: in use");
    assert!(story.program(&["ls"]).is_empty(), "nothing has an effect after the end");
}

#[test]
fn a_controller_that_does_not_answer_is_given_up_in_time() {
    let mut story = Story::new(Packer::Json);
    story.step(Event::Start);
    assert!(story.pass(Duration::from_millis(4999)).is_empty());
    assert_eq!(
        story.pass(Duration::from_millis(1)),
        [r#"hub unregistration_request: {"id":null}"#, "exit NoAnswer { waited: 5s }"]
    );
    assert_eq!(story.engine.deadline(), None);
}

#[test]
fn an_engine_whose_controller_falls_silent_leaves() {
    let mut story = Story::serving();
    assert!(story.pass(Duration::from_secs(74)).is_empty());
    story.step(Event::Ping);
    assert!(story.pass(Duration::from_secs(74)).is_empty());
    assert_eq!(
        story.pass(Duration::from_secs(1)),
        [r#"hub unregistration_request: {"id":3}"#, "exit ControllerLost { silence: 75s }"]
    );
}

#[test]
fn an_absurd_heartbeat_is_no_danger() {
    let mut story = Story::new(Packer::Json);
    story.step(Event::Start);
    let reply = json!({"id": 3, "status": "ok", "hb_period": u64::MAX});
    let body = story.message(MsgType::RegistrationReply, &json!({}), &reply, &[]);
    story.step(Event::Registered(body));
    assert!(story.pass(Duration::from_secs(1_000_000)).is_empty());
}

#[test]
fn while_the_controller_is_silent_it_is_looked_for_elsewhere_with_growing_pauses() {
    let mut story = Story::serving();
    let mut looks = Vec::new();
    for second in 1..75 {
        if story.pass_silently(Duration::from_secs(1)) == ["look"] {
            looks.push(second);
        }
    }
    assert_eq!(looks, [3, 5, 8, 14, 26, 50], "two periods, with a slack of half a second, then pauses that double");
    assert_eq!(story.step(Event::Moved), [r#"hub unregistration_request: {"id":3}"#, "exit Moved"]);
}

#[test]
fn after_a_silence_the_controller_is_asked_whether_it_knows_the_engine_still() {
    let mut story = Story::serving();
    story.pass(Duration::from_millis(2900));
    assert!(story.step(Event::Ping).is_empty(), "a ping that is missed is no silence");
    story.pass(Duration::from_secs(10));
    let asked = story.step(Event::Ping);
    assert!(
        asked[0].starts_with(r#"hub registration_request: {"uuid":"engine-uuid","id":3,"remuda":{"version":"1.2.3""#)
    );
    assert!(asked[0].ends_with(r#""again":"resume"}}"#), "{asked:?}");
    story.program(&["ls"]);
    let still = json!({"id": 3, "status": "ok", "hb_period": 1000});
    let body = story.message(MsgType::RegistrationReply, &json!({}), &still, &[]);
    assert!(story.step(Event::Registered(body)).is_empty(), "all is as it was");
    let body = story.message(MsgType::RegistrationReply, &json!({}), &still, &[]);
    assert_eq!(story.step(Event::Registered(body)), ["refused Hub: type"], "nobody asked");

    story.pass(Duration::from_secs(10));
    story.step(Event::Ping);
    let forgotten = json!({"status": "error", "ename": "KeyError", "evalue": "not registered", "traceback": []});
    let body = story.message(MsgType::RegistrationReply, &json!({}), &forgotten, &[]);
    assert_eq!(story.step(Event::Registered(body)), ["exit Forgotten"], "its task is nobody's");
}

#[test]
fn now_and_then_it_is_asked_in_any_case() {
    let mut story = Story::serving();
    let asked = (0..250).filter(|_| {
        story.pass(Duration::from_secs(1));
        !story.step(Event::Ping).is_empty()
    });
    assert_eq!(asked.count(), 2);
}

#[test]
fn a_later_life_says_that_nothing_is_left_of_the_one_before() {
    let mut story = Story::of_life(Packer::Json, true);
    let asked = story.step(Event::Start);
    assert!(asked[0].ends_with(r#""again":"anew"}}"#), "{asked:?}");
}

#[test]
fn a_stop_says_goodbye_to_the_hub() {
    let mut story = Story::serving();
    assert_eq!(story.step(Event::Stop), [r#"hub unregistration_request: {"id":3}"#, "exit Stopped"]);
    assert!(story.step(Event::Stop).is_empty());
    assert_eq!(Story::new(Packer::Json).step(Event::Stop), ["exit Stopped"]);
}
