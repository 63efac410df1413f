//! The file that says which processes make up a cluster, so that another command can stop them.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use remuda_net::Profile;
use serde::{Deserialize, Serialize};

use crate::process::ProcessId;

/// A cluster's processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFile {
    /// The controller.
    pub controller: ProcessId,
    /// The engines.
    pub engines: Vec<ProcessId>,
    /// The command that started them and waits for them, unless it left them alone.
    #[serde(default)]
    pub supervisor: Option<ProcessId>,
}

/// A cluster file that is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Reading or writing it failed.
    #[error("cannot use the cluster file `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not one.
    #[error("`{}` is not a cluster file", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl ClusterFile {
    /// Where it is: in the profile's `pid` folder.
    pub fn path(profile: &Profile) -> PathBuf {
        let id = profile.cluster_id();
        let dash = if id.is_empty() { "" } else { "-" };
        profile.pid().join(format!("remuda-cluster{dash}{id}.json"))
    }

    /// Reads that of a profile's cluster; `None` if there is none.
    pub fn read(profile: &Profile) -> Result<Option<Self>, StateError> {
        let path = Self::path(profile);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|source| StateError::Invalid { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::Io { path, source }),
        }
    }

    /// Writes it, whole or not at all.
    pub fn write(&self, profile: &Profile) -> Result<(), StateError> {
        let path = Self::path(profile);
        let attempt = |path: &Path| -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(profile.pid())?;
            serde_json::to_writer_pretty(&mut file, self)?;
            file.flush()?;
            file.persist(path)?;
            Ok(())
        };
        attempt(&path).map_err(|source| StateError::Io { path, source })
    }

    /// Removes it.
    pub fn remove(profile: &Profile) {
        let _ = fs::remove_file(Self::path(profile));
    }

    /// All processes, in the order in which they are to end.
    pub fn processes(&self) -> Vec<ProcessId> {
        self.engines.iter().copied().chain([self.controller]).collect()
    }

    /// Whether its controller runs.
    pub fn runs(&self) -> bool {
        self.controller.runs()
    }
}
