//! The command line.

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

/// Counts how many instructions a task costs in the cores, by callgrind, and shows them beside what is stored.
#[derive(Debug, Parser)]
#[command(name = "remuda-instructions", version, max_term_width = 100, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// Fail if a row costs more than 5 % above what is stored, or is not stored.
    #[arg(long)]
    pub(crate) check: bool,
    /// Store what was counted.
    #[arg(long, conflicts_with = "check")]
    pub(crate) write: bool,
    /// The stored figures.
    #[arg(long, default_value_os_t = stored())]
    pub(crate) stored: PathBuf,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// (internal) The work whose instructions are counted.
    #[command(hide = true)]
    Count(CountArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CountArgs {
    /// What.
    #[arg(value_enum)]
    pub(crate) row: Row,
    /// How many tasks.
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) tasks: u32,
}

/// Where the stored figures are, unless told otherwise.
fn stored() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("stored.json")
}

/// What instructions are counted of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Row {
    /// The task scheduler: a task comes, is queued, assigned and answered.
    Task,
    /// The direct queue: a request and its reply.
    Direct,
    /// The hub, with records in memory: the three events of a task.
    Hub,
    /// The frames of a request are put together.
    Read,
    /// The signature of a request is checked. Valgrind has no instructions for SHA, so this is many times what it is.
    Verify,
}

impl Row {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [Self::Task, Self::Direct, Self::Hub, Self::Read, Self::Verify];

    /// Its word on the command line and in what is stored.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Direct => "direct",
            Self::Hub => "hub",
            Self::Read => "read",
            Self::Verify => "verify",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
        let args = Args::parse_from(["remuda-instructions", "count", "hub", "7"]);
        let Some(Command::Count(count)) = args.command else { panic!("nothing to count: {args:?}") };
        assert_eq!((count.row, count.tasks), (Row::Hub, 7));
        assert!(Args::try_parse_from(["remuda-instructions", "--check", "--write"]).is_err());
    }
}
