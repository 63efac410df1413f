//! The end of a run: faults stop, and everything must settle.

use std::time::Duration;

use remuda_proto::message::content::DrainRequest;
use remuda_proto::{Machine, MsgId, MsgType};
use serde_json::{Value, json};

use super::{Happening, Phase, World};
use crate::checker::{Verdict, Violation, hub};
use crate::engine::Life;
use crate::parameters::Kind;
use crate::part::PartName;

/// How often to look whether all has settled.
const LOOK: Duration = Duration::from_millis(250);

/// What is added to all that can be counted before a run is said not to settle.
const PATIENCE: Duration = Duration::from_secs(60);

impl World {
    /// Faults stop. Frozen engines go on, and fresh ones come that can run whatever there is to run.
    pub(super) fn calm(&mut self) {
        let parameters = &self.parameters;
        let known =
            parameters.detection() * 2 + parameters.grace + parameters.registration_timeout + parameters.reattach;
        // A task may be as long as four times the mean, and all may have to wait for the same engine.
        let waiting = u32::try_from(self.sent.waiting() + self.book.accepted()).unwrap_or(u32::MAX);
        let by = self.clock.instant() + known + parameters.task_time * 4 * waiting + PATIENCE;
        self.phase = Phase::Settling { by, accepted: self.book.accepted() };
        self.log.note(self.clock.instant(), "all is calm");
        self.network.calm();
        self.release_threads();
        for client in 0..self.parameters.clients {
            self.clock.after(Duration::ZERO, Happening::Reads(client));
        }
        for number in self.engines_that(|engine| engine.life != Life::Gone) {
            self.engines[number as usize].slowness = 1;
            self.thaw(number);
        }
        for kind in [Kind::Stock, Kind::Native, Kind::Stock, Kind::Native] {
            self.start_engine(kind, None);
        }
        self.clock.after(LOOK, Happening::Look);
    }

    /// Looks whether all has settled; when it has, asks the hub what it knows.
    pub(super) fn look(&mut self) -> Verdict {
        let now = self.clock.instant();
        match self.phase {
            Phase::Busy | Phase::Settled => return Ok(()),
            Phase::Settling { by, accepted } => {
                // A scheduler that stood still has more to read: each of those tasks takes its time, too.
                let more = u32::try_from(self.book.accepted() - accepted).unwrap_or(u32::MAX);
                let by = by + self.parameters.task_time * 4 * more;
                self.phase = Phase::Settling { by, accepted: accepted + more as usize };
                // Some tasks are for engines that get none at the moment. One that is told to end does end.
                let draining: Vec<_> = self.hub.machine.inner.draining().collect();
                for id in draining {
                    let request = DrainRequest { targets: vec![id], drain: false, shutdown: false };
                    self.ask(0, MsgType::DrainRequest, &json!(request));
                }
                let live = self.book.live().next();
                let live = live.or_else(|| self.broadcasts.open().next());
                let heard = now.since(self.runs_since) > self.time_to_register();
                if heard
                    && live.is_none()
                    && self.sent.waiting() == 0
                    && self.hub.machine.inner.waiting_and_running() == (0, 0)
                {
                    self.phase = Phase::Asking { by: now + PATIENCE };
                    self.ask_hub();
                } else if now >= by {
                    return Err(self.unsettled());
                }
            }
            Phase::Asking { by } => {
                if now >= by {
                    return Err(self.unsettled());
                }
            }
        }
        self.clock.after(LOOK, Happening::Look);
        Ok(())
    }

    fn unsettled(&self) -> Violation {
        let mut msg_ids: Vec<MsgId> = self.book.live().cloned().collect();
        msg_ids.extend(self.broadcasts.open().cloned());
        msg_ids.extend(self.sent.unanswered());
        msg_ids.sort_unstable();
        msg_ids.dedup();
        let (waiting, running) = self.hub.machine.inner.waiting_and_running();
        let reason = format!(
            "{} messages have no reply; the hub says {waiting} wait and {running} run; the scheduler says {:?}",
            msg_ids.len(),
            self.task.machine.inner.counts()
        );
        Violation { checker: "settled", reason, msg_ids }
    }

    fn ask_hub(&mut self) {
        let queues = self.ask(0, MsgType::QueueRequest, &json!({"targets": null, "verbose": false, "remuda": {}}));
        self.questions = vec![queues];
        let asked = self.book.ended().map(|(msg_id, _)| msg_id).chain(self.sent.answered_by_engines());
        let mut asked: Vec<MsgId> = asked.cloned().collect();
        let one_in = asked.len().div_ceil(self.options.compared.max(1)).max(1);
        asked = asked.into_iter().step_by(one_in).collect();
        asked.sort_unstable();
        if !asked.is_empty() && !self.purged && self.parameters.records {
            let results = self.ask(0, MsgType::ResultRequest, &json!({"msg_ids": asked, "status_only": false}));
            self.questions.push(results);
            self.compared = asked;
        }
    }

    /// The hub has answered; perhaps the last question.
    pub(super) fn check_answers(&mut self) -> Verdict {
        if self.questions.iter().any(|question| self.sent.reply(question).is_none()) {
            return Ok(());
        }
        let packer = self.parameters.packer;
        let bodies: Vec<_> = self.questions.iter().filter_map(|question| self.sent.reply(question)).collect();
        let contents: Vec<Value> =
            bodies.iter().map(|body| packer.unpack(body.content()).unwrap_or_default()).collect();
        if self.life == 0 {
            hub::check_queues(&contents[0], &self.book, self.direct == 0)?;
        }
        if let (Some(results), Some(body)) = (contents.get(1), bodies.get(1)) {
            hub::check_results(packer, &self.compared, results, body, &self.book, &self.sent)?;
        }
        self.sent.check_settled()?;
        if !self.task.machine.inner.is_idle() {
            return Err(Violation::new(
                "settled",
                "every task is done, and the scheduler still keeps something of one",
            ));
        }
        if self.broadcast.machine.outstanding() != 0 {
            return Err(Violation::new("settled", "every broadcast is answered, and one is still kept"));
        }
        self.check_registered()?;
        PartName::ALL.into_iter().for_each(|part| self.check_machine(part));
        self.phase = Phase::Settled;
        Ok(())
    }

    /// How long an engine that can be heard by a controller that runs needs to be registered, at most.
    pub(super) fn time_to_register(&self) -> Duration {
        self.parameters.heart_period * 5 + self.parameters.round_trip() * 4
    }

    /// Every engine that could always be heard since it asked to be registered is registered, if there was time enough.
    fn check_registered(&self) -> Verdict {
        let needed = self.time_to_register();
        if needed > self.parameters.registration_timeout {
            return Ok(());
        }
        for (number, engine) in (0..).zip(&self.engines) {
            let since = engine.audible_since.map(|since| since.max(self.runs_since));
            let heard = since.map_or(Duration::ZERO, |since| self.clock.instant().since(since));
            let is_last = self.number_of(&engine.uuid) == Some(number);
            let is_due = engine.id.is_some() && is_last && !engine.stood_still && heard > needed;
            if is_due && !self.registered.contains(&engine.uuid) && !self.left.contains(&engine.uuid) {
                let reason =
                    format!("`{}` asked to be registered, could be heard for {heard:?}, and is not", engine.uuid);
                return Err(Violation::new("registration", reason));
            }
        }
        Ok(())
    }

    fn check_machine(&self, part: PartName) {
        match part {
            PartName::Hub => self.hub.machine.check(),
            PartName::Heart => self.heart.machine.check(),
            PartName::Task => self.task.machine.check(),
            PartName::Mux => self.mux.machine.check(),
            PartName::Control => self.control.machine.check(),
            PartName::Output => self.output.machine.check(),
            PartName::Broadcast => self.broadcast.machine.check(),
            PartName::Store => self.store.machine.check(),
        }
    }
}
