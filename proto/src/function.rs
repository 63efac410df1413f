//! Functions that native engines have by name: what both sides know of one.

use std::borrow::Cow;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A function that native engines can have: its name, and the types of its argument and its result.
///
/// [`functions!`](crate::functions) defines some that both sides share, so that a call with a wrong argument does not
/// compile. [`Named`] is one that is known by name only.
pub trait Function {
    /// What it takes: a tuple for several arguments, `()` for none.
    type Args: Serialize + DeserializeOwned + Send + 'static;
    /// What it gives.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// Its name in the cluster.
    fn name(&self) -> &str;

    /// How it is written, for messages: `mul(a: i64, b: i64) -> i64`. `None` if that is not known.
    fn signature(&self) -> Option<&str> {
        None
    }
}

/// What [`functions!`](crate::functions) makes of a definition: a type that stands for the function.
pub trait Definition {
    /// As [`Function::Args`].
    type Args: Serialize + DeserializeOwned + Send + 'static;
    /// As [`Function::Output`].
    type Output: Serialize + DeserializeOwned + Send + 'static;
    /// As [`Function::name`].
    const NAME: &'static str;
    /// As [`Function::signature`].
    const SIGNATURE: &'static str;
}

/// A defined function is named by a Rust function, which gives its type: unlike a constant it may have the name of a local
/// variable.
impl<F: Fn() -> D, D: Definition> Function for F {
    type Args = D::Args;
    type Output = D::Output;

    fn name(&self) -> &str {
        D::NAME
    }

    fn signature(&self) -> Option<&str> {
        Some(D::SIGNATURE)
    }
}

/// A function of which this side knows the name, and says itself what it takes and gives.
///
/// ```
/// # use remuda_proto::function::{Function, Named};
/// let mul = Named::<(i64, i64), i64>::new("mul");
/// assert_eq!(mul.name(), "mul");
/// ```
pub struct Named<A, R> {
    name: Cow<'static, str>,
    types: PhantomData<fn(A) -> R>,
}

impl<A, R> Named<A, R> {
    /// The function of that name.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), types: PhantomData }
    }
}

impl<A, R> Clone for Named<A, R> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), types: PhantomData }
    }
}

impl<A, R> std::fmt::Debug for Named<A, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Named").field(&self.name).finish()
    }
}

impl<A, R> Function for &Named<A, R>
where
    A: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
{
    type Args = A;
    type Output = R;

    fn name(&self) -> &str {
        &self.name
    }
}

impl<A, R> Function for Named<A, R>
where
    A: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
{
    type Args = A;
    type Output = R;

    fn name(&self) -> &str {
        &self.name
    }
}

/// Defines functions that engines have and clients call: each becomes a Rust function of its name, which is a
/// [`Function`](crate::Function) and is not called but passed on: `view.call(mul, (6, 7))`. Both sides use the same definition, in a crate of its own or in one that they share.
///
/// ```
/// remuda_proto::functions! {
///     /// The product of two numbers.
///     pub fn mul(a: i64, b: i64) -> i64;
///     pub fn forget(name: String);
/// }
///
/// use remuda_proto::Function;
/// assert_eq!((mul.name(), mul.signature()), ("mul", Some("mul(a: i64, b: i64) -> i64")));
/// ```
///
/// What a function takes is one argument, a tuple of several, or `()`; what it gives is `()` where nothing is said. All of
/// them by serde, and owned. Names are those of the cluster: `#![prefix = "images."]` at the top goes before each of them.
#[macro_export]
macro_rules! functions {
    (#![prefix = $prefix:literal] $($rest:tt)*) => {
        $crate::functions! { @each $prefix $($rest)* }
    };
    (@each $prefix:literal $(
        $(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $output:ty)?;
    )*) => {$(
        #[doc = concat!("The type of [`", stringify!($name), "`](fn@", stringify!($name), ").")]
        #[allow(non_camel_case_types, reason = "it stands for a function, and is named as one")]
        #[derive(Clone, Copy, Debug, Default)]
        $vis struct $name {}

        impl $crate::function::Definition for $name {
            type Args = $crate::functions!(@args $($type),*);
            type Output = $crate::functions!(@output $($output)?);
            const NAME: &'static str = concat!($prefix, stringify!($name));
            const SIGNATURE: &'static str = concat!(
                $prefix, stringify!($name), "(", $crate::functions!(@list $($arg: $type),*), ")" $(, " -> ", stringify!($output))?
            );
        }

        $(#[$meta])*
        #[doc = ""]
        #[doc = concat!("`", $prefix, stringify!($name), "(", $crate::functions!(@list $($arg: $type),*), ")" $(, " -> ", stringify!($output))?, "`")]
        $vis fn $name() -> $name {
            $name {}
        }
    )*};
    (@list) => { "" };
    (@list $arg:ident: $type:ty $(, $args:ident: $types:ty)*) => {
        concat!(stringify!($arg), ": ", stringify!($type) $(, ", ", stringify!($args), ": ", stringify!($types))*)
    };
    (@args) => { () };
    (@args $type:ty) => { $type };
    (@args $($type:ty),+) => { ($($type),+) };
    (@output) => { () };
    (@output $output:ty) => { $output };
    ($($rest:tt)*) => {
        $crate::functions! { @each "" $($rest)* }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    functions! {
        #![prefix = "test."]
        /// Three of them.
        pub(crate) fn three(a: i64, b: Vec<String>, c: (f64, bool),) -> Option<String>;
        fn one(a: String);
        fn none() -> u8;
    }

    #[test]
    fn a_definition_says_name_types_and_signature() {
        fn types<F: Function<Args = A, Output = R>, A, R>(_: F) {}
        types::<_, (i64, Vec<String>, (f64, bool)), Option<String>>(three);
        types::<_, String, ()>(one);
        types::<_, (), u8>(none);
        assert_eq!((three.name(), &three.name()), ("test.three", &"test.three"));
        assert_eq!(three.signature(), Some("test.three(a: i64, b: Vec<String>, c: (f64, bool)) -> Option<String>"));
        assert_eq!((one.signature(), none.signature()), (Some("test.one(a: String)"), Some("test.none() -> u8")));
        assert_eq!(Named::<(), ()>::new("f").signature(), None);
        let none = (none(), 5).1;
        assert_eq!(none, 5, "a local variable may have its name");
    }
}
