//! What clients in other languages are made of: the machine and its thread, without handles or futures.
//!
//! Not for Rust programs: those have [`Client`](crate::Client).

use std::sync::Arc;

use remuda_net::{NetError, Security, Sender};
use remuda_proto::{ClientConnection, SessionId};

use crate::outstanding::{Event, Names, OUTPUT_LIMIT_BYTES, Outstanding, RESEND_LIMIT_BYTES};
pub use crate::run::Deliver;

/// Why sockets were not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The connection cannot be used.
    #[error(transparent)]
    Connection(#[from] remuda_proto::connection::ConnectionError),
    /// The connection is encrypted, and its keys cannot be used.
    #[error(transparent)]
    Curve(#[from] remuda_net::curve::CurveError),
    /// The sockets.
    #[error(transparent)]
    Net(#[from] NetError),
}

/// Opens the sockets of a client, and starts its thread, which ends when the sender is dropped, or with the controller. The
/// `interface` of the connection is the one that is connected to.
///
/// # Errors
/// [`OpenError`]; whether anybody is there is not known then.
pub fn open<D: Deliver>(
    connection: &ClientConnection,
    session: SessionId,
    deliver: &Arc<D>,
) -> Result<(Sender<Event>, Names), OpenError> {
    let common = &connection.common;
    let security = Security::to_connect(common)?;
    let (packer, key) = (common.packer()?, common.signing_key()?);
    let session = remuda_net::session(Some(session), key, packer);
    let names = Names::new(&session, std::process::id());
    let name = session.id().clone();
    let machine = Outstanding::new(session, OUTPUT_LIMIT_BYTES).with_resend_limit(RESEND_LIMIT_BYTES);
    let sender = crate::run::start(connection, &common.interface, security, &name, machine, deliver)?;
    Ok((sender, names))
}
