//! Files for what programs write that is too much for a reply, or that is read while they run.
//!
//! The files have no name, so that nothing is left of them when the engine ends, however it does.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::num::NonZeroU32;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use remuda_proto::message::content::{OutputRequest, ProgramStream};
use remuda_proto::message::native::MIN_LOG_BYTES;
use remuda_proto::{Instant, Map, MsgId, RemoteError};

use crate::work::OutputPart;

/// How long the files of a task are kept after its end, unless they are released before.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(3600);
/// Of how many files a log is made; the oldest goes when it is too long.
const LOG_FILES: u64 = 4;
/// Most bytes in all files of an engine together, unless told otherwise.
pub const SPOOL_BYTES: u64 = 32 << 30;

/// The files, as all threads of an engine see them.
#[derive(Clone)]
pub(crate) struct Spool(Arc<Shared>);

struct Shared {
    folder: PathBuf,
    limit: u64,
    /// How much is in all files.
    used: AtomicU64,
    tasks: Mutex<Map<MsgId, Files>>,
}

/// The files of one task.
#[derive(Default)]
struct Files {
    files: Vec<(ProgramStream, Arc<SpoolFile>)>,
    /// When the task ended, if it has.
    ended: Option<Instant>,
}

/// What one stream gave, written at its end by one thread at a time. A log is kept in several files, one after the other, so
/// that its beginning can go on any file system.
pub(crate) struct SpoolFile {
    pieces: Mutex<Pieces>,
    /// How much of its end is kept at most; `None`: all.
    limit: Option<u64>,
    shared: Arc<Shared>,
}

struct Pieces {
    /// The oldest first. Each but the last is full, and begins where the one before ends.
    files: VecDeque<Piece>,
    /// Where the last ends, in bytes from the start of the stream.
    len: u64,
    /// Whether the last byte is not the end of a line.
    in_line: bool,
}

#[derive(Clone)]
struct Piece {
    /// Where it begins, in bytes from the start of the stream.
    from: u64,
    file: Arc<File>,
}

impl Spool {
    pub(crate) fn new(folder: PathBuf, limit: u64) -> Self {
        Self(Arc::new(Shared { folder, limit, used: AtomicU64::new(0), tasks: Mutex::default() }))
    }

    /// Makes a file for what a task writes to a stream. A log, of which so many bytes are kept, goes on in that of an attempt
    /// before.
    pub(crate) fn create(
        &self,
        msg_id: &MsgId,
        stream: ProgramStream,
        log_bytes: Option<NonZeroU32>,
    ) -> io::Result<Arc<SpoolFile>> {
        let first = Piece { from: 0, file: Arc::new(tempfile::tempfile_in(&self.0.folder)?) };
        let pieces = Pieces { files: VecDeque::from([first]), len: 0, in_line: false };
        let limit = log_bytes.map(|bytes| u64::from(bytes.get().max(MIN_LOG_BYTES)));
        let file = Arc::new(SpoolFile { pieces: Mutex::new(pieces), limit, shared: Arc::clone(&self.0) });
        let mut tasks = self.lock();
        let files = tasks.entry(msg_id.clone()).or_default();
        if log_bytes.is_some() {
            files.ended = None;
            if let Some((_, file)) = files.files.iter().find(|(of, _)| *of == stream) {
                return Ok(Arc::clone(file));
            }
        } else if files.ended.is_some() {
            // Those are of an attempt before.
            *files = Files::default();
        }
        files.files.push((stream, Arc::clone(&file)));
        drop(tasks);
        Ok(file)
    }

    /// A task has ended: its files are kept for some time.
    pub(crate) fn ended(&self, now: Instant, msg_id: &MsgId) {
        let mut tasks = self.lock();
        if let Some(files) = tasks.get_mut(msg_id) {
            files.ended = Some(now);
        }
        tasks.retain(|_, files| files.ended.is_none_or(|ended| ended + KEPT_FOR > now));
    }

    /// The files of a task are needed no more.
    pub(crate) fn release(&self, msg_id: &MsgId) {
        let mut tasks = self.lock();
        if tasks.get(msg_id).is_some_and(|files| files.ended.is_some()) {
            tasks.swap_remove(msg_id);
        }
    }

    /// A part of a file: shorter than asked for if there is no more so far.
    pub(crate) fn read(&self, part: &OutputRequest) -> Result<OutputPart, RemoteError> {
        let OutputRequest { msg_id, stream, offset, max_bytes, .. } = part;
        let file = {
            let tasks = self.lock();
            let files = tasks.get(msg_id).ok_or_else(|| {
                let hours = KEPT_FOR.as_secs() / 3600;
                let reason = format!(
                    "there is no file with the output of task `{msg_id}` here: it wrote little, so that all is in its \
                     reply, or it ended more than {hours} h ago, or its output was released"
                );
                RemoteError::new("FileNotFoundError", reason)
            })?;
            files.files.iter().find(|(of, _)| of == stream).map(|(_, file)| Arc::clone(file))
        };
        let Some(file) = file else { return Ok(OutputPart::default()) };
        file.read(*offset, *max_bytes).map_err(|error| {
            RemoteError::new("OSError", format!("the output of task `{msg_id}` cannot be read: {error}"))
        })
    }

    fn lock(&self) -> MutexGuard<'_, Map<MsgId, Files>> {
        // Each change is one step, so a panic leaves nothing half done.
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SpoolFile {
    fn lock(&self) -> MutexGuard<'_, Pieces> {
        // Each change is one step, so a panic leaves nothing half done.
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much was written to it.
    pub(crate) fn len(&self) -> u64 {
        self.lock().len
    }

    /// Whether what was written last is not the end of a line.
    pub(crate) fn ends_in_line(&self) -> bool {
        self.lock().in_line
    }

    /// Appends. Returns how much of it there was room for.
    pub(crate) fn append(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut pieces = self.lock();
        if let Some(limit) = self.limit {
            pieces.begin_another(limit, &self.shared)?;
            if self.shared.room() < bytes.len() as u64 {
                pieces.drop_first(&self.shared);
            }
        }
        let room = usize::try_from(self.shared.room()).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(room)];
        let Some(last) = pieces.files.back() else { return Ok(0) };
        last.file.write_all_at(bytes, pieces.len - last.from)?;
        self.shared.used.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        pieces.len += bytes.len() as u64;
        pieces.in_line = bytes.last().map_or(pieces.in_line, |last| *last != b'\n');
        Ok(bytes.len())
    }

    /// A part: shorter than asked for if there is no more so far. One that begins before what is kept begins there.
    pub(crate) fn read(&self, offset: u64, max_bytes: u64) -> io::Result<OutputPart> {
        let (files, len) = {
            let pieces = self.lock();
            (pieces.files.clone(), pieces.len)
        };
        let first = files.front().map_or(0, |piece| piece.from);
        let begin = offset.max(first);
        let end = len.min(begin.saturating_add(max_bytes));
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(begin)).unwrap_or(usize::MAX)];
        for (at, piece) in files.iter().enumerate() {
            let ends = files.get(at + 1).map_or(len, |next| next.from).min(end);
            let from = begin.max(piece.from);
            if from < ends {
                let place = |offset: u64| usize::try_from(offset - begin).unwrap_or(usize::MAX);
                piece.file.read_exact_at(&mut bytes[place(from)..place(ends)], from - piece.from)?;
            }
        }
        Ok(OutputPart { from: (begin > offset).then_some(begin), bytes: Bytes::from(bytes) })
    }
}

impl Pieces {
    /// Begins another file once the last of a log is full, and drops those that are too many then.
    fn begin_another(&mut self, limit: u64, shared: &Shared) -> io::Result<()> {
        let from = self.len;
        if self.files.back().is_some_and(|last| from - last.from < limit / LOG_FILES) {
            return Ok(());
        }
        let file = Arc::new(tempfile::tempfile_in(&shared.folder)?);
        self.files.push_back(Piece { from, file });
        while self.files.len() as u64 > LOG_FILES {
            self.drop_first(shared);
        }
        Ok(())
    }

    /// Drops the oldest file, unless it is the last.
    fn drop_first(&mut self, shared: &Shared) {
        if self.files.len() > 1
            && let Some(gone) = self.files.pop_front()
        {
            let next = self.files.front().map_or(self.len, |next| next.from);
            shared.used.fetch_sub(next - gone.from, Ordering::Relaxed);
        }
    }
}

impl Shared {
    /// How much more all files together may have.
    fn room(&self) -> u64 {
        self.limit.saturating_sub(self.used.load(Ordering::Relaxed))
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        let pieces = self.lock();
        let first = pieces.files.front().map_or(0, |piece| piece.from);
        self.shared.used.fetch_sub(pieces.len - first, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(id: &str, offset: u64, max_bytes: u64) -> OutputRequest {
        OutputRequest { msg_id: id.into(), stream: ProgramStream::Stdout, offset, max_bytes, release: false }
    }

    #[test]
    fn what_was_written_is_read_in_parts_until_it_is_released() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path().to_owned(), 10);
        let file = spool.create(&"t".into(), ProgramStream::Stdout, None).unwrap();
        assert_eq!(file.append(b"abcdef").unwrap(), 6);
        assert_eq!(spool.read(&part("t", 2, 3)).unwrap().bytes, &b"cde"[..]);
        assert_eq!(spool.read(&part("t", 4, 100)).unwrap().bytes, &b"ef"[..]);
        assert_eq!(spool.read(&part("t", 99, 100)).unwrap().bytes, &b""[..]);
        assert_eq!(file.append(b"ghijklm").unwrap(), 4, "the limit is for all");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it has no name");
        spool.release(&"t".into());
        assert!(spool.read(&part("t", 0, 1)).is_ok(), "it runs yet");
        drop(file);
        spool.ended(Instant(0), &"t".into());
        spool.release(&"t".into());
        let error = spool.read(&part("t", 0, 1)).unwrap_err();
        assert!(error.evalue.contains("`t`"), "{error}");
        assert_eq!(spool.0.used.load(Ordering::Relaxed), 0);
    }

    const LEAST: u64 = MIN_LOG_BYTES as u64;

    #[test]
    fn a_log_keeps_its_end_and_goes_on_in_the_next_attempt() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path().to_owned(), 1 << 30);
        let create = || spool.create(&"t".into(), ProgramStream::Stdout, Some(NonZeroU32::MIN)).unwrap();
        let file = create();
        let line = |number: u64| format!("{number:>1023}\n").into_bytes();
        for number in 0..5_000 {
            assert_eq!(file.append(&line(number)).unwrap(), 1024);
        }
        let kept = spool.0.used.load(Ordering::Relaxed);
        assert!((LEAST * 3 / 4..=LEAST).contains(&kept), "{kept}");
        let begin = 5_000 * 1024 - kept;
        let part = spool.read(&part("t", 5, 3000)).unwrap();
        assert_eq!(part.from, Some(begin));
        assert_eq!(part.bytes[..1024], line(begin / 1024), "what was before is not kept");
        for offset in [begin, begin + LEAST / 4 - 1000, 4_999 * 1024] {
            let asked = self::part("t", offset, 2048);
            let part = spool.read(&asked).unwrap();
            let all: Vec<u8> = (offset / 1024..5_000).take(4).flat_map(line).collect();
            let skip = usize::try_from(offset % 1024).unwrap();
            let wanted = &all[skip..all.len().min(skip + 2048)];
            assert_eq!((part.from, &part.bytes[..]), (None, wanted), "at {offset}");
        }
        spool.ended(Instant(0), &"t".into());
        let next = create();
        next.append(b"next").unwrap();
        assert_eq!(spool.read(&self::part("t", 5_000 * 1024, 100)).unwrap().bytes, &b"next"[..]);
        spool.release(&"t".into());
        assert!(spool.read(&self::part("t", 0, 1)).is_ok(), "it runs");
        spool.ended(Instant(0), &"t".into());
        spool.release(&"t".into());
        drop((file, next));
        assert_eq!(spool.0.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_log_for_which_there_is_no_room_loses_its_beginning() {
        let spool = Spool::new(std::env::temp_dir(), LEAST / 2);
        let file = spool.create(&"t".into(), ProgramStream::Stdout, Some(NonZeroU32::MIN)).unwrap();
        let bytes = vec![b'x'; 64 * 1024];
        for _ in 0..100 {
            assert_eq!(file.append(&bytes).unwrap(), bytes.len());
        }
    }

    #[test]
    fn another_attempt_begins_with_empty_files() {
        let spool = Spool::new(std::env::temp_dir(), 100);
        spool.create(&"t".into(), ProgramStream::Stdout, None).unwrap().append(b"first").unwrap();
        spool.create(&"t".into(), ProgramStream::Stderr, None).unwrap().append(b"errors").unwrap();
        spool.ended(Instant(0), &"t".into());
        let file = spool.create(&"t".into(), ProgramStream::Stdout, None).unwrap();
        file.append(b"2").unwrap();
        assert_eq!(spool.read(&part("t", 0, 100)).unwrap().bytes, &b"2"[..]);
        let errors = OutputRequest { stream: ProgramStream::Stderr, ..part("t", 0, 100) };
        assert_eq!(spool.read(&errors).unwrap().bytes, &b""[..], "it has written none");
        spool.release(&"t".into());
        assert!(spool.read(&part("t", 0, 1)).is_ok(), "it runs");
    }

    #[test]
    fn files_of_tasks_that_ended_long_ago_are_gone() {
        let spool = Spool::new(std::env::temp_dir(), 100);
        for (id, at) in [("a", Instant(0)), ("b", Instant(0) + KEPT_FOR)] {
            spool.create(&id.into(), ProgramStream::Stdout, None).unwrap().append(b"x").unwrap();
            spool.ended(at, &id.into());
        }
        assert!(spool.read(&part("a", 0, 1)).is_err() && spool.read(&part("b", 0, 1)).is_ok());
    }
}
