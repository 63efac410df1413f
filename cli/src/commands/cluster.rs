//! `remuda cluster start` and `stop`.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use remuda_client::{Client, ConnectOptions};
use remuda_cluster::{ClusterFile, LocalCluster, ProcessId, Programs};
use remuda_net::Profile;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::cluster::{ClusterCommand, EngineKind, StartArgs, StopArgs};
use crate::failure::{Failure, Outcome};

/// How often the processes are looked at while engines are awaited, and afterwards.
const WATCH: Duration = Duration::from_millis(100);
/// How long a cluster may take to end by itself before its processes are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn run(command: &ClusterCommand) -> Outcome {
    match command {
        ClusterCommand::Start(args) => start(args),
        ClusterCommand::Stop(args) => stop(args),
    }
}

/// This program, so that controller and engines are of the same version.
pub(crate) fn this_program() -> Result<OsString, Failure> {
    Ok(std::env::current_exe()?.into_os_string())
}

fn start(args: &StartArgs) -> Outcome {
    let profile = args.place.profile();
    profile.create()?;
    if ClusterFile::read(&profile)?.is_some_and(|file| file.runs()) {
        return Err(Failure::new(anyhow::anyhow!("a cluster runs already in `{}`", profile.dir().display())).hint(
            format!("stop it with `remuda cluster stop{}`, or name another with `--cluster-id`", args.place.options()),
        ));
    }
    let engines = args.n.map_or_else(cores, usize::from);
    let programs = programs(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(supervise(args, &profile, &programs, engines))
}

fn programs(args: &StartArgs) -> Result<Programs, Failure> {
    let this = this_program()?;
    let mut controller: Vec<OsString> = vec![this.clone(), "controller".into()];
    let mut engine: Vec<OsString> = match args.engines {
        EngineKind::Native => vec![this, "engine".into()],
        EngineKind::Python => {
            let from_environment = std::env::var("REMUDA_PYTHON").ok().filter(|python| !python.is_empty());
            let python = args.python.clone().or(from_environment).unwrap_or_else(|| "python3".to_owned());
            vec![python.into(), "-m".into(), "ipyparallel.engine".into()]
        }
    };
    if !args.daemonize {
        // Then even a killed supervisor leaves nothing behind.
        let parent = || ["--parent".into(), std::process::id().to_string().into()];
        controller.extend(parent());
        if args.engines == EngineKind::Native {
            engine.extend(parent());
        }
    }
    controller.extend(args.controller.iter().map(OsString::from));
    Ok(Programs { controller, engine })
}

async fn supervise(args: &StartArgs, profile: &Profile, programs: &Programs, engines: usize) -> Outcome {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut cluster = LocalCluster::start(programs, profile, engines)?;
    ClusterFile {
        controller: cluster.controller().process_id(),
        engines: cluster.engines().iter().map(remuda_cluster::Launched::process_id).collect(),
        supervisor: (!args.daemonize).then(ProcessId::this),
    }
    .write(profile)?;
    let mut file = RemoveFile { profile, keep: false };

    let ready = tokio::select! {
        ready = engines_ready(&mut cluster, engines, Duration::from_secs_f64(args.timeout)) => ready,
        _ = interrupt.recv() => return Ok(ExitCode::from(130)),
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
    };
    ready?;
    let options = args.place.options();
    say(&format!("{engines} engines are ready; connection files in `{}`", profile.security().display()));
    if args.daemonize {
        say(&format!("stop the cluster with `remuda cluster stop{options}`"));
        cluster.detach();
        file.keep = true;
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("press Ctrl-C to stop, or run `remuda cluster stop{options}`"));
    let mut engines_left = engines;
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = tokio::time::sleep(WATCH) => {
                if let Some(status) = cluster.controller_ended() {
                    if !status.success() {
                        return Err(cluster.failure().map_or_else(|| Failure::usage("the controller ended"), Failure::new));
                    }
                    say("the controller was shut down");
                    break;
                }
                let alive = cluster.engines_alive();
                if alive < engines_left {
                    say(&format!("{} of {engines} engines ended; see `{}`", engines - alive, profile.log().display()));
                    engines_left = alive;
                }
            }
        }
    }
    cluster.stop();
    say("the cluster is stopped");
    Ok(ExitCode::SUCCESS)
}

/// Waits until all engines are registered, or one of the processes has ended.
pub(crate) async fn engines_ready(
    cluster: &mut LocalCluster,
    engines: usize,
    timeout: Duration,
) -> Result<Client, Failure> {
    let options = ConnectOptions::file(cluster.profile().client_file()).timeout(timeout);
    let client = Client::connect(options).await?;
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

/// Removes the cluster file when the command ends, however it ends.
struct RemoveFile<'a> {
    profile: &'a Profile,
    keep: bool,
}

impl Drop for RemoveFile<'_> {
    fn drop(&mut self) {
        if !self.keep {
            ClusterFile::remove(self.profile);
        }
    }
}

fn stop(args: &StopArgs) -> Outcome {
    let profile = args.place.profile();
    let Some(file) = ClusterFile::read(&profile)? else {
        return Err(Failure::new(anyhow::anyhow!("no cluster was started in `{}`", profile.dir().display()))
            .hint("name the right one with `--profile`, `--profile-dir` or `--cluster-id`"));
    };
    let mut ended = 0;
    if let Some(supervisor) = file.supervisor {
        // It ends the others itself, and removes the file.
        ended += remuda_cluster::end(&[supervisor], STOP_TIMEOUT);
    }
    ended += remuda_cluster::end(&file.processes(), remuda_cluster::STOP_TIMEOUT);
    ClusterFile::remove(&profile);
    for path in [profile.client_file(), profile.engine_file()] {
        // Left over where the controller was killed.
        let _ = std::fs::remove_file(path);
    }
    if ended == 0 {
        say("the cluster had ended already");
    } else {
        say("the cluster is stopped");
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[expect(clippy::print_stderr, reason = "talk goes to stderr")]
fn say(text: &str) {
    eprintln!("{text}");
}
