//! The rules of a fleet, as short stories.

use super::*;

struct Story {
    fleet: Fleet,
    registered: Vec<(EngineId, EngineUuid)>,
}

fn uuid(unit: UnitId, place: u32) -> EngineUuid {
    format!("u{unit}.{place}").as_str().into()
}

impl Story {
    /// A unit whose engines have all started and are registered under the next ids.
    fn of(engines: u32) -> Self {
        let mut story = Self { fleet: Fleet::default(), registered: Vec::new() };
        assert_eq!(story.event(Event::Begin { engines }), [Effect::StartUnit { unit: 0, engines }]);
        story.runs(0, engines);
        story
    }

    fn event(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.fleet.handle(event, &mut out);
        out
    }

    fn runs(&mut self, unit: UnitId, engines: u32) {
        self.said(unit, Saying::Ready { host: "h".to_owned(), pid: 3, started: None });
        for place in 0..engines {
            self.starts(unit, place, 0);
            self.registered.push((EngineId(u32::try_from(self.registered.len()).unwrap()), uuid(unit, place)));
        }
    }

    fn starts(&mut self, unit: UnitId, place: u32, restarts: u32) {
        let saying = Saying::Started { place, pid: 100, uuid: uuid(unit, place), log: "l".to_owned(), restarts };
        assert_eq!(self.said(unit, saying), [Effect::Save]);
    }

    fn said(&mut self, unit: UnitId, saying: Saying) -> Vec<Effect> {
        self.event(Event::Said { unit, saying })
    }

    fn ends(&mut self, unit: UnitId, place: u32, ok: bool, again_in_s: Option<f64>) -> Vec<Effect> {
        let end = End { ok, how: "was ended by SIGKILL".to_owned(), tail: String::new() };
        self.said(unit, Saying::Ended { place, uuid: uuid(unit, place), end, again_in_s, restarts: 1 })
    }

    fn ask(&mut self, command: Command) -> Vec<Effect> {
        let registered = self.registered.clone();
        self.event(Event::Asked { by: 9, command, registered })
    }

    fn standings(&mut self) -> Vec<EngineStanding> {
        let roster = self.fleet.roster();
        roster.units.iter().flat_map(|unit| unit.engines.iter().map(|engine| engine.standing)).collect()
    }
}

fn done() -> Effect {
    Effect::Answer { to: 9, answer: Answer::Done }
}

fn refusal(out: &[Effect]) -> &str {
    let [Effect::Answer { answer: Answer::Refused(reason), .. }] = out else { panic!("{out:?}") };
    reason
}

#[test]
fn an_engine_that_dies_is_named_and_stands_so_until_it_is_back() {
    let mut story = Story::of(2);
    let out = story.ends(0, 1, false, Some(0.5));
    let [Effect::Complain(text), Effect::Save] = &out[..] else { panic!("{out:?}") };
    assert!(text.contains("SIGKILL") && text.contains("100") && text.contains("0.5 s"), "{text}");
    assert_eq!(story.standings(), [EngineStanding::Running, EngineStanding::BackingOff]);
    story.starts(0, 1, 1);
    assert_eq!(story.standings(), [EngineStanding::Running; 2]);
    let engine = &story.fleet.roster().units[0].engines[1];
    assert_eq!((engine.restarts, engine.last_end.as_ref().unwrap().ok), (1, false), "it is known why");
}

#[test]
fn engines_are_added_as_a_unit_of_their_own() {
    let mut story = Story::of(1);
    let out = story.ask(Command::Add { engines: 3 });
    assert_eq!(out, [Effect::StartUnit { unit: 1, engines: 3 }, Effect::Answer { to: 9, answer: Answer::Unit(1) }]);
    story.runs(1, 3);
    assert_eq!(story.standings().len(), 4);
    assert_eq!(story.ask(Command::Add { engines: 0 }), [done()]);
}

#[test]
fn engines_end_when_they_have_finished_or_at_once_and_each_nanny_hears_of_its_own() {
    let mut story = Story::of(2);
    story.ask(Command::Add { engines: 2 });
    story.runs(1, 2);
    let ids = vec![EngineId(1), EngineId(2), EngineId(3)];
    let word = |uuids, again, now| Word::End { uuids, again, now };
    let told = |again, now| {
        [(0, vec![uuid(0, 1)]), (1, vec![uuid(1, 0), uuid(1, 1)])]
            .map(|(unit, uuids)| Effect::Tell { unit, word: word(uuids, again, now) })
    };
    let out = story.ask(Command::End { ids: ids.clone(), again: false, now: false });
    assert_eq!(out[..2], told(false, false), "before the hub can end one");
    let [Effect::Drain { by: 9, engines }] = &out[2..] else { panic!("{out:?}") };
    assert_eq!(engines.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    let uuids = engines.iter().map(|(_, uuid)| uuid.clone()).collect();
    assert_eq!(story.event(Event::Drained { by: 9, uuids, refused: None }), [done()]);
    assert_eq!(story.ends(0, 1, false, None), [Effect::Save], "nobody complains of what was asked for");

    let out = story.ask(Command::End { ids: vec![EngineId(0)], again: true, now: true });
    assert_eq!(out, [Effect::Tell { unit: 0, word: word(vec![uuid(0, 0)], true, true) }, done()]);
}

#[test]
fn engines_that_are_not_there_or_not_ours_are_named_and_nothing_is_done() {
    let mut story = Story::of(2);
    story.registered.push((EngineId(7), "by hand".into()));
    let end = |ids: &[u32]| Command::End { ids: ids.iter().map(|id| EngineId(*id)).collect(), again: false, now: true };
    let out = story.ask(end(&[0, 5]));
    assert!(refusal(&out).contains("no engine 5") && refusal(&out).contains("0, 1, 7"), "{out:?}");
    let out = story.ask(end(&[0, 7]));
    assert!(refusal(&out).contains("engine 7") && refusal(&out).contains("drain 7"), "{out:?}");
    assert_eq!(story.ask(end(&[])), [done()]);
}

#[test]
fn a_drain_that_the_hub_refuses_is_told_and_an_end_of_such_an_engine_is_news_again() {
    let mut story = Story::of(1);
    let out = story.ask(Command::End { ids: vec![EngineId(0)], again: false, now: false });
    assert!(matches!(out[1], Effect::Drain { .. }));
    let refused = Some("no".to_owned());
    let out = story.event(Event::Drained { by: 9, uuids: vec![uuid(0, 0)], refused });
    assert_eq!(refusal(&out), "no");
    assert!(matches!(story.ends(0, 0, false, None)[0], Effect::Complain(_)));
}

#[test]
fn when_a_nanny_ends_its_engines_have_and_it_is_said_why() {
    let mut story = Story::of(2);
    let end = || End { ok: false, how: "exited with 255".to_owned(), tail: "Permission denied".to_owned() };
    let out = story.event(Event::UnitEnded { unit: 0, end: end() });
    let [Effect::Kill { unit: 0, pids }, Effect::Complain(text), Effect::Save] = &out[..] else { panic!("{out:?}") };
    assert_eq!(pids, &[100, 100], "nobody keeps them any more");
    assert!(text.contains("255") && text.contains("Permission denied"), "{text}");
    assert_eq!(story.standings(), [EngineStanding::Ended; 2]);

    let mut story = Story::of(1);
    story.ends(0, 0, false, None);
    assert_eq!(story.event(Event::UnitEnded { unit: 0, end: end() }), [Effect::Save], "its engine's end was told");
}

#[test]
fn a_stop_is_told_to_all_that_run_and_nothing_is_begun_after_it() {
    let mut story = Story::of(1);
    story.ask(Command::Add { engines: 1 });
    let end = End { ok: true, how: "exited with 0".to_owned(), tail: String::new() };
    story.event(Event::UnitEnded { unit: 0, end });
    assert_eq!(story.event(Event::Stop), [Effect::Tell { unit: 1, word: Word::Stop }]);
    assert_eq!(refusal(&story.ask(Command::Add { engines: 1 })), "the cluster is being stopped");
    assert!(matches!(&story.ask(Command::Status)[..], [Effect::Answer { answer: Answer::Roster(_), .. }]));
}
