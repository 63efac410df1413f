//! The HTTP side of a controller: its process definitions, and running them.
//!
//! A thin gateway: a [`Server`] holds an ordinary client of the controller and asks it what it is asked itself. Nothing is
//! decided or kept here. Whoever asks shows a [`Token`]; who does not gets no other answer than that. The routes are in
//! `docs/process.md`.

mod address;
mod answer;
mod definition;
mod files;
mod run;
mod server;
mod token;
mod view;

pub use address::{Address, AddressError};
pub use server::{MAX_INPUT_BYTES, MAX_REQUESTS, Server, Settings, StartError};
pub use token::{Token, TokenError};
