//! Starting a program, and learning of its end.

use std::io::{self, ErrorKind, PipeReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use remuda_proto::RemoteError;
use remuda_proto::message::native::ProcessTask;

use super::Program;

/// Starts the program in a process group of its own.
pub(super) fn spawn(program: &Program<'_>) -> Result<Child, RemoteError> {
    let task = program.task;
    let Some((name, arguments)) = task.argv.split_first() else {
        return Err(RemoteError::new("ValueError", "the process task names no program"));
    };
    let mut command = Command::new(name);
    command.args(arguments).process_group(0);
    command.stdin(if program.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.envs(program.env.iter().map(|(key, value)| (key, value)));
    for (key, value) in &task.env {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    if let Some(dir) = &task.cwd {
        command.current_dir(dir);
    }
    die_with_parent(&mut command);
    command.spawn().map_err(|error| explain(task, name, &error))
}

/// Asks the kernel to kill the program when the thread that starts it ends, and so when the engine does.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "only between fork and exec can a process ask for this")]
fn die_with_parent(command: &mut Command) {
    let parent = nix::unistd::getpid();
    // SAFETY: between fork and exec only async-signal-safe functions may be called; `prctl` and `getppid` are bare
    // system calls, and making an `io::Error` of a number does not allocate.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            // The engine may have died before the line above.
            if nix::unistd::getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
        });
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_: &mut Command) {}

/// Why it could not be started, in the words of Python's exceptions, and what to do.
fn explain(task: &ProcessTask, program: &str, error: &io::Error) -> RemoteError {
    let host = remuda_net::address::host_name().unwrap_or_else(|| "this machine".to_owned());
    // The system does not tell whether it is the program or the directory that is missing.
    if let Some(dir) = task.cwd.as_ref().filter(|dir| !Path::new(dir.as_str()).is_dir()) {
        let reason = format!("cannot run `{program}`: there is no directory `{dir}` on {host}");
        return RemoteError::new("FileNotFoundError", reason);
    }
    let (ename, hint) = match error.kind() {
        ErrorKind::NotFound if program.contains('/') => {
            ("FileNotFoundError", format!("there is no such file on {host}, or what its first line names is missing"))
        }
        ErrorKind::NotFound => {
            ("FileNotFoundError", format!("it is not in PATH on {host}; install it there, or give its full path"))
        }
        ErrorKind::PermissionDenied => {
            ("PermissionError", format!("it may not be run on {host}; is the file executable (`chmod +x`)?"))
        }
        ErrorKind::InvalidInput => ("ValueError", error.to_string()),
        _ => ("OSError", error.to_string()),
    };
    RemoteError::new(ename, format!("cannot run `{program}`: {hint}"))
}

/// A pipe that closes when the process has ended. The process is not reaped.
pub(super) fn exit_notice(process: u32) -> io::Result<PipeReader> {
    let (reader, writer) = io::pipe()?;
    let pid = Pid::from_raw(i32::try_from(process).expect("process ids are positive and fit"));
    std::thread::Builder::new().name("process-end".to_owned()).spawn(move || {
        while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
        drop(writer);
    })?;
    Ok(reader)
}
