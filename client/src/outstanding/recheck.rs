//! What became of the tasks of a controller that is gone.
//!
//! A reply that was on its way when the controller died is lost, though its task is on record: a controller that takes over
//! believes that it arrived. So when another controller answers in its place, or one answers again that could not be reached, it is
//! asked for every task that has no reply, and for the replies of those that are done.

use std::collections::VecDeque;

use bytes::Bytes;
use remuda_proto::message::content::{ControllerInfo, ResultRequest, ResultStatus};
use remuda_proto::{Body, Map, MsgId, MsgType, Now, PackError, Packer, RemoteError, Session, Status};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Channel, Effect, Outcome, Outstanding, REFRESH_EVERY};

/// Most tasks that one question is about.
pub(super) const ASK_AT_ONCE: usize = 1000;
/// Most replies that are awaited at a time.
const FETCH_AT_ONCE: usize = 16;

/// What a question of the client's own is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// The list of engines.
    Engines,
    /// How these tasks stand.
    Status(Vec<MsgId>),
    /// The reply of this task.
    Result(MsgId),
    /// How these tasks stand, behind all that was sent on this channel before.
    Behind {
        /// The channel.
        channel: Channel,
        /// The tasks, all of that channel.
        tasks: Vec<MsgId>,
    },
}

/// Which tasks are to be asked for.
#[derive(Debug, Default)]
pub(super) struct Recheck {
    /// The last controller that said who it is.
    controller: Option<ControllerInfo>,
    /// How these stand is not known.
    unsure: VecDeque<MsgId>,
    /// These are done; their replies are to be fetched.
    done: VecDeque<MsgId>,
}

impl Recheck {
    /// Notes who answers. Returns the controller before, if that was another one.
    fn answers(&mut self, controller: ControllerInfo) -> Option<ControllerInfo> {
        let this = (controller.pid, controller.started.clone());
        let before = self.controller.replace(controller);
        before.filter(|before| (before.pid, &before.started) != (this.0, &this.1))
    }

    /// Forgets all that is to be asked.
    pub(super) fn clear(&mut self) {
        self.unsure.clear();
        self.done.clear();
    }
}

#[derive(Deserialize)]
struct Welcome {
    #[serde(default)]
    remuda: Option<ControllerInfo>,
}

/// What is read of the record of a task that is done.
#[derive(Deserialize)]
struct Done {
    header: Value,
    result_header: Value,
    result_metadata: Value,
    result_content: Value,
}

impl Outstanding {
    /// Looks who says so, when a list of engines comes that `question` asked for. What is asked because of that is sent.
    pub(super) fn recheck(&mut self, now: Now, question: &MsgId, body: &Body, out: &mut Vec<Effect>) {
        let welcome = self.session.packer().unpack::<Welcome>(body.content());
        let controller = welcome.ok().and_then(|welcome| welcome.remuda);
        // To a question of the application it need not say who it is.
        if controller.is_some() || self.own.contains_key(question) {
            self.resend.answers(controller.as_ref());
        }
        let before = controller.and_then(|controller| self.recheck.answers(controller));
        let is_other = before.is_some();
        self.resend.replaced(before.as_ref());
        // A controller drops what is for a client that it cannot reach for a minute.
        if is_other || !self.answering {
            // A stock controller has no record of broadcasts, and refuses a question about a task that it does not know.
            let is_recorded = |channel| channel != Channel::Broadcast || self.recheck.controller.is_some();
            let tasks = self.requests.iter().filter(|(_, request)| request.channel.has_tasks());
            let tasks = tasks.filter(|(_, request)| is_recorded(request.channel));
            self.recheck.unsure = tasks.map(|(msg_id, _)| msg_id.clone()).collect();
            self.recheck.done.clear();
            self.doubt();
        }
        self.ask_on(now, out);
        self.ask_behind_again(now, out);
    }

    /// These tasks are done: their replies are fetched.
    pub(super) fn fetch(&mut self, now: Now, done: Vec<MsgId>, out: &mut Vec<Effect>) {
        self.recheck.done.extend(done);
        self.ask_on(now, out);
    }

    /// Asks what there is to ask, as much of it as may be asked now.
    fn ask_on(&mut self, now: Now, out: &mut Vec<Effect>) {
        let requests = &self.requests;
        let fetching = self.own.values().filter(|own| matches!(own, Own::Result(_))).count();
        let mut asks = Vec::new();
        self.recheck.done.retain(|msg_id| requests.contains_key(msg_id));
        let some = self.recheck.done.len().min(FETCH_AT_ONCE.saturating_sub(fetching));
        asks.extend(self.recheck.done.drain(..some).map(Own::Result));
        if !self.own.values().any(|own| matches!(own, Own::Status(_))) {
            self.recheck.unsure.retain(|msg_id| requests.contains_key(msg_id));
            let some = self.recheck.unsure.len().min(ASK_AT_ONCE);
            let batch: Vec<_> = self.recheck.unsure.drain(..some).collect();
            asks.extend((!batch.is_empty()).then_some(Own::Status(batch)));
        }
        for own in asks {
            let (msg_ids, status_only) = match &own {
                Own::Result(msg_id) => (vec![msg_id.clone()], false),
                Own::Status(msg_ids) => (msg_ids.clone(), true),
                Own::Engines | Own::Behind { .. } => continue,
            };
            let content = json!(ResultRequest { msg_ids, status_only, remuda: Some(Map::default()) });
            self.ask_own(now, own, MsgType::ResultRequest, &content, out);
        }
    }

    /// Asks something that nobody outside hears of.
    pub(super) fn ask_own(&mut self, now: Now, own: Own, msg_type: MsgType, content: &Value, out: &mut Vec<Effect>) {
        let msg_id = self.session.header(now.date, msg_type.clone()).msg_id;
        self.own.insert(msg_id.clone(), own);
        self.query(now, msg_id, msg_type, content, Some(REFRESH_EVERY), out);
    }

    /// How some tasks stand has been told, or has not.
    pub(super) fn status_told(&mut self, now: Now, asked: Vec<MsgId>, outcome: &Outcome, out: &mut Vec<Effect>) {
        match outcome {
            Outcome::Reply(reply) if reply.status == Status::Ok => {
                let told = self.session.packer().unpack::<ResultStatus>(reply.body.content()).unwrap_or_default();
                // One that is pending gets its reply from the controller; one that is unknown may still be on its way there.
                self.fetch(now, told.completed, out);
                self.ask_behind_about(now, told.unknown, out);
            }
            // An older controller knows no such question.
            Outcome::Reply(_) if !self.resend.can_ask() => {}
            // Again, when the next list of engines comes.
            _ => self.recheck.unsure.extend(asked),
        }
    }

    /// The reply of a task came by this way, or did not.
    pub(super) fn result_told(&mut self, now: Now, task: MsgId, outcome: &Outcome, out: &mut Vec<Effect>) {
        match outcome {
            Outcome::Reply(reply) if reply.status == Status::Ok => {
                let channel = self.requests.get(&task).map(|request| request.channel);
                let body = reply_on_record(&self.session, &task, &reply.body);
                if let (Some(channel), Ok(body)) = (channel, body)
                    && let Err(refusal) = self.reply(now, channel, &body, out)
                {
                    out.push(Effect::Refused { channel, refusal });
                }
                self.ask_on(now, out);
            }
            Outcome::Reply(reply) => {
                let error = self.session.packer().unpack::<RemoteError>(reply.body.content());
                let error = error.map_or_else(|error| error.to_string(), |error| error.to_string());
                let reason =
                    format!("it was lost with the controller, and cannot be had of the one that took over: {error}");
                self.resolve(task, Outcome::Unreadable { reason }, now, out);
                self.ask_on(now, out);
            }
            _ => self.recheck.done.push_back(task),
        }
    }
}

/// The reply of a task as it would have come, made of its record.
pub(crate) fn reply_on_record(session: &Session, task: &MsgId, answer: &Body) -> Result<Body, PackError> {
    let packer: Packer = session.packer();
    let mut results: Map<String, Value> = packer.unpack(answer.content())?;
    let done = results.swap_remove(task.as_str()).unwrap_or_default();
    let Done { header, result_header, result_metadata, result_content } =
        serde_json::from_value(done).map_err(PackError::from)?;
    let parts = [result_header, header, result_metadata, result_content].map(|part| packer.pack(&part));
    let [header, parent, metadata, content] = parts;
    let parts = [&*header?, &*parent?, &*metadata?, &*content?];
    let buffers: Vec<Bytes> = (0..).map_while(|index| answer.buffer(index)).collect();
    Ok(session.sign_parts(parts, buffers))
}
