//! A network of two: this machine, and a network namespace of Linux as if it were another.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::skipped::skipped;

/// A namespace and the wire to it. Both go when this does.
pub struct Network {
    name: String,
    /// The first three numbers of the addresses.
    prefix: String,
}

impl Network {
    /// `None`, with a word on stderr, where there can be no namespaces: that takes Linux, `ip` and root.
    pub fn start() -> Option<Self> {
        Self::try_start().map_err(|why| skipped("network namespace", &why)).ok()
    }

    fn try_start() -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Of this process, and of no other that may run at the same time.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let network = Self {
            name: format!("rmd{pid}n{number}"),
            prefix: format!("10.{}.{}", 128 + (pid >> 8) % 96 + number, pid % 256),
        };
        let Self { name, prefix } = &network;
        ip(&format!("netns add {name}"))?;
        ip(&format!("link add {name} type veth peer name inside netns {name}"))?;
        ip(&format!("addr add {prefix}.1/24 dev {name}"))?;
        ip(&format!("-n {name} addr add {prefix}.2/24 dev inside"))?;
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("-n {name} link set inside up"))?;
        network.join()?;
        Ok(network)
    }

    /// The address of this machine as the other one sees it.
    pub fn address(&self) -> String {
        format!("{}.1", self.prefix)
    }

    /// Words that go before a command which is to run on the other machine.
    pub fn elsewhere(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.name]
    }

    /// Nothing gets through any more.
    ///
    /// # Panics
    /// When that cannot be done.
    pub fn cut(&self) {
        ip(&format!("link set {} down", self.name)).expect("it was up");
    }

    /// The two are joined again.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn join(&self) -> Result<(), String> {
        ip(&format!("link set {} up", self.name))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = ip(&format!("link del {}", self.name));
        let _ = ip(&format!("netns del {}", self.name));
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let ran = Command::new("ip").args(arguments.split(' ')).output();
    let ran = ran.map_err(|error| format!("`ip` cannot be run: {error}"))?;
    if ran.status.success() {
        return Ok(());
    }
    Err(format!("`ip {arguments}`: {}", String::from_utf8_lossy(&ran.stderr).trim()))
}
