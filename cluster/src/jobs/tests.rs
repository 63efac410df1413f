//! The rules of jobs, as short stories.

use super::*;

struct Story {
    jobs: Jobs,
    now: Instant,
}

fn job(id: &str, elements: u32) -> Job {
    Job { id: id.to_owned(), elements }
}

fn status(element: Option<u32>, state: JobState) -> JobStatus {
    JobStatus { job: "17".to_owned(), element, state }
}

fn pending(reason: &str) -> JobState {
    JobState::Pending { reason: reason.to_owned() }
}

fn running() -> JobState {
    JobState::Running { host: "node1".to_owned() }
}

fn cancelled() -> JobState {
    JobState::Ended(JobEnd::Cancelled { reason: "by 1000".to_owned() })
}

impl Story {
    fn new() -> Self {
        Self { jobs: Jobs::new("t".to_owned(), Arrays::Several, 1), now: Instant::default() }
    }

    /// Units 0, 1, … as an array, 17, that was accepted.
    fn of(units: u32) -> Self {
        let mut story = Self::new();
        story.event(Event::Start { units: (0..units).map(|unit| (unit, 1)).collect() });
        let elements = if units > 1 { units } else { 0 };
        story.event(Event::Submitted { ticket: 1, job: Ok(job("17", elements)) });
        story
    }

    /// The same, with nannies that have come.
    fn joined(units: u32) -> Self {
        let mut story = Self::of(units);
        story.poll((1..=units).map(|element| status((units > 1).then_some(element), running())).collect());
        for unit in 0..units {
            assert_eq!(story.event(Event::Joined { unit }), []);
        }
        story
    }

    fn event(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.jobs.handle(self.now, event, &mut out);
        out
    }

    fn pass(&mut self, time: Duration) -> Vec<Effect> {
        self.now = self.now + time;
        let mut out = Vec::new();
        self.jobs.look(self.now, &mut out);
        out
    }

    /// The system is asked when it is time, and answers this.
    fn poll(&mut self, statuses: Vec<JobStatus>) -> Vec<Effect> {
        let out = self.pass(POLL_QUIET);
        assert!(matches!(&out[..], [Effect::Poll(_), ..]), "{out:?}");
        self.event(Event::Polled { statuses: Ok(statuses) })
    }
}

/// How units ended, without what else is asked for.
fn ends(out: &[Effect]) -> Vec<(UnitId, bool, &str)> {
    let end = |effect| match effect {
        &Effect::Ended { unit, ref end, .. } => Some((unit, end.ok, &*end.how)),
        _ => None,
    };
    out.iter().filter_map(end).collect()
}

#[test]
fn units_of_one_size_that_begin_together_are_one_array() {
    let mut story = Story::new();
    let out = story.event(Event::Start { units: vec![(4, 2), (5, 2), (6, 1)] });
    let submitted: Vec<_> = out.iter().filter(|effect| matches!(effect, Effect::Submit { .. })).collect();
    let submit = |ticket, engines, elements| Effect::Submit { ticket, tag: format!("t-{ticket}"), engines, elements };
    assert_eq!(submitted, [&submit(1, 2, 2), &submit(2, 1, 0)]);
    let names: Vec<_> = [4, 5, 6].map(|unit| story.jobs.name(unit).unwrap()).into();
    assert_eq!(names, ["t-1-1", "t-1-2", "t-2"]);
    for name in names {
        assert!(out.contains(&Effect::Expect { name: name.clone() }), "{name}");
        assert!(story.jobs.unit(&name).is_some());
    }
    assert_eq!((story.jobs.unit("t-1"), story.jobs.unit("t-1-3")), (None, None));

    let mut apart = Jobs::new("t".to_owned(), Arrays::Never, 1);
    let mut out = Vec::new();
    apart.handle(Instant::default(), Event::Start { units: vec![(0, 1), (1, 1)] }, &mut out);
    assert_eq!(out.iter().filter(|effect| matches!(effect, Effect::Submit { elements: 0, .. })).count(), 2);
    let mut ranks = Jobs::new("t".to_owned(), Arrays::Always, 0);
    ranks.handle(Instant::default(), Event::Start { units: vec![(0, 1)] }, &mut out);
    assert_eq!(ranks.name(0).unwrap(), "t-1-0");
}

#[test]
fn a_job_that_waits_is_said_to_with_the_reason_and_each_change_once() {
    let mut story = Story::of(2);
    let out = story.poll(vec![status(Some(1), running()), status(Some(2), pending("Resources"))]);
    let stands = |unit, element, waits: Option<&str>, host: &str| Effect::Stands {
        unit,
        ticket: 1,
        job: Some(job("17", 2)),
        element: Some(element),
        waits: waits.map(str::to_owned),
        host: host.to_owned(),
    };
    assert_eq!(out, [stands(0, 1, None, "node1"), stands(1, 2, Some("Resources"), "")]);
    assert_eq!(story.poll(vec![status(Some(1), running()), status(Some(2), pending("Resources"))]), []);
    assert_eq!(story.poll(vec![status(Some(1), running()), status(Some(2), running())]), [stands(1, 2, None, "node1")]);
}

#[test]
fn the_system_is_asked_gently() {
    let mut story = Story::of(1);
    assert!(matches!(&story.pass(SOON)[..], [Effect::Poll(_)]));
    assert_eq!(story.pass(MAX_POLL), [], "it has not answered yet");
    story.event(Event::Polled { statuses: Ok(vec![status(None, running())]) });
    assert!(matches!(&story.pass(POLL)[..], [Effect::Poll(_)]), "its nanny is awaited");
    story.event(Event::Joined { unit: 0 });
    story.event(Event::Polled { statuses: Ok(vec![status(None, running())]) });
    assert_eq!(story.pass(POLL), []);
    assert!(matches!(&story.pass(POLL_QUIET)[..], [Effect::Poll(_)]));
    let no = || Event::Polled { statuses: Err("Slurm: no answer".to_owned()) };
    assert!(matches!(&story.event(no())[..], [Effect::Complain(text)] if text.contains("no answer")));
    assert_eq!(story.pass(POLL), [], "twice as long");
    for _ in 0..40 {
        story.pass(MAX_POLL);
        assert_eq!(story.event(no()), [], "it is said once");
    }
    assert!(matches!(&story.pass(MAX_POLL)[..], [Effect::Poll(_)]));
    let out = story.event(Event::Polled { statuses: Ok(vec![status(None, running())]) });
    assert!(matches!(&out[..], [Effect::Complain(text)] if text.contains("again")), "{out:?}");
}

#[test]
fn an_end_is_told_in_the_words_of_the_system() {
    let mut story = Story::joined(2);
    let timeout = JobEnd::Failed { code: None, reason: "TIMEOUT".to_owned() };
    let out = story.poll(vec![status(Some(1), JobState::Ended(timeout)), status(Some(2), cancelled())]);
    assert_eq!(ends(&out), [(0, false, "failed (TIMEOUT)"), (1, false, "was cancelled (by 1000)")]);
    assert!(out.contains(&Effect::Forget { name: "t-1-2".to_owned() }));
    assert!(story.jobs.is_empty());
    assert_eq!(story.pass(MAX_POLL), [], "there is nothing to ask for");
}

#[test]
fn that_a_job_is_not_known_is_believed_the_second_time() {
    let gone = || vec![status(None, JobState::Ended(JobEnd::Forgotten))];
    let mut story = Story::of(1);
    assert_eq!(story.poll(gone()), []);
    assert_eq!(ends(&story.poll(vec![status(None, running())])), []);
    assert_eq!(story.poll(gone()), []);
    assert_eq!(ends(&story.poll(gone())).len(), 1);
}

#[test]
fn when_a_nanny_ends_the_system_is_asked_why_and_what_the_nanny_says_counts_if_it_does_not_know() {
    let mut story = Story::joined(1);
    assert_eq!(story.event(Event::Bye { unit: 0, status: 0 }), []);
    assert!(matches!(&story.pass(SOON)[..], [Effect::Poll(_)]));
    assert_eq!(story.event(Event::Polled { statuses: Ok(vec![status(None, running())]) }), [], "it is about to end");
    assert_eq!(ends(&story.poll(vec![status(None, cancelled())])), [(0, false, "was cancelled (by 1000)")]);

    let mut story = Story::joined(1);
    story.event(Event::Bye { unit: 0, status: 3 });
    let out = story.pass(VERDICT);
    assert_eq!(ends(&out), [(0, false, "exited with 3")]);
    assert!(!story.jobs.is_empty(), "its job may still be there");
    story.event(Event::Polled { statuses: Ok(vec![status(None, JobState::Ended(JobEnd::Done))]) });
    assert!(story.jobs.is_empty());
}

#[test]
fn a_refusal_ends_the_units_in_the_words_of_the_system() {
    let mut story = Story::new();
    story.event(Event::Start { units: vec![(0, 1), (1, 1)] });
    let out = story.event(Event::Submitted { ticket: 1, job: Err("no such partition".to_owned()) });
    assert_eq!(ends(&out), [0, 1].map(|unit| (unit, false, "was not accepted: no such partition")));
    assert!(story.jobs.is_empty());
}

#[test]
fn at_the_end_what_waits_is_cancelled_at_once_and_what_runs_has_its_words_first() {
    let mut story = Story::joined(2);
    story.event(Event::Start { units: vec![(2, 1)] });
    story.event(Event::Submitted { ticket: 2, job: Ok(job("18", 0)) });
    story.event(Event::Start { units: vec![(3, 1)] });
    let out = story.event(Event::Stop);
    assert_eq!(out, [Effect::Cancel { job: job("18", 0), element: None }]);
    let out = story.event(Event::Submitted { ticket: 3, job: Ok(job("19", 0)) });
    assert!(out.contains(&Effect::Cancel { job: job("19", 0), element: None }), "{out:?}");
    let out = story.event(Event::Bye { unit: 0, status: 0 });
    assert_eq!(ends(&out), [(0, true, "exited with 0")], "that was asked for");
    let out = story.pass(WORDS);
    assert!(out.contains(&Effect::Cancel { job: job("17", 2), element: None }), "the other says nothing: {out:?}");
    let all = ["17", "18", "19"].map(|id| JobStatus { job: id.to_owned(), element: None, state: cancelled() });
    let mut all: Vec<_> = all.into();
    all[0].element = Some(1);
    all.push(JobStatus { element: Some(2), ..all[0].clone() });
    let out = story.event(Event::Polled { statuses: Ok(all) });
    assert_eq!(ends(&out).len(), 3);
    assert!(story.jobs.is_empty());
}

#[test]
fn of_an_array_only_the_elements_that_wait_are_cancelled_at_once() {
    let mut story = Story::of(3);
    story.event(Event::Joined { unit: 1 });
    let out = story.event(Event::Stop);
    let cancel = |element| Effect::Cancel { job: job("17", 3), element: Some(element) };
    assert_eq!(out, [cancel(1), cancel(3)]);
}

#[test]
fn a_job_that_does_not_end_is_named_and_left() {
    let mut story = Story::of(1);
    story.event(Event::Stop);
    let out = story.pass(GIVE_UP);
    assert!(out.iter().any(|effect| matches!(effect, Effect::Complain(text) if text.contains("job 17"))), "{out:?}");
    assert_eq!(ends(&out).len(), 1);
    assert!(story.jobs.is_empty());
}
