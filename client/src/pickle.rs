//! As much of Python's pickle format as a client needs: reading plain values, `bytes` and `NumPy` arrays, and calling a
//! function by its name.

mod beside;
#[cfg(feature = "io")]
mod call;
mod de;
mod machine;
mod number;
mod object;
mod opcode;
mod rows;
mod tree;
mod unfit;
mod value;
#[cfg(feature = "io")]
mod write;

#[cfg(all(test, feature = "io"))]
mod golden;
#[cfg(all(test, feature = "io"))]
mod tests;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_pickle::Value;

#[cfg(feature = "io")]
pub use call::PythonCall;
pub use unfit::Unfit;

/// A pickle that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PickleError {
    /// It holds more than is known here, or is not a whole pickle.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// What it holds is of another type than was asked for, or a value has no plain form.
    #[error(transparent)]
    Shape(#[from] serde_pickle::Error),
    /// The arguments of a function are not a sequence of them.
    #[error("arguments are given as a tuple or an array, one element for each")]
    NoSequence,
}

/// Reads a value as ipyparallel serialises it (`serialize/serialize.py: serialize_object`): a pickle, and the buffers behind it,
/// those of which that are left over are not looked at.
///
/// None, booleans, numbers, text, `bytes`, and lists, tuples, sets and dicts of them are read into what serde makes of them.
/// So are numbers of `NumPy`'s. An array becomes an [`Array`](remuda_proto::value::Array), or else lists in lists; `bytes` become a
/// [`Buffer`](remuda_proto::value::Buffer), or else a sequence of numbers. Neither an `Array` (if the message has it aligned)
/// nor a `Buffer` of [`ASIDE_BYTES`](remuda_proto::value::ASIDE_BYTES) or more is a copy: they are parts of the message, and keep it.
///
/// Nothing is ever run: a pickle with other classes than those is an error that names the class.
///
/// # Errors
/// Besides values of another type: other objects; arrays of Python objects, structured ones, and those in Fortran order; values
/// that hold themselves; what is nested more than 100 deep, or would grow beyond 16 million values, or by hundreds of
/// megabytes by repeating texts or data, which a few bytes can ask for.
pub fn read<T: DeserializeOwned>(buffers: &[Bytes]) -> Result<T, PickleError> {
    let tree = tree(buffers)?;
    let read = || T::deserialize(de::Reader { tree: &tree, node: tree.root });
    Ok(remuda_proto::value::give(buffers, read)?)
}

/// The same as a value of any shape. Arrays are lists in lists.
///
/// # Errors
/// As for [`read`].
pub fn read_value(buffers: &[Bytes]) -> Result<Value, PickleError> {
    let tree = tree(buffers)?;
    Ok(value::value(&tree, tree.root)?)
}

fn tree(buffers: &[Bytes]) -> Result<tree::Tree, Unfit> {
    let [pickle, beside @ ..] = buffers else { return Err(Unfit::NoBuffer { index: 0 }) };
    let mut tree = machine::run(pickle)?;
    beside::hand_out(&mut tree, beside)?;
    Ok(tree)
}

/// What a native task's buffers begin with where Python engines may get it: unpickling it makes a stock engine say that it
/// lacks a dependency (`controller/dependency.py: _require`, the same that its `@require` uses), upon which any task
/// scheduler sends the task to another engine.
pub const NOT_FOR_PYTHON: &[u8] =
    b"cipyparallel.controller.dependency\n_require\n(X\x14\x00\x00\x00remuda_native_enginetR.";
