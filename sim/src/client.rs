//! A client: what it knows, and the messages that it makes.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use remuda_proto::message::content::{ConnectionReply, EngineNotification};
use remuda_proto::{Body, EngineId, EngineUuid, Envelope, Key, MsgId, MsgType, Now, Packer, Session, SessionId, Set};
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::network::{Channel, Payload};
use crate::parameters::{FUNCTIONS, Parameters};
use crate::work::Script;

/// A client.
pub(crate) struct ClientNode {
    pub(crate) session: Session,
    /// The engines that it has heard of and not lost.
    pub(crate) engines: BTreeMap<EngineId, EngineUuid>,
    /// All engines that it has ever heard of.
    pub(crate) heard_of: Set<EngineUuid>,
    /// Its tasks.
    pub(crate) tasks: Vec<MsgId>,
    /// Its requests that did not go to the task scheduler, and the copies of its broadcasts.
    pub(crate) others: Vec<MsgId>,
    /// Whether it is gone.
    pub(crate) is_gone: bool,
    /// Whether it reads nothing for now.
    pub(crate) is_deaf: bool,
    /// What came while it read nothing.
    pub(crate) held: VecDeque<(Channel, Payload)>,
    /// Its messages to the task scheduler, to send them again.
    pub(crate) sent: Vec<Body>,
    /// How much it has still to do.
    pub(crate) acts: u64,
}

/// A task to be sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    pub(crate) after: Value,
    pub(crate) follow: Value,
    pub(crate) targets: Vec<EngineUuid>,
}

impl ClientNode {
    pub(crate) fn new(number: u32, key: Key, packer: Packer, acts: u64) -> Self {
        let session = Session::new(SessionId::from(format!("client-{number}")), "sim", key, packer, 1);
        Self {
            session,
            engines: BTreeMap::new(),
            heard_of: Set::default(),
            tasks: Vec::new(),
            others: Vec::new(),
            is_gone: false,
            is_deaf: false,
            held: VecDeque::new(),
            sent: Vec::new(),
            acts,
        }
    }

    /// A message of any kind.
    pub(crate) fn message(
        &mut self,
        now: Now,
        msg_type: MsgType,
        metadata: &Value,
        content: &Value,
        buffers: &[Bytes],
    ) -> (MsgId, Body) {
        let made = self.session.message(now.date, msg_type, None, metadata, content, buffers);
        made.expect("plain data can be packed")
    }

    /// A task as a load-balanced view makes it (`client/view.py: LoadBalancedView._really_apply`).
    pub(crate) fn task(&mut self, now: Now, wish: &Wish, parameters: &Parameters, dice: &mut Dice) -> (MsgId, Body) {
        let retries = if dice.percent(parameters.retry_percent) { dice.between(1, 4) } else { 0 };
        let timeout =
            if dice.percent(parameters.timeout_percent) { dice.between(1, 3000) as f64 / 1000.0 } else { 0.0 };
        let list = |value: &Value| if value.is_null() { json!([]) } else { value.clone() };
        let mut metadata = json!({
            "after": list(&wish.after), "follow": list(&wish.follow), "timeout": timeout, "targets": wish.targets,
            "retries": retries, "label": null,
        });
        if dice.percent(parameters.priority_percent) {
            metadata["remuda"] = json!({"priority": dice.pick(&[-2, 1, 5])});
        }
        let made = self.work(now, &metadata, parameters, dice);
        self.sent.push(made.1.clone());
        made
    }

    /// A request to run something, with this metadata.
    pub(crate) fn work(
        &mut self,
        now: Now,
        metadata: &Value,
        parameters: &Parameters,
        dice: &mut Dice,
    ) -> (MsgId, Body) {
        let time_us = u64::try_from(dice.around(parameters.task_time).as_micros()).unwrap_or(0);
        let script = Script { time_us, fail_percent: parameters.fail_percent, unmet_percent: parameters.unmet_percent };
        let text = script.text();
        let buffer = [Bytes::from(text.clone())];
        if !dice.percent(parameters.native_percent) {
            if dice.percent(10) {
                let content = json!({"code": text, "silent": false, "user_expressions": {}});
                return self.message(now, MsgType::ExecuteRequest, metadata, &content, &[]);
            }
            return self.message(now, MsgType::ApplyRequest, metadata, &json!({}), &buffer);
        }
        let task = if dice.percent(40) {
            json!({"process": {"argv": ["sim", text]}})
        } else {
            json!({"function": dice.pick(&FUNCTIONS)})
        };
        let mut metadata = metadata.clone();
        let is_placed = metadata.get("retries").is_some();
        if is_placed && dice.percent(parameters.needs_percent) {
            metadata["remuda"]["needs"] = json!({"cpus": dice.pick(&[0.5, 2.0, 3.0])});
        }
        self.message(now, MsgType::ApplyRequest, &metadata, &json!({"remuda": task}), &buffer)
    }

    /// Some of these, one at least; nothing if there are none.
    pub(crate) fn some_of(from: &[MsgId], dice: &mut Dice) -> Vec<MsgId> {
        if from.is_empty() {
            return Vec::new();
        }
        // The last ones mostly, since those are the ones that may not be done.
        let recent = &from[from.len().saturating_sub(8)..];
        let count = dice.between(1, 3);
        (0..count).map(|_| if dice.percent(80) { dice.pick(recent) } else { dice.pick(from) }.clone()).collect()
    }

    /// A dependency on these, of any kind.
    pub(crate) fn dependency(ids: &[MsgId], dice: &mut Dice) -> Value {
        if dice.percent(40) {
            return json!(ids);
        }
        let (success, failure) = *dice.pick(&[(true, false), (false, true), (true, true)]);
        json!({"dependencies": ids, "all": dice.percent(50), "success": success, "failure": failure})
    }

    /// A notification of the hub.
    pub(crate) fn notified(&mut self, body: &Body) -> Option<EngineUuid> {
        let packer = self.session.packer();
        let Ok(Envelope { msg_type, .. }) = Envelope::read(packer, body) else { return None };
        let Ok(EngineNotification { id, uuid }) = packer.unpack(body.content()) else { return None };
        match msg_type {
            MsgType::RegistrationNotification => {
                self.hear_of(&uuid);
                self.engines.insert(id, uuid);
                None
            }
            MsgType::UnregistrationNotification => self.engines.remove(&id),
            _ => None,
        }
    }

    /// The hub's list of engines.
    pub(crate) fn listed(&mut self, reply: &ConnectionReply) {
        for (id, uuid) in &reply.engines {
            self.hear_of(uuid);
            if let Ok(id) = id.parse() {
                self.engines.insert(EngineId(id), uuid.clone());
            }
        }
    }

    fn hear_of(&mut self, uuid: &EngineUuid) {
        if !self.heard_of.contains(uuid) {
            self.heard_of.insert(uuid.clone());
        }
    }
}
