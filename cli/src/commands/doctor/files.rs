//! The program itself, the folder of the profile, and the connection files in it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use remuda_net::connection_file::{self, FileError};
use remuda_net::{address, curve};
use remuda_proto::connection::Common;

use super::{Finding, Subject};

pub(super) fn program() -> Finding {
    let (libzmq, _) = remuda_net::libzmq();
    let curve = if curve::is_available() { "with" } else { "without" };
    Finding::ok("program", format!("remuda {}, libzmq {libzmq} {curve} CURVE", env!("CARGO_PKG_VERSION")))
}

/// Whether the folder is there, can be written, and keeps its secrets.
pub(super) fn folder(subject: &Subject<'_>) -> Vec<Finding> {
    const CHECK: &str = "profile";
    let dir = subject.profile.dir();
    let shown = dir.display();
    if !dir.exists() {
        let parent = dir.ancestors().find(|folder| folder.exists()).unwrap_or_else(|| Path::new("/"));
        return vec![match writable(parent) {
            Ok(()) => Finding::ok(CHECK, format!("`{shown}` is not there yet: the first controller makes it")),
            Err(error) => Finding::error(
                CHECK,
                format!("`{shown}` is not there, and cannot be made in `{}`: {error}", parent.display()),
                "name another folder with `--profile-dir`, or make that one with `sudo install -d -o \"$USER\"`",
            ),
        }];
    }
    let mut findings = Vec::new();
    for folder in [dir.to_owned(), subject.profile.security(), subject.profile.log(), subject.profile.pid()] {
        if folder.exists()
            && let Err(error) = writable(&folder)
        {
            let folder = folder.display();
            findings.push(Finding::error(
                CHECK,
                format!("nothing can be written to `{folder}`: {error}"),
                format!(
                    "`chmod u+w {folder}`, or `chown` if it is somebody else's; or name another with `--profile-dir`"
                ),
            ));
        }
    }
    let security = subject.profile.security();
    if let Ok(metadata) = fs::metadata(&security) {
        let (mode, shown) = (metadata.permissions().mode() & 0o777, security.display());
        if mode & 0o077 != 0 {
            findings.push(Finding::error(
                CHECK,
                format!("others may look into `{shown}` (mode {mode:o}), which holds the keys"),
                format!("`chmod 700 {shown}`"),
            ));
        }
        let (owner, own) = (metadata.uid(), nix::unistd::geteuid().as_raw());
        if owner != own {
            findings.push(Finding::warning(
                CHECK,
                format!("`{shown}` belongs to the user {owner}, and this one is {own}"),
                "run it as that user, or use a profile of your own",
            ));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, format!("`{shown}` can be written, and its keys are the owner's alone")));
    }
    findings
}

/// Whether a file can be made in the folder; it leaves none.
fn writable(folder: &Path) -> std::io::Result<()> {
    tempfile::tempfile_in(folder).map(drop)
}

/// Whether the connection files can be used, and whether their controller listens.
pub(super) fn connection(subject: &Subject<'_>) -> (Vec<Finding>, bool) {
    const CHECK: &str = "connection files";
    let (client, engine) = files_of(subject);
    if !client.exists() && !engine.exists() {
        let text = format!("none in `{}`: no controller runs there", subject.profile.security().display());
        return (vec![Finding::ok(CHECK, text)], false);
    }
    let mut findings = Vec::new();
    let mut listening = 0;
    let keeps = subject.config.as_ref().is_some_and(|config| config.reuse);
    for (path, common) in [
        (&client, connection_file::read_client(&client).map(|file| file.common)),
        (&engine, connection_file::read_engine(&engine).map(|file| file.common)),
    ] {
        let shown = path.display();
        findings.extend(permissions(CHECK, path));
        let common = match common {
            Ok(common) => common,
            Err(error) => {
                let start =
                    format!("start the controller again (`remuda controller{}`), which writes both", subject.options);
                let fix = match &error {
                    FileError::Missing { .. } | FileError::Curve { .. } => start,
                    FileError::Unreadable { .. } => format!("`chmod 600 {shown}`, or run this as its owner"),
                    _ => format!("remove it, and {start}"),
                };
                findings.push(Finding::error(CHECK, crate::failure::Failure::new(error).text(), fix));
                continue;
            }
        };
        match listens(subject, &common) {
            (_, Some(true)) => listening += 1,
            (at, Some(false)) if keeps => findings.push(Finding::warning(
                CHECK,
                format!("nothing listens at {at}, which `{shown}` names; it is kept for the next start (`reuse`)"),
                format!("start the controller: `remuda controller{}`", subject.options),
            )),
            (at, Some(false)) => findings.push(Finding::error(
                CHECK,
                format!("nothing listens at {at}, which `{shown}` names: its controller is gone"),
                format!("`rm {shown}`, or start the controller again: `remuda controller{}`", subject.options),
            )),
            (at, None) => findings.push(Finding::warning(
                CHECK,
                format!("whether a controller listens at {at}, which `{shown}` names, cannot be told: no answer"),
                "see that its host is up, and that no firewall is in between (`--ports` fixes the ports)",
            )),
        }
    }
    if findings.is_empty() {
        let folder = subject.profile.security();
        let text = format!("both in `{}` can be used by their owner alone, and a controller listens", folder.display());
        findings.push(Finding::ok(CHECK, text));
    }
    (findings, listening > 0)
}

/// Where they are: as the configuration has it.
pub(super) fn files_of(subject: &Subject<'_>) -> (std::path::PathBuf, std::path::PathBuf) {
    match &subject.config {
        Some(config) => (config.client_file.clone(), config.engine_file.clone()),
        None => (subject.profile.client_file(), subject.profile.engine_file()),
    }
}

/// Whether others than the owner may read a file that they must not.
pub(super) fn permissions(check: &'static str, path: &Path) -> Option<Finding> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let shown = path.display();
    let text = format!("others may read `{shown}` (mode {mode:o})");
    (mode & 0o077 != 0).then(|| Finding::error(check, text, format!("`chmod 600 {shown}`")))
}

/// The address of the hub, and whether something listens there.
fn listens(subject: &Subject<'_>, common: &Common) -> (String, Option<bool>) {
    let interface = address::connect_interface(common);
    let listens = address::listens(&interface, common.registration, subject.timeout);
    (address::url(&interface, common.registration), listens)
}
