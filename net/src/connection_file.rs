//! Reading and writing connection files.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use remuda_proto::connection::{Common, ConnectionError};
use remuda_proto::{ClientConnection, EngineConnection};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::curve::{CurveError, Security};

/// A connection file that is of no use. Each message names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// There is none.
    #[error("no connection file `{}`", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("cannot read the connection file `{}`", path.display())]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not JSON, or lacks something.
    #[error("`{}` is not a connection file", path.display())]
    Invalid {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// It asks for what we do not have.
    #[error("the connection file `{}` cannot be used", path.display())]
    Unusable {
        /// Its path.
        path: PathBuf,
        /// What it asks for.
        source: ConnectionError,
    },
    /// It asks for CURVE, and that cannot be had.
    #[error("the connection file `{}` cannot be used", path.display())]
    Curve {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: Box<CurveError>,
    },
    /// It cannot be written.
    #[error("cannot write the connection file `{}`", path.display())]
    Unwritable {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Reads `ipcontroller-client.json`, and checks that its packer and signature scheme are ones we have.
///
/// # Errors
/// When it cannot be read, or used.
pub fn read_client(path: &Path) -> Result<ClientConnection, FileError> {
    let file: ClientConnection = read(path)?;
    usable(path, &file.common)?;
    Ok(file)
}

/// Reads `ipcontroller-engine.json`, and checks that its packer and signature scheme are ones we have.
///
/// # Errors
/// When it cannot be read, or used.
pub fn read_engine(path: &Path) -> Result<EngineConnection, FileError> {
    let file: EngineConnection = read(path)?;
    usable(path, &file.common)?;
    Ok(file)
}

/// Reads a connection file without asking whether what it names can be used.
///
/// # Errors
/// When it is not there, cannot be read, or is no connection file.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    let text = fs::read(path).map_err(|source| {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::NotFound {
            FileError::Missing { path }
        } else {
            FileError::Unreadable { path, source }
        }
    })?;
    serde_json::from_slice(&text).map_err(|source| FileError::Invalid { path: path.to_owned(), source })
}

fn usable(path: &Path, common: &Common) -> Result<(), FileError> {
    let unusable = |source| FileError::Unusable { path: path.to_owned(), source };
    common.packer().map_err(unusable)?;
    common.signing_key().map_err(unusable)?;
    Security::to_connect(common)
        .map_err(|source| FileError::Curve { path: path.to_owned(), source: Box::new(source) })?;
    Ok(())
}

/// Writes a connection file: readable by its owner alone from the first byte, and there whole or not at all.
///
/// # Errors
/// [`FileError::Unwritable`]; then nothing was left behind.
pub fn write(path: &Path, file: &impl Serialize) -> Result<(), FileError> {
    let attempt = || -> io::Result<()> {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let mut temporary = tempfile::Builder::new()
            .prefix(".connection-")
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(folder)?;
        serde_json::to_writer_pretty(&mut temporary, file)?;
        temporary.flush()?;
        temporary.as_file().sync_all()?;
        temporary.persist(path)?;
        Ok(())
    };
    attempt().map_err(|source| FileError::Unwritable { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample() -> serde_json::Value {
        json!({"interface": "tcp://127.0.0.1", "registration": 1, "control": 2, "mux": 3, "task": 4, "iopub": 5,
               "notification": 6, "broadcast": 7, "key": "k"})
    }

    #[test]
    fn a_file_is_the_owners_alone_and_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ipcontroller-client.json");
        write(&path, &sample()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_client(&path).unwrap().mux, 3);
        write(&path, &sample()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file was left");
    }

    #[test]
    fn each_fault_is_told_with_the_files_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.json");
        assert!(matches!(read_client(&path), Err(FileError::Missing { .. })));
        fs::write(&path, "{").unwrap();
        assert!(matches!(read_client(&path), Err(FileError::Invalid { .. })));
        let mut pickle = sample();
        pickle["pack"] = "pickle".into();
        write(&path, &pickle).unwrap();
        let error = read_client(&path).unwrap_err();
        assert!(matches!(error, FileError::Unusable { .. }) && error.to_string().contains("f.json"));
        let nowhere = folder.path().join("none").join("f.json");
        assert!(matches!(write(&nowhere, &sample()), Err(FileError::Unwritable { .. })));
    }
}
