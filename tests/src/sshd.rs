//! An SSH server of one's own: on a port of this machine, with keys that were made for it.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::unistd::{User, getuid};

use crate::{skipped, wait_for};

/// Where it may be.
const PROGRAMS: [&str; 3] = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"];

/// The addresses at which it listens.
pub const ADDRESSES: [&str; 2] = ["127.0.0.1", "127.0.0.2"];

/// An SSH server. It ends when this goes.
pub struct Sshd {
    folder: tempfile::TempDir,
    server: Child,
    /// Its port.
    pub port: u16,
}

impl Sshd {
    /// Starts one, for the user who runs the test. Where that cannot be done, says why on stderr and returns nothing.
    pub fn start() -> Option<Self> {
        Self::try_start().map_err(|why| skipped("SSH server", &why)).ok()
    }

    fn try_start() -> Result<Self, String> {
        let program = PROGRAMS.into_iter().find(|path| Path::new(path).exists()).ok_or("sshd is not installed")?;
        let folder = tempfile::Builder::new().prefix("remuda-sshd-").tempdir().map_err(|error| error.to_string())?;
        let at = |name: &str| folder.path().join(name);
        for key in ["host_key", "other_host_key", "key", "other_key"] {
            let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at(key)).status();
            if !made.is_ok_and(|status| status.success()) {
                return Err("ssh-keygen makes no keys".to_owned());
            }
        }
        let port = free_port();
        let public = |key: &str| fs::read_to_string(at(&format!("{key}.pub"))).map_err(|error| error.to_string());
        let known = |key: &str| -> Result<String, String> {
            let public = public(key)?;
            Ok(ADDRESSES.map(|address| format!("[{address}]:{port} {public}")).concat())
        };
        let config = format!(
            "Port {port}\nListenAddress {}\nListenAddress {}\nHostKey {}\nAuthorizedKeysFile {}\nSetEnv TMPDIR={}\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n\
             PidFile none\nMaxStartups 100\n",
            ADDRESSES[0],
            ADDRESSES[1],
            at("host_key").display(),
            at("authorized_keys").display(),
            at("tmp").display(),
        );
        for (name, text) in [
            ("sshd_config", config),
            ("authorized_keys", public("key")?),
            ("known_hosts", known("host_key")?),
            ("wrong_known_hosts", known("other_host_key")?),
        ] {
            fs::write(at(name), text).map_err(|error| error.to_string())?;
        }
        fs::create_dir(at("tmp")).map_err(|error| error.to_string())?;
        if getuid().is_root() {
            // Where its unprivileged part lives; the system's own service makes it otherwise.
            fs::create_dir_all("/run/sshd").map_err(|error| error.to_string())?;
        }
        let log = File::create(at("log")).map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(["-D", "-e", "-f"]).arg(at("sshd_config")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut server = command.spawn().map_err(|error| error.to_string())?;
        let mut ended = false;
        wait_for("the SSH server", || {
            ended = matches!(server.try_wait(), Ok(Some(_)));
            ended || ADDRESSES.iter().all(|address| TcpStream::connect((*address, port)).is_ok())
        });
        if ended {
            return Err(format!("sshd ended: {}", fs::read_to_string(at("log")).unwrap_or_default()));
        }
        Ok(Self { folder, server, port })
    }

    /// A host as it is written, at one of its addresses.
    ///
    /// # Panics
    /// When the user who runs the test has no name.
    pub fn host(&self, address: &str) -> String {
        let user = User::from_uid(getuid()).ok().flatten().expect("a user with a name");
        format!("{}@{address}:{}", user.name, self.port)
    }

    /// The ssh program, with what leads to the server and away from the user's own files. `key` is `key` or `other_key`, which the
    /// server does not know; `known_hosts` is `known_hosts` or `wrong_known_hosts`.
    pub fn client(&self, key: &str, known_hosts: &str) -> Vec<String> {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        let options = ["IdentitiesOnly=yes", "IdentityAgent=none", "GlobalKnownHostsFile=/dev/null"];
        let known = format!("UserKnownHostsFile={}", at(known_hosts));
        let mut words = vec!["ssh".to_owned(), "-F".to_owned(), "none".to_owned(), "-i".to_owned(), at(key)];
        for option in options.into_iter().chain([&*known]) {
            words.extend(["-o".to_owned(), option.to_owned()]);
        }
        words
    }

    /// The folder that logins have for temporary files.
    pub fn temporary(&self) -> PathBuf {
        self.folder.path().join("tmp")
    }

    /// A folder for what the test itself needs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        if std::thread::panicking() {
            #[allow(clippy::print_stderr, reason = "the log of a test that fails")]
            {
                eprintln!("--- sshd\n{}", fs::read_to_string(self.folder.path().join("log")).unwrap_or_default());
            }
        }
    }
}

/// A port that nobody has now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.expect("a free port").port()
}
