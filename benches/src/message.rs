//! Where the parts of a message are, for who reads its frames himself.

use remuda_proto::{DELIMITER, Key};
use zmq::Message;

/// Where the parts of a message are among its frames.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    /// Place of the delimiter: so many routing frames stand before it.
    pub(crate) delimiter: usize,
}

impl Layout {
    /// Of frames that are a message; `None` if they are none.
    pub(crate) fn of(frames: &[Message]) -> Option<Self> {
        let delimiter = frames.iter().position(|frame| **frame == *DELIMITER)?;
        (frames.len() >= delimiter + 6).then_some(Self { delimiter })
    }

    /// Place of the header; parent header, metadata and content follow it.
    pub(crate) fn header(self) -> usize {
        self.delimiter + 2
    }

    /// Whether the message is signed as it should be.
    pub(crate) fn is_signed(self, frames: &[Message], key: &Key) -> bool {
        let at = self.header();
        let signature = key.sign([&frames[at], &frames[at + 1], &frames[at + 2], &frames[at + 3]]);
        *frames[self.delimiter + 1] == *signature
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_found_behind_its_routing_frames() {
        let frames: Vec<Message> =
            [b"client", DELIMITER, b"sig", b"h", b"p", b"m", b"c"].into_iter().map(Message::from).collect();
        let layout = Layout::of(&frames).unwrap();
        assert_eq!((layout.delimiter, layout.header()), (1, 3));
        assert!(!layout.is_signed(&frames, &Key::new("key")));
        assert!(Layout::of(&frames[..6]).is_none());
        assert!(Layout::of(&frames[..1]).is_none());
    }
}
