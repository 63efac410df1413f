//! `remuda cluster stop`, `list` and `clean`: what the files of clusters say, and their end.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use remuda_cluster::ClusterFile;
use remuda_net::profile::{self, variable};
use remuda_net::{Profile, address, connection_file};

use super::{runner, say};
use crate::args::PlaceArgs;
use crate::args::cluster::{CleanArgs, ListArgs, ListFormat, StopArgs};
use crate::failure::{Failure, Outcome};

/// How long a cluster may take to end by itself before its processes are killed.
/// The programs of a batch system may be slow.
const STOP_TIMEOUT: Duration = Duration::from_secs(70);
/// How long a controller may take to let itself be connected to.
const PROBE: Duration = Duration::from_millis(500);
/// Exit code of `ipcluster stop` where there is no cluster (`cluster/app.py: ALREADY_STOPPED`).
const STOCK_ALREADY_STOPPED: u8 = 11;

pub(super) fn stop(args: &StopArgs, is_stock: bool) -> Outcome {
    let given = args.place.profile();
    let ids = if args.all {
        ClusterFile::ids(given.dir())
    } else if args.ids.is_empty() {
        vec![given.cluster_id().to_owned()]
    } else {
        args.ids.clone()
    };
    if ids.is_empty() {
        say("there is no cluster to stop");
    }
    for id in ids {
        stop_one(&Profile::at(given.dir(), &id), is_stock)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn stop_one(profile: &Profile, is_stock: bool) -> Result<(), Failure> {
    let Some(file) = ClusterFile::read(profile)? else {
        return Err(Failure::new(anyhow::anyhow!("no cluster was started in `{}`", profile.dir().display()))
            .hint("name the right one with `--profile`, `--profile-dir` or `--cluster-id`; `remuda cluster list` shows all")
            .code(if is_stock { STOCK_ALREADY_STOPPED } else { 1 }));
    };
    let mut ended = 0;
    if let Some(supervisor) = file.supervisor {
        // It ends the others itself, and removes the files.
        ended += remuda_cluster::end(&[supervisor], STOP_TIMEOUT);
    }
    ended += remuda_cluster::end(&file.processes(), remuda_cluster::STOP_TIMEOUT);
    // A supervisor that ended by itself has removed the file, and ended all jobs.
    if let Some(launcher) = file.launcher.as_ref().filter(|_| ClusterFile::path(profile).exists()) {
        match runner::cancel_all(launcher, &file.jobs) {
            Ok(jobs) => ended += jobs,
            Err(reason) => {
                let ids: Vec<&str> = file.jobs.iter().map(|job| &*job.id).collect();
                say(&format!("warning: {reason}; see that these jobs end: {}", ids.join(", ")));
            }
        }
    }
    ClusterFile::remove(profile);
    if let Some(door) = &file.control {
        // Left over where the supervisor was killed.
        let _ = fs::remove_file(door);
    }
    if !file.reuse {
        for path in [profile.client_file(), profile.engine_file()] {
            // Left over where the controller was killed.
            let _ = fs::remove_file(path);
        }
    }
    say(if ended == 0 { "the cluster had ended already" } else { "the cluster is stopped" });
    Ok(())
}

/// The profiles that are meant: the one that is named, or else all of IPython's folder.
fn profile_dirs(place: &PlaceArgs, all: bool) -> Vec<PathBuf> {
    let is_named = place.profile.is_some() || place.profile_dir.is_some();
    let in_environment = std::env::var_os(variable::PROFILE_DIR).is_some_and(|dir| !dir.is_empty());
    if (is_named || in_environment) && !all {
        return vec![place.profile().dir().to_owned()];
    }
    let folder = place.ipython_dir.clone().unwrap_or_else(profile::ipython_dir);
    let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
    let is_profile =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("profile_"));
    let mut dirs: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_profile).collect();
    if is_named || in_environment {
        dirs.push(place.profile().dir().to_owned());
    }
    dirs.sort();
    dirs.dedup();
    dirs
}

/// How stock names a profile: by its name where it is in IPython's folder, else by its path.
fn profile_name(place: &PlaceArgs, dir: &Path) -> String {
    let folder = place.ipython_dir.clone().unwrap_or_else(profile::ipython_dir);
    let name =
        dir.strip_prefix(&folder).ok().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("profile_"));
    name.map_or_else(|| dir.display().to_string(), str::to_owned)
}

pub(super) fn list(args: &ListArgs) -> Outcome {
    let mut clusters = Vec::new();
    for dir in profile_dirs(&args.place, false) {
        for id in ClusterFile::ids(&dir) {
            let profile = Profile::at(&dir, &id);
            match ClusterFile::read(&profile) {
                Ok(Some(file)) => clusters.push((profile, file)),
                Ok(None) => {}
                Err(error) => say(&format!("warning: {error}")),
            }
        }
    }
    let mut out = std::io::stdout().lock();
    if args.output == ListFormat::Json {
        let all: Vec<_> = clusters.iter().map(|(profile, file)| file.to_stock(profile)).collect();
        writeln!(out, "{}", serde_json::Value::Array(all))?;
        return Ok(ExitCode::SUCCESS);
    }
    // The columns are as wide as in stock's list, which scripts cut up.
    writeln!(out, "{:16} {:32} {:7} {:7} LAUNCHER", "PROFILE", "CLUSTER ID", "RUNNING", "ENGINES")?;
    for (profile, file) in clusters {
        let name = profile_name(&args.place, profile.dir());
        let id = if profile.cluster_id().is_empty() { "''" } else { profile.cluster_id() };
        let runs = if file.runs() { "True" } else { "False" };
        let launcher = file.launcher.as_deref().unwrap_or("Local");
        writeln!(out, "{name:16} {id:32} {runs:7} {:7} {launcher}", file.engines_running())?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn clean(args: &CleanArgs) -> Outcome {
    let dirs = if args.all { profile_dirs(&args.place, true) } else { vec![args.place.profile().dir().to_owned()] };
    let mut running = Vec::new();
    for dir in dirs {
        running.extend(clean_profile(&dir, args.force));
    }
    if running.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let list = running.join(", ");
    Err(Failure::new(anyhow::anyhow!("the files of what runs were left in place: {list}"))
        .hint("stop it with `remuda cluster stop --all`, or remove them all the same with `--force`"))
}

/// Removes the files of a profile, and returns what was left since it runs.
fn clean_profile(dir: &Path, force: bool) -> Vec<String> {
    let mut running = Vec::new();
    for id in ClusterFile::ids(dir) {
        let profile = Profile::at(dir, &id);
        if !force && ClusterFile::read(&profile).is_ok_and(|file| file.is_some_and(|file| file.runs())) {
            running.push(format!("cluster `{id}` in `{}`", dir.display()));
        } else {
            ClusterFile::remove(&profile);
        }
    }
    let profile = Profile::at(dir, "");
    let files = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    for file in files(profile.security()) {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_client = name.starts_with("ipcontroller-") && name.ends_with("client.json");
        let other = file.with_file_name(name.replace("client.json", "engine.json"));
        if !is_client {
            continue;
        }
        if !force && listens(&file) {
            running.push(format!("the controller of `{}`", file.display()));
            continue;
        }
        remove(&file);
        remove(&other);
    }
    // What a controller that runs writes to is not to be taken from it.
    if running.is_empty() {
        files(profile.log()).filter(|path| path.is_file()).for_each(|path| remove(&path));
    }
    running
}

fn listens(file: &Path) -> bool {
    connection_file::read_client(file).is_ok_and(|client| {
        let interface = address::connect_interface(&client.common);
        address::listens(&interface, client.common.registration, PROBE) == Some(true)
    })
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        say(&format!("warning: cannot remove `{}`: {error}", path.display()));
    }
}
