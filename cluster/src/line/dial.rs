//! The sockets of a nanny's end of a line.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use remuda_net::{Clock, address, connection_file};

use super::call::{Call, CallEffect, CallEvent};
use super::seal::{LineKey, MAX_LINE_BYTES};
use super::{LineAddress, SILENCE, Tale};
use crate::nanny::Word;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a nanny's end of a line is told, and what its threads tell it.
#[derive(Debug)]
pub(crate) enum LineMail {
    /// The nanny tells something.
    Tell(Tale),
    /// Of the connection of that number.
    Line(u64, String),
    /// The same, which is over.
    Cut(u64, String),
}

/// What comes of a line.
#[derive(Debug)]
pub(crate) enum LineNews {
    /// The nanny is told something.
    Word(Word),
    /// There was no line for too long.
    Lost,
    /// All was said: the nanny may end.
    Done,
}

/// Keeps a line to the supervisor, and returns when the last tale was told. `file` is the engines' connection file, which is read anew
/// for each connection.
pub(crate) fn dial(
    at: &LineAddress,
    file: &Path,
    name: String,
    patience: Duration,
    to_self: &Sender<LineMail>,
    mail: &Receiver<LineMail>,
    mut news: impl FnMut(LineNews),
) {
    let clock = Clock::new();
    let instance = remuda_net::random_session_id().to_string();
    let mut call = Call::new(name, instance, patience, clock.now().instant);
    let (mut stream, mut number) = (None::<TcpStream>, 0_u64);
    let mut out = Vec::new();
    loop {
        let now = clock.now().instant;
        call.on_deadline(now, &mut out);
        while !out.is_empty() {
            for effect in std::mem::take(&mut out) {
                match effect {
                    CallEffect::Dial => {
                        number += 1;
                        let event = match connect(at, file, number, to_self) {
                            Ok((connected, key)) => {
                                stream = Some(connected);
                                CallEvent::Connected { key, nonce: remuda_net::random_bytes() }
                            }
                            Err(reason) => CallEvent::Cut { reason },
                        };
                        call.handle(clock.now().instant, event, &mut out);
                    }
                    CallEffect::Send(mut line) => {
                        line.push('\n');
                        // A connection that takes nothing any more ends for its reader, too.
                        if let Some(Err(_)) = stream.as_mut().map(|stream| stream.write_all(line.as_bytes())) {
                            hang_up(stream.as_ref());
                        }
                    }
                    CallEffect::HangUp => hang_up(stream.take().as_ref()),
                    CallEffect::Deliver(word) => news(LineNews::Word(word)),
                    CallEffect::Lost { silence } => {
                        let silence_s = silence.as_secs();
                        tracing::error!("no line to the cluster's supervisor for {silence_s} s: the engines are ended");
                        news(LineNews::Lost);
                    }
                    CallEffect::Done => {
                        hang_up(stream.take().as_ref());
                        return news(LineNews::Done);
                    }
                    CallEffect::Note(reason) => tracing::warn!("no line to the cluster's supervisor: {reason}"),
                }
            }
        }
        let wait = call.deadline().map_or(SILENCE, |deadline| deadline.since(clock.now().instant));
        let event = match mail.recv_timeout(wait) {
            Ok(LineMail::Tell(tale)) => CallEvent::Tell(tale),
            Ok(LineMail::Line(of, line)) if of == number && stream.is_some() => CallEvent::Line(line),
            Ok(LineMail::Cut(of, reason)) if of == number && stream.is_some() => {
                stream = None;
                CallEvent::Cut { reason }
            }
            Ok(LineMail::Line(..) | LineMail::Cut(..)) | Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => panic!("a sender is kept"),
        };
        call.handle(clock.now().instant, event, &mut out);
    }
}

fn hang_up(stream: Option<&TcpStream>) {
    if let Some(stream) = stream {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Connects, and has a thread read what comes.
fn connect(
    at: &LineAddress,
    file: &Path,
    number: u64,
    to_self: &Sender<LineMail>,
) -> Result<(TcpStream, LineKey), String> {
    let file = connection_file::read_engine(file).map_err(|error| error.to_string())?;
    let interface = address::connect_interface(&file.common);
    let host = match &at.host {
        Some(host) => host,
        None => interface.strip_prefix("tcp://").ok_or("the connection file names no TCP address")?,
    };
    let stream = reach(host, at.port).map_err(|error| format!("`{host}` port {}: {error}", at.port))?;
    let attempt = || -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(SILENCE))?;
        let (reading, to_self) = (stream.try_clone()?, to_self.clone());
        thread::Builder::new().name("line".to_owned()).spawn(move || {
            let reason = read(&reading, number, &to_self).map_or_else(|error| error.to_string(), str::to_owned);
            let _ = to_self.send(LineMail::Cut(number, reason));
        })?;
        Ok(())
    };
    attempt().map_err(|error| error.to_string())?;
    Ok((stream, LineKey::new(&file.common.key)))
}

/// Tries all addresses of a host.
fn reach(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    for address in (host.trim_start_matches('[').trim_end_matches(']'), port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Reads lines until there are no more, and says why.
fn read(stream: &TcpStream, number: u64, to: &Sender<LineMail>) -> io::Result<&'static str> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        // The supervisor has proved nothing when it says its first line.
        let limit = MAX_LINE_BYTES as u64 + 1;
        if reader.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok("the other end has closed it");
        }
        if line.pop() != Some(b'\n') {
            return Ok("a line has no end");
        }
        let Ok(line) = String::from_utf8(line) else { return Ok("a line is no text") };
        if to.send(LineMail::Line(number, line)).is_err() {
            return Ok("nobody listens");
        }
    }
}
