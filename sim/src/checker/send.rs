//! What must be true when a task is sent to an engine.

use remuda_proto::message::native::Runs;
use remuda_proto::{Body, EngineUuid, Envelope, Identity, MsgId};
use serde_json::Value;

use super::Violation;
use super::book::{Place, Task, TaskBook};
use super::follow::Places;

impl TaskBook {
    /// Whether a request is that which the client sent, but for the number of the attempt, and a mark that says nothing.
    fn tells_attempt(&self, original: &Body, body: &Body, attempt: usize) -> bool {
        let packer = self.rules.session.packer();
        let metadata = |body: &Body| packer.unpack::<serde_json::Map<String, Value>>(body.metadata()).ok();
        let (Some(mut before), Some(mut after)) = (metadata(original), metadata(body)) else { return false };
        let Some(Value::Object(mut extras)) = after.remove("remuda") else { return false };
        let told = extras.remove("attempt").and_then(|told| told.as_u64()) == Some(attempt as u64);
        extras.remove("sent_again");
        let asked = before.remove("remuda").unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        let same = asked == Value::Object(extras) && before == after && original.content() == body.content();
        let buffers = |body: &Body| (0..body.buffer_count()).map(|at| body.buffer(at)).collect::<Vec<_>>();
        let signed = self.rules.session.key().verify(body).is_ok();
        told && same && signed && original.header() == body.header() && buffers(original) == buffers(body)
    }

    /// The task and the engine, if all is well.
    pub(super) fn check_send(
        &self,
        engine: &Identity,
        client: &Identity,
        body: &Body,
    ) -> Result<(MsgId, EngineUuid), Violation> {
        let packer = self.rules.session.packer();
        let Ok(Envelope { msg_id, .. }) = Envelope::read(packer, body) else {
            return Err(Violation::new("send", format!("`{engine}` is sent what cannot be read")));
        };
        let wrong = |checker, reason: String| Err(Violation::of(checker, &msg_id, reason));
        let Some(task) = self.tasks.get(&msg_id) else {
            return wrong("send", format!("`{engine}` is sent a task that nobody submitted"));
        };
        let attempt = task.tried.len() + 1;
        let is_original = task.body == *body;
        let is_told = attempt > 1 && task.need.runs != Runs::Python;
        if is_original == is_told || (is_told && !self.tells_attempt(&task.body, body, attempt)) {
            return wrong("send", format!("`{engine}` is sent other bytes than the client sent"));
        }
        // What the hub repeats is in the name of nobody who could be sent anything.
        let is_client = |name: &Identity| name.as_bytes().first().is_none_or(|first| *first == 0);
        let is_right = task.client.as_ref().map_or_else(|| !is_client(client), |submitted| submitted == client);
        if !is_right {
            return wrong("send", format!("`{engine}` is told of client {client}, but it came from {:?}", task.client));
        }
        if let Some(ticket) = self.unrecorded.get(&msg_id) {
            return wrong("durable", format!("`{engine}` is sent it before {ticket:?}, by which it is on disk"));
        }
        if self.arrived.as_ref().is_some_and(|arrived| arrived.msg_id == msg_id && arrived.is_final) {
            let failures = format!("{} failures of {} retries", task.failures, task.retries());
            return wrong("retries", format!("`{engine}` is sent what just ended, after {failures}"));
        }
        match &task.place {
            Place::Queued { .. } => {}
            Place::Assigned { engine: has } | Place::Stranded { engine: has, .. } => {
                return wrong("one engine", format!("`{engine}` is sent what `{has}` still has"));
            }
            Place::Done => return wrong("one engine", format!("`{engine}` is sent what had its final reply")),
        }
        let Some((uuid, registered)) = engine.to_engine().and_then(|uuid| self.engines.get_key_value(&uuid)) else {
            return wrong("send", format!("`{engine}` is not registered"));
        };
        if task.tried.contains(uuid) {
            return wrong("blacklist", format!("`{uuid}` is sent it a second time"));
        }
        if !registered.capability.serves(&task.need) {
            return wrong("need", format!("`{uuid}` cannot run what needs {}", task.need));
        }
        if registered.draining.is_some() {
            return wrong("drain", format!("`{uuid}` is to get no more tasks"));
        }
        if !self.has_room(registered, task) {
            let has: Vec<_> = registered.has.iter().map(MsgId::as_str).collect();
            let (has, hwm, slots) = (has.join(", "), self.rules.hwm, registered.capability.slots);
            return wrong("hwm", format!("`{uuid}` has {has} already, hwm is {hwm}, and it has {slots} slots"));
        }
        let Some(metadata) = &task.metadata else {
            return wrong("metadata", format!("`{uuid}` is sent a task whose metadata makes no sense"));
        };
        if !metadata.targets.is_empty() && !metadata.targets.contains(uuid) {
            return wrong("targets", format!("`{uuid}` is not among its targets {:?}", metadata.targets));
        }
        let (counting, _) = self.after_counts(metadata);
        if !metadata.after.is_met(counting) {
            return wrong("after", format!("`{uuid}` is sent it before {:?}", metadata.after));
        }
        if !Places::of(self, &metadata.follow).allow(uuid) {
            return wrong("follow", format!("`{uuid}` is not where {:?} ran", metadata.follow));
        }
        let attempts = u32::try_from(task.tried.len()).unwrap_or(u32::MAX);
        if attempts != task.failures + task.unmet || task.failures > task.retries() {
            let counts = format!("{} failures of {} retries, {} unmet", task.failures, task.retries(), task.unmet);
            return wrong("retries", format!("attempt {} after {counts}", attempts + 1));
        }
        if self.is_thorough()
            && let Some(first) = self.skipped(task, uuid)
        {
            return wrong("order", format!("`{uuid}` is sent it before `{}`, which was queued first", first.msg_id));
        }
        Ok((msg_id, uuid.clone()))
    }

    /// A task that this engine could have got, and that was queued before that one.
    fn skipped(&self, task: &Task, uuid: &EngineUuid) -> Option<&Task> {
        let engine = &self.engines[uuid];
        let queued = self.live.iter().map(|msg_id| &self.tasks[msg_id]);
        // One that takes more may not have found room, or room is kept for it elsewhere.
        queued
            .filter(|other| Self::goes_before(other, task) && other.cpus() <= task.cpus())
            .find(|other| self.may_run(other, uuid, engine) && self.has_room(engine, other))
    }
}
