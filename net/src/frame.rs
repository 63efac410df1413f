//! Frames as libzmq has them: the one place that talks to libzmq itself.
//!
//! A controller moves some thirty frames a task, so that what the `zmq` crate does around each (a message made and dropped,
//! its length and its address asked for one by one) would be a good part of what a task costs.
#![allow(unsafe_code, reason = "the zmq crate neither lends received frames cheaply nor sends bytes that others own")]

use std::ffi::{c_int, c_void};

use bytes::Bytes;

/// A frame that was received, and the place where the next one lands.
pub(crate) struct ReceivedFrame {
    /// Always initialised.
    message: zmq_sys::zmq_msg_t,
    /// Size of the frame in bytes.
    len: usize,
}

// SAFETY: a message of libzmq belongs to no thread; it is used by one at a time, since all access needs `&mut` or ownership,
// and what `Bytes` shares of it is only read.
unsafe impl Send for ReceivedFrame {}
// SAFETY: as above: shared access only reads.
unsafe impl Sync for ReceivedFrame {}

impl ReceivedFrame {
    /// An empty frame.
    pub(crate) fn new() -> Self {
        let mut message = zmq_sys::zmq_msg_t::default();
        // SAFETY: the message is ours, and not initialised yet. The call always succeeds.
        unsafe { zmq_sys::zmq_msg_init(&raw mut message) };
        Self { message, len: 0 }
    }

    /// Receives the next frame of a socket into this one. Returns whether there was one; none is awaited.
    pub(crate) fn receive(&mut self, socket: *mut c_void) -> bool {
        loop {
            // SAFETY: `socket` is open as long as its `Socket` lives, which calls this; the message is initialised.
            let len = unsafe { zmq_sys::zmq_msg_recv(&raw mut self.message, socket, zmq::DONTWAIT) };
            if let Ok(len) = usize::try_from(len) {
                self.len = len;
                return true;
            }
            // EAGAIN: nothing there. Anything else means that the context ended, after which nothing comes.
            if errno() != zmq::Error::EINTR {
                return false;
            }
        }
    }

    /// Whether more frames of the same message follow.
    pub(crate) fn more(&self) -> bool {
        // SAFETY: the message is initialised.
        unsafe { zmq_sys::zmq_msg_more((&raw const self.message).cast_mut()) != 0 }
    }

    /// The bytes of the frame, to be kept without a copy; this frame is empty then.
    pub(crate) fn take(&mut self) -> Bytes {
        Bytes::from_owner(std::mem::replace(self, Self::new()))
    }
}

impl AsRef<[u8]> for ReceivedFrame {
    fn as_ref(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: the message is initialised and has `len` bytes, which live and stay as long as it is not received into or
        // dropped, for both of which nobody may hold this borrow. (Small frames lie inside the message itself, which moves
        // only when nothing is borrowed.)
        unsafe {
            let data = zmq_sys::zmq_msg_data((&raw const self.message).cast_mut());
            std::slice::from_raw_parts(data.cast::<u8>(), self.len)
        }
    }
}

impl Drop for ReceivedFrame {
    fn drop(&mut self) {
        // SAFETY: the message is initialised, and not used again.
        unsafe { zmq_sys::zmq_msg_close(&raw mut self.message) };
    }
}

/// Sends a copy of `frame`, or says why it was not taken; nothing is awaited.
pub(crate) fn send(socket: *mut c_void, frame: &[u8], more: bool) -> Result<(), zmq::Error> {
    loop {
        // SAFETY: `socket` is open as long as its `Socket` lives, which calls this; `frame` is only read, and only during the
        // call.
        let sent = unsafe { zmq_sys::zmq_send(socket, frame.as_ptr().cast(), frame.len(), flags(more)) };
        if sent >= 0 {
            return Ok(());
        }
        let error = errno();
        if error != zmq::Error::EINTR {
            return Err(error);
        }
    }
}

/// Sends `bytes` as one frame without copying them; libzmq keeps them until it has written them out. Returns whether it was
/// taken.
pub(crate) fn send_shared(socket: *mut c_void, bytes: Bytes, more: bool) -> bool {
    let owner = Box::new(bytes);
    let (data, size) = (owner.as_ptr().cast_mut().cast::<c_void>(), owner.len());
    let hint = Box::into_raw(owner).cast::<c_void>();
    let mut message = zmq_sys::zmq_msg_t::default();
    // SAFETY: `data` points to `size` bytes that live until `free` drops their owner, which is `hint`; libzmq only
    // reads them. `message` is initialised by the first call, and given up by a send that succeeds or closed after one
    // that fails; either way `free` runs exactly once.
    unsafe {
        if zmq_sys::zmq_msg_init_data(&raw mut message, data, size, Some(free), hint) != 0 {
            drop(Box::from_raw(hint.cast::<Bytes>()));
            return false;
        }
        while zmq_sys::zmq_msg_send(&raw mut message, socket, flags(more)) < 0 {
            if errno() != zmq::Error::EINTR {
                zmq_sys::zmq_msg_close(&raw mut message);
                return false;
            }
        }
    }
    true
}

fn flags(more: bool) -> c_int {
    zmq::DONTWAIT | if more { zmq::SNDMORE } else { 0 }
}

/// Why the last call on this thread failed.
fn errno() -> zmq::Error {
    // SAFETY: it only reads a thread-local number.
    zmq::Error::from_raw(unsafe { zmq_sys::zmq_errno() })
}

unsafe extern "C" fn free(_data: *mut c_void, hint: *mut c_void) {
    // SAFETY: `hint` came from `Box::into_raw` of a `Box<Bytes>`, and libzmq calls this once.
    drop(unsafe { Box::from_raw(hint.cast::<Bytes>()) });
}
