//! Messages between the engine and its Python process (`worker.py`).
//!
//! A message is a head of four numbers of 32 bits (how many parts, what kind and with which flags, which request, whether a file
//! comes with it), the length of each part in 64 bits, and the parts one after the other. A part whose length has the top
//! bit set is not among them but in the file: memory without a name, whose descriptor travels with the first byte of the
//! message. There the parts begin at multiples of [`ALIGNMENT`]. All numbers are little-endian.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use bytes::{Buf, Bytes, BytesMut};

/// From so many bytes on, a part goes by a file: above that, mapping it costs less than two copies through the kernel.
pub(super) const FILE_BYTES: usize = 256 * 1024;
const ALIGNMENT: usize = 64;
const IN_FILE: u64 = 1 << 63;
const HEAD_BYTES: usize = 16;
/// Most parts of a message: more are a sign of a process that has lost its senses.
const MAX_PARTS: usize = 1 << 20;

/// What the engine asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Ask {
    /// Call a function: header, metadata, content, buffers of an `apply_request`.
    Apply = 1,
    /// The same for any other request.
    Request = 2,
    /// Empty the namespace. Not answered.
    Clear = 3,
    /// Which engine this is, as JSON. Not answered.
    Identity = 4,
}

/// What the Python process says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say {
    /// It can begin: the version of Python, and where that is.
    Ready,
    /// The request is done: the content of the reply as JSON (empty: that of a call that gave a result), then its buffers.
    Done(DoneFlags),
    /// To be published: an envelope, parent header, metadata and content as JSON, then buffers.
    Publish,
    /// For the log.
    Log,
    /// It cannot begin, for this reason.
    Broken,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a bit of its own on the wire")]
pub(super) struct DoneFlags {
    pub(super) error: bool,
    /// Another engine may be able to run it.
    pub(super) unmet: bool,
    /// Code that waits is not to run, since this failed.
    pub(super) abort_queued: bool,
    /// Nobody waits for a reply.
    pub(super) no_reply: bool,
    /// The process ends by itself, as the code asked for (`exit()`).
    pub(super) leaving: bool,
}

/// Something that came and makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("the Python process said something that makes no sense: {0}")]
pub(super) struct Nonsense(String);

/// A message that came.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) say: Say,
    pub(super) parts: Vec<Bytes>,
}

impl Said {
    /// Part `index` as text, for what is told to people.
    pub(super) fn text(&self, index: usize) -> String {
        self.parts.get(index).map(|part| String::from_utf8_lossy(part).into_owned()).unwrap_or_default()
    }
}

/// A message to be sent.
pub(super) struct Outgoing {
    /// What is not written yet.
    pub(super) bytes: Bytes,
    /// Goes with the first of `bytes`.
    pub(super) file: Option<OwnedFd>,
}

/// Packs a message.
pub(super) fn pack(ask: Ask, seq: u32, parts: &[Bytes]) -> io::Result<Outgoing> {
    let in_file = |part: &&Bytes| part.len() >= FILE_BYTES;
    let inline: usize = parts.iter().filter(|part| !in_file(part)).map(Bytes::len).sum();
    let mut bytes = Vec::with_capacity(HEAD_BYTES + 8 * parts.len() + inline);
    let any_file = parts.iter().any(|part| in_file(&part));
    let count = u32::try_from(parts.len()).map_err(io::Error::other)?;
    for number in [count, ask as u32, seq, u32::from(any_file)] {
        bytes.extend(number.to_le_bytes());
    }
    for part in parts {
        let flag = if in_file(&part) { IN_FILE } else { 0 };
        bytes.extend((part.len() as u64 | flag).to_le_bytes());
    }
    parts.iter().filter(|part| !in_file(part)).for_each(|part| bytes.extend_from_slice(part));
    let file = any_file.then(|| write_file(parts.iter().filter(in_file))).transpose()?;
    Ok(Outgoing { bytes: bytes.into(), file })
}

/// Memory that both processes see, with these parts in it.
fn write_file<'a>(parts: impl Iterator<Item = &'a Bytes>) -> io::Result<OwnedFd> {
    let mut file = File::from(memory_file()?);
    for part in parts {
        file.write_all(part)?;
        let rest = part.len().next_multiple_of(ALIGNMENT) - part.len();
        file.write_all(&[0; ALIGNMENT][..rest])?;
    }
    Ok(file.into())
}

#[cfg(target_os = "linux")]
fn memory_file() -> io::Result<OwnedFd> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    Ok(memfd_create(c"remuda", MFdFlags::MFD_CLOEXEC)?)
}

#[cfg(not(target_os = "linux"))]
fn memory_file() -> io::Result<OwnedFd> {
    Ok(tempfile::tempfile()?.into())
}

/// What came and is not whole yet.
#[derive(Default)]
pub(super) struct Incoming {
    bytes: BytesMut,
    files: VecDeque<OwnedFd>,
}

impl Incoming {
    pub(super) fn push(&mut self, bytes: &[u8], files: impl IntoIterator<Item = OwnedFd>) {
        self.bytes.extend_from_slice(bytes);
        self.files.extend(files);
    }

    /// The next message, if all of it is there.
    pub(super) fn next(&mut self) -> Result<Option<Said>, Nonsense> {
        let number = |at: usize| -> Option<u32> {
            let bytes = self.bytes.get(at..at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let [Some(count), Some(kind), Some(_), Some(has_file)] = [number(0), number(4), number(8), number(12)] else {
            return Ok(None);
        };
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > MAX_PARTS {
            return Err(Nonsense(format!("a message of {count} parts")));
        }
        let begin = HEAD_BYTES + 8 * count;
        let Some(lengths) = self.bytes.get(HEAD_BYTES..begin) else { return Ok(None) };
        let lengths: Vec<u64> =
            lengths.chunks_exact(8).map(|bytes| bytes.try_into().map_or(0, u64::from_le_bytes)).collect();
        let too_long = |length: u64| Nonsense(format!("a part of {length} bytes"));
        let size = |length: u64| usize::try_from(length & !IN_FILE).map_err(|_| too_long(length));
        let mut inline = 0_usize;
        for length in lengths.iter().filter(|length| **length & IN_FILE == 0) {
            inline = inline.checked_add(size(*length)?).ok_or_else(|| too_long(*length))?;
        }
        if self.bytes.len() < begin.saturating_add(inline) {
            return Ok(None);
        }
        let say = say(kind)?;
        self.bytes.advance(begin);
        let mut whole = self.bytes.split_to(inline).freeze();
        let mut file = match (has_file, self.files.pop_front()) {
            (0, Some(file)) => {
                self.files.push_front(file);
                None
            }
            (0, None) => None,
            (_, Some(file)) => {
                Some(map(file).map_err(|error| Nonsense(format!("memory that cannot be read: {error}")))?)
            }
            (_, None) => return Err(Nonsense("a message without the memory that belongs to it".to_owned())),
        };
        let mut parts = Vec::with_capacity(count);
        for length in lengths {
            let size = size(length)?;
            if length & IN_FILE == 0 {
                parts.push(whole.split_to(size));
                continue;
            }
            let file = file.as_mut().filter(|file| file.len() >= size).ok_or_else(|| too_long(length))?;
            parts.push(file.slice(..size));
            file.advance(size.next_multiple_of(ALIGNMENT).min(file.len()));
        }
        Ok(Some(Said { say, parts }))
    }
}

fn say(kind: u32) -> Result<Say, Nonsense> {
    let flag = |bit: u32| (kind >> 8) & bit != 0;
    Ok(match kind & 0xff {
        1 => Say::Ready,
        2 => Say::Done(DoneFlags {
            error: flag(1),
            unmet: flag(2),
            abort_queued: flag(4),
            no_reply: flag(8),
            leaving: flag(16),
        }),
        3 => Say::Publish,
        4 => Say::Log,
        5 => Say::Broken,
        other => return Err(Nonsense(format!("a message of kind {other}"))),
    })
}

/// The bytes of a file, without a copy of them.
fn map(file: OwnedFd) -> io::Result<Bytes> {
    #[allow(unsafe_code, reason = "memory that another process may write to is known to the compiler only so")]
    // SAFETY: the Python process writes it before it sends it, and lets go of it then. Code there that keeps the descriptor and
    // goes on writing could change a result on its way: a number in it, and nothing that is relied on here.
    let map = unsafe { memmap2::Mmap::map(&File::from(file))? };
    Ok(Bytes::from_owner(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the worker packs it: what was asked for is a kind of what is said.
    fn said(out: &Outgoing, incoming: &mut Incoming, step: usize) -> Vec<Said> {
        let mut found = Vec::new();
        for (at, chunk) in out.bytes.chunks(step).enumerate() {
            let file = out.file.as_ref().filter(|_| at == 0).map(|file| file.try_clone().unwrap());
            incoming.push(chunk, file);
            found.extend(incoming.next().unwrap());
        }
        found
    }

    #[test]
    fn a_message_comes_as_it_went_however_it_is_cut() {
        let large = Bytes::from((0..FILE_BYTES + 3).map(|n| n.to_le_bytes()[0]).collect::<Vec<u8>>());
        let parts = [Bytes::from_static(b"{}"), large.clone(), Bytes::new(), large, Bytes::from_static(b"end")];
        for step in [1, 7, 4096] {
            let mut incoming = Incoming::default();
            let found = said(&pack(Ask::Clear, 5, &parts).unwrap(), &mut incoming, step);
            let [one] = &found[..] else { panic!("{} messages", found.len()) };
            assert_eq!((one.say, &one.parts[..]), (Say::Publish, &parts[..]));
            assert!(incoming.bytes.is_empty() && incoming.files.is_empty());
        }
    }

    #[test]
    fn messages_follow_each_other_and_each_has_its_own_file() {
        let large = |byte: u8| vec![Bytes::from(vec![byte; FILE_BYTES])];
        let (first, second) = (pack(Ask::Clear, 1, &large(1)).unwrap(), pack(Ask::Clear, 2, &large(2)).unwrap());
        let small = pack(Ask::Identity, 3, &[Bytes::from_static(b"x")]).unwrap();
        let mut incoming = Incoming::default();
        incoming.push(
            &[&*first.bytes, &*small.bytes, &*second.bytes].concat(),
            [first.file, second.file].into_iter().flatten(),
        );
        let mut bytes = Vec::new();
        while let Some(said) = incoming.next().unwrap() {
            bytes.push(said.parts[0][0]);
        }
        assert_eq!(bytes, [1, b'x', 2]);
    }

    #[test]
    fn nonsense_is_said_to_be_that() {
        let number = |n: u32| n.to_le_bytes();
        for (head, said) in [
            ([number(0), number(77), number(0), number(0)], "kind 77"),
            ([number(u32::MAX), number(1), number(0), number(0)], "4294967295 parts"),
            ([number(0), number(1), number(0), number(1)], "without the memory"),
        ] {
            let mut incoming = Incoming::default();
            incoming.push(&head.concat(), []);
            let error = incoming.next().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let mut incoming = Incoming::default();
        incoming.push(&[number(1), number(1), number(0), number(0)].concat(), []);
        incoming.push(&(u64::MAX >> 1).to_le_bytes(), []);
        incoming.push(&[0; 100], []);
        // So long that it never comes.
        assert!(incoming.next().unwrap().is_none());
    }
}
