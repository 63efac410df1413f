//! What can be typed. Nothing here acts: each command takes its arguments and resolves them.

pub(crate) mod cluster;
pub(crate) mod controller;
pub(crate) mod debug;
pub(crate) mod doctor;
pub(crate) mod engine;
pub(crate) mod map;
pub(crate) mod nanny;
pub(crate) mod process;
pub(crate) mod profile;
pub(crate) mod run;
pub(crate) mod service;
pub(crate) mod shell;
pub(crate) mod task;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args as ClapArgs, Parser, Subcommand, ValueEnum};
use remuda_client::TaskOptions;
use remuda_net::profile::{Place, Profile};
use remuda_proto::message::needs::Needs;

use crate::logging::Level;

/// A parallel compute cluster: programs, Rust functions and Python functions on many engines.
///
/// It takes the place of ipyparallel's controller, and runs programs without any Python.
#[derive(Debug, Parser)]
#[command(name = "remuda", version = version(), propagate_version = true, help_expected = true, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a program once for each argument, many at a time.
    ///
    /// Uses the profile's running cluster, or else starts one for the time being.
    Map(map::MapArgs),
    /// Run a program on an engine: its output comes as it is written, and its exit code is that of this command.
    ///
    /// Uses the profile's running cluster, or else starts one for the time being.
    Run(run::RunArgs),
    /// Show the engines of a running cluster, and what they do.
    Status(StatusArgs),
    /// List tasks, read their results and output, abort them, run them again; also from the database of a stopped controller.
    #[command(subcommand)]
    Task(Box<task::TaskCommand>),
    /// Keep process definitions with the controller, which say how a program is run as a task; and run them.
    #[command(subcommand)]
    Process(Box<process::ProcessCommand>),
    /// Start, list and stop services, programs that are kept running, and read their logs.
    #[command(subcommand)]
    Service(Box<service::ServiceCommand>),
    /// Find out what became of a task and what it waits for, and how the controller stands.
    #[command(subcommand)]
    Debug(debug::DebugCommand),
    /// Start, stop and list clusters: a controller and engines on this machine; in the place of `ipcluster`.
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Run a controller, in the place of `ipcontroller`.
    Controller(Box<controller::ControllerArgs>),
    /// Run a native engine, which runs programs.
    Engine(engine::EngineArgs),
    /// Run engines on this machine, and start those again that die.
    Nanny(nanny::NannyArgs),
    /// Make, list and show profiles: the folders that hold the configuration of clusters; and the templates that are shipped.
    #[command(subcommand)]
    Profile(profile::ProfileCommand),
    /// Look for what is wrong with a profile, its cluster and this machine, and say what to do about it.
    Doctor(doctor::DoctorArgs),
    /// Print what makes a shell complete the commands and options of this program.
    Completions(shell::CompletionsArgs),
    /// Print the manual page of this program, or write those of all its commands.
    Man(shell::ManArgs),
}

impl Command {
    /// Where the command's configuration is, if it has one.
    pub(crate) fn configured(&self) -> Option<(&PlaceArgs, &ConfigArgs)> {
        match self {
            Self::Controller(args) => Some((&args.place, &args.config)),
            Self::Engine(args) => Some((&args.place, &args.config)),
            Self::Cluster(cluster::ClusterCommand::Start(args)) => Some((&args.place, &args.config)),
            Self::Cluster(cluster::ClusterCommand::Engines(args)) => Some((&args.place, &args.config)),
            _ => None,
        }
    }
}

/// Which profile, and which of its clusters.
#[derive(Clone, Debug, Default, ClapArgs)]
#[command(next_help_heading = "Profile")]
pub(crate) struct PlaceArgs {
    /// Name of the profile: folder `profile_<NAME>` in IPython's folder [default: default]
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Folder of the profile [env: `IPP_PROFILE_DIR`]
    #[arg(long, value_name = "DIR")]
    pub(crate) profile_dir: Option<PathBuf>,
    /// IPython's folder [env: IPYTHONDIR] [default: ~/.ipython]
    #[arg(long, value_name = "DIR")]
    pub(crate) ipython_dir: Option<PathBuf>,
    /// Which cluster of the profile, where it has several [env: `IPP_CLUSTER_ID`]
    #[arg(long, value_name = "ID")]
    pub(crate) cluster_id: Option<String>,
}

impl PlaceArgs {
    pub(crate) fn profile(&self) -> Profile {
        Place {
            profile_dir: self.profile_dir.clone(),
            profile: self.profile.clone(),
            ipython_dir: self.ipython_dir.clone(),
            cluster_id: self.cluster_id.clone(),
        }
        .find()
    }

    /// The options that lead to the same profile, for commands that a hint shows.
    pub(crate) fn options(&self) -> String {
        let mut text = String::new();
        let dirs = [("--profile-dir", &self.profile_dir), ("--ipython-dir", &self.ipython_dir)];
        for (name, dir) in dirs {
            if let Some(dir) = dir {
                text.extend([" ", name, " ", &dir.to_string_lossy()]);
            }
        }
        for (name, value) in [("--profile", &self.profile), ("--cluster-id", &self.cluster_id)] {
            if let Some(value) = value {
                text.extend([" ", name, " ", value]);
            }
        }
        text
    }
}

/// Which controller engines belong to.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct ConnectArgs {
    /// The controller: a connection file, the word that `remuda cluster invite` prints, or `-` to read either from stdin; other
    /// users of a machine see its command lines, and with the word the cluster's key [env: `REMUDA_CONNECT`]
    #[arg(long, value_name = "FILE|INVITATION")]
    pub(crate) connect: Option<OsString>,
    /// Connection file, if it is not the profile's
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// Which controller a client connects to, if it is not the profile's.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct ReachArgs {
    /// The controller: a connection file of clients, or the word that `remuda cluster invite --client` prints; other users of a
    /// machine see its command lines, and with the word the cluster's key [env: `REMUDA_CLIENT`]
    #[arg(long, value_name = "FILE|INVITATION")]
    pub(crate) connect: Option<OsString>,
}

/// How programs run, one or many.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct WorkArgs {
    /// Seconds that a program may run: then it is stopped, and has failed
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) timeout: Option<f64>,
    /// What a program takes of its engine while it runs, and words that the engine must have: `cpus=2,gpu=1,label=big`
    #[arg(long, value_name = "WHAT", default_value = "", hide_default_value = true)]
    pub(crate) needs: Needs,
    /// Tasks of higher priority come first, whoever submitted them
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) priority: i32,
}

impl WorkArgs {
    /// The options of such a task.
    pub(crate) fn options(&self) -> TaskOptions {
        TaskOptions {
            run_timeout: self.timeout.map(Duration::from_secs_f64),
            needs: self.needs.clone(),
            priority: self.priority,
            ..TaskOptions::default()
        }
    }
}

/// Where programs run.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct VenueArgs {
    /// Start a cluster for the time being even if the profile has a running one
    #[arg(long)]
    pub(crate) embedded: bool,
    /// Seconds to wait for the controller's answer
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    pub(crate) connect_timeout: f64,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Default, ClapArgs)]
#[command(next_help_heading = "Configuration")]
pub(crate) struct ConfigArgs {
    /// One more configuration file, in the form of `ipcontroller_config.py` or `.json`
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print every option with its value and where that was said, as JSON; and end
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true",
          value_parser = switch, action = ArgAction::Set, hide_default_value = true, value_name = "BOOL")]
    pub(crate) show_config_json: bool,
    /// Look for all that is wrong in the configuration, ports in use among it; and end, with exit code 2 if anything is
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true",
          value_parser = switch, action = ArgAction::Set, hide_default_value = true, value_name = "BOOL")]
    pub(crate) check_config: bool,
    /// Print every option with its value and where that was said: by default, file, variable or command line; and end
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true",
          value_parser = switch, action = ArgAction::Set, hide_default_value = true, value_name = "BOOL")]
    pub(crate) show_config: bool,
    /// Folder to work in
    #[arg(long, value_name = "DIR")]
    pub(crate) work_dir: Option<PathBuf>,
}

impl ConfigArgs {
    /// Goes to the folder to work in. After this, relative paths mean others.
    pub(crate) fn enter_work_dir(&self) -> Result<(), crate::failure::Failure> {
        let Some(dir) = &self.work_dir else { return Ok(()) };
        std::env::set_current_dir(dir).map_err(|error| {
            let what = format!("cannot work in `{}`", dir.display());
            crate::failure::Failure::new(anyhow::Error::new(error).context(what)).hint("name another with `--work-dir`")
        })
    }
}

/// What is logged, how, and where to.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Log")]
pub(crate) struct LogArgs {
    /// How much to log: trace, debug, info, warn, error, off, or Python's number
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: Level,
    /// How lines are written: text, or json, one object a line
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// Log to a file in the profile's `log` folder, not to stderr
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true",
          value_parser = switch, action = ArgAction::Set, hide_default_value = true, value_name = "BOOL")]
    pub(crate) log_to_file: bool,
    /// With `--log-to-file`, the size at which the next file is begun (`100k`, `10M`); a longer line is alone in a file
    /// [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) log_max_bytes: Option<usize>,
    /// With `--log-max-bytes`, how many files are kept, the one that is written among them; the oldest goes
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) log_files: u16,
    /// Remove the log files of earlier runs of this cluster first
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true",
          value_parser = switch, action = ArgAction::Set, hide_default_value = true, value_name = "BOOL")]
    pub(crate) clean_logs: bool,
}

/// How the lines of a log are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// JSON, one object a line
    Json,
}

/// Arguments of `remuda status`.
#[derive(Debug, ClapArgs)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// Seconds to wait for the controller's answer
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    pub(crate) timeout: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table for people
    Table,
    /// JSON, one document
    Json,
}

/// Yes or no, as Python and people write it.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match &*text.to_ascii_lowercase() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("use true or false".to_owned()),
    }
}

/// A number of seconds, or none.
pub(crate) fn pause(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..1e6).contains(&seconds) => Ok(seconds),
        _ => Err("not a number of seconds".to_owned()),
    }
}

/// A number of seconds above zero.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds < 1e9 => Ok(seconds),
        _ => Err("not a number of seconds above 0".to_owned()),
    }
}

/// Reads a size: `500`, `64k`, `1M`, `2G`, in powers of 1024.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let wrong = || format!("`{text}` is no size: give bytes, or `64k`, `1M`, `2G`");
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&text[..at], 1 << 20),
        Some((at, 'g' | 'G')) => (&text[..at], 1 << 30),
        _ => (text, 1_usize),
    };
    let count: usize = digits.parse().map_err(|_| wrong())?;
    count.checked_mul(unit).filter(|size| *size > 0).ok_or_else(wrong)
}

fn version() -> &'static str {
    static VERSION: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        let (libzmq, curve) = remuda_net::libzmq();
        format!("{} (libzmq {libzmq}, {} CURVE)", env!("CARGO_PKG_VERSION"), if curve { "with" } else { "without" })
    });
    &VERSION
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(words: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(words.split_whitespace())
    }

    #[test]
    fn every_option_has_a_help_text_and_none_contradicts_another() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_spellings_of_ipcontroller_work() {
        for words in [
            "remuda controller --profile=iptest --log-level=10 --ping=250 --db=dictdb",
            "remuda controller --ip=* --port=0 --ports=10101-10120,10130 --scheme=lru --hwm=0 --location=here",
            "remuda controller --profile-dir=/p --cluster-id= --reuse --db=none --transport tcp --log-to-file",
            "remuda controller --reuse=False --hwm=2 --hwm=3 --engine-ip=* --client-ports=1-3 --enginessh=gate",
        ] {
            assert!(parse(words).is_ok(), "{words}: {}", parse(words).err().map(|e| e.to_string()).unwrap_or_default());
        }
    }

    #[test]
    fn a_mistyped_option_is_an_error_that_names_the_right_one() {
        let error = parse("remuda controller --shceme=lru").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--scheme"), "{error}");
        assert!(parse("remuda controller --scheme=fastest").unwrap_err().to_string().contains("leastload"));
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!((size("500"), size("64k"), size("1M"), size("2G")), (Ok(500), Ok(65_536), Ok(1 << 20), Ok(2 << 30)));
        for text in ["", "k", "0", "-1", "1x", "1.5M"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_map_runs_may_have_options_of_its_own() {
        let Command::Map(map) = parse("remuda map -n 3 -- wc -l {} ::: a b").unwrap().command else { panic!() };
        assert_eq!(map.command, ["wc", "-l", "{}", ":::", "a", "b"]);
        let Command::Map(map) = parse("remuda map wc -l -n {} ::: a").unwrap().command else { panic!() };
        assert_eq!(map.command.len(), 6);
        for words in ["remuda map -j2 -- wc -l", "remuda map --embedded -kn2 -- wc -l", "remuda map -n2 wc -l"] {
            let Command::Map(map) = parse(words).unwrap().command else { panic!() };
            assert_eq!((map.jobs, map.command.len()), (Some(2), 2), "{words}");
        }
        for words in ["remuda map", "remuda map -n 0 -- true ::: a", "remuda map -n x -- true ::: a"] {
            assert_eq!(parse(words).unwrap_err().exit_code(), 2, "{words}");
        }
    }
}
