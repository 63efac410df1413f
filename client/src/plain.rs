//! Results as JSON, as far as JSON can say what they are.

use std::fmt::Write;

use bytes::Bytes;
use remuda_proto::value::{self, BufferVisitor};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_pickle::{HashableValue, Value as Python};

use crate::error::DecodeError;
use crate::pickle;

/// A value as ipyparallel serialises it, a pickle and the buffers behind it: None, booleans, numbers, text, `bytes`, `NumPy`
/// arrays, and lists, tuples, sets and dicts of them.
///
/// Bytes become text if they are UTF-8, else `{"hex": ".."}`; arrays, tuples and sets lists; keys that are no text their text;
/// numbers that JSON does not have (infinities, what is no number, very long ones) text.
///
/// # Errors
/// What [`pickle::read`] refuses: other objects, above all.
pub fn from_pickle(buffers: &[Bytes]) -> Result<Value, DecodeError> {
    Ok(json(pickle::read_value(buffers)?))
}

/// A value in MessagePack, as native engines give it; in the same way. What stands beside it is looked up in `buffers`, which
/// are those of the message.
///
/// # Errors
/// For what is no MessagePack, or has something of its own in it that is not one of the above.
pub fn from_messagepack(bytes: &[u8], buffers: &[Bytes]) -> Result<Value, DecodeError> {
    Ok(value::read::<Plain>(bytes, buffers)?.0)
}

/// A value as JSON.
struct Plain(Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlainVisitor).map(Self)
    }
}

struct PlainVisitor;

impl<'de> Visitor<'de> for PlainVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a plain value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(flag.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(of_bytes(bytes))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Plain(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((Plain(key), Plain(item))) = items.next_entry()? {
            map.insert(key_text(key), item);
        }
        Ok(Value::Object(map))
    }

    /// An extension value: a buffer.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, extension: D) -> Result<Value, D::Error> {
        Ok(of_bytes(&BufferVisitor.visit_newtype_struct(extension)?))
    }
}

fn json(value: Python) -> Value {
    match value {
        Python::None => Value::Null,
        Python::Bool(flag) => flag.into(),
        Python::I64(number) => number.into(),
        Python::Int(number) => long(&number),
        Python::F64(number) => float(number),
        Python::Bytes(bytes) => of_bytes(&bytes),
        Python::String(text) => text.into(),
        Python::List(items) | Python::Tuple(items) => items.into_iter().map(json).collect(),
        Python::Set(items) | Python::FrozenSet(items) => items.into_iter().map(hashable).collect(),
        Python::Dict(items) => {
            let items = items.into_iter().map(|(key, item)| (key_text(hashable(key)), json(item)));
            Value::Object(items.collect::<Map<_, _>>())
        }
    }
}

fn hashable(value: HashableValue) -> Value {
    match value {
        HashableValue::None => Value::Null,
        HashableValue::Bool(flag) => flag.into(),
        HashableValue::I64(number) => number.into(),
        HashableValue::Int(number) => long(&number),
        HashableValue::F64(number) => float(number),
        HashableValue::Bytes(bytes) => of_bytes(&bytes),
        HashableValue::String(text) => text.into(),
        HashableValue::Tuple(items) => items.into_iter().map(hashable).collect(),
        HashableValue::FrozenSet(items) => items.into_iter().map(hashable).collect(),
    }
}

fn key_text(key: Value) -> String {
    match key {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

fn long(number: &impl ToString) -> Value {
    let text = number.to_string();
    text.parse::<u64>().map_or(Value::String(text), Value::from)
}

fn float(number: f64) -> Value {
    Number::from_f64(number).map_or_else(|| number.to_string().into(), Value::Number)
}

fn of_bytes(bytes: &[u8]) -> Value {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.into();
    }
    let mut hex = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(hex, "{byte:02x}").expect("a text takes all that is written");
    }
    serde_json::json!({"hex": hex})
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn from_pickle(pickle: &'static [u8]) -> Result<Value, DecodeError> {
        super::from_pickle(&[Bytes::from_static(pickle)])
    }

    #[test]
    fn plain_values_are_what_they_were() {
        // pickle.dumps({'a': [1, None, 2.5], 'b': True}), protocol 4.
        let dict = b"\x80\x04\x95\x1b\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01NG@\x04\x00\x00\x00\x00\x00\x00e\x8c\x01b\x94\x88u.";
        assert_eq!(from_pickle(dict).unwrap(), json!({"a": [1, null, 2.5], "b": true}));
        // pickle.dumps((1, (2, 'x'))), protocol 4.
        assert_eq!(from_pickle(b"\x80\x04K\x01K\x02\x8c\x01x\x86\x86.").unwrap(), json!([1, [2, "x"]]));
        // {"k": [true, -1, "é"], 7: bin}
        let messagepack = b"\x82\xa1k\x93\xc3\xff\xa2\xc3\xa9\x07\xc4\x01\xff";
        assert_eq!(from_messagepack(messagepack, &[]).unwrap(), json!({"k": [true, -1, "é"], "7": {"hex": "ff"}}));
    }

    #[test]
    fn what_json_does_not_have_becomes_text() {
        assert_eq!(from_pickle(b"\x80\x04G\x7f\xf0\x00\x00\x00\x00\x00\x00.").unwrap(), json!("inf"));
        // 2 ** 70
        let long = b"\x80\x04\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x40.";
        assert_eq!(from_pickle(long).unwrap(), json!("1180591620717411303424"));
        assert_eq!(from_messagepack(b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", &[]).unwrap(), json!(u64::MAX));
    }

    #[test]
    fn a_buffer_beside_a_value_is_looked_up() {
        let array = remuda_proto::Array::from(vec![7_u8; 5000]);
        let (bytes, buffers) = value::write(&array, 0).unwrap();
        let json = from_messagepack(&bytes, &buffers).unwrap();
        assert_eq!((&json["dtype"], json["data"].as_str().unwrap().len()), (&json!("|u1"), 5000));
        assert!(from_messagepack(&bytes, &[]).is_err());
    }

    #[test]
    fn an_object_is_an_error_that_names_its_class() {
        let object = b"\x80\x04\x8c\x08builtins\x8c\x06object\x93)R.";
        let error = from_pickle(object).unwrap_err();
        let chain = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(chain.contains("builtins.object"), "{error}: {chain}");
        assert!(from_messagepack(b"\xc1", &[]).is_err() && from_messagepack(b"", &[]).is_err());
    }
}
