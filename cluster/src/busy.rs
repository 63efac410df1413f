//! Which of the ports that a controller is told to take are not to be had, before it is started.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::ToSocketAddrs;

use remuda_hub::StoreKind;
use remuda_net::address;

use crate::controller::ControllerConfig;
use crate::ports::Interface;
use crate::reuse::{Known, Resolved};

/// What engines connect to, in the order in which it takes its ports; then one for each broadcast leaf.
const FOR_ENGINES: [&str; 7] = ["registration", "control", "mux", "task", "iopub", "heartbeat", "heartbeat"];
/// What clients connect to.
const FOR_CLIENTS: [&str; 6] = ["control", "mux", "task", "iopub", "notification", "broadcast"];

/// A port that a controller was told to take and cannot.
#[derive(Debug)]
pub struct BusyPort {
    /// The port.
    pub port: u16,
    /// The address at which it would listen.
    pub ip: String,
    /// Whom it is for: engines or clients.
    pub whom: &'static str,
    /// What it is for.
    pub what: &'static str,
    /// Why not: it is in use, the address is none of this machine's, the port is for the system alone.
    pub reason: io::Error,
    /// Whether the same port was asked for before, so that it is this controller itself that would have it.
    pub twice: bool,
}

impl BusyPort {
    /// Whether another process has it.
    pub fn is_in_use(&self) -> bool {
        self.reason.kind() == ErrorKind::AddrInUse && !self.twice
    }
}

impl fmt::Display for BusyPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { port, ip, whom, what, reason, twice } = self;
        write!(f, "port {port} at {ip}, for {what} of {whom}, ")?;
        match reason.kind() {
            _ if *twice => write!(f, "is asked for twice"),
            ErrorKind::AddrInUse => write!(f, "is in use"),
            ErrorKind::AddrNotAvailable => write!(f, "cannot be had: no interface of this machine has the address"),
            ErrorKind::PermissionDenied => write!(f, "cannot be had: it is for processes with more rights"),
            _ => write!(f, "cannot be had: {reason}"),
        }
    }
}

/// The ports that a controller with this configuration would be refused. Those are looked at that it is told to take, and
/// will: not the rest of a range that is longer than what it needs, nor sockets of the file system.
pub fn busy_ports(config: &ControllerConfig) -> Vec<BusyPort> {
    let lasts = matches!(config.store, StoreKind::Sqlite(_));
    let reuse = config.reuse || lasts && config.client_file.exists() && config.engine_file.exists();
    let known = reuse.then(|| Known::read(&config.client_file, &config.engine_file)).flatten();
    let resolved = Resolved::new(config, known.as_ref());
    let mut busy = Vec::new();
    let mut asked: Vec<(&str, u16)> = Vec::new();
    for (interface, whom, what, port) in taken(&resolved) {
        let Some(ip) = interface.tcp_ip().filter(|_| port != 0) else { continue };
        let host = if ip == "*" { "0.0.0.0" } else { ip };
        // A name of an interface, which libzmq knows and nobody else, is found out by the start.
        let Some(at) = (host, port).to_socket_addrs().ok().and_then(|mut all| all.next()) else { continue };
        let twice = asked.iter().any(|(other, one)| *one == port && (*other == ip || *other == "*" || ip == "*"));
        asked.push((ip, port));
        let reason = match address::can_listen(at) {
            Ok(()) if twice => ErrorKind::AddrInUse.into(),
            Ok(()) => continue,
            Err(reason) => reason,
        };
        busy.push(BusyPort { port, ip: ip.to_owned(), whom, what, reason, twice });
    }
    busy
}

/// The ports that are taken from the pools, in order, each with what it is for.
fn taken(resolved: &Resolved) -> Vec<(&Interface, &'static str, &'static str, u16)> {
    let ports = &resolved.ports;
    let mut pools = [ports.engine.iter(), ports.client.iter(), ports.common.iter()].map(Iterator::copied);
    let leaves = std::iter::repeat_n("broadcast", resolved.leaves);
    let engines = FOR_ENGINES.into_iter().chain(leaves).map(|what| (&resolved.engine_interface, "engines", what));
    let clients = FOR_CLIENTS.into_iter().map(|what| (&resolved.client_interface, "clients", what));
    let mut all = Vec::new();
    for (interface, whom, what) in engines.chain(clients) {
        let pool = usize::from(whom == "clients");
        let port = pools[pool].next().or_else(|| pools[2].next());
        all.extend(port.map(|port| (interface, whom, what, port)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use remuda_net::Profile;
    use std::net::TcpListener;

    #[test]
    fn those_are_named_that_would_be_taken_and_are_in_use_or_asked_for_twice() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let other = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut config = ControllerConfig::new(Profile::at("/nowhere", ""));
        assert!(busy_ports(&config).is_empty(), "free ones are taken");

        config.ports.engine = vec![port, other];
        config.ports.client = vec![other];
        let busy = busy_ports(&config);
        assert_eq!(busy.len(), 2);
        assert_eq!(busy[0].to_string(), format!("port {port} at 127.0.0.1, for registration of engines, is in use"));
        assert!(busy[0].is_in_use() && !busy[1].is_in_use());
        assert_eq!(
            busy[1].to_string(),
            format!("port {other} at 127.0.0.1, for control of clients, is asked for twice")
        );

        drop(held);
        config.ports.client.clear();
        assert!(busy_ports(&config).is_empty());
    }

    #[test]
    fn what_is_never_taken_is_not_looked_at() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let mut config = ControllerConfig::new(Profile::at("/nowhere", ""));
        config.ports.client = vec![0, 0, 0, 0, 0, 0, port];
        assert!(busy_ports(&config).is_empty(), "clients have six");
        config.client_interface = Interface::ipc("/nowhere/x");
        config.ports.client = vec![port];
        assert!(busy_ports(&config).is_empty(), "no port of TCP");
    }
}
