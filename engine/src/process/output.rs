//! What a program writes: kept up to a limit, in a file beyond it, and told in pieces of text as it comes.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use remuda_proto::message::content::ProgramStream;
use remuda_proto::{Instant, MsgId};

use super::Program;
use crate::spool::{Spool, SpoolFile};
use crate::work::Stream;

/// How long text waits for more before it is told.
const DELAY: Duration = Duration::from_millis(100);
/// Most text told at once.
const PIECE_BYTES: usize = 1024 * 1024;
/// Most text told in a second in the long run. What a program writes beyond that is left out of the pieces (not of what is
/// kept): otherwise one that writes gigabytes a second would fill the memory of everyone who listens and is slower. As JSON
/// it may be six times as much.
const PIECE_BYTES_PER_SECOND: usize = 1024 * 1024;
/// Read at once.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;
/// How much of the end of a log is in the reply.
const LOG_TAIL_BYTES: u64 = 8 * 1024;
/// Most chunks read before others have their turn.
const CHUNKS: usize = 16;

/// Makes reads and writes return at once. Our end of a pipe only: the program's end blocks as ever.
pub(crate) fn never_block(fd: &impl AsFd) -> io::Result<()> {
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Where what a program writes is read.
pub(super) enum Source {
    /// A pipe, which ends when nobody has it open for writing any more.
    Pipe(File),
    /// A pipe that we have open for writing too: it is at its end when it is empty and the program has ended.
    OpenPipe(File),
    /// A file that grows.
    Growing(PathBuf, Option<File>),
    /// A file that is read when the program has ended.
    AtEnd(PathBuf),
    /// All was read.
    Closed,
}

/// One of stdout, stderr and the result.
pub(super) struct Output {
    /// Under what it is told, if at all.
    told: Option<Stream>,
    source: Source,
    kept: Kept,
    pieces: Pieces,
}

/// What is kept of it.
pub(super) struct Kept {
    stream: ProgramStream,
    /// The beginning, for the reply.
    head: Vec<u8>,
    head_limit: usize,
    /// All of it, if that is more than `head`, or is wanted at once.
    file: Option<Arc<SpoolFile>>,
    /// Whether no more goes to the file, since it is full.
    full: bool,
    /// Of a log ([`ProcessTask::log_bytes`](remuda_proto::message::native::ProcessTask::log_bytes)), how much of it is kept.
    log_bytes: Option<NonZeroU32>,
    /// Where this attempt begins in the file. Above 0 in a log only.
    begin: u64,
    dropped: u64,
    /// Where files are made, and for which task.
    spool: Spool,
    msg_id: MsgId,
}

impl Kept {
    pub(super) fn new(stream: ProgramStream, program: &Program<'_>) -> Self {
        let log_bytes = program.task.log_bytes;
        let mut kept = Self {
            stream,
            head: Vec::new(),
            head_limit: if log_bytes.is_none() { program.kept_bytes } else { 0 },
            file: None,
            full: false,
            log_bytes,
            begin: 0,
            dropped: 0,
            spool: program.spool.clone(),
            msg_id: program.msg_id.clone(),
        };
        if program.task.spool || log_bytes.is_some() {
            kept.open();
        }
        if log_bytes.is_some() && stream == ProgramStream::Stderr && program.attempt > 1 {
            kept.mark(program.attempt);
        }
        if let Some(file) = &kept.file {
            kept.begin = file.len();
        }
        kept
    }

    /// Says in a log, on a line of its own, that another attempt begins.
    fn mark(&self, attempt: u32) {
        let Some(file) = &self.file else { return };
        let line_end = if file.ends_in_line() { "\n" } else { "" };
        let mark = format!("{line_end}--- remuda: attempt {attempt} begins ---\n");
        if let Err(error) = file.append(mark.as_bytes()) {
            tracing::warn!(%error, "a log does not say that another attempt begins");
        }
    }

    /// Starts the file, with what there is so far.
    fn open(&mut self) {
        match self.spool.create(&self.msg_id, self.stream, self.log_bytes) {
            Ok(file) => {
                self.file = Some(file);
                let head = std::mem::take(&mut self.head);
                self.full |= self.append(&head) < head.len();
                self.head = head;
            }
            Err(error) => {
                tracing::warn!(%error, "no file can be made for what a program writes: the rest of it is dropped");
                self.full = true;
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> usize {
        let Some(file) = self.file.as_ref().filter(|_| !self.full) else { return 0 };
        file.append(bytes).unwrap_or_else(|error| {
            tracing::warn!(%error, "what a program writes cannot be kept in a file: the rest of it is dropped");
            0
        })
    }

    fn push(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(self.head_limit - self.head.len()));
        if self.file.is_none() && !rest.is_empty() && !self.full {
            self.open();
        }
        self.head.extend_from_slice(head);
        let filed = if self.file.is_some() && !self.full {
            // Where the file was opened just now, what was before is in it already.
            let count = self.append(bytes);
            // In a log there is room again, since its beginning goes.
            self.full |= count < bytes.len() && self.log_bytes.is_none();
            count
        } else {
            0
        };
        self.dropped += bytes.len().saturating_sub(head.len().max(filed)) as u64;
    }

    /// The beginning, how much was dropped, and how much is in a file. Of a log the end, how much is not in it, and 0.
    pub(super) fn end(self) -> (Bytes, u64, u64) {
        let filed = self.file.as_ref().map_or(0, |file| file.len());
        if self.log_bytes.is_none() {
            return (self.head.into(), self.dropped, filed);
        }
        let from = filed.saturating_sub(LOG_TAIL_BYTES).max(self.begin);
        let tail = self.file.and_then(|file| file.read(from, LOG_TAIL_BYTES).ok()).unwrap_or_default();
        let left_out = (filed - self.begin).saturating_sub(tail.bytes.len() as u64);
        (tail.bytes, self.dropped + left_out, 0)
    }
}

impl Output {
    /// What comes through a pipe.
    pub(super) fn pipe(pipe: OwnedFd, told: Option<Stream>, kept: Kept) -> io::Result<Self> {
        never_block(&pipe)?;
        Ok(Self::new(Source::Pipe(pipe.into()), told, kept))
    }

    pub(super) fn new(source: Source, told: Option<Stream>, kept: Kept) -> Self {
        Self { told, source, kept, pieces: Pieces::default() }
    }

    /// Whether more may come although the program has ended.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.source, Source::Pipe(_))
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.source {
            Source::Pipe(file) | Source::OpenPipe(file) => Some(file.as_fd()),
            Source::Growing(..) | Source::AtEnd(_) | Source::Closed => None,
        }
    }

    /// When to look at it again: the next piece of text is to be told, or a file may have grown.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let grows = matches!(self.source, Source::Growing(..)).then(|| now + DELAY);
        self.pieces.due.into_iter().chain(grows).min()
    }

    /// Reads what is there.
    pub(super) fn read(&mut self, now: Instant, chunk: &mut [u8]) {
        for _ in 0..CHUNKS {
            if !self.read_chunk(now, chunk) {
                return;
            }
        }
    }

    /// Returns whether there may be more at once.
    fn read_chunk(&mut self, now: Instant, chunk: &mut [u8]) -> bool {
        let (file, ends) = match &mut self.source {
            Source::Pipe(file) => (file, true),
            Source::OpenPipe(file) | Source::Growing(_, Some(file)) => (file, false),
            Source::Growing(path, opened) => match File::open(path) {
                Ok(file) => (opened.insert(file), false),
                Err(_) => return false,
            },
            Source::AtEnd(_) | Source::Closed => return false,
        };
        match file.read(chunk) {
            Ok(0) if ends => self.source = Source::Closed,
            Ok(0) => return false,
            Ok(count) => {
                self.push(&chunk[..count], now);
                return true;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(_) => self.source = Source::Closed,
        }
        false
    }

    fn push(&mut self, bytes: &[u8], now: Instant) {
        self.kept.push(bytes);
        if self.told.is_some() {
            self.pieces.push(bytes, now);
        }
    }

    /// The program has ended: reads the rest, and tells all that was not told. A result that is not there is an error.
    pub(super) fn finish(
        &mut self,
        now: Instant,
        chunk: &mut [u8],
        tell: &mut dyn FnMut(Stream, String),
    ) -> io::Result<()> {
        if let Source::AtEnd(path) = &self.source {
            self.source = Source::Growing(path.clone(), Some(File::open(path)?));
        }
        while !matches!(self.source, Source::Pipe(_)) && self.read_chunk(now, chunk) {
            if self.pieces.pending.len() >= PIECE_BYTES {
                self.tell(false, tell);
            }
        }
        self.source = Source::Closed;
        self.tell(true, tell);
        Ok(())
    }

    /// Tells the text that has waited long enough.
    pub(super) fn tell_due(&mut self, now: Instant, tell: &mut dyn FnMut(Stream, String)) {
        if self.pieces.due.is_some_and(|due| due <= now) {
            self.tell(false, tell);
        }
    }

    /// What was kept.
    pub(super) fn into_kept(self) -> Kept {
        self.kept
    }

    fn tell(&mut self, last: bool, tell: &mut dyn FnMut(Stream, String)) {
        let text = self.pieces.take(last);
        if let Some(stream) = self.told.filter(|_| !text.is_empty()) {
            tell(stream, text);
        }
    }
}

/// Bytes on their way to be told as text.
#[derive(Default)]
struct Pieces {
    /// At most [`PIECE_BYTES`].
    pending: Vec<u8>,
    /// How many more bytes may be told, as of the time beside it; `None`: [`PIECE_BYTES`].
    room: Option<(usize, Instant)>,
    /// How many bytes more there were.
    skipped: u64,
    /// When to tell them. `None` only if there is nothing but an unfinished character.
    due: Option<Instant>,
}

impl Pieces {
    fn push(&mut self, bytes: &[u8], now: Instant) {
        let room = self.room(now).min(PIECE_BYTES - self.pending.len());
        // Once something was left out, what follows it is too, until the next piece.
        let keep = if self.skipped > 0 { 0 } else { bytes.len().min(room) };
        self.pending.extend_from_slice(&bytes[..keep]);
        self.skipped += (bytes.len() - keep) as u64;
        if let Some((room, _)) = &mut self.room {
            *room -= keep;
        }
        self.due.get_or_insert(now + DELAY);
    }

    /// How many bytes more may be told.
    fn room(&mut self, now: Instant) -> usize {
        let (room, since) = self.room.unwrap_or((PIECE_BYTES, now));
        let more = now.since(since).as_millis() * PIECE_BYTES_PER_SECOND as u128 / 1000;
        // Time that adds nothing yet goes on counting.
        let since = if more > 0 { now } else { since };
        let room = usize::try_from(more).unwrap_or(PIECE_BYTES).saturating_add(room).min(PIECE_BYTES);
        self.room = Some((room, since));
        room
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
        pieces.push(b"y", Instant(0) + DELAY);
        assert_eq!(pieces.take(false), "y");
    }

    #[test]
    fn a_long_flood_is_told_at_a_bounded_rate_and_a_slow_stream_whole() {
        let told = |bytes_per_second: usize| {
            let (mut pieces, mut told) = (Pieces::default(), 0);
            for step in 0..6000 {
                let now = Instant(0) + Duration::from_millis(10) * step;
                pieces.push(&vec![b'x'; bytes_per_second / 100], now);
                if pieces.due.is_some_and(|due| due <= now) {
                    told += pieces.take(false).matches('x').count();
                }
            }
            told + pieces.take(true).matches('x').count()
        };
        let flood = told(100 * PIECE_BYTES_PER_SECOND);
        assert!((50..=62).contains(&(flood / PIECE_BYTES_PER_SECOND)), "{flood}");
        let slow = PIECE_BYTES_PER_SECOND / 100 * 99;
        assert_eq!(told(slow), slow / 100 * 6000);
    }
}
