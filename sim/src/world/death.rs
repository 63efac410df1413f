//! The controller is killed, and another one takes over what is on disk.

use std::time::Duration;

use remuda_hub::store::{MemoryStore, NoStore, TaskStore};
use remuda_hub::{Limits, heart, hub};
use remuda_proto::message::content::ControllerInfo;
use remuda_proto::message::metadata::TaskMetadata;
use remuda_proto::message::parent_msg_id;
use remuda_proto::monitor::{Durability, Queue, Ticket};
use remuda_proto::recovery::Recovery;
use remuda_proto::{Body, EngineUuid, Envelope, Instant, Key, Session, SessionId};
use remuda_scheduler::broadcast::BroadcastEvent;
use remuda_scheduler::{OutputRelay, Relay, RelayEvent, Scheme, TaskConfig, TaskEffect, TaskEvent, relay};

use super::{Happening, KEY, Options, World};
use crate::checker::{Verdict, Violation};
use crate::engine::Life;
use crate::network::{Channel, Peer};
use crate::parameters::Parameters;
use crate::part::{Part, PartName};
use crate::store::StoreCore;
use crate::tamper::{BroadcastCore, HeartCore, HubCore, TaskCore};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The threads of one controller.
pub(super) struct Threads {
    pub(super) hub: Part<HubCore>,
    pub(super) store: Part<StoreCore>,
    pub(super) heart: Part<HeartCore>,
    pub(super) task: Part<TaskCore>,
    pub(super) mux: Part<Relay>,
    pub(super) control: Part<Relay>,
    pub(super) output: Part<OutputRelay>,
    pub(super) broadcast: Part<BroadcastCore>,
}

impl Threads {
    /// Those of the controller that comes after so many others.
    pub(super) fn new(parameters: &Parameters, options: &Options, now: Instant, life: u32) -> Self {
        let (packer, tampering) = (parameters.packer, options.tampering);
        // The number stands for the process id: another life does not make the same messages again.
        let session = |name: &str| {
            Session::new(SessionId::from(format!("controller-{name}")), "sim", Key::new(KEY), packer, life + 1)
        };
        let heart_config = heart::Config { period: parameters.heart_period, max_misses: parameters.max_misses };
        let hub_config = hub::Config {
            registration_timeout: parameters.registration_timeout,
            controller: ControllerInfo { version: "sim".to_owned(), ..ControllerInfo::default() },
            recovery_timeout: parameters.reattach * 2,
            ..hub::Config::with_heart_period(parameters.heart_period)
        };
        let store: Box<dyn TaskStore> = if parameters.records {
            // Nothing is dropped, so that all that was done can be looked up in the end.
            Box::new(MemoryStore::new(Limits { records: 10_000_000, size_bytes: 1 << 40, ..Limits::default() }))
        } else {
            Box::new(NoStore::default())
        };
        let (durability, reattach) = (parameters.durability, parameters.reattach);
        let task_config = TaskConfig {
            scheme: parameters.scheme,
            hwm: parameters.hwm,
            grace: parameters.grace,
            reattach,
            max_pending_tasks: parameters.max_pending_tasks,
            durability,
            seed: parameters.seed,
            // Then the order depends on nothing but priorities and arrival.
            priority_age: Duration::ZERO,
            ..TaskConfig::default()
        };
        let relay =
            |channel, name| Relay::new(channel, session(name)).with_durability(durability).with_reattach(reattach);
        Self {
            hub: Part::new(HubCore::new(hub_config, session("hub"), tampering)),
            store: Part::new(StoreCore::new(store)),
            heart: Part::new(HeartCore::new(heart_config, now, tampering)),
            task: Part::new(TaskCore::new(task_config, session("task"), tampering)),
            mux: Part::new(relay(relay::Channel::Mux, "mux")),
            control: Part::new(relay(relay::Channel::Control, "control")),
            output: Part::new(OutputRelay::new(session("iopub"))),
            broadcast: Part::new(BroadcastCore::new(session("broadcast"), tampering, durability, reattach)),
        }
    }
}

impl World {
    /// Takes note of what the hub was told, and plans when it is on disk.
    pub(super) fn note_reports(&mut self) {
        let told = std::mem::take(&mut self.hub.machine.told);
        if self.parameters.durability == Durability::None {
            return;
        }
        for seen in told {
            self.journal.write(self.clock.instant(), &seen);
        }
        // With `sync`, the store says when.
        if self.parameters.durability == Durability::Async && self.journal.is_behind() && !self.commits {
            self.commits = true;
            let after = self.dice.threads.duration(Duration::from_micros(100), ms(100));
            self.clock.after(after, Happening::Commit { life: self.life });
        }
    }

    /// What the hub was told is on disk.
    pub(super) fn commit(&mut self, life: u32) {
        if life == self.life {
            self.commits = false;
            self.journal.commit(self.retries());
        }
    }

    /// The store says that all up to this ticket is on disk.
    pub(super) fn committed(&mut self, queue: Queue, ticket: Ticket) {
        self.journal.commit_to(queue, ticket, self.retries());
        match queue {
            Queue::Task => self.task.mail(TaskEvent::Committed { ticket }),
            Queue::Mux => self.mux.mail(RelayEvent::Committed { ticket }),
            Queue::Broadcast => self.broadcast.mail(BroadcastEvent::Committed { ticket }),
        }
        [PartName::Task, PartName::Mux, PartName::Broadcast].into_iter().for_each(|part| self.plan(part));
    }

    /// How often a new request may be tried again.
    fn retries(&self) -> impl Fn(&Body) -> u32 + use<> {
        let (packer, pure) = (self.parameters.packer, self.parameters.scheme == Scheme::Pure);
        move |body| if pure { 0 } else { TaskMetadata::read(packer, body).map_or(0, |metadata| metadata.retries()) }
    }

    /// With durability `sync`, nothing is seen that is not on disk.
    pub(super) fn check_durable(&self, effect: &TaskEffect) -> Verdict {
        if self.parameters.durability != Durability::Sync {
            return Ok(());
        }
        let packer = self.parameters.packer;
        match effect {
            TaskEffect::ToEngine { engine, body, .. } => {
                let Ok(Envelope { msg_id, .. }) = Envelope::read(packer, body) else { return Ok(()) };
                if self.book.client_of(&msg_id).is_some() && !self.journal.has(&msg_id) {
                    return Err(Violation::of("durable", &msg_id, format!("`{engine}` gets it before it is on disk")));
                }
            }
            TaskEffect::ToClient { client, body, .. } => {
                let Ok(Some(msg_id)) = parent_msg_id(packer, body) else { return Ok(()) };
                if self.book.knows(&msg_id) && !self.journal.has_reply(&msg_id) {
                    let reason = format!("client {client} gets its reply before that is on disk");
                    return Err(Violation::of("durable", &msg_id, reason));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The controller is killed; another one is there after a while. Returns whether it has records to rely on.
    pub(super) fn controller_dies(&mut self) -> bool {
        let feature = match self.parameters.durability {
            Durability::None => return false,
            Durability::Async => "controller died, durability async",
            Durability::Sync => "controller died, durability sync",
        };
        self.coverage.add(feature, 1);
        let now = self.clock.instant();
        let down = self.dice.faults.duration(ms(1), ms(2000));
        let back_at = now + down;
        self.log.all(now, format_args!("the controller dies, and another one starts in {down:?}"));
        self.journal.lose();
        (self.life, self.commits) = (self.life + 1, false);
        // Its records are in memory here: what was done before is not to be looked up.
        self.purged = true;
        let engines: Vec<EngineUuid> = self.saved.engines.values().cloned().collect();
        let recovery = |queue| Recovery {
            tasks: self.journal.open(back_at, queue),
            finished: self.journal.finished(queue),
            engines: engines.clone(),
            replies: Vec::new(),
        };
        let [task, mux, broadcast] = [Queue::Task, Queue::Mux, Queue::Broadcast].map(recovery);
        for recovered in &task.tasks {
            self.log.about(
                now,
                &recovered.msg_id,
                format_args!(
                    "on record: {:?}, tried by {:?}, {} retries left",
                    recovered.engine, recovered.tried, recovered.retries
                ),
            );
        }
        let all = [&task, &mux, &broadcast].into_iter().flat_map(|recovery| recovery.tasks.clone()).collect();
        self.book.die(self.clock.now(), &self.journal, &task);
        self.broadcasts.rest();
        self.sent.controller_died(&self.journal, self.parameters.durability == Durability::Async);
        self.replace_threads(back_at);
        self.task.mail(TaskEvent::Recover(Box::new(task)));
        self.mux.mail(RelayEvent::Recover(Box::new(mux)));
        self.broadcast.mail(BroadcastEvent::Recover(Box::new(broadcast)));
        self.hub.mail(hub::Event::Recover(all));
        self.hub.mail(hub::Event::Restore(self.saved.clone()));
        self.network.controller_dies(now, back_at);
        self.engines_reconnect(back_at);
        PartName::ALL.into_iter().for_each(|part| self.plan(part));
        true
    }

    /// The threads of another controller, which begin to run then.
    fn replace_threads(&mut self, back_at: Instant) {
        let Threads { hub, store, heart, task, mux, control, output, broadcast } =
            Threads::new(&self.parameters, &self.options, back_at, self.life);
        (self.hub, self.store, self.heart, self.task, self.mux) = (hub, store, heart, task, mux);
        (self.control, self.output, self.broadcast) = (control, output, broadcast);
        self.registered.clear();
        self.stop_controller(back_at.since(self.clock.instant()));
        self.runs_since = back_at;
    }

    /// Engines can be heard again once their hearts are connected.
    fn engines_reconnect(&mut self, back_at: Instant) {
        // The hub gives engines no more than the time of a registration, from its own start.
        let last = back_at + self.parameters.registration_timeout.saturating_sub(self.time_to_register());
        for (number, engine) in (0..).zip(&mut self.engines) {
            if engine.life == Life::Gone {
                continue;
            }
            let up_at =
                Channel::OF_HEARTS.iter().filter_map(|channel| self.network.up_at(Peer::Engine(number), *channel));
            let up_at = up_at.max();
            engine.audible_since = engine.audible_since.and(up_at);
            // One that stands still now may be too late.
            let is_late = engine.life == Life::Frozen || up_at > Some(last);
            engine.stood_still |= is_late;
        }
    }
}
