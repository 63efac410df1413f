//! Finding a controller, and the first words with it.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use remuda_net::connection_file::{self, FileError};
use remuda_net::profile::{Place, variable};
use remuda_net::{NetError, Security, address};
use remuda_proto::connection::Common;
use remuda_proto::invitation;
use remuda_proto::message::content::{ConnectionReply, ControllerInfo};
use remuda_proto::{ClientConnection, MsgType};
use serde::Deserialize;
use serde_json::json;

use crate::client::{Client, Inner};
use crate::diagnosis::{Diagnosis, diagnose};
use crate::error::{ConnectError, Origin, QueryError};
use crate::outstanding::{Names, OUTPUT_LIMIT_BYTES, Outstanding, RESEND_LIMIT_BYTES};
use crate::{query, run};

/// How long the controller may take to answer at first.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to let itself be connected to, in which time a dead address is told from a slow controller.
const PROBE: Duration = Duration::from_secs(2);
/// How long it may be silent before it is looked for the reason.
const QUIET: Duration = Duration::from_secs(1);
/// How long any later question may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(60);

/// Which controller to connect to, and how.
///
/// Without more it is the one that `$REMUDA_CLIENT` names, a connection file or an invitation; else that of the default profile,
/// or the one that `$IPP_PROFILE_DIR` and `$IPP_CLUSTER_ID` name, as it is for ipyparallel's own client.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    place: Place,
    /// In place of that.
    named: Option<Named>,
    timeout: Duration,
    query_timeout: Duration,
    output_limit_bytes: usize,
    resend_limit_bytes: usize,
}

/// What says where the controller is.
#[derive(Clone, Debug)]
enum Named {
    File(PathBuf),
    Invitation(Word),
}

impl Named {
    /// What stands where either can.
    fn read(text: OsString) -> Self {
        match text.to_str().map(str::trim).filter(|text| text.starts_with(invitation::PREFIX)) {
            Some(word) => Self::Invitation(Word(word.to_owned())),
            None => Self::File(text.into()),
        }
    }
}

/// A word that may hold a key, and is not shown.
#[derive(Clone)]
struct Word(String);

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("secret")
    }
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            place: Place::default(),
            named: None,
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
        Self { named: Some(Named::File(path.into())), ..Self::default() }
    }

    /// The controller that an invitation for clients is to: a word that begins with `remuda:`, as
    /// `remuda cluster invite --client` prints it. It holds the cluster's key, and is not shown by anything here. A word that is none
    /// is told by [`Client::connect`].
    pub fn url(word: &str) -> Self {
        Self { named: Some(Named::Invitation(Word(word.trim().to_owned()))), ..Self::default() }
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

    /// The connection file that these options come to; `None` where it is an invitation.
    pub fn path(&self) -> Option<PathBuf> {
        match self.found() {
            Some(Named::File(path)) => Some(path),
            Some(Named::Invitation(_)) => None,
            None => Some(self.place.find().client_file()),
        }
    }

    /// What names the controller, unless it is a profile.
    fn found(&self) -> Option<Named> {
        let place = &self.place;
        let is_placed = place.profile_dir.is_some() || place.profile.is_some() || place.cluster_id.is_some();
        let from_environment = || std::env::var_os(variable::CLIENT).filter(|text| !text.is_empty() && !is_placed);
        self.named.clone().or_else(|| from_environment().map(Named::read))
    }

    /// The connection, and where it is from.
    fn read(&self) -> Result<(ClientConnection, Origin), ConnectError> {
        let path = match self.found() {
            Some(Named::Invitation(Word(word))) => return Ok((invitation::from_word(&word)?, Origin::Invitation)),
            Some(Named::File(path)) => path,
            None => self.place.find().client_file(),
        };
        let start = self.start();
        match connection_file::read_client(&path) {
            Ok(connection) => Ok((connection, Origin::File { path, start })),
            Err(FileError::Missing { path }) => Err(ConnectError::NoFile { path, start }),
            Err(source) => Err(ConnectError::File { path, start, source: Box::new(source) }),
        }
    }

    /// The command that starts a controller which writes the file.
    fn start(&self) -> String {
        let mut command = "remuda controller".to_owned();
        if self.named.is_some() {
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

/// The address of the connection, if the controller can be there.
fn locate(connection: &ClientConnection, origin: &Origin) -> Result<String, ConnectError> {
    let common = &connection.common;
    let interface = address::connect_interface(common);
    let listens = address::listens(&interface, common.registration, PROBE);
    if !common.ssh.is_empty() && (listens != Some(true) || is_elsewhere(&interface, connection)) {
        return Err(ConnectError::Ssh { origin: origin.clone(), server: common.ssh.clone() });
    }
    if listens == Some(false) {
        let address = address::url(&interface, common.registration);
        return Err(ConnectError::Stale { origin: origin.clone(), address });
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
        let timeout = options.timeout;
        // Looking for the file, the name and the port waits for disk and network.
        let Opened { inner, origin, site } = blocking(move || open(&options)).await?;
        let mut client = Self { inner: Arc::new(inner) };
        let msg_type = MsgType::ConnectionRequest;
        let address = site.address();
        let (answer, found) = {
            let mut answer = pin!(async {
                let outcome = client.ask_within(msg_type.clone(), json!({"remuda": {}}), timeout).await?;
                query::read::<Welcome>(client.inner.packer, &msg_type, &outcome)
            });
            let mut found = pin!(async {
                tokio::time::sleep(QUIET.min(timeout / 2)).await;
                blocking(move || diagnose(&site.interface, site.port, &site.security)).await
            });
            tokio::select! {
                biased;
                answer = &mut answer => {
                    let is_missing = matches!(answer, Err(QueryError::NoAnswer { .. }));
                    (answer, if is_missing { Some(found.await) } else { None })
                }
                diagnosis = &mut found => {
                    // What lets nobody in like us will not answer; anything else may just be slow.
                    let answer = match &diagnosis {
                        Diagnosis::Unauthorized(_) => Err(QueryError::NoAnswer { msg_type: msg_type.clone(), waited: timeout }),
                        Diagnosis::Silent(_) => answer.await,
                    };
                    (answer, Some(diagnosis))
                }
            }
        };
        let welcome = answer.map_err(|error| match (error, found) {
            (QueryError::NoAnswer { .. }, Some(Diagnosis::Unauthorized(reason))) => {
                ConnectError::Unauthorized { origin, address, reason }
            }
            (QueryError::NoAnswer { waited, .. }, Some(Diagnosis::Silent(silence))) => {
                ConnectError::NoAnswer { origin, address, waited, silence }
            }
            (source, _) => ConnectError::Refused { origin, source: Box::new(source) },
        })?;
        let inner = Arc::get_mut(&mut client.inner).expect("nobody else has the client yet");
        inner.controller = welcome.remuda;
        Ok(client)
    }
}

/// Does on a thread of its own what waits.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// Sockets that are open, though perhaps to nobody.
struct Opened {
    inner: Inner,
    origin: Origin,
    site: Site,
}

/// Where the hub is, and how it is talked with.
struct Site {
    interface: String,
    port: u16,
    security: Security,
}

impl Site {
    fn address(&self) -> String {
        address::url(&self.interface, self.port)
    }
}

/// Reads the connection, looks whether a controller is there, and opens the sockets.
fn open(options: &ConnectOptions) -> Result<Opened, ConnectError> {
    let (connection, origin) = options.read()?;
    let common = &connection.common;
    let security = Security::to_connect(common).map_err(|source| ConnectError::Curve(Box::new(source)))?;
    let interface = locate(&connection, &origin)?;
    let good = "whoever reads a connection looks whether it can be used";
    let (packer, key) = (common.packer().expect(good), common.signing_key().expect(good));
    let session = remuda_net::session(None, key, packer);
    let names = Names::new(&session, std::process::id());
    let name = session.id().clone();
    let machine = Outstanding::new(session, options.output_limit_bytes).with_resend_limit(options.resend_limit_bytes);
    let net = |source: NetError| ConnectError::Net { origin: origin.clone(), source };
    let shared = Arc::new(run::Shared::new());
    let started = run::start(&connection, &interface, security.clone(), &name, machine, &shared);
    let sender = started.map_err(net)?;
    let is_pure = connection.task_scheme == "pure";
    let inner = Inner::new(sender, shared, names, packer, options.query_timeout, is_pure);
    Ok(Opened { inner, origin, site: Site { interface, port: common.registration, security } })
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
        let file = PathBuf::from("/p/security/ipcontroller-client.json");
        assert_eq!(ConnectOptions::profile_dir("/p").path(), Some(file));
    }

    #[test]
    fn a_word_is_told_from_a_file_and_never_shown() {
        let read = |text: &str| Named::read(text.into());
        assert!(matches!(read(" remuda:x\n"), Named::Invitation(Word(word)) if word == "remuda:x"));
        assert!(matches!(read("./remuda:x"), Named::File(path) if path.as_os_str() == "./remuda:x"));
        let options = ConnectOptions::url("remuda:hunter2");
        assert_eq!(options.path(), None);
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
