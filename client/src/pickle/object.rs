//! The objects of ipyparallel's and `NumPy`'s that stand for data, and what that is.

use bytes::Bytes;

use super::machine;
use super::number::{self, Number};
use super::tree::{Class, Kind, Node, Span, Tree};
use super::unfit::Unfit;

/// What a value is to who reads it.
pub(super) enum Meaning<'t> {
    None,
    Bool(bool),
    Int(i64),
    Long(&'t [u8]),
    Float(f64),
    Text(&'t str),
    Bytes(Bytes),
    /// The items of a list, a tuple or a set, which are such.
    Items(&'t [u32], Kind),
    /// Keys and values in turn.
    Dict(&'t [u32]),
    Number(Number),
    Array(NumPyArray),
}

/// An array row by row.
pub(super) struct NumPyArray {
    pub(super) dtype: String,
    pub(super) shape: Vec<usize>,
    pub(super) data: Bytes,
}

/// Why an object is not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Strange {
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error("the {what} is not one that NumPy or ipyparallel makes")]
    Form { what: &'static str },
    #[error("the array holds Python objects (`dtype=object`): give it another `dtype` with `astype`, or return a list")]
    Objects,
    #[error(
        "the array is a structured one, with a name for each of several numbers: return its fields as arrays of their own"
    )]
    Structured,
    #[error("the array is in Fortran order, column by column: return `numpy.ascontiguousarray` of it")]
    Fortran,
    #[error("numbers of the NumPy type `{dtype}` are not read")]
    Dtype { dtype: String },
}

impl Tree {
    pub(super) fn meaning(&self, node: u32) -> Result<Meaning<'_>, Strange> {
        Ok(match self.node(node) {
            Node::None => Meaning::None,
            Node::Bool(flag) => Meaning::Bool(flag),
            Node::Int(number) => Meaning::Int(number),
            Node::Long(span) => Meaning::Long(self.bytes(span)),
            Node::Float(number) => Meaning::Float(number),
            Node::Bytes(span) => Meaning::Bytes(self.share(span)),
            Node::Text(_) => Meaning::Text(self.text(node).unwrap_or_default()),
            Node::Class(class) => return Err(object(class)),
            Node::Holder(holder) => match self.holder(holder).kind {
                Kind::Dict => Meaning::Dict(&self.holder(holder).items),
                Kind::Object(class) => return self.object(node, holder, class),
                kind => Meaning::Items(&self.holder(holder).items, kind),
            },
        })
    }

    fn object(&self, node: u32, holder: u32, class: Class) -> Result<Meaning<'_>, Strange> {
        let parts = &self.holder(holder).items;
        let form = |what| Strange::Form { what };
        let arguments = self.items(parts[0], Kind::Tuple).unwrap_or_default();
        match class {
            Class::CannedArray | Class::CannedBytes => {
                let state = parts.get(1).copied().ok_or_else(|| form("canned object"))?;
                let data = self.beside.get(&holder).cloned().or_else(|| self.canned_data(state));
                let data = data.ok_or_else(|| form("canned object"))?;
                if class == Class::CannedBytes {
                    return Ok(Meaning::Bytes(data));
                }
                self.canned_array(state, data).map(Meaning::Array)
            }
            Class::Reconstruct | Class::FromBuffer => self.array(node).map(Meaning::Array),
            Class::Scalar => {
                let [dtype, data] = *arguments else { return Err(form("NumPy scalar")) };
                let dtype = self.dtype(dtype)?;
                let data = self.span(data).ok_or_else(|| form("NumPy scalar"))?;
                let Some((read, size)) = number::reader(&dtype) else { return Err(Strange::Dtype { dtype }) };
                let data = self.bytes(data);
                if data.len() == size { Ok(Meaning::Number(read(data))) } else { Err(form("NumPy scalar")) }
            }
            Class::ByteArray => match *arguments {
                [] => Ok(Meaning::Bytes(Bytes::new())),
                [data] => Ok(Meaning::Bytes(self.share(self.span(data).ok_or_else(|| form("bytearray"))?))),
                _ => Err(form("bytearray")),
            },
            Class::Set | Class::FrozenSet => {
                let kind = if class == Class::Set { Kind::Set } else { Kind::FrozenSet };
                match *arguments {
                    [] => Ok(Meaning::Items(&[], kind)),
                    [items] => Ok(Meaning::Items(self.items(items, Kind::List).ok_or_else(|| form("set"))?, kind)),
                    _ => Err(form("set")),
                }
            }
            Class::Dtype | Class::NdArray => Err(object(class)),
        }
    }

    fn span(&self, node: u32) -> Option<Span> {
        match self.node(node) {
            Node::Bytes(span) => Some(span),
            _ => None,
        }
    }

    /// The data in the state of a canned object.
    fn canned_data(&self, state: u32) -> Option<Bytes> {
        let buffers = self.items(self.field(state, "buffers")?, Kind::List)?;
        match *buffers {
            [data] => Some(self.share(self.span(data)?)),
            _ => None,
        }
    }

    fn canned_array(&self, state: u32, data: Bytes) -> Result<NumPyArray, Strange> {
        let form = || Strange::Form { what: "canned array" };
        let field = |key| self.field(state, key).ok_or_else(form);
        let dtype = field("dtype")?;
        if self.items(dtype, Kind::List).is_some() {
            return Err(Strange::Structured);
        }
        let dtype = whole(self.text(dtype).ok_or_else(form)?)?;
        if let Node::Bool(true) = self.node(field("pickled")?) {
            // Arrays without numbers or dimensions are a pickle in a pickle; that has no other in it.
            let tree = machine::run(&data)?;
            return tree.array(tree.root);
        }
        Ok(NumPyArray { dtype, shape: self.shape(field("shape")?).ok_or_else(form)?, data })
    }

    /// An array as `NumPy` pickles it.
    fn array(&self, node: u32) -> Result<NumPyArray, Strange> {
        let form = || Strange::Form { what: "NumPy array" };
        let Node::Holder(holder) = self.node(node) else { return Err(form()) };
        let parts = &self.holder(holder).items;
        match self.holder(holder).kind {
            Kind::Object(Class::Reconstruct) => {
                let state = parts.get(1).and_then(|state| self.items(*state, Kind::Tuple)).ok_or_else(form)?;
                let [_version, shape, dtype, fortran, data] = *state else { return Err(form()) };
                let dtype = self.dtype(dtype)?;
                if let Node::Bool(true) = self.node(fortran) {
                    return Err(Strange::Fortran);
                }
                let data = self.share(self.span(data).ok_or_else(form)?);
                Ok(NumPyArray { dtype, shape: self.shape(shape).ok_or_else(form)?, data })
            }
            Kind::Object(Class::FromBuffer) => {
                let arguments = self.items(parts[0], Kind::Tuple).unwrap_or_default();
                let [data, dtype, shape, order, ..] = *arguments else { return Err(form()) };
                let dtype = self.dtype(dtype)?;
                if self.text(order) != Some("C") {
                    return Err(Strange::Fortran);
                }
                let Meaning::Bytes(data) = self.meaning(data)? else { return Err(form()) };
                Ok(NumPyArray { dtype, shape: self.shape(shape).ok_or_else(form)?, data })
            }
            _ => Err(form()),
        }
    }

    fn shape(&self, node: u32) -> Option<Vec<usize>> {
        let length = |item: &u32| match self.node(*item) {
            Node::Int(length) => usize::try_from(length).ok(),
            _ => None,
        };
        self.items(node, Kind::Tuple)?.iter().map(length).collect()
    }

    /// The name of a `numpy.dtype`: `<f8`.
    fn dtype(&self, node: u32) -> Result<String, Strange> {
        let form = || Strange::Form { what: "NumPy type" };
        let Node::Holder(holder) = self.node(node) else { return Err(form()) };
        let (Kind::Object(Class::Dtype), [arguments, rest @ ..]) =
            (self.holder(holder).kind, self.holder(holder).items.as_slice())
        else {
            return Err(form());
        };
        let name = self.items(*arguments, Kind::Tuple).and_then(|arguments| self.text(*arguments.first()?));
        // The version, then which end of a number comes first.
        let state = rest.first().and_then(|state| self.items(*state, Kind::Tuple)).unwrap_or_default();
        let end = state.get(1).and_then(|end| self.text(*end)).unwrap_or_default();
        let name = name.ok_or_else(form)?;
        whole(&if name.starts_with(['<', '>', '|', '=']) { name.to_owned() } else { format!("{end}{name}") })
    }
}

/// The name of a type of numbers, if it is one.
fn whole(dtype: &str) -> Result<String, Strange> {
    match dtype.trim_start_matches(['<', '>', '|', '=']).chars().next() {
        Some('O') => Err(Strange::Objects),
        Some('V') => Err(Strange::Structured),
        _ => Ok(dtype.to_owned()),
    }
}

fn object(class: Class) -> Strange {
    Strange::Unfit(Unfit::Object { name: Some(class.name().to_owned()) })
}
