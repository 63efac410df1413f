//! The sockets of the supervisor's end of lines to nannies.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use remuda_cluster::line::{
    Desk, DeskEffect, DeskEvent, LineKey, MAX_HELLO_BYTES, MAX_LINE_BYTES, Peer, SILENCE, Tale,
};
use remuda_proto::Instant;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::say;

/// How many lines wait to be heard, before those who say them have to.
const MAX_UNHEARD: usize = 256;

/// What comes from the sockets.
pub(super) enum LineMail {
    Accepted { stream: TcpStream, from: SocketAddr },
    Line { peer: Peer, line: String },
    Closed { peer: Peer },
}

struct Connection {
    from: SocketAddr,
    /// What is to be sent. When this goes, the connection is closed after it.
    lines: mpsc::UnboundedSender<String>,
    reader: AbortHandle,
}

/// All lines.
pub(super) struct Lines {
    desk: Desk,
    port: u16,
    connections: BTreeMap<Peer, Connection>,
    next: Peer,
    mail: mpsc::Sender<LineMail>,
    accepting: AbortHandle,
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Lines {
    /// Listens at this address for nannies that have the key.
    pub(super) async fn open(at: SocketAddr, key: LineKey) -> io::Result<(Self, mpsc::Receiver<LineMail>)> {
        let listener = TcpListener::bind(at).await?;
        let port = listener.local_addr()?.port();
        let (mail, to_read) = mpsc::channel(MAX_UNHEARD);
        let accepted = mail.clone();
        let accepting = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, from)) => {
                        if accepted.send(LineMail::Accepted { stream, from }).await.is_err() {
                            break;
                        }
                    }
                    // No descriptor is left, say: there will be one again.
                    Err(_) => tokio::time::sleep(super::WATCH).await,
                }
            }
        });
        let lines = Self {
            desk: Desk::new(key),
            port,
            connections: BTreeMap::new(),
            next: 0,
            mail,
            accepting: accepting.abort_handle(),
        };
        Ok((lines, to_read))
    }

    /// The port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Takes in what came. Returns what nannies tell.
    pub(super) fn hear(&mut self, now: Instant, mail: LineMail) -> Vec<(String, Tale)> {
        match mail {
            LineMail::Accepted { stream, from } => {
                let peer = self.next;
                self.next += 1;
                let _ = stream.set_nodelay(true);
                let (reading, writing) = stream.into_split();
                let (lines, to_send) = mpsc::unbounded_channel();
                let reader = tokio::spawn(read(peer, reading, self.mail.clone())).abort_handle();
                tokio::spawn(write(writing, to_send));
                self.connections.insert(peer, Connection { from, lines, reader });
                self.handle(now, DeskEvent::Accepted { peer, nonce: remuda_net::random_bytes() })
            }
            LineMail::Line { peer, line } => self.handle(now, DeskEvent::Line { peer, line }),
            LineMail::Closed { peer } => {
                self.connections.remove(&peer);
                self.handle(now, DeskEvent::Closed { peer })
            }
        }
    }

    /// Has the desk do something. Returns what nannies tell.
    pub(super) fn handle(&mut self, now: Instant, event: DeskEvent) -> Vec<(String, Tale)> {
        let mut out = Vec::new();
        self.desk.handle(now, event, &mut out);
        self.perform(out)
    }

    /// What is due.
    pub(super) fn look(&mut self, now: Instant) {
        let mut out = Vec::new();
        self.desk.look(now, &mut out);
        self.perform(out);
    }

    fn perform(&mut self, effects: Vec<DeskEffect>) -> Vec<(String, Tale)> {
        let mut tales = Vec::new();
        let mut from = None;
        for effect in effects {
            match effect {
                DeskEffect::Send { peer, line } => {
                    if let Some(connection) = self.connections.get(&peer) {
                        let _ = connection.lines.send(line);
                    }
                }
                DeskEffect::Close { peer } => {
                    if let Some(connection) = self.connections.remove(&peer) {
                        connection.reader.abort();
                        from = Some(connection.from);
                    }
                }
                DeskEffect::Heard { name, tale } => tales.push((name, tale)),
                DeskEffect::Dropped { peer, reason } => {
                    let who = from.map_or_else(|| format!("{peer}"), |from| from.to_string());
                    say(&format!("warning: dropped {who}, which called at the port for nannies: {reason}"));
                }
            }
        }
        tales
    }
}

/// Reads a peer's lines until it has no more, or says what no nanny does.
async fn read(peer: Peer, reading: tcp::OwnedReadHalf, mail: mpsc::Sender<LineMail>) {
    let mut reader = BufReader::new(reading);
    let mut limit = MAX_HELLO_BYTES;
    loop {
        let mut line = Vec::new();
        let read = (&mut reader).take(limit as u64 + 1).read_until(b'\n', &mut line).await;
        let is_line = read.is_ok_and(|bytes| bytes > 0) && (line.pop() == Some(b'\n') || line.len() >= limit);
        if !is_line {
            break;
        }
        // What is too long or no text is nothing that a nanny says.
        let line = if line.len() >= limit { String::new() } else { String::from_utf8(line).unwrap_or_default() };
        if mail.send(LineMail::Line { peer, line }).await.is_err() {
            return;
        }
        limit = MAX_LINE_BYTES;
    }
    let _ = mail.send(LineMail::Closed { peer }).await;
}

/// Sends lines until there are no more, or they are not taken.
async fn write(mut writing: tcp::OwnedWriteHalf, mut lines: mpsc::UnboundedReceiver<String>) {
    while let Some(mut line) = lines.recv().await {
        line.push('\n');
        let sent = tokio::time::timeout(SILENCE, writing.write_all(line.as_bytes())).await;
        if !matches!(sent, Ok(Ok(()))) {
            break;
        }
    }
    let _ = writing.shutdown().await;
}
