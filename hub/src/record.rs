//! What is kept of a request: the messages as they came. Their parts are read when somebody asks for them, which for
//! most tasks is never.

use std::borrow::Cow;
use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem::Finder;
use remuda_proto::message::content::{RecordSize, Stream};
use remuda_proto::message::metadata::TaskMetadata;
use remuda_proto::message::restart::SERVICE_LABEL;
use remuda_proto::message::{MsgType, Status};
use remuda_proto::monitor::Queue;
use remuda_proto::{Body, Date, EngineUuid, Identity, MsgId, Packer};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::find::Field;

/// A request, and what became of it (`controller/hub.py: empty_record`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRecord {
    /// Names it.
    pub msg_id: MsgId,
    /// How its messages are packed.
    pub packer: Packer,
    /// Which scheduler took it.
    pub queue: Queue,
    /// Where it is, or was when it ended. `None` while it waits.
    pub engine: Option<EngineUuid>,
    /// Who gets the reply, as the socket of clients names it; `None`: nobody but the hub, or it is not known.
    pub reply_to: Option<Identity>,
    /// When it came, by the clock of the controller.
    pub arrived: Date,
    /// The engines that tried it and did not end it, each once.
    pub tried: Vec<EngineUuid>,
    /// How often it may still be tried again, once that was said; before, it is what the request asks for.
    pub retries: Option<u32>,
    /// Whether its controller ended without a reply to it, and no other took it over.
    pub lost: bool,
    /// The request.
    pub request: Body,
    /// The reply, once there is one.
    pub outcome: Option<Outcome>,
    /// The request that repeats it, if a client asked for that. The last one.
    pub resubmitted: Option<MsgId>,
    /// What its engine published for it.
    pub output: TaskOutput,
    /// The size in bytes of buffers that are kept and were not asked for: those of the request, and those of the reply.
    pub unread_bytes: (u64, u64),
}

/// The reply to a request, as the client got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How the reply is packed.
    pub packer: Packer,
    /// The reply.
    pub body: Body,
    /// When the hub learned of it.
    pub received: Date,
    /// How it ended.
    pub status: Status,
}

/// Where a request is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaskState {
    /// For an engine.
    Waiting,
    /// With an engine.
    Running,
    /// It had no reply when its controller ended, and no other took it over. Only in a database.
    Lost,
    /// It has its reply.
    Ended(Status),
}

impl TaskState {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Waiting,
        Self::Running,
        Self::Lost,
        Self::Ended(Status::Ok),
        Self::Ended(Status::Error),
        Self::Ended(Status::Aborted),
    ];

    /// Its name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Lost => "lost",
            Self::Ended(Status::Ok) => "ok",
            Self::Ended(Status::Error) => "error",
            Self::Ended(Status::Aborted) => "aborted",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// What an engine published for one request. Contents are packed, as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskOutput {
    /// All its text on stdout.
    pub stdout: String,
    /// All its text on stderr.
    pub stderr: String,
    /// The code that ran last.
    pub execute_input: Option<String>,
    /// The last result of an expression.
    pub execute_result: Option<Bytes>,
    /// The last thing displayed. Stock keeps it under a key that its records do not declare.
    pub display_data: Option<Bytes>,
    /// The last error.
    pub error: Option<Bytes>,
}

/// One piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputPiece {
    /// More text on stdout.
    Stdout(String),
    /// More text on stderr.
    Stderr(String),
    /// Which code ran.
    ExecuteInput(String),
    /// The packed result of an expression.
    ExecuteResult(Bytes),
    /// Something displayed, packed.
    DisplayData(Bytes),
    /// An error, packed.
    Error(Bytes),
}

/// The value of a field of a record, for a query to look at.
#[derive(Debug, PartialEq)]
pub(crate) enum Datum<'a> {
    /// It is not there.
    Null,
    /// A date.
    Date(Date),
    /// A text.
    Text(Cow<'a, str>),
    /// Anything else that JSON can hold.
    Json(Value),
    /// A list of buffers that is not empty. Nothing in a query equals it.
    Bytes,
}

/// What is read of metadata for a record.
#[derive(Deserialize, Default)]
struct MetadataFacts {
    #[serde(default)]
    label: Option<Value>,
}

/// What a request says of itself. Texts; what is no text counts as not said.
#[cfg(feature = "sqlite")]
#[derive(Debug, Default)]
pub(crate) struct Said<'a> {
    /// When its client made it.
    pub(crate) submitted: Option<Date>,
    /// The session of its client.
    pub(crate) client: Option<Cow<'a, str>>,
    /// The word that its client gave it.
    pub(crate) label: Option<Cow<'a, str>>,
}

impl TaskRecord {
    /// The record of a request that just came in.
    pub fn new(msg_id: MsgId, packer: Packer, queue: Queue, request: Body, arrived: Date) -> Self {
        Self {
            msg_id,
            packer,
            queue,
            engine: None,
            reply_to: None,
            arrived,
            tried: Vec::new(),
            retries: None,
            lost: false,
            request,
            outcome: None,
            resubmitted: None,
            output: TaskOutput::default(),
            unread_bytes: (0, 0),
        }
    }

    /// Where it is on its way.
    pub fn state(&self) -> TaskState {
        match (&self.outcome, &self.engine) {
            (Some(outcome), _) => TaskState::Ended(outcome.status),
            (None, _) if self.lost => TaskState::Lost,
            (None, Some(_)) => TaskState::Running,
            (None, None) => TaskState::Waiting,
        }
    }

    /// It was sent to an engine.
    pub fn assign(&mut self, engine: EngineUuid, retries: u32) {
        self.engine = Some(engine);
        self.retries = Some(retries);
    }

    /// It waits for an engine again, seldom the one that had it.
    pub fn requeue(&mut self, retries: u32) {
        let engine = self.engine.take().filter(|engine| !self.tried.contains(engine));
        self.tried.extend(engine);
        self.retries = Some(retries);
    }

    /// When it ended.
    pub fn completed(&self) -> Option<Date> {
        self.outcome.as_ref().map(Outcome::completed)
    }

    /// Whether it is a service that was not stopped: it may live much longer than all that comes after it.
    pub(crate) fn is_live_service(&self) -> bool {
        // Asked of each task that is dropped, so a glance has to do for almost all of them.
        static LABEL: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(SERVICE_LABEL));
        self.outcome.is_none()
            && LABEL.find(self.request.metadata()).is_some()
            && TaskMetadata::read(self.packer, &self.request).is_ok_and(|metadata| metadata.extras.restart.is_some())
    }

    /// What it says of itself, all read at once.
    #[cfg(feature = "sqlite")]
    pub(crate) fn said(&self) -> Said<'_> {
        let [date, client] = self.packer.texts(self.request.header(), ["date", "session"]);
        let [label] = self.packer.texts(self.request.metadata(), ["label"]);
        Said { submitted: date.and_then(|date| Date::parse(&date)), client, label }
    }

    /// What its messages take, with buffers that are here or kept elsewhere.
    pub fn message_size(&self) -> RecordSize {
        let result = self.outcome.as_ref().map_or(0, |outcome| outcome.body.size_bytes() as u64);
        RecordSize {
            request_bytes: self.request.size_bytes() as u64 + self.unread_bytes.0,
            result_bytes: result + self.unread_bytes.1,
        }
    }

    /// What its messages and its output take, in bytes.
    pub fn size_bytes(&self) -> usize {
        let output = &self.output;
        let contents = [&output.execute_result, &output.display_data, &output.error];
        self.request.size_bytes()
            + self.outcome.as_ref().map_or(0, |outcome| outcome.body.size_bytes())
            + output.stdout.len()
            + output.stderr.len()
            + output.execute_input.as_ref().map_or(0, String::len)
            + contents.into_iter().flatten().map(Bytes::len).sum::<usize>()
    }

    /// Appends a piece of text, or puts a message in the place of the last of its kind.
    pub fn add_output(&mut self, piece: OutputPiece) {
        let output = &mut self.output;
        match piece {
            OutputPiece::Stdout(text) => output.stdout.push_str(&text),
            OutputPiece::Stderr(text) => output.stderr.push_str(&text),
            OutputPiece::ExecuteInput(code) => output.execute_input = Some(code),
            OutputPiece::ExecuteResult(content) => output.execute_result = Some(content),
            OutputPiece::DisplayData(content) => output.display_data = Some(content),
            OutputPiece::Error(content) => output.error = Some(content),
        }
    }

    /// When the client made it, by its header.
    pub fn submitted(&self) -> Option<Date> {
        let [date] = self.packer.texts(self.request.header(), ["date"]);
        Date::parse(&date?)
    }

    /// The session of its client, by its header.
    pub fn client(&self) -> Option<Cow<'_, str>> {
        let [session] = self.packer.texts(self.request.header(), ["session"]);
        session
    }

    /// The word that the client gave it: a text, unless the client is not a stock one.
    pub fn label(&self) -> Option<Value> {
        self.packer.unpack::<MetadataFacts>(self.request.metadata()).ok()?.label
    }

    /// What a `db_reply` shows of it: these fields after its id, or all that it has; never buffers.
    pub(crate) fn to_shown(&self, fields: Option<&[Field]>) -> Map<String, Value> {
        let mut shown = Map::new();
        shown.insert(Field::MsgId.name().to_owned(), self.msg_id.as_str().into());
        for field in fields.unwrap_or(Field::ALL) {
            match field {
                Field::Buffers | Field::ResultBuffers => {}
                Field::DisplayData if fields.is_none() && self.output.display_data.is_none() => {}
                Field::State if fields.is_none() => {}
                field => drop(shown.insert(field.name().to_owned(), self.datum(*field).into_value())),
            }
        }
        shown
    }

    /// What a `result_reply` says of it (`controller/hub.py: Hub._extract_record`).
    pub(crate) fn to_result(&self) -> Value {
        let value = |field: Field| self.datum(field).into_value();
        json!({
            "header": value(Field::Header),
            "metadata": value(Field::Metadata),
            "result_metadata": value(Field::ResultMetadata),
            "result_header": value(Field::ResultHeader),
            "result_content": value(Field::ResultContent),
            "received": value(Field::Received),
            "io": {
                "execute_input": value(Field::ExecuteInput),
                "execute_result": value(Field::ExecuteResult),
                "error": value(Field::Error),
                "stdout": value(Field::Stdout),
                "stderr": value(Field::Stderr),
            },
        })
    }

    /// The value of a field.
    pub(crate) fn datum(&self, field: Field) -> Datum<'_> {
        let text = |text: &'_ str| Datum::Text(Cow::Owned(text.to_owned()));
        let outcome = self.outcome.as_ref();
        let packed = |bytes: Option<&[u8]>| bytes.map_or(Datum::Null, |bytes| Datum::Json(part(self.packer, bytes)));
        let result = |read: fn(&Body) -> &[u8]| packed(outcome.map(|outcome| read(&outcome.body)));
        let date = |date: Option<Date>| date.map_or(Datum::Null, Datum::Date);
        match field {
            Field::MsgId => Datum::Text(Cow::Borrowed(self.msg_id.as_str())),
            Field::Header => packed(Some(self.request.header())),
            Field::Metadata => packed(Some(self.request.metadata())),
            Field::Content => packed(Some(self.request.content())),
            Field::Buffers => buffers(&self.request),
            Field::Submitted => date(self.submitted()),
            Field::ClientUuid => self.client().map_or(Datum::Null, Datum::Text),
            Field::EngineUuid => self.engine.as_ref().map_or(Datum::Null, |engine| text(engine.as_str())),
            Field::Started => date(outcome.and_then(Outcome::started)),
            Field::Completed => date(self.completed()),
            Field::Resubmitted => self.resubmitted.as_ref().map_or(Datum::Null, |msg_id| text(msg_id.as_str())),
            Field::Received => date(outcome.map(|outcome| outcome.received)),
            Field::ResultHeader => result(Body::header),
            Field::ResultMetadata => result(Body::metadata),
            Field::ResultContent => result(Body::content),
            Field::ResultBuffers => outcome.map_or(Datum::Null, |outcome| buffers(&outcome.body)),
            Field::Queue => Datum::Text(Cow::Borrowed(self.queue.name())),
            Field::ExecuteInput => self.output.execute_input.as_deref().map_or(Datum::Null, text),
            Field::ExecuteResult => packed(self.output.execute_result.as_deref()),
            Field::Error => packed(self.output.error.as_deref()),
            Field::Stdout => Datum::Text(Cow::Borrowed(&self.output.stdout)),
            Field::Stderr => Datum::Text(Cow::Borrowed(&self.output.stderr)),
            Field::Label => match self.label() {
                None | Some(Value::Null) => Datum::Null,
                Some(Value::String(text)) => Datum::Text(Cow::Owned(text)),
                Some(other) => Datum::Json(other),
            },
            Field::DisplayData => packed(self.output.display_data.as_deref()),
            Field::State => Datum::Text(Cow::Borrowed(self.state().name())),
        }
    }
}

impl Outcome {
    /// When the engine began, by the metadata of its reply.
    pub fn started(&self) -> Option<Date> {
        let [started] = self.packer.texts(self.body.metadata(), ["started"]);
        Date::parse(&started?)
    }

    /// When the reply was made, by its header. One that does not say counts as made when it came: whoever asks should not
    /// take the request for unfinished.
    pub fn completed(&self) -> Date {
        let [date] = self.packer.texts(self.body.header(), ["date"]);
        date.and_then(|date| Date::parse(&date)).unwrap_or(self.received)
    }
}

impl Datum<'_> {
    fn into_value(self) -> Value {
        match self {
            Self::Null | Self::Bytes => Value::Null,
            Self::Date(date) => date.to_string().into(),
            Self::Text(text) => text.into_owned().into(),
            Self::Json(value) => value,
        }
    }
}

impl OutputPiece {
    /// What it takes, in bytes.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Stdout(text) | Self::Stderr(text) | Self::ExecuteInput(text) => text.len(),
            Self::ExecuteResult(content) | Self::DisplayData(content) | Self::Error(content) => content.len(),
        }
    }

    /// What of an iopub message belongs in a record; `None` for a type that does not.
    ///
    /// # Errors
    /// What is wrong with its content.
    pub fn read(packer: Packer, msg_type: &MsgType, body: &Body) -> Option<Result<Self, String>> {
        let content = || Bytes::copy_from_slice(body.content());
        Some(match msg_type {
            MsgType::Stream => match packer.unpack::<Stream>(body.content()) {
                Ok(stream) if stream.name == "stdout" => Ok(Self::Stdout(stream.text)),
                Ok(stream) if stream.name == "stderr" => Ok(Self::Stderr(stream.text)),
                Ok(stream) => Err(format!("no stream is called `{}`", stream.name)),
                Err(error) => Err(error.to_string()),
            },
            MsgType::ExecuteInput => match packer.unpack::<Code>(body.content()) {
                Ok(Code { code }) => Ok(Self::ExecuteInput(code)),
                Err(error) => Err(error.to_string()),
            },
            MsgType::ExecuteResult => Ok(Self::ExecuteResult(content())),
            MsgType::DisplayData => Ok(Self::DisplayData(content())),
            MsgType::Error => Ok(Self::Error(content())),
            _ => return None,
        })
    }
}

/// The content of an `execute_input`.
#[derive(Deserialize)]
struct Code {
    code: String,
}

/// The buffers of a message in order, shared where they are large.
pub(crate) fn all_buffers(body: &Body) -> impl Iterator<Item = Bytes> + '_ {
    (0..body.buffer_count()).filter_map(|index| body.buffer(index))
}

fn buffers(body: &Body) -> Datum<'static> {
    if body.buffer_count() == 0 { Datum::Json(Value::Array(Vec::new())) } else { Datum::Bytes }
}

/// A packed part as a value. What cannot be read is shown as an empty map: records are data, and one that is damaged
/// must not keep the others from being shown.
fn part(packer: Packer, bytes: &[u8]) -> Value {
    packer.unpack(bytes).unwrap_or_else(|_| Value::Object(Map::new()))
}
