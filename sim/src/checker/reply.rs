//! What must be true when a client is sent a reply to its task.

use remuda_proto::message::metadata::TaskMetadata;
use remuda_proto::message::parent_msg_id;
use remuda_proto::{Body, EngineUuid, Identity, MsgId, Now, RemoteError, Status};
use serde_json::Value;

use super::Violation;
use super::book::{Place, Task, TaskBook};
use super::follow::Places;

impl TaskBook {
    /// The task, whether it succeeded, and where it ran, if all is well. `client`: who is sent it; `None`: the hub.
    pub(super) fn check_reply(
        &self,
        now: Now,
        client: Option<&Identity>,
        engine: Option<&Identity>,
        body: &Body,
    ) -> Result<(MsgId, (bool, Option<EngineUuid>)), Violation> {
        let session = &self.rules.session;
        let name = client.map_or_else(|| "the hub".to_owned(), |client| format!("client {client}"));
        let parent = parent_msg_id(session.packer(), body).ok().flatten();
        let Some(msg_id) = parent else {
            return Err(Violation::new("reply", format!("{name} is sent what answers nothing: {body:?}")));
        };
        let wrong = |checker, reason: String| Err(Violation::of(checker, &msg_id, reason));
        if let Err(error) = session.key().verify(body) {
            return wrong("signature", format!("{name} is sent a reply that does not verify: {error}"));
        }
        let Some(task) = self.tasks.get(&msg_id) else {
            return wrong("reply", format!("{name} is sent a reply to a task that nobody submitted"));
        };
        if task.place == Place::Done {
            return wrong("one reply", format!("{name} is sent a second reply to it"));
        }
        if task.client.as_ref() != client {
            return wrong("reply", format!("{name} is sent its reply, but it came from {:?}", task.client));
        }
        if let Some(arrived) = self.arrived.as_ref().filter(|arrived| arrived.body == *body) {
            if arrived.msg_id != msg_id || !arrived.is_final {
                return wrong("retries", format!("{name} is sent a reply that is not the last one: {body:?}"));
            }
            // The hub is always told which engine it was.
            if engine != Some(&arrived.engine.identity()).filter(|_| !self.rules.pure || client.is_none()) {
                return wrong("reply", format!("its reply is said to come from {engine:?}, not `{}`", arrived.engine));
            }
            return Ok((msg_id, (arrived.status == Status::Ok, Some(arrived.engine.clone()))));
        }
        let content: Value = session.packer().unpack(body.content()).unwrap_or_default();
        let error = session.packer().unpack::<RemoteError>(body.content()).ok();
        if content["status"] == "aborted" {
            if !self.abort.contains(&msg_id) {
                return wrong("abort", "it is answered `aborted`, but nobody asked for that".to_owned());
            }
            return Ok((msg_id, (false, None)));
        }
        let Some(error) = error else {
            return wrong("reply", format!("{name} is sent what did not come from its engine: {content}"));
        };
        match self.why_not(now, task, engine, &error) {
            Ok(ran) => Ok((msg_id, (false, ran))),
            Err(reason) => wrong("justice", format!("it is answered with {}, but {reason}", error.ename)),
        }
    }

    /// Where a task ran that the scheduler says has failed; or why it has not.
    fn why_not(
        &self,
        now: Now,
        task: &Task,
        engine: Option<&Identity>,
        error: &RemoteError,
    ) -> Result<Option<EngineUuid>, String> {
        if error.ename == "EngineError" {
            let Place::Stranded { engine: had, since } = &task.place else {
                return Err(format!("it is not stranded: {:?}", task.place));
            };
            if *since + self.rules.grace > now.instant {
                return Err(format!("`{had}` left only at {since:?}"));
            }
            if engine != Some(&had.identity()) || !error.evalue.contains(had.as_str()) {
                return Err(format!("it was on `{had}`, and this names {engine:?} and says {}", error.evalue));
            }
            if task.failures <= task.retries() {
                return Err(format!("it failed {} times and has {} retries", task.failures, task.retries()));
            }
            return Ok(Some(had.clone()));
        }
        let Place::Queued { since, .. } = task.place else {
            return Err(format!("it is not queued: {:?}", task.place));
        };
        if engine.is_some() {
            return Err(format!("it is said to come from {engine:?}"));
        }
        let metadata = match (&task.metadata, &*error.ename) {
            (None, "ValueError" | "InvalidDependency") => return Ok(None),
            (Some(metadata), _) => metadata,
            (None, _) => return Err("its metadata makes no sense".to_owned()),
        };
        let fair = match &*error.ename {
            "TaskTimeout" => metadata.timeout().is_some_and(|timeout| since + timeout <= now.instant),
            "InvalidDependency" => task.names_unknown,
            "ImpossibleDependency" => self.is_impossible(task, metadata),
            _ => false,
        };
        if fair { Ok(None) } else { Err(format!("nothing calls for that: {metadata:?}, {:?}", task.place)) }
    }

    /// Whether a task can never run with the engines that are there.
    fn is_impossible(&self, task: &Task, metadata: &TaskMetadata) -> bool {
        let (_, against) = self.after_counts(metadata);
        let can = |uuid: &EngineUuid| {
            let registered = self.engines.get(uuid);
            registered.is_some_and(|engine| engine.capability.serves(&task.need))
                && !task.tried.contains(uuid)
                && (metadata.targets.is_empty() || metadata.targets.contains(uuid))
        };
        metadata.after.is_unreachable(against)
            || Places::of(self, &metadata.follow).are_impossible(can)
            || (!metadata.targets.is_empty() && !metadata.targets.iter().any(can))
    }
}
