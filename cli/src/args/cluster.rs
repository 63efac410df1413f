//! `remuda cluster`, in the spellings of ipcluster (`cluster/app.py`).

mod jobs;

use std::num::NonZeroU32;

pub(crate) use jobs::{JobArgs, Launcher};

use clap::{ArgAction, Args, Subcommand, ValueEnum};
use remuda_cluster::launch::ssh::HostSpec;
use remuda_proto::message::restart::RestartPolicy;

use crate::engine_command;

use super::{ConfigArgs, Format, PlaceArgs, pause, seconds, switch};

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Start a controller and engines, and stop them on Ctrl-C.
    Start(Box<StartArgs>),
    /// Show a cluster's engines: which run, what they do, which died and why.
    Status(StatusArgs),
    /// Add engines to a cluster, remove or restart some, or have some finish what they have.
    ///
    /// Without a word after it, as `ipcluster engines`: starts more engines for the controller that runs, and stops them on
    /// Ctrl-C.
    Engines(Box<EnginesArgs>),
    /// Print a command that starts an engine of a running cluster on another machine.
    ///
    /// Whoever has the command can join the cluster, and has its key.
    Invite(InviteArgs),
    /// Show what controller and engines printed.
    Logs(LogsArgs),
    /// Stop a cluster that was started here.
    Stop(StopArgs),
    /// List the clusters of this machine.
    List(ListArgs),
    /// Remove what clusters that ended left behind: connection files, cluster files, logs.
    Clean(CleanArgs),
}

/// Which engines.
#[derive(Clone, Debug, Args)]
pub(crate) struct EngineArgs {
    /// How many engines [default: the cores]
    #[arg(short = 'n', long = "n", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) n: Option<u16>,
    /// What kind of engines: native (programs), python (Python functions; also `local`, and the name of a launcher), or a command
    /// that runs one, with a space or a slash in it: `nice -n 10 remuda engine` [default: native; as `ipcluster`: python]
    #[arg(long, value_name = "KIND", value_parser = engine_kind)]
    pub(crate) engines: Option<EngineKind>,
    /// Python that runs the engines, with `--engines python` [env: `REMUDA_PYTHON`] [default: python3]
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) python: Option<String>,
    /// Argument for each engine; again for each further one
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub(crate) engine_arg: Vec<String>,
    /// When an engine that has ended is started again: never, on-failure or always
    /// [default: on-failure; as `ipcluster`: never]
    #[arg(long, value_name = "WHEN", value_parser = restart_policy)]
    pub(crate) restart: Option<RestartPolicy>,
    /// How often an engine is started again at most [default: without end]
    #[arg(long, value_name = "N")]
    pub(crate) restart_limit: Option<u32>,
    /// Return as soon as the engines are there, and leave them running
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true",
          value_parser = switch, action = ArgAction::Set, hide_default_value = true, value_name = "BOOL")]
    pub(crate) daemonize: bool,
    /// It runs in the background, for a command that waits until it is ready
    #[arg(long, hide = true)]
    pub(crate) detached: bool,
    /// Seconds to wait for the engines
    #[arg(long, value_name = "S", default_value_t = 60.0, value_parser = seconds)]
    pub(crate) timeout: f64,
}

/// Arguments of `remuda cluster start`.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    /// What kind of controller: local
    #[arg(long, value_name = "KIND", value_parser = controller_kind, hide = true)]
    pub(crate) controller: Option<ControllerKind>,
    /// Address for the controller to listen at, or `*` for all
    #[arg(long)]
    pub(crate) ip: Option<String>,
    /// Host name that the controller writes into the connection files
    #[arg(long, value_name = "HOST")]
    pub(crate) location: Option<String>,
    /// Seconds from the start of the controller to that of the engines
    #[arg(long, value_name = "S", default_value_t = 0.0, value_parser = pause)]
    pub(crate) delay: f64,
    /// Remove the logs of earlier clusters of this name first
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true",
          value_parser = switch, action = ArgAction::Set, value_name = "BOOL")]
    pub(crate) clean_logs: bool,
    /// Let the number of engines follow the work: as few as this while there is none
    #[arg(long, value_name = "N", requires = "max")]
    pub(crate) min: Option<u16>,
    /// Let the number of engines follow the work: as many as this while tasks wait
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) max: Option<u16>,
    /// Seconds without work after which an engine leaves, with `--max`
    #[arg(long, value_name = "S", default_value_t = 60.0, value_parser = seconds)]
    pub(crate) idle: f64,
    /// A machine for engines, which is reached over SSH: `[USER@]HOST[:PORT][=ENGINES]`; again for each further one
    #[arg(long, value_name = "HOST", conflicts_with_all = ["n", "min", "max"])]
    pub(crate) host: Vec<HostSpec>,
    /// The controller's ports are taken to these machines by SSH, which cannot reach it by themselves
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true",
          value_parser = switch, action = ArgAction::Set, hide_default_value = true, value_name = "BOOL")]
    pub(crate) tunnel: bool,
    /// What `remuda` is called on these machines
    #[arg(long, value_name = "PROGRAM", default_value = "remuda")]
    pub(crate) ssh_remuda: String,
    /// Argument for ssh; again for each further one
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub(crate) ssh_arg: Vec<String>,
    /// Argument for the controller; again for each further one
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub(crate) controller_arg: Vec<String>,
    #[command(flatten)]
    pub(crate) jobs: JobArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Options for the controller, after `--`
    #[arg(last = true, value_name = "CONTROLLER OPTION")]
    pub(crate) controller_options: Vec<String>,
}

/// Arguments of `remuda cluster engines`.
#[derive(Debug, Args)]
#[command(args_override_self = true, args_conflicts_with_subcommands = true)]
pub(crate) struct EnginesArgs {
    #[command(subcommand)]
    pub(crate) action: Option<EnginesAction>,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EnginesAction {
    /// Start more engines, of the same kind
    Add(AddArgs),
    /// End engines: each when it has finished what it has
    Remove(EndArgs),
    /// Start engines anew: each when it has finished what it has
    Restart(EndArgs),
    /// Have engines finish what they have and get no more tasks; any engines, wherever they were started
    Drain(DrainArgs),
}

/// Arguments of `remuda cluster engines add`.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// How many
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) n: u32,
    /// Seconds to wait for them
    #[arg(long, value_name = "S", default_value_t = 60.0, value_parser = seconds)]
    pub(crate) timeout: f64,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// Arguments of `remuda cluster engines remove` and `restart`.
#[derive(Debug, Args)]
pub(crate) struct EndArgs {
    /// The engines, by id
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<u32>,
    /// At once, with what they run
    #[arg(long)]
    pub(crate) now: bool,
    /// Return at once, and do not wait until it is done
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// Arguments of `remuda cluster engines drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// The engines, by id
    #[arg(value_name = "ID", required_unless_present = "host")]
    pub(crate) ids: Vec<u32>,
    /// All native engines of this host
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Option<String>,
    /// End each when it has finished what it has
    #[arg(long)]
    pub(crate) shutdown: bool,
    /// They get tasks again
    #[arg(long, conflicts_with = "shutdown")]
    pub(crate) undo: bool,
    /// Return at once, and do not wait until they have finished
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// Arguments of `remuda cluster invite`.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub(crate) struct InviteArgs {
    /// How many engines the command is to start [default: one, for as many programs at once as its machine has cores]
    #[arg(short = 'n', long = "n", value_name = "N")]
    pub(crate) n: Option<NonZeroU32>,
    /// Invite clients, not engines: for `--connect` of `remuda run` and others, and `ConnectOptions::url` of the Rust client
    #[arg(long, conflicts_with = "n")]
    pub(crate) client: bool,
    /// Host name or address by which the other machine reaches the controller, if it is not that in the connection file
    #[arg(long, value_name = "HOST")]
    pub(crate) location: Option<String>,
    /// Print the invitation alone, for `--connect` and the variable `REMUDA_CONNECT`, or `REMUDA_CLIENT` for clients
    #[arg(long)]
    pub(crate) word: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// Arguments of `remuda cluster status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// How to print it
    #[arg(short = 'o', long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// Arguments of `remuda cluster logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// An engine or a job, by id, or `controller` [default: all]
    #[arg(value_name = "ENGINE")]
    pub(crate) of: Option<String>,
    /// Go on with what is printed from now on, until Ctrl-C
    #[arg(short = 'f', long)]
    pub(crate) follow: bool,
    /// How many of the last lines of each; `0`: all
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub(crate) lines: usize,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// Arguments of `remuda cluster stop`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Which clusters of the profile [default: the one without an id, or that of `--cluster-id`]
    #[arg(value_name = "CLUSTER ID", conflicts_with = "cluster_id")]
    pub(crate) ids: Vec<String>,
    /// Stop all clusters of the profile
    #[arg(long, conflicts_with = "ids")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// Arguments of `remuda cluster list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// How to print it
    #[arg(short = 'o', long, value_enum, default_value_t = ListFormat::Text)]
    pub(crate) output: ListFormat,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    /// A table for people
    Text,
    /// JSON, one document
    Json,
}

/// Arguments of `remuda cluster clean`.
#[derive(Debug, Args)]
pub(crate) struct CleanArgs {
    /// Remove the files of clusters that run, too
    #[arg(long)]
    pub(crate) force: bool,
    /// Those of all profiles
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EngineKind {
    /// `remuda engine`: programs.
    Native,
    /// ipyparallel's engine: Python functions.
    Python,
    /// What runs when this does: the program and its arguments.
    Command(Vec<String>),
    /// The same, started by this launcher, as stock names it.
    PythonBy(Launcher),
}

impl EngineKind {
    /// Whether they are ipyparallel's engines.
    pub(crate) fn is_python(&self) -> bool {
        matches!(self, Self::Python | Self::PythonBy(_))
    }

    /// As it is written.
    pub(crate) fn text(&self) -> String {
        match self {
            // A program that is named without a slash would be taken for a kind.
            Self::Command(words) if words.len() == 1 => format!("{} ", engine_command::joined(words)),
            Self::Command(words) => engine_command::joined(words),
            Self::Native => "native".to_owned(),
            Self::Python | Self::PythonBy(_) => "python".to_owned(),
        }
    }
}

/// The only kind that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ControllerKind;

/// Kinds that stock has for other machines (`ipyparallel.engine_launchers`), all in lower case.
const ELSEWHERE: [&str; 4] = ["batch", "ssh", "sshproxy", "winhpc"];

/// A policy by its name.
pub(crate) fn restart_policy(text: &str) -> Result<RestartPolicy, String> {
    let found = RestartPolicy::ALL.into_iter().find(|policy| policy.name() == text);
    found.ok_or_else(|| "use never, on-failure or always".to_owned())
}

pub(crate) fn engine_kind(text: &str) -> Result<EngineKind, String> {
    if engine_command::is_command(text) {
        return engine_command::split(text).map(EngineKind::Command);
    }
    let name = text.to_ascii_lowercase();
    let name = name.strip_suffix("enginesetlauncher").or_else(|| name.strip_suffix("launcher")).unwrap_or(&name);
    match name {
        "native" | "remuda" => Ok(EngineKind::Native),
        "python" | "local" => Ok(EngineKind::Python),
        other if ELSEWHERE.contains(&other) => Err(
            "engines are native or python; other machines are named by `--host` (SSH), and batch systems by `--launcher`".to_owned(),
        ),
        other => jobs::named(other).map(EngineKind::PythonBy).ok_or_else(|| {
            "use native or python; a command has a space or a slash in it (`./engine`)".to_owned()
        }),
    }
}

fn controller_kind(text: &str) -> Result<ControllerKind, String> {
    let name = text.to_ascii_lowercase();
    match name.strip_suffix("controllerlauncher").unwrap_or(&name) {
        "local" | "remuda" => Ok(ControllerKind),
        _ => Err("the controller runs on this machine: use local".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use remuda_cluster::launch::batch::System;

    use super::*;

    #[test]
    fn launchers_of_stock_are_known_by_name_and_class() {
        for (text, kind) in [
            ("native", EngineKind::Native),
            ("local", EngineKind::Python),
            ("Local", EngineKind::Python),
            ("localenginesetlauncher", EngineKind::Python),
        ] {
            assert_eq!(engine_kind(text), Ok(kind), "{text}");
        }
        for (text, launcher) in [
            ("mpi", Launcher::Mpi),
            ("SlurmEngineSetLauncher", Launcher::Batch(System::Slurm)),
            ("PBSEngineSetLauncher", Launcher::Batch(System::Torque)),
            ("slurm", Launcher::Batch(System::Slurm)),
        ] {
            assert_eq!(engine_kind(text), Ok(EngineKind::PythonBy(launcher)), "{text}");
        }
        for text in ["ssh", "SSHProxyEngineSetLauncher"] {
            assert!(engine_kind(text).unwrap_err().contains("--host"), "{text}");
        }
        assert!(engine_kind("horse").unwrap_err().contains("native"));
        for text in ["nice -n 10 'my engine' --file={file}", "./engine"] {
            let kind = engine_kind(text).unwrap();
            assert!(matches!(kind, EngineKind::Command(_)), "{text}");
            assert_eq!(engine_kind(&kind.text()), Ok(kind), "a nanny is told the same");
        }
        assert!(engine_kind("nice 'remuda").unwrap_err().contains("quote"));
        assert!(controller_kind("local").is_ok() && controller_kind("ssh").is_err());
    }
}
