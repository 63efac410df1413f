//! Contents of requests to the hub and to engines, of their replies, and of notifications and output.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::native::Announcement;
use super::needs::Resources;
use crate::Map;
use crate::id::{EngineId, EngineUuid, MsgId};

/// `{"status": "ok"}`: the content of many a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Always `ok`.
    pub status: OkStatus,
}

/// The word `ok`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OkStatus {
    /// `ok`
    #[default]
    Ok,
}

/// `connection_reply`: the engines that are registered, by id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConnectionReply {
    /// `ok`
    pub status: OkStatus,
    /// Decimal id to uuid.
    pub engines: Map<String, EngineUuid>,
}

/// `registration_request` of an engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegistrationRequest {
    /// Its uuid, which is its `ZeroMQ` identity.
    pub uuid: EngineUuid,
    /// The id that it would like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<EngineId>,
    /// What a native engine says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remuda: Option<RegistrationOptions>,
}

/// What a native engine adds to a `registration_request`, under `remuda`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RegistrationOptions {
    /// What it says of itself.
    #[serde(flatten)]
    pub announcement: Announcement,
    /// Whether it was registered before; `None`: it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<Again>,
}

/// What an engine wants that was registered before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Again {
    /// To know whether it still is: the answer is its id, or an error. Nothing changes by it.
    Resume,
    /// To be registered in the place of what it was before, of which nothing is left.
    Anew,
}

/// `registration_reply`, when it is granted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegistrationReply {
    /// The id given.
    pub id: EngineId,
    /// `ok`
    pub status: OkStatus,
    /// Period of the heartbeat, in milliseconds.
    pub hb_period: u64,
    /// The engine's connection file again; engines go by their file.
    #[serde(default)]
    pub connection_info: Value,
}

/// `unregistration_request`. No reply follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnregistrationRequest {
    /// The engine; null from one that never got an id.
    #[serde(default)]
    pub id: Option<EngineId>,
    /// What a native nanny adds, which knows no id; stock hubs never look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remuda: Option<UnregistrationOptions>,
}

/// What a native nanny adds to an `unregistration_request`, under `remuda`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnregistrationOptions {
    /// The engine that is gone, registered or about to be.
    pub uuid: EngineUuid,
}

/// `drain_request`, which stock hubs do not know: engines finish what they have, and get no more tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRequest {
    /// The engines.
    pub targets: Vec<EngineId>,
    /// Whether they get no more tasks; else they do again.
    pub drain: bool,
    /// Whether each is shut down when it has finished what it has.
    #[serde(default)]
    pub shutdown: bool,
}

/// `registration_notification` and `unregistration_notification`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineNotification {
    /// The engine's id.
    pub id: EngineId,
    /// Its uuid.
    pub uuid: EngineUuid,
}

/// `abort_request` to an engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbortRequest {
    /// The requests not to run. One id may stand without a list around it.
    #[serde(default, deserialize_with = "one_or_many")]
    pub msg_ids: Vec<MsgId>,
    /// What a native peer adds; stock engines never look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remuda: Option<AbortOptions>,
}

/// What a native peer adds to an `abort_request`, under `remuda`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbortOptions {
    /// Whether a program that runs already is to be stopped too.
    #[serde(default)]
    pub stop: bool,
}

/// `output_request` to a native engine, on the control socket: a part of what a program wrote, which the engine keeps in
/// a file while the program runs, and until some time after its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputRequest {
    /// The task.
    pub msg_id: MsgId,
    /// What it wrote to.
    pub stream: ProgramStream,
    /// Where the part begins, in bytes from the start.
    #[serde(default)]
    pub offset: u64,
    /// How long it may be; an engine gives no more than [`MAX_OUTPUT_PART`].
    #[serde(default = "max_output_part")]
    pub max_bytes: u64,
    /// Whether the files of this task are needed no more: then nothing is read, and they are removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub release: bool,
}

/// Most bytes in one [`OutputReply`].
pub const MAX_OUTPUT_PART: u64 = 1024 * 1024;

fn max_output_part() -> u64 {
    MAX_OUTPUT_PART
}

/// Where a program writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProgramStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Its result, see [`ProcessTask::output`](super::native::ProcessTask::output).
    Output,
}

/// `output_reply`: the part is the one buffer. Fewer bytes than were asked for are all that there is so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputReply {
    /// `ok`
    pub status: OkStatus,
    /// Whether the program has ended, so that no more will come.
    pub ended: bool,
    /// Where the part begins, in bytes from the start, if that is later than was asked for, since what was before is kept no
    /// more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<MsgId>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Ids {
        Many(Vec<MsgId>),
        One(MsgId),
        None(()),
    }
    Ok(match Ids::deserialize(deserializer)? {
        Ids::Many(ids) => ids,
        Ids::One(id) => vec![id],
        Ids::None(()) => Vec::new(),
    })
}

/// `shutdown_request` to an engine or the hub, and the engine's reply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shutdown {
    /// Whether it should come back.
    #[serde(default)]
    pub restart: bool,
}

/// `execute_request`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecuteRequest {
    /// The code.
    pub code: String,
    /// Whether to keep it out of history and output.
    #[serde(default)]
    pub silent: bool,
    /// Expressions to evaluate afterwards.
    #[serde(default)]
    pub user_expressions: Map<String, Value>,
}

/// iopub `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionStatus {
    /// `busy`, `idle` or `starting`.
    pub execution_state: String,
}

/// iopub `stream`: a piece of output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// `stdout` or `stderr`.
    pub name: String,
    /// The text.
    pub text: String,
}

/// `queue_request` and `load_request`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueRequest {
    /// Null: all engines; else an id, a uuid, or a list of them.
    pub targets: Value,
    /// Lists of ids in place of counts.
    #[serde(default)]
    pub verbose: bool,
}

/// `result_request`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultRequest {
    /// The tasks asked for.
    #[serde(deserialize_with = "one_or_many")]
    pub msg_ids: Vec<MsgId>,
    /// Only whether they are done.
    #[serde(default)]
    pub status_only: bool,
    /// With anything here, a `remuda` controller lists tasks that it does not know as `unknown`, in place of an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remuda: Option<Map<String, Value>>,
}

/// `result_reply`, as far as it is the same for all tasks. What is told of a task that is done stands under its id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultStatus {
    /// Those that are not done.
    #[serde(default)]
    pub pending: Vec<MsgId>,
    /// Those that are, well or not.
    #[serde(default)]
    pub completed: Vec<MsgId>,
    /// Those that nobody knows, for who asks with the key `remuda`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<MsgId>,
}

/// `history_reply`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryReply {
    /// `ok`
    pub status: OkStatus,
    /// All tasks on record, oldest first.
    pub history: Vec<MsgId>,
}

/// `purge_request`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PurgeRequest {
    /// `"all"`, or a list of ids.
    #[serde(default)]
    pub msg_ids: Value,
    /// Engines whose finished tasks are to go.
    #[serde(default)]
    pub engine_ids: Vec<EngineId>,
}

/// What only Remuda understands of a `db_request`, under `remuda`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DbOptions {
    /// Most records; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// What they are sorted by.
    #[serde(default)]
    pub order: RecordOrder,
    /// Whether the last come first.
    #[serde(default)]
    pub descending: bool,
    /// Whether each record tells its size too, as a [`RecordSize`] under `remuda`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sizes: bool,
}

/// What records are sorted by. Those that have no such date come first; equal ones are in the order in which they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordOrder {
    /// When they came to the hub.
    #[default]
    Arrival,
    /// When their clients made them, by their clocks.
    Submitted,
    /// When their engines ended them, by their clocks.
    Completed,
}

impl RecordOrder {
    /// The field of a record that holds the date; none for what records do not tell.
    pub fn field(self) -> Option<&'static str> {
        match self {
            Self::Arrival => None,
            Self::Submitted => Some("submitted"),
            Self::Completed => Some("completed"),
        }
    }
}

/// What a record's messages take, in bytes, for who asks for [`DbOptions::sizes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordSize {
    /// The request, with its buffers.
    pub request_bytes: u64,
    /// The reply, with its buffers; 0 while there is none.
    pub result_bytes: u64,
}

/// What the controller says of itself under `remuda` in a `connection_reply`, to who asks with that key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerInfo {
    /// Version of Remuda.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Name of the scheme by which it places tasks.
    pub scheme: String,
    /// Most tasks outstanding on one engine; 0: no limit.
    pub hwm: u32,
    /// When it started, ISO 8601; empty if unknown.
    #[serde(default)]
    pub started: String,
    /// What it may lose when it dies: the name of a [`Durability`](crate::monitor::Durability). One that says so answers a
    /// `result_request` also on the sockets for tasks and direct requests, behind all that came before it there.
    #[serde(default)]
    pub durability: String,
}

/// What a `queue_reply` says under `remuda`, to who asks with that key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemudaStatus {
    /// The engines asked for: decimal id to what is known of each.
    #[serde(default)]
    pub engines: Map<String, EngineStatus>,
    /// Tasks that wait for an engine.
    pub waiting: u64,
    /// Tasks and direct requests that are with an engine.
    pub running: u64,
    /// Those that ended.
    pub done: DoneCounts,
    /// How often the store lost something of the task records.
    #[serde(default)]
    pub store_errors: u64,
    /// The limit because of which the task scheduler reads nothing from clients at the moment, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<PausedIntake>,
}

/// Why the task scheduler reads nothing from clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausedIntake {
    /// The option that sets the limit, without dashes in front.
    pub limit: String,
    /// Where the limit is.
    pub value: u64,
}

/// How many tasks and direct requests ended, and how, since the controller started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneCounts {
    /// With a result.
    pub ok: u64,
    /// With an error, or with their engine.
    pub error: u64,
    /// Told not to run.
    pub aborted: u64,
}

/// What is known of an engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// Its uuid.
    pub uuid: EngineUuid,
    /// Whether it is a native engine.
    pub native: bool,
    /// Its host; empty for a stock engine, which does not say.
    #[serde(default)]
    pub host: String,
    /// Its process id; 0 for a stock engine, which does not say.
    #[serde(default)]
    pub pid: u32,
    /// Names of the functions it has.
    #[serde(default)]
    pub functions: Vec<String>,
    /// Whether it runs programs.
    #[serde(default)]
    pub process: bool,
    /// The version of the Python whose functions and code it runs; `None` from a stock engine, which runs Python and does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
    /// How many tasks of one core each it runs at once: 1 for a stock engine.
    #[serde(default)]
    pub slots: u32,
    /// What else it has for tasks to take.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// Words that tasks can ask for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Direct requests that it has not answered.
    pub queue: u64,
    /// Tasks that it was given and has not answered.
    pub tasks: u64,
    /// What it finished, aborted tasks not counted.
    pub completed: u64,
    /// `draining` while it gets no more tasks; else `busy` while it has anything to do, or `idle`.
    pub state: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abort_takes_one_id_or_a_list_or_none() {
        for (text, count) in [(r#"{"msg_ids": "a"}"#, 1), (r#"{"msg_ids": ["a", "b"]}"#, 2), ("{}", 0)] {
            assert_eq!(serde_json::from_str::<AbortRequest>(text).unwrap().msg_ids.len(), count);
        }
    }

    #[test]
    fn a_registration_of_a_stock_engine_announces_nothing() {
        let request: RegistrationRequest = serde_json::from_str(r#"{"uuid": "u"}"#).unwrap();
        assert_eq!((request.id, request.remuda), (None, None));
    }
}
