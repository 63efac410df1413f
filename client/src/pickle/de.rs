//! Values of a [`Tree`], for serde.

use serde::de::value::{MapDeserializer, StrDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_pickle::Error;

use super::object::{Meaning, NumPyArray};
use super::rows::Rows;
use super::tree::Tree;

/// One value.
#[derive(Clone, Copy)]
pub(super) struct Reader<'t> {
    pub(super) tree: &'t Tree,
    pub(super) node: u32,
}

impl<'t> Reader<'t> {
    fn meaning(self) -> Result<Meaning<'t>, Error> {
        self.tree.meaning(self.node).map_err(Error::custom)
    }

    fn at(self, node: u32) -> Self {
        Self { node, ..self }
    }

    fn items(self, items: &'t [u32]) -> impl Iterator<Item = Self> {
        items.iter().map(move |item| self.at(*item))
    }

    fn pairs(self, items: &'t [u32]) -> impl Iterator<Item = (Self, Self)> {
        items.chunks_exact(2).map(move |pair| (self.at(pair[0]), self.at(pair[1])))
    }

    fn visit<'de, V: Visitor<'de>>(self, meaning: Meaning<'t>, visitor: V) -> Result<V::Value, Error> {
        match meaning {
            Meaning::None => visitor.visit_unit(),
            Meaning::Bool(flag) => visitor.visit_bool(flag),
            Meaning::Int(number) => visitor.visit_i64(number),
            Meaning::Long(bytes) => long(bytes, visitor),
            Meaning::Float(number) => visitor.visit_f64(number),
            Meaning::Text(text) => visitor.visit_str(text),
            // A `Buffer` finds that these are a part of the message, and shares them.
            Meaning::Bytes(bytes) => visitor.visit_bytes(&bytes),
            Meaning::Items(items, _) => visit_seq(self.items(items), visitor),
            Meaning::Dict(items) => {
                let mut pairs = MapDeserializer::new(self.pairs(items));
                let value = visitor.visit_map(&mut pairs)?;
                pairs.end()?;
                Ok(value)
            }
            Meaning::Number(number) => number.visit(visitor),
            Meaning::Array(array) => Rows::new(array)?.visit(visitor),
        }
    }
}

/// Items for a visitor that takes all of them.
pub(super) fn visit_seq<'de, I, V>(items: I, visitor: V) -> Result<V::Value, Error>
where
    I: Iterator,
    I::Item: IntoDeserializer<'de, Error>,
    V: Visitor<'de>,
{
    let mut items = de::value::SeqDeserializer::new(items);
    let value = visitor.visit_seq(&mut items)?;
    items.end()?;
    Ok(value)
}

/// A number in two's complement that may have more than 64 bits.
fn long<'de, V: Visitor<'de>>(bytes: &[u8], visitor: V) -> Result<V::Value, Error> {
    let negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
    let mut wide = [if negative { 0xff } else { 0 }; 16];
    let Some(low) = wide.get_mut(..bytes.len()) else {
        return Err(Error::custom(format!("a number of {} bytes is too long", bytes.len())));
    };
    low.copy_from_slice(bytes);
    let number = i128::from_le_bytes(wide);
    match u64::try_from(number) {
        Ok(number) => visitor.visit_u64(number),
        Err(_) => visitor.visit_i128(number),
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.visit(self.meaning()?, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.meaning()? {
            Meaning::None => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.meaning()? {
            Meaning::Bytes(bytes) => visit_seq(bytes.iter().copied(), visitor),
            meaning => self.visit(meaning, visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.meaning()? {
            // What an `Array` is made of.
            Meaning::Array(array) if fields.contains(&"data") => {
                let parts = ["dtype", "shape", "data"].map(|name| (name, Part { name, array: &array }));
                visitor.visit_map(MapDeserializer::new(parts.into_iter()))
            }
            Meaning::Bytes(_) if name == "Array" => Err(Error::custom("it is bytes, not an array")),
            meaning => self.visit(meaning, visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.meaning()? {
            Meaning::Text(variant) => visitor.visit_enum(variant.into_deserializer()),
            Meaning::Dict(&[variant, value]) => {
                visitor.visit_enum(Variant { variant: self.at(variant), value: self.at(value) })
            }
            _ => Err(Error::custom("an enum is the name of a variant, or a dict with that as its one key")),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct map
        identifier ignored_any
    }
}

impl IntoDeserializer<'_, Error> for Reader<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// A variant of an enum that has a value.
struct Variant<'t> {
    variant: Reader<'t>,
    value: Reader<'t>,
}

impl<'de> de::EnumAccess<'de> for Variant<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        Ok((seed.deserialize(self.variant)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        de::Deserialize::deserialize(self.value)
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self.value)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.value.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.value.deserialize_struct("", fields, visitor)
    }
}

/// A part of an array.
struct Part<'a> {
    name: &'static str,
    array: &'a NumPyArray,
}

impl<'de> Deserializer<'de> for Part<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.name {
            "dtype" => StrDeserializer::new(&self.array.dtype).deserialize_any(visitor),
            "shape" => visit_seq(self.array.shape.iter().map(|length| *length as u64), visitor),
            _ => visitor.visit_bytes(&self.array.data),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl IntoDeserializer<'_, Error> for Part<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
