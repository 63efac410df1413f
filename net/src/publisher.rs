//! What is published to subscribers that may not read.

use remuda_proto::{Body, Identity};

use crate::socket::Socket;
use crate::weight::{WEIGHED_BYTES, Weight};

/// Bounds what waits in a bounded PUB for subscribers that do not read. libzmq bounds the number of messages for each of
/// them; this bounds the bytes of large ones, for all together.
pub struct Publisher {
    /// Of the socket, for the log.
    name: &'static str,
    limit_bytes: usize,
    /// Weighed messages that libzmq has not yet sent to every subscriber.
    in_flight: Weight,
    /// How many messages were not published since the limit was reached. The first is told.
    lost: u64,
}

impl Publisher {
    /// For the socket of that name. A large message is not published while `limit_bytes` of such wait for a subscriber.
    pub fn new(name: &'static str, limit_bytes: usize) -> Self {
        Self { name, limit_bytes, in_flight: Weight::default(), lost: 0 }
    }

    /// Publishes a message, unless it is beyond the limit.
    pub fn send<'a>(&mut self, socket: &Socket, idents: impl IntoIterator<Item = &'a Identity>, body: &Body) {
        if body.size_bytes() < WEIGHED_BYTES {
            socket.offer(idents, body, None);
            return;
        }
        let waiting_bytes = self.in_flight.bytes();
        if waiting_bytes >= self.limit_bytes {
            self.lost += 1;
            if self.lost == 1 {
                tracing::warn!(
                    socket = self.name,
                    waiting_bytes,
                    limit_bytes = self.limit_bytes,
                    "a subscriber does not read, and the limit --max-unread-bytes is reached: large messages are not \
                     published until it reads; they stay on record"
                );
            }
            return;
        }
        if self.lost > 0 {
            tracing::info!(socket = self.name, lost = self.lost, "large messages are published again");
            self.lost = 0;
        }
        socket.offer(idents, body, Some(&|| self.in_flight.tail(body)));
    }
}
