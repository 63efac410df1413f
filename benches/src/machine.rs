//! Where and of what a figure was taken.

use std::process::Command;

use serde::Serialize;

/// What a run is to be compared within.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// Cores that may be used.
    pub(crate) cores: usize,
    /// The processor's name.
    pub(crate) cpu_model: String,
    /// The kernel's version.
    pub(crate) kernel: String,
    /// The version of libzmq in this program; the stock controller brings its own.
    pub(crate) libzmq: String,
}

impl Machine {
    /// This one.
    pub(crate) fn this() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let (major, minor, patch) = zmq::version();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu_model: cpu_model(&cpuinfo).unwrap_or("unknown").to_owned(),
            kernel: kernel.trim().to_owned(),
            libzmq: format!("{major}.{minor}.{patch}"),
        }
    }
}

fn cpu_model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

/// The commit checked out where the bench is run, with `-dirty` behind it if files differ; `None` outside a checkout.
pub(crate) fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok()
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?.trim().to_owned();
    let clean = git(&["status", "--porcelain", "--untracked-files=no"])?.trim().is_empty();
    Some(if clean { commit } else { format!("{commit}-dirty") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named() {
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: AMD: EPYC\n"), Some("AMD: EPYC"));
        assert_eq!(cpu_model(""), None);
    }
}
