//! What a controller takes over from the connection files of an earlier one, and what it takes from its configuration.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use remuda_net::connection_file::{self, FileError};
use remuda_proto::{ClientConnection, EngineConnection, Packer};

use crate::controller::{ControllerConfig, StartError};
use crate::ports::{Interface, Ports};

/// What an earlier controller wrote.
pub(crate) struct Known {
    pub(crate) client: ClientConnection,
    pub(crate) engine: EngineConnection,
    packer: Packer,
}

impl Known {
    /// Reads both files, which must agree (`controller/app.py: load_config_from_json`). Where they cannot be used, the log
    /// says why, and new ones are to be written.
    pub(crate) fn read(client: &Path, engine: &Path) -> Option<Self> {
        match Self::try_read(client, engine) {
            Ok(Ok(known)) => Some(known),
            Ok(Err(what)) => {
                let (client, engine) = (client.display(), engine.display());
                tracing::warn!("`{client}` and `{engine}` {what}: writing new ones");
                None
            }
            Err(FileError::Missing { path }) => {
                tracing::info!("no `{}` to use again: writing new connection files", path.display());
                None
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!("{error}: writing new connection files");
                None
            }
        }
    }

    /// The outer error is that of one file, the inner one of both together.
    fn try_read(client: &Path, engine: &Path) -> Result<Result<Self, String>, FileError> {
        // Not `read_client`: the key of CURVE is not taken over, so it does not matter whether there is one.
        let (client, engine): (ClientConnection, EngineConnection) =
            (connection_file::read(client)?, connection_file::read(engine)?);
        let (ours, theirs) = (&client.common, &engine.common);
        let pairs = [
            ("key", ours.key == theirs.key),
            ("registration", ours.registration == theirs.registration),
            ("pack", ours.pack == theirs.pack),
            ("unpack", ours.unpack == theirs.unpack),
            ("signature_scheme", ours.signature_scheme == theirs.signature_scheme),
        ];
        if let Some((name, _)) = pairs.into_iter().find(|(_, same)| !same) {
            return Ok(Err(format!("do not agree on `{name}`")));
        }
        if engine.broadcast.is_empty() {
            return Ok(Err("name no port for broadcasts".to_owned()));
        }
        for common in [ours, theirs] {
            if !matches!(common.transport(), "tcp" | "ipc") || common.ip().is_empty() {
                return Ok(Err(format!("name an interface that is none: `{}`", common.interface)));
            }
        }
        let usable = ours.packer().and_then(|packer| ours.signing_key().map(|_| packer));
        Ok(match usable {
            Ok(packer) => Ok(Self { client, engine, packer }),
            Err(error) => Err(format!("cannot be used ({error})")),
        })
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.extend([": ", &next.to_string()]);
        cause = next.source();
    }
    text
}

/// What holds for this start: the files' where there are any, else the configuration's.
pub(crate) struct Resolved {
    pub(crate) engine_interface: Interface,
    pub(crate) client_interface: Interface,
    pub(crate) ports: Ports,
    /// How many ports the broadcast scheduler has.
    pub(crate) leaves: usize,
    pub(crate) key: String,
    pub(crate) packer: Packer,
    pub(crate) location: String,
    pub(crate) ssh: String,
    pub(crate) engine_ssh: String,
}

impl Resolved {
    /// Everything that peers of the earlier controller rely on comes from its files: they reconnect by themselves.
    pub(crate) fn new(config: &ControllerConfig, known: Option<&Known>) -> Self {
        let ssh = |given: &str, known: &str| if given.is_empty() { known.to_owned() } else { given.to_owned() };
        if let Some(Known { client, engine, packer }) = known {
            let resolved = Self {
                engine_interface: Interface::of_file(&engine.common),
                client_interface: Interface::of_file(&client.common),
                ports: Ports::of_files(client, engine),
                leaves: engine.broadcast.len(),
                key: engine.common.key.clone(),
                packer: *packer,
                location: engine.common.location.clone(),
                ssh: ssh(&config.ssh, &client.common.ssh),
                engine_ssh: ssh(&config.engine_ssh, &engine.common.ssh),
            };
            resolved.tell_what_does_not_count(config);
            return resolved;
        }
        let new_key = || remuda_net::random_session_id().to_string();
        let unsigned = config.curve.as_ref().map(|_| String::new());
        Self {
            engine_interface: config.engine_interface.clone(),
            client_interface: config.client_interface.clone(),
            ports: config.ports.clone(),
            leaves: 1 << config.broadcast_depth,
            key: config.key.clone().or(unsigned).unwrap_or_else(new_key),
            packer: config.packer,
            location: config.location.clone(),
            ssh: config.ssh.clone(),
            engine_ssh: config.engine_ssh.clone(),
        }
    }

    fn tell_what_does_not_count(&self, config: &ControllerConfig) {
        for (whose, files, given) in [
            ("engines", &self.engine_interface, &config.engine_interface),
            ("clients", &self.client_interface, &config.client_interface),
        ] {
            if files != given {
                tracing::info!("listening for {whose} at {files}, as the connection files say, not at {given}");
            }
        }
        if config.key.as_ref().is_some_and(|key| *key != self.key) {
            tracing::warn!("the key of the connection files counts, not the one that was configured");
        }
    }
}

/// What the transport `ipc` leaves in the file system, to be removed at the end.
#[derive(Default)]
pub(crate) struct SocketFiles {
    /// Folders that were made for this start.
    folders: Vec<PathBuf>,
    /// The sockets. libzmq removes only those whose name it chose itself.
    sockets: Vec<PathBuf>,
}

impl SocketFiles {
    /// Makes the folders that are missing, for the owner alone.
    pub(crate) fn make_folders(resolved: &Resolved) -> Result<Self, StartError> {
        let mut made = Self::default();
        for interface in [&resolved.engine_interface, &resolved.client_interface] {
            let Some(path) = interface.folder() else { continue };
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => made.folders.push(path),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(source) => return Err(StartError::SocketFolder { path, source }),
            }
        }
        Ok(made)
    }

    /// Remembers the sockets that a pair of connection files names.
    pub(crate) fn remember(&mut self, client: &ClientConnection, engine: &EngineConnection) {
        let ports = Ports::of_files(client, engine);
        let engines = (&engine.common, ports.engine);
        let clients = (&client.common, ports.client.into_iter().chain([client.common.registration]).collect());
        for (common, ports) in [engines, clients] {
            let interface = Interface::of_file(common);
            self.sockets.extend(ports.into_iter().filter_map(|port| interface.socket_file(port)));
        }
    }
}

impl Drop for SocketFiles {
    /// Removes all of it.
    fn drop(&mut self) {
        let results = self.sockets.iter().map(|path| (path, fs::remove_file(path)));
        let results = results.chain(self.folders.iter().map(|path| (path, fs::remove_dir(path))));
        for (path, result) in results {
            if let Err(error) = result
                && error.kind() != ErrorKind::NotFound
            {
                tracing::debug!("cannot remove `{}`: {error}", path.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use remuda_net::Profile;
    use serde_json::{Value, json};

    fn pair() -> (Value, Value) {
        let common = json!({"interface": "tcp://127.0.0.1", "registration": 1, "control": 2, "mux": 3, "task": 4,
            "iopub": 5, "key": "k", "location": "there", "ssh": "gate", "pack": "msgpack", "unpack": "msgpack"});
        let (mut client, mut engine) = (common.clone(), common);
        client["notification"] = 6.into();
        client["broadcast"] = 7.into();
        engine["hb_ping"] = 8.into();
        engine["hb_pong"] = 9.into();
        engine["broadcast"] = json!([10, 11, 12, 13]);
        (client, engine)
    }

    fn read(client: Option<&Value>, engine: Option<&Value>) -> Option<Known> {
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().join("c"), folder.path().join("e")];
        for (path, value) in paths.iter().zip([client, engine]) {
            if let Some(value) = value {
                fs::write(path, value.to_string()).unwrap();
            }
        }
        Known::read(&paths[0], &paths[1])
    }

    #[test]
    fn what_peers_rely_on_comes_from_the_files() {
        let (client, engine) = pair();
        let known = read(Some(&client), Some(&engine)).unwrap();
        let config = ControllerConfig {
            key: Some("other".into()),
            engine_ssh: "mine".into(),
            client_interface: Interface::ipc("/x"),
            ..ControllerConfig::new(Profile::at("/p", ""))
        };
        let resolved = Resolved::new(&config, Some(&known));
        assert_eq!((&*resolved.key, resolved.packer, &*resolved.location), ("k", Packer::Msgpack, "there"));
        assert_eq!((&*resolved.ssh, &*resolved.engine_ssh), ("gate", "mine"));
        assert_eq!(resolved.client_interface, Interface::tcp("127.0.0.1"));
        assert_eq!(resolved.leaves, 4);
        assert_eq!(resolved.ports.engine, [1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]);
        assert_eq!(resolved.ports.client, [2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn half_a_pair_or_one_that_does_not_agree_is_not_used() {
        let (client, engine) = pair();
        assert!(read(Some(&client), Some(&engine)).is_some());
        assert!(read(Some(&client), None).is_none());
        assert!(read(None, Some(&engine)).is_none());
        assert!(read(Some(&json!({})), Some(&engine)).is_none());
        assert!(read(Some(&client), Some(&json!("text"))).is_none());
        let changes = [
            ("key", json!("another")),
            ("registration", json!(2)),
            ("pack", json!("json")),
            ("unpack", json!("json")),
            ("signature_scheme", json!("hmac-md5")),
            ("interface", json!("pgm://x")),
            ("interface", json!("tcp://")),
            ("broadcast", json!([])),
        ];
        for (key, value) in changes {
            let mut engine = engine.clone();
            engine[key] = value;
            assert!(read(Some(&client), Some(&engine)).is_none(), "{key}: {}", engine[key]);
        }
        let (mut pickle_client, mut pickle_engine) = pair();
        for file in [&mut pickle_client, &mut pickle_engine] {
            file["pack"] = "pickle".into();
            file["unpack"] = "pickle".into();
        }
        assert!(read(Some(&pickle_client), Some(&pickle_engine)).is_none());
    }

    #[test]
    fn with_curve_nothing_is_signed_unless_a_key_is_asked_for() {
        let mut config = ControllerConfig::new(Profile::at("/p", ""));
        assert!(!Resolved::new(&config, None).key.is_empty());
        config.curve = remuda_net::curve::KeyPair::generate().ok();
        assert_eq!(Resolved::new(&config, None).key.is_empty(), config.curve.is_some());
        config.key = Some("k".into());
        assert_eq!(Resolved::new(&config, None).key, "k");
    }
}
