//! Which engines are alive (`controller/heartmonitor.py`).
//!
//! Every period the monitor sends one ping to all; an engine's heart sends the same bytes back. What answered is looked
//! at once per beat, before the next ping.
//!
//! An engine that has just registered is not left to wait for the next two beats, as in stock: while one is expected there
//! are early pings in between, and an answer is reported at once. They count for new hearts alone: how soon an engine is
//! taken for dead depends on beats only.

use std::time::Duration;

use remuda_proto::message::story::HeartState;
use remuda_proto::{EngineUuid, Identity, Instant, Machine, Map, Now, Refusal, Set};

/// Most hearts that may answer between two beats without being known yet. More than a controller has sockets for.
pub const MAX_NEW_HEARTS: usize = 65_536;

/// From the registration of an engine to the first early ping, and between a new heart's answer and its report, so that
/// many that come at once share one.
pub const SOON: Duration = Duration::from_millis(20);

/// What a ping to one heart may take: early pings leave so much time for each known heart in between.
const PING_EACH: Duration = Duration::from_micros(50);

/// Early pings come at longer and longer intervals: up to so many times the first. An engine's heart may start long after
/// it registered, and is known soon after it does all the same.
const SLOWEST_EARLY: u32 = 8;

/// For how many periods a heart is expected, and for how long at least: as a registration lasts (`controller/hub.py:
/// registration_timeout`).
const EXPECTED_PERIODS: u32 = 10;
const EXPECTED_LEAST: Duration = Duration::from_secs(30);

/// How the monitor beats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Time between two beats. Less than a millisecond counts as one.
    pub period: Duration,
    /// A heart fails when it has missed more beats than this, one after the other.
    pub max_misses: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { period: Duration::from_secs(3), max_misses: 10 }
    }
}

/// What can happen to the monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A heart answered.
    Pong {
        /// Whose: the identity of the engine's heart, which is the engine's uuid.
        heart: Identity,
        /// The bytes that it sent back.
        payload: Vec<u8>,
    },
    /// The hub does not count on this heart (any more): the next beat that it answers makes it new again.
    Forget {
        /// Whose.
        heart: EngineUuid,
    },
    /// An engine is granted its registration, which is complete once its heart has answered a ping from now on.
    Expect {
        /// Whose heart.
        heart: EngineUuid,
    },
    /// The hub asks how the hearts are. Changes nothing.
    Explain {
        /// Number of the question.
        question: u64,
    },
}

/// What the monitor asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Publish this one frame to all hearts, without topic or signature.
    Ping(Vec<u8>),
    /// Tell the hub: these answered for the first time, pings that were sent at these times.
    NewHearts(Vec<(EngineUuid, Instant)>),
    /// Tell the hub: these failed.
    StoppedHearts(Vec<EngineUuid>),
    /// Tell the hub: the answer to a question.
    Explained {
        /// The number of the question.
        question: u64,
        /// The answer.
        hearts: HeartState,
    },
    /// A pong that counts for nothing.
    Refused {
        /// Who sent it.
        from: Identity,
        /// Why.
        refusal: Refusal,
    },
}

/// Sends pings and counts who answers.
#[derive(Debug)]
pub struct HeartMonitor {
    /// Never zero.
    period: Duration,
    /// See [`Config::max_misses`].
    max_misses: u32,
    /// When it was made; the ping says how long ago that was.
    started: Instant,
    /// When to beat next.
    next_beat: Instant,
    /// The ping of the last beat; empty before the first.
    current: Ping,
    /// The ping before that; empty before the second beat. Differs from `current` unless both are empty, and is older.
    previous: Ping,
    /// Known hearts, and how many beats each has missed since it last answered: never more than `max_misses`.
    hearts: Map<EngineUuid, u32>,
    /// Known hearts that answered since the last beat. Subset of `hearts`.
    answered: Set<EngineUuid>,
    /// Unknown hearts that answered since the last beat, and when the last ping that they answered was sent. Disjoint from
    /// `hearts`; at most [`MAX_NEW_HEARTS`].
    new: Map<EngineUuid, Instant>,
    /// Unknown hearts that engines which registered should have soon, and when that was: as long as that lasts.
    /// Disjoint from `hearts`; at most [`MAX_NEW_HEARTS`].
    expected: Map<EngineUuid, Instant>,
    /// The last pings that were sent between beats, the newer one first. Only new hearts are asked for them.
    early: [Ping; 2],
    /// When to send the next early ping: set exactly while hearts are expected.
    early_at: Option<Instant>,
    /// How long after that the next one comes: doubled with each.
    early_pause: Duration,
    /// When to report the expected ones among `new` that answered a ping sent since: set if there are any.
    report_at: Option<Instant>,
}

/// A ping that was sent.
#[derive(Debug, Default)]
struct Ping {
    payload: Vec<u8>,
    at: Instant,
}

impl HeartMonitor {
    /// A monitor that beats at once, then every period.
    pub fn new(config: Config, now: Instant) -> Self {
        Self {
            period: config.period.max(Duration::from_millis(1)),
            max_misses: config.max_misses,
            started: now,
            next_beat: now,
            current: Ping::default(),
            previous: Ping::default(),
            hearts: Map::default(),
            answered: Set::default(),
            new: Map::default(),
            expected: Map::default(),
            early: Default::default(),
            early_at: None,
            early_pause: SOON,
            report_at: None,
        }
    }

    /// The hearts that it knows, in the order in which they came.
    pub fn hearts(&self) -> impl Iterator<Item = &EngineUuid> {
        self.hearts.keys()
    }

    fn pong(&mut self, now: Instant, heart: Identity, payload: &[u8], out: &mut Vec<Effect>) {
        let Some(uuid) = heart.to_engine() else {
            out.push(Effect::Refused { refusal: Refusal::UnknownEngine(heart.clone()), from: heart });
            return;
        };
        // An answer to an older ping says nothing of now; neither do bytes that were never a ping.
        let [early, earlier] = &self.early;
        let pings = [&self.previous, &self.current, early, earlier];
        let Some(pinged) = pings.iter().find(|ping| ping.payload == payload).filter(|_| !payload.is_empty()) else {
            return;
        };
        if self.hearts.contains_key(&uuid) {
            self.answered.insert(uuid);
        } else if self.new.len() < MAX_NEW_HEARTS {
            if self.expected.get(&uuid).is_some_and(|since| *since <= pinged.at) {
                self.report_at.get_or_insert(now + SOON);
            }
            let last = self.new.entry(uuid).or_insert(pinged.at);
            *last = pinged.at.max(*last);
        } else {
            out.push(Effect::Refused { refusal: Refusal::UnknownEngine(heart.clone()), from: heart });
        }
    }

    fn beat(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let late = now.since(self.next_beat);
        // Nobody could answer a monitor that slept: a process that was stopped, or a machine that was suspended, must
        // not take its engines for dead when it wakes.
        let counts = late <= self.period;
        let answered = std::mem::take(&mut self.answered);
        let mut stopped = Vec::new();
        self.hearts.retain(|uuid, misses| {
            if answered.contains(uuid) {
                *misses = 0;
            } else if counts {
                if *misses >= self.max_misses {
                    stopped.push(uuid.clone());
                    return false;
                }
                *misses += 1;
            }
            true
        });
        let mut new: Vec<_> = std::mem::take(&mut self.new).into_iter().collect();
        // What an engine answered before it registered again does not complete that: it will answer this beat's ping.
        new.retain(|(uuid, pinged)| self.expected.get(uuid).is_none_or(|since| since <= pinged));
        self.greet(new, out);
        if !stopped.is_empty() {
            out.push(Effect::StoppedHearts(stopped));
        }
        let ping = self.ping(now);
        out.push(Effect::Ping(ping.payload.clone()));
        self.previous = std::mem::replace(&mut self.current, ping);
        // In step with the first beat, unless steps were missed: those are gone, and are not made up for.
        self.next_beat = if late < self.period { self.next_beat + self.period } else { now + self.period };
    }

    /// A ping of this moment. No two are alike: none is sent twice in a nanosecond.
    fn ping(&self, now: Instant) -> Ping {
        let lifetime = now.since(self.started);
        let payload = format!("{}.{:09}", lifetime.as_secs(), lifetime.subsec_nanos()).into_bytes();
        Ping { payload, at: now }
    }

    /// Hearts that were unknown so far are known from now on.
    fn greet(&mut self, new: Vec<(EngineUuid, Instant)>, out: &mut Vec<Effect>) {
        for (uuid, _) in &new {
            self.expected.swap_remove(uuid);
            self.hearts.insert(uuid.clone(), 0);
        }
        // Whoever is expected still has not answered: its report is due once it does.
        self.report_at = None;
        if self.expected.is_empty() {
            self.early_at = None;
        }
        if !new.is_empty() {
            out.push(Effect::NewHearts(new));
        }
    }

    fn expect(&mut self, now: Instant, heart: EngineUuid) {
        if self.hearts.contains_key(&heart) || self.expected.len() >= MAX_NEW_HEARTS {
            return;
        }
        // What it answered before it registered is no answer to this.
        self.new.swap_remove(&heart);
        self.expected.insert(heart, now);
        self.early_pause = self.least_pause();
        let soon = now + self.early_pause;
        self.early_at = Some(self.early_at.map_or(soon, |at| at.min(soon)));
    }

    /// A ping between beats, for those that are expected.
    fn ping_early(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let ping = self.ping(now);
        out.push(Effect::Ping(ping.payload.clone()));
        self.early.swap(0, 1);
        self.early[0] = ping;
        self.early_at = Some(now + self.early_pause);
        self.early_pause = (self.early_pause * 2).min(self.least_pause() * SLOWEST_EARLY).min(self.period);
    }

    /// Those that were expected and have answered are reported, without waiting for the next beat.
    fn report(&mut self, out: &mut Vec<Effect>) {
        let (due, others) = std::mem::take(&mut self.new)
            .into_iter()
            .partition::<Vec<_>, _>(|(uuid, pinged)| self.expected.get(uuid).is_some_and(|since| since <= pinged));
        self.new = others.into_iter().collect();
        // They answered since the last beat, and miss none by the next.
        self.answered.extend(due.iter().map(|(uuid, _)| uuid.clone()));
        self.greet(due, out);
    }

    fn forget(&mut self, heart: &EngineUuid) {
        self.hearts.swap_remove(heart);
        self.answered.swap_remove(heart);
        self.new.swap_remove(heart);
        self.expected.swap_remove(heart);
        if self.expected.is_empty() {
            self.early_at = None;
        }
    }

    fn least_pause(&self) -> Duration {
        let hearts = u32::try_from(self.hearts.len() + self.expected.len()).unwrap_or(u32::MAX);
        SOON.max(PING_EACH.saturating_mul(hearts)).min(self.period)
    }
}

impl Machine for HeartMonitor {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Pong { heart, payload } => self.pong(now.instant, heart, &payload, out),
            Event::Forget { heart } => self.forget(&heart),
            Event::Expect { heart } => self.expect(now.instant, heart),
            Event::Explain { question } => {
                let hearts = HeartState {
                    period_ms: u64::try_from(self.period.as_millis()).unwrap_or(u64::MAX),
                    max_misses: self.max_misses,
                    hearts: self.hearts.iter().map(|(heart, misses)| (heart.clone(), *misses)).collect(),
                };
                out.push(Effect::Explained { question, hearts });
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        [Some(self.next_beat), self.early_at, self.report_at].into_iter().flatten().min()
    }

    fn on_deadline(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.report_at.is_some_and(|at| at <= now.instant) {
            self.report(out);
        }
        if now.instant >= self.next_beat {
            self.beat(now.instant, out);
            // Whoever registers and never has a heart is not asked for it for ever.
            let lasts = EXPECTED_LEAST.max(self.period * EXPECTED_PERIODS);
            self.expected.retain(|_, since| now.instant.since(*since) < lasts);
            let next = now.instant + self.early_pause;
            self.early_at = self.early_at.filter(|_| !self.expected.is_empty()).map(|at| at.max(next));
        } else if self.early_at.is_some_and(|at| at <= now.instant) {
            self.ping_early(now.instant, out);
        }
    }

    fn check(&self) {
        assert!(!self.period.is_zero());
        assert!(self.next_beat >= self.started);
        let (current, previous) = (&self.current, &self.previous);
        let differ = current.payload != previous.payload && current.at >= previous.at;
        assert!(current.payload.is_empty() || differ, "two pings alike: {current:?} {previous:?}");
        assert!(self.new.len() <= MAX_NEW_HEARTS, "{} new hearts", self.new.len());
        for uuid in &self.answered {
            assert!(self.hearts.contains_key(uuid), "`{uuid}` answered but is not known");
        }
        for uuid in self.new.keys() {
            assert!(!self.hearts.contains_key(uuid), "`{uuid}` is both new and known");
        }
        assert_eq!(self.early_at.is_some(), !self.expected.is_empty(), "early pings while hearts are expected");
        assert!(self.expected.len() <= MAX_NEW_HEARTS);
        for uuid in self.expected.keys() {
            assert!(!self.hearts.contains_key(uuid), "`{uuid}` is both expected and known");
        }
        for (uuid, misses) in &self.hearts {
            assert!(*misses <= self.max_misses, "`{uuid}` missed {misses} beats and is still known");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(3);

    struct Story {
        monitor: HeartMonitor,
        now: Now,
        ping: Vec<u8>,
    }

    impl Story {
        fn new() -> Self {
            let mut story =
                Self { monitor: HeartMonitor::new(Config::default(), Instant(7)), now: now(7), ping: Vec::new() };
            story.beat();
            story
        }

        /// Goes to the next beat; what it reports, less the ping.
        fn beat(&mut self) -> Vec<Effect> {
            self.now.instant = self.monitor.deadline().unwrap();
            self.beat_now()
        }

        fn beat_now(&mut self) -> Vec<Effect> {
            let mut out = Vec::new();
            self.monitor.on_deadline(self.now, &mut out);
            self.monitor.check();
            let Some(Effect::Ping(ping)) = out.pop() else { panic!("a beat ends with a ping: {out:?}") };
            self.ping = ping;
            out
        }

        fn pong(&mut self, heart: &str, payload: &[u8]) {
            assert_eq!(self.event(Event::Pong { heart: heart.as_bytes().into(), payload: payload.to_vec() }), []);
        }

        fn answer(&mut self, heart: &str) {
            let ping = self.ping.clone();
            self.pong(heart, &ping);
        }

        fn event(&mut self, event: Event) -> Vec<Effect> {
            let mut out = Vec::new();
            self.monitor.handle(self.now, event, &mut out);
            self.monitor.check();
            out
        }
    }

    fn now(nanos: u64) -> Now {
        Now { instant: Instant(nanos), ..Now::default() }
    }

    /// A heart is new that answered the ping sent at this time.
    fn new(uuid: &str, pinged: Instant) -> Vec<Effect> {
        vec![Effect::NewHearts(vec![(uuid.into(), pinged)])]
    }

    fn stopped(uuid: &str) -> Vec<Effect> {
        vec![Effect::StoppedHearts(vec![uuid.into()])]
    }

    #[test]
    fn it_beats_at_once_and_then_every_period() {
        let mut story = Story::new();
        assert_eq!(story.ping, b"0.000000000");
        assert_eq!(story.monitor.deadline(), Some(Instant(7) + PERIOD));
        let mut out = Vec::new();
        story.monitor.on_deadline(story.now, &mut out);
        assert_eq!(out, [], "a call too many does nothing");
        assert_eq!(story.beat(), []);
        assert_eq!(story.ping, b"3.000000000");
    }

    #[test]
    fn a_new_heart_is_reported_once_at_the_next_beat() {
        let mut story = Story::new();
        story.answer("e");
        assert_eq!(story.beat(), new("e", Instant(7)));
        story.answer("e");
        assert_eq!(story.beat(), []);
    }

    #[test]
    fn an_answer_to_the_previous_ping_counts_and_to_an_older_one_does_not() {
        let mut story = Story::new();
        let first = story.ping.clone();
        story.beat();
        story.pong("e", &first);
        assert_eq!(story.beat(), new("e", Instant(7)), "the ping that it answered, not the last one");
        story.pong("f", &first);
        story.pong("g", b"made up");
        story.pong("h", b"");
        assert_eq!(story.beat(), []);
    }

    #[test]
    fn nothing_that_is_sent_before_the_first_ping_counts() {
        let mut monitor = HeartMonitor::new(Config::default(), Instant(0));
        let mut out = Vec::new();
        monitor.handle(now(0), Event::Pong { heart: b"e"[..].into(), payload: Vec::new() }, &mut out);
        monitor.on_deadline(now(0), &mut out);
        assert_eq!(out, [Effect::Ping(b"0.000000000".to_vec())]);
    }

    #[test]
    fn a_heart_fails_at_its_eleventh_miss_in_a_row() {
        let mut story = Story::new();
        story.answer("e");
        story.beat();
        for _ in 0..10 {
            assert_eq!(story.beat(), []);
        }
        story.answer("e");
        assert_eq!(story.beat(), [], "one answer makes up for all misses");
        for miss in 1..=10 {
            assert_eq!(story.beat(), [], "miss {miss}");
        }
        assert_eq!(story.beat(), stopped("e"));
        assert_eq!(story.beat(), []);
        story.answer("e");
        let pinged = story.now.instant;
        assert_eq!(story.beat(), new("e", pinged), "it may come back");
    }

    #[test]
    fn a_monitor_that_was_paused_blames_nobody() {
        let mut story = Story::new();
        story.answer("e");
        story.beat();
        for _ in 0..10 {
            story.beat();
        }
        story.now.instant = story.monitor.deadline().unwrap() + PERIOD + Duration::from_nanos(1);
        assert_eq!(story.beat_now(), [], "the eleventh miss was the monitor's own");
        assert_eq!(story.monitor.deadline(), Some(story.now.instant + PERIOD), "lost beats are not made up for");
        assert_eq!(story.beat(), stopped("e"));
    }

    #[test]
    fn a_beat_that_is_a_little_late_keeps_the_step() {
        let mut story = Story::new();
        let due = story.monitor.deadline().unwrap();
        story.now.instant = due + Duration::from_millis(100);
        story.beat_now();
        assert_eq!(story.monitor.deadline(), Some(due + PERIOD));
    }

    #[test]
    fn a_forgotten_heart_is_new_when_it_answers_again() {
        let mut story = Story::new();
        story.answer("e");
        story.beat();
        assert_eq!(story.event(Event::Forget { heart: "e".into() }), []);
        for _ in 0..20 {
            assert_eq!(story.beat(), [], "its silence is not reported");
        }
        story.answer("e");
        let pinged = story.now.instant;
        assert_eq!(story.beat(), new("e", pinged));
    }

    /// Lets time pass until something is to be done; what is, with the ping if there is one.
    fn next(story: &mut Story) -> Vec<Effect> {
        story.now.instant = story.monitor.deadline().unwrap();
        let mut out = Vec::new();
        story.monitor.on_deadline(story.now, &mut out);
        story.monitor.check();
        for effect in &out {
            if let Effect::Ping(ping) = effect {
                story.ping.clone_from(ping);
            }
        }
        out
    }

    fn expect(story: &mut Story, heart: &str) {
        assert_eq!(story.event(Event::Expect { heart: heart.into() }), []);
    }

    #[test]
    fn a_heart_that_is_expected_is_asked_and_reported_between_the_beats() {
        let mut story = Story::new();
        story.now.instant = story.now.instant + Duration::from_secs(1);
        let expected = story.now.instant;
        expect(&mut story, "e");
        let asked = next(&mut story);
        assert!(matches!(&asked[..], [Effect::Ping(_)]), "{asked:?}");
        let pinged = story.now.instant;
        assert_eq!(pinged, expected + SOON);
        story.answer("e");
        assert_eq!(next(&mut story), new("e", pinged));
        assert_eq!(story.now.instant, pinged + SOON);
        assert_eq!(story.monitor.deadline(), Some(Instant(7) + PERIOD), "nobody is expected: the next beat is next");
        for miss in 0..=10 {
            assert_eq!(story.beat(), [], "miss {miss}: it answered before the first beat");
        }
        assert_eq!(story.beat(), stopped("e"));
    }

    #[test]
    fn what_a_heart_answered_before_it_was_expected_does_not_count() {
        let mut story = Story::new();
        story.now.instant = story.now.instant + Duration::from_millis(1);
        story.answer("e");
        expect(&mut story, "e");
        story.answer("e");
        let mut pings = 0;
        while story.monitor.deadline() < Some(Instant(7) + PERIOD) {
            let out = next(&mut story);
            assert!(matches!(&out[..], [Effect::Ping(_)]), "{out:?}");
            pings += 1;
        }
        assert!((5..30).contains(&pings), "{pings} early pings, with longer and longer pauses");
        assert_eq!(story.beat(), [], "the answer to the last beat was from before");
        story.answer("e");
        let pinged = story.now.instant;
        assert_eq!(next(&mut story), new("e", pinged));
    }

    #[test]
    fn a_heart_that_starts_long_after_its_engine_registered_is_known_soon_after_it_does() {
        let mut story = Story::new();
        let from = story.now.instant;
        expect(&mut story, "e");
        while story.now.instant < from + PERIOD * 2 {
            let out = next(&mut story);
            assert!(matches!(&out[..], [Effect::Ping(_)]), "{out:?}");
        }
        let starts = story.now.instant;
        next(&mut story);
        let pinged = story.now.instant;
        story.answer("e");
        assert_eq!(next(&mut story), new("e", pinged));
        assert!(story.now.instant.since(starts) <= SOON * (SLOWEST_EARLY + 1), "no beat was waited for");
    }

    #[test]
    fn a_new_heart_may_answer_the_early_ping_before_the_last() {
        let mut story = Story::new();
        expect(&mut story, "e");
        next(&mut story);
        let (pinged, ping) = (story.now.instant, story.ping.clone());
        next(&mut story);
        assert_ne!(story.ping, ping);
        story.pong("e", &ping);
        assert_eq!(next(&mut story), new("e", pinged));
    }

    #[test]
    fn early_pings_leave_time_for_the_hearts_that_are_known_and_end_with_the_registration() {
        let mut story = Story::new();
        for heart in 0..1_000 {
            story.answer(&heart.to_string());
        }
        story.beat();
        let from = story.now.instant;
        expect(&mut story, "e");
        assert_eq!(story.monitor.deadline(), Some(from + PING_EACH * 1_001));
        let (mut pings, mut least) = (0, PERIOD);
        while story.monitor.early_at.is_some() {
            let last = story.now.instant;
            pings += next(&mut story).iter().filter(|effect| matches!(effect, Effect::Ping(_))).count();
            least = least.min(story.now.instant.since(last));
        }
        assert_eq!(story.now.instant, from + PERIOD * EXPECTED_PERIODS, "it is expected no longer");
        assert!(least >= PING_EACH * 500, "pings {least:?} apart");
        assert!(pings < 110, "{pings} pings");
        expect(&mut story, "f");
        assert_eq!(story.event(Event::Forget { heart: "f".into() }), []);
        assert_eq!(story.monitor.early_at, None, "nobody is expected any more");
    }

    #[test]
    fn an_identity_that_is_no_text_is_refused() {
        let mut story = Story::new();
        let heart = Identity::from(&[0xff, 0][..]);
        let out = story.event(Event::Pong { heart: heart.clone(), payload: story.ping.clone() });
        assert_eq!(out, [Effect::Refused { from: heart.clone(), refusal: Refusal::UnknownEngine(heart) }]);
        assert_eq!(story.beat(), []);
    }

    #[test]
    fn hearts_that_nobody_knows_are_remembered_up_to_a_limit() {
        let mut story = Story::new();
        let payload = story.ping.clone();
        let mut out = Vec::new();
        for at in 0..=MAX_NEW_HEARTS {
            let heart = Identity::from(at.to_string().as_bytes());
            story.monitor.handle(story.now, Event::Pong { heart, payload: payload.clone() }, &mut out);
        }
        assert_eq!(out.len(), 1, "one too many");
        story.monitor.check();
    }
}
