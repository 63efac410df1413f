//! Blocks of bytes between Python and the sockets, without a copy where they are large.

use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::sync::Arc;

use bytes::Bytes;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyMemoryView};
use remuda_proto::Body;

use crate::hub::Hub;

/// From how many bytes on a block is shared; copying a smaller one costs less than keeping track of it.
const SHARED_BYTES: usize = remuda_proto::LARGE_FRAME_BYTES;

/// What a message holds of Python's: given back to a thread that has Python's lock, since it must not be dropped without.
struct Lent {
    view: ManuallyDrop<PyBuffer<u8>>,
    hub: Arc<Hub>,
    /// Who wants to know when it is given back.
    track: Option<u64>,
}

impl AsRef<[u8]> for Lent {
    #[allow(unsafe_code, reason = "the view is contiguous, and keeps its memory while it lives")]
    fn as_ref(&self) -> &[u8] {
        if self.view.len_bytes() == 0 {
            return &[];
        }
        // SAFETY: `lend` has seen that it is contiguous, and the exporter keeps the memory as long as the view is not released.
        // Who changes an array before it is sent sends one or the other, as with pyzmq.
        unsafe { std::slice::from_raw_parts(self.view.buf_ptr().cast(), self.view.len_bytes()) }
    }
}

impl Drop for Lent {
    #[allow(unsafe_code, reason = "taken out once, here")]
    fn drop(&mut self) {
        // SAFETY: it is not used after this.
        let view = unsafe { ManuallyDrop::take(&mut self.view) };
        self.hub.give_back(view, self.track);
    }
}

/// A buffer of a message that is sent: anything with bytes.
pub(crate) fn lend(buffer: &Bound<'_, PyAny>, hub: &Arc<Hub>, track: Option<u64>) -> PyResult<Bytes> {
    if let Ok(bytes) = buffer.cast::<PyBytes>()
        && bytes.as_bytes().len() < SHARED_BYTES
    {
        return Ok(Bytes::copy_from_slice(bytes.as_bytes()));
    }
    let view = view_of(buffer)?;
    if view.len_bytes() < SHARED_BYTES && track.is_none() {
        return Ok(Bytes::from(view.to_vec(buffer.py())?));
    }
    hub.lends(track);
    Ok(Bytes::from_owner(Lent { view: ManuallyDrop::new(view), hub: Arc::clone(hub), track }))
}

fn view_of(buffer: &Bound<'_, PyAny>) -> PyResult<PyBuffer<u8>> {
    let view = if let Ok(view) = PyBuffer::<u8>::get(buffer) {
        view
    } else {
        // Numbers of any kind, and any shape: their bytes.
        let bytes = PyMemoryView::from(buffer).and_then(|view| view.call_method1("cast", ("B",)));
        let wrong = || PyTypeError::new_err(format!("`{}` has no bytes that can be sent", buffer.get_type()));
        PyBuffer::get(&bytes.map_err(|_| wrong())?)?
    };
    if view.is_c_contiguous() {
        Ok(view)
    } else {
        Err(PyTypeError::new_err("only contiguous blocks of bytes can be sent"))
    }
}

/// A block of bytes that came in, as Python sees it through a memoryview.
#[pyclass(frozen)]
struct Block(Bytes);

#[pymethods]
impl Block {
    #[allow(unsafe_code, reason = "the buffer protocol is C")]
    #[allow(clippy::needless_pass_by_value, reason = "PyO3 hands it over so")]
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view to fill"));
        }
        let bytes = &slf.get().0;
        let (at, len) = (bytes.as_ptr().cast_mut().cast::<c_void>(), bytes.len());
        let len = ffi::Py_ssize_t::try_from(len)?;
        // SAFETY: the bytes live as long as the object, which the view keeps; and nobody may write to them.
        let filled = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), at, len, 1, flags) };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

/// Buffer `index` of a message: `bytes`, or a view of a large one.
fn buffer<'py>(py: Python<'py>, body: &Body, index: usize) -> PyResult<Bound<'py, PyAny>> {
    // The signature and four parts come first.
    const FIRST: usize = 5;
    match body.shared(index + FIRST) {
        Some(bytes) => {
            let block = Bound::new(py, Block(bytes.clone()))?;
            Ok(PyMemoryView::from(&block)?.into_any())
        }
        None => Ok(PyBytes::new(py, &body.buffer(index).unwrap_or_default()).into_any()),
    }
}

/// The buffers of a message.
pub(crate) fn buffers<'py>(py: Python<'py>, body: &Body) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    if body.buffer_count() == 1 && body.shared(5).is_none() {
        // Most results.
        list.append(PyBytes::new(py, body.buffers().next().unwrap_or_default()))?;
        return Ok(list);
    }
    for index in 0..body.buffer_count() {
        list.append(buffer(py, body, index)?)?;
    }
    Ok(list)
}

/// What Python reads a message from: header, parent header, metadata and content, packed, and the buffers.
pub(crate) type Message<'py> =
    (Bound<'py, PyBytes>, Bound<'py, PyBytes>, Bound<'py, PyBytes>, Bound<'py, PyBytes>, Bound<'py, PyList>);

/// A message for Python.
pub(crate) fn message<'py>(py: Python<'py>, body: &Body) -> PyResult<Message<'py>> {
    let part = |part: &[u8]| PyBytes::new(py, part);
    let parts = [body.header(), body.parent_header(), body.metadata(), body.content()];
    let [header, parent, metadata, content] = parts.map(part);
    Ok((header, parent, metadata, content, buffers(py, body)?))
}
