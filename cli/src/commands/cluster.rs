//! `remuda cluster`: starting a cluster and waiting for it.

mod detach;
pub(super) mod door;
mod engines;
mod files;
mod invite;
mod jobs;
mod line;
mod lines;
mod logs;
mod placing;
mod runner;
mod status;
mod supervise;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use remuda_client::{Client, ConnectOptions};
use remuda_cluster::fleet::Elastic;
use remuda_cluster::launch::ssh::Ssh;
use remuda_cluster::{ClusterFile, EngineSet, LocalCluster, Programs};
use remuda_net::Profile;
use remuda_proto::message::restart::Restart;
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::mpsc;

use super::say;
use super::venue::OUTPUT_LIMIT_BYTES;
use crate::args::cluster::{ClusterCommand, EngineArgs, EngineKind, EnginesArgs, Launcher, StartArgs};
use crate::args::switch;
use crate::failure::{Failure, Outcome};
use crate::{engine_command, logging, python};

/// How often the processes are looked at while engines are awaited, and afterwards.
const WATCH: Duration = Duration::from_millis(100);

/// Exit code of `ipcluster start` where the cluster runs already (`cluster/app.py: ALREADY_STARTED`).
const STOCK_ALREADY_STARTED: u8 = 10;

/// `notes` is what was said somewhere and has no effect; `is_stock`, whether it was called as `ipcluster`.
pub(crate) fn run(command: &ClusterCommand, notes: &[String], is_stock: bool) -> Outcome {
    for note in notes {
        say(&format!("warning: {note}"));
    }
    match command {
        ClusterCommand::Invite(args) => invite::run(args),
        ClusterCommand::Start(args) => start(args, is_stock),
        ClusterCommand::Status(args) => status::run(args),
        ClusterCommand::Logs(args) => logs::run(args),
        ClusterCommand::Engines(args) => match &args.action {
            Some(action) => engines::run(action),
            None => more_engines(args, is_stock),
        },
        ClusterCommand::Stop(args) => files::stop(args, is_stock),
        ClusterCommand::List(args) => files::list(args),
        ClusterCommand::Clean(args) => files::clean(args),
    }
}

/// This program, so that controller and engines are of the same version.
pub(crate) fn this_program() -> Result<OsString, Failure> {
    Ok(std::env::current_exe()?.into_os_string())
}

fn start(args: &StartArgs, is_stock: bool) -> Outcome {
    let profile = args.place.profile();
    args.config.enter_work_dir()?;
    profile.create()?;
    if ClusterFile::read(&profile)?.is_some_and(|file| file.runs()) {
        let what = anyhow::anyhow!("a cluster runs already in `{}`", profile.dir().display());
        let options = args.place.options();
        let hint = format!("stop it with `remuda cluster stop{options}`, or name another with `--cluster-id`");
        return Err(Failure::new(what).hint(hint).code(if is_stock { STOCK_ALREADY_STARTED } else { 1 }));
    }
    if args.engine.daemonize && !args.engine.detached {
        return detach::start(args, &profile);
    }
    if args.clean_logs {
        let id = profile.cluster_id();
        logging::remove_earlier(&profile, |file| {
            let is_log = |name| logging::is_log_of(file, name, id);
            ["ipcontroller", "ipengine", "ipnanny"].into_iter().any(is_log) || placing::is_output_of(file, id)
        });
    }
    let mut controller: Vec<OsString> = vec![this_program()?, "controller".into()];
    controller.extend(end_with_this());
    for (option, value) in [("--ip", &args.ip), ("--location", &args.location)] {
        controller.extend(value.as_ref().map(|value| format!("{option}={value}").into()));
    }
    controller.extend(args.controller_arg.iter().chain(&args.controller_options).map(OsString::from));
    let reuse = reuses(&controller);
    let elastic = elastic(args)?;
    let engines = args.engine.n.map_or_else(
        || elastic.map_or_else(|| u32::try_from(cores()).unwrap_or(u32::MAX), |elastic| elastic.min),
        u32::from,
    );
    let is_in_jobs = placing::launcher(args) != Launcher::Local;
    if is_in_jobs && args.engine.n.is_none() && elastic.is_none() {
        return Err(
            Failure::usage("how many engines there are to be in jobs is not said").hint("give `-n`, or `--max`")
        );
    }
    let of_hosts: Vec<u32> = args.host.iter().map(|host| host.engines.unwrap_or(1)).collect();
    let units = if of_hosts.is_empty() { vec![engines] } else { of_hosts };
    let kind = args.engine.engines.clone().unwrap_or(if is_stock { EngineKind::Python } else { EngineKind::Native });
    let restart = placing::restart(args, is_stock)?;
    let plan = supervise::Plan {
        programs: Programs { controller, engine: Vec::new() },
        nanny: nanny_arguments(&args.engine, &kind, restart),
        place: if is_in_jobs {
            placing::in_jobs(args, &kind, restart, &profile)?
        } else {
            place(args, &kind, &profile)?
        },
        restart,
        units,
        elastic,
        native: kind == EngineKind::Native,
        is_python: kind.is_python(),
        reuse,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(supervise::run(args, &profile, plan))
}

/// Between how many engines there are to be, if that follows the work.
fn elastic(args: &StartArgs) -> Result<Option<Elastic>, Failure> {
    let Some(max) = args.max else { return Ok(None) };
    let min = args.min.unwrap_or(0);
    if min > max {
        return Err(Failure::usage(format!("`--min={min}` is more than `--max={max}`")).hint("give a range"));
    }
    if let Some(n) = args.engine.n.filter(|n| !(min..=max).contains(n)) {
        let text = format!("`-n {n}`, the engines to begin with, is not between `--min={min}` and `--max={max}`");
        return Err(Failure::usage(text).hint("leave it out to begin with the least"));
    }
    Ok(Some(Elastic { min: min.into(), max: max.into(), idle: Duration::from_secs_f64(args.idle) }))
}

/// What nannies are told, wherever they are.
fn nanny_arguments(args: &EngineArgs, kind: &EngineKind, restart: Restart) -> Vec<String> {
    let mut nanny = vec![format!("--engines={}", kind.text()), format!("--restart={}", restart.policy.name())];
    nanny.extend(restart.limit.map(|limit| format!("--restart-limit={limit}")));
    nanny.extend(args.engine_arg.iter().map(|arg| format!("--engine-arg={arg}")));
    nanny
}

/// Where the engines are.
fn place(args: &StartArgs, kind: &EngineKind, profile: &Profile) -> Result<supervise::Where, Failure> {
    if !args.host.is_empty() {
        let mut arguments = vec![format!("--cluster-id={}", profile.cluster_id())];
        let python = args.engine.python.as_ref().filter(|_| kind.is_python());
        arguments.extend(python.map(|python| format!("--python={python}")));
        let program = [OsString::from("ssh")].into_iter().chain(args.ssh_arg.iter().map(OsString::from)).collect();
        let ssh = Ssh { program, remote_program: vec![args.ssh_remuda.clone()], ..Ssh::default() };
        return Ok(supervise::Where::Hosts { ssh, hosts: args.host.clone(), tunnel: args.tunnel, arguments });
    }
    if let EngineKind::Command(words) = kind {
        engine_command::check(words)?;
    }
    let mut program: Vec<OsString> = vec![this_program()?, "nanny".into()];
    for (option, value) in
        [("--profile-dir", profile.dir().as_os_str()), ("--cluster-id", profile.cluster_id().as_ref())]
    {
        program.extend([option.into(), value.to_owned()]);
    }
    // Whatever the environment invites to.
    program.extend(["--file".into(), profile.engine_file().into()]);
    if kind.is_python() {
        // Looked for here, where it is said at once if there is none.
        program.extend(["--python".into(), python::find(args.engine.python.as_deref())?]);
    }
    Ok(supervise::Where::Here { program })
}

/// Then even a killed supervisor leaves nothing behind.
pub(super) fn end_with_this() -> [OsString; 2] {
    ["--parent".into(), std::process::id().to_string().into()]
}

fn engine_program(args: &EngineArgs, is_stock: bool) -> Result<Vec<OsString>, Failure> {
    let default = if is_stock { EngineKind::Python } else { EngineKind::Native };
    let mut engine = match args.engines.clone().unwrap_or(default) {
        EngineKind::Native => {
            // `-n` says how much runs at once, unless the user says something else of the engines.
            let mut engine = vec![this_program()?, "engine".into(), "--slots".into(), "1".into()];
            if !args.daemonize {
                engine.extend(end_with_this());
            }
            engine
        }
        EngineKind::Python => python::engine_command(args.python.as_deref())?,
        EngineKind::Command(words) => {
            let what = format!("`{}` cannot be run as engines without a nanny", engine_command::joined(&words));
            let hint = "use `remuda cluster engines add` where `remuda cluster start` began with it, or `remuda nanny`";
            return Err(Failure::usage(what).hint(hint));
        }
        EngineKind::PythonBy(_) => {
            let what = "`remuda cluster engines` starts engines on this machine only";
            return Err(Failure::usage(what).hint("`remuda cluster engines add` starts more of the cluster's own kind"));
        }
    };
    engine.extend(args.engine_arg.iter().map(OsString::from));
    Ok(engine)
}

/// Whether the controller is to use connection files that are there.
fn reuses(controller: &[OsString]) -> bool {
    controller.iter().filter_map(|word| word.to_str()).any(|word| {
        let (option, value) = word.split_once('=').unwrap_or((word, "true"));
        matches!(option, "--reuse" | "--restore" | "--IPController.reuse_files" | "--IPController.restore_engines")
            && switch(value) != Ok(false)
    })
}

/// `remuda cluster engines`: more engines for the controller that runs.
fn more_engines(args: &EnginesArgs, is_stock: bool) -> Outcome {
    let profile = args.place.profile();
    args.config.enter_work_dir()?;
    profile.create()?;
    let count = args.engine.n.map_or_else(cores, usize::from);
    let program = engine_program(&args.engine, is_stock)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let client = Client::connect(ConnectOptions::file(profile.client_file())).await?;
        let before = client.engines().len();
        let mut set = EngineSet::start(&program, &profile, count)?;
        remember(&profile, &set)?;
        let timeout = Duration::from_secs_f64(args.engine.timeout);
        let ready = tokio::select! {
            ready = set_ready(&client, &mut set, before + count, timeout, &profile) => ready,
            end = signals.ends.next() => return Ok(ExitCode::from(end)),
        };
        ready?;
        say(&format!("{count} engines are ready"));
        if args.engine.daemonize {
            set.detach();
            return Ok(ExitCode::SUCCESS);
        }
        say("press Ctrl-C to stop them");
        loop {
            tokio::select! {
                _ = signals.ends.next() => break,
                signal = signals.forward.recv() => {
                    let Some(signal) = signal else { break };
                    set.signal(signal);
                }
                () = tokio::time::sleep(WATCH) => if set.alive() == 0 { break },
            }
        }
        set.stop();
        say("the engines are stopped");
        Ok(ExitCode::SUCCESS)
    })
}

/// Adds engines to the cluster file, if the controller was started by a command that wrote one.
fn remember(profile: &Profile, set: &EngineSet) -> Result<(), Failure> {
    let Some(mut file) = ClusterFile::read(profile)? else { return Ok(()) };
    file.engines.retain(|member| member.process.runs());
    file.engines.extend(set.members());
    file.write(profile)?;
    Ok(())
}

async fn set_ready(
    client: &Client,
    set: &mut EngineSet,
    engines: usize,
    timeout: Duration,
    profile: &Profile,
) -> Result<(), Failure> {
    let start = Instant::now();
    loop {
        let Err(missing) = client.wait_for_engines(engines, WATCH).await else { return Ok(()) };
        if let Some(failure) = set.failure() {
            return Err(failure.into());
        }
        if start.elapsed() > timeout {
            return Err(Failure::new(missing).hint(format!("see the engines' logs in `{}`", profile.log().display())));
        }
    }
}

/// The signals that a command which waits for processes answers to.
struct Signals {
    ends: Ends,
    /// SIGUSR1 and SIGUSR2, which are for the engines (`cluster/app.py: init_signal`).
    forward: mpsc::UnboundedReceiver<Signal>,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let (sender, forward) = mpsc::unbounded_channel();
        for (kind, signal) in
            [(SignalKind::user_defined1(), Signal::SIGUSR1), (SignalKind::user_defined2(), Signal::SIGUSR2)]
        {
            let (mut stream, sender) = (unix::signal(kind)?, sender.clone());
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    if sender.send(signal).is_err() {
                        break;
                    }
                }
            });
        }
        let (interrupt, terminate) = (unix::signal(SignalKind::interrupt())?, unix::signal(SignalKind::terminate())?);
        Ok(Self { ends: Ends { interrupt, terminate }, forward })
    }
}

/// Those that ask for the end.
struct Ends {
    interrupt: unix::Signal,
    terminate: unix::Signal,
}

impl Ends {
    /// Waits for one, and returns the exit code for a command that was not ready yet.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 0,
        }
    }
}

/// Waits until all engines are registered, or one of the processes has ended.
pub(crate) async fn engines_ready(
    cluster: &mut LocalCluster,
    engines: usize,
    timeout: Duration,
) -> Result<Client, Failure> {
    let options = ConnectOptions::file(cluster.profile().client_file()).timeout(timeout);
    let client = Client::connect(options.output_limit_bytes(OUTPUT_LIMIT_BYTES)).await?;
    let start = Instant::now();
    loop {
        let Err(missing) = client.wait_for_engines(engines, WATCH).await else { return Ok(client) };
        if let Some(failure) = cluster.failure() {
            return Err(failure.into());
        }
        if start.elapsed() > timeout {
            let logs = cluster.profile().log();
            return Err(Failure::new(missing).hint(format!("see the engines' logs in `{}`", logs.display())));
        }
    }
}

/// What is said of engines that wait in a queue.
fn queue_text(engines: u32, reason: &str) -> String {
    let why = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
    format!("waiting in the queue: {}{why}", engines_text(engines as usize))
}

/// So many engines.
fn engines_text(count: usize) -> String {
    if count == 1 { "1 engine".to_owned() } else { format!("{count} engines") }
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
