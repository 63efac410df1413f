//! Control requests: answered at once, also while a task runs.

use remuda_proto::message::content::{AbortRequest, Done, Shutdown};
use remuda_proto::message::native::StopReason;
use remuda_proto::{Frames, MsgId, MsgType, Now, Refusal, RemoteError};
use serde::Deserialize;
use serde_json::Value;

use super::request::Request;
use super::writer::shutdown_content;
use super::{Effect, Ending, EngineCore};
use crate::signal;

#[derive(Deserialize)]
struct SignalContent {
    #[serde(default)]
    sig: Value,
}

impl EngineCore {
    /// Each control request is answered, and its handling is told on iopub as a task's is.
    pub(super) fn control(&mut self, now: Now, frames: Frames, out: &mut Vec<Effect>) -> Result<(), Refusal> {
        let request = self.read(frames)?;
        if request.msg_type == MsgType::OutputRequest {
            self.output_request(now, request, out);
            return Ok(());
        }
        out.push(self.writer.status(now.date, Some(&request.body), "busy"));
        let mut shutdown = None;
        let reply = match &request.msg_type {
            MsgType::AbortRequest => match self.unpack::<AbortRequest>(&request) {
                Ok(abort) => {
                    self.abort(now, &abort, out);
                    self.writer.control(now.date, &request, &Done::default())
                }
                Err(error) => self.writer.control_error(now.date, &request, error),
            },
            MsgType::ClearRequest => {
                // Only Python keeps something between tasks. What comes later comes behind this.
                out.extend(self.python.is_some().then_some(Effect::Clear));
                self.writer.control(now.date, &request, &Done::default())
            }
            MsgType::ShutdownRequest => {
                // Whatever the content, the meaning is clear.
                let content = shutdown.insert(self.unpack::<Shutdown>(&request).unwrap_or_default());
                self.writer.control(now.date, &request, &shutdown_content(content))
            }
            MsgType::SignalRequest => match self.signal(&request, out) {
                Ok(()) => self.writer.control(now.date, &request, &Done::default()),
                Err(error) => self.writer.control_error(now.date, &request, error),
            },
            MsgType::KernelInfoRequest => {
                let content = self.kernel_info();
                self.writer.control(now.date, &request, &content)
            }
            other => {
                let error = RemoteError::new("NotImplementedError", self.unknown(other));
                self.writer.control_error(now.date, &request, error)
            }
        };
        out.push(reply);
        out.push(self.writer.status(now.date, Some(&request.body), "idle"));
        if let Some(content) = shutdown {
            // By this the hub unregisters the engine. A request to do so as well would come twice, and a stock hub
            // complains of the second (`controller/hub.py: monitor_iopub_message`).
            out.push(self.writer.shutdown(now.date, &request.body, &content));
            self.end(Ending::Shutdown, out);
        }
        Ok(())
    }

    pub(super) fn unpack<T: for<'a> Deserialize<'a>>(&self, request: &Request) -> Result<T, RemoteError> {
        let content = self.writer.packer().unpack(request.body.content());
        content.map_err(|error| RemoteError::new("ValueError", format!("the request is not understood: {error}")))
    }

    /// Tasks that wait are answered at once; stock answers them when their turn comes. No ids: all that wait.
    fn abort(&mut self, now: Now, abort: &AbortRequest, out: &mut Vec<Effect>) {
        let stop = abort.remuda.is_some_and(|options| options.stop);
        if abort.msg_ids.is_empty() {
            let lined: Vec<MsgId> = self.line.ids().cloned().collect();
            lined.into_iter().for_each(|msg_id| self.withdraw(msg_id, stop, out));
            for request in self.queue.drain() {
                self.answer_aborted(now, &request, out);
            }
            if stop {
                self.running.stop_all(now.instant, StopReason::Asked, out);
            }
            return;
        }
        for msg_id in &abort.msg_ids {
            if self.running.get(msg_id).is_some() {
                if stop {
                    self.running.stop(now.instant, msg_id, StopReason::Asked, out);
                }
                continue;
            }
            if self.line.has(msg_id) {
                self.withdraw(msg_id.clone(), stop, out);
                continue;
            }
            for request in self.queue.abort(msg_id) {
                self.answer_aborted(now, &request, out);
            }
        }
    }

    /// Takes a task back that is lined up: it is answered as soon as it is known whether it has begun.
    pub(super) fn withdraw(&mut self, msg_id: MsgId, stop: bool, out: &mut Vec<Effect>) {
        if self.line.withdraw(&msg_id, stop.then_some(StopReason::Asked)) {
            out.push(Effect::Withdraw { msg_id });
        }
    }

    /// Sends a signal to the programs that run, or to Python. With none, an interrupt is ignored (`engine/nanny.py` and a Python
    /// engine that is idle do the same); anything else would have ended a Python engine, so it is refused in words.
    fn signal(&self, request: &Request, out: &mut Vec<Effect>) -> Result<(), RemoteError> {
        let content = self.unpack::<SignalContent>(request)?;
        let signal = signal::parse(&content.sig).ok_or_else(|| {
            RemoteError::new(
                "ValueError",
                format!("`{}` is no signal: give its number or a name like `SIGINT`", content.sig),
            )
        })?;
        let signalled = self.running.iter().filter(|running| running.kind.can_be_killed());
        let ids: Vec<MsgId> = signalled.map(|running| running.request.msg_id.clone()).collect();
        match ids.first() {
            Some(_) => out.extend(ids.into_iter().map(|msg_id| Effect::Signal { msg_id, signal })),
            None if signal == signal::INT => {}
            None => {
                let reason = format!("engine {} runs nothing to send {} to", self.writer.id, signal::describe(signal));
                return Err(RemoteError::new("ProcessLookupError", reason));
            }
        }
        Ok(())
    }
}
