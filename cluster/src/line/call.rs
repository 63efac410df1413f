//! The nanny's end of a line.

use std::time::Duration;

use remuda_proto::Instant;

use super::ledger::Ledger;
use super::seal::{Awaiting, Caller, Distrust, LineKey, Nonce, Seals, hello};
use super::{BEAT, SILENCE, Tale};
use crate::nanny::Word;

/// How long after a cut it is dialled again, at first; each time without success twice as long.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// How long at most between two attempts.
const MAX_RETRY: Duration = Duration::from_secs(5);
/// How long a last tale may take to be heard.
const LINGER: Duration = Duration::from_secs(5);

/// What can happen to a nanny's end.
#[derive(Debug)]
pub(super) enum CallEvent {
    /// There is a connection: the answer to [`CallEffect::Dial`].
    Connected {
        /// The key of the connection file as it is now.
        key: LineKey,
        /// A number that is used once.
        nonce: Nonce,
    },
    /// There is no connection (any more).
    Cut {
        /// Why, for people.
        reason: String,
    },
    /// The other end says something.
    Line(String),
    /// The nanny tells something.
    Tell(Tale),
}

/// What a nanny's end asks for.
#[derive(Debug, PartialEq)]
pub(super) enum CallEffect {
    /// Connect.
    Dial,
    /// Send a line.
    Send(String),
    /// Close the connection, and say nothing more of it.
    HangUp,
    /// The nanny is told something.
    Deliver(Word),
    /// There was no line for too long.
    Lost {
        /// How long.
        silence: Duration,
    },
    /// All is said, and heard as far as could be seen.
    Done,
    /// For people: why there is no line.
    Note(String),
}

#[derive(Debug)]
enum State {
    /// No connection; one is made then.
    Waiting(Instant),
    Dialling,
    /// The supervisor is to speak first.
    Connected(LineKey, Nonce),
    Awaiting(Awaiting),
    Open(Box<Seals>),
}

/// The nanny's end of a line.
#[derive(Debug)]
pub(super) struct Call {
    name: String,
    instance: String,
    patience: Duration,
    state: State,
    ledger: Ledger<Tale>,
    retry: Duration,
    /// Whether both ends have proved who they are, on a connection that is not known to be cut.
    is_open: bool,
    /// Since when there is no line, if there is none.
    since: Instant,
    /// When anything came on this connection, or it was made.
    heard: Instant,
    spoke: Instant,
    /// When the last tale was told.
    ending: Option<Instant>,
    is_lost: bool,
    is_done: bool,
}

impl Call {
    /// An end that dials at once. `instance` is a name that no other process has.
    pub(super) fn new(name: String, instance: String, patience: Duration, now: Instant) -> Self {
        Self {
            name,
            instance,
            patience,
            state: State::Waiting(now),
            ledger: Ledger::default(),
            retry: FIRST_RETRY,
            is_open: false,
            since: now,
            heard: now,
            spoke: now,
            ending: None,
            is_lost: false,
            is_done: false,
        }
    }

    /// Applies an event, and appends what it calls for.
    pub(super) fn handle(&mut self, now: Instant, event: CallEvent, out: &mut Vec<CallEffect>) {
        match event {
            CallEvent::Connected { key, nonce } => {
                self.heard = now;
                self.state = State::Connected(key, nonce);
            }
            CallEvent::Cut { reason } => self.cut(now, reason, out),
            CallEvent::Line(line) => {
                if let Err(distrust) = self.hear(now, &line, out) {
                    out.push(CallEffect::HangUp);
                    self.cut(now, distrust.to_string(), out);
                }
            }
            CallEvent::Tell(tale) => {
                if matches!(tale, Tale::Bye { .. }) {
                    self.ending = Some(now);
                }
                self.ledger.put(tale);
                self.send(now, out);
            }
        }
        self.may_be_done(now, out);
    }

    /// When [`on_deadline`](Self::on_deadline) is next wanted.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let state = match &self.state {
            State::Waiting(until) => Some(*until),
            State::Dialling => None,
            State::Connected(..) | State::Awaiting(_) => Some(self.heard + SILENCE),
            State::Open(_) => Some((self.heard + SILENCE).min(self.spoke + BEAT)),
        };
        let patience = (!self.is_lost && !self.is_open).then_some(self.since + self.patience);
        let linger = self.ending.map(|since| since + LINGER);
        [state, patience, linger].into_iter().flatten().min().filter(|_| !self.is_done)
    }

    /// Acts on what is due.
    pub(super) fn on_deadline(&mut self, now: Instant, out: &mut Vec<CallEffect>) {
        match &self.state {
            State::Waiting(until) if *until <= now => {
                self.state = State::Dialling;
                out.push(CallEffect::Dial);
            }
            State::Connected(..) | State::Awaiting(_) | State::Open(_) if self.heard + SILENCE <= now => {
                out.push(CallEffect::HangUp);
                self.cut(now, format!("nothing was heard for {} s", SILENCE.as_secs()), out);
            }
            State::Open(_) if self.spoke + BEAT <= now => {
                let beat = self.ledger.beat();
                self.seal(now, &beat, out);
            }
            _ => {}
        }
        if !self.is_lost && !self.is_open && self.since + self.patience <= now {
            self.is_lost = true;
            out.push(CallEffect::Lost { silence: now.since(self.since) });
        }
        self.may_be_done(now, out);
    }

    fn cut(&mut self, now: Instant, reason: String, out: &mut Vec<CallEffect>) {
        out.push(CallEffect::Note(reason));
        if std::mem::take(&mut self.is_open) {
            self.since = now;
        }
        self.state = State::Waiting(now + self.retry);
        self.retry = (self.retry * 2).min(MAX_RETRY);
    }

    fn hear(&mut self, now: Instant, line: &str, out: &mut Vec<CallEffect>) -> Result<(), Distrust> {
        self.heard = now;
        match std::mem::replace(&mut self.state, State::Dialling) {
            State::Connected(key, nonce) => {
                let who =
                    Caller { name: self.name.clone(), instance: self.instance.clone(), heard: self.ledger.heard() };
                let (line, awaiting) = hello(&key, line, &nonce, &who)?;
                self.state = State::Awaiting(awaiting);
                out.push(CallEffect::Send(line));
            }
            State::Awaiting(awaiting) => {
                let (heard, seals) = awaiting.welcome(line)?;
                self.ledger.begin(heard)?;
                (self.state, self.retry, self.is_open) = (State::Open(Box::new(seals)), FIRST_RETRY, true);
                self.send(now, out);
            }
            State::Open(mut seals) => {
                let item = self.ledger.take(seals.open(line)?)?;
                self.state = State::Open(seals);
                if let Some(word) = item {
                    out.push(CallEffect::Deliver(word));
                    let beat = self.ledger.beat();
                    self.seal(now, &beat, out);
                }
            }
            state => {
                self.state = state;
                return Err(Distrust::Order);
            }
        }
        Ok(())
    }

    /// Sends what there is to say, if there is a line.
    fn send(&mut self, now: Instant, out: &mut Vec<CallEffect>) {
        if matches!(self.state, State::Open(_)) {
            for json in self.ledger.unsent() {
                self.seal(now, &json, out);
            }
        }
    }

    fn seal(&mut self, now: Instant, json: &str, out: &mut Vec<CallEffect>) {
        if let State::Open(seals) = &mut self.state {
            self.spoke = now;
            out.push(CallEffect::Send(seals.seal(json)));
        }
    }

    fn may_be_done(&mut self, now: Instant, out: &mut Vec<CallEffect>) {
        let is_over = self.ending.is_some_and(|since| self.ledger.is_empty() || self.is_lost || since + LINGER <= now);
        if is_over && !self.is_done {
            self.is_done = true;
            out.push(CallEffect::Done);
        }
    }
}
