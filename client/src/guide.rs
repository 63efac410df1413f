//! How to use the client, a page for each of its concepts.
//!
//! | page | about |
//! |---|---|
//! | [`connecting`] | finding a controller, engines that come and go, what happens when either is away |
//! | [`views`] | where tasks go: wherever there is room, or to engines by name; the options of a task |
//! | [`functions`] | definitions that engine and client share, arguments and results, buffers and arrays |
//! | [`results`] | waiting, output, stopping; what can go wrong, and what is kept when some of a map did |
//! | [`maps`] | many items: in chunks, as they come, with progress, without end |
//! | [`python`] | engines of ipyparallel: functions, code, values |
//! | [`blocking`] | the same without async |
//!
//! Whole programs are in the `examples` folder of the repository. Engines of one's own are in the guide of `remuda-engine`.

#[doc = include_str!("guide/connecting.md")]
pub mod connecting {}
#[doc = include_str!("guide/views.md")]
pub mod views {}
#[doc = include_str!("guide/functions.md")]
pub mod functions {}
#[doc = include_str!("guide/results.md")]
pub mod results {}
#[doc = include_str!("guide/maps.md")]
pub mod maps {}
#[doc = include_str!("guide/python.md")]
pub mod python {}
#[doc = include_str!("guide/blocking.md")]
pub mod blocking {}
