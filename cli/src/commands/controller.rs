//! `remuda controller`: runs one until it is told to end.

mod problems;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use remuda_cluster::{
    Controller, ControllerConfig, HeartConfig, Interface, Keep, Limits, Ports, SqliteConfig, StoreKind, TaskConfig,
    invitation,
};
use remuda_http::{Server, Settings, Token};
use remuda_net::curve::KeyPair;
use remuda_net::{Profile, Unsent, address, connection_file};
use remuda_proto::monitor::Durability;
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::args::controller::{ControllerArgs, Store, Transport};
use crate::failure::{Failure, Outcome};
use crate::logging;
use crate::service_manager::{Service, State};

pub(super) use problems::{ports_of, problems};

pub(crate) fn run(args: &ControllerArgs, notes: &[String]) -> Outcome {
    let profile = args.place.profile();
    if let Some(problems) = Failure::several(problems(args)) {
        // They are on stderr, and where the log is there too, in its format.
        if !args.log.log_to_file {
            logging::start(&args.log, &profile, "ipcontroller", notes)?;
        }
        return Err(problems);
    }
    let config = resolve(args)?;
    let http = http(args, &config)?;
    logging::start(&args.log, &profile, "ipcontroller", notes)?;
    args.config.enter_work_dir()?;
    // Before any thread is started, so that no signal is missed.
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    // A file that may not grow any more is like a full disk: an error, and no reason to be killed.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    if let Some(parent) = args.parent {
        remuda_cluster::end_with_parent(parent)?;
    }
    let open_files = remuda_net::limits::raise_open_files();

    let controller = Controller::start(&config)?;
    let service = Service::of_environment();
    let stopper = controller.stopper();
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            tracing::info!(signal, "ending");
            Service::of_environment().tell(State::Stopping);
            stopper.stop();
        }
    })?;
    let connection = controller.connection();
    tracing::info!(
        scheme = connection.task_scheme,
        hwm = args.hwm,
        open_files,
        max_engines = controller.max_engines(),
        "listening at {}, hub at port {}; connection files in {}",
        connection.common.interface,
        connection.common.registration,
        profile.security().display(),
    );
    if let Ok(connection) = connection_file::read_engine(&profile.engine_file())
        && invitation::for_others(connection, None, address::host_name().as_deref()).is_ok()
    {
        tracing::info!(
            "`remuda cluster invite{}` prints a command that starts an engine on another machine",
            args.place.options()
        );
    }
    let server = match http.map(Server::start).transpose() {
        Ok(server) => server,
        Err(error) => {
            controller.stopper().stop();
            controller.wait();
            return Err(error.into());
        }
    };
    if let Some(server) = &server {
        tracing::info!("process definitions at http://{}/api/process_definition/", server.address());
    }
    service.tell(State::Ready);
    controller.wait();
    drop(server);
    tracing::info!("ended");
    Ok(ExitCode::SUCCESS)
}

/// Peers pack as they unpack.
fn packers(args: &ControllerArgs) -> Result<(), Failure> {
    if args.unpacker.is_some_and(|unpacker| unpacker != args.packer) {
        return Err(Failure::usage("packer and unpacker differ: peers pack as they unpack")
            .hint("give both the same, or `--packer` alone"));
    }
    Ok(())
}

/// What the arguments come to.
pub(super) fn resolve(args: &ControllerArgs) -> Result<ControllerConfig, Failure> {
    let profile = args.place.profile();
    let defaults = ControllerConfig::new(profile.clone());
    packers(args)?;
    let own_file = |name: &Option<PathBuf>, default: &Path| {
        name.as_ref().map_or_else(|| default.to_owned(), |name| profile.security().join(name))
    };
    // Made once, since it may be a new folder: one for both sides.
    let ipc = Interface::ipc_of(&profile);
    let engine_interface = interface(args, &ipc, args.engine_transport, args.engine_ip.as_deref())?;
    let client_interface = interface(args, &ipc, args.client_transport, args.client_ip.as_deref())?;
    let hub_port = (args.port != 0).then_some(args.port);
    let ports = Ports {
        // The hub's is the first that engines need.
        engine: hub_port.into_iter().chain(args.engine_ports.0.iter().copied()).collect(),
        client: args.client_ports.0.clone(),
        common: args.ports.0.clone(),
    };
    let config = ControllerConfig {
        client_file: own_file(&args.client_file, &defaults.client_file),
        engine_file: own_file(&args.engine_file, &defaults.engine_file),
        engine_interface,
        client_interface,
        location: args.location.clone().unwrap_or_else(|| defaults.location.clone()),
        ssh: args.ssh.clone(),
        engine_ssh: args.enginessh.clone(),
        ports,
        broadcast_depth: args.broadcast_depth,
        key: key(args)?,
        curve: curve(args)?,
        packer: args.packer,
        heart: HeartConfig { period: Duration::from_millis(args.ping), max_misses: args.max_heart_misses },
        registration_timeout: (args.registration_timeout != 0)
            .then(|| Duration::from_secs(u64::from(args.registration_timeout))),
        task: TaskConfig {
            scheme: args.scheme,
            hwm: args.hwm,
            priority_age: Duration::from_secs(args.priority_age),
            max_pending_tasks: args.max_pending_tasks,
            max_pending_bytes: args.max_pending_bytes,
            max_finished_ids: args.max_finished_ids,
            max_message_bytes: args.max_message_bytes,
            seed: u64::from_le_bytes(remuda_net::random_bytes()[..8].try_into().expect("8 of 16 bytes")),
            ..TaskConfig::default()
        },
        max_engines: (args.max_engines != 0).then_some(args.max_engines as usize),
        unsent: Unsent {
            max_bytes: args.max_unread_bytes,
            keep: Duration::from_secs(args.reconnect_timeout.min(365 * 86_400)),
        },
        max_hub_lag: args.max_hub_lag,
        store: store(args, &profile)?,
        max_store_lag: args.max_store_lag,
        max_store_lag_bytes: args.max_store_lag_bytes,
        restore: args.restore,
        // As in stock: engines know no other ports than those that they have.
        reuse: args.reuse || args.restore,
        ..defaults
    };
    Ok(config)
}

/// The HTTP server, if there is to be one.
fn http(args: &ControllerArgs, config: &ControllerConfig) -> Result<Option<Settings>, Failure> {
    let Some(address) = args.http else { return Ok(None) };
    if !address.is_loopback() && args.http_token_file.is_none() {
        let text = format!("`--http={address}` is open to other machines, and no token is given for it");
        return Err(Failure::usage(text).hint("give one with `--http-token-file FILE`, or listen on 127.0.0.1"));
    }
    let token = match &args.http_token_file {
        Some(path) => Token::read(path).map_err(|error| {
            Failure::new(error)
                .code(2)
                .hint("`head -c 16 /dev/urandom | base64 > FILE` makes one; name it with `--http-token-file`")
        })?,
        None => Token::random(),
    };
    Ok(Some(Settings {
        address,
        token,
        token_file: args.http_token_file.clone(),
        profile: config.profile.clone(),
        client_file: config.client_file.clone(),
        max_input_bytes: args.http_max_input_bytes,
    }))
}

/// Where one side is to find the controller. With `ipc` and no path, that is the profile's folder.
fn interface(
    args: &ControllerArgs,
    ipc: &Interface,
    transport: Option<Transport>,
    ip: Option<&str>,
) -> Result<Interface, Failure> {
    let ip = ip.or(args.ip.as_deref());
    if ip.is_some_and(str::is_empty) {
        return Err(Failure::usage("`--ip` is empty").hint("give an address, or `--ip=*` for all"));
    }
    Ok(match (transport.unwrap_or(args.transport), ip) {
        (Transport::Tcp, ip) => Interface::tcp(ip.unwrap_or("127.0.0.1")),
        // An address of TCP, which the other side may need, is no path.
        (Transport::Ipc, Some(path)) if path != "*" && path.parse::<std::net::IpAddr>().is_err() => {
            Interface::ipc(path)
        }
        (Transport::Ipc, _) => ipc.clone(),
    })
}

/// The key that messages are signed with, where one is given: a file goes over text, since who names a file means it.
fn key(args: &ControllerArgs) -> Result<Option<String>, Failure> {
    let Some(path) = args.key_file.as_deref().filter(|path| !path.is_empty()).map(Path::new) else {
        return Ok(args.key.clone());
    };
    let text = fs::read_to_string(path).map_err(|error| {
        let what = format!("cannot read the key file `{}`", path.display());
        Failure::new(anyhow::Error::new(error).context(what)).hint("name another with `--key-file`")
    })?;
    Ok(Some(text.trim().to_owned()))
}

fn curve(args: &ControllerArgs) -> Result<Option<KeyPair>, Failure> {
    if !args.enable_curve {
        return Ok(None);
    }
    let given = |key: &'_ Option<String>| key.clone().filter(|key| !key.is_empty());
    let (public, secret) = (given(&args.curve_publickey), given(&args.curve_secretkey));
    let pair = KeyPair::given_or_new(public.as_deref(), secret.as_deref());
    pair.map(Some).map_err(|error| Failure::usage(error).hint("`remuda --version` says whether CURVE is there"))
}

/// What a crash may cost: with a database little, without one everything.
fn durability(args: &ControllerArgs) -> Result<Durability, Failure> {
    let in_database = matches!(args.db, Store::Sqlite | Store::File(_));
    match args.durability {
        None if in_database => Ok(Durability::Async),
        None => Ok(Durability::None),
        Some(durability) if in_database == (durability != Durability::None) => Ok(durability),
        Some(durability) if in_database => {
            let text = format!("`--durability={}` with a database, which always lasts", durability.name());
            Err(Failure::usage(text)
                .hint("give `--durability=async` or `sync`, or keep records in memory: `--db=memory`"))
        }
        Some(durability) => {
            let text = format!("`--durability={}` without a database", durability.name());
            Err(Failure::usage(text).hint("give `--db=sqlite`, too"))
        }
    }
}

fn store(args: &ControllerArgs, profile: &Profile) -> Result<StoreKind, Failure> {
    let durability = durability(args)?;
    let limits = Limits::default();
    let limits = Limits {
        records: args.record_limit.unwrap_or(limits.records),
        size_bytes: args.size_limit.unwrap_or(limits.size_bytes),
        cull_fraction: args.cull_fraction.unwrap_or(limits.cull_fraction),
    };
    Ok(match &args.db {
        Store::None => StoreKind::None,
        Store::Memory => StoreKind::Memory(limits),
        Store::Sqlite | Store::File(_) => {
            let path = args.database(profile.dir());
            // In stock an empty name is that of the session: a table of its own.
            let table = Some(&args.sqlite_table).filter(|table| !table.is_empty()).cloned();
            let table = table.unwrap_or_else(|| format!("_{}", remuda_net::random_session_id()).replace('-', "_"));
            let keep = Keep {
                age: args.keep_records_days.map(|days| Duration::from_secs(days.saturating_mul(86_400))),
                records: args.keep_records,
                bytes: args.keep_records_bytes,
            };
            StoreKind::Sqlite(SqliteConfig { path, table, durability, keep })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser;

    fn config(words: &str) -> Result<ControllerConfig, Failure> {
        let all = format!("remuda controller --profile-dir=/p {words}");
        let Command::Controller(args) = Args::try_parse_from(all.split_whitespace()).unwrap().command else { panic!() };
        resolve(&args)
    }

    #[test]
    fn a_database_has_its_place() {
        for (words, place) in [
            ("--db=sqlite", "/p/tasks.db"),
            ("--db=sqlite --sqlite-location=/d --sqlite-filename=t", "/d/t"),
            ("--db /d/x", "/d/x"),
            ("--db x.db --sqlite-location=/d", "x.db"),
        ] {
            let StoreKind::Sqlite(sqlite) = config(words).ok().unwrap().store else { panic!("{words}") };
            assert_eq!(sqlite.path, Path::new(place), "{words}");
        }
        let args = Args::try_parse_from(["remuda", "controller", "--db", "sqlight"]);
        assert!(args.unwrap_err().to_string().contains("path of a database"));
    }

    #[test]
    fn each_side_has_its_interface() {
        for (words, engine, client) in [
            ("", "tcp://127.0.0.1", "tcp://127.0.0.1"),
            ("--ip=*", "tcp://*", "tcp://*"),
            ("--engine-ip=10.0.0.1", "tcp://10.0.0.1", "tcp://127.0.0.1"),
            ("--ip=10.0.0.1 --client-ip=*", "tcp://10.0.0.1", "tcp://*"),
            ("--transport=ipc", "ipc:///p/security/ipcontroller", "ipc:///p/security/ipcontroller"),
            ("--transport=ipc --cluster-id=x", "ipc:///p/security/ipcontroller-x", "ipc:///p/security/ipcontroller-x"),
            ("--transport=ipc --ip=/s/a", "ipc:///s/a", "ipc:///s/a"),
            ("--client-transport=ipc --ip=10.0.0.1", "tcp://10.0.0.1", "ipc:///p/security/ipcontroller"),
            ("--engine-transport=ipc --engine-ip=/e", "ipc:///e", "tcp://127.0.0.1"),
        ] {
            let config = config(words).ok().unwrap();
            assert_eq!(config.engine_interface.to_string(), engine, "{words}");
            assert_eq!(config.client_interface.to_string(), client, "{words}");
        }
        assert!(config("--ip=").is_err());
    }

    #[test]
    fn the_port_of_the_hub_comes_first_and_each_side_has_its_pool() {
        let ports = config("--port=9 --ports=1-2 --engine-ports=3 --client-ports=4,5").ok().unwrap().ports;
        assert_eq!(ports, Ports { engine: vec![9, 3], client: vec![4, 5], common: vec![1, 2] });
    }

    #[test]
    fn a_key_is_given_as_text_or_in_a_file_and_may_be_empty() {
        assert_eq!(config("").ok().unwrap().key, None);
        assert_eq!(config("--key=k").ok().unwrap().key.as_deref(), Some("k"));
        assert_eq!(config("--key=").ok().unwrap().key.as_deref(), Some(""));
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "from the file\n").unwrap();
        let words = format!("--key=k --key-file={}", file.path().display());
        assert_eq!(config(&words).ok().unwrap().key.as_deref(), Some("from the file"));
        assert!(config("--key-file=/nowhere/k").is_err());
        assert_eq!(config("--key-file=/nowhere/k --key=new --key-file=").ok().unwrap().key.as_deref(), Some("new"));
    }

    #[test]
    fn http_that_others_reach_needs_a_token() {
        let settings = |words: &str| {
            let all = format!("remuda controller --profile-dir=/p {words}");
            let Command::Controller(args) = Args::try_parse_from(all.split_whitespace()).unwrap().command else {
                panic!()
            };
            http(&args, &resolve(&args).ok().unwrap())
        };
        assert!(settings("").is_ok_and(|settings| settings.is_none()));
        for (words, address) in
            [("--http 8080", "127.0.0.1:8080"), ("--http=:0", "127.0.0.1:0"), ("--http=[::1]:9", "[::1]:9")]
        {
            assert_eq!(settings(words).ok().unwrap().unwrap().address.to_string(), address);
        }
        assert!(settings("--http *:80").is_err() && settings("--http 10.0.0.1:80").is_err());
        assert!(settings("--http 80 --http-token-file /nowhere/token").is_err());
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "a-token-of-some-length\n").unwrap();
        assert!(settings(&format!("--http *:80 --http-token-file={}", file.path().display())).is_ok());
        assert!(Args::try_parse_from(["remuda", "controller", "--http-token-file=x"]).is_err());
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        assert!(config("--packer=msgpack").is_ok_and(|config| config.packer.name() == "msgpack"));
        assert!(config("--packer=msgpack --unpacker=msgpack").is_ok());
        assert!(config("--packer=msgpack --unpacker=json").is_err());
        assert!(config("--enable-curve --curve-publickey=x").is_err());
    }
}
