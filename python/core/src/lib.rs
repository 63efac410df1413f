//! What `remuda.Client` is made of: sockets, signatures, the matching of replies, and waiting, none of it under Python's lock.
//!
//! A request is a `Slot`, made when it is sent. Python keeps the slot, and nothing is kept here of a request whose slot is
//! gone. Replies wait in their slots until they are asked for; what somebody wants to hear of as it comes (engines, slots that are
//! watched) goes through the queue of the `Core`, which wakes one thread of Python's.

mod buffer;
mod connection;
mod hub;
mod slot;
mod waiter;

use pyo3::prelude::*;

/// The module `remuda._core`.
#[pymodule]
mod _core {
    #[pymodule_export]
    use super::connection::Core;
    #[pymodule_export]
    use super::invitation;
    #[pymodule_export]
    use super::slot::Slot;
    #[pymodule_export]
    use super::waiter::Waiter;

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}

/// The connection that an invitation holds, as the text of a connection file.
#[pyfunction]
fn invitation(word: &str) -> PyResult<String> {
    let wrong = |error: &dyn std::fmt::Display| pyo3::exceptions::PyValueError::new_err(error.to_string());
    let connection: remuda_proto::ClientConnection =
        remuda_proto::invitation::from_word(word).map_err(|error| wrong(&error))?;
    serde_json::to_string(&connection).map_err(|error| wrong(&error))
}
