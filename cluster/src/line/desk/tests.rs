//! Both ends of lines, and a network between them that can be cut, as short stories.

use std::collections::VecDeque;

use super::super::call::{Call, CallEffect, CallEvent};
use super::*;
use crate::nanny::Saying;

const PATIENCE: Duration = Duration::from_secs(60);

fn said(silence_s: f64) -> Tale {
    Tale::Said(Saying::ControllerLost { silence_s })
}

fn signal(signal: i32) -> Word {
    Word::Signal { signal }
}

struct Pair {
    now: Instant,
    call: Call,
    desk: Desk,
    key: &'static str,
    /// The connection, if there is one.
    peer: Option<Peer>,
    peers: Peer,
    to_desk: VecDeque<(Peer, String)>,
    to_call: VecDeque<String>,
    heard: Vec<Tale>,
    told: Vec<Word>,
    dropped: Vec<String>,
    lost: u32,
    done: u32,
    dials: u32,
    /// Whether there is a network.
    up: bool,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::default();
        let mut desk = Desk::new(LineKey::new("k"));
        desk.handle(now, DeskEvent::Expect { name: "t-1".to_owned() }, &mut Vec::new());
        Self {
            now,
            call: Call::new("t-1".to_owned(), "i".to_owned(), PATIENCE, now),
            desk,
            key: "k",
            peer: None,
            peers: 0,
            to_desk: VecDeque::new(),
            to_call: VecDeque::new(),
            heard: Vec::new(),
            told: Vec::new(),
            dropped: Vec::new(),
            lost: 0,
            done: 0,
            dials: 0,
            up: true,
        }
    }

    fn call(&mut self, event: CallEvent) {
        let mut out = Vec::new();
        self.call.handle(self.now, event, &mut out);
        self.perform(out);
    }

    fn desk(&mut self, event: DeskEvent) {
        let mut out = Vec::new();
        self.desk.handle(self.now, event, &mut out);
        self.answer(out);
    }

    fn perform(&mut self, effects: Vec<CallEffect>) {
        for effect in effects {
            match effect {
                CallEffect::Dial => {
                    self.dials += 1;
                    if self.up {
                        self.peers += 1;
                        self.peer = Some(self.peers);
                        let nonce = [u8::try_from(self.peers).unwrap(); 16];
                        self.call(CallEvent::Connected { key: LineKey::new(self.key), nonce: [9; 16] });
                        self.desk(DeskEvent::Accepted { peer: self.peers, nonce });
                    } else {
                        self.call(CallEvent::Cut { reason: "refused".to_owned() });
                    }
                }
                CallEffect::Send(line) => self.to_desk.extend(self.peer.map(|peer| (peer, line))),
                CallEffect::HangUp => self.hang_up(),
                CallEffect::Deliver(word) => self.told.push(word),
                CallEffect::Lost { .. } => self.lost += 1,
                CallEffect::Done => self.done += 1,
                CallEffect::Note(_) => {}
            }
        }
    }

    fn answer(&mut self, effects: Vec<DeskEffect>) {
        for effect in effects {
            match effect {
                DeskEffect::Send { peer, line } if Some(peer) == self.peer => self.to_call.push_back(line),
                DeskEffect::Send { .. } => {}
                DeskEffect::Close { peer } if Some(peer) == self.peer => {
                    self.peer = None;
                    self.to_call.clear();
                    self.call(CallEvent::Cut { reason: "closed".to_owned() });
                }
                DeskEffect::Close { .. } => {}
                DeskEffect::Heard { tale, .. } => self.heard.push(tale),
                DeskEffect::Dropped { reason, .. } => self.dropped.push(reason),
            }
        }
    }

    /// The nanny's side closes the connection, and the desk hears of it.
    fn hang_up(&mut self) {
        if let Some(peer) = self.peer.take() {
            self.to_call.clear();
            self.to_desk.clear();
            self.desk(DeskEvent::Closed { peer });
        }
    }

    /// The connection breaks, and what was on its way is lost.
    fn cut(&mut self) {
        self.hang_up();
        self.call(CallEvent::Cut { reason: "cut".to_owned() });
    }

    /// All lines arrive.
    fn flow(&mut self) {
        loop {
            if let Some((peer, line)) = self.to_desk.pop_front() {
                self.desk(DeskEvent::Line { peer, line });
            } else if let Some(line) = self.to_call.pop_front() {
                self.call(CallEvent::Line(line));
            } else {
                break;
            }
        }
    }

    /// Time passes, with all that happens in it, by the second.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..=seconds * 2 {
            while self.call.deadline().is_some_and(|at| at <= self.now) {
                let mut out = Vec::new();
                self.call.on_deadline(self.now, &mut out);
                self.perform(out);
            }
            let mut out = Vec::new();
            self.desk.look(self.now, &mut out);
            self.answer(out);
            if self.up {
                self.flow();
            }
            self.now = self.now + Duration::from_millis(500);
        }
    }
}

#[test]
fn words_and_tales_go_both_ways_also_those_from_before_the_line() {
    let mut pair = Pair::new();
    pair.call(CallEvent::Tell(said(1.0)));
    pair.desk(DeskEvent::Tell { name: "t-1".to_owned(), word: signal(1) });
    pair.pass(1);
    pair.call(CallEvent::Tell(said(2.0)));
    pair.desk(DeskEvent::Tell { name: "t-1".to_owned(), word: signal(2) });
    pair.pass(1);
    assert_eq!((&pair.heard[..], &pair.told[..]), (&[said(1.0), said(2.0)][..], &[signal(1), signal(2)][..]));
    assert_eq!((pair.dials, pair.lost), (1, 0));
}

#[test]
fn a_cut_loses_nothing_and_doubles_nothing() {
    let mut pair = Pair::new();
    pair.pass(1);
    let (mut tales, mut words) = (Vec::new(), Vec::new());
    for round in 0..20 {
        tales.push(said(f64::from(round)));
        words.push(signal(round));
        pair.call(CallEvent::Tell(tales[tales.len() - 1].clone()));
        pair.desk(DeskEvent::Tell { name: "t-1".to_owned(), word: signal(round) });
        match round % 4 {
            // Both are lost.
            0 => pair.cut(),
            // One arrives, and word of that does not.
            1 => {
                if let Some((peer, line)) = pair.to_desk.pop_front() {
                    pair.desk(DeskEvent::Line { peer, line });
                }
                pair.cut();
            }
            2 => {
                if let Some(line) = pair.to_call.pop_front() {
                    pair.call(CallEvent::Line(line));
                }
                pair.cut();
            }
            _ => {}
        }
        pair.pass(8);
    }
    assert_eq!((pair.heard, pair.told), (tales, words));
    assert!(pair.dials > 10 && pair.lost == 0, "{}", pair.dials);
}

#[test]
fn a_quiet_line_stays_and_one_whose_other_end_is_silent_is_dialled_again() {
    let mut pair = Pair::new();
    pair.pass(300);
    assert_eq!((pair.dials, pair.lost, pair.dropped.len()), (1, 0, 0));
    // The network takes all without a word.
    pair.up = false;
    pair.pass(30);
    assert!(pair.dials > 1, "it was given up");
    pair.up = true;
    pair.pass(10);
    pair.call(CallEvent::Tell(said(1.0)));
    pair.pass(1);
    assert_eq!(pair.heard, [said(1.0)]);
    assert_eq!(pair.lost, 0);
}

#[test]
fn a_nanny_without_a_line_says_so_once_after_its_patience_and_dials_on() {
    let mut pair = Pair::new();
    pair.pass(1);
    pair.up = false;
    pair.cut();
    pair.pass(59);
    assert_eq!(pair.lost, 0);
    pair.pass(2);
    assert_eq!(pair.lost, 1);
    let dials = pair.dials;
    pair.pass(60);
    assert_eq!(pair.lost, 1);
    assert!((10..16).contains(&(pair.dials - dials)), "every five seconds: {}", pair.dials - dials);
}

#[test]
fn who_does_not_have_the_key_is_dropped_and_hears_nothing() {
    let mut pair = Pair::new();
    pair.key = "another";
    pair.call(CallEvent::Tell(said(1.0)));
    pair.desk(DeskEvent::Tell { name: "t-1".to_owned(), word: Word::Stop });
    pair.pass(2);
    assert!(pair.dropped.iter().all(|reason| reason.contains("key")) && !pair.dropped.is_empty());
    assert_eq!((pair.heard.len(), pair.told.len()), (0, 0));
    pair.key = "k";
    pair.pass(10);
    assert_eq!((pair.heard.len(), pair.told.len()), (1, 1), "it was kept for the one who has it");
}

#[test]
fn garbage_and_silence_harm_nobody_else() {
    let mut pair = Pair::new();
    pair.pass(1);
    let stranger = |pair: &mut Pair, peer, line: &str| {
        pair.desk(DeskEvent::Accepted { peer, nonce: [7; 16] });
        pair.desk(DeskEvent::Line { peer, line: line.to_owned() });
        assert!(!pair.desk.peers.contains_key(&peer));
    };
    stranger(&mut pair, 100, "GET / HTTP/1.1");
    stranger(&mut pair, 101, "");
    assert_eq!(pair.dropped.len(), 2);
    // What comes after it was dropped is not heard.
    pair.desk(DeskEvent::Line { peer: 100, line: "Host: x".to_owned() });
    assert_eq!(pair.dropped.len(), 2);
    for peer in 1000..3000 {
        pair.desk(DeskEvent::Accepted { peer, nonce: [7; 16] });
    }
    assert_eq!(pair.desk.peers.len(), MAX_STRANGERS + 1, "no more are kept");
    pair.pass(11);
    assert_eq!(pair.desk.peers.len(), 1, "who says nothing is dropped");
    pair.call(CallEvent::Tell(said(1.0)));
    pair.pass(1);
    assert_eq!((pair.heard.len(), pair.dials), (1, 1));
    // Something is put into the line: it is cut, and all is well on the next one.
    pair.desk(DeskEvent::Line { peer: 1, line: format!("{} {{}}", "0".repeat(64)) });
    pair.call(CallEvent::Tell(said(2.0)));
    pair.pass(2);
    assert_eq!((pair.heard.len(), pair.dials), (2, 2));
}

#[test]
fn a_bye_is_heard_and_then_the_nanny_is_done() {
    let mut pair = Pair::new();
    pair.pass(1);
    pair.call(CallEvent::Tell(Tale::Bye { status: 3 }));
    assert_eq!(pair.done, 0);
    pair.pass(1);
    assert_eq!((pair.done, &pair.heard[..]), (1, &[Tale::Bye { status: 3 }][..]));

    let mut pair = Pair::new();
    pair.up = false;
    pair.call(CallEvent::Tell(Tale::Bye { status: 0 }));
    pair.pass(4);
    assert_eq!(pair.done, 0);
    pair.pass(2);
    assert_eq!(pair.done, 1, "nobody hears it");
}

#[test]
fn a_job_that_its_system_starts_again_begins_anew() {
    let mut pair = Pair::new();
    pair.call(CallEvent::Tell(said(1.0)));
    pair.desk(DeskEvent::Tell { name: "t-1".to_owned(), word: signal(1) });
    pair.pass(1);
    let other = Call::new("t-1".to_owned(), "j".to_owned(), PATIENCE, pair.now);
    let first = std::mem::replace(&mut pair.call, other);
    drop(first);
    pair.hang_up();
    pair.call(CallEvent::Tell(said(2.0)));
    pair.pass(1);
    assert_eq!((&pair.heard[..], &pair.told[..]), (&[said(1.0), said(2.0)][..], &[signal(1)][..]));
    // A third one is not let in while the second is there.
    pair.desk(DeskEvent::Accepted { peer: 50, nonce: [1; 16] });
    let who = super::super::seal::Caller { name: "t-1".to_owned(), instance: "x".to_owned(), heard: 0 };
    let (line, _) = super::super::seal::hello(&LineKey::new("k"), &greeting(&[1; 16]), &[2; 16], &who).unwrap();
    pair.desk(DeskEvent::Line { peer: 50, line });
    assert!(pair.dropped[0].contains("another nanny"), "{:?}", pair.dropped);
    pair.desk(DeskEvent::Forget { name: "t-1".to_owned() });
    pair.pass(3);
    assert!(pair.dropped[1].contains("`t-1` is expected"), "{:?}", pair.dropped);
}
