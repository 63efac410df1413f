//! `remuda task`: the records of tasks.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use remuda_proto::Date;
use remuda_proto::message::content::RecordOrder;

use super::{PlaceArgs, ReachArgs, seconds};

#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// List tasks, the newest first.
    List(ListArgs),
    /// Show all that is on record of tasks.
    Show(ShowArgs),
    /// Print the result of a task, or its error; exit code 1 if it has no result.
    Result(ResultArgs),
    /// Print what a task wrote: its stdout on stdout, its stderr on stderr.
    Output(OutputArgs),
    /// Tell the cluster not to run tasks; with `--stop`, to end those that run.
    Abort(AbortArgs),
    /// Tell the cluster not to run tasks, and to end those that run.
    Stop(ChangeArgs),
    /// Run tasks once more, under new ids.
    Resubmit(ChangeArgs),
    /// Drop the records of tasks that have ended.
    Purge(PurgeArgs),
    /// Find records by a query of ipyparallel's (`Client.db_query`).
    Query(QueryArgs),
    /// Count tasks by state, engine and label; how long they wait and run.
    Stats(StatsArgs),
}

/// Where the records are.
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Read the database of a controller that has stopped [default: the profile's, if no controller runs]
    #[arg(long, value_name = "FILE", conflicts_with = "connect")]
    pub(crate) db: Option<PathBuf>,
    /// The table of the database, if it has several
    #[arg(long, value_name = "TABLE", requires = "db")]
    pub(crate) table: Option<String>,
    /// Seconds to wait for the controller's answer
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    pub(crate) timeout: f64,
}

/// Which tasks are meant. All that is said has to hold.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which tasks")]
pub(crate) struct FilterArgs {
    /// In one of these states; `done` is ok, error or aborted, `pending` is waiting or running
    #[arg(long, value_enum, value_name = "STATE", value_delimiter = ',')]
    pub(crate) state: Vec<StateArg>,
    /// With or of this engine: its id, or the beginning of its uuid
    #[arg(long, value_name = "ENGINE")]
    pub(crate) engine: Option<String>,
    /// With this label; `*`, `?` and `[...]` as in a shell
    #[arg(long, value_name = "LABEL")]
    pub(crate) label: Option<String>,
    /// Of this client: its session, or the beginning of it
    #[arg(long, value_name = "SESSION")]
    pub(crate) client: Option<String>,
    /// In this queue: `task` (load-balanced), `mux` (direct) or `broadcast`
    #[arg(long, value_enum, value_name = "QUEUE")]
    pub(crate) queue: Option<QueueArg>,
    /// Submitted since then: a time ago (`90s`, `15m`, `2h`, `1d`), or a date (`2026-11-22T10:00`, in UTC unless it says)
    #[arg(long, value_name = "WHEN", value_parser = when)]
    pub(crate) since: Option<When>,
    /// Submitted before then
    #[arg(long, value_name = "WHEN", value_parser = when)]
    pub(crate) until: Option<When>,
}

impl FilterArgs {
    /// Whether nothing is said, which means all tasks.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { state, engine, label, client, queue, since, until } = self;
        let texts = [engine, label, client];
        state.is_empty()
            && texts.iter().all(|text| text.is_none())
            && queue.is_none()
            && since.is_none()
            && until.is_none()
    }
}

/// A word for the states of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StateArg {
    /// No engine has it yet
    Waiting,
    /// An engine has it
    Running,
    /// It has a result
    Ok,
    /// It failed
    #[value(alias = "failed")]
    Error,
    /// It was told not to run
    Aborted,
    /// Its controller ended without a reply to it, and no other took it over
    Lost,
    /// It has ended, in whichever way
    Done,
    /// It has not ended
    Pending,
}

/// One of the schedulers' queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum QueueArg {
    /// Tasks for any engine
    Task,
    /// Requests for one engine
    Mux,
    /// Copies of broadcasts
    Broadcast,
}

/// A point in time, as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// So long ago.
    Ago(Duration),
    /// Then.
    At(Date),
}

/// How records are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RecordFormat {
    /// A table for people
    Table,
    /// One JSON document
    Json,
    /// A JSON document for each, a line each
    Jsonl,
}

/// What tasks are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SortArg {
    /// When they came to the controller
    Arrival,
    /// When their clients made them, by their clocks
    Submitted,
    /// When their engines ended them, by their clocks
    Completed,
}

impl From<SortArg> for RecordOrder {
    fn from(sort: SortArg) -> Self {
        match sort {
            SortArg::Arrival => Self::Arrival,
            SortArg::Submitted => Self::Submitted,
            SortArg::Completed => Self::Completed,
        }
    }
}

/// Which of those that are found.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct PageArgs {
    /// Most tasks; 0: all
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) limit: usize,
    /// What they are sorted by
    #[arg(long, value_enum, value_name = "KEY", default_value_t = SortArg::Submitted)]
    pub(crate) sort: SortArg,
    /// The oldest first
    #[arg(long)]
    pub(crate) reverse: bool,
}

impl PageArgs {
    pub(crate) fn limit(&self) -> Option<usize> {
        (self.limit != 0).then_some(self.limit)
    }
}

/// Arguments of `remuda task list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    #[command(flatten)]
    pub(crate) page: PageArgs,
    /// How to print them
    #[arg(long, value_enum, default_value_t = RecordFormat::Table)]
    pub(crate) output: RecordFormat,
    /// Go on with each task that is new or changes, until Ctrl-C
    #[arg(long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

/// Arguments of `remuda task show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Ids of tasks, or how they begin if that is enough; `…` stands for any text in between
    #[arg(value_name = "TASK", required = true)]
    pub(crate) tasks: Vec<String>,
    /// How to print them
    #[arg(long, value_enum, default_value_t = RecordFormat::Table)]
    pub(crate) output: RecordFormat,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

/// Arguments of `remuda task result`.
#[derive(Debug, Args)]
pub(crate) struct ResultArgs {
    /// Id of the task, or how it begins if that is enough
    #[arg(value_name = "TASK")]
    pub(crate) task: String,
    /// Write the bytes of the result's buffers to this file, one buffer after the other; `-` for stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) raw: Option<PathBuf>,
    /// Only this buffer, from 0
    #[arg(long, value_name = "N", requires = "raw")]
    pub(crate) buffer: Option<usize>,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

/// Arguments of `remuda task output`.
#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// Id of the task, or how it begins if that is enough
    #[arg(value_name = "TASK")]
    pub(crate) task: String,
    /// Go on with what it writes until it ends
    #[arg(long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

/// The tasks that a command changes.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// Ids of tasks, or how they begin if that is enough; without any, all that the options name
    #[arg(value_name = "TASK", conflicts_with_all = ["state", "engine", "label", "client", "queue", "since", "until"])]
    pub(crate) tasks: Vec<String>,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Say which, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

/// Arguments of `remuda task abort`.
#[derive(Debug, Args)]
pub(crate) struct AbortArgs {
    /// End programs that run already, too: native engines signal and then kill them
    #[arg(long)]
    pub(crate) stop: bool,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

/// Arguments of `remuda task purge`.
#[derive(Debug, Args)]
pub(crate) struct PurgeArgs {
    /// All tasks that have ended
    #[arg(long, conflicts_with = "tasks")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

/// Arguments of `remuda task query`.
#[derive(Debug, Args)]
#[command(after_help = "\
Operators: $eq $ne $lt $lte $gt $gte $in $nin $all $exists $glob $mod $and $or $not.

Examples:
  remuda task query '{\"completed\": {\"$ne\": null}}' --keys msg_id,completed
  remuda task query '{\"label\": {\"$glob\": \"sweep*\"}, \"engine_uuid\": null}'")]
pub(crate) struct QueryArgs {
    /// The query: a JSON map of fields to values, or to maps of operators to operands
    #[arg(value_name = "QUERY")]
    pub(crate) query: String,
    /// The fields to print [default: all but the buffers]
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    pub(crate) keys: Vec<String>,
    #[command(flatten)]
    pub(crate) page: PageArgs,
    /// How to print them [default: table with `--keys`, else json]
    #[arg(long, value_enum)]
    pub(crate) output: Option<RecordFormat>,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

/// Arguments of `remuda task stats`.
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Only the newest N; 0: all
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) limit: usize,
    /// How to print them
    #[arg(long, value_enum, default_value_t = super::Format::Table)]
    pub(crate) output: super::Format,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

/// A time ago or a date.
fn when(text: &str) -> Result<When, String> {
    if let Some(ago) = duration(text) {
        return Ok(When::Ago(ago));
    }
    // A day alone begins at midnight.
    let date = Date::parse(text).or_else(|| Date::parse(&format!("{text}T00:00:00")));
    date.map(When::At)
        .ok_or_else(|| "use a time ago (`90s`, `15m`, `2h`, `1d`) or a date (`2026-11-22T10:00`)".to_owned())
}

/// A time such as `1h30m`; each part is a number and its unit.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|digits| *digits > 0)?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "s" | "sec" => 1,
            "m" | "min" => 60,
            "h" => 3600,
            "d" => 86_400,
            "w" => 7 * 86_400,
            _ => return None,
        };
        rest = &rest[letters..];
        total = total.checked_add(Duration::from_secs(number.checked_mul(unit)?))?;
    }
    // Beyond that it is no date any more.
    (!text.is_empty() && total < Duration::from_secs(1000 * 366 * 86_400)).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args as All, Command};
    use clap::Parser;

    fn parse(words: &str) -> Result<TaskCommand, clap::Error> {
        let all = format!("remuda task {words}");
        let Command::Task(command) = All::try_parse_from(all.split_whitespace())?.command else { panic!("{words}") };
        Ok(*command)
    }

    #[test]
    fn a_time_ago_is_told_from_a_date() {
        for (text, seconds) in [("90s", 90), ("2h", 7200), ("1h30m", 5400), ("1d", 86_400), ("15min", 900), ("0s", 0)] {
            assert_eq!(when(text), Ok(When::Ago(Duration::from_secs(seconds))), "{text}");
        }
        let ten = Date::parse("2026-11-22T10:00:00Z").unwrap();
        for text in ["2026-11-22T10:00", "2026-11-22 10:00:00", "2026-11-22T11:00+01:00", "2026-11-22T10:00:00Z"] {
            assert_eq!(when(text), Ok(When::At(ten)), "{text}");
        }
        assert_eq!(when("2026-11-22"), Ok(When::At(Date::parse("2026-11-22T00:00:00Z").unwrap())));
        for text in ["", "2", "h", "2y", "yesterday", "99999999999999999999s", "9999999999999d", "-2h"] {
            assert!(when(text).is_err(), "{text}");
        }
    }

    #[test]
    fn states_come_in_lists_and_under_the_names_that_people_use() {
        let TaskCommand::List(list) = parse("list --state failed,aborted --state running").unwrap() else { panic!() };
        assert_eq!(list.filter.state, [StateArg::Error, StateArg::Aborted, StateArg::Running]);
        assert!(!list.filter.is_empty() && FilterArgs::default().is_empty());
        let error = parse("list --state finished").unwrap_err().to_string();
        assert!(error.contains("waiting") && error.contains("aborted"), "{error}");
    }

    #[test]
    fn ids_and_filters_exclude_each_other() {
        for words in ["abort a --state waiting", "purge a --all", "resubmit a --label x", "list --table t"] {
            assert_eq!(parse(words).unwrap_err().exit_code(), 2, "{words}");
        }
        for words in
            ["abort --state waiting --stop", "purge --all", "purge --until 7d", "resubmit a b", "list --db f --table t"]
        {
            assert!(parse(words).is_ok(), "{words}");
        }
    }
}
