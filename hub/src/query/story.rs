//! `story_request`: what happened to tasks, and why they are where they are. Stock clients never send it.

use std::borrow::Cow;

use remuda_proto::message::content::OkStatus;
use remuda_proto::message::metadata::ReplyEnvelope;
use remuda_proto::message::story::{
    BroadcastStory, EngineName, Finished, Forgotten, Known, LiveTask, MAX_ASKED, MAX_NAMED, Sent, Story, StoryReply,
    StoryRequest, TaskState, TaskStory, Told,
};
use remuda_proto::message::{Envelope, MsgType, parent_msg_id};
use remuda_proto::monitor::Queue;
use remuda_proto::{EngineUuid, Map, MsgId, Now, RemoteError, Set, Status};
use serde_json::{Value, json};

use super::{Answer, Query, send, send_error, type_error};
use crate::find;
use crate::hub::{Effect, Hub};
use crate::question::{ANSWER_WITHIN, About, Meant, Question};
use crate::record::TaskRecord;
use crate::store::Buffers;
use crate::tracking::LivePlace;

/// Most ids that begin alike and are taken note of.
const MAX_ALIKE: usize = 10_000;

/// Asks the task scheduler about the tasks that are meant. The answer is for [`answer`], once that has answered.
pub(super) fn ask(hub: &mut Hub, now: Now, query: Query, out: &mut Vec<Effect>) {
    let texts = match hub.questions.has_room().and_then(|()| read(&query)) {
        Ok(texts) => texts,
        Err(error) => return send_error(hub, now, &query, &error, out),
    };
    let meant: Vec<_> = texts.into_iter().map(|text| (text.clone(), meant(hub, &text))).collect();
    let tasks: Set<MsgId> = meant
        .iter()
        .filter_map(|(_, meant)| if let Meant::Task(id) = meant { Some(id.clone()) } else { None })
        .collect();
    let tasks: Vec<MsgId> = tasks.into_iter().collect();
    let question = hub.questions.ask(now.instant, query, About::Stories(meant), tasks.clone());
    out.push(Effect::Explain { question, msg_ids: tasks, whole: false });
}

fn read(query: &Query) -> Result<Vec<String>, RemoteError> {
    let content = Value::Object(query.content.clone());
    let request: StoryRequest = serde_json::from_value(content)
        .map_err(|error| type_error(format!("`msg_ids` of a story_request is a list of ids: {error}")))?;
    if request.msg_ids.len() > MAX_ASKED {
        let text = format!("{} ids are too many at a time: ask for {MAX_ASKED} at most", request.msg_ids.len());
        return Err(RemoteError::new("ValueError", text));
    }
    Ok(request.msg_ids)
}

/// What a text stands for: the task of that id, or else those whose ids begin so.
fn meant(hub: &mut Hub, text: &str) -> Meant {
    let exact = MsgId::from(text);
    let is_known = hub.tracking.is_live(&exact) || hub.tracking.is_finished(&exact);
    if text.is_empty() || is_known || !records(hub, std::slice::from_ref(&exact)).is_empty() {
        return Meant::Task(exact);
    }
    let mut alike: Set<MsgId> = hub.store.ids(text, MAX_ALIKE).unwrap_or_default().into_iter().collect();
    alike.extend(hub.tracking.alike(text, MAX_ALIKE));
    let Some(first) = alike.first().cloned() else { return Meant::Task(exact) };
    if alike.len() == 1 {
        return Meant::Task(first);
    }
    let ids: Vec<MsgId> = alike.into_iter().collect();
    // Only where the first is a copy of a broadcast are all worth a look.
    let records_of_first = records(hub, std::slice::from_ref(&first));
    let Some(original) = original(hub, &first, &records_of_first) else { return Meant::Several(ids) };
    let records = records(hub, &ids);
    if ids.iter().all(|id| self::original(hub, id, &records).as_ref() == Some(&original)) {
        Meant::Copies { original, ids }
    } else {
        Meant::Several(ids)
    }
}

/// The records of these requests, as far as there are any. Without a store, and where it fails, there are none: a story is
/// then told of what is known without.
fn records(hub: &mut Hub, ids: &[MsgId]) -> Map<MsgId, TaskRecord> {
    let found = hub.store.find(&find::Query::tasks(ids), Buffers::default()).unwrap_or_default();
    found.into_iter().map(|record| (record.msg_id.clone(), record)).collect()
}

/// The id that the client of a broadcast knows, for that of one copy.
fn original(hub: &Hub, copy: &MsgId, records: &Map<MsgId, TaskRecord>) -> Option<MsgId> {
    let engine = match hub.tracking.place(copy) {
        Some(LivePlace::Direct { queue: Queue::Broadcast, engine, .. }) => Some(engine.clone()),
        _ => {
            records.get(copy).filter(|record| record.queue == Queue::Broadcast).and_then(|record| record.engine.clone())
        }
    };
    let original = copy.as_str().strip_suffix(engine?.as_str())?.strip_suffix('_')?;
    Some(MsgId::from(original))
}

/// Answers a question about stories, with what has been said by now.
pub(super) fn answer(hub: &mut Hub, now: Now, question: &Question, asked: &[(String, Meant)], out: &mut Vec<Effect>) {
    let mut stories = tasks(hub, question);
    let told = asked.iter().map(|(asked, meant)| {
        let told = match meant {
            Meant::Task(id) => stories.get_mut(id).and_then(Option::take),
            Meant::Copies { original, ids } => Some(Told::Broadcast(Box::new(broadcast(hub, original, ids)))),
            Meant::Several(ids) => {
                let msg_ids = ids.iter().take(MAX_NAMED).cloned().collect();
                Some(Told::Several { count: ids.len() as u64, msg_ids })
            }
        };
        (asked.clone(), told)
    });
    let told: Vec<_> = told.collect();
    let stories = told.into_iter().map(|(asked, told)| Story { asked, told: told.unwrap_or(Told::Unknown) });
    let reply = StoryReply { status: OkStatus::Ok, now: now.date, stories: stories.collect() };
    send(hub, now, &question.query, MsgType::StoryReply, &Answer::new(json!(reply)), out);
}

/// The stories of the tasks that a question names.
pub(super) fn tasks(hub: &mut Hub, question: &Question) -> Map<MsgId, Option<Told>> {
    let records = records(hub, &question.tasks);
    let said = question.explanation.as_ref().map(|explanation| &explanation.tasks);
    let stories = question.tasks.iter().enumerate().map(|(at, id)| {
        let said = said.and_then(|tasks| tasks.get(at));
        let story = task(hub, id, records.get(id), said);
        (id.clone(), story.map(|story| Told::Task(Box::new(story))))
    });
    stories.collect()
}

/// The story of one task; `None` if nobody knows it. `said` is what the task scheduler said, if it did.
fn task(hub: &Hub, id: &MsgId, record: Option<&TaskRecord>, said: Option<&Known>) -> Option<TaskStory> {
    let live = if let Some(Known::Live(live)) = said { Some(&**live) } else { None };
    let place = hub.tracking.place(id);
    let state = state(hub, id, record, said, place.as_ref())?;
    let queue = match (record, &place, said) {
        (Some(record), _, _) => Some(record.queue),
        (None, Some(LivePlace::Direct { queue, .. }), _) => Some(*queue),
        (None, Some(LivePlace::Task), _) | (None, None, Some(Known::Live(_) | Known::Finished(_))) => Some(Queue::Task),
        (None, None, _) => None,
    };
    let request = request_of(hub, id, record, live, queue);
    let packer = request.as_ref().map(|request| request.packer);
    let mut story = TaskStory {
        msg_id: id.clone(),
        msg_type: request
            .as_ref()
            .and_then(|request| Envelope::read(request.packer, &request.request).ok())
            .map(|envelope| envelope.msg_type.as_str().to_owned())
            .unwrap_or_default(),
        queue: queue.map(|queue| queue.name().to_owned()).unwrap_or_default(),
        client: request.as_ref().and_then(TaskRecord::client).map(Cow::into_owned),
        label: request.as_ref().and_then(TaskRecord::label).filter(|label| !label.is_null()),
        parent: request.as_ref().zip(packer).and_then(|(of, packer)| parent_msg_id(packer, &of.request).ok().flatten()),
        submitted: request.as_ref().and_then(TaskRecord::submitted),
        retries_left: live.map(|live| live.retries_left),
        attempts: live.map(|live| live.attempts.clone()).unwrap_or_default(),
        tried: live.map_or(0, |live| live.tried),
        resubmitted: record.and_then(|record| record.resubmitted.clone()),
        on_record: record.is_some(),
        state,
    };
    if live.is_none()
        && let Some((attempts, tried)) = hub.tracking.attempts(id)
    {
        story.attempts = attempts.to_vec();
        story.tried = tried;
    }
    let named = story.attempts.iter_mut().map(|attempt| &mut attempt.engine).chain(story.state.engines_mut());
    named.for_each(|engine| *engine = name(hub, &engine.uuid));
    Some(story)
}

/// The request, as a record from which its parts can be read.
fn request_of(
    hub: &Hub,
    id: &MsgId,
    record: Option<&TaskRecord>,
    live: Option<&LiveTask>,
    queue: Option<Queue>,
) -> Option<TaskRecord> {
    record.cloned().or_else(|| {
        let body = live?.request.clone();
        Some(TaskRecord::new(id.clone(), hub.session.packer(), queue?, None, body))
    })
}

/// Where a task is; `None` if nobody knows it.
fn state(
    hub: &Hub,
    id: &MsgId,
    record: Option<&TaskRecord>,
    said: Option<&Known>,
    place: Option<&LivePlace<'_>>,
) -> Option<TaskState> {
    if let Some(finished) = record.and_then(finished) {
        return Some(TaskState::Finished(finished));
    }
    if let Some(Known::Live(live)) = said {
        return Some(live.state.clone());
    }
    match place {
        Some(LivePlace::Direct { engine, unanswered, .. }) => {
            return Some(TaskState::Sent(Sent { engine: EngineName::from(*engine), unanswered: *unanswered as u64 }));
        }
        Some(LivePlace::Task) if said.is_none() => {
            let waited_ms = u64::try_from(ANSWER_WITHIN.as_millis()).unwrap_or(u64::MAX);
            return Some(TaskState::Untold { waited_ms });
        }
        Some(LivePlace::Task) | None => {}
    }
    if let Some(Known::Finished(ended)) = said {
        return Some(TaskState::Forgotten(ended.clone()));
    }
    if hub.tracking.is_finished(id) {
        return Some(TaskState::Forgotten(Forgotten::default()));
    }
    record.is_some().then_some(TaskState::Lost)
}

fn finished(record: &TaskRecord) -> Option<Finished> {
    let outcome = record.outcome.as_ref()?;
    let status = ReplyEnvelope::read(record.packer, &outcome.body).ok().and_then(|reply| reply.status);
    let status = status.unwrap_or(Status::Error);
    let error = || record.packer.unpack::<RemoteError>(outcome.body.content()).ok().map(|error| error.to_string());
    Some(Finished {
        status,
        error: if status == Status::Error { error() } else { None },
        engine: record.engine.as_ref().map(EngineName::from),
        started: outcome.started(record.packer),
        completed: outcome.completed(record.packer),
        received: outcome.received,
    })
}

/// The story of a broadcast.
fn broadcast(hub: &mut Hub, original: &MsgId, ids: &[MsgId]) -> BroadcastStory {
    let records = records(hub, ids);
    let first = records.values().next();
    let mut story = BroadcastStory {
        msg_id: original.clone(),
        client: first.and_then(TaskRecord::client).map(Cow::into_owned),
        submitted: first.and_then(TaskRecord::submitted),
        engines: ids.len() as u64,
        ok: 0,
        failed: 0,
        forgotten: 0,
        missing: 0,
        named: Vec::new(),
    };
    for id in ids {
        match (hub.tracking.place(id), records.get(id).map(finished)) {
            (Some(LivePlace::Direct { engine, .. }), _) => {
                story.missing += 1;
                if story.named.len() < MAX_NAMED {
                    story.named.push(name(hub, engine));
                }
            }
            (_, Some(Some(finished))) if finished.status == Status::Ok => story.ok += 1,
            (_, Some(_)) => story.failed += 1,
            (_, None) => story.forgotten += 1,
        }
    }
    story
}

/// An engine by both of its names.
fn name(hub: &Hub, uuid: &EngineUuid) -> EngineName {
    let id = hub.registry.by_uuid(uuid.as_str()).map(|engine| engine.id);
    EngineName { id, uuid: uuid.clone() }
}
