//! Queries of clients and engines (`controller/hub.py: Hub.dispatch_query`), a file for each family.

mod connection;
pub(crate) mod db;
mod definition;
mod drain;
mod dump;
mod load;
mod purge;
mod queue;
mod registration;
mod resubmit;
mod result;
mod shutdown;
mod story;
mod target;

use bytes::Bytes;
use remuda_proto::message::{Envelope, MsgType};
use remuda_proto::{Body, EngineId, Idents, Map as IdMap, MsgId, Now, Refusal, RemoteError};
use serde_json::{Map, Value, json};

use crate::asks::Then;
use crate::hub::{Effect, Hub, refuse};
use crate::question::{About, Question};
use crate::record::TaskRecord;
use crate::repr;
use crate::store::{self, Ask, StoreError};
use crate::tracking::Seen;

/// A query that was verified and read.
#[derive(Debug)]
pub(crate) struct Query {
    /// Where it came from.
    from: Idents,
    /// The message.
    body: Body,
    /// What it asks.
    msg_type: MsgType,
    /// Its content, which is a map.
    content: Map<String, Value>,
}

/// What a query is answered with.
struct Answer {
    content: Value,
    buffers: Vec<Bytes>,
}

impl Answer {
    fn new(content: Value) -> Self {
        Self { content, buffers: Vec::new() }
    }

    /// `{"status": "ok"}`.
    fn ok() -> Self {
        Self::new(json!({"status": "ok"}))
    }

    /// An error in a reply of the usual type. Most errors are a `hub_error` instead; the file of each family says which.
    fn error(error: &RemoteError) -> Self {
        Self::new(serde_json::to_value(error.content()).expect("an error is plain data"))
    }
}

/// What a query needs an answer of the store for, and what it knew when it asked.
#[derive(Debug)]
pub(crate) enum Awaited {
    /// `db_request`: what of the records is shown.
    Records(Box<db::Shown>),
    /// `result_request`.
    Results {
        /// The requests, as they were known.
        ids: Vec<(MsgId, Seen)>,
        /// Whether only their status is wanted.
        status_only: bool,
        /// Whether those that nobody knows are listed, and are no error.
        lists_unknown: bool,
    },
    /// `history_request`.
    History,
    /// `resubmit_request`: what is to be repeated.
    Resubmitted(Vec<MsgId>),
    /// `process_definition_request`.
    Definitions,
    /// `story_request`: the texts that are asked for, of which some were looked up.
    Meant(Vec<String>),
}

/// How far a query is answered.
enum Dealt {
    /// It is.
    With(Answer),
    /// The store is asked first.
    Asks(Ask, Awaited),
}

impl From<Answer> for Dealt {
    fn from(answer: Answer) -> Self {
        Self::With(answer)
    }
}

/// Answers a query, or asks the store what it needs for that, or says why it has no answer.
pub(crate) fn answer(hub: &mut Hub, now: Now, from: Idents, body: Body, out: &mut Vec<Effect>) {
    let query = match read(hub, from.clone(), body) {
        Ok(Ok(query)) => query,
        Ok(Err((query, error))) => return send_error(hub, now, &query, &error, out),
        // Stock means to answer such a message, and fails at it: nobody gets an answer (wire reference, 4.1).
        Err(refusal) => return refuse(out, from.into_iter().next(), refusal),
    };
    let dealt = match &query.msg_type {
        MsgType::ConnectionRequest => Ok(connection::answer(hub, &query).into()),
        MsgType::RegistrationRequest => return registration::register(hub, now, &query, out),
        MsgType::UnregistrationRequest => return registration::unregister(hub, now, query, out),
        MsgType::ShutdownRequest => return shutdown::answer(hub, now, &query, out),
        MsgType::StoryRequest => return story::ask(hub, now, query, out),
        MsgType::DumpRequest => return dump::ask(hub, now, query, out),
        MsgType::QueueRequest => queue::answer(hub, &query).map(Dealt::With),
        MsgType::LoadRequest => load::answer(hub, &query).map(Dealt::With),
        MsgType::DrainRequest => drain::answer(hub, now, &query, out).map(Dealt::With),
        MsgType::ResultRequest => result::ask(hub, &query),
        MsgType::HistoryRequest => Ok(Dealt::Asks(Ask::History, Awaited::History)),
        MsgType::PurgeRequest => purge::answer(hub, &query, out).map(Dealt::With),
        MsgType::DbRequest => Ok(db::ask(&query)),
        MsgType::ResubmitRequest => resubmit::ask(&query),
        MsgType::ProcessDefinitionRequest => definition::ask(&query, now.date),
        MsgType::Other(name) if matches!(&**name, "become_dask_request" | "stop_distributed_request") => {
            Err(not_supported(&query.msg_type))
        }
        msg_type => {
            let text = format!("Bad Message Type: {}", repr::text(msg_type.as_str()));
            Err(key_error(&text))
        }
    };
    match dealt {
        Ok(Dealt::With(answer)) => send(hub, now, &query, query.msg_type.reply(), &answer, out),
        Ok(Dealt::Asks(ask, awaited)) => ask_store(hub, now, query, ask, awaited, out),
        Err(error) => send_error(hub, now, &query, &error, out),
    }
}

/// Asks the store for the sake of a query.
fn ask_store(hub: &mut Hub, now: Now, query: Query, ask: Ask, awaited: Awaited, out: &mut Vec<Effect>) {
    match hub.asks.has_room() {
        Ok(()) => hub.ask(ask, Then::Query { query, awaited }, out),
        Err(error) => send_error(hub, now, &query, &error, out),
    }
}

/// Goes on with a query for which the store has answered.
pub(crate) fn resume(
    hub: &mut Hub,
    now: Now,
    query: Query,
    awaited: Awaited,
    answer: Result<store::Answer, StoreError>,
    out: &mut Vec<Effect>,
) {
    let answer = match (answer, awaited) {
        // The store is not needed for a story.
        (answer, Awaited::Meant(texts)) => return story::meant(hub, now, query, texts, answer, out),
        (Err(StoreError::NoData), Awaited::Results { ids, status_only: true, lists_unknown }) => {
            result::answer(&ids, true, lists_unknown, &IdMap::default())
        }
        (Err(error), _) => Ok(Answer::error(&store_error(&error))),
        (Ok(store::Answer::Records(records)), Awaited::Records(shown)) => Ok(db::answer(&records, &shown)),
        (Ok(store::Answer::Records(records)), Awaited::Results { ids, status_only, lists_unknown }) => {
            result::answer(&ids, status_only, lists_unknown, &by_id(records))
        }
        (Ok(store::Answer::Records(records)), Awaited::Resubmitted(ids)) => {
            Ok(resubmit::answer(hub, now, &ids, records, out))
        }
        (Ok(store::Answer::Definitions(answer)), Awaited::Definitions) => definition::answer(answer),
        (Ok(store::Answer::History(history)), Awaited::History) => {
            Ok(Answer::new(json!({"status": "ok", "history": history})))
        }
        (Ok(answer), awaited) => panic!("the store answers {answer:?} where {awaited:?} waits"),
    };
    match answer {
        Ok(answer) => send(hub, now, &query, query.msg_type.reply(), &answer, out),
        Err(error) => send_error(hub, now, &query, &error, out),
    }
}

/// Asks the store about the tasks of a question for which all other parts have answered, or had the time to.
pub(crate) fn answer_question(hub: &mut Hub, question: Question, out: &mut Vec<Effect>) {
    let (ask, seen) = story::ask_records(hub, &question);
    hub.ask(ask, Then::Question { question: Box::new(question), seen }, out);
}

/// Answers such a question. Without a store, and where it fails, there are no records: what is known without is told.
pub(crate) fn tell(
    hub: &mut Hub,
    now: Now,
    question: &Question,
    seen: &IdMap<MsgId, Seen>,
    answer: Result<store::Answer, StoreError>,
    out: &mut Vec<Effect>,
) {
    let records = match answer {
        Ok(store::Answer::Records(records)) => by_id(records),
        Ok(other) => panic!("asked for records, the store answers {other:?}"),
        Err(_) => IdMap::default(),
    };
    let known = story::Facts { records, seen };
    match &question.about {
        About::Stories(asked) => story::answer(hub, now, question, asked, &known, out),
        About::Controller => dump::answer(hub, now, question, &known, out),
    }
}

fn by_id(records: Vec<TaskRecord>) -> IdMap<MsgId, TaskRecord> {
    records.into_iter().map(|record| (record.msg_id.clone(), record)).collect()
}

/// Verifies and reads a query; inside, an error to answer it with.
fn read(hub: &mut Hub, from: Idents, body: Body) -> Result<Result<Query, (Query, RemoteError)>, Refusal> {
    hub.session.key().verify(&body)?;
    hub.seen.check(&body)?;
    let packer = hub.session.packer();
    let Envelope { msg_type, .. } = Envelope::read(packer, &body)?;
    if let Err(refusal) = Refusal::check_size(&body, hub.config.max_message_bytes) {
        let error = RemoteError::new("ValueError", refusal.to_string());
        return Ok(Err((Query { from, body, msg_type, content: Map::new() }, error)));
    }
    let content: Value = packer.unpack(body.content())?;
    Ok(match content {
        Value::Object(content) => Ok(Query { from, body, msg_type, content }),
        other => {
            let error = type_error(format!("the content is not a map: {}", repr::value(&other)));
            Err((Query { from, body, msg_type, content: Map::new() }, error))
        }
    })
}

fn send(hub: &mut Hub, now: Now, query: &Query, msg_type: MsgType, answer: &Answer, out: &mut Vec<Effect>) {
    let parent = Some(query.body.header());
    let made = hub.session.message(now.date, msg_type, parent, &json!({}), &answer.content, &answer.buffers);
    let body = made.expect("contents of our own can be packed").1;
    out.push(Effect::Reply { to: query.from.clone(), body });
}

fn send_error(hub: &mut Hub, now: Now, query: &Query, error: &RemoteError, out: &mut Vec<Effect>) {
    send(hub, now, query, MsgType::HubError, &Answer::error(error), out);
}

impl Query {
    /// Whether the sender asks for what only Remuda says.
    fn wants_remuda(&self) -> bool {
        self.content.contains_key("remuda")
    }

    /// A value that must be there.
    fn required(&self, key: &str) -> Result<&Value, RemoteError> {
        self.content.get(key).ok_or_else(|| key_error(key))
    }

    /// A value that counts as true where Python would take it for true; false if it is not there.
    fn flag(&self, key: &str) -> bool {
        match self.content.get(key) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(flag)) => *flag,
            Some(Value::Number(number)) => number.as_f64() != Some(0.0),
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::Object(map)) => !map.is_empty(),
        }
    }
}

/// Ids of requests: one, a list, or null for none.
fn msg_ids(key: &str, value: &Value) -> Result<Vec<MsgId>, RemoteError> {
    let id = |value: &Value| match value {
        Value::String(id) => Ok(MsgId::from(&**id)),
        other => Err(type_error(format!("`{key}` holds what is no message id: {}", repr::value(other)))),
    };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(ids) => ids.iter().map(id).collect(),
        one => Ok(vec![id(one)?]),
    }
}

/// An engine id, if it can be one.
fn engine_id(value: &Value) -> Option<EngineId> {
    value.as_u64().and_then(|id| u32::try_from(id).ok()).map(EngineId)
}

/// Python's `KeyError`, whose text is the `repr` of what is missing.
fn key_error(key: &str) -> RemoteError {
    RemoteError::new("KeyError", repr::text(key))
}

fn index_error(text: String) -> RemoteError {
    RemoteError::new("IndexError", text)
}

fn type_error(text: String) -> RemoteError {
    RemoteError::new("TypeError", text)
}

fn not_supported(msg_type: &MsgType) -> RemoteError {
    RemoteError::new("NotImplementedError", format!("{msg_type} is not supported by this controller"))
}

/// Why records have no answer. What stock raises when it keeps none (`controller/dictdb.py: NoDB`) has a blank at the end.
fn store_error(error: &StoreError) -> RemoteError {
    match error {
        StoreError::NoData => RemoteError::new("NoData", "NoDB backend doesn't store any data. "),
        failed @ StoreError::Failed(_) => RemoteError::new("OperationalError", failed.to_string()),
    }
}
