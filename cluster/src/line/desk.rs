//! The supervisor's end of all lines.

use std::collections::BTreeMap;
use std::time::Duration;

use remuda_proto::Instant;

use super::ledger::Ledger;
use super::seal::{Distrust, LineKey, Nonce, Proven, Seals, greeting};
use super::{BEAT, SILENCE, Tale};
use crate::nanny::Word;

/// How long a peer may take to prove who it is.
const PROOF_TIMEOUT: Duration = Duration::from_secs(10);
/// How many peers may be about to prove who they are: beyond these the one that has taken longest is dropped.
const MAX_STRANGERS: usize = 512;

/// A connection, by a number that no other has.
pub type Peer = u64;

/// What can happen at the supervisor's end.
#[derive(Debug)]
pub enum DeskEvent {
    /// Somebody has connected.
    Accepted {
        /// Its number.
        peer: Peer,
        /// A number that is used once.
        nonce: Nonce,
    },
    /// A peer says something.
    Line {
        /// Who.
        peer: Peer,
        /// What.
        line: String,
    },
    /// A connection is over.
    Closed {
        /// Which.
        peer: Peer,
    },
    /// A nanny of that name may come.
    Expect {
        /// Its name, which none had before.
        name: String,
    },
    /// A nanny is not to be heard any more.
    Forget {
        /// Its name.
        name: String,
    },
    /// Tell a nanny something, at once or when it comes.
    Tell {
        /// Its name.
        name: String,
        /// What.
        word: Word,
    },
}

/// What the supervisor's end asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum DeskEffect {
    /// Send a line.
    Send {
        /// Where.
        peer: Peer,
        /// What.
        line: String,
    },
    /// Close a connection.
    Close {
        /// Which.
        peer: Peer,
    },
    /// A nanny tells something.
    Heard {
        /// Who.
        name: String,
        /// What.
        tale: Tale,
    },
    /// For people: a peer was dropped.
    Dropped {
        /// Which.
        peer: Peer,
        /// Why.
        reason: String,
    },
}

#[derive(Debug)]
enum Standing {
    /// It has not proved who it is, and has time for that until then.
    Stranger {
        challenge: Nonce,
        until: Instant,
    },
    Nanny {
        name: String,
        seals: Box<Seals>,
        heard: Instant,
        spoke: Instant,
    },
}

/// A nanny that may come, or has.
#[derive(Debug, Default)]
struct Nanny {
    ledger: Ledger<Word>,
    /// Which process it is; empty: none has come.
    instance: String,
    peer: Option<Peer>,
}

/// The supervisor's end of all lines.
#[derive(Debug)]
pub struct Desk {
    key: LineKey,
    nannies: BTreeMap<String, Nanny>,
    peers: BTreeMap<Peer, Standing>,
}

impl Desk {
    /// A desk to which nobody has come.
    pub fn new(key: LineKey) -> Self {
        Self { key, nannies: BTreeMap::new(), peers: BTreeMap::new() }
    }

    /// Applies an event, and appends what it calls for.
    pub fn handle(&mut self, now: Instant, event: DeskEvent, out: &mut Vec<DeskEffect>) {
        match event {
            DeskEvent::Accepted { peer, nonce } => self.accepted(now, peer, nonce, out),
            DeskEvent::Line { peer, line } => {
                if let Err(distrust) = self.hear(now, peer, &line, out) {
                    self.drop_peer(peer, distrust.to_string(), out);
                }
            }
            DeskEvent::Closed { peer } => self.forget_peer(peer),
            DeskEvent::Expect { name } => {
                self.nannies.entry(name).or_default();
            }
            DeskEvent::Forget { name } => {
                if let Some(peer) = self.nannies.remove(&name).and_then(|nanny| nanny.peer) {
                    self.peers.remove(&peer);
                    out.push(DeskEffect::Close { peer });
                }
            }
            DeskEvent::Tell { name, word } => {
                if let Some(nanny) = self.nannies.get_mut(&name) {
                    nanny.ledger.put(word);
                    self.send(now, &name, out);
                }
            }
        }
    }

    /// Closes connections that were silent for too long, and says on the others that this end is there. It is to be called every
    /// second or so: there are no deadlines that matter to the second.
    pub fn look(&mut self, now: Instant, out: &mut Vec<DeskEffect>) {
        let (mut late, mut quiet) = (Vec::new(), Vec::new());
        for (peer, standing) in &self.peers {
            match standing {
                Standing::Stranger { until, .. } if *until <= now => late.push((*peer, "it did not say who it is")),
                Standing::Nanny { heard, .. } if *heard + SILENCE <= now => late.push((*peer, "it is silent")),
                Standing::Nanny { name, spoke, .. } if *spoke + BEAT <= now => quiet.push(name.clone()),
                Standing::Stranger { .. } | Standing::Nanny { .. } => {}
            }
        }
        for (peer, reason) in late {
            self.drop_peer(peer, reason.to_owned(), out);
        }
        for name in quiet {
            self.beat(now, &name, out);
        }
    }

    fn accepted(&mut self, now: Instant, peer: Peer, nonce: Nonce, out: &mut Vec<DeskEffect>) {
        let is_stranger = |of: &(&Peer, &Standing)| matches!(of.1, Standing::Stranger { .. });
        if self.peers.iter().filter(is_stranger).count() >= MAX_STRANGERS
            && let Some(oldest) = self.peers.iter().find(is_stranger).map(|(peer, _)| *peer)
        {
            self.drop_peer(oldest, "too many others came after it".to_owned(), out);
        }
        out.push(DeskEffect::Send { peer, line: greeting(&nonce) });
        self.peers.insert(peer, Standing::Stranger { challenge: nonce, until: now + PROOF_TIMEOUT });
    }

    fn hear(&mut self, now: Instant, peer: Peer, line: &str, out: &mut Vec<DeskEffect>) -> Result<(), Distrust> {
        match self.peers.get_mut(&peer) {
            // It was dropped, and its last line was on its way.
            None => Ok(()),
            Some(Standing::Stranger { challenge, .. }) => {
                let proven = Proven::of(&self.key, challenge, line)?;
                self.admit(now, peer, &proven, out)
            }
            Some(Standing::Nanny { name, seals, heard, .. }) => {
                *heard = now;
                let nanny = self.nannies.get_mut(name).expect("a peer has a name that is expected");
                let item = nanny.ledger.take(seals.open(line)?)?;
                let name = name.clone();
                if let Some(tale) = item {
                    self.beat(now, &name, out);
                    out.push(DeskEffect::Heard { name, tale });
                }
                Ok(())
            }
        }
    }

    /// A nanny has proved who it is.
    fn admit(&mut self, now: Instant, peer: Peer, proven: &Proven, out: &mut Vec<DeskEffect>) -> Result<(), Distrust> {
        let caller = &proven.caller;
        let Some(nanny) = self.nannies.get_mut(&caller.name) else {
            self.drop_peer(peer, format!("no nanny of the name `{}` is expected", caller.name), out);
            return Ok(());
        };
        let before = nanny.peer;
        if nanny.instance != caller.instance {
            if before.is_some() {
                let reason = format!("there is another nanny of the name `{}`", caller.name);
                self.drop_peer(peer, reason, out);
                return Ok(());
            }
            // Its system has started the job again: what the one before it was told is nothing to this one.
            nanny.instance.clone_from(&caller.instance);
            if nanny.ledger.heard() > 0 || caller.heard > 0 {
                nanny.ledger = Ledger::default();
            }
        }
        nanny.ledger.begin(caller.heard)?;
        nanny.peer = Some(peer);
        let (line, seals) = proven.welcome(nanny.ledger.heard());
        let name = caller.name.clone();
        out.push(DeskEffect::Send { peer, line });
        self.peers.insert(peer, Standing::Nanny { name: name.clone(), seals: Box::new(seals), heard: now, spoke: now });
        if let Some(before) = before {
            self.peers.remove(&before);
            out.push(DeskEffect::Close { peer: before });
        }
        self.send(now, &name, out);
        Ok(())
    }

    /// Sends what a nanny is to be told, if it is there.
    fn send(&mut self, now: Instant, name: &str, out: &mut Vec<DeskEffect>) {
        let Some(nanny) = self.nannies.get_mut(name) else { return };
        if let Some(peer) = nanny.peer {
            let lines = nanny.ledger.unsent();
            self.seal(now, peer, &lines, out);
        }
    }

    fn beat(&mut self, now: Instant, name: &str, out: &mut Vec<DeskEffect>) {
        let Some(nanny) = self.nannies.get(name) else { return };
        if let Some(peer) = nanny.peer {
            self.seal(now, peer, &[nanny.ledger.beat()], out);
        }
    }

    fn seal(&mut self, now: Instant, peer: Peer, lines: &[String], out: &mut Vec<DeskEffect>) {
        if let Some(Standing::Nanny { seals, spoke, .. }) = self.peers.get_mut(&peer) {
            for json in lines {
                *spoke = now;
                out.push(DeskEffect::Send { peer, line: seals.seal(json) });
            }
        }
    }

    fn drop_peer(&mut self, peer: Peer, reason: String, out: &mut Vec<DeskEffect>) {
        self.forget_peer(peer);
        out.extend([DeskEffect::Close { peer }, DeskEffect::Dropped { peer, reason }]);
    }

    fn forget_peer(&mut self, peer: Peer) {
        if let Some(Standing::Nanny { name, .. }) = self.peers.remove(&peer)
            && let Some(nanny) = self.nannies.get_mut(&name).filter(|nanny| nanny.peer == Some(peer))
        {
            nanny.peer = None;
        }
    }
}

#[cfg(test)]
mod tests;
