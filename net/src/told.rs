//! Which messages have left this process.
//!
//! That libzmq took a message says little: it is lost if the process dies before libzmq's own thread wrote it to the
//! connection. But libzmq gives the last frame back when it has, or when the connection is gone.

use std::mem::take;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use remuda_proto::message::parent_msg_id;
use remuda_proto::{Body, Packer};

use crate::receipts::{Receipt, Receipts};

/// The messages that left, in the order in which they did.
#[derive(Clone, Default)]
pub(crate) struct Departed {
    left: Arc<Mutex<Vec<Body>>>,
    /// Where it is noted at once which request a reply that left is to, and how replies are packed.
    receipts: Option<(Arc<Receipts>, Packer)>,
}

impl Departed {
    /// The same, with a receipt for each reply.
    pub(crate) fn with_receipts(receipts: Arc<Receipts>, packer: Packer) -> Self {
        Self { receipts: Some((receipts, packer)), ..Self::default() }
    }

    /// Whether there are receipts.
    pub(crate) fn gives_receipts(&self) -> bool {
        self.receipts.is_some()
    }

    /// Follows a message.
    pub(crate) fn watch(&self, body: &Body) -> Arc<Watched> {
        let of = |packer| Some(Receipt::of(parent_msg_id(packer, body).ok()??.as_str()));
        let receipt = self.receipts.as_ref().and_then(|(_, packer)| of(*packer));
        Arc::new(Watched { body: body.clone(), receipt, departed: self.clone() })
    }

    /// Those that left since the last time.
    pub(crate) fn take(&self) -> Vec<Body> {
        take(&mut self.lock())
    }

    /// Whether there are any.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Whether messages are followed that have not left.
    pub(crate) fn is_watching(&self) -> bool {
        Arc::strong_count(&self.left) > 1
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Body>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message that is followed: it has left once nobody has this any more.
pub(crate) struct Watched {
    body: Body,
    receipt: Option<Receipt>,
    departed: Departed,
}

impl Watched {
    /// Whether there is a receipt once it has left.
    pub(crate) fn gives_receipt(&self) -> bool {
        self.receipt.is_some()
    }

    /// The last frame of the message, to be sent in the place of `last`, which has the same bytes.
    pub(crate) fn tail(self: Arc<Self>, last: Bytes) -> Bytes {
        Bytes::from_owner(Tail { last, _watched: self })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let (Some((receipts, _)), Some(receipt)) = (&self.departed.receipts, self.receipt) {
            receipts.note(receipt);
        }
        let body = self.body.clone();
        self.departed.lock().push(body);
    }
}

struct Tail {
    last: Bytes,
    _watched: Arc<Watched>,
}

impl AsRef<[u8]> for Tail {
    fn as_ref(&self) -> &[u8] {
        &self.last
    }
}

/// The last frame of a message.
pub(crate) fn last_frame(body: &Body) -> Bytes {
    let shared = body.shared(body.part_count() - 1).cloned();
    shared.unwrap_or_else(|| Bytes::copy_from_slice(body.parts().last().unwrap_or_default()))
}
