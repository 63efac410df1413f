//! The rules of the task scheduler, as short stories.

mod dependency;
mod drain;
mod explain;
mod placement;
mod recorded;
mod reply;
mod room;
mod service;
mod stopping;
mod stranded;
mod submission;
mod takeover;

use std::time::Duration;

use remuda_proto::message::native::Announcement;
use remuda_proto::{Key, Packer, SessionId, Status};
use serde_json::{Value, json};

use super::*;

const KEY: &str = "k";

fn ident(text: &str) -> Identity {
    Identity::from(text.as_bytes())
}

fn session(id: &str) -> Session {
    Session::new(SessionId::from(id), "u", Key::new(KEY), Packer::Json, 1)
}

fn plain() -> Value {
    json!({})
}

/// A scheduler, a clock, and hands to play clients and engines with.
struct World {
    scheduler: TaskScheduler,
    signer: Session,
    now: Now,
}

/// What a reply to a client says.
#[derive(Debug, PartialEq)]
struct Said {
    msg_id: String,
    status: String,
    ename: String,
    engine: Option<Identity>,
}

impl World {
    fn new(config: TaskConfig) -> Self {
        Self { scheduler: TaskScheduler::new(config, session("scheduler")), signer: session("s"), now: Now::default() }
    }

    fn with(scheme: Scheme, hwm: u32) -> Self {
        Self::new(TaskConfig { scheme, hwm, ..TaskConfig::default() })
    }

    /// A world with these engines, of which the last one named is first in line.
    fn of(engines: &[&str]) -> Self {
        let mut world = Self::new(TaskConfig::default());
        engines.iter().for_each(|engine| drop(world.join(engine)));
        world
    }

    fn handle(&mut self, event: TaskEvent) -> Vec<TaskEffect> {
        let mut out = Vec::new();
        self.scheduler.handle(self.now, event, &mut out);
        self.scheduler.check();
        out
    }

    fn register(&mut self, uuid: &str, capability: Capability) -> Vec<TaskEffect> {
        self.handle(TaskEvent::Registered { uuid: uuid.into(), capability })
    }

    fn join(&mut self, uuid: &str) -> Vec<TaskEffect> {
        self.register(uuid, Capability::stock())
    }

    fn leave(&mut self, uuid: &str) -> Vec<TaskEffect> {
        self.handle(TaskEvent::Unregistered { uuid: uuid.into() })
    }

    fn request(&self, msg_id: &str, msg_type: &str, metadata: &Value, content: &Value) -> Body {
        let header = json!({"msg_id": msg_id, "msg_type": msg_type, "session": "client", "date": "2026-11-22T01:37:19Z",
            "username": "u", "version": "5.4"});
        let [header, parent, metadata, content] =
            [&header, &json!({}), metadata, content].map(|part| part.to_string().into_bytes());
        self.signer.sign_parts([&header, &parent, &metadata, &content], [])
    }

    fn submit_body(&mut self, body: Body) -> Vec<TaskEffect> {
        self.handle(TaskEvent::Submit { client: ident("c"), body })
    }

    fn submit(&mut self, msg_id: &str, metadata: &Value) -> Vec<TaskEffect> {
        self.submit_body(self.request(msg_id, "apply_request", metadata, &json!({})))
    }

    fn result(&self, msg_id: &str, metadata: &Value, content: &Value) -> Body {
        let header = json!({"msg_id": format!("r-{msg_id}"), "msg_type": "apply_reply"});
        let parent = json!({"msg_id": msg_id, "msg_type": "apply_request"});
        let parts = [&header, &parent, metadata, content].map(|part| part.to_string().into_bytes());
        self.signer.sign_parts([&parts[0], &parts[1], &parts[2], &parts[3]], [])
    }

    fn answer_body(&mut self, engine: &str, body: Body) -> Vec<TaskEffect> {
        self.handle(TaskEvent::Result { engine: ident(engine), client: ident("c"), body })
    }

    fn answer(&mut self, engine: &str, msg_id: &str, status: &str) -> Vec<TaskEffect> {
        let body =
            self.result(msg_id, &json!({"status": status, "dependencies_met": true}), &json!({"status": status}));
        self.answer_body(engine, body)
    }

    fn unmet(&mut self, engine: &str, msg_id: &str) -> Vec<TaskEffect> {
        let metadata = json!({"status": "error", "dependencies_met": false});
        let body = self.result(msg_id, &metadata, &json!({"status": "error"}));
        self.answer_body(engine, body)
    }

    fn abort(&mut self, msg_ids: &[&str]) -> Vec<TaskEffect> {
        self.abort_or_stop(msg_ids, false)
    }

    fn abort_or_stop(&mut self, msg_ids: &[&str], stop: bool) -> Vec<TaskEffect> {
        self.handle(TaskEvent::Abort { msg_ids: msg_ids.iter().map(|id| MsgId::from(*id)).collect(), stop })
    }

    fn pass(&mut self, time: Duration) -> Vec<TaskEffect> {
        self.now.instant = self.now.instant + time;
        let mut out = Vec::new();
        self.scheduler.on_deadline(self.now, &mut out);
        self.scheduler.check();
        out
    }

    fn counts(&self) -> (usize, usize, usize) {
        let Counts { waiting, ready, assigned } = self.scheduler.counts();
        (waiting, ready, assigned)
    }

    fn load(&self, engine: &str) -> usize {
        self.scheduler.loads().find(|(uuid, _)| uuid.as_str() == engine).map_or(0, |(_, load)| load)
    }
}

/// Which task went where.
fn sent(out: &[TaskEffect]) -> Vec<(String, String)> {
    let sent = out.iter().filter_map(|effect| match effect {
        TaskEffect::ToEngine { engine, body, .. } => {
            let header: Value = serde_json::from_slice(body.header()).unwrap();
            Some((header["msg_id"].as_str().unwrap().to_owned(), engine.to_string()))
        }
        _ => None,
    });
    sent.collect()
}

/// Where one task went.
fn engine(out: &[TaskEffect]) -> String {
    let [(_, engine)] = &sent(out)[..] else { panic!("{out:?}") };
    engine.clone()
}

/// Pairs, to compare with [`sent`].
fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

/// What clients were told.
fn told(out: &[TaskEffect]) -> Vec<Said> {
    let told = out.iter().filter_map(|effect| match effect {
        TaskEffect::ToClient { engine, body, .. } => {
            let parent: Value = serde_json::from_slice(body.parent_header()).unwrap();
            let content: Value = serde_json::from_slice(body.content()).unwrap();
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (msg_id, status, ename) = (text(&parent["msg_id"]), text(&content["status"]), text(&content["ename"]));
            Some(Said { msg_id, status, ename, engine: engine.clone() })
        }
        _ => None,
    });
    told.collect()
}

/// Which task was told which error.
fn errors(out: &[TaskEffect]) -> Vec<(String, String)> {
    told(out).into_iter().map(|said| (said.msg_id, said.ename)).collect()
}

fn refusals(out: &[TaskEffect]) -> Vec<Refusal> {
    let refusals = out.iter().filter_map(|effect| match effect {
        TaskEffect::Refused { refusal, .. } => Some(refusal.clone()),
        _ => None,
    });
    refusals.collect()
}

/// What the hub was told, in a word each.
fn monitored(out: &[TaskEffect]) -> Vec<String> {
    let monitored = out.iter().filter_map(|effect| match effect {
        TaskEffect::Monitor(Monitor::Request { envelope, .. }) => Some(format!("request {}", envelope.msg_id)),
        TaskEffect::Monitor(Monitor::Destination { msg_id, engine, .. }) => Some(format!("{msg_id} to {engine}")),
        TaskEffect::Monitor(Monitor::Reply { msg_id, status, engine, .. }) => {
            let engine = engine.as_ref().map_or("nobody", |engine| engine.as_str());
            Some(format!("{msg_id} {} by {engine}", if *status == Status::Ok { "done" } else { "failed" }))
        }
        _ => None,
    });
    monitored.collect()
}

/// A native engine with these functions, that runs programs too.
fn native(functions: &[&str]) -> Capability {
    Capability::native(&Announcement {
        functions: functions.iter().map(|name| (*name).to_owned()).collect(),
        process: true,
        ..Announcement::default()
    })
}
