//! A file per command. A command gets what was typed, resolves it, and does it.

mod cluster;
mod controller;
mod engine;
mod map;
mod status;

use crate::args::Command;
use crate::failure::Outcome;

pub(crate) fn run(command: Command) -> Outcome {
    match command {
        Command::Map(args) => map::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Cluster(command) => cluster::run(&command),
        Command::Controller(args) => controller::run(&args),
        Command::Engine(args) => engine::run(&args),
    }
}
