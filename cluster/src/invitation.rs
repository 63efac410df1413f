//! Connections as they are to be told to other machines, in an [invitation](remuda_proto::invitation).

use std::net::IpAddr;

use remuda_proto::connection::Common;
use remuda_proto::invitation::Invited;

/// A controller that nobody on another machine can reach.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreachable {
    /// It listens where only this machine can connect to.
    #[error("the controller listens at `{interface}`, which other machines cannot reach")]
    Interface {
        /// Where.
        interface: String,
    },
    /// It listens at all addresses, and none is known.
    #[error("this machine has no name by which others could find it")]
    Nameless,
}

/// A connection as peers on other machines need it: at `host`, if that is given, else where the controller can be reached by its
/// address, or by the host name in its file, or by `own_name`, that of this machine.
///
/// # Errors
/// When there is no such address.
pub fn for_others<C: Invited>(mut connection: C, host: Option<&str>, own_name: Option<&str>) -> Result<C, Unreachable> {
    let common = connection.common_mut();
    let unreachable = |common: &Common| Unreachable::Interface { interface: common.interface.clone() };
    if common.transport() != "tcp" {
        return Err(unreachable(common));
    }
    if let Some(host) = host {
        // What is said of the host is looked up where the peer is.
        "tcp://*".clone_into(&mut common.interface);
        host.clone_into(&mut common.location);
        return Ok(connection);
    }
    if is_loopback(common.ip()) {
        return Err(unreachable(common));
    }
    if matches!(common.ip(), "*" | "0.0.0.0") && (common.location.is_empty() || is_loopback(&common.location)) {
        let name = own_name.filter(|name| !name.is_empty() && !is_loopback(name)).ok_or(Unreachable::Nameless)?;
        name.clone_into(&mut common.location);
    }
    Ok(connection)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use remuda_proto::EngineConnection;

    use super::*;

    fn connection(interface: &str, location: &str) -> EngineConnection {
        let json = serde_json::json!({
            "interface": interface, "location": location, "registration": 1, "control": 2, "mux": 3, "task": 4, "iopub": 5,
            "hb_ping": 6, "hb_pong": 7, "broadcast": [8, 9], "key": "hunter2",
        });
        serde_json::from_value(json).unwrap()
    }

    fn address(interface: &str, location: &str, host: Option<&str>) -> Result<(String, String), Unreachable> {
        let common = for_others(connection(interface, location), host, Some("own"))?.common;
        Ok((common.interface, common.location))
    }

    #[test]
    fn others_are_told_an_address_that_is_not_their_own() {
        let told = |interface: &str, location: &str| Ok((interface.to_owned(), location.to_owned()));
        assert_eq!(address("tcp://*", "box", None), told("tcp://*", "box"));
        for location in ["", "localhost", "127.0.0.1", "::1"] {
            assert_eq!(address("tcp://0.0.0.0", location, None), told("tcp://0.0.0.0", "own"), "{location}");
        }
        assert_eq!(address("tcp://10.0.0.1", "box", None), told("tcp://10.0.0.1", "box"));
        assert_eq!(address("tcp://127.0.0.1", "box", Some("gate")), told("tcp://*", "gate"));
    }

    #[test]
    fn where_only_this_machine_connects_nobody_is_invited() {
        for (interface, host) in [("tcp://127.0.0.1", None), ("ipc:///p/x", None), ("ipc:///p/x", Some("gate"))] {
            let refused = address(interface, "box", host).unwrap_err();
            assert!(refused.to_string().contains(interface), "{refused}");
        }
        let nameless = for_others(connection("tcp://*", ""), None, Some("localhost"));
        assert_eq!(nameless, Err(Unreachable::Nameless));
    }
}
