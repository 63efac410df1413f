//! Direct requests of engines that are not there: given up when it is time.

use remuda_proto::message::{Envelope, MsgType, Status};
use remuda_proto::monitor::Queue;
use remuda_proto::recovery::Recovered;
use remuda_proto::{EngineUuid, Instant, Map, Now, Refusal, RemoteError, Set};
use serde_json::json;

use super::{Effect, Hub, refuse};
use crate::asks::Then;
use crate::record::Outcome;
use crate::repr;
use crate::store::{Answer, Ask, Find, StoreError, Write};
use crate::tracking::{EngineKey, Untracked};

/// An engine that left.
#[derive(Debug)]
pub(super) struct Departed {
    /// When its direct requests are given up.
    pub(super) give_up_at: Instant,
    /// What people knew it by.
    pub(super) name: String,
    pub(super) uuid: EngineUuid,
    pub(super) key: EngineKey,
}

impl Hub {
    /// Takes over requests of an earlier controller.
    pub(super) fn recover(&mut self, now: Now, requests: Vec<Recovered>, out: &mut Vec<Effect>) {
        let mut engines: Map<EngineUuid, EngineKey> = Map::default();
        for Recovered { queue, msg_id, engine, .. } in requests {
            let tracked = match (queue, engine) {
                (Queue::Task, None) => self.tracking.task_request(&msg_id),
                (Queue::Task, Some(_)) => self.tracking.task_request(&msg_id).inspect(|()| {
                    // Its engine is not registered, for now.
                    self.tracking.task_sent(&msg_id, None).expect("it was just added");
                }),
                (Queue::Mux | Queue::Broadcast, None) => {
                    refuse(out, None, Refusal::NoTarget);
                    continue;
                }
                (Queue::Mux | Queue::Broadcast, Some(uuid)) => {
                    let key = engines.entry(uuid).or_insert_with_key(|uuid| self.tracking.engine_joined(uuid.clone()));
                    let key = *key;
                    self.tracking.direct_request(&msg_id, queue, key)
                }
            };
            match tracked {
                Ok(()) => {}
                Err(Untracked::Known) => refuse(out, None, Refusal::Resubmitted(msg_id)),
                Err(Untracked::Full) => refuse(out, None, Refusal::Untracked(msg_id)),
            }
        }
        // As if these engines had left just now, but with the time that the schedulers give them to come back.
        let give_up_at = now.instant + self.config.recovery_timeout;
        let at = self.departed.partition_point(|departed| departed.give_up_at <= give_up_at);
        let departed =
            engines.into_iter().map(|(uuid, key)| Departed { give_up_at, name: uuid.to_string(), uuid, key });
        let later = self.departed.split_off(at);
        self.departed.extend(departed.chain(later));
    }

    /// Gives up the direct requests of the engines that left a while ago. Their clients gave them up long since, by
    /// themselves; this is for the records (`controller/hub.py: Hub._handle_stranded_msgs`).
    pub(super) fn give_up(&mut self, now: Now, out: &mut Vec<Effect>) {
        let due = self.departed.iter().take_while(|departed| departed.give_up_at <= now.instant).count();
        if due == 0 {
            return;
        }
        let due = self.departed.drain(..due).map(|departed| (departed.key, (departed.name, departed.uuid)));
        let engines: Map<_, _> = due.collect();
        let keys: Set<_> = engines.keys().copied().collect();
        let ids: Vec<_> = self.tracking.stranded(&keys).into_iter().map(|(msg_id, _)| msg_id).collect();
        if ids.is_empty() {
            self.tracking.give_up(&keys);
            return;
        }
        // They count as pending until their replies are on record, so that nobody finds one ended and without a reply.
        self.ask(Ask::Find(Find::tasks(&ids)), Then::GiveUp { engines }, out);
    }

    pub(super) fn give_up_these(
        &mut self,
        now: Now,
        engines: &Map<EngineKey, (String, EngineUuid)>,
        answer: Result<Answer, StoreError>,
        out: &mut Vec<Effect>,
    ) {
        let keys: Set<_> = engines.keys().copied().collect();
        // Some may have had a reply since; none can have come.
        let lost: Map<_, _> = self.tracking.give_up(&keys).into_iter().collect();
        let records = match answer {
            Ok(Answer::Records(records)) => records,
            Ok(other) => panic!("asked for records, the store answers {other:?}"),
            Err(StoreError::NoData) => return,
            Err(error) => {
                self.store_errors += lost.len() as u64;
                return out.push(Effect::StoreFailed(error));
            }
        };
        for record in records {
            let Some(key) = lost.get(&record.msg_id) else { continue };
            let (name, uuid) = &engines[key];
            let msg_id = record.msg_id;
            // A reply as the engine could have sent it, where stock leaves parts null that its own client then trips
            // over.
            let request = record.request;
            let msg_type = Envelope::read(self.session.packer(), &request)
                .map_or(MsgType::ApplyReply, |envelope| envelope.msg_type.reply());
            let text = format!("Engine {name} died while running task {}", repr::text(msg_id.as_str()));
            let error = RemoteError::new("EngineError", text);
            let metadata = json!({"status": "error", "engine": uuid, "date": now.date});
            let made =
                self.session.message(now.date, msg_type, Some(request.header()), &metadata, &error.content(), &[]);
            let body = made.expect("contents of our own can be packed").1;
            let outcome = Outcome { packer: self.session.packer(), body, received: now.date, status: Status::Error };
            out.push(Effect::Store(Write::Finish { msg_id, outcome }));
        }
    }
}
