//! What a pickle says, before anybody knows what it is to become.

use std::collections::BTreeMap;

use bytes::Bytes;

/// A part of the pickle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) at: usize,
    pub(super) len: usize,
}

/// A value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// A number that may have more than 64 bits: little end first, in two's complement.
    Long(Span),
    Float(f64),
    Bytes(Span),
    /// UTF-8.
    Text(Span),
    Class(Class),
    /// Holds others: the number of a [`Holder`].
    Holder(u32),
}

/// The classes, and functions that make objects, which are known here. None of them is ever run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// What `NumPy` arrays travel as (`serialize/canning.py`).
    CannedArray,
    /// What `bytes` and memory views travel as.
    CannedBytes,
    /// `_reconstruct`: an array inside of something, up to protocol 4.
    Reconstruct,
    /// `_frombuffer`: the same from protocol 5 on.
    FromBuffer,
    /// A number of `NumPy`'s.
    Scalar,
    Dtype,
    NdArray,
    ByteArray,
    Set,
    FrozenSet,
}

impl Class {
    /// The one that this module has under this name.
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("ipyparallel.serialize.canning", "CannedArray") => Self::CannedArray,
            ("ipyparallel.serialize.canning", "CannedBytes" | "CannedMemoryView" | "CannedBuffer") => Self::CannedBytes,
            ("numpy._core.multiarray" | "numpy.core.multiarray", "_reconstruct") => Self::Reconstruct,
            ("numpy._core.multiarray" | "numpy.core.multiarray", "scalar") => Self::Scalar,
            ("numpy._core.numeric" | "numpy.core.numeric", "_frombuffer") => Self::FromBuffer,
            ("numpy", "dtype") => Self::Dtype,
            ("numpy", "ndarray") => Self::NdArray,
            ("builtins" | "__builtin__", "bytearray") => Self::ByteArray,
            ("builtins" | "__builtin__", "set") => Self::Set,
            ("builtins" | "__builtin__", "frozenset") => Self::FrozenSet,
            _ => return None,
        })
    }

    /// Whether it stands for a value whose data may be in a buffer beside the pickle.
    pub(super) fn is_canned(self) -> bool {
        matches!(self, Self::CannedArray | Self::CannedBytes)
    }

    /// Its name, for who asked for something else.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CannedArray => "ipyparallel.serialize.canning.CannedArray",
            Self::CannedBytes => "ipyparallel.serialize.canning.CannedBytes",
            Self::Reconstruct => "numpy._core.multiarray._reconstruct",
            Self::FromBuffer => "numpy._core.numeric._frombuffer",
            Self::Scalar => "numpy._core.multiarray.scalar",
            Self::Dtype => "numpy.dtype",
            Self::NdArray => "numpy.ndarray",
            Self::ByteArray => "builtins.bytearray",
            Self::Set => "builtins.set",
            Self::FrozenSet => "builtins.frozenset",
        }
    }
}

/// What a [`Holder`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    List,
    Tuple,
    Set,
    FrozenSet,
    /// Keys and values in turn.
    Dict,
    /// The arguments (a tuple), and the state if there is one.
    Object(Class),
}

/// A value that holds others, with its measures.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) kind: Kind,
    /// How deep it is nested: 1 for an empty one.
    pub(super) depth: u8,
    /// Whether it was put into another, which took its measures as they were then.
    pub(super) counted: bool,
    /// How many values it would unfold to, itself included.
    pub(super) values: u32,
    /// How many bytes of text and data it would unfold to.
    pub(super) bytes: u64,
    /// Numbers of nodes.
    pub(super) items: Vec<u32>,
}

/// A pickle that was read, within the limits.
#[derive(Debug)]
pub(super) struct Tree {
    /// The pickle itself.
    pub(super) source: Bytes,
    pub(super) nodes: Vec<Node>,
    pub(super) holders: Vec<Holder>,
    /// The node that is the value.
    pub(super) root: u32,
    /// Data that came in buffers beside the pickle, by the holder of the canned object.
    pub(super) beside: BTreeMap<u32, Bytes>,
}

impl Tree {
    pub(super) fn node(&self, node: u32) -> Node {
        self.nodes[node as usize]
    }

    pub(super) fn holder(&self, holder: u32) -> &Holder {
        &self.holders[holder as usize]
    }

    pub(super) fn bytes(&self, span: Span) -> &[u8] {
        &self.source[span.at..span.at + span.len]
    }

    /// The same bytes, kept alive by the pickle.
    pub(super) fn share(&self, span: Span) -> Bytes {
        self.source.slice(span.at..span.at + span.len)
    }

    pub(super) fn text(&self, node: u32) -> Option<&str> {
        match self.node(node) {
            Node::Text(span) => std::str::from_utf8(self.bytes(span)).ok(),
            _ => None,
        }
    }

    /// The items of a holder of this kind.
    pub(super) fn items(&self, node: u32, kind: Kind) -> Option<&[u32]> {
        match self.node(node) {
            Node::Holder(holder) if self.holder(holder).kind == kind => Some(&self.holder(holder).items),
            _ => None,
        }
    }

    /// What a dict has under a key of text.
    pub(super) fn field(&self, dict: u32, key: &str) -> Option<u32> {
        let items = self.items(dict, Kind::Dict)?;
        items.chunks_exact(2).rev().find(|pair| self.text(pair[0]) == Some(key)).map(|pair| pair[1])
    }
}
