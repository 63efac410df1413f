//! Values of a [`Tree`], of any shape.

use serde::Deserialize;
use serde::de::Error as _;
use serde_pickle::{DeOptions, Error, HashableValue, Value};

use super::de::Reader;
use super::object::Meaning;
use super::tree::{Kind, Tree};

pub(super) fn value(tree: &Tree, node: u32) -> Result<Value, Error> {
    Ok(match tree.meaning(node).map_err(Error::custom)? {
        Meaning::Long(bytes) => {
            // The crate has no other way to make one than from a pickle.
            let len = u32::try_from(bytes.len()).map_err(Error::custom)?.to_le_bytes();
            serde_pickle::value_from_slice(&[b"\x8b", &len[..], bytes, b"."].concat(), DeOptions::new())?
        }
        Meaning::Items(items, kind) => match kind {
            Kind::Set => Value::Set(items.iter().map(|item| hashable(tree, *item)).collect::<Result<_, _>>()?),
            Kind::FrozenSet => {
                Value::FrozenSet(items.iter().map(|item| hashable(tree, *item)).collect::<Result<_, _>>()?)
            }
            Kind::Tuple => Value::Tuple(items.iter().map(|item| value(tree, *item)).collect::<Result<_, _>>()?),
            _ => Value::List(items.iter().map(|item| value(tree, *item)).collect::<Result<_, _>>()?),
        },
        Meaning::Dict(items) => {
            let pairs = items.chunks_exact(2);
            Value::Dict(
                pairs
                    .map(|pair| Ok((hashable(tree, pair[0])?, value(tree, pair[1])?)))
                    .collect::<Result<_, Error>>()?,
            )
        }
        _ => Value::deserialize(Reader { tree, node })?,
    })
}

fn hashable(tree: &Tree, node: u32) -> Result<HashableValue, Error> {
    value(tree, node)?.into_hashable()
}
