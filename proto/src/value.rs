//! Arguments and results of functions: MessagePack, with large blocks of bytes beside it.
//!
//! A [`Buffer`] of [`ASIDE_BYTES`] or more is not written into the MessagePack but becomes a buffer of the message, so that
//! no hop copies it: in its place stands an extension value of type [`BUFFER_EXTENSION`], whose four bytes, big end first,
//! are the number of that buffer in the message, from 0. An [`Array`] is a map of `dtype`, `shape` and `data`, the last of
//! them such a buffer.

mod array;
mod buffer;

use std::cell::RefCell;
use std::io::Cursor;

use bytes::Bytes;
use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned, IgnoredAny};

pub use array::{Array, ArrayError, Element};
pub use buffer::{Buffer, BufferVisitor};

/// The MessagePack extension type of a buffer that stands beside the value.
pub const BUFFER_EXTENSION: i8 = 66;
/// From how many bytes on a buffer stands beside the value: a frame of its own costs about as much as copying so many.
pub const ASIDE_BYTES: usize = 4096;

/// What a value could not be read for.
pub type ReadError = rmp_serde::decode::Error;
/// What a value could not be written for.
pub type WriteError = rmp_serde::encode::Error;

/// Where buffers go, or come from, while a value is written or read on this thread.
enum Beside {
    /// Inside the value.
    Nowhere,
    /// Written values put theirs here; the first gets the number `first`. `met` counts those that stand inside, too.
    Taking { first: usize, buffers: Vec<Bytes>, order: Option<Vec<usize>>, met: usize },
    /// Written values put theirs here, whatever their size, and leave a mark in their place.
    Marking { marks: Marks },
    /// Read values find theirs here.
    Giving { buffers: Vec<Bytes> },
}

thread_local! {
    static BESIDE: RefCell<Beside> = const { RefCell::new(Beside::Nowhere) };
}

/// Puts the place for buffers back as it was, also when a panic unwinds.
struct Restore(Option<Beside>);

impl Restore {
    fn enter(beside: Beside) -> Self {
        Self(Some(BESIDE.replace(beside)))
    }

    fn leave(mut self) -> Beside {
        BESIDE.replace(self.0.take().unwrap_or(Beside::Nowhere))
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        if let Some(before) = self.0.take() {
            BESIDE.set(before);
        }
    }
}

/// Writes values one after the other, all into one run of bytes, with their buffers beside it.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    buffers: Vec<Bytes>,
    first: usize,
    order: Option<Vec<usize>>,
    met: usize,
}

impl Writer {
    /// One whose first buffer will be number `first` of the message.
    pub fn new(first: usize) -> Self {
        Self { first, ..Self::default() }
    }

    /// The same, for a value whose buffers are known: the one that is met first gets the number `first + order[0]`, and so on.
    /// `order` has each number below its length once.
    pub fn with_order(first: usize, order: Vec<usize>) -> Self {
        Self { first, order: Some(order), ..Self::default() }
    }

    /// How many buffers and arrays were met, of any size.
    pub fn met(&self) -> usize {
        self.met
    }

    /// How far it is, to go [back](Self::truncate) to.
    pub fn mark(&self) -> (usize, usize) {
        (self.bytes.len(), self.buffers.len())
    }

    /// Forgets what was written since that mark.
    pub fn truncate(&mut self, (bytes, buffers): (usize, usize)) {
        self.bytes.truncate(bytes);
        self.buffers.truncate(buffers);
    }

    /// Writes a value behind what is there. Structs become maps.
    ///
    /// # Errors
    /// For a value that MessagePack does not have; nothing of it is left then.
    pub fn write<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), WriteError> {
        let mark = self.mark();
        let taking = Beside::Taking {
            first: self.first,
            buffers: std::mem::take(&mut self.buffers),
            order: self.order.take(),
            met: self.met,
        };
        let scope = Restore::enter(taking);
        let written = rmp_serde::encode::write_named(&mut self.bytes, value);
        if let Beside::Taking { buffers, order, met, .. } = scope.leave() {
            (self.buffers, self.order, self.met) = (buffers, order, met);
        }
        written.inspect_err(|_| self.truncate(mark))
    }

    /// Writes a list of this one value.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_entry<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), WriteError> {
        let before = self.bytes.len();
        self.begin_list(1);
        self.write(value).inspect_err(|_| self.bytes.truncate(before))
    }

    /// Begins a list of so many values, which are to be written next.
    ///
    /// # Panics
    /// At 2³² values.
    pub fn begin_list(&mut self, len: usize) {
        let len = u32::try_from(len).unwrap_or_else(|_| panic!("a list of {len} values is too long"));
        match u16::try_from(len) {
            Ok(len) if len < 16 => self.bytes.push(0x90 | len.to_be_bytes()[1]),
            Ok(len) => {
                self.bytes.push(0xdc);
                self.bytes.extend(len.to_be_bytes());
            }
            Err(_) => {
                self.bytes.push(0xdd);
                self.bytes.extend(len.to_be_bytes());
            }
        }
    }

    /// All that was written, and the buffers in their order.
    pub fn finish(self) -> (Bytes, Vec<Bytes>) {
        let mut buffers = self.buffers;
        if let Some(order) = self.order {
            let mut numbered: Vec<_> = order.into_iter().zip(buffers).collect();
            numbered.sort_by_key(|(number, _)| *number);
            buffers = numbered.into_iter().map(|(_, buffer)| buffer).collect();
        }
        (self.bytes.into(), buffers)
    }
}

/// Writes one value, whose first buffer will be number `first` of the message; its buffers stand beside it.
///
/// # Errors
/// For a value that MessagePack does not have.
pub fn write<T: Serialize + ?Sized>(value: &T, first: usize) -> Result<(Bytes, Vec<Bytes>), WriteError> {
    let mut writer = Writer::new(first);
    writer.write(value)?;
    Ok(writer.finish())
}

/// Reads one value. `buffers` are all buffers of the message, as they are numbered.
///
/// # Errors
/// For what is no MessagePack, a value of another type, and a buffer that is not there.
pub fn read<T: DeserializeOwned>(bytes: &[u8], buffers: &[Bytes]) -> Result<T, ReadError> {
    give(buffers, || rmp_serde::from_slice(bytes))
}

/// Deserialises a value by whatever deserializer `read` uses. A [`Buffer`] or an [`Array`] that is given bytes which lie in one of
/// `buffers` becomes a part of that, from [`ASIDE_BYTES`] on, instead of a copy.
pub fn give<R>(buffers: &[Bytes], read: impl FnOnce() -> R) -> R {
    let _scope = Restore::enter(Beside::Giving { buffers: buffers.to_vec() });
    read()
}

/// The values of a list, each as it is written; any other value is no list.
///
/// # Errors
/// For what is no list, or not whole.
pub fn split(bytes: &[u8]) -> Result<Vec<&[u8]>, ReadError> {
    let (len, mut rest) = match bytes {
        [marker @ 0x90..=0x9f, rest @ ..] => (u32::from(marker & 0x0f), rest),
        [0xdc, a, b, rest @ ..] => (u32::from(u16::from_be_bytes([*a, *b])), rest),
        [0xdd, a, b, c, d, rest @ ..] => (u32::from_be_bytes([*a, *b, *c, *d]), rest),
        _ => return Err(serde::de::Error::custom("it is no list")),
    };
    let mut values = Vec::with_capacity(rest.len().min(len as usize));
    for _ in 0..len {
        let mut reader = rmp_serde::Deserializer::new(Cursor::new(rest));
        IgnoredAny::deserialize(&mut reader)?;
        let used = usize::try_from(reader.position()).unwrap_or(rest.len());
        let (value, behind) = rest.split_at(used);
        values.push(value);
        rest = behind;
    }
    Ok(values)
}

/// The buffers of a value that was written with [`mark`], and what stands in their place.
#[derive(Debug)]
pub struct Marks {
    /// What each mark begins with.
    magic: [u8; 16],
    /// The buffers, in the order in which they were met.
    pub met: Vec<Marked>,
}

/// A buffer in place of which a mark was written.
#[derive(Clone, Debug)]
pub struct Marked {
    /// Its bytes.
    pub bytes: Bytes,
    /// The `dtype` and the shape if it is an [`Array`].
    pub array: Option<(&'static str, Vec<usize>)>,
}

impl Marks {
    /// The number in [`Self::met`] of the buffer for which these bytes stand; `None` for bytes that are no mark.
    pub fn find(&self, bytes: &[u8]) -> Option<usize> {
        let number = bytes.strip_prefix(&self.magic)?;
        let number = u32::from_be_bytes(number.try_into().ok()?) as usize;
        (number < self.met.len()).then_some(number)
    }
}

/// Serialises a value by whatever serializer `write` uses. In place of each [`Buffer`] and [`Array`] in it stands a mark:
/// bytes by which [`Marks::find`] knows them. `magic` is to be 16 bytes that no value holds: random ones.
pub fn mark<R>(magic: [u8; 16], write: impl FnOnce() -> R) -> (R, Marks) {
    let scope = Restore::enter(Beside::Marking { marks: Marks { magic, met: Vec::new() } });
    let result = write();
    match scope.leave() {
        Beside::Marking { marks } => (result, marks),
        _ => (result, Marks { magic, met: Vec::new() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_large_buffer_stands_beside_the_value_and_a_small_one_in_it() {
        let (large, small) = (Buffer::from(vec![7; ASIDE_BYTES]), Buffer::from(vec![8; 10]));
        let (bytes, buffers) = write(&(&large, 5, &small, &large), 1).unwrap();
        assert!(bytes.len() < 40, "{bytes:?}");
        assert_eq!(buffers.len(), 2);
        assert_eq!(buffers[0].as_ptr(), large.as_ptr(), "not copied");
        let all = [&[Bytes::from_static(b"pickle")], &buffers[..]].concat();
        let back: (Buffer, i32, Buffer, Buffer) = read(&bytes, &all).unwrap();
        assert_eq!((&back.0, back.1, &back.2, &back.3), (&large, 5, &small, &large));
        assert_eq!(back.0.as_ptr(), large.as_ptr(), "nor on the way back");
        let missing = read::<(Buffer, i32, Buffer, Buffer)>(&bytes, &all[..2]).unwrap_err();
        assert!(missing.to_string().contains("buffer 2"), "{missing}");
    }

    #[test]
    fn outside_of_a_message_a_buffer_is_bytes() {
        let buffer = Buffer::from(vec![1; ASIDE_BYTES]);
        let bytes = rmp_serde::to_vec(&buffer).unwrap();
        assert_eq!(bytes.len(), ASIDE_BYTES + 3);
        assert_eq!(rmp_serde::from_slice::<Buffer>(&bytes).unwrap(), buffer);
        assert_eq!(serde_json::from_str::<Buffer>("[1, 2]").unwrap(), Buffer::from(vec![1, 2]));
    }

    #[test]
    fn a_value_that_cannot_be_written_leaves_nothing() {
        struct Wrong;
        impl Serialize for Wrong {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("wrong"))
            }
        }
        let mut writer = Writer::new(0);
        writer.write(&1).unwrap();
        writer.write(&(Buffer::from(vec![0; ASIDE_BYTES]), Wrong)).unwrap_err();
        writer.write(&2).unwrap();
        assert_eq!(writer.finish(), (Bytes::from_static(&[1, 2]), Vec::new()));
    }

    #[test]
    fn marks_stand_for_buffers_of_any_size() {
        let value = (Buffer::from(vec![1]), Array::from(vec![1.5_f64, 2.5]), "text");
        let (written, marks) = mark([9; 16], || serde_json::to_value(&value));
        assert_eq!(marks.met.len(), 2);
        assert_eq!(marks.met[1].array, Some(("<f8", vec![2])));
        let second: Vec<u8> = serde_json::from_value(written.unwrap()[1].clone()).unwrap();
        assert_eq!(marks.find(&second), Some(1));
        assert_eq!(marks.find(b"text"), None);
        assert_eq!(marks.find(&[&[9; 16][..], &[0, 0, 0, 2]].concat()), None, "there is no such buffer");
    }

    #[test]
    fn bytes_that_lie_in_a_buffer_are_a_part_of_it() {
        let message = Bytes::from(vec![7; ASIDE_BYTES + 10]);
        let read = |part: &[u8], buffers: &[Bytes]| {
            let deserializer = serde::de::value::BytesDeserializer::<serde::de::value::Error>::new(part);
            give(buffers, || Buffer::deserialize(deserializer)).unwrap()
        };
        let shared = read(&message[5..5 + ASIDE_BYTES], std::slice::from_ref(&message));
        assert_eq!((shared.as_ptr(), shared.len()), (message[5..].as_ptr(), ASIDE_BYTES));
        let small = read(&message[5..10], std::slice::from_ref(&message));
        assert_ne!(small.as_ptr(), message[5..].as_ptr(), "a few bytes do not keep the whole message");
        assert_ne!(read(&message, &[Bytes::from(vec![7; 9000])]).as_ptr(), message.as_ptr());
    }

    #[test]
    fn buffers_can_be_in_another_order() {
        let [one, two, three] = [1, 2, 3].map(|byte| Buffer::from(vec![byte; ASIDE_BYTES]));
        let value = (&one, &two, Buffer::default(), &three);
        let mut writer = Writer::with_order(1, vec![2, 0, 1]);
        writer.write(&value).unwrap();
        assert_eq!(writer.met(), 4);
        let (bytes, buffers) = writer.finish();
        assert_eq!(buffers, [&two.0, &three.0, &one.0].map(Bytes::clone));
        let all = [&[Bytes::new()], &buffers[..]].concat();
        let back: (Buffer, Buffer, Buffer, Buffer) = read(&bytes, &all).unwrap();
        assert_eq!((&back.0, &back.1, &back.3), (&one, &two, &three));
    }

    proptest! {
        #[test]
        fn a_list_is_split_as_it_was_written(items in prop::collection::vec(prop::collection::vec(any::<i64>(), 0..4), 0..40)) {
            let mut writer = Writer::new(0);
            writer.begin_list(items.len());
            for item in &items {
                writer.write(item).unwrap();
            }
            let (bytes, _) = writer.finish();
            prop_assert_eq!(&rmp_serde::from_slice::<Vec<Vec<i64>>>(&bytes).unwrap(), &items);
            let values = split(&bytes).unwrap();
            let back: Vec<Vec<i64>> = values.iter().map(|value| read(value, &[]).unwrap()).collect();
            prop_assert_eq!(back, items);
        }

        #[test]
        fn no_bytes_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = split(&bytes);
            let _ = read::<(Buffer, Array<f64>)>(&bytes, &[]);
            let _ = read::<Array<i32>>(&bytes, &[Bytes::from_static(b"0123")]);
        }
    }
}
