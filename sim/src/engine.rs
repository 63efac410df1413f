//! An engine and its surroundings: its sockets, its heart, what it runs.

use std::collections::VecDeque;

use remuda_engine::Work;
use remuda_engine::{Config, Effect, EngineCore, Event};
use remuda_proto::message::native::Announcement;
use remuda_proto::{
    Body, EngineId, EngineUuid, Identity, Idents, Instant, Key, Machine, MsgId, Now, Packer, Session, SessionId,
};

use crate::network::{Channel, Payload};
use crate::parameters::{FUNCTIONS, Kind};
use crate::stock::StockEngine;

/// How an engine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It runs.
    Runs,
    /// It stands still.
    Frozen,
    /// It is gone.
    Gone,
}

/// What decides for an engine.
enum Brain {
    Stock(Box<StockEngine>),
    Native(Box<EngineCore>),
}

/// Something that waits for a frozen engine.
pub(crate) enum Held {
    /// A message.
    Message(Channel, Payload),
    /// A task ended.
    Done(u64),
    /// Its threads have told it something.
    Told,
}

/// What runs on an engine.
pub(crate) struct Running {
    pub(crate) msg_id: MsgId,
    pub(crate) work: Work,
    /// Tells it from what ran before.
    pub(crate) run: u64,
    /// The signal that ends it, if one does.
    pub(crate) signal: Option<i32>,
}

/// An engine.
pub(crate) struct EngineNode {
    pub(crate) uuid: EngineUuid,
    pub(crate) kind: Kind,
    pub(crate) life: Life,
    brain: Brain,
    /// The id that the hub gave it.
    pub(crate) id: Option<EngineId>,
    /// Tasks take that many times longer.
    pub(crate) slowness: u32,
    /// What came while it stood still.
    pub(crate) held: VecDeque<Held>,
    pub(crate) running: Vec<Running>,
    /// What is begun when something ends.
    pub(crate) line: VecDeque<(MsgId, Work)>,
    /// What its threads have told it and it has not heard yet.
    pub(crate) mail: VecDeque<Event>,
    /// The last reply to a task: to whom, and what.
    pub(crate) last_reply: Option<(Idents, Body)>,
    /// The deadline that is planned for.
    pub(crate) wakes_at: Option<Instant>,
    /// What it has run so far.
    pub(crate) runs: u64,
    /// Since when its heart could be heard: it was connected, and did not stand still. `None`: it cannot.
    pub(crate) audible_since: Option<Instant>,
    /// Whether it ever stood still.
    pub(crate) stood_still: bool,
}

impl EngineNode {
    /// An engine that has not started. `uuid`: the one that it had in an earlier life, if it had one.
    pub(crate) fn new(
        number: u32,
        kind: Kind,
        uuid: Option<&EngineUuid>,
        again: bool,
        key: Key,
        packer: Packer,
    ) -> Self {
        let name = match kind {
            Kind::Stock => "stock",
            Kind::Native => "native",
            Kind::OneFunction => "alpha",
        };
        let id = uuid.map_or_else(|| format!("engine-{number}-{name}"), EngineUuid::to_string);
        // The number stands for the process id: another life does not make the same messages again.
        let session = Session::new(SessionId::from(id), "sim", key, packer, number);
        let uuid = EngineUuid::from(session.id().as_str());
        let announced = |functions: &[&str], process| Announcement {
            version: "0".to_owned(),
            functions: functions.iter().map(|name| (*name).to_owned()).collect(),
            process,
            // Of two that are started one after the other but one, one has three or more.
            slots: if process { 1 + number % 4 } else { 1 },
            ..Announcement::default()
        };
        let native = |announcement| {
            let config = Config {
                session: session.clone(),
                id: None,
                again,
                announcement,
                null: false,
                registration_timeout: std::time::Duration::from_secs(5),
                max_missed_pings: 50,
            };
            Brain::Native(Box::new(EngineCore::new(config)))
        };
        let brain = match kind {
            Kind::Stock => Brain::Stock(Box::new(StockEngine::new(session.clone()))),
            Kind::Native => native(announced(&FUNCTIONS, true)),
            Kind::OneFunction => native(announced(&FUNCTIONS[..1], false)),
        };
        Self {
            uuid,
            kind,
            life: Life::Runs,
            brain,
            id: None,
            slowness: 1,
            held: VecDeque::new(),
            running: Vec::new(),
            line: VecDeque::new(),
            mail: VecDeque::new(),
            last_reply: None,
            wakes_at: None,
            runs: 0,
            audible_since: None,
            stood_still: false,
        }
    }

    pub(crate) fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) {
        match &mut self.brain {
            Brain::Stock(machine) => machine.handle(now, event, out),
            Brain::Native(machine) => machine.handle(now, event, out),
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.brain {
            Brain::Stock(machine) => machine.deadline(),
            Brain::Native(machine) => machine.deadline(),
        }
    }

    pub(crate) fn on_deadline(&mut self, now: Now, out: &mut Vec<Effect>) {
        match &mut self.brain {
            Brain::Stock(machine) => machine.on_deadline(now, out),
            Brain::Native(machine) => machine.on_deadline(now, out),
        }
    }

    pub(crate) fn check(&self) {
        match &self.brain {
            Brain::Stock(machine) => machine.check(),
            Brain::Native(machine) => machine.check(),
        }
    }
}

/// What the engine's ROUTER calls a socket of the controller.
pub(crate) fn socket_identity(channel: Channel) -> Identity {
    Identity::from(match channel {
        Channel::Task => &b"task_out"[..],
        Channel::Mux => b"mux_out",
        Channel::Broadcast => b"broadcast_out",
        _ => b"control_out",
    })
}

/// The channel of the socket that the engine's ROUTER calls by this name.
pub(crate) fn socket_channel(identity: &Identity) -> Option<Channel> {
    let channels = [Channel::Task, Channel::Mux, Channel::Control, Channel::Broadcast];
    channels.into_iter().find(|channel| socket_identity(*channel) == *identity)
}
