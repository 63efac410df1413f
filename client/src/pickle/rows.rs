//! Arrays, for who reads lists.

use bytes::Bytes;
use serde::de::{Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_pickle::Error;

use super::de::visit_seq;
use super::number::{self, Number, Read};
use super::object::{NumPyArray, Strange};
use super::unfit::MAX_VALUES;

/// An array, or a part of one, as lists in lists.
pub(super) struct Rows {
    read: Read,
    size: usize,
    shape: Vec<usize>,
    /// How many of the dimensions were gone into.
    level: usize,
    data: Bytes,
}

impl Rows {
    pub(super) fn new(array: NumPyArray) -> Result<Self, Error> {
        let NumPyArray { dtype, shape, data } = array;
        let Some((read, size)) = number::reader(&dtype) else { return Err(Error::custom(Strange::Dtype { dtype })) };
        let mut lists = Some(1_usize);
        let mut bytes = Some(size);
        for length in &shape {
            lists = lists.and_then(|lists| lists.checked_mul((*length).max(1)));
            bytes = bytes.and_then(|bytes| bytes.checked_mul(*length));
        }
        // Without numbers it has lists all the same.
        let bearable = !data.is_empty() || lists.is_some_and(|lists| lists <= MAX_VALUES as usize);
        if bytes != Some(data.len()) || !bearable || shape.len() > MAX_DIMENSIONS {
            return Err(Error::custom(format!("an array of shape {shape:?} does not have {} bytes", data.len())));
        }
        Ok(Self { read, size, shape, level: 0, data })
    }

    pub(super) fn visit<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Some(&length) = self.shape.get(self.level) else { return (self.read)(&self.data).visit(visitor) };
        if self.level + 1 == self.shape.len() {
            let (read, size) = (self.read, self.size);
            return visit_seq(self.data.chunks_exact(size).map(|bytes| Element(read(bytes))), visitor);
        }
        let bytes = self.data.len().checked_div(length).unwrap_or_default();
        let row = |at: usize| Self {
            shape: self.shape.clone(),
            level: self.level + 1,
            data: self.data.slice(at * bytes..(at + 1) * bytes),
            ..self
        };
        visit_seq((0..length).map(row), visitor)
    }
}

/// As many as `NumPy` has.
const MAX_DIMENSIONS: usize = 64;

impl<'de> Deserializer<'de> for Rows {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.visit(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl IntoDeserializer<'_, Error> for Rows {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// A number of an array.
struct Element(Number);

impl<'de> Deserializer<'de> for Element {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.visit(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl IntoDeserializer<'_, Error> for Element {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
