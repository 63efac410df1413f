//! From what connection files say to addresses that sockets take.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt};
use remuda_proto::connection::Common;

/// `<transport>://<ip>:<port>`, as engines and clients write it (`client/client.py`, `engine/app.py`).
pub fn url(interface: &str, port: u16) -> String {
    format!("{interface}:{port}")
}

/// The interface to connect to: that of the file, unless it names no one address (`*` or `0.0.0.0`), which is then made
/// out from `location` (`util.py: disambiguate_ip_address`).
pub fn connect_interface(common: &Common) -> String {
    let (transport, ip) = (common.transport(), common.ip());
    if transport != "tcp" || !matches!(ip, "*" | "0.0.0.0") {
        return common.interface.clone();
    }
    format!("{transport}://{}", resolve_location(&common.location))
}

fn resolve_location(location: &str) -> String {
    const LOOPBACK: &str = "127.0.0.1";
    if location.is_empty() || host_name().as_deref() == Some(location) {
        return LOOPBACK.to_owned();
    }
    let Some(ip) = lookup(location) else { return location.to_owned() };
    if ip.is_loopback() || is_own(ip) { LOOPBACK.to_owned() } else { ip.to_string() }
}

fn lookup(host: &str) -> Option<IpAddr> {
    let found: Vec<IpAddr> = (host, 0).to_socket_addrs().ok()?.map(|address| address.ip()).collect();
    found.iter().find(|ip| ip.is_ipv4()).or_else(|| found.first()).copied()
}

/// Whether `ip` is an address of this machine: only then can a socket be bound to it.
fn is_own(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// The name of this machine.
pub fn host_name() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok()
}

/// Whether a socket can be made to listen at an address: tried without listening, so that nobody who looks for the one that
/// will be there connects meanwhile.
///
/// # Errors
/// Why not: `AddrInUse`, `AddrNotAvailable` where no interface of this machine has the ip, `PermissionDenied` for a port of the
/// system's.
pub fn can_listen(address: SocketAddr) -> io::Result<()> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let probe = socket(family, SockType::Stream, SockFlag::empty(), None)?;
    // As libzmq does: connections that are over do not count.
    setsockopt(&probe, sockopt::ReuseAddr, &true)?;
    bind(probe.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(())
}

/// Whether something listens at an address of a connection file. `None` when that cannot be told: another transport, a
/// name that does not resolve, or no answer in time.
pub fn listens(interface: &str, port: u16, timeout: Duration) -> Option<bool> {
    if let Some(path) = interface.strip_prefix("ipc://") {
        return match UnixStream::connect(format!("{path}:{port}")) {
            Ok(_) => Some(true),
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Some(false),
            Err(_) => None,
        };
    }
    let host = interface.strip_prefix("tcp://")?;
    let address: SocketAddr = (host, port).to_socket_addrs().ok()?.next()?;
    match TcpStream::connect_timeout(&address, timeout) {
        Ok(_) => Some(true),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Some(false),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn common(interface: &str, location: &str) -> Common {
        serde_json::from_value(serde_json::json!({
            "interface": interface, "registration": 1, "location": location
        }))
        .unwrap()
    }

    #[test]
    fn an_address_that_names_one_is_kept() {
        assert_eq!(connect_interface(&common("tcp://10.1.2.3", "elsewhere")), "tcp://10.1.2.3");
        assert_eq!(connect_interface(&common("ipc://name", "")), "ipc://name");
    }

    #[test]
    fn a_wildcard_is_made_out_from_the_location() {
        let here = host_name().unwrap();
        for location in ["", "localhost", "127.0.0.1", &here] {
            assert_eq!(connect_interface(&common("tcp://*", location)), "tcp://127.0.0.1", "{location}");
        }
        assert_eq!(connect_interface(&common("tcp://0.0.0.0", "192.0.2.7")), "tcp://192.0.2.7");
    }

    #[test]
    fn whether_something_listens_is_told_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let timeout = Duration::from_secs(5);
        assert_eq!(listens("tcp://127.0.0.1", port, timeout), Some(true));
        drop(listener);
        assert_eq!(listens("tcp://127.0.0.1", port, timeout), Some(false));
        assert_eq!(listens("ipc:///nowhere/x", port, timeout), Some(false));
        assert_eq!(listens("pgm://x", port, timeout), None);
    }

    #[test]
    fn whether_a_socket_could_listen_is_told_without_one_that_does() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(can_listen(address).unwrap_err().kind(), ErrorKind::AddrInUse);
        let everywhere = SocketAddr::from(([0, 0, 0, 0], address.port()));
        assert_eq!(can_listen(everywhere).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(listener);
        can_listen(address).unwrap();
        // One of a range that is for documentation, and nobody's.
        assert_eq!(can_listen("192.0.2.1:0".parse().unwrap()).unwrap_err().kind(), ErrorKind::AddrNotAvailable);
    }
}
