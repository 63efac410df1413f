//! `story_request`: what happened to tasks, and why they are where they are. Stock clients never send it.

use std::borrow::Cow;

use remuda_proto::message::content::OkStatus;
use remuda_proto::message::story::{
    BroadcastStory, EngineName, Finished, Forgotten, Known, LiveTask, MAX_ASKED, MAX_NAMED, Sent, Story, StoryReply,
    StoryRequest, TaskState, TaskStory, Told,
};
use remuda_proto::message::{Envelope, MsgType, parent_msg_id};
use remuda_proto::monitor::Queue;
use remuda_proto::{Date, EngineUuid, Map, MsgId, Now, RemoteError, Set, Status};
use serde_json::{Value, json};

use super::{Answer, Awaited, Query, ask_store, send, send_error, type_error};
use crate::hub::{Effect, Hub};
use crate::question::{ANSWER_WITHIN, About, Meant, Question};
use crate::record::TaskRecord;
use crate::store::{self, Alike, Ask, Find, StoreError};
use crate::tracking::{LivePlace, Seen};

/// Most ids that begin alike and are taken note of.
const MAX_ALIKE: usize = 10_000;

/// What the answer to a question is made of, besides what other parts of the controller said.
pub(super) struct Facts<'a> {
    /// The records of its tasks, as far as there are any.
    pub(super) records: Map<MsgId, TaskRecord>,
    /// How the hub saw these tasks when they were asked for.
    pub(super) seen: &'a Map<MsgId, Seen>,
}

impl Facts<'_> {
    fn place(&self, id: &MsgId) -> Option<&LivePlace> {
        match self.seen.get(id) {
            Some(Seen::Live(place)) => Some(place),
            Some(Seen::Finished | Seen::Unknown) | None => None,
        }
    }
}

/// Finds out what is meant by the texts of a query. The ids that the hub does not know are looked up.
pub(super) fn ask(hub: &mut Hub, now: Now, query: Query, out: &mut Vec<Effect>) {
    let texts = match hub.questions.has_room().and_then(|()| read(&query)) {
        Ok(texts) => texts,
        Err(error) => return send_error(hub, now, &query, &error, out),
    };
    let beginnings: Vec<_> = texts.iter().filter(|text| is_looked_up(hub, text)).cloned().collect();
    if beginnings.is_empty() {
        return ask_scheduler(hub, now, query, texts, &Map::default(), out);
    }
    ask_store(hub, now, query, Ask::Alike { beginnings, most: MAX_ALIKE }, Awaited::Meant(texts), out);
}

/// Whether the hub does not know what a text means.
fn is_looked_up(hub: &Hub, text: &str) -> bool {
    !text.is_empty() && hub.tracking.see(&MsgId::from(text)) == Seen::Unknown
}

/// The store has said what begins with the texts that were looked up; without a store, nothing does.
pub(super) fn meant(
    hub: &mut Hub,
    now: Now,
    query: Query,
    texts: Vec<String>,
    answer: Result<store::Answer, StoreError>,
    out: &mut Vec<Effect>,
) {
    if let Err(error) = hub.questions.has_room() {
        return send_error(hub, now, &query, &error, out);
    }
    let found = match answer {
        // More texts may be known by now than when it was asked: they are known to the store, too.
        Ok(store::Answer::Alike(found)) => found.into_iter().filter(|alike| !alike.is_empty()).collect(),
        Ok(other) => panic!("asked what begins alike, the store answers {other:?}"),
        Err(_) => Vec::new(),
    };
    let found = found.into_iter().flatten().map(|alike: Alike| (alike.msg_id.clone(), alike)).collect();
    ask_scheduler(hub, now, query, texts, &found, out);
}

/// Asks the task scheduler about the tasks that are meant. The answer is for [`answer`], once that has answered.
fn ask_scheduler(
    hub: &mut Hub,
    now: Now,
    query: Query,
    texts: Vec<String>,
    found: &Map<MsgId, Alike>,
    out: &mut Vec<Effect>,
) {
    let meant: Vec<_> = texts.into_iter().map(|text| (text.clone(), what_is_meant(hub, &text, found))).collect();
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
fn what_is_meant(hub: &Hub, text: &str, found: &Map<MsgId, Alike>) -> Meant {
    let exact = MsgId::from(text);
    if !is_looked_up(hub, text) || found.contains_key(&exact) {
        return Meant::Task(exact);
    }
    let on_record = found.keys().filter(|id| id.as_str().starts_with(text)).cloned();
    let mut alike: Set<MsgId> = on_record.collect();
    alike.extend(hub.tracking.alike(text, MAX_ALIKE));
    let Some(first) = alike.first().cloned() else { return Meant::Task(exact) };
    if alike.len() == 1 {
        return Meant::Task(first);
    }
    let ids: Vec<MsgId> = alike.into_iter().collect();
    let Some(original) = original(hub, &first, found.get(&first)) else { return Meant::Several(ids) };
    if ids.iter().all(|id| self::original(hub, id, found.get(id)).as_ref() == Some(&original)) {
        Meant::Copies { original, ids }
    } else {
        Meant::Several(ids)
    }
}

/// The id that the client of a broadcast knows, for that of one copy.
fn original(hub: &Hub, copy: &MsgId, alike: Option<&Alike>) -> Option<MsgId> {
    let engine = match hub.tracking.place(copy) {
        Some(LivePlace::Direct { queue: Queue::Broadcast, engine, .. }) => Some(engine),
        _ => alike.filter(|alike| alike.queue == Queue::Broadcast).and_then(|alike| alike.engine.clone()),
    };
    let original = copy.as_str().strip_suffix(engine?.as_str())?.strip_suffix('_')?;
    Some(MsgId::from(original))
}

/// What the store is asked for the sake of a question, and how the hub sees these tasks now.
pub(super) fn ask_records(hub: &Hub, question: &Question) -> (Ask, Map<MsgId, Seen>) {
    let mut ids: Set<MsgId> = question.tasks.iter().cloned().collect();
    if let About::Stories(asked) = &question.about {
        for (_, meant) in asked {
            if let Meant::Copies { ids: copies, .. } = meant {
                ids.extend(copies.iter().cloned());
            }
        }
    }
    let ids: Vec<_> = ids.into_iter().collect();
    let ask = Ask::Find(Find::tasks(&ids));
    let seen = ids.into_iter().map(|id| (id.clone(), hub.tracking.see(&id))).collect();
    (ask, seen)
}

/// Answers a question about stories, with what has been said by now.
pub(super) fn answer(
    hub: &mut Hub,
    now: Now,
    question: &Question,
    asked: &[(String, Meant)],
    facts: &Facts<'_>,
    out: &mut Vec<Effect>,
) {
    let mut stories = tasks(hub, question, facts);
    let told = asked.iter().map(|(asked, meant)| {
        let told = match meant {
            Meant::Task(id) => stories.get_mut(id).and_then(Option::take),
            Meant::Copies { original, ids } => Some(Told::Broadcast(Box::new(broadcast(hub, original, ids, facts)))),
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
pub(super) fn tasks(hub: &Hub, question: &Question, facts: &Facts<'_>) -> Map<MsgId, Option<Told>> {
    let said = question.explanation.as_ref().map(|explanation| &explanation.tasks);
    let stories = question.tasks.iter().enumerate().map(|(at, id)| {
        let said = said.and_then(|tasks| tasks.get(at));
        let story = task(hub, id, facts, said);
        (id.clone(), story.map(|story| Told::Task(Box::new(story))))
    });
    stories.collect()
}

/// The story of one task; `None` if nobody knows it. `said` is what the task scheduler said, if it did.
fn task(hub: &Hub, id: &MsgId, facts: &Facts<'_>, said: Option<&Known>) -> Option<TaskStory> {
    let record = facts.records.get(id);
    let live = if let Some(Known::Live(live)) = said { Some(&**live) } else { None };
    let place = facts.place(id);
    let state = state(id, facts, said)?;
    let queue = match (record, place, said) {
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
        retries_left: live.map(|live| live.retries_left).or_else(|| record.and_then(|record| record.retries)),
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
        Some(TaskRecord::new(id.clone(), hub.session.packer(), queue?, body, Date::default()))
    })
}

/// Where a task is; `None` if nobody knows it.
fn state(id: &MsgId, facts: &Facts<'_>, said: Option<&Known>) -> Option<TaskState> {
    let (record, place) = (facts.records.get(id), facts.place(id));
    if let Some(finished) = record.and_then(finished) {
        return Some(TaskState::Finished(finished));
    }
    if let Some(Known::Live(live)) = said {
        return Some(live.state.clone());
    }
    match place {
        Some(LivePlace::Direct { engine, unanswered, .. }) => {
            return Some(TaskState::Sent(Sent { engine: EngineName::from(engine), unanswered: *unanswered as u64 }));
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
    if facts.seen.get(id) == Some(&Seen::Finished) {
        return Some(TaskState::Forgotten(Forgotten::default()));
    }
    record.is_some().then_some(TaskState::Lost)
}

fn finished(record: &TaskRecord) -> Option<Finished> {
    let outcome = record.outcome.as_ref()?;
    let status = outcome.status;
    let error = || record.packer.unpack::<RemoteError>(outcome.body.content()).ok().map(|error| error.to_string());
    Some(Finished {
        status,
        error: if status == Status::Error { error() } else { None },
        engine: record.engine.as_ref().map(EngineName::from),
        started: outcome.started(),
        completed: outcome.completed(),
        received: outcome.received,
    })
}

/// The story of a broadcast.
fn broadcast(hub: &Hub, original: &MsgId, ids: &[MsgId], facts: &Facts<'_>) -> BroadcastStory {
    let records = &facts.records;
    let first = ids.iter().find_map(|id| records.get(id));
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
        match (facts.place(id), records.get(id).map(finished)) {
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
