//! Reading the replies of engines.

use remuda_proto::message::metadata::ReplyEnvelope;
use remuda_proto::message::parent_msg_id;
use remuda_proto::{Body, PackError, Packer, Status};

/// What a reply says. A reply that names its request but is garbage otherwise counts as an error, since whoever waits
/// for it is better off with garbage than with nothing.
///
/// # Errors
/// When not even the request can be made out.
pub(crate) fn read(packer: Packer, body: &Body) -> Result<ReplyEnvelope, PackError> {
    ReplyEnvelope::read(packer, body).or_else(|_| {
        let parent = parent_msg_id(packer, body)?;
        Ok(ReplyEnvelope { parent, status: Some(Status::Error), dependencies_met: true })
    })
}
