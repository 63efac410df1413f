//! Values as ipyparallel pickles them (`serialize/serialize.py: serialize_object`): plain ones, with arrays and bytes as the
//! objects that its own functions make of them, whose data may be in buffers beside the pickle.

use bytes::Bytes;
use serde::Serialize;
use serde_pickle::{HashableValue, SerOptions, Value};

use crate::value::{self, Marked, Marks};

/// ipyparallel looks into lists, tuples, sets and dicts with fewer items than this, and no deeper.
pub const MAX_ITEMS: usize = 64;

/// What a value could not be pickled for.
pub type Error = serde_pickle::Error;

/// A value whose buffers and arrays are marks.
#[derive(Debug)]
pub struct Marking {
    /// The value.
    pub value: Value,
    /// What the marks in it stand for.
    pub marks: Marks,
}

/// A value as it is before it is written. `magic`: as for [`value::mark`].
///
/// # Errors
/// For a value that has no pickled form.
pub fn mark(magic: [u8; 16], value: &(impl Serialize + ?Sized)) -> Result<Marking, Error> {
    let (value, marks) = value::mark(magic, || serde_pickle::to_value(value));
    Ok(Marking { value: value?, marks })
}

/// The pickle of a value. `aside` is asked of arrays and bytes whose data may be a buffer beside it, by their number in
/// [`Marks::met`] and in the order in which ipyparallel will look for these; the others are in the pickle.
///
/// # Errors
/// For a value that has no pickled form.
pub fn object(value: &Value, marks: &Marks, aside: &mut dyn FnMut(usize, &Bytes) -> bool) -> Result<Vec<u8>, Error> {
    let mut writer = Writer { bytes: b"\x80\x04".to_vec(), aside, marks };
    writer.top(value)?;
    writer.bytes.push(b'.');
    Ok(writer.bytes)
}

/// The pickle of a value with all its data in it, as it can stand inside of another pickle: without beginning and end.
///
/// # Errors
/// For a value that has no pickled form.
pub fn inside(value: &Value, marks: &Marks) -> Result<Vec<u8>, Error> {
    let mut writer = Writer { bytes: Vec::new(), aside: &mut |_, _| false, marks };
    writer.plain(value)?;
    Ok(writer.bytes)
}

/// A name in a module (opcode `STACK_GLOBAL`, which takes any text).
pub fn global(module: &str, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    text(&mut bytes, module);
    text(&mut bytes, name);
    bytes.push(0x93);
    bytes
}

/// Appends a text.
pub fn text(bytes: &mut Vec<u8>, text: &str) {
    sized(bytes, b'X', 0x8d, text.len());
    bytes.extend(text.as_bytes());
}

/// An opcode with a length, `long` if that does not fit into four bytes.
fn sized(bytes: &mut Vec<u8>, short: u8, long: u8, len: usize) {
    if let Ok(len) = u32::try_from(len) {
        bytes.push(short);
        bytes.extend(len.to_le_bytes());
    } else {
        bytes.push(long);
        bytes.extend((len as u64).to_le_bytes());
    }
}

struct Writer<'m> {
    bytes: Vec<u8>,
    aside: &'m mut dyn FnMut(usize, &Bytes) -> bool,
    marks: &'m Marks,
}

impl Writer<'_> {
    /// The value, or the list, tuple or dict of values, into which ipyparallel looks.
    fn top(&mut self, value: &Value) -> Result<(), serde_pickle::Error> {
        match value {
            Value::List(items) | Value::Tuple(items) if items.len() < MAX_ITEMS => {
                self.sequence(value, items, Self::canned)
            }
            // Which buffer is whose goes by the order of the keys, about which Python and we agree where they are text.
            Value::Dict(items)
                if items.len() < MAX_ITEMS && items.keys().all(|key| matches!(key, HashableValue::String(_))) =>
            {
                self.dict(items, Self::canned)
            }
            _ => self.canned(value),
        }
    }

    /// A value that ipyparallel opens if it is canned.
    fn canned(&mut self, value: &Value) -> Result<(), serde_pickle::Error> {
        let Some(number) = self.marked(value) else { return self.plain(value) };
        let Marked { bytes: data, array } = self.marks.met[number].clone();
        if array.is_some() && data.is_empty() {
            return self.plain(value);
        }
        let class = if array.is_some() { "CannedArray" } else { "CannedBytes" };
        self.bytes.extend(global("ipyparallel.serialize.canning", class));
        // Made without arguments, then given its state.
        self.bytes.extend(b")\x81}(");
        if let Some((dtype, shape)) = array {
            text(&mut self.bytes, "dtype");
            text(&mut self.bytes, dtype);
            text(&mut self.bytes, "shape");
            self.shape(&shape);
            text(&mut self.bytes, "pickled");
            self.bytes.push(0x89);
        }
        text(&mut self.bytes, "buffers");
        self.bytes.push(b']');
        if (self.aside)(number, &data) {
            self.bytes.push(b'N');
        } else {
            self.data(&data);
        }
        self.bytes.extend(b"aub");
        Ok(())
    }

    /// A value inside of another, which nobody looks at after it is unpickled.
    fn plain(&mut self, value: &Value) -> Result<(), serde_pickle::Error> {
        if let Some(number) = self.marked(value) {
            let Marked { bytes: data, array } = self.marks.met[number].clone();
            match array {
                None => self.data(&data),
                // `numpy.ndarray(shape, dtype, data)`
                Some((dtype, shape)) => {
                    self.bytes.extend(global("numpy", "ndarray"));
                    self.shape(&shape);
                    text(&mut self.bytes, dtype);
                    self.data(&data);
                    self.bytes.extend(b"\x87R");
                }
            }
            return Ok(());
        }
        match value {
            Value::List(items) | Value::Tuple(items) if self.has_marks() => self.sequence(value, items, Self::plain),
            Value::Dict(items) if self.has_marks() => self.dict(items, Self::plain),
            Value::Set(items) | Value::FrozenSet(items) if self.has_marks() => {
                self.bytes.extend(if matches!(value, Value::Set(_)) { &b"\x8f("[..] } else { b"(" });
                for item in items {
                    self.plain(&item.clone().into_value())?;
                }
                self.bytes.push(if matches!(value, Value::Set(_)) { 0x90 } else { 0x91 });
                Ok(())
            }
            _ => {
                // Between the protocol and the end is what stands as well inside of another pickle: it has no memo.
                let whole = serde_pickle::value_to_vec(value, SerOptions::new())?;
                self.bytes.extend(&whole[2..whole.len() - 1]);
                Ok(())
            }
        }
    }

    fn sequence(
        &mut self,
        value: &Value,
        items: &[Value],
        write: fn(&mut Self, &Value) -> Result<(), serde_pickle::Error>,
    ) -> Result<(), serde_pickle::Error> {
        let is_list = matches!(value, Value::List(_));
        self.bytes.extend(if is_list { &b"]("[..] } else { b"(" });
        for item in items {
            write(self, item)?;
        }
        self.bytes.push(if is_list { b'e' } else { b't' });
        Ok(())
    }

    fn dict(
        &mut self,
        items: &std::collections::BTreeMap<HashableValue, Value>,
        write: fn(&mut Self, &Value) -> Result<(), serde_pickle::Error>,
    ) -> Result<(), serde_pickle::Error> {
        self.bytes.extend(b"}(");
        for (key, item) in items {
            self.plain(&key.clone().into_value())?;
            write(self, item)?;
        }
        self.bytes.push(b'u');
        Ok(())
    }

    fn shape(&mut self, shape: &[usize]) {
        self.bytes.push(b'(');
        for length in shape {
            self.bytes.extend(b"\x8a\x08");
            // Lengths of what is in memory have their highest bit free, which is the sign here.
            self.bytes.extend((*length as u64).to_le_bytes());
        }
        self.bytes.push(b't');
    }

    fn data(&mut self, data: &[u8]) {
        sized(&mut self.bytes, b'B', 0x8e, data.len());
        self.bytes.extend(data);
    }

    fn has_marks(&self) -> bool {
        !self.marks.met.is_empty()
    }

    fn marked(&self, value: &Value) -> Option<usize> {
        match value {
            Value::Bytes(bytes) => self.marks.find(bytes),
            _ => None,
        }
    }
}
