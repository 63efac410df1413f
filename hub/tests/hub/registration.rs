//! Engines come and go.

use std::time::Duration;

use remuda_hub::{Config, Effect, EngineState, Event, MAX_REQUESTED_ID};
use remuda_proto::message::MsgType;
use remuda_proto::message::native::Capability;
use remuda_proto::{EngineId, Machine, Refusal};
use serde_json::{Value, json};

use super::support::{LONG, Story, refusal};

fn notified(story: &Story, effect: &Effect) -> (String, Value) {
    let Effect::Notify(body) = effect else { panic!("a notification is due: {effect:?}") };
    let answer = story.read(body);
    assert_eq!(answer.parent, json!({}));
    (answer.msg_type.to_string(), answer.content)
}

#[test]
fn an_engine_is_announced_when_its_heart_beats_and_not_before() {
    let mut story = Story::configured(Config { engine_connection: json!({"mux": 3}), ..Config::default() });
    let answer = story.ask("registration_request", &json!({"uuid": "e-1"}));
    assert_eq!(answer.msg_type, MsgType::RegistrationReply);
    assert_eq!(answer.parent, json!({}), "as from stock");
    assert_eq!(answer.content, json!({"id": 0, "status": "ok", "hb_period": 3000, "connection_info": {"mux": 3}}));
    assert_eq!(story.engines(), json!({}));

    let out = story.beat(&["e-1"]);
    let joined = Effect::Joined { uuid: "e-1".into(), id: EngineId(0), capability: Capability::stock() };
    assert_eq!(out[0], joined, "schedulers hear of it first");
    assert_eq!(notified(&story, &out[1]), ("registration_notification".into(), json!({"id": 0, "uuid": "e-1"})));
    assert_eq!(out.len(), 2);
    assert_eq!(story.engines(), json!({"0": "e-1"}));
    assert_eq!(story.pass(LONG), [], "it does not stall any more");
    assert_eq!(story.engines(), json!({"0": "e-1"}));
}

#[test]
fn the_hearts_of_engines_that_were_granted_a_registration_or_are_restored_are_expected_and_no_others() {
    let mut story = Story::new();
    story.ask("registration_request", &json!({"uuid": "a"}));
    story.ask("registration_request", &json!({"uuid": "a", "id": 0}));
    story.ask("registration_request", &json!({"uuid": ""}));
    assert_eq!(story.expected, ["a".into()]);
    let state = serde_json::from_value(json!({"engines": {"0": "a", "1": "b"}, "next_id": 2})).unwrap();
    assert_eq!(story.event(Event::Restore(state)), []);
    assert_eq!(story.expected, ["a".into(), "b".into()], "one that is pending already is expected once");
}

#[test]
fn an_engine_that_asks_whether_it_is_registered_is_told_and_nothing_else_happens() {
    let mut story = Story::new();
    let resume = |uuid: &str| json!({"uuid": uuid, "id": 0, "remuda": {"version": "1", "again": "resume"}});
    story.ask("registration_request", &json!({"uuid": "a"}));
    assert_eq!(story.ask("registration_request", &resume("a")).content["id"], 0, "its registration is pending");
    story.beat(&["a"]);
    assert_eq!(story.ask("registration_request", &resume("a")).content["id"], 0);
    let answer = story.ask("registration_request", &resume("b"));
    assert_eq!(answer.error(), ("registration_reply", "KeyError", "\"uuid 'b' is not registered\""));
    assert_eq!(story.engines(), json!({"0": "a"}));
    assert_eq!(story.ask("registration_request", &json!({"uuid": "c"})).content["id"], 1, "no id was used up");
}

#[test]
fn an_engine_that_begins_anew_takes_the_place_of_what_it_was() {
    let mut story = Story::new();
    let anew = json!({"uuid": "a", "id": 0, "remuda": {"version": "1", "process": true, "again": "anew"}});
    story.ask("registration_request", &json!({"uuid": "a", "remuda": {"version": "1", "process": true}}));
    story.beat(&["a"]);
    let out = story.query("registration_request", &anew);
    assert!(matches!(out[0], Effect::Left { id: EngineId(0), .. }), "its tasks are given up: {out:?}");
    let Some(Effect::Reply { body, .. }) = out.last() else { panic!("{out:?}") };
    assert_eq!(story.read(body).content["id"], 0, "under the same id");
    assert_eq!(story.engines(), json!({}));
    assert!(matches!(story.beat(&["a"])[..], [Effect::Joined { .. }, Effect::Notify(_)]));
    assert_eq!(story.engines(), json!({"0": "a"}));
    for _ in 0..2 {
        let out = story.query("registration_request", &anew);
        let Some(Effect::Reply { body, .. }) = out.last() else { panic!("{out:?}") };
        assert_eq!(story.read(body).content["id"], 0, "one that is pending, too");
    }
}

#[test]
fn engines_that_were_granted_an_id_and_were_not_heard_yet_are_saved_for_the_next_controller() {
    let mut story = Story::new();
    let state = serde_json::from_value(json!({"engines": {"0": "a", "1": "b"}, "next_id": 2})).unwrap();
    assert_eq!(story.event(Event::Restore(state)), []);
    story.ask("registration_request", &json!({"uuid": "new"}));
    story.beat(&["a"]);
    story.pass(Duration::from_secs(1));
    let saved = serde_json::to_value(story.saved.last().unwrap()).unwrap();
    assert_eq!(saved["engines"], json!({"0": "a", "1": "b", "2": "new"}), "each of them knows its id");
}

#[test]
fn all_schedulers_hear_of_all_engines_before_anybody_is_notified() {
    let mut story = Story::new();
    for uuid in ["a", "b"] {
        story.ask("registration_request", &json!({"uuid": uuid}));
    }
    let out = story.beat(&["a", "stray", "b"]);
    assert!(
        matches!(
            &out[..],
            [
                Effect::Joined { .. },
                Effect::Joined { .. },
                Effect::ForgetHeart(_),
                Effect::Notify(_),
                Effect::Notify(_)
            ]
        ),
        "{out:?}"
    );
}

#[test]
fn a_uuid_in_use_is_an_error_that_costs_an_id() {
    let mut story = Story::new();
    story.engine("it's");
    story.ask("registration_request", &json!({"uuid": "pending"}));
    for (uuid, evalue) in [("it's", "'uuid \"it\\'s\" in use'"), ("pending", "\"uuid 'pending' in use\"")] {
        let answer = story.ask("registration_request", &json!({"uuid": uuid}));
        assert_eq!(answer.error(), ("registration_reply", "KeyError", evalue));
        assert_eq!(answer.parent, json!({}));
    }
    assert_eq!(story.engine("c"), EngineId(4));
}

#[test]
fn a_requested_id_is_granted_if_it_is_free() {
    let mut story = Story::new();
    assert_eq!(story.engine_that(&json!({"uuid": "a", "id": 5})), EngineId(5));
    assert_eq!(story.engine("b"), EngineId(6), "the counter moves on");
    assert_eq!(story.engine_that(&json!({"uuid": "c", "id": 2})), EngineId(2));
    assert_eq!(story.engine_that(&json!({"uuid": "d", "id": 5})), EngineId(7), "taken");
    story.ask("registration_request", &json!({"uuid": "pending", "id": 30}));
    assert_eq!(story.engine_that(&json!({"uuid": "e", "id": 30})), EngineId(31), "pending");
    assert_eq!(story.engine_that(&json!({"uuid": "f", "id": null})), EngineId(32));
}

#[test]
fn no_request_brings_the_counter_to_its_end() {
    let mut story = Story::new();
    assert_eq!(story.engine_that(&json!({"uuid": "a", "id": u32::MAX})), EngineId(0));
    assert_eq!(story.engine_that(&json!({"uuid": "b", "id": MAX_REQUESTED_ID})), EngineId(MAX_REQUESTED_ID));
    assert_eq!(story.engine("c"), EngineId(MAX_REQUESTED_ID + 1));
}

#[test]
fn the_id_of_an_engine_that_left_may_be_asked_for_at_once() {
    let mut story = Story::new();
    story.engine("a");
    story.direct("m", "a");
    story.query("unregistration_request", &json!({"id": 0}));
    assert_eq!(story.engine_that(&json!({"uuid": "b", "id": 0})), EngineId(0));
    assert_eq!(story.queues()["0"], json!({"queue": 0, "completed": 0, "tasks": 0}), "a start afresh");
    assert_eq!(story.status_of("m"), "pending");
    story.pass(LONG);
    assert_eq!(story.status_of("m"), "completed");
    assert_eq!(story.engines(), json!({"0": "b"}));
}

#[test]
fn a_registration_whose_heart_never_beats_is_dropped() {
    let mut story = Story::new();
    story.ask("registration_request", &json!({"uuid": "a"}));
    assert_eq!(story.pass(Duration::from_secs(30)), []);
    assert_eq!(story.hub.deadline(), None);
    let late = story.beat(&["a"]);
    assert_eq!(late, [Effect::ForgetHeart("a".into())], "so that a second registration can complete");
    assert_eq!(story.engine("a"), EngineId(1), "the first id is spent");
}

#[test]
fn a_heart_that_answers_an_older_ping_than_its_registration_is_that_of_a_namesake() {
    let mut story = Story::new();
    let before = story.now.instant;
    story.pass(Duration::from_secs(1));
    story.ask("registration_request", &json!({"uuid": "a"}));
    let stale = story.event(Event::NewHearts(vec![("a".into(), before)]));
    assert_eq!(stale, [Effect::ForgetHeart("a".into())], "so that it is new when it answers a fresh one");
    assert_eq!(story.engines(), json!({}));
    let joined = story.beat(&["a"]);
    assert!(matches!(&joined[..], [Effect::Joined { .. }, Effect::Notify(_)]), "{joined:?}");
}

#[test]
fn a_hub_that_stood_still_gives_up_no_registration() {
    let mut story = Story::new();
    story.ask("registration_request", &json!({"uuid": "a"}));
    story.pass(Duration::from_secs(5));
    // Not woken in time: it was stopped, and so heard no hearts.
    story.now.instant = story.now.instant + LONG;
    let mut out = Vec::new();
    story.hub.on_deadline(story.now, &mut out);
    story.hub.check();
    assert_eq!(out, []);
    assert_eq!(story.pass(Duration::from_secs(20)), [], "what is left of the 30 seconds");
    let joined = story.beat(&["a"]);
    assert!(matches!(&joined[..], [Effect::Joined { .. }, Effect::Notify(_)]), "{joined:?}");

    story.ask("registration_request", &json!({"uuid": "b"}));
    story.pass(Duration::from_secs(31));
    let late = story.beat(&["b"]);
    assert_eq!(late, [Effect::ForgetHeart("b".into())], "while it runs, its patience ends");
}

#[test]
fn the_time_to_register_grows_with_the_period_of_the_heart() {
    let of = |seconds| Config::with_heart_period(Duration::from_secs(seconds)).registration_timeout;
    assert_eq!(of(3), Duration::from_secs(30));
    assert_eq!(of(10), Duration::from_secs(100));
}

#[test]
fn an_engine_leaves_by_request_and_nobody_is_answered() {
    let mut story = Story::new();
    story.engine("a");
    let out = story.query("unregistration_request", &json!({"id": 0}));
    assert_eq!(out[..2], [Effect::Left { uuid: "a".into(), id: EngineId(0) }, Effect::ForgetHeart("a".into())]);
    assert_eq!(notified(&story, &out[2]), ("unregistration_notification".into(), json!({"id": 0, "uuid": "a"})));
    assert_eq!(out.len(), 3);
    assert_eq!(story.engines(), json!({}));
    assert_eq!(story.query("unregistration_request", &json!({"id": 0})), [], "it is gone already");
    assert_eq!(story.query("unregistration_request", &json!({"id": -1})), []);
    assert_eq!(story.query("unregistration_request", &json!({"id": null})), []);
    assert!(matches!(refusal(&story.query("unregistration_request", &json!({}))), Refusal::Unpack(_)));
}

#[test]
fn a_pending_registration_can_be_cancelled() {
    let mut story = Story::new();
    story.ask("registration_request", &json!({"uuid": "a"}));
    let out = story.query("unregistration_request", &json!({"id": 0}));
    assert_eq!(out, [Effect::ForgetHeart("a".into())]);
    assert_eq!(story.beat(&["a"]), [Effect::ForgetHeart("a".into())]);
    assert_eq!(story.engines(), json!({}));
}

#[test]
fn an_engine_whose_heart_stopped_is_gone() {
    let mut story = Story::new();
    story.engine("a");
    story.engine("b");
    let out = story.event(Event::StoppedHearts(vec!["b".into(), "stranger".into(), "a".into()]));
    assert!(
        matches!(&out[..], [Effect::Left { .. }, Effect::Left { .. }, Effect::Notify(_), Effect::Notify(_)]),
        "{out:?}"
    );
    assert_eq!(story.engines(), json!({}));
    assert_eq!(story.event(Event::StoppedHearts(vec!["a".into()])), []);
}

#[test]
fn an_engine_that_publishes_its_shutdown_is_gone() {
    let mut story = Story::new();
    story.engine("a");
    let out = story.publishes("shutdown_reply", "a", None, &json!({"restart": false}));
    assert!(matches!(&out[..], [Effect::Left { .. }, Effect::ForgetHeart(_), Effect::Notify(_)]), "{out:?}");
    assert_eq!(story.publishes("shutdown_reply", "a", None, &json!({})), []);
}

#[test]
fn a_native_engine_says_what_it_can_run() {
    let mut story = Story::new();
    let announced = json!({"version": "0.1.0", "host": "h", "pid": 7, "functions": ["mul"], "process": true});
    story.ask("registration_request", &json!({"uuid": "n", "remuda": announced}));
    let out = story.beat(&["n"]);
    let Effect::Joined { capability, .. } = &out[0] else { panic!("{out:?}") };
    assert!(!capability.python && capability.process && capability.functions.contains("mul"));
}

#[test]
fn an_announcement_of_the_wrong_shape_is_answered_with_what_is_wrong() {
    let mut story = Story::new();
    for announced in [json!(1), json!({}), json!({"version": "0", "pid": "seven"}), json!({"version": 1})] {
        let answer = story.ask("registration_request", &json!({"uuid": "n", "remuda": announced}));
        let (msg_type, ename, evalue) = answer.error();
        assert_eq!((msg_type, ename), ("registration_reply", "ValueError"));
        assert!(evalue.starts_with("`remuda` of a registration is not understood: "), "{evalue}");
    }
    assert_eq!(story.engine_that(&json!({"uuid": "n", "remuda": null})), EngineId(0));
}

#[test]
fn a_registration_without_sense_is_not_granted() {
    let mut story = Story::new();
    assert!(matches!(refusal(&story.query("registration_request", &json!({}))), Refusal::Unpack(_)), "no reply");
    for (content, ename, about) in [
        (json!({"uuid": 7}), "TypeError", "`uuid`"),
        (json!({"uuid": null}), "TypeError", "`uuid`"),
        (json!({"uuid": "a", "id": "x"}), "TypeError", "`id`"),
        (json!({"uuid": "a", "id": -1}), "TypeError", "`id`"),
        (json!({"uuid": ""}), "ValueError", "uuid"),
        (json!({"uuid": "\u{0}a"}), "ValueError", "uuid"),
        (json!({"uuid": "a".repeat(256)}), "ValueError", "uuid"),
    ] {
        let answer = story.ask("registration_request", &content);
        let (_, name, evalue) = answer.error();
        assert_eq!(name, ename, "{content}");
        assert!(evalue.contains(about), "{evalue}");
    }
}

#[test]
fn engines_are_saved_once_for_many_changes_and_before_the_end() {
    let mut story = Story::new();
    story.engine("a");
    story.engine_that(&json!({"uuid": "n", "remuda": {"version": "1", "functions": ["f"], "process": true}}));
    assert_eq!(story.saved, []);
    story.pass(Duration::from_secs(1));
    let saved = serde_json::to_value(&story.saved[0]).unwrap();
    assert_eq!(story.saved.len(), 1);
    assert_eq!((&saved["engines"], &saved["next_id"]), (&json!({"0": "a", "1": "n"}), &json!(2)), "as stock writes it");
    assert_eq!(saved["remuda"]["1"]["functions"], json!(["f"]));
    story.query("unregistration_request", &json!({"id": 0}));
    story.event(Event::Stop);
    assert_eq!(serde_json::to_value(&story.saved[1]).unwrap()["engines"], json!({"1": "n"}));
    story.pass(LONG);
    assert_eq!(story.saved.len(), 2, "nothing changed");
}

#[test]
fn an_id_is_kept_for_the_next_controller_before_its_engine_beats() {
    let mut story = Story::new();
    let native = json!({"version": "1", "functions": ["f"], "process": true});
    story.query("registration_request", &json!({"uuid": "a", "id": 5}));
    story.query("registration_request", &json!({"uuid": "n", "remuda": native}));
    story.query("registration_request", &json!({"uuid": "a"}));
    let mut state = EngineState::default();
    story.granted.drain(..).for_each(|grant| state.grant(grant));
    let mut next = Story::new();
    next.event(Event::Restore(state));
    assert_eq!(next.beat(&["a", "n"]).len(), 4, "both join");
    assert_eq!(next.engines(), json!({"5": "a", "6": "n"}));
    assert_eq!(next.engine("b"), EngineId(7));
    next.query("registration_request", &json!({"uuid": "c"}));
    next.pass(Duration::from_secs(1));
    let saved = serde_json::to_value(next.saved.last().unwrap()).unwrap();
    assert_eq!(saved["engines"], json!({"5": "a", "6": "n", "7": "b", "8": "c"}), "`c` knows its id");
    assert_eq!(saved["remuda"]["6"]["functions"], json!(["f"]));
}

#[test]
fn restored_engines_are_registered_again_when_their_hearts_beat() {
    let stock = json!({"engines": {"3": "a", "4": "b", "5": "", "4294967295": "c"}, "next_id": 9});
    let mut story = Story::new();
    assert_eq!(story.event(Event::Restore(serde_json::from_value(stock).unwrap())), []);
    assert_eq!(story.engines(), json!({}), "nobody knows whether they live");
    let out = story.beat(&["a"]);
    assert!(matches!(&out[..], [Effect::Joined { id: EngineId(3), .. }, Effect::Notify(_)]), "{out:?}");
    assert_eq!(story.engines(), json!({"3": "a"}));
    story.pass(LONG);
    story.beat(&["b", "c"]);
    assert_eq!(story.engines(), json!({"3": "a"}), "too late, and no engine at all");
    assert_eq!(story.engine("d"), EngineId(9), "ids are not used again");
}
