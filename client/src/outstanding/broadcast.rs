//! One message for several engines (`client/view.py: BroadcastView`).

use std::time::Duration;

use remuda_proto::message::native::{ApplyReplyContent, NativeReply};
use remuda_proto::message::needs::Extras;
use remuda_proto::{Body, EngineId, EngineUuid, Map, MsgId, Now, Refusal, Set, Status};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::output::Collecting;
use super::{Channel, Effect, Engine, Outcome, Outstanding, Parts, Reply, Request, Work};

/// Where a broadcast goes. Each engine's part of it is a request of its own, under its [`part_id`].
#[derive(Clone, Debug, PartialEq)]
pub struct Broadcast {
    /// The engines, each once.
    pub targets: Vec<(EngineUuid, EngineId)>,
    /// Whether the controller puts the replies into one. Then all parts end together, and one engine that fails or leaves
    /// fails them all. Only for functions: the replies to programs and code strings say more than one message can hold.
    pub coalesce: bool,
    /// A word of the application's own, kept in the task records.
    pub label: Option<Value>,
    /// How long each part may run.
    pub run_timeout: Option<Duration>,
}

/// The id of an engine's part of a broadcast: the controller gives it to the engine's copy.
pub fn part_id(msg_id: &MsgId, engine: &EngineUuid) -> MsgId {
    MsgId::from(format!("{msg_id}_{engine}"))
}

/// A broadcast of which some part has no outcome.
#[derive(Debug)]
pub(super) struct Open {
    /// Whether its replies come as one.
    coalesce: bool,
    /// Whether one reply is that of every part as it stands.
    is_raw: bool,
    /// The parts without an outcome, and who has them. Never empty.
    parts: Map<MsgId, EngineUuid>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    targets: &'a [&'a (EngineUuid, EngineId)],
    is_broadcast: bool,
    is_coalescing: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: &'a Option<Value>,
    #[serde(rename = "remuda", skip_serializing_if = "Extras::is_empty")]
    extras: Extras,
}

#[derive(Deserialize)]
struct Coalesced {
    #[serde(default)]
    broadcast_targets: Option<Vec<Value>>,
}

/// The engine of a `[uuid, id]`. A stock controller without a tree of schedulers says the uuid alone.
fn uuid_of(target: &Value) -> Option<&str> {
    target.as_str().or_else(|| target.get(0)?.as_str())
}

impl Outstanding {
    pub(super) fn broadcast(
        &mut self,
        now: Now,
        msg_id: &MsgId,
        broadcast: &Broadcast,
        work: &Work,
        out: &mut Vec<Effect>,
    ) {
        let engines: Vec<_> = broadcast.targets.iter().map(|(uuid, _)| uuid.clone()).collect();
        let open = self.begin_broadcast(now, msg_id, &engines, broadcast.coalesce, false, out);
        let is_open = |target: &&(EngineUuid, EngineId)| open.parts.contains_key(&part_id(msg_id, &target.0));
        let there: Vec<_> = broadcast.targets.iter().filter(is_open).collect();
        let mut extras = Extras::default();
        extras.set_run_timeout(broadcast.run_timeout);
        let (is_coalescing, label) = (broadcast.coalesce, &broadcast.label);
        let metadata = self.pack(&Metadata { targets: &there, is_broadcast: true, is_coalescing, label, extras });
        let (content, buffers) = self.pack_work(work);
        let parts = Parts { msg_type: work.msg_type(), metadata: &metadata, content: &content, buffers };
        self.send_broadcast(now, msg_id.clone(), open, &parts, out);
    }

    /// Makes room for the parts, and resolves those whose engines are not there.
    pub(super) fn begin_broadcast(
        &mut self,
        now: Now,
        msg_id: &MsgId,
        engines: &[EngineUuid],
        coalesce: bool,
        is_raw: bool,
        out: &mut Vec<Effect>,
    ) -> Open {
        for uuid in engines {
            let part = part_id(msg_id, uuid);
            self.assert_new(&part);
            let collecting = if is_raw { Collecting::raw() } else { Collecting::default() };
            self.outputs.insert(part, collecting);
        }
        let is_there = |uuid: &&EngineUuid| self.engines.id(uuid).is_some();
        let (mut there, mut gone): (Vec<_>, Vec<_>) = engines.iter().partition(is_there);
        let first_gone = gone.first().copied();
        if coalesce && first_gone.is_some() {
            gone.append(&mut there);
        }
        for uuid in gone {
            // The controller may drop it without a word, and nobody would ever answer.
            let lost = first_gone.filter(|_| coalesce).unwrap_or(uuid);
            let lost = Outcome::EngineLost(Engine { id: None, uuid: lost.clone() });
            self.resolve(part_id(msg_id, uuid), lost, now, out);
        }
        let parts = there.into_iter().map(|uuid| (part_id(msg_id, uuid), uuid.clone())).collect();
        Open { coalesce, is_raw, parts }
    }

    /// Sends a broadcast, unless no part of it is left.
    pub(super) fn send_broadcast(
        &mut self,
        now: Now,
        msg_id: MsgId,
        open: Open,
        parts: &Parts<'_>,
        out: &mut Vec<Effect>,
    ) {
        if open.parts.is_empty() {
            return;
        }
        let frames = self.sign(now, &msg_id, None, parts);
        for (part, uuid) in &open.parts {
            self.engines.assign(uuid, part);
            let request = Request {
                channel: Channel::Broadcast,
                engine: Some(uuid.clone()),
                broadcast: Some(msg_id.clone()),
                lists_engines: false,
                sent: now.instant,
                expires: None,
            };
            self.requests.insert(part.clone(), request);
        }
        self.broadcasts.insert(msg_id, open);
        out.push(Effect::Send { channel: Channel::Broadcast, frames });
    }

    /// Takes a reply whose parent is one part, or a broadcast as a whole.
    pub(super) fn broadcast_reply(
        &mut self,
        now: Now,
        parent: MsgId,
        body: &Body,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let of_part = self.requests.get(&parent).and_then(|request| request.broadcast.as_ref());
        let (is_part, original) = (of_part.is_some(), of_part.unwrap_or(&parent));
        let Some(open) = self.broadcasts.get(original) else { return Err(Refusal::Unexpected(parent)) };
        self.check_task_reply(body)?;
        let outcome = self.outcome(now, body);
        if is_part && !open.coalesce {
            self.resolve(parent, outcome, now, out);
            return Ok(());
        }
        let divided = match &outcome {
            Outcome::Reply(reply) if reply.status == Status::Ok => self.divide(open, reply),
            // One engine failed, or the controller would not have it at all: that goes for every part.
            other => Ok(Some(open.parts.keys().map(|part| (part.clone(), other.clone())).collect())),
        };
        let ends = match divided {
            Ok(Some(ends)) => ends,
            // As the records have it, each engine's reply is by itself.
            Ok(None) if is_part => vec![(parent, outcome)],
            Ok(None) => return Err(Refusal::Unexpected(parent)),
            Err(reason) => {
                let unreadable = Outcome::Unreadable { reason };
                open.parts.keys().map(|part| (part.clone(), unreadable.clone())).collect()
            }
        };
        for (part, outcome) in ends {
            self.resolve(part, outcome, now, out);
        }
        Ok(())
    }

    /// What each part gets of a reply to all of them; `None` if it is that of one engine. Every engine gave as many buffers as any
    /// other: that of a function has its result pickled, and on native engines as MessagePack too, with what stands beside it between.
    ///
    /// # Errors
    /// In words, if it cannot be told which buffers are whose.
    fn divide(&self, open: &Open, reply: &Reply) -> Result<Option<Vec<(MsgId, Outcome)>>, String> {
        let (packer, body) = (self.session.packer(), &reply.body);
        let said = packer.unpack::<Coalesced>(body.metadata()).map_err(|error| error.to_string())?;
        let Some(targets) = said.broadcast_targets else { return Ok(None) };
        if open.is_raw {
            let whole = |part: &MsgId| (part.clone(), Outcome::Reply(reply.clone()));
            return Ok(Some(open.parts.keys().map(whole).collect()));
        }
        let content = packer.unpack::<ApplyReplyContent>(body.content()).map_err(|error| error.to_string())?;
        let (engines, buffers) = (targets.len(), body.buffer_count());
        let each = match content.remuda {
            None => 1,
            Some(NativeReply::Function) => Self::buffers_each(body, engines),
            Some(NativeReply::Process(_) | NativeReply::Map(_)) => {
                return Err("it is that of a program or a map, and of several engines".to_owned());
            }
        };
        if buffers != each * engines {
            return Err(format!(
                "{buffers} buffers from {engines} engines, {each} from each expected: some of them failed, and the controller does \
                 not say which; without `coalesce`, each answers for itself"
            ));
        }
        let divide = |(part, uuid): (&MsgId, &EngineUuid)| {
            let at = targets.iter().position(|target| uuid_of(target) == Some(uuid.as_str()));
            let at = at.ok_or_else(|| format!("engine `{uuid}` is not among its `broadcast_targets`"))?;
            let own = (at * each..(at + 1) * each).filter_map(|index| body.buffer(index));
            let parts = [body.header(), body.parent_header(), body.metadata(), body.content()];
            let body = self.session.sign_parts(parts, own);
            let (engine, engine_id) = (Some(uuid.clone()), self.engines.id(uuid));
            Ok((part.clone(), Outcome::Reply(Reply { engine, engine_id, body, ..reply.clone() })))
        };
        open.parts.iter().map(divide).collect::<Result<_, _>>().map(Some)
    }

    /// How many buffers each of so many native engines gave: a pickle and a value, and as many beside that as each other did.
    fn buffers_each(body: &Body, engines: usize) -> usize {
        const ALONE: usize = 2;
        let each = body.buffer_count().checked_div(engines).unwrap_or_default();
        let is_pickle = |engine| body.buffer(engine * each).is_some_and(|first| first.starts_with(b"\x80"));
        if each > ALONE && (0..engines).all(is_pickle) { each } else { ALONE }
    }

    /// These requests, and with each that is to be answered together with others also those.
    pub(super) fn with_coalesced(&self, requests: Set<MsgId>) -> Set<MsgId> {
        let broadcast = |msg_id: &MsgId| self.requests.get(msg_id)?.broadcast.as_ref();
        let open = requests.iter().filter_map(broadcast).filter_map(|original| self.broadcasts.get(original));
        let others: Vec<_> = open.filter(|open| open.coalesce).flat_map(|open| open.parts.keys().cloned()).collect();
        requests.into_iter().chain(others).collect()
    }

    /// Notes that a part has its outcome.
    pub(super) fn end_part(&mut self, original: &MsgId, part: &MsgId) {
        let open =
            self.broadcasts.get_mut(original).unwrap_or_else(|| panic!("broadcast `{original}` of `{part}` is over"));
        open.parts.swap_remove(part);
        if open.parts.is_empty() {
            self.broadcasts.swap_remove(original);
        }
    }

    pub(super) fn check_broadcasts(&self) {
        for (original, open) in &self.broadcasts {
            assert!(!open.parts.is_empty(), "broadcast `{original}` has ended");
            for (part, uuid) in &open.parts {
                let request = self.requests.get(part).unwrap_or_else(|| panic!("`{part}` is not outstanding"));
                assert_eq!((request.broadcast.as_ref(), request.engine.as_ref()), (Some(original), Some(uuid)));
                assert_eq!(request.channel, Channel::Broadcast, "`{part}`");
            }
        }
        let parts = self.requests.values().filter(|request| request.broadcast.is_some()).count();
        let listed: usize = self.broadcasts.values().map(|open| open.parts.len()).sum();
        assert_eq!(parts, listed, "a part of a broadcast that is over is outstanding");
    }
}
