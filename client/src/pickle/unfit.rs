//! Why a pickle is not read, and how much of one is.

/// Deepest nesting that is read. Values are read by recursion, so that a deep one would take the whole stack.
pub(super) const MAX_DEPTH: u8 = 100;
/// Most values that a pickle may unfold to. A value can be repeated by a reference of two bytes, and its repetitions again.
pub(super) const MAX_VALUES: u32 = 16 * 1024 * 1024;
/// How many bytes its texts may unfold to, by being repeated, beside what is allowed for its own size.
pub(super) const MAX_REPEATED_BYTES: u64 = 256 * 1024 * 1024;
/// As how many bytes of text a byte of data counts, for it may become a number in a list. So much is allowed for each byte
/// that the pickle has.
pub(super) const BYTE_WEIGHT: u64 = 8;

/// Why a pickle is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// It makes or calls something, as only Python can.
    #[error("the value is a Python object, not a plain value{}", name.as_ref().map(|name| format!(" (`{name}`)")).unwrap_or_default())]
    Object {
        /// Its class, or the function that makes it, where that can be told.
        name: Option<String>,
    },
    /// It ends too early, or takes what is not there.
    #[error("the pickle is damaged at byte {at}")]
    Damaged {
        /// Where.
        at: usize,
    },
    /// It has an opcode that Python does not write any more, or that we do not know.
    #[error("the pickle has an unknown opcode 0x{opcode:02x} at byte {at}")]
    Opcode {
        /// The opcode.
        opcode: u8,
        /// Where.
        at: usize,
    },
    /// A list or a dict was changed after it was put into another, as happens where a value holds itself.
    #[error("the value holds itself")]
    Recursive,
    /// It is nested deeper than is read.
    #[error("the value is nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// It would unfold to more than is read.
    #[error("the value holds more than {MAX_VALUES} values, or repeats texts and data to hundreds of megabytes")]
    TooLarge,
    /// The data of an array or of bytes should be in a buffer beside the pickle, which did not come.
    #[error("the data of a value is missing: there is no buffer {index} for it")]
    NoBuffer {
        /// Which, from 0 for the pickle.
        index: usize,
    },
    /// Which buffer belongs to which item of a dict depends on the order of its keys, and these have none.
    #[error(
        "the keys of a dict of arrays or bytes are neither all text nor all integers: have the function return a list"
    )]
    Unordered,
}
