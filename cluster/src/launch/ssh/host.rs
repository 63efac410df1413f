//! Hosts, as they are written in settings.

use std::fmt;
use std::str::FromStr;

/// A host to be reached by SSH: `[user@]host[:port][=count]`. An IPv6 address stands in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostSpec {
    /// The user there, if it is another than SSH takes by itself.
    pub user: Option<String>,
    /// Its name or address, without brackets; or a name of ssh's own configuration.
    pub host: String,
    /// The port of its SSH server, if it is another than SSH takes by itself.
    pub port: Option<u16>,
    /// How many engines it is to have; `None`: it is not said.
    pub engines: Option<u32>,
}

/// A host that is not written as one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no host: {why}; write `[user@]host[:port][=engines]`, an IPv6 address in brackets")]
pub struct HostError {
    text: String,
    why: &'static str,
}

impl FromStr for HostSpec {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let wrong = |why| HostError { text: text.to_owned(), why };
        let (place, engines) = match text.rsplit_once('=') {
            None => (text, None),
            Some((place, count)) => {
                let count = count.parse().ok().filter(|count| *count > 0);
                (place, Some(count.ok_or_else(|| wrong("the count of engines is no whole number from 1 on"))?))
            }
        };
        let (user, place) = match place.rsplit_once('@') {
            None => (None, place),
            Some(("", _)) => return Err(wrong("the user is missing")),
            Some((user, place)) => (Some(user.to_owned()), place),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or_else(|| wrong("the bracket is not closed"))?;
                match after.strip_prefix(':') {
                    None if after.is_empty() => (host, None),
                    None => return Err(wrong("something else than a port stands after the bracket")),
                    Some(port) => (host, Some(port)),
                }
            }
            None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        if port.is_some_and(|port| port.contains(':')) {
            return Err(wrong("there is more than one colon"));
        }
        let port = port.map(|port| port.parse().ok().filter(|port| *port > 0).ok_or_else(|| wrong("the port is none")));
        let is_word = |word: &str| {
            // What begins with a dash would be an option to ssh.
            !word.is_empty() && !word.starts_with('-') && !word.contains(|c: char| c.is_whitespace() || c.is_control())
        };
        if !is_word(host) || !user.as_deref().is_none_or(is_word) {
            return Err(wrong("there is no name in it that could be one"));
        }
        Ok(Self { user, host: host.to_owned(), port: port.transpose()?, engines })
    }
}

impl HostSpec {
    /// As ssh takes it.
    pub(super) fn destination(&self) -> String {
        self.user.as_ref().map_or_else(|| self.host.clone(), |user| format!("{user}@{}", self.host))
    }
}

impl fmt::Display for HostSpec {
    /// As it is written, without the count of engines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_with_all_that_may_stand_around_them() {
        for (text, user, host, port, engines) in [
            ("node1", None, "node1", None, None),
            ("me@node1:2222=8", Some("me"), "node1", Some(2222), Some(8)),
            ("node1=2", None, "node1", None, Some(2)),
            ("[::1]", None, "::1", None, None),
            ("me@[fe80::1%eth0]:22=3", Some("me"), "fe80::1%eth0", Some(22), Some(3)),
            ("me@corp@node1", Some("me@corp"), "node1", None, None),
        ] {
            let spec: HostSpec = text.parse().unwrap();
            assert_eq!((spec.user.as_deref(), &*spec.host, spec.port, spec.engines), (user, host, port, engines));
            assert_eq!(spec.to_string(), text.split('=').next().unwrap());
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            "=3",
            "@a",
            "a=0",
            "a=x",
            "a:0",
            "a:b",
            "::1",
            "[::1",
            "[::1]x",
            "-oProxyCommand=x",
            "a b",
            "me@-v",
            "a:1:2",
        ] {
            let error = text.parse::<HostSpec>().unwrap_err();
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
        }
    }
}
