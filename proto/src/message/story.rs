//! The story of a task, what happened to it and why it is where it is; and the state of a controller as a whole.
//!
//! A client asks the hub by a `story_request` or a `dump_request`, which stock peers never send. The hub asks the task
//! scheduler, which says what it knows of its live tasks ([`Explanation`]), and puts the answer together.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Status;
use super::content::OkStatus;
use crate::frames::Body;
use crate::id::{EngineId, EngineUuid, MsgId};
use crate::time::{Date, Instant, Now};

/// Most engines, tasks or ids that one list of an answer names. The counts beside it are of all.
pub const MAX_NAMED: usize = 5;
/// Most ids in one `story_request`.
pub const MAX_ASKED: usize = 100;
/// Most tasks that a `dump_request` may ask for.
pub const MAX_DUMPED: usize = 10_000;
/// Most attempts of a task that are remembered: the last ones.
pub const MAX_ATTEMPTS: usize = 16;

/// `story_request`: which tasks are meant, each by its id or by the beginning of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoryRequest {
    /// At most [`MAX_ASKED`].
    pub msg_ids: Vec<String>,
}

/// `story_reply`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoryReply {
    /// `ok`
    pub status: OkStatus,
    /// The controller's clock as it answered.
    pub now: Date,
    /// One for each id of the request, in that order.
    pub stories: Vec<Story>,
}

/// What is known of one id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Story {
    /// The id, or the beginning of one, that was asked for.
    pub asked: String,
    /// What it stands for.
    #[serde(flatten)]
    pub told: Told,
}

/// What an id stands for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "snake_case")]
pub enum Told {
    /// One request.
    Task(Box<TaskStory>),
    /// One request to many engines.
    Broadcast(Box<BroadcastStory>),
    /// Several requests whose ids begin so.
    Several {
        /// How many; of those beyond some ten thousand nobody takes note.
        count: u64,
        /// The first of them, by the order in which they came.
        msg_ids: Vec<MsgId>,
    },
    /// Nothing that the controller knows.
    Unknown,
}

/// All that is known of one request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskStory {
    /// Its id.
    pub msg_id: MsgId,
    /// Its type, `apply_request` say; empty if its message is not there any more.
    #[serde(default)]
    pub msg_type: String,
    /// Which scheduler took it: `task`, `mux` or `broadcast`; empty if that is not known any more.
    #[serde(default)]
    pub queue: String,
    /// The session of its client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The word that its client gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Value>,
    /// The request that it repeats, or in whose course it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<MsgId>,
    /// When its client made it, by the client's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted: Option<Date>,
    /// How often it may still be tried again after a failure, or a service be started again; of tasks of the task scheduler
    /// only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries_left: Option<u32>,
    /// Its attempts that have ended, oldest first: no more than the last [`MAX_ATTEMPTS`], and none if it was tried once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// How many attempts have ended, those that are not in `attempts` included.
    #[serde(default)]
    pub tried: u64,
    /// The request that repeats it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resubmitted: Option<MsgId>,
    /// Whether there is a record of it.
    pub on_record: bool,
    /// Where it is.
    #[serde(flatten)]
    pub state: TaskState,
}

/// A request to many engines: its copies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BroadcastStory {
    /// The id that the client knows.
    pub msg_id: MsgId,
    /// The session of its client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// When its client made it, by the client's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted: Option<Date>,
    /// To how many engines it went.
    pub engines: u64,
    /// How many answered `ok`.
    pub ok: u64,
    /// How many answered otherwise, or are gone.
    pub failed: u64,
    /// How many answered, but how is not known any more.
    pub forgotten: u64,
    /// Engines that have not answered.
    pub missing: u64,
    /// The first of these.
    pub named: Vec<EngineName>,
}

/// Where a task is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TaskState {
    /// It waits for other tasks.
    Waiting(Waiting),
    /// It ended, and waits for its next start.
    BackingOff(BackingOff),
    /// It waits for an engine.
    Ready(Ready),
    /// The task scheduler gave it to an engine.
    Assigned(Assigned),
    /// It went to the engine that its client named, which has not answered.
    Sent(Sent),
    /// It has its reply.
    Finished(Finished),
    /// It is known to have ended. Its record is gone, or was never kept.
    Forgotten(Forgotten),
    /// It is on record without a reply, but no scheduler has it: the controller was started since, say.
    Lost,
    /// The task scheduler has it, but did not say in time what it does with it.
    Untold {
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
}

/// A task that waits for others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Since when.
    pub since: Date,
    /// When it is given up, if it has a timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Date>,
    /// What has to finish before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<WaitsFor>,
    /// Whose engine it has to share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<WaitsFor>,
}

/// The tasks that one waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitsFor {
    /// Whether all of them count, or any one.
    pub all: bool,
    /// Whether one that succeeded counts.
    pub success: bool,
    /// Whether one that failed counts.
    pub failure: bool,
    /// How many there are.
    pub tasks: u64,
    /// How many of them count already.
    pub counted: u64,
    /// How many of them ended and do not count.
    pub against: u64,
    /// Some of those that have not ended, and where each is: `waiting`, `ready` or `assigned`.
    pub unfinished: Vec<(MsgId, String)>,
}

/// A service that ended, and waits for its next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackingOff {
    /// Since when.
    pub since: Date,
    /// When it is started again.
    pub until: Date,
}

/// A task that waits for an engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Since when.
    pub since: Date,
    /// When it is given up, if it has a timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Date>,
    /// What it needs of an engine.
    pub need: String,
    /// Tasks of the same need before it in line; as many as [`MAX_COUNTED`] stand for more.
    pub ahead: u64,
    /// Most tasks that an engine is given at a time; 0: no limit.
    pub hwm: u32,
    /// How many engines are registered.
    pub registered: u64,
    /// Why none of them gets it.
    pub obstacles: Vec<Obstacle>,
}

/// Where [`Ready::ahead`] stops counting.
pub const MAX_COUNTED: usize = 1000;

/// Engines that do not get a task for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obstacle {
    /// The reason.
    pub why: Why,
    /// How many.
    pub engines: u64,
    /// Some of them, and how many tasks each has.
    pub named: Vec<EngineLoad>,
}

/// Why an engine does not get a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It could run it, and has as many tasks as it may have.
    NoRoom,
    /// It could run it, and is to finish what it has and get nothing more.
    Draining,
    /// It tried it already.
    Tried,
    /// The task names the engines that may run it, and this is one, but it is not there.
    Gone,
    /// The task names the engines that may run it, and this is none of them.
    NotATarget,
    /// The tasks whose engine this one is to share ran elsewhere.
    NotFollowed,
    /// It runs tasks of other kinds.
    CannotRun,
    /// The controller was started anew: it waits until it knows whether an engine of the earlier one has the task.
    Unheard,
}

/// An engine and how many tasks it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineLoad {
    /// Which engine.
    #[serde(flatten)]
    pub engine: EngineName,
    /// The tasks of the task scheduler that it has.
    pub tasks: u64,
}

/// A task that the task scheduler gave to an engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assigned {
    /// Which.
    pub engine: EngineName,
    /// Since when.
    pub since: Date,
    /// How many tasks the engine has, this one included.
    pub tasks: u64,
    /// When it is taken back, if the engine is gone and its reply may still be on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Date>,
}

/// A request that went to the engine which its client named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Which.
    pub engine: EngineName,
    /// How many such requests the engine has not answered, this one included.
    pub unanswered: u64,
}

/// A request that has its reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// How it ended.
    pub status: Status,
    /// The error, `ZeroDivisionError: division by zero` say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The engine that had it last, if one had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineName>,
    /// When the engine began, by its clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Date>,
    /// When the reply was made, by the clock of who made it.
    pub completed: Date,
    /// When the hub learned of it.
    pub received: Date,
}

/// A request that ended, and of which no record is left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// Whether it succeeded, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
    /// The engine that ran it, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineName>,
}

/// One time that an engine had a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which engine.
    pub engine: EngineName,
    /// When it was sent there.
    pub sent: Date,
    /// When that ended.
    pub ended: Date,
    /// How.
    #[serde(flatten)]
    pub end: AttemptEnd,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", content = "error", rename_all = "snake_case")]
pub enum AttemptEnd {
    /// By a reply that is the task's.
    Replied,
    /// By an error, cut to some hundred characters. The task had retries left.
    Failed(Box<str>),
    /// It ended well, and is a service that is started again.
    Succeeded,
    /// The engine could not run it (an unmet functional dependency, say).
    Unmet,
    /// The engine was gone, and no reply came in time.
    Died,
    /// It was never sent: too much waited for the engine, which does not read.
    Undelivered,
    /// The controller died, and request or reply were lost with it: the engine does not have the task, or did not come back.
    Lost,
}

/// An engine, by both of its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineName {
    /// The number by which people know it; `None`: it is not registered (any more).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<EngineId>,
    /// Its uuid.
    pub uuid: EngineUuid,
}

impl From<&EngineUuid> for EngineName {
    /// An engine whose number is to be found yet.
    fn from(uuid: &EngineUuid) -> Self {
        Self { id: None, uuid: uuid.clone() }
    }
}

impl TaskState {
    /// All engines that are named in it.
    pub fn engines_mut(&mut self) -> Vec<&mut EngineName> {
        match self {
            Self::Ready(ready) => {
                let named = ready.obstacles.iter_mut().flat_map(|obstacle| &mut obstacle.named);
                named.map(|load| &mut load.engine).collect()
            }
            Self::Assigned(assigned) => vec![&mut assigned.engine],
            Self::Sent(sent) => vec![&mut sent.engine],
            Self::Finished(finished) => finished.engine.iter_mut().collect(),
            Self::Forgotten(forgotten) => forgotten.engine.iter_mut().collect(),
            Self::Waiting(_) | Self::BackingOff(_) | Self::Lost | Self::Untold { .. } => Vec::new(),
        }
    }
}

/// What the task scheduler says when it is asked.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The number of the question.
    pub question: u64,
    /// What it knows of each task, in the order of the question.
    pub tasks: Vec<Known>,
    /// Its state as a whole, if that was asked for.
    pub scheduler: Option<SchedulerState>,
}

/// What the task scheduler knows of a task. Engines have no numbers in it: the hub adds them.
#[derive(Clone, Debug)]
pub enum Known {
    /// Nothing.
    Unknown,
    /// That it ended.
    Finished(Forgotten),
    /// All: it has no final reply.
    Live(Box<LiveTask>),
}

/// A task without a final reply, as the task scheduler sees it.
#[derive(Clone, Debug)]
pub struct LiveTask {
    /// The request.
    pub request: Body,
    /// How often it may still be tried again after a failure.
    pub retries_left: u32,
    /// The last of its attempts that ended, oldest first.
    pub attempts: Vec<Attempt>,
    /// How many ended.
    pub tried: u64,
    /// [`TaskState::Waiting`], [`TaskState::BackingOff`], [`TaskState::Ready`] or [`TaskState::Assigned`].
    pub state: TaskState,
}

/// The task scheduler as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerState {
    /// Tasks that wait for others.
    pub waiting: u64,
    /// Tasks that wait for an engine.
    pub ready: u64,
    /// Tasks that an engine has.
    pub assigned: u64,
    /// Size of the requests of all these, in bytes.
    pub pending_bytes: u64,
    /// Whether it reads no more from clients, because a limit is reached.
    pub intake_paused: bool,
    /// How many finished tasks are remembered.
    pub finished_ids: u64,
    /// Tasks that have a timeout, or whose engine is gone.
    pub timers: u64,
    /// The queues, one for each need that tasks have or had.
    pub queues: Vec<QueueState>,
    /// The engines that are there.
    pub engines: Vec<EngineState>,
}

/// The tasks of one need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    /// The need.
    pub need: String,
    /// All of them, wherever they are.
    pub tasks: u64,
    /// Those that wait for an engine and that any may run.
    pub ready: u64,
    /// Those that wait for an engine which did not try them yet.
    pub ready_elsewhere: u64,
    /// How many engines serve it.
    pub engines: u64,
}

/// An engine as the task scheduler sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineState {
    /// Its uuid.
    pub uuid: EngineUuid,
    /// Tasks that it has.
    pub outstanding: u64,
    /// Tasks that wait for this engine or some others that they name.
    pub queued: u64,
}

/// The hearts, as their monitor sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartState {
    /// Time between two beats, in milliseconds.
    pub period_ms: u64,
    /// How many beats in a row a heart may miss.
    pub max_misses: u32,
    /// The hearts that it knows, and how many beats in a row each has missed.
    pub hearts: Vec<(EngineUuid, u32)>,
}

/// What the threads of a controller count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverState {
    /// Messages that had no effect.
    pub refused: Vec<Refused>,
    /// Reports of the schedulers that wait for the hub.
    pub hub_lag: u64,
    /// With how many of them clients are not read any more.
    pub hub_lag_limit: u64,
}

/// How often messages of one kind had no effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Where they came.
    pub socket: String,
    /// What was wrong.
    pub kind: String,
    /// How many.
    pub count: u64,
}

impl Now {
    /// The date of another moment, as the clocks stand now.
    pub fn date_of(self, instant: Instant) -> Date {
        let micros = |of: std::time::Duration| i64::try_from(of.as_micros()).unwrap_or(i64::MAX);
        let since = micros(self.instant.since(instant));
        Date(self.date.0.saturating_sub(since).saturating_add(micros(instant.since(self.instant))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn date(seconds: i64) -> Date {
        Date(seconds * 1_000_000)
    }

    #[test]
    fn moments_have_dates_before_and_after_now() {
        let now = Now { instant: Instant(10_000_000_000), date: date(1000) };
        assert_eq!(now.date_of(now.instant - Duration::from_secs(3)), date(997));
        assert_eq!(now.date_of(now.instant + Duration::from_secs(3)), date(1003));
        assert_eq!(now.date_of(now.instant), now.date);
        assert!(now.date_of(Instant(u64::MAX)) > now.date);
    }

    #[test]
    fn every_story_comes_back_as_it_went() {
        let engine = EngineName { id: Some(EngineId(3)), uuid: "e".into() };
        let load = EngineLoad { engine: engine.clone(), tasks: 1 };
        let waits = WaitsFor {
            all: true,
            success: true,
            failure: false,
            tasks: 3,
            counted: 1,
            against: 0,
            unfinished: vec![("a".into(), "ready".to_owned())],
        };
        let states = [
            TaskState::Waiting(Waiting { since: date(1), until: Some(date(2)), after: Some(waits), follow: None }),
            TaskState::Ready(Ready {
                since: date(1),
                until: None,
                need: "python".to_owned(),
                ahead: 2,
                hwm: 1,
                registered: 4,
                obstacles: vec![Obstacle { why: Why::NoRoom, engines: 4, named: vec![load] }],
            }),
            TaskState::Assigned(Assigned { engine: engine.clone(), since: date(1), tasks: 1, until: None }),
            TaskState::Sent(Sent { engine: engine.clone(), unanswered: 2 }),
            TaskState::Finished(Finished {
                status: Status::Error,
                error: Some("E: x".to_owned()),
                engine: Some(engine.clone()),
                started: Some(date(1)),
                completed: date(2),
                received: date(3),
            }),
            TaskState::Forgotten(Forgotten { ok: Some(true), engine: None }),
            TaskState::Lost,
            TaskState::Untold { waited_ms: 2000 },
        ];
        let ends = [
            AttemptEnd::Failed("E: x".into()),
            AttemptEnd::Unmet,
            AttemptEnd::Died,
            AttemptEnd::Lost,
            AttemptEnd::Replied,
        ];
        let attempts = ends.map(|end| Attempt { engine: engine.clone(), sent: date(1), ended: date(2), end });
        for state in states {
            let story = TaskStory {
                msg_id: "a".into(),
                msg_type: "apply_request".to_owned(),
                queue: "task".to_owned(),
                client: Some("c".to_owned()),
                label: None,
                parent: None,
                submitted: Some(date(0)),
                retries_left: Some(1),
                attempts: attempts.to_vec(),
                tried: 4,
                resubmitted: None,
                on_record: true,
                state,
            };
            let story = Story { asked: "a".to_owned(), told: Told::Task(Box::new(story)) };
            let text = serde_json::to_string(&story).unwrap();
            assert_eq!(serde_json::from_str::<Story>(&text).unwrap(), story, "{text}");
        }
    }
}
