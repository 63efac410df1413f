//! How to write an engine of one's own, a page for each concept.
//!
//! | page | about |
//! |---|---|
//! | [`engine`] | a program that is an engine: building it, running it, ending it |
//! | [`functions`] | what it runs: definitions shared with clients, errors, panics |
//! | [`state`] | what functions share, made once |
//! | [`asynchronous`] | functions that wait more than they compute |
//! | [`output`] | what a function prints, for the client to read as it comes |
//! | [`stopping`] | tasks that are told to stop, and engines |
//! | [`slots`] | how much runs at once, resources, labels |
//!
//! A whole engine is in the `examples` folder of the repository. How clients call it is in the guide of `remuda-client`.

#[doc = include_str!("guide/asynchronous.md")]
pub mod asynchronous {}
#[doc = include_str!("guide/engine.md")]
pub mod engine {}
#[doc = include_str!("guide/functions.md")]
pub mod functions {}
#[doc = include_str!("guide/output.md")]
pub mod output {}
#[doc = include_str!("guide/slots.md")]
pub mod slots {}
#[doc = include_str!("guide/state.md")]
pub mod state {}
#[doc = include_str!("guide/stopping.md")]
pub mod stopping {}
