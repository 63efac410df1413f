//! What is kept of a request: the messages as they came. Their parts are read when somebody asks for them, which for
//! most tasks is never.

use remuda_proto::message::MsgType;
use remuda_proto::monitor::Queue;
use remuda_proto::{Body, Date, EngineUuid, MsgId, Packer};
use serde_json::{Map, Value, json};

/// A request, and what became of it (`controller/hub.py: empty_record`).
#[derive(Clone, Debug)]
pub struct TaskRecord {
    /// Names it.
    pub msg_id: MsgId,
    /// Which scheduler took it.
    pub queue: Queue,
    /// Where it is or was last sent. `None` while it waits.
    pub engine: Option<EngineUuid>,
    /// The request.
    pub request: Body,
    /// The reply, once there is one.
    pub outcome: Option<Outcome>,
    /// What its engine published for it.
    pub output: TaskOutput,
}

/// The reply to a request, as the client got it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The engine that it came from; `None` when the controller made it.
    pub engine: Option<EngineUuid>,
    /// The reply.
    pub body: Body,
    /// When the hub learned of it.
    pub received: Date,
}

/// What an engine published for one request.
#[derive(Clone, Debug, Default)]
pub struct TaskOutput {
    /// All its text on stdout.
    pub stdout: String,
    /// All its text on stderr.
    pub stderr: String,
    /// The last message that said which code ran.
    pub execute_input: Option<Body>,
    /// The last result of an expression.
    pub execute_result: Option<Body>,
    /// The last thing displayed. Stock keeps it under a key that its records do not declare.
    pub display_data: Option<Body>,
    /// The last error.
    pub error: Option<Body>,
}

/// One piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputPiece {
    /// More text on stdout.
    Stdout(String),
    /// More text on stderr.
    Stderr(String),
    /// Which code ran.
    ExecuteInput(Body),
    /// The result of an expression.
    ExecuteResult(Body),
    /// Something displayed.
    DisplayData(Body),
    /// An error.
    Error(Body),
}

impl TaskRecord {
    /// The record of a request that just came in.
    pub fn new(msg_id: MsgId, queue: Queue, engine: Option<EngineUuid>, request: Body) -> Self {
        Self { msg_id, queue, engine, request, outcome: None, output: TaskOutput::default() }
    }

    /// What its messages and its output take, in bytes.
    pub fn size_bytes(&self) -> usize {
        let output = &self.output;
        let bodies = [&output.execute_input, &output.execute_result, &output.display_data, &output.error];
        self.request.size_bytes()
            + self.outcome.as_ref().map_or(0, |outcome| outcome.body.size_bytes())
            + output.stdout.len()
            + output.stderr.len()
            + bodies.into_iter().flatten().map(Body::size_bytes).sum::<usize>()
    }

    /// Appends a piece of text, or puts a message in the place of the last of its kind.
    pub fn add_output(&mut self, piece: OutputPiece) {
        let output = &mut self.output;
        match piece {
            OutputPiece::Stdout(text) => output.stdout.push_str(&text),
            OutputPiece::Stderr(text) => output.stderr.push_str(&text),
            OutputPiece::ExecuteInput(body) => output.execute_input = Some(body),
            OutputPiece::ExecuteResult(body) => output.execute_result = Some(body),
            OutputPiece::DisplayData(body) => output.display_data = Some(body),
            OutputPiece::Error(body) => output.error = Some(body),
        }
    }

    /// When the client made it, by its header.
    pub fn submitted(&self, packer: Packer) -> Option<Date> {
        Date::parse(part(packer, self.request.header()).get("date")?.as_str()?)
    }

    /// What a `result_reply` says of it (`controller/hub.py: Hub._extract_record`).
    pub fn to_result(&self, packer: Packer) -> Value {
        let outcome = |read: fn(&Body) -> &[u8]| {
            self.outcome.as_ref().map_or(Value::Null, |outcome| part(packer, read(&outcome.body)))
        };
        let content = |body: &Option<Body>| body.as_ref().map_or(Value::Null, |body| part(packer, body.content()));
        let execute_input = content(&self.output.execute_input).get("code").cloned().unwrap_or(Value::Null);
        json!({
            "header": part(packer, self.request.header()),
            "metadata": part(packer, self.request.metadata()),
            "result_metadata": outcome(Body::metadata),
            "result_header": outcome(Body::header),
            "result_content": outcome(Body::content),
            "received": self.outcome.as_ref().map(|outcome| outcome.received.to_string()),
            "io": {
                "execute_input": execute_input,
                "execute_result": content(&self.output.execute_result),
                "error": content(&self.output.error),
                "stdout": self.output.stdout,
                "stderr": self.output.stderr,
            },
        })
    }
}

impl OutputPiece {
    /// What of an iopub message belongs in a record; `None` for a type that does not.
    ///
    /// # Errors
    /// What is wrong with the content of a `stream`.
    pub fn read(packer: Packer, msg_type: &MsgType, body: &Body) -> Option<Result<Self, String>> {
        Some(match msg_type {
            MsgType::Stream => match packer.unpack::<remuda_proto::message::content::Stream>(body.content()) {
                Ok(stream) if stream.name == "stdout" => Ok(Self::Stdout(stream.text)),
                Ok(stream) if stream.name == "stderr" => Ok(Self::Stderr(stream.text)),
                Ok(stream) => Err(format!("no stream is called `{}`", stream.name)),
                Err(error) => Err(error.to_string()),
            },
            MsgType::ExecuteInput => Ok(Self::ExecuteInput(body.clone())),
            MsgType::ExecuteResult => Ok(Self::ExecuteResult(body.clone())),
            MsgType::DisplayData => Ok(Self::DisplayData(body.clone())),
            MsgType::Error => Ok(Self::Error(body.clone())),
            _ => return None,
        })
    }
}

/// A packed part as a value. What cannot be read is shown as an empty map: records are data, and one that is damaged
/// must not keep the others from being shown.
fn part(packer: Packer, bytes: &[u8]) -> Value {
    packer.unpack(bytes).unwrap_or_else(|_| Value::Object(Map::new()))
}
