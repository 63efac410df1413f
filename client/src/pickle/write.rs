//! Arguments as ipyparallel pickles them.

use bytes::Bytes;
use remuda_proto::pickle;
pub(super) use remuda_proto::pickle::{Marking, global, text};
use remuda_proto::value::Marks;
use serde::Serialize;
use serde_pickle::Value;

/// From how many bytes on data is a buffer beside the pickle (`jupyter_client/session.py: MAX_BYTES`).
const ASIDE_BYTES: usize = 1025;

/// A value as it is before it is written.
pub(super) fn mark(value: &(impl Serialize + ?Sized)) -> Result<Marking, serde_pickle::Error> {
    pickle::mark(remuda_net::random_bytes(), value)
}

/// One value: its pickle, and the buffers that go with it.
pub(super) fn object(value: &Value, marks: &Marks) -> Result<Vec<Bytes>, serde_pickle::Error> {
    let mut buffers = Vec::new();
    let written = pickle::object(value, marks, &mut |_, data| {
        let is_aside = data.len() >= ASIDE_BYTES;
        buffers.extend(is_aside.then(|| data.clone()));
        is_aside
    })?;
    Ok([vec![written.into()], buffers].concat())
}
