//! `remuda controller`, in the spellings of ipcontroller (`controller/app.py`).

use clap::Args;
use remuda_cluster::Scheme;

use super::{LogArgs, PlaceArgs};

#[derive(Debug, Args)]
pub(crate) struct ControllerArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,

    /// Address to listen at: an ip, or `*` for all
    #[arg(long, default_value = "127.0.0.1", help_heading = "Network")]
    pub(crate) ip: String,
    /// Port of the hub, where engines and clients register; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0, help_heading = "Network")]
    pub(crate) port: u16,
    /// Ports to take first, `10101-10120,10130` say; when they run out, free ones are taken
    #[arg(long, value_name = "PORTS", default_value = "", value_parser = ports, help_heading = "Network")]
    pub(crate) ports: Ports,
    /// Host name that is written into the connection files [default: this host's]
    #[arg(long, value_name = "HOST", help_heading = "Network")]
    pub(crate) location: Option<String>,
    /// Transport: tcp or ipc
    #[arg(long, value_parser = ["tcp", "ipc"], default_value = "tcp", help_heading = "Network")]
    pub(crate) transport: String,

    /// Period of the heartbeat, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 3000, value_parser = clap::value_parser!(u64).range(10..=3_600_000), help_heading = "Engines")]
    pub(crate) ping: u64,
    /// Heartbeats that an engine may miss in a row before it counts as dead
    #[arg(long, value_name = "N", default_value_t = 10, help_heading = "Engines")]
    pub(crate) max_heart_misses: u32,
    /// How engines are chosen: leastload, lru, plainrandom, pure, twobin or weighted
    #[arg(long, default_value_t = Scheme::default(), help_heading = "Engines")]
    pub(crate) scheme: Scheme,
    /// Most tasks sent to one engine at a time; 0: no limit
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Engines")]
    pub(crate) hwm: u32,

    /// Keep task records in memory (as many as ipcontroller does)
    #[arg(long, conflicts_with = "nodb", help_heading = "Task records")]
    pub(crate) dictdb: bool,
    /// Keep no task records
    #[arg(long, help_heading = "Task records")]
    pub(crate) nodb: bool,

    /// Take ports and key from the connection files that are there, and leave the files in place at the end
    #[arg(long, help_heading = "Connection files")]
    pub(crate) reuse: bool,

    /// End when the process with this id does, which must be the parent
    #[arg(long, value_name = "PID", hide = true)]
    pub(crate) parent: Option<i32>,
}

/// A list of ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ports(pub(crate) Vec<u16>);

fn ports(text: &str) -> Result<Ports, String> {
    let port = |text: &str| {
        text.trim()
            .parse::<u16>()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| format!("`{text}` is not a port from 1 to 65535"))
    };
    let mut all = Vec::new();
    for range in text.split(',').filter(|range| !range.trim().is_empty()) {
        match range.split_once('-') {
            Some((first, last)) => {
                let (first, last) = (port(first)?, port(last)?);
                if first > last {
                    return Err(format!("`{range}` ends before it begins"));
                }
                all.extend(first..=last);
            }
            None => all.push(port(range)?),
        }
    }
    Ok(Ports(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_ranges_and_single_ones() {
        assert_eq!(ports("10101-10103,9").unwrap(), Ports(vec![10101, 10102, 10103, 9]));
        assert_eq!(ports("").unwrap(), Ports(vec![]));
        for (text, reason) in [("5-2", "ends before"), ("0", "`0`"), ("1-x", "`x`"), ("70000", "65535")] {
            assert!(ports(text).unwrap_err().contains(reason), "{text}");
        }
    }
}
