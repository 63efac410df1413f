//! The program: `remuda controller`, `engine`, `cluster`, `map`, `status`.

mod args;
mod commands;
mod failure;
mod logging;
mod output;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are asked for and go to stdout; the rest is a wrong command line.
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match commands::run(args.command) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
