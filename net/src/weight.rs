//! How much libzmq holds: it tells when it gives a message back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use remuda_proto::{Body, LARGE_FRAME_BYTES};

use crate::told::last_frame;

/// Messages of this size or more are weighed while libzmq has them. Smaller ones are bounded well enough by their number.
pub(crate) const WEIGHED_BYTES: usize = LARGE_FRAME_BYTES;

/// The size of messages that libzmq has, in bytes.
#[derive(Clone, Default)]
pub(crate) struct Weight(Arc<AtomicUsize>);

impl Weight {
    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// The last frame of a message, which counts with the weight of all of it until it is gone: the last to go.
    pub(crate) fn tail(&self, body: &Body) -> Bytes {
        let bytes = last_frame(body);
        let size = body.size_bytes();
        self.0.fetch_add(size, Ordering::Relaxed);
        Bytes::from_owner(Weighed { bytes, size, weight: self.clone() })
    }
}

/// A frame that takes its weight off when it goes.
struct Weighed {
    bytes: Bytes,
    size: usize,
    weight: Weight,
}

impl AsRef<[u8]> for Weighed {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Weighed {
    fn drop(&mut self) {
        self.weight.0.fetch_sub(self.size, Ordering::Relaxed);
    }
}
