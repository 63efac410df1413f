//! What a controller that takes over is told, and sent again.

use super::*;

impl Story {
    /// A controller that takes over asks what the engine has, and about these requests.
    fn probe(&mut self, assigned: &[&MsgId]) -> Vec<String> {
        self.shell(MsgType::KernelInfoRequest, &json!({"remuda": {"assigned": assigned}}), &[])
    }

    /// What the engine says that it has.
    fn has(&self) -> Vec<String> {
        let Some(Effect::Reply { body, .. }) = self.last.last() else { panic!("{:?}", self.last) };
        let content: Value = self.peer.packer().unpack(body.content()).unwrap();
        assert_eq!(content["status"], "ok");
        let has: Vec<MsgId> = serde_json::from_value(content["remuda"]["has"].clone()).unwrap();
        has.iter().map(|msg_id| self.name(msg_id)).collect()
    }

    fn value(&mut self, task: usize) -> Vec<String> {
        let outcome =
            Outcome::Value { pickle: Bytes::from_static(b"p"), msgpack: Bytes::from_static(b"m"), buffers: Vec::new() };
        self.done(task, outcome)
    }
}

#[test]
fn a_probe_is_answered_at_once_with_the_replies_that_are_held_and_what_is_still_to_come() {
    let mut story = Story::serving();
    story.function("mul");
    let sent = story.value(0);
    story.program(&["sleep"]);
    story.function("mul");
    let (done, other) = (story.sent[0].clone(), MsgId::from("never came"));
    let told = story.probe(&[&done, &other]);
    let reply = sent.iter().find(|line| line.starts_with("Shell")).unwrap();
    assert_eq!((told.len(), &told[0]), (2, reply), "{told:?}");
    assert_eq!(story.has(), ["#1", "#2"]);
    // What is not asked for is not sent.
    assert_eq!(story.probe(&[]).len(), 1);
}

#[test]
fn a_request_that_it_has_or_had_is_not_run_again() {
    let mut story = Story::serving();
    let content = json!({"remuda": {"function": "mul"}});
    let first = story.message(MsgType::ApplyRequest, &json!({}), &content, &[]);
    let again = |story: &Story, mark: u64| {
        let metadata = story.peer.packer().pack(&json!({"remuda": {"sent_again": mark}})).unwrap();
        let body = story.peer.sign_parts([first.header(), first.parent_header(), &metadata, first.content()], []);
        Event::Shell(frames(body))
    };
    let waits = story.message(MsgType::ApplyRequest, &json!({}), &content, &[]);
    story.step(Event::Shell(frames(first.clone())));
    story.step(Event::Shell(frames(waits)));
    let event = again(&story, 1);
    assert!(story.step(event).is_empty(), "it runs");
    let sent = story.value(0);
    let reply = sent.iter().find(|line| line.starts_with("Shell")).cloned();
    let event = again(&story, 2);
    assert_eq!(story.step(event), Vec::from_iter(reply));
    let metadata = story.peer.packer().pack(&json!({"remuda": {"attempt": 2}})).unwrap();
    let body = story.peer.sign_parts([first.header(), first.parent_header(), &metadata, first.content()], []);
    story.step(Event::Shell(frames(body)));
    story.value(1);
    assert_eq!(story.engine.load(), 1, "another attempt is another run");
    let msg_id = story.sent[0].clone();
    let told = story.probe(&[&msg_id]);
    assert_eq!(told.len(), 1, "the reply to the attempt before says nothing of the one that runs: {told:?}");
    assert_eq!(story.has(), ["#0"]);
    story.value(0);
    story.now.instant = story.now.instant + HELD_FOR;
    let event = again(&story, 3);
    assert!(story.step(event).iter().any(|line| line == "start #0: mul"), "it is forgotten by now");
}

#[test]
fn an_engine_that_answers_at_once_holds_nothing() {
    let mut story = Story::new(Packer::Json);
    story.engine.null = true;
    story.serve();
    story.function("mul");
    let done = story.sent[0].clone();
    assert_eq!(story.probe(&[&done]).len(), 1);
}
