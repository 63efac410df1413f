//! `remuda controller`, in the spellings of ipcontroller (`controller/app.py`).

use std::path::{Path, PathBuf};

use clap::{ArgAction, Args, ValueEnum};
use remuda_cluster::{
    MAX_BROADCAST_DEPTH, MAX_ENGINES, MAX_HUB_LAG, MAX_STORE_LAG, MAX_STORE_LAG_BYTES, MAX_UNREAD_BYTES,
    RECONNECT_TIMEOUT, Scheme, SqliteConfig, TaskConfig,
};
use remuda_http::{Address, MAX_INPUT_BYTES};
use remuda_proto::Packer;
use remuda_proto::monitor::Durability;

use super::{ConfigArgs, LogArgs, PlaceArgs, switch};

/// Arguments of `remuda controller`. A later one of the same name counts: so it goes over those of files.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    after_help = "ipcontroller's own spellings work too (--HeartMonitor.period=200, --nodb, --sqlitedb): see --help-all."
)]
pub(crate) struct ControllerArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,

    /// Address to listen at: an ip, or `*` for all; with `ipc` a path [default: 127.0.0.1] [env: `IPP_CONTROLLER_IP`]
    #[arg(long, help_heading = "Network")]
    pub(crate) ip: Option<String>,
    /// Address for engines, if another
    #[arg(long, value_name = "IP", help_heading = "Network")]
    pub(crate) engine_ip: Option<String>,
    /// Address for clients, if another
    #[arg(long, value_name = "IP", help_heading = "Network")]
    pub(crate) client_ip: Option<String>,
    /// Transport: tcp, or ipc for sockets in the profile's folder
    #[arg(long, value_enum, default_value_t = Transport::Tcp, help_heading = "Network")]
    pub(crate) transport: Transport,
    /// Transport for engines, if another
    #[arg(long, value_enum, value_name = "TRANSPORT", help_heading = "Network")]
    pub(crate) engine_transport: Option<Transport>,
    /// Transport for clients, if another
    #[arg(long, value_enum, value_name = "TRANSPORT", help_heading = "Network")]
    pub(crate) client_transport: Option<Transport>,
    /// Port of the hub, where engines and clients register; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0, help_heading = "Network")]
    pub(crate) port: u16,
    /// Ports to take first, `10101-10120,10130` say; when they run out, free ones are taken
    #[arg(long, value_name = "PORTS", default_value = "", value_parser = ports, help_heading = "Network")]
    pub(crate) ports: PortList,
    /// Ports to take first for what engines connect to
    #[arg(long, value_name = "PORTS", default_value = "", value_parser = ports, help_heading = "Network")]
    pub(crate) engine_ports: PortList,
    /// Ports to take first for what clients connect to
    #[arg(long, value_name = "PORTS", default_value = "", value_parser = ports, help_heading = "Network")]
    pub(crate) client_ports: PortList,
    /// Host name that is written into the connection files [default: this host's]
    #[arg(long, value_name = "HOST", help_heading = "Network")]
    pub(crate) location: Option<String>,
    /// SSH server through which clients are to connect, `[user@]host[:port]`; written into their connection file
    #[arg(long, value_name = "SERVER", default_value = "", hide_default_value = true, help_heading = "Network")]
    pub(crate) ssh: String,
    /// SSH server through which engines are to connect; written into their connection file
    #[arg(long, value_name = "SERVER", default_value = "", hide_default_value = true, help_heading = "Network")]
    pub(crate) enginessh: String,
    /// Engines spread over 2 to the power of this many ports for broadcasts
    #[arg(long, value_name = "DEPTH", default_value_t = 1, help_heading = "Network",
          value_parser = clap::value_parser!(u8).range(0..=i64::from(MAX_BROADCAST_DEPTH)))]
    pub(crate) broadcast_depth: u8,

    /// Key with which messages are signed; empty: they are not [default: a new one] [env: `IPP_SESSION_KEY`]
    #[arg(long, value_name = "KEY", help_heading = "Security")]
    pub(crate) key: Option<String>,
    /// File that holds the key; empty: none
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub(crate) key_file: Option<String>,
    /// How messages are packed: json, orjson or msgpack
    #[arg(long, default_value = "json", value_parser = packer, help_heading = "Security")]
    pub(crate) packer: Packer,
    /// How messages are unpacked: as they are packed
    #[arg(long, value_parser = packer, hide = true)]
    pub(crate) unpacker: Option<Packer>,
    /// How messages are signed
    #[arg(long, value_parser = ["hmac-sha256"], hide = true)]
    pub(crate) signature_scheme: Option<String>,
    /// Encrypt all connections with CURVE, if libzmq has it (`remuda --version`) [env: `IPP_ENABLE_CURVE`]
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true",
          value_parser = switch, action = ArgAction::Set, hide_default_value = true, value_name = "BOOL", help_heading = "Security")]
    pub(crate) enable_curve: bool,
    /// Own secret key for CURVE [default: a new one] [env: `IPP_CURVE_SECRETKEY`]
    #[arg(long, value_name = "KEY", help_heading = "Security")]
    pub(crate) curve_secretkey: Option<String>,
    /// The public key that belongs to it [env: `IPP_CURVE_PUBLICKEY`]
    #[arg(long, value_name = "KEY", help_heading = "Security")]
    pub(crate) curve_publickey: Option<String>,

    /// Period of the heartbeat, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 3000, value_parser = clap::value_parser!(u64).range(10..=3_600_000), help_heading = "Engines")]
    pub(crate) ping: u64,
    /// Heartbeats that an engine may miss in a row before it counts as dead
    #[arg(long, value_name = "N", default_value_t = 10, help_heading = "Engines")]
    pub(crate) max_heart_misses: u32,
    /// Seconds that an engine may take to register; 0: 30, or ten heartbeats if that is longer
    #[arg(long, value_name = "S", default_value_t = 0, help_heading = "Engines")]
    pub(crate) registration_timeout: u32,
    /// How engines are chosen: leastload, lru, plainrandom, pure, twobin or weighted
    #[arg(long, default_value_t = Scheme::default(), help_heading = "Engines")]
    pub(crate) scheme: Scheme,
    /// Most tasks sent to one engine at a time, for each that it runs at once; 0: no limit
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Engines")]
    pub(crate) hwm: u32,
    /// Seconds that a task waits until it counts as one of the next higher priority; 0: it never does
    #[arg(long, value_name = "S", default_value_t = TaskConfig::PRIORITY_AGE.as_secs(), help_heading = "Engines",
          value_parser = priority_age)]
    pub(crate) priority_age: u64,

    /// Most tasks without a reply; with as many, no more are read from clients until a quarter is done
    #[arg(long, value_name = "N", default_value_t = TaskConfig::MAX_PENDING_TASKS, help_heading = "Limits")]
    pub(crate) max_pending_tasks: usize,
    /// Most bytes of tasks without a reply, in the same way
    #[arg(long, value_name = "BYTES", default_value_t = TaskConfig::MAX_PENDING_BYTES, help_heading = "Limits")]
    pub(crate) max_pending_bytes: usize,
    /// Finished tasks on which others may still depend; older ones are forgotten
    #[arg(long, value_name = "N", default_value_t = TaskConfig::MAX_FINISHED_IDS, help_heading = "Limits")]
    pub(crate) max_finished_ids: usize,
    /// Largest message taken; a larger one is answered with an error
    #[arg(long, value_name = "BYTES", default_value_t = TaskConfig::MAX_MESSAGE_BYTES, help_heading = "Limits")]
    pub(crate) max_message_bytes: usize,
    /// Most engines; one more is refused. 0: as many as the limit on open files allows
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Limits",
          value_parser = clap::value_parser!(u32).range(0..=MAX_ENGINES as i64))]
    pub(crate) max_engines: u32,
    /// Most bytes that wait on one socket for peers that do not read; beyond it the slowest peer misses messages
    #[arg(long, value_name = "BYTES", default_value_t = MAX_UNREAD_BYTES, help_heading = "Limits")]
    pub(crate) max_unread_bytes: usize,
    /// Seconds for which what is for a client or an engine that is not connected is kept for it
    #[arg(long, value_name = "S", default_value_t = RECONNECT_TIMEOUT.as_secs(), help_heading = "Limits")]
    pub(crate) reconnect_timeout: u64,
    /// Messages that the hub may be behind the schedulers before no more are read from clients
    #[arg(long, value_name = "N", default_value_t = MAX_HUB_LAG, help_heading = "Limits")]
    pub(crate) max_hub_lag: usize,
    /// Changes of task records that may wait for the disk before no more are read from clients
    #[arg(long, value_name = "N", default_value_t = MAX_STORE_LAG, help_heading = "Limits")]
    pub(crate) max_store_lag: usize,
    /// Bytes of such changes, in the same way
    #[arg(long, value_name = "BYTES", default_value_t = MAX_STORE_LAG_BYTES, help_heading = "Limits")]
    pub(crate) max_store_lag_bytes: usize,

    /// Where task records are kept: memory, sqlite, the path of a database, or none (`dictdb`, `sqlitedb` and `nodb` for
    /// ipcontroller)
    #[arg(long, value_name = "STORE", default_value = "memory", value_parser = store, help_heading = "Task records")]
    pub(crate) db: Store,
    /// Most records in memory [default: 1024]
    #[arg(long, value_name = "N", help_heading = "Task records")]
    pub(crate) record_limit: Option<usize>,
    /// Most bytes of records in memory [default: 1 GiB]
    #[arg(long, value_name = "BYTES", help_heading = "Task records")]
    pub(crate) size_limit: Option<usize>,
    /// Which part of the records goes when a limit is reached, the oldest first [default: 0.1]
    #[arg(long, value_name = "PART", value_parser = fraction, help_heading = "Task records")]
    pub(crate) cull_fraction: Option<f64>,

    /// What of a crash the records survive: async (all but the last 100 ms), or sync (nothing is done before it is on
    /// disk); none without a database [default: async with `--db=sqlite`]
    #[arg(long, value_name = "LEVEL", value_parser = durability, help_heading = "Task records")]
    pub(crate) durability: Option<Durability>,
    /// Drop records from the database so many days after their tasks ended [default: never]
    #[arg(long, value_name = "DAYS", help_heading = "Task records")]
    pub(crate) keep_records_days: Option<u64>,
    /// Most records in the database; beyond it the oldest that ended go [default: no limit]
    #[arg(long, value_name = "N", help_heading = "Task records")]
    pub(crate) keep_records: Option<u64>,
    /// Most bytes of records in the database, in the same way [default: no limit]
    #[arg(long, value_name = "BYTES", help_heading = "Task records")]
    pub(crate) keep_records_bytes: Option<u64>,
    /// Name of the database's file
    #[arg(long, value_name = "FILE", default_value = SqliteConfig::FILENAME, help_heading = "Task records")]
    pub(crate) sqlite_filename: PathBuf,
    /// Folder of the database [default: the profile's]
    #[arg(long, value_name = "DIR", help_heading = "Task records")]
    pub(crate) sqlite_location: Option<PathBuf>,
    /// Table of the database
    #[arg(long, value_name = "NAME", default_value = SqliteConfig::TABLE, help_heading = "Task records")]
    pub(crate) sqlite_table: String,

    /// Take ports and key from the connection files that are there, and leave the files in place at the end
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true",
          value_parser = switch, action = ArgAction::Set, hide_default_value = true, value_name = "BOOL", help_heading = "Connection files")]
    pub(crate) reuse: bool,
    /// Wait for the engines of the controller that was here before, on its ports: they are registered again as soon as they answer
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true",
          value_parser = switch, action = ArgAction::Set, hide_default_value = true, value_name = "BOOL", help_heading = "Connection files")]
    pub(crate) restore: bool,
    /// Name of the clients' file, in the profile's `security` folder
    #[arg(long, value_name = "FILE", help_heading = "Connection files")]
    pub(crate) client_file: Option<PathBuf>,
    /// Name of the engines' file, in the profile's `security` folder
    #[arg(long, value_name = "FILE", help_heading = "Connection files")]
    pub(crate) engine_file: Option<PathBuf>,

    /// Serve process definitions over HTTP at this address: a port, or an ip and a port; 0 takes a free one [default: off]
    #[arg(long, value_name = "ADDR", value_parser = address, help_heading = "HTTP")]
    pub(crate) http: Option<Address>,
    /// File with the token that requests have to show [default: a new token, in `http-token` in the profile's `security` folder]
    #[arg(long, value_name = "FILE", requires = "http", help_heading = "HTTP")]
    pub(crate) http_token_file: Option<PathBuf>,
    /// Most bytes that one request may give a program to read
    #[arg(long, value_name = "BYTES", default_value_t = MAX_INPUT_BYTES, help_heading = "HTTP")]
    pub(crate) http_max_input_bytes: usize,

    /// End when the process with this id does, which must be the parent
    #[arg(long, value_name = "PID", hide = true)]
    pub(crate) parent: Option<i32>,
}

/// How peers connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// TCP
    Tcp,
    /// Sockets in the file system of one machine
    Ipc,
}

/// Where task records are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    /// In memory.
    Memory,
    /// Nowhere.
    None,
    /// In a database.
    Sqlite,
    /// In this one.
    File(PathBuf),
}

impl ControllerArgs {
    /// The database, of a controller with this profile directory.
    pub(crate) fn database(&self, profile_dir: &Path) -> PathBuf {
        if let Store::File(path) = &self.db {
            return path.clone();
        }
        let location = self.sqlite_location.as_deref().filter(|location| !location.as_os_str().is_empty());
        location.unwrap_or(profile_dir).join(&self.sqlite_filename)
    }
}

fn store(text: &str) -> Result<Store, String> {
    match text {
        "memory" | "dictdb" => Ok(Store::Memory),
        "none" | "nodb" => Ok(Store::None),
        "sqlite" | "sqlitedb" => Ok(Store::Sqlite),
        "mongodb" => {
            Err("there is no MongoDB store: use sqlite (`--sqlitedb`), which keeps records in a file".to_owned())
        }
        path if path.contains('/') || Path::new(path).extension().is_some() => Ok(Store::File(PathBuf::from(path))),
        _ => {
            Err("use memory, sqlite, none, or the path of a database (with a `/`, or an ending such as `.db`)"
                .to_owned())
        }
    }
}

fn durability(text: &str) -> Result<Durability, String> {
    Durability::from_name(text).ok_or_else(|| "use none, async or sync".to_owned())
}

fn address(text: &str) -> Result<Address, String> {
    text.parse().map_err(|error: remuda_http::AddressError| error.to_string())
}

fn packer(text: &str) -> Result<Packer, String> {
    Packer::from_name(text).map_err(|error| error.to_string())
}

fn fraction(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|part| (0.0..=1.0).contains(part)).ok_or_else(|| "use a number from 0 to 1".to_owned())
}

/// A list of ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortList(pub(crate) Vec<u16>);

fn ports(text: &str) -> Result<PortList, String> {
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
    Ok(PortList(all))
}

/// Below ten seconds, the order would be wrong for long-lived controllers.
fn priority_age(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(seconds @ (0 | 10..=1_000_000_000)) => Ok(seconds),
        _ => Err("give 0, or 10 seconds and more".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_ranges_and_single_ones() {
        assert_eq!(ports("10101-10103,9").unwrap(), PortList(vec![10101, 10102, 10103, 9]));
        assert_eq!(ports("").unwrap(), PortList(vec![]));
        for (text, reason) in [("5-2", "ends before"), ("0", "`0`"), ("1-x", "`x`"), ("70000", "65535")] {
            assert!(ports(text).unwrap_err().contains(reason), "{text}");
        }
    }
}
