//! Starting a program.
//!
//! A program is started as `posix_spawn` does it: the child shares the memory of the engine until it runs the program, and
//! the thread that starts it stands still meanwhile. So it costs the same however large the engine is, while `fork` copies
//! the tables of all its memory and interrupts its other threads. It is done by hand since between the two a child can ask
//! for what `posix_spawn` cannot: to die with the engine, and limits of its own.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;
use remuda_proto::RemoteError;
use remuda_proto::message::native::Limits;

/// What the child may need before it runs the program.
const STACK_BYTES: usize = 64 * 1024;

/// A program that is to be started.
pub(crate) struct Start<'a> {
    pub(crate) argv: &'a [String],
    /// All of its environment.
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) cwd: Option<&'a str>,
    pub(crate) limits: &'a Limits,
    /// What it gets as stdin, stdout and stderr.
    pub(crate) stdio: [OwnedFd; 3],
    /// Where its process group is noted, for the guard.
    pub(crate) entry: Option<&'a AtomicI32>,
    /// Room for what the child does before it runs the program: at least [`STACK_BYTES`].
    pub(crate) stack: &'a mut [u8],
}

/// What went wrong in the child, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Group,
    Directory,
    Limit(&'static str),
    Files,
    Run,
}

/// All that the child needs, made beforehand: it takes no memory.
struct Prepared {
    path: CString,
    argv: Vec<*const libc::c_char>,
    /// For a script without a first line that names its interpreter: `sh` runs it.
    shell_argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    cwd: Option<CString>,
    limits: Vec<(Resource, u64, &'static str)>,
    stdio: [RawFd; 3],
}

/// What the system calls a resource that can be limited.
type Resource = libc::__rlimit_resource_t;

/// Starts a program in a process group of its own.
pub(crate) fn spawn(mut start: Start<'_>) -> Result<Pid, RemoteError> {
    let Some(name) = start.argv.first() else {
        return Err(RemoteError::new("ValueError", "the process task names no program"));
    };
    let invalid = |what: &str| RemoteError::new("ValueError", format!("cannot run `{name}`: {what} has a zero byte"));
    let text = |what: &str, bytes: &OsStr| CString::new(bytes.as_bytes()).map_err(|_| invalid(what));
    let path = find(name, start.cwd, &start.env).map_err(|error| explain(&start, Step::Run, &error))?;
    let path = text("its name", path.as_os_str())?;
    let argv: Vec<CString> =
        start.argv.iter().map(|word| text("an argument", OsStr::new(word))).collect::<Result<_, _>>()?;
    let env: Vec<CString> = start
        .env
        .iter()
        .map(|(key, value)| {
            let mut line = key.clone().into_vec();
            line.push(b'=');
            line.extend_from_slice(value.as_bytes());
            CString::new(line).map_err(|_| invalid(&format!("the variable `{}`", key.to_string_lossy())))
        })
        .collect::<Result<_, _>>()?;
    let cwd = start.cwd.map(|cwd| text("its directory", OsStr::new(cwd))).transpose()?;
    let pointers = |words: &[CString]| -> Vec<*const libc::c_char> {
        words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let shell_argv: Vec<*const libc::c_char> =
        [c"sh".as_ptr(), path.as_ptr()].into_iter().chain(pointers(&argv[1..])).collect();
    let limits = [
        (libc::RLIMIT_CPU, start.limits.cpu_seconds, "cpu_seconds"),
        (libc::RLIMIT_AS, start.limits.memory_bytes, "memory_bytes"),
        (libc::RLIMIT_NOFILE, start.limits.open_files, "open_files"),
        (libc::RLIMIT_FSIZE, start.limits.file_bytes, "file_bytes"),
    ];
    let limits = limits.into_iter().filter_map(|(resource, limit, name)| Some((resource, limit?, name))).collect();
    let stdio = std::array::from_fn(|at| start.stdio[at].as_raw_fd());
    let prepared = Prepared { argv: pointers(&argv), shell_argv, envp: pointers(&env), path, cwd, limits, stdio };
    let made = run(&prepared, start.entry, std::mem::take(&mut start.stack));
    made.map_err(|(step, errno)| explain(&start, step, &errno.into()))
}

/// Where a program is: as it is said if that has a slash, else in `PATH`, which is that of its own environment.
fn find(name: &str, cwd: Option<&str>, env: &[(OsString, OsString)]) -> io::Result<PathBuf> {
    if name.contains('/') {
        return Ok(PathBuf::from(name));
    }
    if name.is_empty() {
        return Err(ErrorKind::NotFound.into());
    }
    if name.contains('\0') {
        return Err(io::Error::new(ErrorKind::InvalidInput, "its name has a zero byte"));
    }
    let path = env.iter().find(|(key, _)| key == "PATH").map(|(_, value)| value.clone());
    let path = path.unwrap_or_else(|| OsString::from("/usr/local/bin:/usr/bin:/bin"));
    let mut denied = false;
    for folder in std::env::split_paths(&path) {
        let file = folder.join(name);
        // A folder that is relative is so to where the program runs.
        let seen = if file.is_absolute() { file.clone() } else { Path::new(cwd.unwrap_or(".")).join(&file) };
        match nix::unistd::access(&seen, nix::unistd::AccessFlags::X_OK) {
            Ok(()) if seen.is_file() => return Ok(file),
            Err(Errno::EACCES) => denied = true,
            Ok(()) | Err(_) => {}
        }
    }
    Err(if denied { ErrorKind::PermissionDenied } else { ErrorKind::NotFound }.into())
}

/// Makes the child. Returns once it runs the program, or could not.
#[allow(unsafe_code, reason = "no safe call makes a child that shares memory and can ask for its death")]
fn run(prepared: &Prepared, entry: Option<&AtomicI32>, stack: &mut [u8]) -> Result<Pid, (Step, Errno)> {
    assert!(stack.len() >= STACK_BYTES, "{} bytes are no stack", stack.len());
    let mut failed: Option<(Step, Errno)> = None;
    let parent = nix::unistd::getpid();
    // Handlers of signals must not run in the child, which would run them on this memory.
    let mut mask: libc::sigset_t = unsafe { std::mem::zeroed() }; // SAFETY: it is overwritten before it is read.
    // SAFETY: both sets live; a full set is made before it is used.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut mask);
    }
    let child = || -> isize {
        // SAFETY: it runs alone on this memory, and makes system calls only.
        let error = unsafe { be_program(prepared, parent, entry, &mask) };
        failed = Some(error);
        unsafe { libc::_exit(127) } // SAFETY: it does not return, and runs nothing of this process.
    };
    let flags = nix::sched::CloneFlags::CLONE_VM | nix::sched::CloneFlags::CLONE_VFORK;
    // SAFETY: with these flags this thread stands still until the child has left this memory, so what the closure
    // borrows lives, and nobody else uses the stack.
    let made = unsafe { nix::sched::clone(Box::new(child), stack, flags, Some(libc::SIGCHLD)) };
    // SAFETY: the set was filled in above.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut());
    }
    let process = made.map_err(|errno| (Step::Run, errno))?;
    match failed {
        None => Ok(process),
        Some(error) => {
            entry.into_iter().for_each(|entry| entry.store(0, Ordering::SeqCst));
            // It has ended: nothing is left to learn from it.
            let _ = nix::sys::wait::waitpid(process, None);
            Err(error)
        }
    }
}

/// What the child does. Returns only if it fails.
#[allow(unsafe_code, reason = "bare system calls")]
unsafe fn be_program(
    prepared: &Prepared,
    parent: Pid,
    entry: Option<&AtomicI32>,
    mask: &libc::sigset_t,
) -> (Step, Errno) {
    let failed = |step| (step, Errno::last());
    // SAFETY: everything that is pointed to was made before, and lives until the program runs.
    unsafe {
        if libc::setpgid(0, 0) != 0 {
            return failed(Step::Group);
        }
        #[cfg(target_os = "linux")]
        {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return failed(Step::Group);
            }
            // The engine may have died before the line above.
            if libc::getppid() != parent.as_raw() {
                return (Step::Group, Errno::ESRCH);
            }
        }
        if let Some(entry) = entry {
            entry.store(libc::getpid(), Ordering::SeqCst);
        }
        for signal in 1..32 {
            let mut action: libc::sigaction = std::mem::zeroed();
            let known = libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0;
            // What the engine ignores stays ignored (`nohup`), but for what Rust itself ignores.
            if known
                && action.sa_sigaction != libc::SIG_DFL
                && (action.sa_sigaction != libc::SIG_IGN || signal == libc::SIGPIPE)
            {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
        if place(prepared.stdio) != 0 {
            return failed(Step::Files);
        }
        if let Some(cwd) = &prepared.cwd
            && libc::chdir(cwd.as_ptr()) != 0
        {
            return failed(Step::Directory);
        }
        for (resource, limit, name) in &prepared.limits {
            // CPU time has two: a signal that can be handled, and one second later one that cannot.
            let hard = limit.saturating_add(u64::from(*resource == libc::RLIMIT_CPU));
            let limit = libc::rlimit { rlim_cur: *limit, rlim_max: hard };
            if libc::setrlimit(*resource, &raw const limit) != 0 {
                return failed(Step::Limit(name));
            }
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut());
        libc::execve(prepared.path.as_ptr(), prepared.argv.as_ptr(), prepared.envp.as_ptr());
        if Errno::last() == Errno::ENOEXEC {
            const SHELL: &CStr = c"/bin/sh";
            libc::execve(SHELL.as_ptr(), prepared.shell_argv.as_ptr(), prepared.envp.as_ptr());
        }
        failed(Step::Run)
    }
}

/// Makes these files 0, 1 and 2.
#[allow(unsafe_code, reason = "bare system calls")]
unsafe fn place(mut files: [RawFd; 3]) -> libc::c_int {
    // SAFETY: numbers of files that are open.
    unsafe {
        // None may be overwritten before its turn.
        for (at, file) in (0..).zip(&mut files) {
            if *file < 3 && *file != at {
                *file = libc::fcntl(*file, libc::F_DUPFD_CLOEXEC, 3);
                if *file < 0 {
                    return -1;
                }
            }
        }
        for (at, file) in (0..).zip(files) {
            // A copy is not closed when the program runs; what is in place already would be.
            let done = if file == at { libc::fcntl(file, libc::F_SETFD, 0) } else { libc::dup2(file, at) };
            if done < 0 {
                return -1;
            }
        }
        0
    }
}

/// Why it could not be started, in the words of Python's exceptions, and what to do.
fn explain(start: &Start<'_>, step: Step, error: &io::Error) -> RemoteError {
    let program = start.argv.first().map_or("", |name| name);
    let host = remuda_net::address::host_name().unwrap_or_else(|| "this machine".to_owned());
    let (ename, hint) = match (step, error.kind()) {
        (Step::Directory, kind) => {
            let dir = start.cwd.unwrap_or_default();
            match kind {
                ErrorKind::NotFound => ("FileNotFoundError", format!("there is no directory `{dir}` on {host}")),
                _ => ("OSError", format!("the directory `{dir}` on {host} cannot be entered: {error}")),
            }
        }
        (Step::Limit(name), _) => {
            ("ValueError", format!("its limit `{name}` cannot be set: {error} (it may be above that of the engine)"))
        }
        (Step::Run, ErrorKind::NotFound) if program.contains('/') => {
            ("FileNotFoundError", format!("there is no such file on {host}, or what its first line names is missing"))
        }
        (Step::Run, ErrorKind::NotFound) => {
            ("FileNotFoundError", format!("it is not in PATH on {host}; install it there, or give its full path"))
        }
        (Step::Run, ErrorKind::PermissionDenied) => {
            ("PermissionError", format!("it may not be run on {host}; is the file executable (`chmod +x`)?"))
        }
        (_, ErrorKind::InvalidInput) => ("ValueError", error.to_string()),
        (Step::Run | Step::Group | Step::Files, _) => ("OSError", error.to_string()),
    };
    RemoteError::new(ename, format!("cannot run `{program}`: {hint}"))
}
