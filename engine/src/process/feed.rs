//! What a program reads, as it is given to it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use remuda_proto::Instant;

use super::files::Files;
use super::output::never_block;

/// How often it is tried whether the program listens yet, or has opened its pipe.
const RETRY: Duration = Duration::from_millis(20);
/// How long a try to connect may take. Loopback answers at once.
const CONNECT: Duration = Duration::from_millis(200);

/// Bytes on their way into a program.
pub(super) struct Feed {
    way: Way,
    left: Bytes,
    /// Most bytes written at a time.
    chunk: usize,
    /// When to try again.
    again: Option<Instant>,
}

enum Way {
    /// Open, and never blocks.
    Open(File),
    /// A regular file, appended to in chunks with a pause between.
    Append(PathBuf),
    /// The program does not read yet.
    Pipe,
    /// The program does not listen yet.
    Tcp(u16),
}

impl Feed {
    /// Into the program's stdin.
    pub(super) fn stdin(pipe: OwnedFd, bytes: Bytes) -> std::io::Result<Self> {
        never_block(&pipe)?;
        Ok(Self { way: Way::Open(pipe.into()), left: bytes, chunk: usize::MAX, again: None })
    }

    /// Into its named pipe.
    pub(super) fn pipe(bytes: Bytes, chunk: u32, now: Instant) -> Self {
        Self { way: Way::Pipe, left: bytes, chunk: chunk as usize, again: Some(now) }
    }

    /// To the port on which it listens.
    pub(super) fn tcp(port: u16, bytes: Bytes, chunk: u32, now: Instant) -> Self {
        Self { way: Way::Tcp(port), left: bytes, chunk: chunk as usize, again: Some(now) }
    }

    /// To the end of its file.
    pub(super) fn append(path: PathBuf, bytes: Bytes, chunk: u32, now: Instant) -> Self {
        Self { way: Way::Append(path), left: bytes, chunk: chunk as usize, again: Some(now) }
    }

    /// What to poll for room.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.way {
            Way::Open(file) => Some(file.as_fd()),
            Way::Append(_) | Way::Pipe | Way::Tcp(_) => None,
        }
    }

    /// When to look again, if polling does not tell.
    pub(super) fn due(&self) -> Option<Instant> {
        self.again
    }

    /// Gives the program what it takes. Returns whether there may be more to give: a program that closes its end, or
    /// ends, has read enough.
    pub(super) fn give(&mut self, now: Instant, files: Option<&Files>) -> bool {
        if self.again.is_some_and(|again| again > now) {
            return true;
        }
        self.again = None;
        match &self.way {
            Way::Open(_) => {}
            Way::Append(path) => {
                let part = self.left.split_to(self.chunk.min(self.left.len()));
                let written = OpenOptions::new().append(true).open(path).and_then(|mut file| file.write_all(&part));
                self.again = Some(now + RETRY);
                return written.is_ok() && !self.left.is_empty();
            }
            Way::Pipe => match files.map(Files::open_input_pipe) {
                Some(Ok(Some(pipe))) => self.way = Way::Open(pipe.into()),
                Some(Ok(None)) => {
                    self.again = Some(now + RETRY);
                    return true;
                }
                Some(Err(_)) | None => return false,
            },
            Way::Tcp(port) => {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
                match TcpStream::connect_timeout(&address, CONNECT) {
                    Ok(stream) if never_block(&stream).is_ok() => self.way = Way::Open(OwnedFd::from(stream).into()),
                    Ok(_) | Err(_) => {
                        self.again = Some(now + RETRY);
                        return true;
                    }
                }
            }
        }
        self.write()
    }

    fn write(&mut self) -> bool {
        let Way::Open(file) = &mut self.way else { return true };
        while !self.left.is_empty() {
            match file.write(&self.left[..self.chunk.min(self.left.len())]) {
                Ok(0) => break,
                Ok(count) => drop(self.left.split_to(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        false
    }
}
