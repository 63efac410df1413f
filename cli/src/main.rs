//! The program: `remuda controller`, `engine`, `cluster`, `map`, `status`, `task`, `process`, `debug`, `profile`, `doctor`; also
//! `ipcontroller`, `ipengine`, `ipcluster`.

mod args;
mod commands;
mod config;
mod connect;
mod engine_command;
mod failure;
mod invocation;
mod logging;
mod output;
mod python;
mod service_manager;

use std::process::ExitCode;

use invocation::Read;

/// Most of what is allocated here is freed by another thread: a request by the hub, when its record goes. The system's
/// allocator makes the two wait for each other, and keeps for good what a long queue once took.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = match invocation::read(std::env::args_os()) {
        Ok(Read::Run(invocation)) => commands::run(*invocation),
        Ok(Read::StockEngine(args)) => commands::stock_engine(&args),
        Ok(Read::Done(code)) => Ok(code),
        Err(failure) => Err(failure),
    };
    outcome.unwrap_or_else(|failure| failure.report())
}
