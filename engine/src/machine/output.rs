//! Parts of what programs wrote, for those who ask: read while a program runs, or after.

use remuda_proto::message::content::{Done, MAX_OUTPUT_PART, OutputReply, OutputRequest};
use remuda_proto::{Map, MsgId, Now, RemoteError};

use super::request::Request;
use super::{Effect, EngineCore};
use crate::work::OutputPart;

/// Most requests whose part is being read at a time.
const MAX_READING: usize = 1024;

/// Requests whose part is being read, by number.
#[derive(Default)]
pub(super) struct Reading {
    requests: Map<u64, (Request, MsgId)>,
    next: u64,
}

impl EngineCore {
    /// Such requests come by the thousand, so nothing is told of them on iopub.
    pub(super) fn output_request(&mut self, now: Now, request: Request, out: &mut Vec<Effect>) {
        let mut part = match self.unpack::<OutputRequest>(&request) {
            Ok(part) => part,
            Err(error) => return out.push(self.writer.control_error(now.date, &request, error)),
        };
        if part.release {
            out.push(Effect::ReleaseOutput { msg_id: part.msg_id });
            return out.push(self.writer.control(now.date, &request, &Done::default()));
        }
        if self.reading.requests.len() >= MAX_READING {
            let error = RemoteError::new("RuntimeError", "too many parts of output are being read: ask again later");
            return out.push(self.writer.control_error(now.date, &request, error));
        }
        part.max_bytes = part.max_bytes.min(MAX_OUTPUT_PART);
        let number = self.reading.next;
        self.reading.next += 1;
        self.reading.requests.insert(number, (request, part.msg_id.clone()));
        out.push(Effect::ReadOutput { number, part });
    }

    /// A part was read.
    pub(super) fn output_read(
        &mut self,
        now: Now,
        number: u64,
        part: Result<OutputPart, RemoteError>,
        out: &mut Vec<Effect>,
    ) {
        let read = self.reading.requests.swap_remove(&number);
        let (request, msg_id) = read.unwrap_or_else(|| panic!("nobody asked for part {number}"));
        out.push(match part {
            Ok(OutputPart { from, bytes }) => {
                // What waits has written nothing, and is not known here; the one who asks knows that it runs.
                let ended = self.running.get(&msg_id).is_none();
                let content = OutputReply { ended, offset: from, ..OutputReply::default() };
                self.writer.control_part(now.date, &request, &content, bytes)
            }
            Err(error) => self.writer.control_error(now.date, &request, error),
        });
    }
}
