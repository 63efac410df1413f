//! `remuda-bench`: how fast the controller is, beside a plain relay and beside the stock controller, all in one run.
//!
//! It promises that every figure is a ratio's worth: the controllers of a row run in turn, on the same machine, under
//! the same load, and every reply is accounted for. It never quotes a controller's figure as a user's. Start with
//! [`table`], which runs the rows, and [`relay`], the baseline; the `README.md` beside says what each figure means.
//!
//! The parts under load are processes of their own, so that CPU time is put down to the right one: the controller, the
//! null engines ([`engines`]) and the client ([`client`]). The last two and the relay are this program again, under
//! hidden subcommands. This crate is the one besides `remuda-net` that calls libzmq: a baseline and a load generator
//! that went through the code under test would measure little.

mod args;
mod broadcast;
mod child;
mod client;
mod controller;
mod decision;
mod durability;
mod engines;
mod idle;
mod library;
mod machine;
mod message;
mod mute;
mod parts;
mod process;
mod programs;
mod records;
mod relay;
mod replies;
mod report;
mod socket;
mod statistics;
mod storm;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Table(args) => table::run(&args),
        Command::Soak(args) => table::soak(&args),
        Command::Idle(args) => idle::run(&args),
        Command::Programs(args) => programs::run(&args),
        Command::Relay => parts::serve("relay", relay::run),
        Command::Records(args) => records::run(&args),
        Command::Engines(args) => storm::run(&args),
        Command::NullEngines => parts::serve("null-engines", engines::run),
        Command::Library(args) => library::run(&args),
        Command::LibraryEngine { file } => library::engine(&file),
        Command::LibraryClient(args) => library::client(&args),
        Command::Mute(args) => mute::run(&args),
        Command::MuteClient => parts::serve("mute-client", client::mute),
        Command::Client => client::run().map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        report::complain(&error);
        ExitCode::FAILURE
    })
}
