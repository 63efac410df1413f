//! Bytes that are not copied.

use bytes::Bytes;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ASIDE_BYTES, BESIDE, BUFFER_EXTENSION, Beside, Marked};

/// Bytes in an argument or a result. From [`ASIDE_BYTES`] on they travel as a frame of their own, and are copied nowhere on
/// the way: what the other side gets is a part of the message that came in. Cheap to clone.
///
/// A Python client gives and gets `bytes`. (`Vec<u8>`, for serde, is a list of numbers, and slow.)
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Buffer(pub Bytes);

impl std::ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl<T: Into<Bytes>> From<T> for Buffer {
    fn from(bytes: T) -> Self {
        Self(bytes.into())
    }
}

impl Serialize for Buffer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(&self.0, None, serializer)
    }
}

/// Writes bytes beside the value if there is a place for them, else into it. `array`: what [`Marked`] says of it.
pub(super) fn serialize<S: Serializer>(
    bytes: &Bytes,
    array: Option<(&'static str, &[usize])>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    /// What stands in the value.
    enum Place {
        Inside,
        Beside(u32),
        Mark([u8; 20]),
    }
    let place = BESIDE.with_borrow_mut(|beside| match beside {
        Beside::Taking { first, buffers, order, met } => {
            *met += 1;
            if bytes.len() < ASIDE_BYTES {
                return Some(Place::Inside);
            }
            let at = buffers.len();
            let at = order.as_ref().map_or(Some(at), |order| order.get(at).copied())?;
            let number = u32::try_from(*first + at).ok()?;
            buffers.push(bytes.clone());
            Some(Place::Beside(number))
        }
        Beside::Marking { marks } => {
            let number = u32::try_from(marks.met.len()).ok()?;
            let array = array.map(|(dtype, shape)| (dtype, shape.to_vec()));
            marks.met.push(Marked { bytes: bytes.clone(), array });
            let mut mark = [0; 20];
            mark[..16].copy_from_slice(&marks.magic);
            mark[16..].copy_from_slice(&number.to_be_bytes());
            Some(Place::Mark(mark))
        }
        _ => Some(Place::Inside),
    });
    match place.unwrap_or(Place::Inside) {
        Place::Inside => serializer.serialize_bytes(bytes),
        Place::Mark(mark) => serializer.serialize_bytes(&mark),
        Place::Beside(number) => {
            let number = number.to_be_bytes();
            let extension = (BUFFER_EXTENSION, serde_bytes::Bytes::new(&number));
            serializer.serialize_newtype_struct(rmp_serde::MSGPACK_EXT_STRUCT_NAME, &extension)
        }
    }
}

impl<'de> Deserialize<'de> for Buffer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BufferVisitor)
    }
}

/// The same bytes as a part of the buffer in which they lie, if there is one, and they are many.
fn shared(bytes: &[u8]) -> Option<Bytes> {
    if bytes.len() < ASIDE_BYTES {
        return None;
    }
    let part = bytes.as_ptr_range();
    let holds = |buffer: &&Bytes| {
        let whole = buffer.as_ptr_range();
        whole.start <= part.start && part.end <= whole.end
    };
    BESIDE.with_borrow(|beside| match beside {
        Beside::Giving { buffers } => buffers.iter().find(holds).map(|buffer| buffer.slice_ref(bytes)),
        _ => None,
    })
}

/// Reads a [`Buffer`]: for who reads values of any kind.
#[derive(Clone, Copy, Debug)]
pub struct BufferVisitor;

impl<'de> Visitor<'de> for BufferVisitor {
    type Value = Buffer;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Buffer, E> {
        Ok(Buffer(shared(bytes).unwrap_or_else(|| Bytes::copy_from_slice(bytes))))
    }

    fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Buffer, E> {
        Ok(Buffer(bytes.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Buffer, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = items.next_element::<u8>()? {
            bytes.push(byte);
        }
        Ok(Buffer(bytes.into()))
    }

    /// An extension value: the number of a buffer.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, extension: D) -> Result<Buffer, D::Error> {
        let (kind, number) = <(i8, serde_bytes::ByteBuf)>::deserialize(extension)?;
        let number: Option<[u8; 4]> = number.as_slice().try_into().ok();
        let Some(number) = number.filter(|_| kind == BUFFER_EXTENSION) else {
            return Err(D::Error::custom(format!("an extension value of type {kind} is no buffer")));
        };
        let number = u32::from_be_bytes(number) as usize;
        BESIDE
            .with_borrow(|beside| match beside {
                Beside::Giving { buffers } => buffers.get(number).cloned().map(Buffer),
                _ => None,
            })
            .ok_or_else(|| D::Error::custom(format!("the message has no buffer {number}")))
    }
}
