//! When an engine is started, again too, and when all end: no process, no socket and no clock of its own.

use std::time::Duration;

use remuda_proto::message::restart::Restart;
use remuda_proto::{EngineUuid, Instant, Machine, Now};

use super::words::{End, Saying, Word};

/// How long an engine may take to end before it is killed, with all in its process group. Longer than a native engine gives
/// the programs that it runs.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(8);

/// What a nanny is told at its start.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many engines it keeps.
    pub engines: u32,
    /// Whether and when one that has ended is started again.
    pub restart: Restart,
    /// How long the controller may be silent before all engines are ended; `None`: for ever.
    pub patience: Option<Duration>,
}

/// What can happen to a nanny.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// Start the engines.
    Begin,
    /// The answer to [`Effect::Start`].
    Started {
        /// Which.
        place: u32,
        /// Its process.
        pid: i32,
        /// Its uuid, which no other engine has.
        uuid: EngineUuid,
        /// Where what it prints goes.
        log: String,
    },
    /// The other answer to [`Effect::Start`].
    NotStarted {
        /// Which.
        place: u32,
        /// Why.
        reason: String,
    },
    /// An engine's process has ended.
    Ended {
        /// Which.
        place: u32,
        /// How, and the last that it printed.
        end: End,
    },
    /// The controller was heard.
    Ping,
    /// A request of who started the nanny.
    Word(Word),
    /// All engines are to end, and so is the nanny.
    Stop,
    /// The same, by a signal.
    Signalled {
        /// By number.
        signal: i32,
    },
    /// The same, since there was no line to who started the nanny for too long.
    LineLost,
}

/// What a nanny asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Start an engine under a new uuid.
    Start {
        /// Which.
        place: u32,
    },
    /// Ask an engine to end, or with `kill` end it and all in its process group.
    End {
        /// Which.
        place: u32,
        /// Whether it is killed.
        kill: bool,
    },
    /// Send an engine a signal.
    Signal {
        /// Which.
        place: u32,
        /// Which signal, by number.
        signal: i32,
    },
    /// Tell the hub that an engine is gone.
    TellHub(EngineUuid),
    /// Tell who started the nanny.
    Say(Saying),
    /// End the process with this status.
    Exit(u8),
}

/// What is to become of an engine that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intent {
    /// It is not started again, whatever the policy.
    Gone,
    /// It is started again at once, whatever the policy; that is no restart, and does not count.
    Again,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// [`Effect::Start`] is not answered yet.
    Starting,
    Running,
    /// It ended, and is started again then.
    BackingOff(Instant),
    /// It was asked to end, and is killed then.
    Ending(Instant),
    /// It was killed, and is sure to end.
    Killed,
    /// It is not started any more.
    Over,
}

/// A place for an engine, and the engine that has it.
#[derive(Clone, Debug)]
struct Place {
    state: State,
    uuid: EngineUuid,
    since: Instant,
    intent: Option<Intent>,
    /// How often it was started again.
    restarts: u32,
    /// The same, since it last ran well.
    quick: u32,
    failed: bool,
}

/// Keeps engines running.
#[derive(Debug)]
pub(super) struct Nanny {
    config: Config,
    places: Vec<Place>,
    /// When the controller was last heard. Before that, when the nanny began.
    heard: Instant,
    stopping: bool,
    /// Whether the controller was silent, or there was no line, for too long.
    lost: bool,
}

impl Nanny {
    /// One that has not begun.
    pub(super) fn new(config: Config) -> Self {
        Self { config, places: Vec::new(), heard: Instant::default(), stopping: false, lost: false }
    }

    fn begin(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.heard = now;
        for place in 0..self.config.engines {
            self.places.push(Place {
                state: State::Starting,
                uuid: EngineUuid::from(""),
                since: now,
                intent: None,
                restarts: 0,
                quick: 0,
                failed: false,
            });
            out.push(Effect::Start { place });
        }
    }

    fn ended(&mut self, now: Instant, place: u32, end: End, out: &mut Vec<Effect>) {
        let (stopping, restart) = (self.stopping, self.config.restart);
        let of = &mut self.places[place as usize];
        let intent = of.intent.take();
        if of.state != State::Starting {
            out.push(Effect::TellHub(of.uuid.clone()));
        }
        if now.since(of.since) >= restart.reset_after() {
            of.quick = 0;
        }
        let asked = matches!(of.state, State::Ending(_) | State::Killed);
        let by_policy = restart.applies(end.ok) && of.restarts < restart.most();
        let pause = match intent {
            _ if stopping => None,
            Some(Intent::Gone) => None,
            Some(Intent::Again) => Some(Duration::ZERO),
            None if by_policy => {
                let pause = restart.backoff(of.quick);
                of.restarts += 1;
                of.quick += 1;
                Some(pause)
            }
            None => None,
        };
        of.failed = pause.is_none() && !end.ok && !asked;
        of.state = pause.map_or(State::Over, |pause| State::BackingOff(now + pause));
        let (uuid, restarts) = (of.uuid.clone(), of.restarts);
        out.push(Effect::Say(Saying::Ended {
            place,
            uuid,
            end,
            again_in_s: pause.map(|pause| pause.as_secs_f64()),
            restarts,
        }));
        self.start_due(now, out);
        self.may_end(out);
    }

    /// Starts what has waited long enough.
    fn start_due(&mut self, now: Instant, out: &mut Vec<Effect>) {
        for (at, place) in (0..).zip(&mut self.places) {
            if matches!(place.state, State::BackingOff(until) if until <= now) {
                place.state = State::Starting;
                out.push(Effect::Start { place: at });
            }
        }
    }

    fn may_end(&self, out: &mut Vec<Effect>) {
        if self.places.iter().all(|place| place.state == State::Over) {
            let failed = self.lost || self.places.iter().any(|place| place.failed);
            out.push(Effect::Exit(u8::from(failed)));
        }
    }

    /// Asks an engine to end, if it is to end at all.
    fn end(&mut self, now: Instant, place: u32, out: &mut Vec<Effect>) {
        let of = &mut self.places[place as usize];
        match of.state {
            State::Running => {
                of.state = State::Ending(now + STOP_TIMEOUT);
                out.push(Effect::End { place, kill: false });
            }
            State::BackingOff(_) => of.state = State::Over,
            // It is asked when it has started.
            State::Starting | State::Ending(_) | State::Killed | State::Over => {}
        }
    }

    fn stop(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.stopping = true;
        for place in 0..self.config.engines {
            self.end(now, place, out);
        }
        self.may_end(out);
    }

    fn obey(&mut self, now: Instant, word: Word, out: &mut Vec<Effect>) {
        match word {
            Word::Stop => self.stop(now, out),
            Word::Signal { signal } => {
                let running = (0..).zip(&self.places).filter(|(_, place)| place.state == State::Running);
                out.extend(running.map(|(place, _)| Effect::Signal { place, signal }));
            }
            Word::Keep { uuids } => {
                let kept = self.places.iter_mut().filter(|place| uuids.contains(&place.uuid));
                kept.for_each(|place| place.intent = None);
            }
            Word::End { uuids, again, now: at_once } => {
                for place in 0..self.config.engines {
                    let of = &mut self.places[place as usize];
                    if !uuids.contains(&of.uuid) || of.state == State::Over {
                        continue;
                    }
                    of.intent = Some(if again { Intent::Again } else { Intent::Gone });
                    match of.state {
                        State::BackingOff(_) if again => of.state = State::BackingOff(now),
                        State::BackingOff(_) => self.end(now, place, out),
                        _ if at_once => self.end(now, place, out),
                        _ => {}
                    }
                }
                self.start_due(now, out);
                self.may_end(out);
            }
        }
    }
}

impl Machine for Nanny {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        let now = now.instant;
        match event {
            Event::Begin => self.begin(now, out),
            Event::Started { place, pid, uuid, log } => {
                let of = &mut self.places[place as usize];
                (of.state, of.uuid, of.since) = (State::Running, uuid.clone(), now);
                out.push(Effect::Say(Saying::Started { place, pid, uuid, log, restarts: of.restarts }));
                if self.stopping {
                    self.end(now, place, out);
                }
            }
            Event::NotStarted { place, reason } => {
                self.ended(now, place, End::failed(reason), out);
            }
            Event::Ended { place, end } => self.ended(now, place, end, out),
            Event::Ping => self.heard = now,
            Event::Word(word) => self.obey(now, word, out),
            Event::Stop => self.stop(now, out),
            Event::Signalled { signal } => {
                if !self.stopping {
                    out.push(Effect::Say(Saying::Signalled { signal }));
                }
                self.stop(now, out);
            }
            Event::LineLost => {
                self.lost = true;
                self.stop(now, out);
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let places = self.places.iter().filter_map(|place| match place.state {
            State::BackingOff(at) | State::Ending(at) => Some(at),
            _ => None,
        });
        let silence = self.config.patience.filter(|_| !self.stopping).map(|patience| self.heard + patience);
        places.chain(silence).min()
    }

    fn on_deadline(&mut self, now: Now, out: &mut Vec<Effect>) {
        let now = now.instant;
        if let Some(patience) = self.config.patience.filter(|_| !self.stopping)
            && self.heard + patience <= now
        {
            self.lost = true;
            out.push(Effect::Say(Saying::ControllerLost { silence_s: now.since(self.heard).as_secs_f64() }));
            self.stop(now, out);
        }
        for (at, place) in (0..).zip(&mut self.places) {
            if matches!(place.state, State::Ending(until) if until <= now) {
                place.state = State::Killed;
                out.push(Effect::End { place: at, kill: true });
            }
        }
        self.start_due(now, out);
    }
}

#[cfg(test)]
mod tests {
    use remuda_proto::message::restart::RestartPolicy;

    use super::*;

    struct Story {
        nanny: Nanny,
        now: Now,
        started: u32,
    }

    const FIRST: Duration = Duration::from_millis(Restart::DEFAULT_BACKOFF_MS);

    impl Story {
        /// A nanny whose engines all run.
        fn of(engines: u32, policy: RestartPolicy) -> Self {
            Self::with(Config { engines, restart: Restart::new(policy), patience: None })
        }

        fn with(config: Config) -> Self {
            let mut story = Self { nanny: Nanny::new(config), now: Now::default(), started: 0 };
            let out = story.event(Event::Begin);
            assert_eq!(out, (0..config.engines).map(|place| Effect::Start { place }).collect::<Vec<_>>());
            (0..config.engines).for_each(|place| drop(story.start(place)));
            story
        }

        fn event(&mut self, event: Event) -> Vec<Effect> {
            let mut out = Vec::new();
            self.nanny.handle(self.now, event, &mut out);
            out
        }

        /// An engine has started, under the next number as its uuid.
        fn start(&mut self, place: u32) -> Vec<Effect> {
            let uuid = EngineUuid::from(self.started.to_string());
            self.started += 1;
            self.event(Event::Started { place, pid: 7, uuid, log: "log".to_owned() })
        }

        fn pass(&mut self, time: Duration) -> Vec<Effect> {
            self.now.instant = self.now.instant + time;
            let mut out = Vec::new();
            self.nanny.on_deadline(self.now, &mut out);
            out
        }

        /// An engine ends. The time until it is started again, and the rest but for what is told the hub.
        fn ends(&mut self, place: u32, ok: bool) -> (Option<f64>, Vec<Effect>) {
            let how = if ok { "exited with 0" } else { "was killed" }.to_owned();
            let mut out = self.event(Event::Ended { place, end: End { ok, how, tail: String::new() } });
            assert!(matches!(out.remove(0), Effect::TellHub(_)), "at once");
            let Effect::Say(Saying::Ended { again_in_s, .. }) = out.remove(0) else { panic!("{out:?}") };
            (again_in_s, out)
        }
    }

    fn end(uuid: &str, again: bool, now: bool) -> Event {
        Event::Word(Word::End { uuids: vec![uuid.into()], again, now })
    }

    #[test]
    fn an_engine_that_ended_is_started_again_by_the_policy() {
        for (policy, ok, again) in [
            (RestartPolicy::Never, false, false),
            (RestartPolicy::OnFailure, true, false),
            (RestartPolicy::OnFailure, false, true),
            (RestartPolicy::Always, true, true),
        ] {
            let mut story = Story::of(2, policy);
            let (pause, out) = story.ends(1, ok);
            assert_eq!((pause.is_some(), out), (again, Vec::new()), "{policy:?} {ok}");
            let out = story.pass(FIRST);
            assert_eq!(out, if again { vec![Effect::Start { place: 1 }] } else { Vec::new() });
        }
    }

    #[test]
    fn pauses_double_until_it_has_run_well_and_there_are_no_more_than_the_limit() {
        let restart = Restart { limit: Some(4), ..Restart::new(RestartPolicy::OnFailure) };
        let mut story = Story::with(Config { engines: 1, restart, patience: None });
        for (ran_s, pause_s) in [(0, Some(1.0)), (0, Some(2.0)), (60, Some(1.0)), (0, Some(2.0)), (0, None)] {
            story.now.instant = story.now.instant + Duration::from_secs(ran_s);
            let (pause, out) = story.ends(0, false);
            assert_eq!(pause, pause_s);
            if let Some(pause) = pause {
                assert_eq!(story.pass(Duration::from_secs_f64(pause)), [Effect::Start { place: 0 }]);
                story.start(0);
            } else {
                assert_eq!(out, [Effect::Exit(1)], "none is left, and it failed");
            }
        }
    }

    #[test]
    fn one_that_cannot_be_started_counts_as_one_that_failed() {
        let mut story = Story::of(1, RestartPolicy::OnFailure);
        story.ends(0, false);
        story.pass(FIRST);
        let out = story.event(Event::NotStarted { place: 0, reason: "no such program".to_owned() });
        let [Effect::Say(Saying::Ended { again_in_s: Some(2.0), end, .. })] = &out[..] else { panic!("{out:?}") };
        assert_eq!(end.how, "no such program");
    }

    #[test]
    fn a_stop_asks_all_and_kills_what_does_not_end() {
        let mut story = Story::of(3, RestartPolicy::Always);
        story.ends(2, false);
        let asked = story.event(Event::Stop);
        assert_eq!(asked, [Effect::End { place: 0, kill: false }, Effect::End { place: 1, kill: false }]);
        assert_eq!(story.ends(0, false), (None, Vec::new()));
        assert_eq!(story.pass(STOP_TIMEOUT), [Effect::End { place: 1, kill: true }]);
        assert_eq!(story.ends(1, false), (None, vec![Effect::Exit(0)]), "it was asked to");
        assert_eq!(story.nanny.deadline(), None);
    }

    #[test]
    fn one_that_starts_while_all_end_is_asked_too() {
        let mut story = Story::of(1, RestartPolicy::Always);
        story.ends(0, false);
        story.pass(FIRST);
        assert_eq!(story.event(Event::Stop), []);
        assert_eq!(story.start(0).pop(), Some(Effect::End { place: 0, kill: false }));
    }

    #[test]
    fn who_is_removed_stays_away_and_who_is_restarted_comes_back_whatever_the_policy() {
        let mut story = Story::of(2, RestartPolicy::Always);
        assert_eq!(story.event(end("1", false, true)), [Effect::End { place: 1, kill: false }]);
        assert_eq!(story.ends(1, true), (None, Vec::new()));
        assert_eq!(story.event(end("1", true, true)), [], "it is gone");

        let mut story = Story::of(1, RestartPolicy::Never);
        assert_eq!(story.event(end("0", true, false)), [], "it ends by itself");
        assert_eq!(story.ends(0, true), (Some(0.0), vec![Effect::Start { place: 0 }]));
        story.start(0);
        assert_eq!(story.ends(0, true), (None, vec![Effect::Exit(0)]), "that was for once");
    }

    #[test]
    fn one_that_is_kept_after_all_is_started_again_by_the_policy() {
        let mut story = Story::of(1, RestartPolicy::OnFailure);
        assert_eq!(story.event(end("0", false, false)), []);
        assert_eq!(story.event(Event::Word(Word::Keep { uuids: vec!["0".into()] })), []);
        assert_eq!(story.ends(0, false).0, Some(1.0));
    }

    #[test]
    fn one_that_backs_off_starts_at_once_or_never_if_asked_for() {
        let mut story = Story::of(2, RestartPolicy::OnFailure);
        story.ends(0, false);
        story.ends(1, false);
        assert_eq!(story.event(end("0", true, false)), [Effect::Start { place: 0 }]);
        assert_eq!(story.event(end("1", false, false)), []);
        assert_eq!(story.pass(Duration::from_secs(3600)), []);
    }

    #[test]
    fn an_end_by_a_signal_is_told_once_and_one_without_a_line_is_a_failure() {
        let mut story = Story::of(1, RestartPolicy::OnFailure);
        let out = story.event(Event::Signalled { signal: 15 });
        assert_eq!(out, [Effect::Say(Saying::Signalled { signal: 15 }), Effect::End { place: 0, kill: false }]);
        assert_eq!(story.event(Event::Signalled { signal: 15 }), []);
        assert_eq!(story.ends(0, true), (None, vec![Effect::Exit(0)]));

        let mut story = Story::of(1, RestartPolicy::OnFailure);
        assert_eq!(story.event(Event::LineLost), [Effect::End { place: 0, kill: false }]);
        assert_eq!(story.ends(0, true), (None, vec![Effect::Exit(1)]));
    }

    #[test]
    fn signals_go_to_those_that_run() {
        let mut story = Story::of(2, RestartPolicy::OnFailure);
        story.ends(0, false);
        let out = story.event(Event::Word(Word::Signal { signal: 10 }));
        assert_eq!(out, [Effect::Signal { place: 1, signal: 10 }]);
    }

    #[test]
    fn engines_end_when_the_controller_was_silent_for_so_long_and_no_sooner() {
        let patience = Duration::from_secs(60);
        let restart = Restart::new(RestartPolicy::Always);
        let mut story = Story::with(Config { engines: 1, restart, patience: Some(patience) });
        assert_eq!(story.pass(patience / 2), []);
        story.event(Event::Ping);
        assert_eq!(story.pass(Duration::from_secs(59)), []);
        let out = story.pass(Duration::from_secs(1));
        assert!(matches!(out[0], Effect::Say(Saying::ControllerLost { silence_s: 60.0 })), "{out:?}");
        assert_eq!(out[1..], [Effect::End { place: 0, kill: false }]);
        assert_eq!(story.ends(0, true), (None, vec![Effect::Exit(1)]));
    }
}
