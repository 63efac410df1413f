//! Which addresses the controller's sockets take.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};

use remuda_net::{Context, Kind, NetError, Profile, Socket, address};
use remuda_proto::connection::{ClientConnection, Common, EngineConnection};

/// Longest path of a socket file, of which the address takes some more: a colon and the number. (108 bytes with a NUL, on
/// Linux; less elsewhere.)
const MAX_IPC_PATH_BYTES: usize = 90;
/// How often another free port is tried where one is needed at two addresses and is free at the first alone.
const TRIES: usize = 16;

/// Where sockets listen: `<transport>://<ip>`, as the connection files have it under `interface`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    transport: String,
    /// An ip, `*`, or for `ipc` the beginning of the paths.
    ip: String,
}

impl Interface {
    /// TCP at this ip; `*` for all.
    pub fn tcp(ip: impl Into<String>) -> Self {
        Self { transport: "tcp".to_owned(), ip: ip.into() }
    }

    /// Sockets of the file system: each has the path `<path>:<number>`. A relative path is taken from the folder in which
    /// this process runs, since peers run in others.
    pub fn ipc(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self { transport: "ipc".to_owned(), ip: absolute.to_string_lossy().into_owned() }
    }

    /// Sockets of the file system in the profile's `security` folder, which is the owner's alone; or, where that path is
    /// longer than such a socket may have, in a new folder under the system's temporary one.
    pub fn ipc_of(profile: &Profile) -> Self {
        let path = profile.ipc();
        if path.as_os_str().len() <= MAX_IPC_PATH_BYTES {
            return Self::ipc(path);
        }
        let name = format!("remuda-{}", &remuda_net::random_session_id().to_string()[..8]);
        Self::ipc(std::env::temp_dir().join(name).join("ipc"))
    }

    /// That of a connection file.
    pub(crate) fn of_file(common: &Common) -> Self {
        Self { transport: common.transport().to_owned(), ip: common.ip().to_owned() }
    }

    /// The folder of the socket files, where there are any.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        self.socket_file(0)?.parent().map(Path::to_owned)
    }

    /// The file of a socket, where it has one.
    pub(crate) fn socket_file(&self, port: u16) -> Option<PathBuf> {
        (self.transport == "ipc").then(|| PathBuf::from(address::url(&self.ip, port)))
    }

    /// The ip, of TCP.
    pub(crate) fn tcp_ip(&self) -> Option<&str> {
        (self.transport == "tcp").then_some(&*self.ip)
    }

    /// Whether a socket that listens here can be reached at every ip of the machine.
    fn is_wildcard(&self) -> bool {
        self.transport == "tcp" && matches!(&*self.ip, "*" | "0.0.0.0")
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.transport, self.ip)
    }
}

/// The ports that a controller takes first, in the order in which it needs them (`controller/app.py: next_port`). When a
/// pool is empty the common one serves, and after that any free port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// For what engines connect to: registration, control, mux, task, iopub, heartbeat (two), and one for each broadcast
    /// leaf.
    pub engine: Vec<u16>,
    /// For what clients connect to: control, mux, task, iopub, notification, broadcast.
    pub client: Vec<u16>,
    /// For both.
    pub common: Vec<u16>,
}

impl Ports {
    /// Those of a pair of connection files.
    pub(crate) fn of_files(client: &ClientConnection, engine: &EngineConnection) -> Self {
        let mut engines = vec![
            engine.common.registration,
            engine.control,
            engine.mux,
            engine.task,
            engine.iopub,
            engine.hb_ping,
            engine.hb_pong,
        ];
        engines.extend(&engine.broadcast);
        let clients =
            vec![client.control, client.mux, client.task, client.iopub, client.notification, client.broadcast];
        Self { engine: engines, client: clients, common: Vec::new() }
    }
}

/// Whom a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    Engines,
    Clients,
}

/// Binds sockets at the ports of the pools, in order, and at free ones when they run out.
pub(crate) struct Binder<'a> {
    context: &'a Context,
    interfaces: [Interface; 2],
    /// Ports still to be taken: of engines, of clients, common.
    pools: [VecDeque<u16>; 3],
    /// For transports without ports: the next number that stands in the place of one.
    stand_in: u16,
}

impl<'a> Binder<'a> {
    pub(crate) fn new(context: &'a Context, engine: Interface, client: Interface, ports: Ports) -> Self {
        let pools = [ports.engine, ports.client, ports.common].map(VecDeque::from);
        Self { context, interfaces: [engine, client], pools, stand_in: 1 }
    }

    pub(crate) fn interface(&self, whom: For) -> &Interface {
        &self.interfaces[whom as usize]
    }

    /// A bound socket and its port.
    pub(crate) fn bind(&mut self, whom: For, kind: Kind, identity: Option<&str>) -> Result<(Socket, u16), NetError> {
        let asked = self.next(whom);
        let mut builder = Socket::builder(self.context, kind)?.bounded()?;
        if let Some(identity) = identity {
            builder = builder.identity(identity.as_bytes())?;
        }
        let socket = builder.bind(&address::url(&self.interface(whom).to_string(), asked))?;
        let port = if asked == 0 { socket.port().unwrap_or_default() } else { asked };
        Ok((socket, port))
    }

    /// One more port, for engines, of a socket that is bound already: engines spread over the ports of the broadcast
    /// scheduler, of which ours needs but one socket.
    pub(crate) fn bind_again(&mut self, socket: &Socket) -> Result<u16, NetError> {
        let asked = self.next(For::Engines);
        socket.bind(&address::url(&self.interface(For::Engines).to_string(), asked))?;
        Ok(if asked == 0 { socket.port().unwrap_or_default() } else { asked })
    }

    /// The hub's socket: at the engines' interface and, where that is another one, at the clients' too, with one port.
    pub(crate) fn bind_hub(&mut self) -> Result<(Socket, u16), NetError> {
        let [engines, clients] = self.interfaces.clone();
        if engines == clients || engines.is_wildcard() && clients.transport == "tcp" {
            return self.bind(For::Engines, Kind::Router, None);
        }
        if clients.is_wildcard() && engines.transport == "tcp" {
            return self.bind_hub_at(&clients, None);
        }
        // TCP first, where there is any: its port serves as the number of a path too.
        if engines.transport == "tcp" {
            self.bind_hub_at(&engines, Some(&clients))
        } else {
            self.bind_hub_at(&clients, Some(&engines))
        }
    }

    fn bind_hub_at(&mut self, first: &Interface, second: Option<&Interface>) -> Result<(Socket, u16), NetError> {
        let asked = match self.pooled(For::Engines) {
            Some(port) => port,
            None if first.transport == "tcp" => 0,
            None => self.take_stand_in(),
        };
        let mut tries = 0;
        loop {
            tries += 1;
            let socket = Socket::builder(self.context, Kind::Router)?.bounded()?;
            let socket = socket.bind(&address::url(&first.to_string(), asked))?;
            let port = if asked == 0 { socket.port().unwrap_or_default() } else { asked };
            let Some(second) = second else { return Ok((socket, port)) };
            match socket.bind(&address::url(&second.to_string(), port)) {
                Ok(()) => return Ok((socket, port)),
                // The free port of one ip is somebody's at the other.
                Err(_) if asked == 0 && tries < TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn pooled(&mut self, whom: For) -> Option<u16> {
        self.pools[whom as usize].pop_front().or_else(|| self.pools[2].pop_front())
    }

    /// The port to ask for; 0 for a free one.
    fn next(&mut self, whom: For) -> u16 {
        match self.pooled(whom) {
            Some(port) => port,
            None if self.interface(whom).transport == "tcp" => 0,
            None => self.take_stand_in(),
        }
    }

    fn take_stand_in(&mut self) -> u16 {
        self.stand_in += 1;
        self.stand_in - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(ports: Ports) -> (Context, [Interface; 2], Ports) {
        (Context::new(), [Interface::tcp("127.0.0.1"), Interface::tcp("127.0.0.1")], ports)
    }

    /// Ports that were free a moment ago.
    fn free(count: usize) -> Vec<u16> {
        let held: Vec<_> = (0..count).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        held.iter().map(|socket| socket.local_addr().unwrap().port()).collect()
    }

    #[test]
    fn each_side_takes_its_own_pool_first_then_the_common_one_then_any() {
        let free = free(4);
        let ports = Ports { engine: vec![free[0]], client: vec![free[1]], common: vec![free[2], free[3]] };
        let (context, [engine, client], ports) = loopback(ports);
        let mut binder = Binder::new(&context, engine, client, ports);
        let mut taken = Vec::new();
        let mut held = Vec::new();
        for whom in [For::Engines, For::Engines, For::Clients, For::Clients, For::Clients] {
            let (socket, port) = binder.bind(whom, Kind::Router, None).unwrap();
            taken.push(port);
            held.push(socket);
        }
        assert_eq!(taken[..4], [free[0], free[2], free[1], free[3]]);
        assert!(taken[4] != 0 && !free.contains(&taken[4]));
    }

    #[test]
    fn the_hub_listens_at_both_interfaces_with_one_port() {
        let context = Context::new();
        let folder = tempfile::tempdir().unwrap();
        let ipc = Interface::ipc(folder.path().join("s"));
        let pairs = [
            [Interface::tcp("127.0.0.1"), Interface::tcp("127.0.0.1")],
            [Interface::tcp("127.0.0.1"), Interface::tcp("127.0.0.2")],
            [Interface::tcp("*"), Interface::tcp("127.0.0.1")],
            [Interface::tcp("127.0.0.1"), Interface::tcp("*")],
            [ipc.clone(), Interface::tcp("127.0.0.1")],
            [Interface::tcp("127.0.0.1"), ipc],
        ];
        for [engine, client] in pairs {
            let mut binder = Binder::new(&context, engine.clone(), client.clone(), Ports::default());
            let (_socket, port) = binder.bind_hub().unwrap();
            for interface in [engine, client] {
                let at = interface.to_string().replace('*', "127.0.0.1");
                assert_eq!(address::listens(&at, port, std::time::Duration::from_secs(5)), Some(true), "{at}:{port}");
            }
        }
    }

    #[test]
    fn a_path_that_is_too_long_for_a_socket_is_not_used() {
        let short = Profile::at("/p", "x");
        assert_eq!(Interface::ipc_of(&short).to_string(), "ipc:///p/security/ipcontroller-x");
        let long = Profile::at(format!("/{}", "p".repeat(100)), "");
        let interface = Interface::ipc_of(&long);
        assert!(interface.to_string().len() < 100, "{interface}");
        assert_ne!(interface, Interface::ipc_of(&long), "two controllers share a folder that anybody may make");
        assert!(Interface::ipc("here").to_string().starts_with("ipc:///"));
    }
}
