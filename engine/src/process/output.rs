//! What a program writes: kept up to a limit, and told in pieces of text as it comes.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use bytes::Bytes;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use remuda_proto::Instant;

use crate::work::Stream;

/// How long text waits for more before it is told.
const DELAY: Duration = Duration::from_millis(100);
/// Most text told at once. What a program writes beyond that in one [`DELAY`] is left out of the pieces (not of what is
/// kept): otherwise one that writes gigabytes a second would fill the memory of everyone who listens.
const PIECE_BYTES: usize = 1024 * 1024;
/// Read at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Most chunks read before others have their turn.
const CHUNKS: usize = 16;

/// Makes reads and writes return at once. Our end of a pipe only: the program's end blocks as ever.
pub(super) fn never_block(fd: &impl AsFd) -> io::Result<()> {
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

/// One of stdout and stderr.
pub(super) struct Output {
    stream: Stream,
    /// `None` once the program has closed it.
    file: Option<File>,
    kept: Vec<u8>,
    kept_limit: usize,
    dropped: u64,
    pieces: Pieces,
    chunk: Vec<u8>,
}

impl Output {
    pub(super) fn new(fd: Option<OwnedFd>, stream: Stream, kept_limit: usize) -> io::Result<Self> {
        fd.iter().try_for_each(never_block)?;
        let (file, pieces) = (fd.map(File::from), Pieces::default());
        Ok(Self { stream, file, kept: Vec::new(), kept_limit, dropped: 0, pieces, chunk: vec![0; CHUNK_BYTES] })
    }

    pub(super) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    /// When the next piece of text is to be told.
    pub(super) fn due(&self) -> Option<Instant> {
        self.pieces.due
    }

    /// Reads what is there.
    pub(super) fn read(&mut self, now: Instant) {
        for _ in 0..CHUNKS {
            let Some(file) = &mut self.file else { return };
            match file.read(&mut self.chunk) {
                Ok(0) => self.file = None,
                Ok(count) => {
                    let bytes = &self.chunk[..count];
                    let (keep, drop) = bytes.split_at(count.min(self.kept_limit - self.kept.len()));
                    self.kept.extend_from_slice(keep);
                    self.dropped += drop.len() as u64;
                    self.pieces.push(bytes, now);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.file = None,
            }
        }
    }

    /// Tells the text that has waited long enough.
    pub(super) fn tell_due(&mut self, now: Instant, tell: &mut dyn FnMut(Stream, String)) {
        if self.pieces.due.is_some_and(|due| due <= now) {
            self.tell(false, tell);
        }
    }

    /// Tells all text there is.
    pub(super) fn tell_rest(&mut self, tell: &mut dyn FnMut(Stream, String)) {
        self.tell(true, tell);
    }

    /// What was kept, and how much was not.
    pub(super) fn into_kept(self) -> (Bytes, u64) {
        (self.kept.into(), self.dropped)
    }

    fn tell(&mut self, last: bool, tell: &mut dyn FnMut(Stream, String)) {
        let text = self.pieces.take(last);
        if !text.is_empty() {
            tell(self.stream, text);
        }
    }
}

/// Bytes on their way to be told as text.
#[derive(Default)]
struct Pieces {
    /// At most [`PIECE_BYTES`].
    pending: Vec<u8>,
    /// How many bytes more there were.
    skipped: u64,
    /// When to tell them. `None` only if there is nothing but an unfinished character.
    due: Option<Instant>,
}

impl Pieces {
    fn push(&mut self, bytes: &[u8], now: Instant) {
        let (keep, skip) = bytes.split_at(bytes.len().min(PIECE_BYTES - self.pending.len()));
        // Once something was left out, what follows it is too, until the next piece.
        let keep = if self.skipped > 0 { &[] } else { keep };
        self.pending.extend_from_slice(keep);
        self.skipped += if self.skipped > 0 { bytes.len() } else { skip.len() } as u64;
        self.due.get_or_insert(now + DELAY);
    }

    /// The text so far, without a character that is not complete yet, unless no more comes.
    fn take(&mut self, last: bool) -> String {
        self.due = None;
        let skipped = std::mem::take(&mut self.skipped);
        let hold = if last || skipped > 0 { 0 } else { unfinished(&self.pending) };
        let rest = self.pending.split_off(self.pending.len() - hold);
        let mut text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending = rest;
        if skipped > 0 {
            text = format!("{text}\n[{skipped} bytes more, too many to show as they came]\n");
        }
        text
    }
}

/// How many bytes at the end are the beginning of a character that needs more.
fn unfinished(bytes: &[u8]) -> usize {
    for (back, byte) in bytes.iter().rev().take(3).enumerate() {
        let needed = match byte {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        return if needed > back + 1 { back + 1 } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_never_split() {
        let text = "aé→🐎z".as_bytes();
        for split in 0..=text.len() {
            let mut pieces = Pieces::default();
            let mut told = String::new();
            pieces.push(&text[..split], Instant(0));
            told += &pieces.take(false);
            pieces.push(&text[split..], Instant(0));
            told += &pieces.take(true);
            assert_eq!(told, "aé→🐎z", "split at {split}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_and_not_held_back() {
        let mut pieces = Pieces::default();
        pieces.push(b"a\xff\x80\x80\x80\x80", Instant(0));
        assert_eq!(pieces.take(false).chars().count(), 6);
        pieces.push(b"\xe2\x86", Instant(0));
        assert_eq!(pieces.take(false), "");
        assert_eq!(pieces.take(true), "\u{fffd}");
    }

    #[test]
    fn text_waits_a_moment_for_more() {
        let mut pieces = Pieces::default();
        pieces.push(b"a", Instant(5));
        pieces.push(b"b", Instant(6));
        assert_eq!(pieces.due, Some(Instant(5) + DELAY));
        assert_eq!(pieces.take(false), "ab");
        assert_eq!(pieces.due, None);
    }

    #[test]
    fn a_flood_is_cut_and_the_cut_is_shown() {
        let mut pieces = Pieces::default();
        for _ in 0..3 {
            pieces.push(&vec![b'x'; PIECE_BYTES / 2 + 1], Instant(0));
        }
        let text = pieces.take(false);
        assert!(text.len() < PIECE_BYTES + 100);
        let skipped = 3 * (PIECE_BYTES / 2 + 1) - PIECE_BYTES;
        assert!(text.ends_with(&format!("\n[{skipped} bytes more, too many to show as they came]\n")));
        pieces.push(b"y", Instant(0));
        assert_eq!(pieces.take(false), "y");
    }
}
