//! What kills the programs of an engine that was itself killed.
//!
//! The kernel kills a program when the thread that started it ends (`PR_SET_PDEATHSIG`), but not what the program started.
//! So an engine that runs programs has a guard: a process of its own, which does nothing until the engine ends, however
//! that happens, and then kills the process groups that are listed in memory that both share.

use std::io::{self, PipeWriter};
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::libc;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};

/// The process groups that run, in memory that is shared with the guard. 0: none.
pub(crate) struct Groups {
    memory: NonNull<AtomicI32>,
    len: usize,
}

// SAFETY: it is only atomic numbers, in memory that is mapped as long as this lives.
#[allow(unsafe_code, reason = "shared memory is known to the compiler only as a pointer")]
unsafe impl Send for Groups {}
// SAFETY: see above.
#[allow(unsafe_code, reason = "shared memory is known to the compiler only as a pointer")]
unsafe impl Sync for Groups {}

impl Groups {
    fn map(len: usize) -> io::Result<Self> {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        #[allow(unsafe_code, reason = "only a system call makes memory that is shared with a child")]
        // SAFETY: a new mapping, whose place the kernel chooses.
        let memory = unsafe { libc::mmap(std::ptr::null_mut(), len * size_of::<AtomicI32>(), access, kind, -1, 0) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast()).ok_or_else(|| io::Error::other("memory at address 0"))?;
        Ok(Self { memory, len })
    }

    fn all(&self) -> &[AtomicI32] {
        #[allow(unsafe_code, reason = "shared memory is known to the compiler only as a pointer")]
        // SAFETY: the mapping has this length, is zero at first, which is a number, and lives as long as `self`.
        unsafe {
            std::slice::from_raw_parts(self.memory.as_ptr(), self.len)
        }
    }

    /// The entry that a program may have.
    pub(crate) fn entry(&self, at: usize) -> &AtomicI32 {
        &self.all()[at]
    }

    /// How many programs it has room for.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        #[allow(unsafe_code, reason = "what a system call mapped, a system call unmaps")]
        // SAFETY: it was mapped with this length, and nothing refers to it any more.
        unsafe {
            libc::munmap(self.memory.as_ptr().cast(), self.len * size_of::<AtomicI32>());
        }
    }
}

/// The guard's process. Dropping it ends it, after it has killed what is still listed.
pub(crate) struct Guard {
    groups: Arc<Groups>,
    /// Closed by the end of this process, if not before.
    pipe: Option<PipeWriter>,
    process: Pid,
}

impl Guard {
    /// Starts the process, with room for so many programs.
    pub(crate) fn start(len: usize) -> io::Result<Self> {
        let groups = Arc::new(Groups::map(len)?);
        let (reader, writer) = io::pipe()?;
        let (read_fd, list) = (reader.as_raw_fd(), groups.all());
        #[allow(unsafe_code, reason = "the guard is a process, and shares memory with this one")]
        // SAFETY: this process may have other threads, so until its end the child calls nothing but system calls: it
        // takes no lock and no memory.
        let process = match unsafe { fork() }? {
            ForkResult::Child => stand_guard(read_fd, list),
            ForkResult::Parent { child } => child,
        };
        Ok(Self { groups, pipe: Some(writer), process })
    }

    pub(crate) fn groups(&self) -> &Arc<Groups> {
        &self.groups
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.pipe = None;
        // How it ended does not matter.
        let _ = waitpid(self.process, None);
    }
}

/// The life of the guard.
#[allow(unsafe_code, reason = "between fork and its end this process makes bare system calls only")]
fn stand_guard(pipe: i32, groups: &[AtomicI32]) -> ! {
    // SAFETY: bare system calls on memory that lives; see `Guard::start`.
    unsafe {
        // In a session of its own, so that no terminal's ^C ends it before the engine; and holding nothing open.
        libc::setsid();
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
        #[cfg(target_os = "linux")]
        libc::prctl(libc::PR_SET_NAME, c"remuda-guard".as_ptr());
        libc::dup2(pipe, 0);
        close_all_above(0);
        let mut byte = 0_u8;
        loop {
            let count = libc::read(0, (&raw mut byte).cast(), 1);
            // Nobody writes: it ends when all writing ends of the pipe are closed.
            if count == 0 || (count < 0 && *libc::__errno_location() != libc::EINTR) {
                break;
            }
        }
        for group in groups {
            let group = group.load(Ordering::SeqCst);
            if group > 1 {
                libc::kill(-group, libc::SIGKILL);
            }
        }
        libc::_exit(0)
    }
}

/// Closes all files but the first.
#[allow(unsafe_code, reason = "see `stand_guard`")]
unsafe fn close_all_above(first: i32) {
    // SAFETY: closing what is open, or is not, harms nobody in this process.
    unsafe {
        #[cfg(target_os = "linux")]
        if libc::syscall(libc::SYS_close_range, first + 1, u32::MAX, 0) == 0 {
            return;
        }
        let most = i32::try_from(libc::sysconf(libc::_SC_OPEN_MAX)).unwrap_or(1 << 16);
        for fd in first + 1..most {
            libc::close(fd);
        }
    }
}
