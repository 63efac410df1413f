//! `--check-config`, and what is said where a configuration is wrong: all of it at once.

use std::io::{self, Write};
use std::process::ExitCode;

use super::{controller, say};
use crate::args::Command;
use crate::args::cluster::ClusterCommand;
use crate::config;
use crate::failure::{Failure, Outcome};

/// Exit code where anything is wrong.
const WRONG: u8 = 2;

/// Adds what is wrong beyond single values, and says all of it; nothing is started.
pub(super) fn run(command: &Command, notes: &[String], mut problems: Vec<Failure>) -> Outcome {
    match command {
        Command::Controller(args) => problems.extend(controller::problems(args)),
        // It starts a controller of the same profile. What is wrong in its table was found with the rest of the file.
        Command::Cluster(ClusterCommand::Start(args)) => {
            let words: Vec<String> = args.controller_arg.iter().chain(&args.controller_options).cloned().collect();
            match config::controller_of(&args.place, &words) {
                Ok((controller, _)) => problems.extend(controller::problems(&controller)),
                Err(problem) => problems.push(problem),
            }
        }
        _ => {}
    }
    for note in notes {
        say(&format!("warning: {note}"));
    }
    if let Some(problems) = Failure::several(problems) {
        return Err(problems.code(WRONG));
    }
    writeln!(io::stdout().lock(), "the configuration is right")?;
    Ok(ExitCode::SUCCESS)
}
