//! The program: `remuda controller`, `engine`, `cluster`, `map`, `status`; also `ipcontroller`, `ipengine`, `ipcluster`.

mod args;
mod commands;
mod config;
mod failure;
mod invocation;
mod logging;
mod output;
mod python;

use std::process::ExitCode;

use invocation::Read;

fn main() -> ExitCode {
    let outcome = match invocation::read(std::env::args_os()) {
        Ok(Read::Run(invocation)) => commands::run(*invocation),
        Ok(Read::StockEngine(args)) => commands::stock_engine(&args),
        Ok(Read::Done(code)) => Ok(code),
        Err(failure) => Err(failure),
    };
    outcome.unwrap_or_else(|failure| failure.report())
}
