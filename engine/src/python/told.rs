//! What Python code prints, as text.

use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use remuda_proto::Instant;

/// Read at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Most that is told at once.
const PIECE_BYTES: usize = 1024 * 1024;
/// How long a little text waits for more.
const PAUSE: Duration = Duration::from_millis(20);

/// One of stdout and stderr.
pub(super) struct Told<R> {
    pipe: Option<R>,
    /// The beginning of a character whose rest is still to come.
    cut: Vec<u8>,
    /// Until when it is left alone, so that what is printed line by line is told several lines at a time.
    rests_until: Option<Instant>,
    /// How much of the task's output was told.
    passed_bytes: u64,
    dropped_bytes: u64,
    /// Most of a task's output that is told.
    limit_bytes: u64,
}

impl<R: Read> Told<R> {
    /// `pipe` never blocks.
    pub(super) fn new(pipe: R, limit_bytes: u64) -> Self {
        let (passed_bytes, dropped_bytes) = (0, 0);
        Self { pipe: Some(pipe), cut: Vec::new(), rests_until: None, passed_bytes, dropped_bytes, limit_bytes }
    }

    /// When it is to be looked at again, if it rests.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        self.rests_until
    }

    /// Reads what is there, up to a piece: text to tell, if any. Whether there may be more.
    pub(super) fn read(&mut self, now: Instant) -> (Option<String>, bool) {
        let mut bytes = std::mem::take(&mut self.cut);
        let more = loop {
            let Some(pipe) = &mut self.pipe else { break false };
            let before = bytes.len();
            if before >= PIECE_BYTES {
                break true;
            }
            bytes.resize(before + CHUNK_BYTES, 0);
            let found = pipe.read(&mut bytes[before..]);
            bytes.truncate(before + found.as_ref().map_or(0, |count| *count));
            match found {
                Ok(0) => self.pipe = None,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break false,
                Err(_) => self.pipe = None,
            }
        };
        self.rests_until = Some(now + PAUSE).filter(|_| !more && !bytes.is_empty() && self.pipe.is_some());
        if self.pipe.is_some() {
            let whole = bytes.len() - cut_bytes(&bytes);
            self.cut = bytes.split_off(whole);
        }
        (self.bounded(&bytes), more)
    }

    /// The text of these bytes, as far as the task may still say something.
    fn bounded(&mut self, bytes: &[u8]) -> Option<String> {
        let left = usize::try_from(self.limit_bytes - self.passed_bytes).unwrap_or(usize::MAX);
        let mut end = bytes.len().min(left);
        // Not in the middle of a character.
        while end < bytes.len() && end > 0 && bytes[end] & 0xc0 == 0x80 {
            end -= 1;
        }
        let (told, dropped) = bytes.split_at(end);
        // Once something is left out, all that follows is.
        self.passed_bytes = if dropped.is_empty() { self.passed_bytes + told.len() as u64 } else { self.limit_bytes };
        self.dropped_bytes += dropped.len() as u64;
        (!told.is_empty()).then(|| String::from_utf8_lossy(told).into_owned())
    }

    /// A task has ended: the next may say as much. Gives how much of this one was left out.
    pub(super) fn next_task(&mut self) -> u64 {
        self.passed_bytes = 0;
        std::mem::take(&mut self.dropped_bytes)
    }
}

impl<R: AsFd> Told<R> {
    /// What to wait for, unless it rests or has ended.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().filter(|_| self.rests_until.is_none()).map(AsFd::as_fd)
    }
}

impl<R> Told<R> {
    /// The rest is over.
    pub(super) fn wake(&mut self, now: Instant) {
        self.rests_until = self.rests_until.filter(|until| *until > now);
    }
}

/// How many bytes at the end are the beginning of a character.
fn cut_bytes(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let byte = bytes[bytes.len() - back];
        let length = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return 0,
        };
        return if length > back { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// Gives one chunk at each read, then nothing for now.
    struct Pipe(Vec<Vec<u8>>);

    impl Read for Pipe {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some(chunk) = self.0.pop() else { return Err(ErrorKind::WouldBlock.into()) };
            buffer[..chunk.len()].copy_from_slice(&chunk);
            Ok(chunk.len())
        }
    }

    fn read(told: &mut Told<Pipe>) -> String {
        told.read(Instant(0)).0.unwrap_or_default()
    }

    #[test]
    fn characters_are_told_whole() {
        let text = "aé€😀b";
        for cut in 1..text.len() {
            let (first, second) = text.as_bytes().split_at(cut);
            let mut told = Told::new(Pipe(vec![first.to_vec()]), 100);
            let mut found = read(&mut told);
            told.pipe = Some(Pipe(vec![second.to_vec()]));
            found += &read(&mut told);
            assert_eq!(found, text, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_text_is_told_as_such_and_the_end_of_the_pipe_ends_it() {
        let mut told = Told::new(Pipe(vec![b"\xff\xe2".to_vec()]), 100);
        assert_eq!(read(&mut told), "\u{fffd}");
        told.pipe = Some(Pipe(vec![Vec::new()]));
        assert_eq!(read(&mut told), "\u{fffd}");
        assert!(told.pipe.is_none());
    }

    #[test]
    fn a_task_says_no_more_than_it_may() {
        let mut told = Told::new(Pipe(vec![b"rest".to_vec(), "abcd€".into()]), 5);
        assert_eq!(read(&mut told), "abcd");
        assert_eq!(told.next_task(), 3 + 4);
        told.pipe = Some(Pipe(vec![b"12345".to_vec()]));
        assert_eq!(read(&mut told), "12345");
        assert_eq!(told.next_task(), 0);
    }

    #[test]
    fn a_little_text_waits_for_more() {
        let mut told = Told::new(Pipe(vec![b"x".to_vec()]), 100);
        read(&mut told);
        assert_eq!(told.rests_until(), Some(Instant(0) + PAUSE));
        told.wake(Instant(0) + PAUSE);
        assert_eq!(told.rests_until(), None);
        assert_eq!(told.read(Instant(0)), (None, false));
        assert_eq!(told.rests_until(), None, "nothing came, so nothing follows soon");
    }
}
