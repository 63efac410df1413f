//! A file per command. A command gets what was typed, resolves it, and does it.

mod cluster;
mod controller;
mod debug;
mod engine;
mod map;
mod status;

use crate::args::Command;
use crate::failure::Outcome;
use crate::invocation::Invocation;

pub(crate) use engine::stock as stock_engine;

pub(crate) fn run(invocation: Invocation) -> Outcome {
    let Invocation { command, notes, is_stock } = invocation;
    match command {
        Command::Map(args) => map::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Debug(command) => debug::run(&command),
        Command::Cluster(command) => cluster::run(&command, &notes, is_stock),
        Command::Controller(args) => controller::run(&args, &notes),
        Command::Engine(args) => engine::run(&args, &notes),
    }
}
