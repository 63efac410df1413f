//! The rules of a fleet, as short stories.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;

struct Story {
    fleet: Fleet,
    now: Instant,
    registered: Vec<(EngineId, EngineUuid)>,
}

fn uuid(unit: UnitId, place: u32) -> EngineUuid {
    format!("u{unit}.{place}").as_str().into()
}

impl Story {
    fn with(fleet: Fleet) -> Self {
        Self { fleet, now: Instant::default(), registered: Vec::new() }
    }

    /// A unit whose engines have all started and are registered under the next ids.
    fn of(engines: u32) -> Self {
        let mut story = Self::with(Fleet::default());
        assert_eq!(story.event(Event::Begin { units: vec![engines] }), [Effect::StartUnit { unit: 0, engines }]);
        story.runs(0, engines);
        story
    }

    fn event(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.fleet.handle(self.now, event, &mut out);
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
    assert_eq!(
        out,
        [Effect::StartUnit { unit: 1, engines: 3 }, Effect::Answer { to: 9, answer: Answer::Units(vec![1]) }]
    );
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
    let [Effect::Drain { by: Some(9), engines }] = &out[2..] else { panic!("{out:?}") };
    assert_eq!(engines.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    let uuids = engines.iter().map(|(_, uuid)| uuid.clone()).collect();
    assert_eq!(story.event(Event::Drained { by: Some(9), uuids, refused: None }), [done()]);
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
    let out = story.event(Event::Drained { by: Some(9), uuids: vec![uuid(0, 0)], refused });
    assert_eq!(out[0], Effect::Tell { unit: 0, word: Word::Keep { uuids: vec![uuid(0, 0)] } });
    assert_eq!(refusal(&out[1..]), "no");
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

const IDLE: Duration = Duration::from_secs(10);

/// Elastic between 1 and 4, with one engine that is there.
fn elastic() -> Story {
    let mut story = Story::with(Fleet::elastic(Elastic { min: 1, max: 4, idle: IDLE }, true));
    story.event(Event::Begin { units: vec![1, 0] });
    story.runs(0, 1);
    story
}

impl Story {
    /// So many tasks wait; of the registered engines these have something to do.
    fn load(&mut self, at_s: u64, waiting: u64, busy: &[u32]) -> Vec<Effect> {
        let engines = self.registered.iter().map(|(id, uuid)| EngineLoad {
            id: *id,
            uuid: uuid.clone(),
            outstanding: u64::from(busy.contains(&id.0)),
            completed: 0,
            slots: 1,
        });
        let engines = engines.collect();
        self.now = Instant::default() + Duration::from_secs(at_s);
        self.event(Event::Load { waiting, engines })
    }
}

#[test]
fn it_grows_with_the_queue_and_counts_those_that_are_on_their_way() {
    let mut story = elastic();
    assert_eq!(story.load(0, 0, &[0]), []);
    assert_eq!(story.load(1, 2, &[0]), [Effect::StartUnit { unit: 1, engines: 2 }]);
    assert_eq!(story.load(2, 2, &[0]), [], "they are coming");
    assert_eq!(story.load(3, 9, &[0]), [Effect::StartUnit { unit: 2, engines: 1 }], "no more than the most");
    assert_eq!(story.load(4, 99, &[0]), []);
    story.runs(1, 2);
    assert_eq!(story.load(5, 99, &[0, 1, 2]), []);
    assert_eq!(story.ends(1, 0, true, None), [Effect::Save]);
    story.registered.remove(1);
    assert_eq!(story.load(6, 99, &[0, 2]), [Effect::StartUnit { unit: 3, engines: 1 }], "there is room again");
}

#[test]
fn it_shrinks_to_the_least_by_those_that_were_idle_for_longest_and_never_while_tasks_wait() {
    let mut story = elastic();
    story.load(0, 3, &[0]);
    story.runs(1, 3);
    assert_eq!(story.load(1, 0, &[0, 1]), []);
    assert_eq!(story.load(2, 0, &[0]), [], "engine 1 is idle from now on");
    assert_eq!(story.load(10, 0, &[0]), []);
    assert_eq!(story.load(12, 1, &[0]), [], "a task waits, and there are as many as may be");
    let out = story.load(13, 0, &[0]);
    let [
        Effect::Tell { unit: 1, word: Word::End { uuids, again: false, now: false } },
        Effect::Drain { by: None, engines },
    ] = &out[..]
    else {
        panic!("{out:?}")
    };
    assert_eq!(uuids, &[uuid(1, 1), uuid(1, 2), uuid(1, 0)], "engine 0 is the one that stays");
    assert_eq!(engines.len(), 3);
    assert_eq!(story.load(14, 0, &[0]), [], "they are leaving");
    let refused = Some("no".to_owned());
    story.event(Event::Drained { by: None, uuids: vec![uuid(1, 0)], refused });
    assert!(matches!(&story.load(40, 0, &[0])[..], [Effect::Tell { .. }, Effect::Drain { .. }]), "it is tried again");
}

#[test]
fn an_engine_that_did_something_in_between_was_not_idle() {
    let mut story = elastic();
    story.load(0, 1, &[0]);
    story.runs(1, 1);
    story.load(1, 0, &[]);
    story.now = Instant::default() + Duration::from_secs(12);
    let of = |id: u32, uuid: EngineUuid, completed| EngineLoad {
        id: EngineId(id),
        uuid,
        outstanding: 0,
        completed,
        slots: 1,
    };
    let engines = vec![of(0, uuid(0, 0), 0), of(1, uuid(1, 0), 5)];
    let out = story.event(Event::Load { waiting: 0, engines });
    assert!(matches!(&out[..], [Effect::Tell { unit: 0, .. }, Effect::Drain { .. }]), "{out:?}");
}

#[test]
fn engines_with_several_slots_take_as_many_tasks_and_the_least_is_kept_up() {
    let mut story = elastic();
    let engines = vec![EngineLoad { id: EngineId(0), uuid: uuid(0, 0), outstanding: 4, completed: 0, slots: 4 }];
    let out = story.event(Event::Load { waiting: 5, engines });
    assert_eq!(out, [Effect::StartUnit { unit: 1, engines: 2 }]);

    let mut story = elastic();
    story.ends(0, 0, false, None);
    story.registered.clear();
    assert_eq!(story.load(1, 0, &[]), [Effect::StartUnit { unit: 1, engines: 1 }]);
}

use remuda_proto::message::restart::{Restart, RestartPolicy};

use crate::launch::batch::Shape;

/// Three units of an engine each, in jobs.
fn in_jobs(policy: RestartPolicy, limit: Option<u32>) -> Story {
    let shape = Shape { engines_per_job: None, array: true };
    let restart = Restart { limit, ..Restart::new(policy) };
    let mut story = Story::with(Fleet::default().in_jobs(shape).restarting(restart));
    let out = story.event(Event::Begin { units: vec![3] });
    assert_eq!(out, [0, 1, 2].map(|unit| Effect::StartUnit { unit, engines: 1 }));
    for unit in 0..3 {
        story.accepted(unit);
        story.runs(unit, 1);
    }
    story
}

impl Story {
    fn accepted(&mut self, unit: UnitId) {
        let job = UnitJob { id: format!("17_{unit}"), waits: Some(String::new()), ..UnitJob::default() };
        assert_eq!(self.event(Event::Queued { unit, job }), []);
    }

    fn job_ends(&mut self, unit: UnitId, ok: bool, how: &str) -> Vec<Effect> {
        let end = End { ok, how: how.to_owned(), tail: String::new() };
        self.event(Event::UnitEnded { unit, end })
    }

    fn pass(&mut self, seconds: u64) -> Vec<Effect> {
        self.now = self.now + Duration::from_secs(seconds);
        let mut out = Vec::new();
        self.fleet.look(self.now, &mut out);
        out
    }
}

fn complaint(out: &[Effect]) -> &str {
    let text = out.iter().find_map(|effect| match effect {
        Effect::Complain(text) => Some(text),
        _ => None,
    });
    text.unwrap_or_else(|| panic!("{out:?}"))
}

#[test]
fn jobs_that_end_are_submitted_again_after_a_pause_those_together_that_are_due_together() {
    let mut story = in_jobs(RestartPolicy::OnFailure, None);
    let out = story.job_ends(1, false, "failed (TIMEOUT)");
    let text = complaint(&out);
    assert!(text.contains("job 17_1") && text.contains("TIMEOUT") && text.contains("again in 1 s"), "{text}");
    story.job_ends(2, false, "failed (NODE_FAIL)");
    assert_eq!(story.fleet.roster().units[1].standing, UnitStanding::BackingOff);
    assert_eq!(story.pass(0), []);
    assert_eq!(story.pass(1), [1, 2].map(|unit| Effect::StartUnit { unit, engines: 1 }));
    assert_eq!(story.pass(9), [], "once");
    story.accepted(1);
    assert!(complaint(&story.job_ends(1, false, "failed")).contains("again in 2 s"), "twice as long");
    assert_eq!(story.event(Event::Stop).len(), 2, "nothing is told to one that is not there");
    assert_eq!(story.pass(60), []);
    assert_eq!(story.fleet.units_left(), 2);
}

#[test]
fn whether_a_job_is_submitted_again_is_a_matter_of_the_policy_and_its_limit() {
    let mut story = in_jobs(RestartPolicy::Never, None);
    assert!(complaint(&story.job_ends(0, false, "failed")).contains("not submitted again"));
    let mut story = in_jobs(RestartPolicy::OnFailure, Some(1));
    assert_eq!(story.job_ends(0, true, "exited with 0").len(), 2, "all well");
    assert_eq!(story.pass(60), []);
    story.job_ends(1, false, "failed");
    assert_eq!(story.pass(60).len(), 1);
    story.accepted(1);
    assert!(complaint(&story.job_ends(1, false, "failed")).contains("not submitted again"));
}

#[test]
fn a_job_that_its_system_ends_by_a_signal_has_not_ended_well_and_its_engines_are_missed() {
    let mut story = in_jobs(RestartPolicy::OnFailure, None);
    assert_eq!(story.said(0, Saying::Signalled { signal: 15 }), []);
    assert_eq!(story.ends(0, 0, false, None), [Effect::Save], "that is told of the job");
    let out = story.job_ends(0, true, "exited with 0");
    assert!(complaint(&out).contains("signal 15"), "{out:?}");
    assert_eq!(story.pass(1), [Effect::StartUnit { unit: 0, engines: 1 }]);

    // One whose engines all were to end is not missed.
    let mut story = in_jobs(RestartPolicy::Always, None);
    story.ask(Command::End { ids: vec![EngineId(0)], again: false, now: true });
    story.ends(0, 0, true, None);
    story.job_ends(0, true, "exited with 0");
    assert_eq!(story.pass(60), []);
}

#[test]
fn what_was_never_accepted_is_not_submitted_again() {
    let mut story = in_jobs(RestartPolicy::Always, None);
    let out = story.ask(Command::Add { engines: 2 });
    assert_eq!(out[2], Effect::Answer { to: 9, answer: Answer::Units(vec![3, 4]) });
    story.job_ends(3, false, "was not accepted: no");
    assert_eq!(story.pass(60), []);
    assert!(story.fleet.roster().failure().unwrap().contains("not accepted: no"));
}

#[test]
fn a_fleet_that_grows_by_itself_does_not_insist_where_nothing_starts() {
    let mut story = elastic();
    let starts = |story: &mut Story, at| story.load(at, 9, &[0]).len();
    assert_eq!(starts(&mut story, 1), 1);
    story.job_ends(1, false, "was not accepted");
    assert_eq!(starts(&mut story, 1), 0);
    assert_eq!(starts(&mut story, 2), 1);
    story.job_ends(2, false, "was not accepted");
    assert_eq!(starts(&mut story, 3), 0, "twice as long");
    assert_eq!(starts(&mut story, 4), 1);
    story.runs(3, 3);
    story.job_ends(3, false, "failed");
    assert_eq!(starts(&mut story, 4), 1, "it had begun");
}

#[test]
fn a_nanny_that_was_killed_is_started_again_and_one_that_never_ran_is_not() {
    let restart = Restart { limit: Some(1), ..Restart::new(RestartPolicy::OnFailure) };
    let mut story = Story::with(Fleet::default().restarting(restart));
    story.event(Event::Begin { units: vec![2, 2] });
    story.runs(0, 2);
    let out = story.job_ends(0, false, "was ended by SIGKILL");
    assert!(matches!(&out[0], Effect::Kill { unit: 0, pids } if pids.len() == 2), "{out:?}");
    assert_eq!(
        out[1],
        Effect::Complain("the nanny of 2 engines was ended by SIGKILL: it is started again in 1 s".to_owned())
    );
    story.now = story.now + Duration::from_secs(1);
    let mut out = Vec::new();
    story.fleet.look(story.now, &mut out);
    assert_eq!(out, [Effect::StartUnit { unit: 0, engines: 2 }]);
    story.runs(0, 2);
    let out = story.job_ends(0, false, "was ended by SIGKILL");
    assert!(matches!(&out[1], Effect::Complain(text) if text.ends_with("it is not started again")), "{out:?}");
    let out = story.job_ends(1, false, "cannot be started");
    assert!(matches!(&out[0], Effect::Complain(text) if text.ends_with("it is not started again")), "{out:?}");
    assert_eq!(story.fleet.units_left(), 0);
}

#[test]
fn an_engine_that_the_controller_gave_up_is_started_again_unless_it_is_back_in_time() {
    let mut story = Story::of(2);
    let mut told = |seconds: u64, there: &[u32]| {
        story.now = Instant(seconds * 1_000_000_000);
        let (mut out, there) = (Vec::new(), there.iter().map(|place| uuid(0, *place)).collect());
        story.fleet.registered(story.now, &there, &mut out);
        out
    };
    assert_eq!(told(0, &[]), [], "they were never registered: they are about to be");
    assert_eq!(told(100, &[0, 1]), []);
    assert_eq!(told(101, &[0]), []);
    assert_eq!(told(120, &[]), []);
    assert_eq!(told(130, &[0]), []);
    let out = told(131, &[0]);
    assert!(matches!(&out[0], Effect::Complain(text) if text.contains("gave up an engine (process 100)")), "{out:?}");
    let word = Word::End { uuids: vec![uuid(0, 1)], again: true, now: true };
    assert_eq!(out[1..], [Effect::Tell { unit: 0, word }]);
    assert_eq!(told(200, &[0]), [], "once");
    story.event(Event::Stop);
    let mut out = Vec::new();
    story.fleet.registered(Instant(900_000_000_000), &BTreeSet::new(), &mut out);
    story.fleet.registered(Instant(990_000_000_000), &BTreeSet::new(), &mut out);
    assert_eq!(out, [], "all is to end");
}
