//! What a controller knows of services: their records, and what the task scheduler says of them.

use remuda_client::definitions::SERVICE_LABEL;
use remuda_client::records::Find;
use remuda_client::{Client, DefinitionError, MsgId};
use remuda_proto::message::content::{DbOptions, RecordOrder};
use remuda_proto::message::restart::Restart;
use remuda_proto::message::story::{AttemptEnd, EngineName, MAX_ASKED, TaskState, TaskStory, Told};
use remuda_proto::{Date, Map, Set, Status};
use serde_json::{Value, json};

use crate::commands::process::failed;
use crate::failure::Failure;

/// Most services on record that are looked at: the newest.
const MAX_LOOKED_AT: u64 = 10_000;

/// Who is asked for services.
pub(super) struct Services {
    pub(super) client: Client,
}

/// A service that was started, whether it runs or not.
pub(super) struct Service {
    /// The name of its definition, or its id.
    pub(super) name: String,
    pub(super) msg_id: MsgId,
    pub(super) restart: Restart,
    pub(super) story: TaskStory,
}

/// A service on record.
struct Found {
    name: String,
    msg_id: MsgId,
    restart: Restart,
    is_live: bool,
}

impl Services {
    /// Those of the controller of this client.
    ///
    /// # Errors
    /// When it is a stock one.
    pub(super) fn of(client: Client) -> Result<Self, Failure> {
        if client.controller().is_none() {
            return Err(failed(DefinitionError::Unsupported));
        }
        Ok(Self { client })
    }

    /// Those without an end, the newest first.
    pub(super) async fn live(&self) -> Result<Vec<Service>, Failure> {
        let found = self.find().await?;
        self.tell(found.into_iter().filter(|found| found.is_live).collect()).await
    }

    /// Those without an end and, of each name without such a one, the one that ended last; or all. The newest first.
    pub(super) async fn listed(&self, all: bool) -> Result<Vec<Service>, Failure> {
        let mut found = self.find().await?;
        if !all {
            let mut seen: Set<String> = found.iter().filter(|one| one.is_live).map(|one| one.name.clone()).collect();
            found.retain(|one| one.is_live || seen.insert(one.name.clone()));
        }
        self.tell(found).await
    }

    /// Those of these that a text stands for: a name, the id of a definition, or the beginning of a task's id.
    pub(super) async fn meant<'a>(&self, services: &'a [Service], which: &str) -> Result<Vec<&'a Service>, Failure> {
        let mut name = which.to_owned();
        if which.parse::<u64>().is_ok() {
            match self.client.definitions().get(which).await {
                Ok(record) => name = record.name().map_or(name, str::to_owned),
                // Its definition may be gone.
                Err(DefinitionError::NotFound { .. }) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let named: Vec<&Service> = services.iter().filter(|service| service.name == name).collect();
        if !named.is_empty() {
            return Ok(named);
        }
        let is_meant = |service: &&Service| !which.is_empty() && service.msg_id.as_str().starts_with(which);
        Ok(services.iter().filter(is_meant).collect())
    }

    /// What became of a task; `None` if the controller does not know it.
    pub(super) async fn story(&self, msg_id: &MsgId) -> Result<Option<TaskStory>, Failure> {
        Ok(self.stories(std::slice::from_ref(msg_id)).await?.swap_remove(msg_id))
    }

    /// All on record, the newest first.
    async fn find(&self) -> Result<Vec<Found>, Failure> {
        let keys = ["msg_id", "label", "metadata", "state"];
        let find = Find {
            query: json!({"label": {"$glob": format!("{SERVICE_LABEL}*")}}),
            keys: Some(keys.map(str::to_owned).into()),
            options: DbOptions {
                limit: Some(MAX_LOOKED_AT),
                order: RecordOrder::Submitted,
                descending: true,
                sizes: false,
            },
        };
        let records = self.client.records(&find).await.map_err(crate::commands::task::asked_in_vain)?;
        let found = records.iter().filter_map(|record| {
            let text = |key: &str| record.fields.get(key).and_then(Value::as_str);
            // Others may have such a label too.
            let restart = record.fields.get("metadata")?.get("remuda")?.get("restart")?;
            Some(Found {
                name: text("label")?.strip_prefix(SERVICE_LABEL)?.to_owned(),
                msg_id: MsgId::from(text("msg_id")?),
                restart: serde_json::from_value(restart.clone()).ok()?,
                is_live: matches!(text("state")?, "waiting" | "running"),
            })
        });
        Ok(found.collect())
    }

    async fn tell(&self, found: Vec<Found>) -> Result<Vec<Service>, Failure> {
        let ids: Vec<MsgId> = found.iter().map(|found| found.msg_id.clone()).collect();
        let mut stories = self.stories(&ids).await?;
        let told = found.into_iter().filter_map(|Found { name, msg_id, restart, .. }| {
            let story = stories.swap_remove(&msg_id)?;
            Some(Service { name, msg_id, restart, story })
        });
        Ok(told.collect())
    }

    async fn stories(&self, ids: &[MsgId]) -> Result<Map<MsgId, TaskStory>, Failure> {
        let mut stories = Map::default();
        for some in ids.chunks(MAX_ASKED) {
            let texts: Vec<String> = some.iter().map(ToString::to_string).collect();
            let reply = self.client.stories(&texts).await?;
            stories.extend(reply.stories.into_iter().filter_map(|story| match story.told {
                Told::Task(task) => Some((task.msg_id.clone(), *task)),
                _ => None,
            }));
        }
        Ok(stories)
    }
}

/// Whether a task has its reply, or never gets one.
pub(super) fn has_ended(story: &TaskStory) -> bool {
    matches!(story.state, TaskState::Finished(_) | TaskState::Forgotten(_) | TaskState::Lost)
}

impl Service {
    /// What it does, in a word.
    pub(super) fn state(&self) -> &'static str {
        match &self.story.state {
            // Its engine is gone, and it goes to another.
            TaskState::Assigned(assigned) if assigned.until.is_some() => "waiting",
            TaskState::Assigned(_) => "running",
            TaskState::BackingOff(_) => "backing-off",
            TaskState::Finished(_) | TaskState::Forgotten(_) => "ended",
            TaskState::Lost => "lost",
            TaskState::Waiting(_) | TaskState::Ready(_) | TaskState::Sent(_) | TaskState::Untold { .. } => "waiting",
        }
    }

    /// The engine that runs it, if one does.
    pub(super) fn engine(&self) -> Option<&EngineName> {
        match &self.story.state {
            TaskState::Assigned(assigned) if assigned.until.is_none() => Some(&assigned.engine),
            _ => None,
        }
    }

    /// Since when it does what it does.
    pub(super) fn since(&self) -> Option<Date> {
        match &self.story.state {
            TaskState::Assigned(assigned) => Some(assigned.since),
            TaskState::BackingOff(backing_off) => Some(backing_off.since),
            TaskState::Ready(ready) => Some(ready.since),
            TaskState::Waiting(waiting) => Some(waiting.since),
            TaskState::Finished(finished) => Some(finished.completed),
            _ => None,
        }
    }

    /// When it is started again, if it backs off.
    pub(super) fn next_start(&self) -> Option<Date> {
        if let TaskState::BackingOff(backing_off) = &self.story.state { Some(backing_off.until) } else { None }
    }

    /// How often it was started again, engines that died not counted.
    pub(super) fn restarts(&self) -> Option<u32> {
        Some(self.restart.most().saturating_sub(self.story.retries_left?))
    }

    /// How it ended the last time, if it ever did.
    pub(super) fn last_exit(&self) -> Option<String> {
        if let TaskState::Finished(finished) = &self.story.state {
            return Some(match (finished.status, &finished.error) {
                (Status::Ok, _) => "exited with code 0".to_owned(),
                (Status::Aborted, _) => "stopped".to_owned(),
                (Status::Error, Some(error)) => said(error),
                (Status::Error, None) => "failed".to_owned(),
            });
        }
        let last = self.story.attempts.last()?;
        Some(match &last.end {
            AttemptEnd::Failed(error) => said(error),
            AttemptEnd::Succeeded | AttemptEnd::Replied => "exited with code 0".to_owned(),
            AttemptEnd::Unmet => "the engine could not run it".to_owned(),
            AttemptEnd::Died => "its engine died".to_owned(),
            AttemptEnd::Undelivered => "its engine does not read".to_owned(),
            AttemptEnd::Lost => "lost with its engine or the controller".to_owned(),
        })
    }
}

/// An error of a program, without what is always the same.
fn said(error: &str) -> String {
    error.strip_prefix("ProcessFailed: ").unwrap_or(error).to_owned()
}
