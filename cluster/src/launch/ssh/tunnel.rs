//! Tunnels: the controller's ports, on a host that cannot reach the controller itself.

use remuda_net::address;
use remuda_proto::EngineConnection;

/// Where on the host tunnels begin: below the ports that systems give by themselves, and above those of most services.
const PORTS: std::ops::Range<u16> = 20000..32000;
/// The address on the host at which tunnels listen.
const LOOPBACK: &str = "127.0.0.1";

/// Forwards of all ports that an engine needs, from a host to the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnels {
    /// Port on the host, and port of the controller.
    ports: Vec<(u16, u16)>,
    /// The controller's address as it is known here.
    controller: String,
}

/// A controller to which no tunnel leads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no SSH tunnel leads to `{0}`: start the controller with `--transport=tcp`, or do without `tunnel`")]
pub struct NoTunnel(String);

impl Tunnels {
    /// Tunnels to the controller of a connection file, and the file for the engines at their other end. Which ports they have on
    /// the host follows from `seed`: where one of them is in use there, ssh says so ([`SshError::Forward`](super::SshError::Forward)), and
    /// another seed is the remedy.
    ///
    /// # Errors
    /// When the controller does not listen at TCP.
    pub fn new(file: &EngineConnection, seed: u64) -> Result<(Self, EngineConnection), NoTunnel> {
        let interface = address::connect_interface(&file.common);
        let Some(controller) = interface.strip_prefix("tcp://").map(str::to_owned) else {
            return Err(NoTunnel(interface));
        };
        let mut there = file.clone();
        there.common.interface = format!("tcp://{LOOPBACK}");
        LOOPBACK.clone_into(&mut there.common.location);
        there.common.ssh = String::new();
        let fields = [
            &mut there.common.registration,
            &mut there.control,
            &mut there.mux,
            &mut there.task,
            &mut there.iopub,
            &mut there.hb_ping,
            &mut there.hb_pong,
        ];
        let span = u64::from(PORTS.end - PORTS.start);
        let mut next = u16::try_from(seed % span).unwrap_or_default();
        let mut ports: Vec<(u16, u16)> = Vec::new();
        for port in fields.into_iter().chain(&mut there.broadcast) {
            // A port that has two purposes needs one tunnel.
            let known = ports.iter().find(|(_, controller)| *controller == *port).map(|(host, _)| *host);
            let host = known.unwrap_or(PORTS.start + next);
            if known.is_none() {
                ports.push((host, *port));
                next = (next + 1) % (PORTS.end - PORTS.start);
            }
            *port = host;
        }
        Ok((Self { ports, controller }, there))
    }

    /// The ports on the host, each with that of the controller.
    pub fn ports(&self) -> &[(u16, u16)] {
        &self.ports
    }

    /// Options for ssh. It ends if a port cannot be had.
    pub(super) fn options(&self) -> Vec<String> {
        let mut options = vec!["-o".to_owned(), "ExitOnForwardFailure=yes".to_owned()];
        for (host, controller) in &self.ports {
            options.extend(["-R".to_owned(), format!("{LOOPBACK}:{host}:{}:{controller}", self.controller)]);
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(interface: &str, ports: u16) -> EngineConnection {
        let json = serde_json::json!({
            "interface": interface, "registration": ports, "control": ports + 1, "mux": ports + 2, "task": ports + 3,
            "iopub": ports + 4, "hb_ping": ports + 5, "hb_pong": ports + 6, "broadcast": [ports + 7, ports], "key": "k",
            "location": "gate", "ssh": "me@gate",
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn each_port_of_the_file_has_a_tunnel_and_the_file_that_is_sent_names_its_other_end() {
        let (tunnels, there) = Tunnels::new(&file("tcp://10.0.0.1", 100), 11_998).unwrap();
        let host = [31998, 31999, 20000, 20001, 20002, 20003, 20004, 20005];
        assert_eq!(tunnels.ports(), std::iter::zip(host, 100..).collect::<Vec<_>>());
        assert_eq!((&*there.common.interface, &*there.common.location), ("tcp://127.0.0.1", "127.0.0.1"));
        assert_eq!((there.common.registration, there.hb_pong, &*there.broadcast), (31998, 20004, &[20005, 31998][..]));
        assert_eq!((&*there.common.key, &*there.common.ssh), ("k", ""));
        let options = tunnels.options();
        assert_eq!(options[..4], ["-o", "ExitOnForwardFailure=yes", "-R", "127.0.0.1:31998:10.0.0.1:100"]);
        assert_eq!(options.len(), 2 + 2 * 8);
    }

    #[test]
    fn there_is_no_tunnel_to_sockets_of_the_file_system() {
        let error = Tunnels::new(&file("ipc:///tmp/x", 1), 0).unwrap_err();
        assert!(error.to_string().contains("ipc:///tmp/x"), "{error}");
    }
}
