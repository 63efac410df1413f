//! Profile folders, laid out as IPython lays them out, so that every peer finds the same files.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The environment variables that name a profile or a cluster (`apps/baseapp.py: init_config_from_env`).
pub mod variable {
    /// The profile's folder; `--profile` does not override it, `--profile-dir` does.
    pub const PROFILE_DIR: &str = "IPP_PROFILE_DIR";
    /// The cluster id.
    pub const CLUSTER_ID: &str = "IPP_CLUSTER_ID";
    /// IPython's folder, where the profiles are.
    pub const IPYTHON_DIR: &str = "IPYTHONDIR";
    /// The uuid that an engine is to have, from the nanny that starts it.
    pub const ENGINE_IDENT: &str = "REMUDA_ENGINE_IDENT";
    /// The engines' connection file, or an invitation, in place of an option that names it.
    pub const CONNECT: &str = "REMUDA_CONNECT";
    /// The clients' connection file, or an invitation for clients, where no profile is named.
    pub const CLIENT: &str = "REMUDA_CLIENT";
    /// The engine's connection file as JSON text, in place of the file.
    pub const CONNECTION_INFO: &str = "IPP_CONNECTION_INFO";
    /// The key with which messages are signed.
    pub const SESSION_KEY: &str = "IPP_SESSION_KEY";
    /// `1`: the controller encrypts with CURVE.
    pub const ENABLE_CURVE: &str = "IPP_ENABLE_CURVE";
    /// The own secret key for CURVE, in Z85.
    pub const CURVE_SECRETKEY: &str = "IPP_CURVE_SECRETKEY";
    /// The own public key for CURVE, in Z85.
    pub const CURVE_PUBLICKEY: &str = "IPP_CURVE_PUBLICKEY";
    /// The controller's public key for CURVE, for those that connect, if their file has none.
    pub const CURVE_SERVERKEY: &str = "IPP_CURVE_SERVERKEY";
    /// The address at which the controller listens, unless `--ip` is given.
    pub const CONTROLLER_IP: &str = "IPP_CONTROLLER_IP";
}

/// What names a profile; all of it may be left out.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The profile's folder itself.
    pub profile_dir: Option<PathBuf>,
    /// The profile's name, under IPython's folder.
    pub profile: Option<String>,
    /// IPython's folder.
    pub ipython_dir: Option<PathBuf>,
    /// Which of the profile's clusters.
    pub cluster_id: Option<String>,
}

/// A profile's folder, and one cluster in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    dir: PathBuf,
    cluster_id: String,
}

impl Place {
    /// The profile meant: the folder given, that of the environment, or the named (or default) profile of IPython's
    /// folder (`IPython/core/application.py`).
    pub fn find(&self) -> Profile {
        let from_environment = || env::var_os(variable::PROFILE_DIR).filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let named = || {
            let name = self.profile.as_deref().unwrap_or("default");
            self.ipython_dir.clone().unwrap_or_else(ipython_dir).join(format!("profile_{name}"))
        };
        let dir = self.profile_dir.clone().or_else(from_environment).unwrap_or_else(named);
        let dir = expand_home(&dir);
        let dir = std::path::absolute(&dir).unwrap_or(dir);
        let cluster_id = self.cluster_id.clone().or_else(|| env::var(variable::CLUSTER_ID).ok());
        Profile { dir, cluster_id: cluster_id.unwrap_or_default() }
    }
}

impl Profile {
    /// The profile in this folder.
    pub fn at(dir: impl Into<PathBuf>, cluster_id: &str) -> Self {
        Self { dir: dir.into(), cluster_id: cluster_id.to_owned() }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// The cluster id; empty for the profile's default cluster.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }
    /// Where the connection files are.
    pub fn security(&self) -> PathBuf {
        self.dir.join("security")
    }
    /// Where logs are.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }
    /// Where what a process prints goes that this one starts: `<name>-<cluster id>-<pid of this process>.log` in [`Self::log`].
    pub fn log_file(&self, name: &str) -> PathBuf {
        let dash = if self.cluster_id.is_empty() { "" } else { "-" };
        self.log().join(format!("{name}-{}{dash}{}.log", self.cluster_id, std::process::id()))
    }
    /// Where process ids are.
    pub fn pid(&self) -> PathBuf {
        self.dir.join("pid")
    }
    /// `ipcontroller-client.json`, with the cluster's id if it has one.
    pub fn client_file(&self) -> PathBuf {
        self.connection_file("client")
    }
    /// `log/engines.json`, with the cluster's id after `engines` if it has one: which engines are registered.
    pub fn engine_state_file(&self) -> PathBuf {
        self.log().join(format!("engines{}.json", self.cluster_id))
    }
    /// `log/engines-granted.jsonl`, with the cluster's id after `engines` if it has one: which engines got ids since that.
    pub fn engine_grants_file(&self) -> PathBuf {
        self.log().join(format!("engines{}-granted.jsonl", self.cluster_id))
    }
    /// `ipcontroller-engine.json`, with the cluster's id if it has one.
    pub fn engine_file(&self) -> PathBuf {
        self.connection_file("engine")
    }

    /// Where the sockets of the transport `ipc` are: each is this, a colon, and its number.
    pub fn ipc(&self) -> PathBuf {
        let id = if self.cluster_id.is_empty() { String::new() } else { format!("-{}", self.cluster_id) };
        self.security().join(format!("ipcontroller{id}"))
    }

    fn connection_file(&self, whose: &str) -> PathBuf {
        let id = if self.cluster_id.is_empty() { String::new() } else { format!("-{}", self.cluster_id) };
        self.security().join(format!("ipcontroller{id}-{whose}.json"))
    }

    /// Makes the folder and those in it, `security` and `pid` for the owner alone.
    ///
    /// # Errors
    /// When a folder cannot be made; the message names it.
    pub fn create(&self) -> io::Result<()> {
        let make = |path: &Path, mode: u32| {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(path)
                .map_err(|error| io::Error::new(error.kind(), format!("cannot make `{}`: {error}", path.display())))
        };
        make(&self.dir, 0o755)?;
        make(&self.log(), 0o755)?;
        make(&self.pid(), 0o700)?;
        make(&self.security(), 0o700)?;
        // A folder that was there before with more open permissions is closed, as IPython does.
        let closed = fs::Permissions::from_mode(0o700);
        if fs::metadata(self.security())?.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(self.security(), closed)?;
        }
        Ok(())
    }
}

/// IPython's folder (`IPython/paths.py: get_ipython_dir`): `$IPYTHONDIR`, else `~/.ipython`, else one under
/// `$XDG_CONFIG_HOME` if that alone is there.
pub fn ipython_dir() -> PathBuf {
    if let Some(dir) = env::var_os(variable::IPYTHON_DIR).filter(|dir| !dir.is_empty()) {
        return expand_home(Path::new(&dir));
    }
    let home = home();
    let usual = home.join(".ipython");
    let xdg = env::var_os("XDG_CONFIG_HOME").map_or_else(|| home.join(".config"), PathBuf::from).join("ipython");
    if !usual.exists() && xdg.is_dir() && !xdg.is_symlink() { xdg } else { usual }
}

fn home() -> PathBuf {
    env::home_dir().unwrap_or_else(|| PathBuf::from("."))
}

fn expand_home(path: &Path) -> PathBuf {
    path.strip_prefix("~").map_or_else(|_| path.to_owned(), |rest| home().join(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_where_ipython_has_them() {
        let profile = Profile::at("/p", "");
        assert_eq!(profile.client_file(), Path::new("/p/security/ipcontroller-client.json"));
        assert_eq!(Profile::at("/p", "x").engine_file(), Path::new("/p/security/ipcontroller-x-engine.json"));
    }

    #[test]
    fn a_name_is_looked_up_in_ipythons_folder_and_a_folder_is_taken_as_it_is() {
        let place = Place {
            profile: Some("mine".into()),
            ipython_dir: Some("/ip".into()),
            cluster_id: Some(String::new()),
            ..Place::default()
        };
        assert_eq!(place.find().dir(), Path::new("/ip/profile_mine"));
        let place = Place { profile_dir: Some("/there".into()), ..place };
        assert_eq!(place.find().dir(), Path::new("/there"));
    }

    #[test]
    fn secrets_are_closed_to_others_even_where_the_folder_was_open() {
        let folder = tempfile::tempdir().unwrap();
        let profile = Profile::at(folder.path().join("profile_x"), "");
        fs::create_dir_all(profile.security()).unwrap();
        fs::set_permissions(profile.security(), fs::Permissions::from_mode(0o755)).unwrap();
        profile.create().unwrap();
        for path in [profile.security(), profile.pid()] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }
}
