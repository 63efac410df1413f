//! A nanny that was started, here or on another machine: what it is told, what it says, and its end.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::unistd::Pid;
use remuda_cluster::fleet::{Event, UnitId};
use remuda_cluster::launch::ssh::{HostSpec, Prepared, Ssh, Tunnels};
use remuda_cluster::{End, ProcessId, Word};
use remuda_proto::EngineConnection;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::say;

/// How long a process may take to end that says nothing any more.
const SLACK: Duration = Duration::from_secs(3);

/// The talk with a nanny.
pub(super) struct Line {
    pub(super) unit: UnitId,
    pub(super) to_say: mpsc::UnboundedReceiver<Word>,
    pub(super) events: mpsc::UnboundedSender<Event>,
    /// Set once it has started.
    pub(super) process: Arc<OnceLock<ProcessId>>,
    /// What it, or its ssh, writes to stderr.
    pub(super) log: PathBuf,
}

impl Line {
    /// Starts a nanny whose stdin and stdout are pipes.
    pub(super) fn start(&self, mut nanny: std::process::Command) -> io::Result<Child> {
        let stderr = File::options().create(true).append(true).open(&self.log)?;
        // A Ctrl-C at the terminal is ours to handle.
        nanny.stderr(stderr).process_group(0);
        let nanny = Command::from(nanny).spawn()?;
        let pid = nanny.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        let _ = self.process.set(ProcessId::of(Pid::from_raw(pid)));
        Ok(nanny)
    }

    /// Starts a nanny on another machine, and tends it.
    pub(super) async fn reach(
        self,
        ssh: Ssh,
        host: HostSpec,
        file: EngineConnection,
        tunnel: bool,
        mut arguments: Vec<String>,
    ) {
        let prepared = {
            let (ssh, host) = (ssh.clone(), host.clone());
            let made = tokio::task::spawn_blocking(move || prepare(&ssh, &host, file, tunnel)).await;
            made.unwrap_or_else(|error| Err(error.to_string()))
        };
        let started = prepared.and_then(|prepared| {
            // What it has there goes with it.
            arguments.push(format!("--profile-dir={}", prepared.folder));
            self.start(ssh.nanny(&host, &prepared, &arguments)).map_err(|error| format!("cannot run ssh: {error}"))
        });
        match started {
            Ok(nanny) => {
                self.tend(nanny, move |status, log| {
                    let said = std::fs::read_to_string(log).unwrap_or_default();
                    ssh.failure(&host, status, &said)
                        .map_or_else(|| End::of(status, log), |error| End::failed(error.to_string()))
                })
                .await;
            }
            Err(reason) => {
                let _ = self.events.send(Event::UnitEnded { unit: self.unit, end: End::failed(reason) });
            }
        }
    }

    /// Tells a nanny what it is to be told, and says what it says, until it ends.
    pub(super) async fn tend(self, mut nanny: Child, end: impl FnOnce(ExitStatus, &Path) -> End) {
        let Self { unit, mut to_say, events, log, .. } = self;
        let (mut stdin, stdout) = (nanny.stdin.take().expect("it is piped"), nanny.stdout.take().expect("it is piped"));
        tokio::spawn(async move {
            while let Some(word) = to_say.recv().await {
                let mut line = serde_json::to_vec(&word).expect("plain data can be written");
                line.push(b'\n');
                if stdin.write_all(&line).await.is_err() {
                    break;
                }
            }
        });
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            match serde_json::from_str(&line) {
                Ok(saying) => drop(events.send(Event::Said { unit, saying })),
                Err(error) => say(&format!("a nanny says what means nothing ({error}): {line}")),
            }
        }
        // An ssh with tunnels would wait for their last connection.
        let ended = if let Ok(ended) = tokio::time::timeout(SLACK, nanny.wait()).await {
            ended
        } else {
            let _ = nanny.start_kill();
            nanny.wait().await
        };
        let end = match ended {
            Ok(status) => end(status, &log),
            Err(error) => End::failed(format!("cannot be waited for: {error}")),
        };
        let _ = events.send(Event::UnitEnded { unit, end });
    }
}

/// Sends a host what a nanny needs there.
fn prepare(ssh: &Ssh, host: &HostSpec, file: EngineConnection, tunnel: bool) -> Result<Prepared, String> {
    let (tunnels, file) = if tunnel {
        let seed = u64::from_le_bytes(remuda_net::random_bytes()[..8].try_into().expect("8 of 16 bytes"));
        let (tunnels, there) = Tunnels::new(&file, seed).map_err(|error| error.to_string())?;
        (Some(tunnels), there)
    } else {
        (None, file)
    };
    let text = serde_json::to_string(&file).map_err(|error| error.to_string())?;
    let folder = ssh.prepare(host, &text).map_err(|error| error.to_string())?;
    Ok(Prepared { folder, tunnels })
}
