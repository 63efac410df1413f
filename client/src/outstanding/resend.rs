//! Tasks that were lost on their way to a controller that died.
//!
//! What the controller that took over does not know may be lost, or on its way to it. To find out it is asked where the tasks
//! went, on the same connection and behind them: it reads in order, so that by then it has read all that can still come. The
//! scheduler there hands the question to the hub behind what it said of the tasks. What the hub does not know, nobody
//! has. It is sent again, in the same bytes, so that a controller which has it all the same takes no notice.
//!
//! Which connection the tasks went by is not told: it may have been the dead one even after the hub's answered again. So from the
//! moment on that tasks are in doubt until a question behind them is answered, those that are submitted are in doubt as well.

mod kept;

use std::collections::VecDeque;
use std::time::Duration;

use remuda_proto::message::content::{ControllerInfo, ResultRequest, ResultStatus};
use remuda_proto::monitor::Durability;
use remuda_proto::{Frames, Map, MsgId, MsgType, Now, Set, Status};
use serde_json::json;

use self::kept::Kept;
use super::recheck::{ASK_AT_ONCE, Own};
use super::{Channel, Effect, Lost, Outcome, Outstanding, Parts, REFRESH_EVERY, Request};

/// Most bytes of tasks without a reply that are kept to be sent again: of the newest.
pub const RESEND_LIMIT_BYTES: usize = 256 << 20;
/// Longest time after which a question counts as lost itself. A controller that reads no tasks for a while does not read it either.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// What is known of the tasks of one channel.
#[derive(Debug)]
struct Lane {
    /// These are in doubt, and to be asked about.
    doubted: VecDeque<MsgId>,
    /// Whether those that are submitted arrive: a question was answered since the last time that all were in doubt.
    is_sound: bool,
    /// Whether to ask nothing until the controller answers elsewhere, since a question was not answered.
    rests: bool,
    /// How long the next question is waited for.
    pause: Duration,
}

impl Default for Lane {
    fn default() -> Self {
        Self { doubted: VecDeque::new(), is_sound: true, rests: false, pause: REFRESH_EVERY }
    }
}

/// What may have to be sent again.
#[derive(Debug)]
pub(super) struct Resend {
    kept: Kept,
    task: Lane,
    mux: Lane,
    /// Whether the controller that answers can be asked behind the tasks.
    can_ask: bool,
    /// The least that a controller promised which had another one after it.
    promised: Durability,
}

impl Resend {
    pub(super) fn new(limit_bytes: usize) -> Self {
        let (task, mux) = (Lane::default(), Lane::default());
        Self { kept: Kept::new(limit_bytes), task, mux, can_ask: false, promised: Durability::Sync }
    }

    /// This controller answers; `None`: one that does not say who it is.
    pub(super) fn answers(&mut self, controller: Option<&ControllerInfo>) {
        self.can_ask = controller.and_then(durability).is_some();
    }

    /// This controller had another one after it, if one had.
    pub(super) fn replaced(&mut self, before: Option<&ControllerInfo>) {
        if let Some(before) = before {
            self.promised = self.promised.min(durability(before).unwrap_or_default());
        }
    }

    /// Whether the controller can be asked behind the tasks.
    pub(super) fn can_ask(&self) -> bool {
        self.can_ask
    }

    /// A task is not sent again.
    pub(super) fn forget(&mut self, task: &MsgId) {
        self.kept.forget(task);
    }

    /// Forgets all that is to be asked.
    pub(super) fn clear(&mut self) {
        (self.task, self.mux) = (Lane::default(), Lane::default());
    }

    fn lane(&mut self, channel: Channel) -> Option<&mut Lane> {
        match channel {
            Channel::Task => Some(&mut self.task),
            Channel::Mux => Some(&mut self.mux),
            _ => None,
        }
    }

    /// Whether a task may run again that this controller's predecessor may have acted on without a record of it. One that the
    /// task scheduler was to place may, as it is tried again in any case where it was lost with a controller; unless nothing of
    /// that was promised.
    fn may_repeat(&self, channel: Channel) -> bool {
        match self.promised {
            Durability::Sync => true,
            Durability::Async => channel == Channel::Task,
            Durability::None => false,
        }
    }
}

fn durability(controller: &ControllerInfo) -> Option<Durability> {
    Durability::from_name(&controller.durability)
}

impl Outstanding {
    /// A request was sent for the first time.
    pub(super) fn sent(&mut self, now: Now, msg_id: MsgId, channel: Channel, frames: Frames, out: &mut Vec<Effect>) {
        if !self.resend.can_ask {
            return;
        }
        let Some(lane) = self.resend.lane(channel) else { return };
        let is_sound = lane.is_sound;
        if !is_sound {
            lane.doubted.push_back(msg_id.clone());
        }
        self.resend.kept.keep(msg_id, frames);
        if !is_sound {
            self.ask_behind(now, channel, out);
        }
    }

    /// Whatever was sent may be lost.
    pub(super) fn doubt(&mut self) {
        let questions = self.own.iter().filter(|(_, own)| matches!(own, Own::Behind { .. }));
        for msg_id in questions.map(|(msg_id, _)| msg_id.clone()).collect::<Vec<_>>() {
            // Its answer would tell nothing of what comes to pass now.
            self.own.swap_remove(&msg_id);
            let expires = self.requests.swap_remove(&msg_id).and_then(|request| request.expires);
            expires.into_iter().for_each(|at| _ = self.timers.remove(&(at, msg_id.clone())));
        }
        self.resend.clear();
        self.resend.task.is_sound = false;
        self.resend.mux.is_sound = false;
    }

    /// The controller answers: questions that it did not answer are asked again.
    pub(super) fn ask_behind_again(&mut self, now: Now, out: &mut Vec<Effect>) {
        for channel in [Channel::Task, Channel::Mux] {
            self.resend.lane(channel).into_iter().for_each(|lane| lane.rests = false);
            self.ask_behind(now, channel, out);
        }
    }

    /// Asks about these tasks, of which the hub has not heard.
    pub(super) fn ask_behind_about(&mut self, now: Now, unknown: Vec<MsgId>, out: &mut Vec<Effect>) {
        if !self.resend.can_ask {
            return;
        }
        for msg_id in unknown {
            let Some(channel) = self.requests.get(&msg_id).map(|request| request.channel) else { continue };
            // Of a broadcast nobody can be asked behind it: it may still be on its way.
            self.resend.lane(channel).into_iter().for_each(|lane| lane.doubted.push_back(msg_id.clone()));
        }
        for channel in [Channel::Task, Channel::Mux] {
            self.ask_behind(now, channel, out);
        }
    }

    /// Asks about tasks of a channel that are in doubt, unless that is being done.
    fn ask_behind(&mut self, now: Now, channel: Channel, out: &mut Vec<Effect>) {
        if !self.resend.can_ask || self.is_asking_behind(channel) {
            return;
        }
        let Some(lane) = self.resend.lane(channel).filter(|lane| !lane.rests) else { return };
        let (mut doubted, pause) = (std::mem::take(&mut lane.doubted), lane.pause);
        doubted.retain(|msg_id| self.requests.contains_key(msg_id));
        let rest = doubted.split_off(doubted.len().min(ASK_AT_ONCE));
        if let Some(lane) = self.resend.lane(channel) {
            lane.doubted = rest;
        }
        if doubted.is_empty() {
            return;
        }
        let tasks: Vec<_> = doubted.into();
        let content = json!(ResultRequest { msg_ids: tasks.clone(), status_only: true, remuda: Some(Map::default()) });
        let (msg_type, metadata) = (MsgType::ResultRequest, self.session.packer().empty_map());
        let msg_id = self.session.header(now.date, msg_type.clone()).msg_id;
        let content = self.pack(&content);
        let frames = self.sign(now, &msg_id, None, &Parts { msg_type, metadata, content: &content, buffers: &[] });
        let expires = now.instant + pause;
        self.timers.insert((expires, msg_id.clone()));
        // The hub answers on its own socket.
        let request = Request {
            channel: Channel::Query,
            engine: None,
            broadcast: None,
            lists_engines: false,
            sent: now.instant,
            expires: Some(expires),
        };
        self.requests.insert(msg_id.clone(), request);
        self.own.insert(msg_id, Own::Behind { channel, tasks });
        out.push(Effect::Send { channel, frames });
    }

    fn is_asking_behind(&self, channel: Channel) -> bool {
        self.own.values().any(|own| matches!(own, Own::Behind { channel: of, .. } if *of == channel))
    }

    /// How tasks stand was told behind them, or was not.
    pub(super) fn behind_told(
        &mut self,
        now: Now,
        channel: Channel,
        asked: Vec<MsgId>,
        outcome: &Outcome,
        out: &mut Vec<Effect>,
    ) {
        let told = match outcome {
            Outcome::Reply(reply) if reply.status == Status::Ok => {
                self.session.packer().unpack::<ResultStatus>(reply.body.content()).ok()
            }
            _ => None,
        };
        let Some(lane) = self.resend.lane(channel) else { return };
        let Some(ResultStatus { completed, mut unknown, .. }) = told else {
            asked.into_iter().rev().for_each(|msg_id| lane.doubted.push_front(msg_id));
            (lane.rests, lane.pause) = (true, (lane.pause * 2).min(LONGEST_PAUSE));
            return;
        };
        (lane.is_sound, lane.pause) = (true, REFRESH_EVERY);
        let asked: Set<MsgId> = asked.into_iter().collect();
        unknown.retain(|msg_id| asked.contains(msg_id));
        // In the order in which they were sent at first.
        unknown.sort_by_cached_key(|msg_id| self.resend.kept.get(msg_id).map(|(number, _)| *number));
        for msg_id in unknown {
            self.lost(now, channel, msg_id, out);
        }
        self.fetch(now, completed, out);
        self.ask_behind(now, channel, out);
    }

    /// A task was lost on its way.
    fn lost(&mut self, now: Now, channel: Channel, msg_id: MsgId, out: &mut Vec<Effect>) {
        if !self.requests.contains_key(&msg_id) {
            return;
        }
        let lost = match self.resend.kept.get(&msg_id) {
            _ if !self.resend.may_repeat(channel) => Lost::MayHaveRun,
            None => Lost::NotKept,
            Some((_, frames)) => return out.push(Effect::Send { channel, frames: frames.clone() }),
        };
        self.resolve(msg_id, Outcome::Lost(lost), now, out);
    }

    pub(super) fn check_resend(&self) {
        self.resend.kept.check();
        for task in self.resend.kept.tasks() {
            assert!(self.requests.contains_key(task), "`{task}` has ended, and would be sent again");
        }
        for channel in [Channel::Task, Channel::Mux] {
            let asking =
                self.own.values().filter(|own| matches!(own, Own::Behind { channel: of, .. } if *of == channel));
            assert!(asking.count() <= 1, "{channel:?} is asked twice at a time");
        }
    }
}
