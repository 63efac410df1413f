//! Nannies on other machines, over SSH.
//!
//! For each nanny, [`Ssh::prepare`] makes a folder on its host, which is its user's alone, and sends the engines' connection file
//! into it. [`Ssh::nanny`] is the command that runs the nanny there, with its stdin and stdout here; when it ends, for whatever reason, the folder
//! goes. The nanny ends with the connection, by the end of its stdin.

mod host;
mod tunnel;

pub use host::{HostError, HostSpec};
pub use tunnel::{NoTunnel, Tunnels};

use std::ffi::OsString;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use super::quote::{line, quoted};
use super::run::{RunError, and, last_lines, run};
use crate::process::ProcessId;

/// The option, and with it the name in a `remuda.toml`, that says what `remuda` is called on the other machines.
pub const REMOTE_PROGRAM_OPTION: &str = "ssh-remuda";
/// How long a connection may take to be made.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long what is run on a host may take besides, where it is not the nanny.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a nanny may take to end its engines, when it is asked to over SSH, before it is killed.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// How often ssh asks whether the other side is there, in seconds.
const ALIVE_INTERVAL_S: u64 = 15;
/// How often it asks without an answer before it gives up: a network may be away for five minutes.
const ALIVE_COUNT: u64 = 20;
/// The status with which ssh ends when something is wrong with the connection.
const SSH_FAILED: i32 = 255;
/// The status of a shell that does not find a program.
const NOT_FOUND: i32 = 127;
/// The status of a shell that must not run a program.
const NOT_EXECUTABLE: i32 = 126;
/// The status of our own script for a process that is not there.
const GONE: i32 = 3;
/// What stands before the folder's path in what a host prints: a login may print more.
const MARK: &str = "remuda-folder:";
/// The connection file's name in the folder.
const FILE: &str = "ipcontroller-engine.json";

/// How hosts are reached.
#[derive(Clone, Debug)]
pub struct Ssh {
    /// The ssh program and its first arguments. What these set goes over what is set here.
    pub program: Vec<OsString>,
    /// What `remuda` is called on the hosts: the program and its first arguments.
    pub remote_program: Vec<String>,
    /// How long a connection may take to be made, to the second.
    pub connect_timeout: Duration,
}

impl Default for Ssh {
    fn default() -> Self {
        Self {
            program: vec!["ssh".into()],
            remote_program: vec!["remuda".to_owned()],
            connect_timeout: CONNECT_TIMEOUT,
        }
    }
}

/// A folder on a host with a connection file in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Its path there.
    pub folder: String,
    /// What leads from there to the controller, if engines cannot reach it themselves.
    pub tunnels: Option<Tunnels>,
}

/// Something that cannot be done on a host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SshError {
    /// There is no connection: ssh says why.
    #[error("cannot reach {host} over SSH{}", and(said))]
    Connection {
        /// The host.
        host: String,
        /// The last lines that ssh wrote.
        said: String,
    },
    /// A port that a tunnel needs is in use on the host. Another seed for [`Tunnels::new`] takes others.
    #[error("a tunnel to {host} cannot be made{}", and(said))]
    Forward {
        /// The host.
        host: String,
        /// The last lines that ssh wrote.
        said: String,
    },
    /// The host does not have the program.
    #[error(
        "{host} has no program `{program}` that can be run: install it there, or name it by `{REMOTE_PROGRAM_OPTION}`{}",
        and(said)
    )]
    NoProgram {
        /// The host.
        host: String,
        /// The program.
        program: String,
        /// What the shell there says.
        said: String,
    },
    /// What was run on the host failed.
    #[error("what was run on {host} failed ({status}){}", and(said))]
    Remote {
        /// The host.
        host: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines that it wrote.
        said: String,
    },
    /// The ssh program could not be run, or took too long.
    #[error("cannot reach {host}")]
    Program {
        /// The host.
        host: String,
        /// Why.
        source: RunError,
    },
}

/// What became of a nanny that was to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It was there, and has ended.
    Ended,
    /// It was not there any more.
    Gone,
}

impl Ssh {
    /// Makes a folder on a host (mode 0700) with the connection file in it (0600), and returns its path there. It goes with the
    /// nanny that [`nanny`](Self::nanny) starts; if none is started, [`discard`](Self::discard) removes it.
    ///
    /// # Errors
    /// When the host cannot be reached, or has no place for it.
    pub fn prepare(&self, host: &HostSpec, connection_file: &str) -> Result<String, SshError> {
        let script = format!(
            r#"umask 077; d=$(mktemp -d "${{TMPDIR:-/tmp}}/remuda-XXXXXXXX") && cat > "$d/{FILE}" && echo "{MARK}$d""#
        );
        let out = self.run(host, &script, connection_file)?;
        let folder = out.lines().find_map(|line| line.strip_prefix(MARK));
        folder.map(str::to_owned).ok_or_else(|| SshError::Connection {
            host: host.to_string(),
            said: format!("it does not run what it is told; its answer was `{}`", last_lines(&out)),
        })
    }

    /// Removes what was prepared.
    ///
    /// # Errors
    /// When the host cannot be reached.
    pub fn discard(&self, host: &HostSpec, folder: &str) -> Result<(), SshError> {
        self.run(host, &format!("rm -rf {}", quoted(folder)), "").map(drop)
    }

    /// The command that runs `remuda nanny` on a host with these arguments, and with `--file` that names what was prepared. Its
    /// stdin, stdout and stderr are pipes: the first two are the nanny's own, stderr is ssh's and the nanny's. When it has ended,
    /// [`failure`](Self::failure) says what is wrong.
    ///
    /// With tunnels, ssh ends only when the last connection through them has: who has killed a nanny kills ssh as well.
    pub fn nanny(&self, host: &HostSpec, prepared: &Prepared, arguments: &[String]) -> Command {
        let (folder, file) = (quoted(&prepared.folder), quoted(&format!("--file={}/{FILE}", prepared.folder)));
        let program = [&self.remote_program[..], &["nanny".to_owned()]].concat();
        // The shell outlives signals that end the nanny, to clean up; signals that it handles itself are not ignored by the nanny.
        let script = format!(
            "trap : HUP INT TERM; {} {file} {}; s=$?; rm -rf {folder}; exit $s",
            line(&program),
            line(arguments)
        );
        let options = prepared.tunnels.as_ref().map(Tunnels::options).unwrap_or_default();
        let mut command = self.command(host, &options, &script);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Ends a nanny on a host whose connection is gone, and with it its engines: asks it, waits for as long as [`STOP_TIMEOUT`], and
    /// kills it. Another process that has got its pid since is left alone, if its start is known.
    ///
    /// # Errors
    /// When the host cannot be reached, or the process cannot be signalled.
    pub fn stop(&self, host: &HostSpec, nanny: ProcessId) -> Result<Stopped, SshError> {
        match self.run(host, &stop_script(nanny), "") {
            Ok(_) => Ok(Stopped::Ended),
            Err(SshError::Remote { status, .. }) if status.code() == Some(GONE) => Ok(Stopped::Gone),
            Err(error) => Err(error),
        }
    }

    /// What is wrong if a command of [`nanny`](Self::nanny) ended like this, having written this to stderr; `None`: nothing.
    pub fn failure(&self, host: &HostSpec, status: ExitStatus, stderr: &str) -> Option<SshError> {
        let (host, said) = (host.to_string(), last_lines(stderr));
        let program = || self.remote_program.first().cloned().unwrap_or_default();
        let forward = ["remote port forwarding failed", "forwarding failed for listen port"];
        Some(match status.code() {
            Some(0) => return None,
            Some(SSH_FAILED) if forward.iter().any(|words| said.contains(words)) => SshError::Forward { host, said },
            Some(SSH_FAILED) => SshError::Connection { host, said },
            Some(NOT_FOUND | NOT_EXECUTABLE) => SshError::NoProgram { host, program: program(), said },
            _ => SshError::Remote { host, status, said },
        })
    }

    /// Runs a script on a host to its end. Returns what it printed.
    fn run(&self, host: &HostSpec, script: &str, input: &str) -> Result<String, SshError> {
        let limit = self.connect_timeout + COMMAND_TIMEOUT;
        let ran = run(&mut self.command(host, &[], script), input, limit)
            .map_err(|source| SshError::Program { host: host.to_string(), source })?;
        match self.failure(host, ran.status, &ran.err) {
            None => Ok(ran.out),
            Some(error) => Err(error),
        }
    }

    fn command(&self, host: &HostSpec, options: &[String], script: &str) -> Command {
        let mut words = self.program.iter();
        let mut command = Command::new(words.next().map_or_else(|| "ssh".into(), Clone::clone));
        command.args(words);
        // Of settings that are given twice, ssh takes the first.
        command.args(["-T", "-x", "-a", "-o", "BatchMode=yes"]);
        command.arg("-o").arg(format!("ConnectTimeout={}", self.connect_timeout.as_secs().max(1)));
        command.arg("-o").arg(format!("ServerAliveInterval={ALIVE_INTERVAL_S}"));
        command.arg("-o").arg(format!("ServerAliveCountMax={ALIVE_COUNT}"));
        command.args(options);
        if let Some(port) = host.port {
            command.args(["-p", &port.to_string()]);
        }
        // The user's shell there may be any.
        command.args(["--", &host.destination(), &format!("exec sh -c {}", quoted(script))]);
        command
    }
}

/// Field 22 of a process's `stat` is its start, the 20th after the name, which may hold anything.
fn stop_script(nanny: ProcessId) -> String {
    let ProcessId { pid, started } = nanny;
    let is_same = started.map_or_else(String::new, |started| {
        format!(
            "if [ -r /proc/{pid}/stat ]; then set -- $(sed 's/.*) //' /proc/{pid}/stat); [ \"${{20}}\" = {started} ] || exit {GONE}; fi; "
        )
    });
    let tenths = STOP_TIMEOUT.as_secs() * 10;
    format!(
        "kill -0 {pid} 2>/dev/null || [ -d /proc/{pid} ] || exit {GONE}; {is_same}kill -TERM {pid} || exit 1; i=0; \
         while kill -0 {pid} 2>/dev/null; do i=$((i+1)); [ $i -lt {tenths} ] || {{ kill -KILL {pid}; break; }}; sleep 0.1 2>/dev/null || \
         {{ sleep 1; i=$((i+9)); }}; done; exit 0"
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt, ExitStatusExt};

    use nix::unistd::Pid;

    use super::*;

    fn words(command: &Command) -> Vec<String> {
        let all = std::iter::once(command.get_program()).chain(command.get_args());
        all.map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_command_has_what_was_asked_for_first_and_a_script_for_any_shell() {
        let ssh = Ssh { program: ["ssh", "-i", "key"].map(Into::into).into(), ..Ssh::default() };
        let host = "me@[::1]:2222=3".parse().unwrap();
        let prepared = Prepared { folder: "/tmp/remuda-x y".into(), tunnels: None };
        let command = words(&ssh.nanny(&host, &prepared, &["-n".into(), "3".into(), "--speak".into(), "a'b".into()]));
        assert_eq!(command[..4], ["ssh", "-i", "key", "-T"]);
        assert!(command.contains(&"BatchMode=yes".to_owned()) && command.contains(&"ConnectTimeout=20".to_owned()));
        let tail = &command[command.len() - 5..];
        assert_eq!(tail[..4], ["-p", "2222", "--", "me@::1"]);
        assert!(tail[4].starts_with("exec sh -c '"), "{}", tail[4]);
        // A shell takes the quotes off again.
        let inner = Command::new("sh").args(["-c", &tail[4].replacen("exec sh -c", "printf %s", 1)]).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&inner.stdout),
            r"trap : HUP INT TERM; remuda nanny '--file=/tmp/remuda-x y/ipcontroller-engine.json' -n 3 --speak 'a'\''b'; s=$?; rm -rf '/tmp/remuda-x y'; exit $s"
        );
    }

    #[test]
    fn failures_are_told_apart() {
        let (ssh, host) = (Ssh::default(), "node1".parse().unwrap());
        let failure = |code: i32, said: &str| ssh.failure(&host, ExitStatus::from_raw(code << 8), said);
        assert!(failure(0, "noise").is_none());
        let denied = failure(255, "Warning: x\nme@node1: Permission denied (publickey).\r\n").unwrap().to_string();
        assert!(
            denied.starts_with("cannot reach node1 over SSH: ") && denied.ends_with("Permission denied (publickey).")
        );
        let forward = failure(255, "Error: remote port forwarding failed for listen port 20000").unwrap();
        assert!(matches!(forward, SshError::Forward { .. }));
        let missing = failure(127, "sh: 1: remuda: not found").unwrap().to_string();
        assert!(missing.contains("`ssh-remuda`") && missing.contains("not found"), "{missing}");
        assert!(matches!(failure(1, ""), Some(SshError::Remote { .. })));
    }

    #[test]
    fn only_the_process_that_is_meant_is_ended() {
        let mut child = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let id = ProcessId::of(Pid::from_raw(child.id().cast_signed()));
        let run = |id| Command::new("sh").args(["-c", &stop_script(id)]).status().unwrap().code();
        assert_eq!(run(ProcessId { started: id.started.map(|started| started + 1), ..id }), Some(GONE));
        assert!(id.runs());
        let waiting = std::thread::spawn(move || child.wait().unwrap());
        assert_eq!(run(id), Some(0));
        assert_eq!(waiting.join().unwrap().signal(), Some(15));
        assert_eq!(run(id), Some(GONE));
    }
}
