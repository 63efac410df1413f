//! Arrays of numbers.

use std::marker::PhantomData;

use bytemuck::Pod;
use bytes::Bytes;
use serde::de::Error as _;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::buffer;
use super::{BESIDE, Beside, Buffer};

/// A number that an [`Array`] can be made of.
pub trait Element: Pod + Send + Sync + sealed::Sealed {
    /// Its name in `NumPy`, little end first: `<f8` for `f64`.
    const DTYPE: &'static str;
}

mod sealed {
    /// Nobody else's numbers have a `NumPy` name.
    pub trait Sealed {}
}

macro_rules! elements {
    ($($element:ty: $dtype:literal),*) => {$(
        impl sealed::Sealed for $element {}
        impl Element for $element {
            const DTYPE: &'static str = $dtype;
        }
    )*};
}
elements!(u8: "|u1", i8: "|i1", u16: "<u2", i16: "<i2", u32: "<u4", i32: "<i4", u64: "<u8", i64: "<i8", f32: "<f4", f64: "<f8");

#[cfg(target_endian = "big")]
compile_error!("arrays travel little end first, and are not turned round");

/// Why an array cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArrayError {
    /// The shape is that of another number of elements.
    #[error("an array of shape {shape:?} has {}, not {found} bytes", wanted.map_or_else(|| "too many".to_owned(), |bytes| bytes.to_string()))]
    Shape {
        /// The shape.
        shape: Vec<usize>,
        /// How many bytes it takes; `None`: more than can be.
        wanted: Option<usize>,
        /// How many there are.
        found: usize,
    },
    /// Its elements are others.
    #[error("the array has elements `{found}`, not `{wanted}`")]
    Dtype {
        /// What was asked for.
        wanted: &'static str,
        /// What it has.
        found: String,
    },
}

/// Numbers in a block, row by row (C order), that are not copied on the way: a `NumPy` array for a Python peer. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Array<T> {
    shape: Vec<usize>,
    /// As many as the shape says, aligned as `T` is.
    data: Bytes,
    elements: PhantomData<T>,
}

/// What makes a `Vec` of numbers bytes.
struct Owner<T>(Vec<T>);

impl<T: Element> AsRef<[u8]> for Owner<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl<T: Element> From<Vec<T>> for Array<T> {
    /// An array of one dimension. Nothing is copied.
    fn from(numbers: Vec<T>) -> Self {
        let shape = vec![numbers.len()];
        Self { shape, data: Bytes::from_owner(Owner(numbers)), elements: PhantomData }
    }
}

impl<T: Element> Array<T> {
    /// An array of this shape. Nothing is copied.
    ///
    /// # Errors
    /// When the shape is that of another number of elements.
    pub fn new(shape: impl Into<Vec<usize>>, numbers: Vec<T>) -> Result<Self, ArrayError> {
        Self::from_bytes(shape, Bytes::from_owner(Owner(numbers)))
    }

    /// An array of this shape from its bytes, little end first. They are copied only if they are not aligned as `T` is.
    ///
    /// # Errors
    /// When the shape is that of another number of bytes.
    pub fn from_bytes(shape: impl Into<Vec<usize>>, data: Bytes) -> Result<Self, ArrayError> {
        let shape = shape.into();
        let wanted = shape.iter().try_fold(size_of::<T>(), |bytes, length| bytes.checked_mul(*length));
        if wanted != Some(data.len()) {
            return Err(ArrayError::Shape { shape, wanted, found: data.len() });
        }
        let data = match bytemuck::try_cast_slice::<u8, T>(&data) {
            Ok(_) => data,
            Err(_) => Bytes::from_owner(Owner(bytemuck::pod_collect_to_vec::<u8, T>(&data))),
        };
        Ok(Self { shape, data, elements: PhantomData })
    }

    /// How long it is in each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its elements, row by row.
    pub fn as_slice(&self) -> &[T] {
        bytemuck::cast_slice(&self.data)
    }

    /// Its bytes, little end first. Nothing is copied.
    pub fn bytes(&self) -> &Bytes {
        &self.data
    }
}

impl<T: Element> std::ops::Deref for Array<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.as_slice()
    }
}

impl<T: Element + std::fmt::Debug> std::fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        /// As many as one wants to see.
        const SHOWN: usize = 8;
        let shown = &self[..self.len().min(SHOWN)];
        let mut shows = f.debug_struct("Array");
        shows.field("dtype", &T::DTYPE).field("shape", &self.shape).field("begins", &shown);
        if shown.len() == self.len() { shows.finish() } else { shows.finish_non_exhaustive() }
    }
}

/// The data of an array, where that is to be serialised.
struct Data<'a>(&'a Bytes);

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        buffer::serialize(self.0, None, serializer)
    }
}

impl<T: Element> Serialize for Array<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if BESIDE.with_borrow(|beside| matches!(beside, Beside::Marking { .. })) {
            return buffer::serialize(&self.data, Some((T::DTYPE, &self.shape)), serializer);
        }
        let mut array = serializer.serialize_struct("Array", 3)?;
        array.serialize_field("dtype", T::DTYPE)?;
        array.serialize_field("shape", &self.shape)?;
        array.serialize_field("data", &Data(&self.data))?;
        array.end()
    }
}

impl<'de, T: Element> Deserialize<'de> for Array<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename = "Array")]
        struct Parts {
            dtype: String,
            shape: Vec<usize>,
            data: Buffer,
        }
        let Parts { dtype, shape, data } = Parts::deserialize(deserializer)?;
        // NumPy says `|` of bytes, and `=` or `<` of the rest, as one pleases.
        let plain = |dtype: &str| dtype.trim_start_matches(['<', '|', '=']).to_owned();
        if plain(&dtype) != plain(T::DTYPE) {
            return Err(D::Error::custom(ArrayError::Dtype { wanted: T::DTYPE, found: dtype }));
        }
        Self::from_bytes(shape, data.0).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{read, write};
    use super::*;

    #[test]
    fn an_array_comes_back_without_a_copy() {
        let numbers: Vec<f64> = (0..1000).map(f64::from).collect();
        let at = numbers.as_ptr();
        let array = Array::new([10, 100], numbers).unwrap();
        let (bytes, buffers) = write(&array, 0).unwrap();
        let back: Array<f64> = read(&bytes, &buffers).unwrap();
        assert_eq!((back.shape(), &back[99], back.as_ptr()), (&[10, 100][..], &99.0, at));
        assert_eq!(back, array);
        let small = Array::from(vec![1_u16, 2]);
        let (bytes, buffers) = write(&small, 0).unwrap();
        assert_eq!((read::<Array<u16>>(&bytes, &buffers).unwrap(), buffers.len()), (small, 0));
    }

    #[test]
    fn what_is_not_aligned_is_copied() {
        let bytes = Bytes::from([&[0_u8][..], bytemuck::cast_slice(&[1.5_f64, 2.5])].concat());
        for from in [0, 1] {
            let part = bytes.slice(from..).slice(..8);
            assert_eq!(Array::<f64>::from_bytes([1], part.clone()).unwrap().bytes(), &part);
        }
    }

    #[test]
    fn another_shape_or_type_is_told() {
        let error = Array::new([3, 2], vec![0_u32; 5]).unwrap_err();
        assert_eq!(error.to_string(), "an array of shape [3, 2] has 24, not 20 bytes");
        let huge = Array::<u64>::from_bytes([usize::MAX, 2], Bytes::new()).unwrap_err();
        assert_eq!(huge.to_string(), format!("an array of shape [{}, 2] has too many, not 0 bytes", usize::MAX));
        let (bytes, buffers) = write(&Array::from(vec![1_i32]), 0).unwrap();
        let error = read::<Array<f32>>(&bytes, &buffers).unwrap_err();
        assert!(error.to_string().contains("the array has elements `<i4`, not `<f4`"), "{error}");
    }

    #[test]
    fn an_array_of_nothing_is_one() {
        let (bytes, buffers) = write(&Array::<f64>::new([0, 3], Vec::new()).unwrap(), 0).unwrap();
        assert_eq!(read::<Array<f64>>(&bytes, &buffers).unwrap().shape(), [0, 3]);
    }
}
