//! Files for what programs write that is too much for a reply, or that is read while they run.
//!
//! The files have no name, so that nothing is left of them when the engine ends, however it does.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use remuda_proto::message::content::{OutputRequest, ProgramStream};
use remuda_proto::{Instant, Map, MsgId, RemoteError};

/// How long the files of a task are kept after its end, unless they are released before.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(3600);
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

/// One file, written at its end by one thread.
pub(crate) struct SpoolFile {
    file: File,
    len: AtomicU64,
    shared: Arc<Shared>,
}

impl Spool {
    pub(crate) fn new(folder: PathBuf, limit: u64) -> Self {
        Self(Arc::new(Shared { folder, limit, used: AtomicU64::new(0), tasks: Mutex::default() }))
    }

    /// Makes a file for what a task writes to a stream.
    pub(crate) fn create(&self, msg_id: &MsgId, stream: ProgramStream) -> io::Result<Arc<SpoolFile>> {
        let file = tempfile::tempfile_in(&self.0.folder)?;
        let file = Arc::new(SpoolFile { file, len: AtomicU64::new(0), shared: Arc::clone(&self.0) });
        let mut tasks = self.lock();
        let files = tasks.entry(msg_id.clone()).or_default();
        if files.ended.is_some() {
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
    pub(crate) fn read(&self, part: &OutputRequest) -> Result<Bytes, RemoteError> {
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
        let Some(file) = file else { return Ok(Bytes::new()) };
        let there = file.len().saturating_sub(*offset).min(*max_bytes);
        let mut bytes = vec![0; usize::try_from(there).unwrap_or(usize::MAX)];
        file.file.read_exact_at(&mut bytes, *offset).map_err(|error| {
            RemoteError::new("OSError", format!("the output of task `{msg_id}` cannot be read: {error}"))
        })?;
        Ok(bytes.into())
    }

    fn lock(&self) -> MutexGuard<'_, Map<MsgId, Files>> {
        // Each change is one step, so a panic leaves nothing half done.
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SpoolFile {
    /// How much it holds.
    pub(crate) fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// Appends. Returns how much of it there was room for.
    pub(crate) fn append(&self, bytes: &[u8]) -> io::Result<usize> {
        let used = self.shared.used.load(Ordering::Relaxed);
        let room = usize::try_from(self.shared.limit.saturating_sub(used)).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(room)];
        (&self.file).write_all(bytes)?;
        self.shared.used.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.len.fetch_add(bytes.len() as u64, Ordering::Release);
        Ok(bytes.len())
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        self.shared.used.fetch_sub(self.len(), Ordering::Relaxed);
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
        let file = spool.create(&"t".into(), ProgramStream::Stdout).unwrap();
        assert_eq!(file.append(b"abcdef").unwrap(), 6);
        assert_eq!(spool.read(&part("t", 2, 3)).unwrap(), &b"cde"[..]);
        assert_eq!(spool.read(&part("t", 4, 100)).unwrap(), &b"ef"[..]);
        assert_eq!(spool.read(&part("t", 99, 100)).unwrap(), &b""[..]);
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

    #[test]
    fn another_attempt_begins_with_empty_files() {
        let spool = Spool::new(std::env::temp_dir(), 100);
        spool.create(&"t".into(), ProgramStream::Stdout).unwrap().append(b"first").unwrap();
        spool.create(&"t".into(), ProgramStream::Stderr).unwrap().append(b"errors").unwrap();
        spool.ended(Instant(0), &"t".into());
        let file = spool.create(&"t".into(), ProgramStream::Stdout).unwrap();
        file.append(b"2").unwrap();
        assert_eq!(spool.read(&part("t", 0, 100)).unwrap(), &b"2"[..]);
        let errors = OutputRequest { stream: ProgramStream::Stderr, ..part("t", 0, 100) };
        assert_eq!(spool.read(&errors).unwrap(), &b""[..], "it has written none");
        spool.release(&"t".into());
        assert!(spool.read(&part("t", 0, 1)).is_ok(), "it runs");
    }

    #[test]
    fn files_of_tasks_that_ended_long_ago_are_gone() {
        let spool = Spool::new(std::env::temp_dir(), 100);
        for (id, at) in [("a", Instant(0)), ("b", Instant(0) + KEPT_FOR)] {
            spool.create(&id.into(), ProgramStream::Stdout).unwrap().append(b"x").unwrap();
            spool.ended(at, &id.into());
        }
        assert!(spool.read(&part("a", 0, 1)).is_err() && spool.read(&part("b", 0, 1)).is_ok());
    }
}
