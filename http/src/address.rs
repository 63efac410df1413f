//! Where the server listens.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// An address and a port; the loopback interface unless it names another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(SocketAddr);

/// Text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no address: give a port (`8080`), or an ip and a port (`127.0.0.1:8080`, `[::1]:8080`, `*:8080`); port 0 takes a free one"
)]
pub struct AddressError(String);

impl Address {
    /// As the system has it.
    pub fn socket(self) -> SocketAddr {
        self.0
    }

    /// Whether only processes of this machine reach it.
    pub fn is_loopback(self) -> bool {
        self.0.ip().is_loopback()
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(text.to_owned());
        if let Ok(address) = text.parse() {
            return Ok(Self(address));
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        let port = port.parse().map_err(|_| wrong())?;
        let ip: IpAddr = match host {
            "" | "localhost" => Ipv4Addr::LOCALHOST.into(),
            "*" => Ipv4Addr::UNSPECIFIED.into(),
            _ => return Err(wrong()),
        };
        Ok(Self(SocketAddr::new(ip, port)))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_on_loopback() {
        for (text, address, is_loopback) in [
            ("8080", "127.0.0.1:8080", true),
            (":0", "127.0.0.1:0", true),
            ("localhost:80", "127.0.0.1:80", true),
            ("127.0.0.1:9", "127.0.0.1:9", true),
            ("[::1]:9", "[::1]:9", true),
            ("*:9", "0.0.0.0:9", false),
            ("10.0.0.1:9", "10.0.0.1:9", false),
            ("[::]:9", "[::]:9", false),
        ] {
            let read: Address = text.parse().unwrap();
            assert_eq!((&*read.to_string(), read.is_loopback()), (address, is_loopback), "{text}");
        }
        for text in ["", "x", "70000", "10.0.0.1", "host:80", "::1:80x", "1.2.3.4:"] {
            assert!(text.parse::<Address>().unwrap_err().to_string().contains(text), "{text}");
        }
    }
}
