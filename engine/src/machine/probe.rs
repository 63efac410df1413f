//! Requests and replies that may have been lost with a controller.

use remuda_proto::message::probe::{Has, Probe, ProbeContent};
use remuda_proto::{MsgType, Now, Status};
use serde_json::json;

use super::request::Request;
use super::writer::Answer;
use super::{Effect, EngineCore, Link};

impl EngineCore {
    /// What a controller that takes over wants to know, if that is what a request asks.
    pub(super) fn probe(&self, request: &Request) -> Option<Probe> {
        if request.msg_type != MsgType::KernelInfoRequest {
            return None;
        }
        self.writer.packer().unpack::<ProbeContent>(request.body.content()).ok()?.remuda
    }

    /// Sends again what was asked for and is held, then says what is still to come: at once, whatever runs.
    pub(super) fn answer_probe(&mut self, now: Now, request: &Request, probe: &Probe, out: &mut Vec<Effect>) {
        for msg_id in &probe.assigned {
            if self.has(msg_id) {
                // What is held is the reply to an attempt before.
                continue;
            }
            if let Some((idents, body)) = self.held.find(now.instant, msg_id, 1) {
                out.push(Effect::Reply { link: Link::Shell, idents: idents.clone(), body: body.clone() });
            }
        }
        let running = self.running.iter().map(|running| &running.request.msg_id);
        let has = Has { has: running.chain(self.line.ids()).chain(self.queue.ids()).cloned().collect() };
        let mut content = self.kernel_info();
        content["remuda"] = json!(has);
        let answer = Answer { status: Status::Ok, dependencies_met: true, content, buffers: Vec::new() };
        out.push(self.writer.reply(now.date, now.date, request, &answer));
    }

    /// Holds the reply to a request, which is among these effects.
    pub(super) fn hold(&mut self, now: Now, request: &Request, effects: &[Effect]) {
        if !matches!(request.msg_type, MsgType::ApplyRequest | MsgType::ExecuteRequest) {
            return;
        }
        for effect in effects {
            if let Effect::Reply { link: Link::Shell, idents, body } = effect {
                let attempt = request.attempt();
                self.held.hold(now.instant, (request.msg_id.clone(), attempt), idents.clone(), body.clone());
            }
        }
    }
}
