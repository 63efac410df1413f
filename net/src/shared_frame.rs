//! Sending a large frame without copying it: the one place that talks to libzmq itself.
#![allow(unsafe_code, reason = "the zmq crate has no safe way to send bytes that something else owns")]

use std::ffi::c_void;

use bytes::Bytes;

/// Sends `bytes` as one frame; libzmq keeps them until it has written them out.
///
/// # Errors
/// What `zmq_msg_send` says.
pub(crate) fn send(socket: *mut c_void, bytes: Bytes, flags: i32) -> Result<(), zmq::Error> {
    let owner = Box::new(bytes);
    let (data, size) = (owner.as_ptr().cast_mut().cast::<c_void>(), owner.len());
    let hint = Box::into_raw(owner).cast::<c_void>();
    let mut message = zmq_sys::zmq_msg_t::default();
    // SAFETY: `data` points to `size` bytes that live until `free` drops their owner, which is `hint`; libzmq only
    // reads them. `message` is initialised by the first call, and given up by a send that succeeds or closed after one
    // that fails; either way `free` runs exactly once.
    unsafe {
        if zmq_sys::zmq_msg_init_data(&raw mut message, data, size, Some(free), hint) != 0 {
            let error = zmq::Error::from_raw(zmq_sys::zmq_errno());
            drop(Box::from_raw(hint.cast::<Bytes>()));
            return Err(error);
        }
        if zmq_sys::zmq_msg_send(&raw mut message, socket, flags) < 0 {
            let error = zmq::Error::from_raw(zmq_sys::zmq_errno());
            zmq_sys::zmq_msg_close(&raw mut message);
            return Err(error);
        }
    }
    Ok(())
}

unsafe extern "C" fn free(_data: *mut c_void, hint: *mut c_void) {
    // SAFETY: `hint` came from `Box::into_raw` of a `Box<Bytes>`, and libzmq calls this once.
    drop(unsafe { Box::from_raw(hint.cast::<Bytes>()) });
}
