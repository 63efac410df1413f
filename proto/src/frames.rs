//! A multipart message: routing frames, the delimiter, signature, four packed parts, buffers.

use std::fmt;

use bytes::Bytes;
use smallvec::SmallVec;
use triomphe::ThinArc;

use crate::id::Identity;

/// The frame between the routing frames and the signature.
pub const DELIMITER: &[u8] = b"<IDS|MSG>";

/// A frame of this size or more is kept as it came and never copied; smaller ones are packed side by side, since
/// a copy then costs less than an allocation and a reference count for each.
pub const LARGE_FRAME_BYTES: usize = 16 * 1024;

/// A builder that grew beyond this gives the rest of its memory back.
const KEPT_BYTES: usize = 4 * LARGE_FRAME_BYTES;

/// Most routing frames before the delimiter. The deepest legal path (broadcast) has a handful.
const MAX_IDENTS: usize = 32;
/// Longest routing frame. `ZeroMQ` identities end at 255 bytes; topics of iopub messages are short too.
const MAX_IDENT_BYTES: usize = 1024;
/// Signature, header, parent header, metadata, content.
const MIN_PARTS: usize = 5;

/// Routing frames, outermost first.
pub type Idents = SmallVec<[Identity; 2]>;

/// Why the frames of a multipart message are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// No frame is the delimiter.
    #[error("no delimiter among {frames} frames")]
    NoDelimiter {
        /// How many frames came.
        frames: usize,
    },
    /// The signature or one of the four parts is missing.
    #[error("only {parts} of 5 parts after the delimiter")]
    TooShort {
        /// How many frames came after the delimiter.
        parts: usize,
    },
    /// More or longer routing frames than any peer has reason to send.
    #[error("routing frames beyond the limit of {MAX_IDENTS} frames of {MAX_IDENT_BYTES} bytes")]
    TooMuchRouting,
    /// The parts together exceed 4 GiB of small frames.
    #[error("message too large")]
    TooLarge,
}

/// A whole multipart message: where it goes or comes from, and what it says.
#[derive(Clone, PartialEq, Eq)]
pub struct Frames {
    /// Routing frames before the delimiter, outermost first; for iopub, the topic.
    pub idents: Idents,
    /// All that follows the delimiter.
    pub body: Body,
}

impl Frames {
    /// A message for the peer that `idents` name.
    pub fn new(idents: impl IntoIterator<Item = Identity>, body: Body) -> Self {
        Self { idents: idents.into_iter().collect(), body }
    }

    /// Reads the frames of a multipart message.
    ///
    /// # Errors
    /// When there is no delimiter, or too few parts follow it.
    pub fn from_parts<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> Result<Self, FrameError> {
        let mut builder = FramesBuilder::default();
        for part in parts {
            builder.push(part.as_ref());
        }
        builder.finish()
    }

    /// All frames in order, delimiter included: what a socket sends.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.idents.iter().map(Identity::as_bytes).chain([DELIMITER]).chain(self.body.parts())
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.idents, self.body)
    }
}

/// Signature, header, parent header, metadata, content and buffers. Cheap to clone: the bytes are shared.
///
/// One allocation holds the small frames, end to end, and where they are.
#[derive(Clone, PartialEq, Eq)]
pub struct Body(ThinArc<Places, u8>);

/// Where the frames of a body are.
#[derive(PartialEq, Eq)]
struct Places {
    /// Where each frame ends among the small ones; a large frame ends where it begins.
    ends: Ends,
    /// The large frames by index, ascending. Most bodies have none.
    large: Option<Box<[(u32, Bytes)]>>,
}

/// A stock client's task has eight frames.
type Ends = SmallVec<[u32; 8]>;

impl Body {
    /// The signature as sent: hex text, or empty when signing is off.
    pub fn signature(&self) -> &[u8] {
        self.frame(0)
    }
    /// The packed header.
    pub fn header(&self) -> &[u8] {
        self.frame(1)
    }
    /// The packed header of the request that this answers, or a packed empty map.
    pub fn parent_header(&self) -> &[u8] {
        self.frame(2)
    }
    /// The packed metadata.
    pub fn metadata(&self) -> &[u8] {
        self.frame(3)
    }
    /// The packed content.
    pub fn content(&self) -> &[u8] {
        self.frame(4)
    }
    /// How many buffers follow the content.
    pub fn buffer_count(&self) -> usize {
        self.places().ends.len().saturating_sub(MIN_PARTS)
    }
    /// The buffers in order.
    pub fn buffers(&self) -> impl Iterator<Item = &[u8]> {
        (MIN_PARTS..self.places().ends.len()).map(|index| self.frame(index))
    }
    /// Buffer `index`, shared where it is large and copied where it is small.
    pub fn buffer(&self, index: usize) -> Option<Bytes> {
        let index = index.checked_add(MIN_PARTS)?;
        if index >= self.places().ends.len() {
            return None;
        }
        Some(self.shared(index).cloned().unwrap_or_else(|| Bytes::copy_from_slice(self.frame(index))))
    }
    /// The last buffer: the argument of a native task.
    pub fn last_buffer(&self) -> Option<Bytes> {
        self.buffer(self.buffer_count().checked_sub(1)?)
    }
    /// All frames in order, from the signature on.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.places().ends.len()).map(|index| self.frame(index))
    }
    /// How many frames there are, from the signature on: 5 or more.
    pub fn part_count(&self) -> usize {
        self.places().ends.len()
    }
    /// Frame `index` if it is kept as a large one, so that a socket can send it without a copy.
    pub fn shared(&self, index: usize) -> Option<&Bytes> {
        let large = self.places().large.as_ref()?;
        let index = u32::try_from(index).ok()?;
        large.binary_search_by_key(&index, |(at, _)| *at).ok().map(|at| &large[at].1)
    }
    /// Size of all frames together, in bytes.
    pub fn size_bytes(&self) -> usize {
        let large = self.places().large.iter().flatten().map(|(_, bytes)| bytes.len()).sum::<usize>();
        self.0.slice.len() + large
    }
    /// Size of the buffers alone, in bytes.
    pub fn buffer_bytes(&self) -> usize {
        self.buffers().map(<[u8]>::len).sum()
    }

    fn places(&self) -> &Places {
        &self.0.header.header
    }

    /// Frame `index`, counted from the signature; empty when there is none.
    fn frame(&self, index: usize) -> &[u8] {
        let Some(&end) = self.places().ends.get(index) else { return &[] };
        if let Some(bytes) = self.shared(index) {
            return bytes;
        }
        let start = if index == 0 { 0 } else { self.places().ends[index - 1] };
        &self.0.slice[start as usize..end as usize]
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [self.header(), self.parent_header(), self.metadata(), self.content()] {
            write!(f, "{} ", String::from_utf8_lossy(part))?;
        }
        write!(f, "+{} buffers", self.buffer_count())
    }
}

/// Puts a [`Body`] together, frame by frame, from the signature on. Made for use again and again: what it grew to for one
/// body serves the next.
#[derive(Default)]
pub struct BodyBuilder {
    /// The small frames so far, end to end.
    small: Vec<u8>,
    /// As in [`Places`].
    ends: Ends,
    /// As in [`Places`].
    large: Vec<(u32, Bytes)>,
    too_large: bool,
}

impl BodyBuilder {
    /// Makes room for these frames, which are about to be appended.
    pub fn reserve<'a>(&mut self, frames: impl IntoIterator<Item = &'a [u8]>) {
        let sizes = frames.into_iter().map(<[u8]>::len);
        self.small.reserve(sizes.filter(|size| *size < LARGE_FRAME_BYTES).sum());
    }

    /// Appends a frame, copying it.
    pub fn push(&mut self, frame: &[u8]) {
        if frame.len() >= LARGE_FRAME_BYTES {
            self.push_large(Bytes::copy_from_slice(frame));
        } else {
            self.small.extend_from_slice(frame);
            self.mark_end();
        }
    }

    /// Appends a frame that is already shared; copied if it is small.
    pub fn push_bytes(&mut self, frame: Bytes) {
        if frame.len() >= LARGE_FRAME_BYTES { self.push_large(frame) } else { self.push(&frame) }
    }

    /// The body, if it has at least the signature and the four parts. Begins the next one in any case.
    ///
    /// # Errors
    /// When it has fewer parts, or is too large.
    pub fn finish(&mut self) -> Result<Body, FrameError> {
        let ends = std::mem::take(&mut self.ends);
        let large = std::mem::take(&mut self.large);
        let finished = if std::mem::take(&mut self.too_large) {
            Err(FrameError::TooLarge)
        } else if ends.len() < MIN_PARTS {
            Err(FrameError::TooShort { parts: ends.len() })
        } else {
            let large = (!large.is_empty()).then(|| large.into_boxed_slice());
            Ok(Body(ThinArc::from_header_and_slice(Places { ends, large }, &self.small)))
        };
        self.small.clear();
        self.small.shrink_to(KEPT_BYTES);
        finished
    }

    fn push_large(&mut self, frame: Bytes) {
        match u32::try_from(self.ends.len()) {
            Ok(index) => self.large.push((index, frame)),
            Err(_) => self.too_large = true,
        }
        self.mark_end();
    }

    fn mark_end(&mut self) {
        match u32::try_from(self.small.len()) {
            Ok(end) => self.ends.push(end),
            Err(_) => self.too_large = true,
        }
    }
}

/// Reads the frames of a multipart message as they arrive. Made for use again and again, as [`BodyBuilder`] is.
#[derive(Default)]
pub struct FramesBuilder {
    idents: Idents,
    body: BodyBuilder,
    frames: usize,
    delimited: bool,
    routing: bool,
}

impl FramesBuilder {
    /// The next frame, copied.
    pub fn push(&mut self, frame: &[u8]) {
        self.frames += 1;
        if self.delimited {
            self.body.push(frame);
        } else {
            self.push_routing(frame);
        }
    }

    /// The next frame, shared if it is large.
    pub fn push_bytes(&mut self, frame: Bytes) {
        self.frames += 1;
        if self.delimited {
            self.body.push_bytes(frame);
        } else {
            self.push_routing(&frame);
        }
    }

    /// The first routing frame so far: the sender, on a ROUTER. For the log.
    pub fn sender(&self) -> Option<&Identity> {
        self.idents.first()
    }

    /// The message, once the last frame has come. Begins the next one in any case.
    ///
    /// # Errors
    /// When it has no delimiter, fewer parts, or is too large.
    pub fn finish(&mut self) -> Result<Frames, FrameError> {
        let idents = std::mem::take(&mut self.idents);
        let (frames, delimited) = (std::mem::take(&mut self.frames), std::mem::take(&mut self.delimited));
        let body = self.body.finish();
        if std::mem::take(&mut self.routing) {
            return Err(FrameError::TooMuchRouting);
        }
        if !delimited {
            return Err(FrameError::NoDelimiter { frames });
        }
        Ok(Frames { idents, body: body? })
    }

    fn push_routing(&mut self, frame: &[u8]) {
        if frame == DELIMITER {
            self.delimited = true;
        } else if self.idents.len() == MAX_IDENTS || frame.len() > MAX_IDENT_BYTES {
            self.routing = true;
        } else {
            self.idents.push(Identity::from(frame));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(big: usize) -> Vec<Vec<u8>> {
        let texts: [&[u8]; 9] = [b"engine", b"client", DELIMITER, b"sig", b"h", b"p", b"m", b"c", b"buf"];
        let mut parts: Vec<Vec<u8>> = texts.iter().map(|text| text.to_vec()).collect();
        parts.push(vec![7; big]);
        parts.push(Vec::new());
        parts
    }

    #[test]
    fn frames_come_back_as_they_were() {
        for big in [0, 10, LARGE_FRAME_BYTES, LARGE_FRAME_BYTES * 3] {
            let parts = sample(big);
            let frames = Frames::from_parts(&parts).unwrap();
            assert_eq!(frames.parts().map(<[u8]>::to_vec).collect::<Vec<_>>(), parts);
            assert_eq!(frames.idents[1].as_bytes(), b"client");
            assert_eq!(frames.body.content(), b"c");
            assert_eq!(frames.body.buffer_count(), 3);
            assert_eq!(frames.body.buffer(1).unwrap().len(), big);
            assert_eq!(frames.body.buffer(3), None);
            assert_eq!(frames.body.buffer_bytes(), 3 + big);
        }
    }

    #[test]
    fn a_large_frame_is_shared_not_copied() {
        let large = Bytes::from(vec![1; LARGE_FRAME_BYTES]);
        let mut builder = FramesBuilder::default();
        for part in [DELIMITER, b"", b"h", b"p", b"m", b"c"] {
            builder.push(part);
        }
        builder.push_bytes(large.clone());
        let frames = builder.finish().unwrap();
        assert_eq!(frames.body.shared(5).unwrap().as_ptr(), large.as_ptr());
        assert_eq!(frames.body.buffer(0).unwrap().as_ptr(), large.as_ptr());
    }

    #[test]
    fn what_is_no_message_is_refused_with_the_reason() {
        let none: [&[u8]; 0] = [];
        assert_eq!(Frames::from_parts(none), Err(FrameError::NoDelimiter { frames: 0 }));
        assert_eq!(Frames::from_parts([b"x"]), Err(FrameError::NoDelimiter { frames: 1 }));
        let short: [&[u8]; 3] = [DELIMITER, b"sig", b"{}"];
        assert_eq!(Frames::from_parts(short), Err(FrameError::TooShort { parts: 2 }));
        let mut routed = vec![b"i".to_vec(); MAX_IDENTS + 1];
        routed.extend(sample(0).into_iter().skip(2));
        assert_eq!(Frames::from_parts(&routed), Err(FrameError::TooMuchRouting));
    }

    #[test]
    fn a_buffer_may_look_like_the_delimiter() {
        let parts: [&[u8]; 7] = [DELIMITER, b"", b"h", b"p", b"m", b"c", DELIMITER];
        assert_eq!(Frames::from_parts(parts).unwrap().body.buffer_count(), 1);
    }
}
