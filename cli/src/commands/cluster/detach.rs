//! `remuda cluster start --daemonize`: a supervisor in the background, and waiting until it says that all is there.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use remuda_cluster::fleet::{self, Answer};
use remuda_net::Profile;

use super::{door, say};
use crate::args::cluster::StartArgs;
use crate::failure::{Failure, Outcome};

/// How often the supervisor is asked whether all is there.
const POLL: Duration = Duration::from_millis(50);

/// How long engines may wait in a queue until it is said that they do.
const PATIENCE: Duration = Duration::from_secs(3);

/// Starts this very command once more, in the background.
pub(super) fn start(args: &StartArgs, profile: &Profile) -> Outcome {
    let log = profile.log_file("ipcluster");
    let file = File::create(&log).map_err(|error| {
        Failure::new(anyhow::Error::new(error).context(format!("cannot write the log `{}`", log.display())))
    })?;
    let mut words: Vec<_> = std::env::args_os().collect();
    let called = words.remove(0);
    let at = words.iter().position(|word| word == "start").map_or(words.len(), |at| at + 1);
    words.insert(at, "--detached".into());
    let mut child = Command::new(super::this_program()?)
        .arg0(called)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        .process_group(0)
        .spawn()?;
    let options = args.place.options();
    let (begin, mut is_told) = (Instant::now(), false);
    loop {
        if let Some(status) = child.try_wait()? {
            // It said what is wrong, in its log.
            say(std::fs::read_to_string(&log).unwrap_or_default().trim_end());
            let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
            return Ok(ExitCode::from(code));
        }
        if let Ok(Answer::Roster(roster)) = door::ask(profile, &options, &fleet::Command::Status) {
            if roster.ready {
                break;
            }
            if let Some((engines, reason)) = roster.waiting().filter(|_| !is_told && begin.elapsed() > PATIENCE) {
                is_told = true;
                let text = super::queue_text(engines, reason);
                say(&format!("{text}; Ctrl-C ends the waiting here, `remuda cluster stop{options}` the cluster"));
            }
        }
        thread::sleep(POLL);
    }
    say(std::fs::read_to_string(&log).unwrap_or_default().trim_end());
    say(&format!(
        "stop the cluster with `remuda cluster stop{options}`; what its supervisor says is in `{}`",
        log.display()
    ));
    Ok(ExitCode::SUCCESS)
}
