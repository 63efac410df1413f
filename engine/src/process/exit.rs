//! Learning of a program's end, and what it used.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// Something that can be polled, and is readable once a process has ended. The process is not reaped.
pub(crate) struct ExitNotice(OwnedFd);

impl ExitNotice {
    /// For a child that was not reaped.
    pub(crate) fn of(process: Pid) -> io::Result<Self> {
        match pidfd(process) {
            Ok(fd) => Ok(Self(fd)),
            // A kernel that has none, or a sandbox that allows none.
            Err(_) => by_thread(process),
        }
    }
}

impl AsFd for ExitNotice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "there is no other way to get one")]
fn pidfd(process: Pid) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: a system call that takes two numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, process.as_raw(), 0) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(not(target_os = "linux"))]
fn pidfd(_: Pid) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A pipe that closes when the process has ended.
fn by_thread(process: Pid) -> io::Result<ExitNotice> {
    let (reader, writer) = io::pipe()?;
    std::thread::Builder::new().name("process-end".to_owned()).spawn(move || {
        while waitid(Id::Pid(process), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
        drop(writer);
    })?;
    Ok(ExitNotice(reader.into()))
}

/// How a process ended, and what it and the children it waited for used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) user_us: u64,
    pub(crate) system_us: u64,
    pub(crate) peak_memory_bytes: u64,
}

/// Waits for a child's end, and lets go of it.
#[allow(unsafe_code, reason = "only this system call tells what the child used")]
pub(crate) fn reap(process: Pid) -> io::Result<End> {
    let mut status = 0;
    // SAFETY: a structure of numbers, for which zeros are good.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: the kernel writes into both, which live.
        let found = unsafe { libc::wait4(process.as_raw(), &raw mut status, 0, &raw mut usage) };
        if found == process.as_raw() {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let us = |time: libc::timeval| {
        u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_usec).unwrap_or(0)
    };
    // Linux counts in kilobytes.
    let peak_memory_bytes = u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024;
    Ok(End {
        exit_code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        user_us: us(usage.ru_utime),
        system_us: us(usage.ru_stime),
        peak_memory_bytes,
    })
}
