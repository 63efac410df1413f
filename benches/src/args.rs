//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

/// Measures the controller beside a plain relay and beside the stock controller.
#[derive(Debug, Parser)]
#[command(name = "remuda-bench", version, max_term_width = 100)]
pub(crate) struct Args {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Throughput and round trips of each controller, in turn, with ratios.
    Table(TableArgs),
    /// Many tasks through one controller: is any lost, is any answered twice, and what does it cost?
    Soak(SoakArgs),
    /// A controller without engines: processes and memory.
    Idle(IdleArgs),
    /// Many engines at once: how long until all are registered, and is any lost?
    Engines(EnginesArgs),
    /// Task records in a database that has many: lists, a start, and bytes on disk.
    Records(RecordsArgs),
    /// `remuda map` beside xargs, GNU parallel, HyperQueue and a bare loop, on small programs.
    Programs(ProgramsArgs),
    /// The Rust client and engine libraries: submission, maps, and a large buffer there and back.
    Library(LibraryArgs),
    /// (internal) An engine of `library`.
    #[command(hide = true)]
    LibraryEngine {
        /// The engine's connection file
        file: PathBuf,
    },
    /// (internal) A client of `library`.
    #[command(hide = true)]
    LibraryClient(LibraryClientArgs),
    /// A client beside one that never reads its replies: is it slowed, and is memory bounded?
    Mute(MuteArgs),
    /// (internal) A client that never reads.
    #[command(hide = true)]
    MuteClient,
    /// (internal) The plain relay.
    #[command(hide = true)]
    Relay,
    /// (internal) Null engines.
    #[command(hide = true, name = "null-engines")]
    NullEngines,
    /// (internal) The client that makes the load.
    #[command(hide = true)]
    Client,
}

/// Arguments of `programs`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ProgramsArgs {
    /// How often each load is run by each
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: u32,
    /// How many times `true` is run
    #[arg(long, default_value_t = 2000)]
    pub(crate) programs: u32,
    /// A Python that has HyperQueue (`pip install hyperqueue`)
    #[arg(long, value_name = "PYTHON")]
    pub(crate) hyperqueue: Option<PathBuf>,
    /// The `remuda` program. [default: beside this program]
    #[arg(long, env = "REMUDA_PROGRAM")]
    pub(crate) remuda: Option<PathBuf>,
    /// Also write each run as a line of JSON to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Arguments of `library`.
#[derive(Debug, ClapArgs)]
pub(crate) struct LibraryArgs {
    /// How often each row is measured
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: u32,
    /// How many tasks are submitted
    #[arg(long, default_value_t = 200_000)]
    pub(crate) tasks: u64,
    /// How many items are mapped
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) items: u64,
    /// Size of the large buffer, in MiB
    #[arg(long, default_value_t = 500)]
    pub(crate) buffer_mib: u64,
    /// The `remuda` program. [default: beside this program]
    #[arg(long, env = "REMUDA_PROGRAM")]
    pub(crate) remuda: Option<PathBuf>,
    /// Also write each run as a line of JSON to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// What a client of `library` is told.
#[derive(Debug, ClapArgs)]
pub(crate) struct LibraryClientArgs {
    /// The client's connection file
    pub(crate) file: PathBuf,
    /// What it does
    pub(crate) load: Load,
    /// How many tasks, items or MiB
    pub(crate) count: u64,
    /// How many items a task
    pub(crate) chunk: usize,
    /// The process id of the controller
    pub(crate) controller: i32,
}

/// What a client of `library` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Load {
    /// Submits tasks, until all are with the controller.
    Submit,
    /// Submits tasks while the controller is stopped, until all are with the socket.
    Socket,
    /// Submits tasks, and waits for their results.
    Call,
    /// Maps items, with a bound on what is outstanding.
    Map,
    /// Sends a large buffer there and back.
    Buffer,
}

/// A controller to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// The plain relay of this program: no signatures, no records.
    Relay,
    /// `remuda controller`.
    Remuda,
    /// ipyparallel's controller.
    Stock,
}

impl Kind {
    /// Its word on the command line and in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Remuda => "remuda",
            Self::Stock => "stock",
        }
    }
}

/// Which controllers, and where their programs are.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ControllerArgs {
    /// The controllers to run, in this order. One that is named must be there; by default those found are run.
    #[arg(long, value_delimiter = ',', value_enum)]
    pub(crate) controllers: Vec<Kind>,
    /// The `remuda` program. [default: beside this program]
    #[arg(long, env = "REMUDA_PROGRAM")]
    pub(crate) remuda: Option<PathBuf>,
    /// A Python that has ipyparallel. [default: `python3`, if it has]
    #[arg(long, env = "REMUDA_PYTHON")]
    pub(crate) python: Option<PathBuf>,
    /// Further arguments for `remuda controller`, one each time (`--remuda-arg=--nodb`).
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) remuda_arg: Vec<String>,
    /// Append one line of JSON per run to this file (`-`: stdout).
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct TableArgs {
    /// Fewer tasks and fewer rounds: to see that it works, not to compare.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Tasks per run, for relay and remuda. [default: 50000, or 10000 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) tasks: Option<u64>,
    /// Tasks per run for the stock controller, which does some thousand a second. [default: 2000, or 500 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) stock_tasks: Option<u64>,
    /// How often each controller is run on each row. [default: 5, or 3 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) rounds: Option<u32>,
    /// How many engines; a row for each.
    #[arg(long, value_delimiter = ',', default_value = "4,16,64", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) engines: Vec<u32>,
    /// Most tasks outstanding on one engine; a row for each. 0: no limit (not on the relay).
    #[arg(long, value_delimiter = ',', default_value = "1,64", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub(crate) hwm: Vec<u32>,
    /// Only these parts of the table.
    #[arg(long, value_delimiter = ',', value_enum)]
    pub(crate) parts: Vec<TablePart>,
    #[command(flatten)]
    pub(crate) of: ControllerArgs,
}

/// A part of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TablePart {
    /// Throughput and round trips, beside the relay and stock.
    Tasks,
    /// A million tasks queued.
    Pending,
    /// Records in a database, at each level, beside none.
    Durability,
    /// One request to 1,024 engines.
    Broadcast,
    /// 2,000 engines that register at once.
    Engines,
    /// Nothing to do.
    Idle,
    /// What a decision costs by itself.
    Decisions,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SoakArgs {
    /// Tasks in all (the stock controller too, if it is named).
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) tasks: u64,
    /// How many engines.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) engines: u32,
    /// Most tasks outstanding on one engine.
    #[arg(long, default_value_t = 1)]
    pub(crate) hwm: u32,
    /// Most tasks outstanding in all, of which the controller holds all but those on engines; a row for each. [default: some
    /// two thousand]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) window: Vec<u64>,
    /// Tasks that go before those that are measured; memory `before` is taken after them. [default: a twentieth]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub(crate) warm_up: u64,
    /// Stop the controller's process (SIGSTOP) for so many seconds in the midst of the tasks, and see that all engines are
    /// there at the end.
    #[arg(long, default_value_t = 0, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=60))]
    pub(crate) stop: u64,
    #[command(flatten)]
    pub(crate) of: ControllerArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct EnginesArgs {
    /// How many engines; a row for each.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,2000", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) engines: Vec<u32>,
    /// Tasks that a client has 16 other engines do meanwhile, and before, to compare. 0: none.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub(crate) beside: u64,
    #[command(flatten)]
    pub(crate) of: ControllerArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct MuteArgs {
    /// Tasks of the client that reads.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) tasks: u64,
    /// Tasks of the one that does not, before the other begins; some hundreds a second follow.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) unread: u64,
    /// How many engines.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) engines: u32,
    /// How often with and how often without, in turn.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) rounds: u32,
    #[command(flatten)]
    pub(crate) of: ControllerArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    pub(crate) of: ControllerArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RecordsArgs {
    /// How many records to make.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) records: u64,
    /// How many tasks that ended a start reads.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) finished: usize,
    /// Where to make the database, which is some 1.5 GB large; it is removed at the end.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub(crate) folder: PathBuf,
    /// Append each figure to this file, as a line of JSON.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
        let args = Args::parse_from(["remuda-bench", "table", "--controllers", "relay,stock", "--hwm", "1"]);
        let Command::Table(table) = args.command else { panic!("not a table: {args:?}") };
        assert_eq!(table.of.controllers, [Kind::Relay, Kind::Stock]);
        assert_eq!((table.engines, table.hwm), (vec![4, 16, 64], vec![1]));
    }
}
