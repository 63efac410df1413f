//! Finding a controller, and the first words with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use remuda_net::connection_file::{self, FileError};
use remuda_net::profile::Place;
use remuda_net::{NetError, Security, address};
use remuda_proto::connection::Common;
use remuda_proto::message::content::{ConnectionReply, ControllerInfo};
use remuda_proto::{ClientConnection, MsgType};
use serde::Deserialize;
use serde_json::json;

use crate::client::{Client, Inner};
use crate::error::{ConnectError, QueryError};
use crate::outstanding::{Names, OUTPUT_LIMIT_BYTES, Outstanding, RESEND_LIMIT_BYTES};
use crate::{query, run};

/// How long the controller may take to answer at first.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to let itself be connected to, in which time a dead address is told from a slow controller.
const PROBE: Duration = Duration::from_secs(2);
/// How long any later question may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(60);

/// Which controller to connect to, and how.
///
/// Without more it is that of the default profile, or the one that `$IPP_PROFILE_DIR` and `$IPP_CLUSTER_ID` name, as it
/// is for ipyparallel's own client.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    place: Place,
    file: Option<PathBuf>,
    timeout: Duration,
    query_timeout: Duration,
    output_limit_bytes: usize,
    resend_limit_bytes: usize,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            place: Place::default(),
            file: None,
            timeout: TIMEOUT,
            query_timeout: QUERY_TIMEOUT,
            output_limit_bytes: OUTPUT_LIMIT_BYTES,
            resend_limit_bytes: RESEND_LIMIT_BYTES,
        }
    }
}

impl ConnectOptions {
    /// The controller of this profile, in IPython's folder.
    pub fn profile(name: impl Into<String>) -> Self {
        let place = Place { profile: Some(name.into()), ..Place::default() };
        Self { place, ..Self::default() }
    }

    /// The controller of the profile in this folder.
    pub fn profile_dir(dir: impl Into<PathBuf>) -> Self {
        let place = Place { profile_dir: Some(dir.into()), ..Place::default() };
        Self { place, ..Self::default() }
    }

    /// The controller that wrote this file, `ipcontroller-client.json` commonly.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { file: Some(path.into()), ..Self::default() }
    }

    /// Which of the profile's clusters.
    #[must_use]
    pub fn cluster_id(mut self, id: impl Into<String>) -> Self {
        self.place.cluster_id = Some(id.into());
        self
    }

    /// How long the controller may take to answer at first; 10 seconds unless told otherwise.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long the controller may take to answer questions later, and engines to confirm what they are told; 60 seconds
    /// unless told otherwise. Tasks are not meant: those take as long as they take.
    #[must_use]
    pub fn query_timeout(mut self, timeout: Duration) -> Self {
        self.query_timeout = timeout;
        self
    }

    /// Most bytes of output kept of one task; 16 MiB unless told otherwise.
    #[must_use]
    pub fn output_limit_bytes(mut self, bytes: usize) -> Self {
        self.output_limit_bytes = bytes;
        self
    }

    /// Most bytes of tasks without a reply that are kept, to be sent again should they be lost with a controller that dies: of the
    /// newest. 256 MiB unless told otherwise. Nothing is kept for a stock controller.
    #[must_use]
    pub fn resend_limit_bytes(mut self, bytes: usize) -> Self {
        self.resend_limit_bytes = bytes;
        self
    }

    /// The connection file that these options come to.
    pub fn path(&self) -> PathBuf {
        self.file.clone().unwrap_or_else(|| self.place.find().client_file())
    }

    /// The command that starts a controller which writes that file.
    fn start(&self) -> String {
        let mut command = "remuda controller".to_owned();
        if self.file.is_some() {
            return command;
        }
        if let Some(dir) = &self.place.profile_dir {
            command += " --profile-dir ";
            command += &dir.to_string_lossy();
        } else if let Some(name) = &self.place.profile {
            command += " --profile ";
            command += name;
        }
        if let Some(id) = self.place.cluster_id.as_ref().filter(|id| !id.is_empty()) {
            command += " --cluster-id ";
            command += id;
        }
        command
    }
}

/// The address that the file names, if the controller can be there.
fn locate(path: &Path, connection: &ClientConnection, start: &str) -> Result<String, ConnectError> {
    let common = &connection.common;
    let interface = address::connect_interface(common);
    let listens = address::listens(&interface, common.registration, PROBE);
    if !common.ssh.is_empty() && (listens != Some(true) || is_elsewhere(&interface, connection)) {
        return Err(ConnectError::Ssh { path: path.to_owned(), server: common.ssh.clone() });
    }
    if listens == Some(false) {
        let address = address::url(&interface, common.registration);
        return Err(ConnectError::Stale { path: path.to_owned(), address, start: start.to_owned() });
    }
    Ok(interface)
}

/// Whether a loopback address means that of another machine (`client/client.py: Client.__init__`).
fn is_elsewhere(interface: &str, connection: &ClientConnection) -> bool {
    let loopback = |interface: &str| interface.starts_with("tcp://127.") || interface.starts_with("tcp://localhost");
    let common = Common { interface: "tcp://*".to_owned(), ..connection.common.clone() };
    loopback(interface) && !loopback(&address::connect_interface(&common))
}

/// What is read of a `connection_reply` here; the machine reads the engines.
#[derive(Deserialize)]
struct Welcome {
    #[serde(flatten)]
    _stock: ConnectionReply,
    #[serde(default)]
    remuda: Option<ControllerInfo>,
}

impl Client {
    /// Connects to a controller, and waits for its answer.
    ///
    /// # Errors
    /// Within seconds, when there is no controller to be had; what is wrong and what to do is in the message.
    pub async fn connect(options: ConnectOptions) -> Result<Self, ConnectError> {
        let (path, start) = (options.path(), options.start());
        let blocking = {
            let (options, path, start) = (options.clone(), path.clone(), start.clone());
            move || open(&options, &path, &start)
        };
        // Looking for the file, the name and the port waits for disk and network.
        let opened = tokio::task::spawn_blocking(blocking).await;
        let (inner, address) = opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        let mut client = Self { inner: Arc::new(inner) };
        let msg_type = MsgType::ConnectionRequest;
        let answer = client.ask_within(msg_type.clone(), json!({"remuda": {}}), options.timeout).await;
        let welcome = answer.and_then(|outcome| query::read::<Welcome>(client.inner.packer, &msg_type, &outcome));
        let welcome = welcome.map_err(|error| match error {
            QueryError::NoAnswer { waited, .. } => {
                ConnectError::NoAnswer { path: path.clone(), address, waited, start }
            }
            source => ConnectError::Refused { path: path.clone(), source },
        })?;
        let inner = Arc::get_mut(&mut client.inner).expect("nobody else has the client yet");
        inner.controller = welcome.remuda;
        Ok(client)
    }
}

/// Reads the file, looks whether a controller is there, and opens the sockets.
fn open(options: &ConnectOptions, path: &Path, start: &str) -> Result<(Inner, String), ConnectError> {
    let connection = connection_file::read_client(path).map_err(|source| match source {
        FileError::Missing { path } => ConnectError::NoFile { path, start: start.to_owned() },
        source => ConnectError::File { path: path.to_owned(), start: start.to_owned(), source },
    })?;
    let interface = locate(path, &connection, start)?;
    let unusable = |source| ConnectError::File {
        path: path.to_owned(),
        start: start.to_owned(),
        source: FileError::Unusable { path: path.to_owned(), source },
    };
    let packer = connection.common.packer().map_err(unusable)?;
    let key = connection.common.signing_key().map_err(unusable)?;
    let security = Security::to_connect(&connection.common).map_err(|source| ConnectError::File {
        path: path.to_owned(),
        start: start.to_owned(),
        source: FileError::Curve { path: path.to_owned(), source: Box::new(source) },
    })?;
    let session = remuda_net::session(None, key, packer);
    let names = Names::new(&session, std::process::id());
    let name = session.id().clone();
    let machine = Outstanding::new(session, options.output_limit_bytes).with_resend_limit(options.resend_limit_bytes);
    let net = |source: NetError| ConnectError::Net { path: path.to_owned(), source };
    let (sender, shared) = run::start(&connection, &interface, security, &name, machine).map_err(net)?;
    let address = address::url(&interface, connection.common.registration);
    let is_pure = connection.task_scheme == "pure";
    let inner = Inner::new(sender, shared, names, packer, options.query_timeout, is_pure);
    Ok((inner, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_to_start_a_controller_fits_the_options() {
        assert_eq!(ConnectOptions::default().start(), "remuda controller");
        assert_eq!(
            ConnectOptions::profile("x").cluster_id("c").start(),
            "remuda controller --profile x --cluster-id c"
        );
        assert_eq!(ConnectOptions::profile_dir("/p").start(), "remuda controller --profile-dir /p");
        assert_eq!(ConnectOptions::file("/f.json").start(), "remuda controller");
        assert_eq!(ConnectOptions::profile_dir("/p").path(), Path::new("/p/security/ipcontroller-client.json"));
    }
}
