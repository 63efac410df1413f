//! A file per command. A command gets what was typed, resolves it, and does it.

mod check;
mod cluster;
mod controller;
mod debug;
mod doctor;
mod embedded;
mod engine;
mod map;
mod nanny;
mod process;
mod profile;
mod run;
mod service;
mod shell;
mod spooled;
mod status;
mod task;
mod venue;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use remuda_client::{Client, ConnectError, ConnectOptions};

use crate::args::{Command, PlaceArgs, ReachArgs};
use crate::connect::of_client;
use crate::failure::{Failure, Outcome};
use crate::invocation::Invocation;

pub(crate) use engine::stock as stock_engine;

pub(crate) fn run(invocation: Invocation) -> Outcome {
    let Invocation { command, notes, problems, is_stock } = invocation;
    if !problems.is_empty() || command.configured().is_some_and(|(_, config)| config.check_config) {
        return check::run(&command, &notes, problems);
    }
    match command {
        Command::Map(args) => map::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Task(command) => task::run(&command),
        Command::Process(command) => process::run(&command),
        Command::Service(command) => service::run(&command),
        Command::Debug(command) => debug::run(&command),
        Command::Cluster(command) => cluster::run(&command, &notes, is_stock),
        Command::Controller(args) => controller::run(&args, &notes),
        Command::Engine(args) => engine::run(&args, &notes),
        Command::Nanny(args) => nanny::run(&args),
        Command::Profile(command) => profile::run(&command),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(&args),
    }
}

/// A list of which nobody reads the end (`remuda task list | head`) is no error.
fn unless_nobody_reads(done: Outcome) -> Outcome {
    let is_closed_pipe = |failure: &Failure| {
        let error = failure.cause().downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    match done {
        Err(failure) if is_closed_pipe(&failure) => Ok(ExitCode::SUCCESS),
        done => done,
    }
}

/// Says something beside the data.
#[expect(clippy::print_stderr, reason = "talk goes to stderr, data to stdout")]
fn say(text: &str) {
    eprintln!("{text}");
}

/// A client of the cluster that runs in this place; `timeout` is in seconds.
async fn connect(place: &PlaceArgs, timeout: f64) -> Result<Client, Failure> {
    let options = ConnectOptions::file(place.profile().client_file()).timeout(Duration::from_secs_f64(timeout));
    Client::connect(options).await.map_err(|error| start_one(error, place))
}

/// A client of the controller that is named, or else of the cluster that runs in this place; `timeout` is in seconds.
async fn reach(reach: &ReachArgs, place: &PlaceArgs, timeout: f64) -> Result<Client, Failure> {
    let (options, is_said) = of_client(reach, place);
    // What was named is no cluster that could be started here: the error says what to do.
    let failure = |error| if is_said { Failure::new(error) } else { start_one(error, place) };
    Client::connect(options.timeout(Duration::from_secs_f64(timeout))).await.map_err(failure)
}

fn start_one(error: ConnectError, place: &PlaceArgs) -> Failure {
    Failure::new(error).hint(format!("start a cluster with `remuda cluster start{}`", place.options()))
}
