//! How what is on record of a request becomes what a scheduler takes over.

use std::time::Duration;

use remuda_proto::message::metadata::TaskMetadata;
use remuda_proto::recovery::{Recovered, UndeliveredReply};
use remuda_proto::{Date, Session};

use crate::record::{TaskRecord, all_buffers};

/// A request without a reply, signed anew. `None` if it is packed in another way than messages of this session are: then it
/// is from another cluster.
pub fn recovered(session: &Session, record: &TaskRecord, now: Date) -> Option<Recovered> {
    let packer = session.packer();
    if record.packer != packer {
        return None;
    }
    let request = &record.request;
    let parts = [request.header(), packer.empty_map(), request.metadata(), request.content()];
    let body = session.sign_parts(parts, all_buffers(request));
    let retries = record.retries.unwrap_or_else(|| {
        // It was never sent anywhere. What cannot be read is answered with an error, whatever this is.
        TaskMetadata::read(packer, &body).map_or(0, |metadata| metadata.retries())
    });
    let waited = u64::try_from(now.0.saturating_sub(record.arrived.0)).unwrap_or(0);
    Some(Recovered {
        queue: record.queue,
        client: record.reply_to.clone(),
        msg_id: record.msg_id.clone(),
        body,
        engine: record.engine.clone(),
        tried: record.tried.clone(),
        retries,
        waited: Duration::from_micros(waited),
    })
}

/// A reply that is to be sent to its client, signed anew. `None` if there is none, nobody is to get it, or it is packed in
/// another way than messages of this session are.
pub fn undelivered(session: &Session, record: &TaskRecord) -> Option<UndeliveredReply> {
    if record.packer != session.packer() {
        return None;
    }
    let (client, reply) = (record.reply_to.clone()?, &record.outcome.as_ref()?.body);
    let parts = [reply.header(), record.request.header(), reply.metadata(), reply.content()];
    let body = session.sign_parts(parts, all_buffers(reply));
    Some(UndeliveredReply { queue: record.queue, client, engine: record.engine.clone(), body })
}
