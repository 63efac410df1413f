//! What a service manager such as systemd is told (`sd_notify(3)`): a datagram to the socket that the environment names.

use std::env;
use std::ffi::OsString;
use std::os::unix::net::UnixDatagram;

/// The variable that names the socket: a path, or with an `@` in front the name of an abstract one.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// What a service says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It serves: what needs it may start.
    Ready,
    /// It ends.
    Stopping,
}

/// The service manager that started this process, if one did that wants to be told.
pub(crate) struct Service {
    socket: Option<OsString>,
}

impl Service {
    pub(crate) fn of_environment() -> Self {
        Self { socket: env::var_os(VARIABLE).filter(|socket| !socket.is_empty()) }
    }

    /// Tells it. That it cannot be told is logged: the manager notices by itself, after its own timeout.
    pub(crate) fn tell(&self, state: State) {
        let Some(socket) = &self.socket else { return };
        let message = match state {
            State::Ready => "READY=1",
            State::Stopping => "STOPPING=1",
        };
        if let Err(error) = send(socket, message) {
            tracing::warn!("cannot tell `{}` of {message}: {error}", socket.to_string_lossy());
        }
    }
}

fn send(socket: &OsString, message: &str) -> std::io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    #[cfg(target_os = "linux")]
    if let Some(name) = socket.as_encoded_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        return sender.send_to_addr(message.as_bytes(), &address).map(drop);
    }
    sender.send_to(message.as_bytes(), socket).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_a_path_or_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let receiver = UnixDatagram::bind(&path).unwrap();
        Service { socket: Some(path.into()) }.tell(State::Ready);
        let mut buffer = [0; 64];
        let length = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");
        #[cfg(target_os = "linux")]
        {
            use std::os::linux::net::SocketAddrExt;
            let name = format!("remuda-test-{}", std::process::id());
            let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
            let receiver = UnixDatagram::bind_addr(&address).unwrap();
            Service { socket: Some(format!("@{name}").into()) }.tell(State::Stopping);
            let length = receiver.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"STOPPING=1");
        }
        // Nobody there: nothing happens.
        Service { socket: Some("/nowhere/notify".into()) }.tell(State::Ready);
        Service { socket: None }.tell(State::Ready);
    }
}
