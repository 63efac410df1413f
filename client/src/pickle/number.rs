//! The numbers of a `NumPy` array, one by one.

use serde::de::Visitor;

/// A number as `NumPy` has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Bool(bool),
    Int(i64),
    Unsigned(u64),
    Float(f64),
}

impl Number {
    pub(super) fn visit<'de, E: serde::de::Error, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        match self {
            Self::Bool(flag) => visitor.visit_bool(flag),
            Self::Int(number) => visitor.visit_i64(number),
            Self::Unsigned(number) => visitor.visit_u64(number),
            Self::Float(number) => visitor.visit_f64(number),
        }
    }
}

/// Reads a number from as many bytes as it takes.
pub(super) type Read = fn(&[u8]) -> Number;

/// How one number of an array is read, and how many bytes it takes; `None` for a `dtype` that is not read.
pub(super) fn reader(dtype: &str) -> Option<(Read, usize)> {
    macro_rules! read {
        ($type:ty, $variant:ident) => {
            (
                |bytes| {
                    let (number, _) = bytes.split_at(size_of::<$type>());
                    Number::$variant(<$type>::from_le_bytes(number.try_into().unwrap_or_default()).into())
                },
                size_of::<$type>(),
            )
        };
    }
    Some(match dtype.trim_start_matches(['<', '|', '=']) {
        "b1" => (|bytes| Number::Bool(bytes[0] != 0), 1),
        "i1" => read!(i8, Int),
        "i2" => read!(i16, Int),
        "i4" => read!(i32, Int),
        "i8" => read!(i64, Int),
        "u1" => read!(u8, Unsigned),
        "u2" => read!(u16, Unsigned),
        "u4" => read!(u32, Unsigned),
        "u8" => read!(u64, Unsigned),
        "f4" => read!(f32, Float),
        "f8" => read!(f64, Float),
        _ => return None,
    })
}
