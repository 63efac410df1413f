//! What is particular to an engine that runs Python.

use bytes::Bytes;
use remuda_proto::message::content::OkStatus;
use remuda_proto::message::needs::Needs;
use remuda_proto::{MsgId, MsgType, Now, RemoteError, Status};
use serde_json::{Value, json};

use super::running::Running;
use super::writer::{Failure, RawAnswer};
use super::{Effect, EngineCore};
use crate::work::{PythonOutcome, Stream};

/// What is known of the Python process.
#[derive(Default)]
pub(super) struct Python {
    /// The packed header of the task that ended last: what is printed between two tasks belongs to that.
    last: Option<(MsgId, Bytes)>,
}

impl EngineCore {
    /// What a request takes while it runs. There is one Python process, so that all of an engine is taken.
    pub(super) fn takes(&self, needs: &Needs) -> Needs {
        if self.python.is_some() { Needs::plain() } else { needs.clone() }
    }

    /// Whether an error of its own is to be looked for in a request that only Python could handle.
    pub(super) fn is_for_python(&self, msg_type: &MsgType) -> bool {
        self.python.is_some() && !matches!(msg_type, MsgType::KernelInfoRequest)
    }

    /// Something was written: by a task that runs, or, in Python, by what one has left running.
    pub(super) fn wrote(&mut self, now: Now, msg_id: &MsgId, stream: Stream, text: String, out: &mut Vec<Effect>) {
        let running = self.running.get(msg_id).map(|running| running.request.body.header());
        let last = self.python.as_ref().and_then(|python| python.last.as_ref());
        let last = last.filter(|(last, _)| last == msg_id).map(|(_, header)| &**header);
        // Else it belongs to nobody.
        if let Some(parent) = running.or(last) {
            out.push(self.writer.stream(now.date, parent, stream, text));
        }
    }

    /// A request was handled by Python.
    pub(super) fn python_done(&mut self, now: Now, running: &Running, outcome: PythonOutcome, out: &mut Vec<Effect>) {
        let (request, started) = (&running.request, running.started);
        if let Some(python) = &mut self.python {
            python.last = Some((request.msg_id.clone(), Bytes::copy_from_slice(request.body.header())));
        }
        let PythonOutcome { error, unmet, abort_queued, no_reply, content, buffers } = outcome;
        let stopped = error && running.stopping.is_some();
        match content {
            _ if no_reply => {}
            None => out.push(self.writer.ok(now.date, started, request, None, buffers)),
            Some(content) if request.msg_type == MsgType::ApplyRequest || stopped => {
                let failed: RemoteError = serde_json::from_slice(&content).unwrap_or_else(|error| {
                    RemoteError::new("EngineError", format!("Python gave an answer that is not understood: {error}"))
                });
                let error = running.failed(failed);
                let failure = Failure { dependencies_met: !unmet, ..Failure::of(error) };
                // It is published already, by Python itself; that it was stopped is not.
                let mut told = Vec::new();
                self.writer.failed(now.date, started, request, failure, &mut told);
                out.extend(told.pop());
            }
            Some(content) => {
                let status = if error { Status::Error } else { Status::Ok };
                let answer = RawAnswer { status, dependencies_met: !unmet, content, buffers };
                out.push(self.writer.raw_reply(now.date, started, request, answer));
            }
        }
        if abort_queued {
            self.abort_code(now, out);
        }
    }

    /// Code that waits is not run, since code before it failed. None of it is lined up.
    fn abort_code(&mut self, now: Now, out: &mut Vec<Effect>) {
        for request in self.queue.take_code() {
            self.answer_aborted(now, &request, out);
        }
    }

    /// The content of a `kernel_info_reply`.
    pub(super) fn kernel_info(&self) -> Value {
        let version = &self.announcement.version;
        let (language, what) = match &self.announcement.python {
            Some(python) => (
                json!({"name": "python", "version": python, "mimetype": "text/x-python", "file_extension": ".py"}),
                format!("Python {python}"),
            ),
            None => (
                json!({"name": "none", "version": "", "mimetype": "text/plain", "file_extension": ".txt"}),
                "a native engine, for programs and Rust functions".to_owned(),
            ),
        };
        json!({
            "status": OkStatus::Ok,
            "protocol_version": remuda_proto::message::PROTOCOL_VERSION,
            "implementation": "remuda",
            "implementation_version": version,
            "language_info": language,
            "banner": format!("Remuda {version}: {what}"),
            "debugger": false,
            "help_links": [],
        })
    }
}
