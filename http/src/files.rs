//! The files by which others find the server: where it is, and the token that it made.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use remuda_net::connection_file::{self, FileError};
use remuda_net::{Profile, address};
use serde_json::json;
use tempfile::TempPath;

use crate::token::Token;

/// The files in a profile's `security` folder; they go with this.
#[derive(Debug)]
pub(crate) struct Files(Vec<PathBuf>);

impl Files {
    /// Writes `http-token`, unless the token is in another file already, and then `http.json`; with the cluster's id in their
    /// names if it has one.
    ///
    /// # Errors
    /// Names the file.
    pub(crate) fn write(
        profile: &Profile,
        url: &str,
        token: &Token,
        given: Option<&Path>,
    ) -> Result<Self, (PathBuf, io::Error)> {
        let id = profile.cluster_id();
        let id = if id.is_empty() { String::new() } else { format!("-{id}") };
        let mut files = Self(Vec::new());
        let token_file = match given {
            Some(path) => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            None => profile.security().join(format!("http{id}-token")),
        };
        if given.is_none() {
            files.add(token_file.clone(), &format!("{}\n", token.text()))?;
        }
        let text = format!("{:#}\n", json!({"url": url, "token_file": token_file.to_string_lossy()}));
        files.add(profile.security().join(format!("http{id}.json")), &text)?;
        Ok(files)
    }

    /// For its owner alone from the first byte, and there whole or not at all.
    fn add(&mut self, path: PathBuf, text: &str) -> Result<(), (PathBuf, io::Error)> {
        let write = || -> io::Result<()> {
            let folder = path.parent().unwrap_or_else(|| Path::new("."));
            let mut temporary = tempfile::Builder::new()
                .prefix(".http-")
                .permissions(fs::Permissions::from_mode(0o600))
                .tempfile_in(folder)?;
            temporary.write_all(text.as_bytes())?;
            temporary.as_file().sync_all()?;
            temporary.persist(&path)?;
            Ok(())
        };
        write().map_err(|error| (path.clone(), error))?;
        self.0.push(path);
        Ok(())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in &self.0 {
            if let Err(error) = fs::remove_file(path) {
                tracing::debug!("cannot remove `{}`: {error}", path.display());
            }
        }
    }
}

/// The controller's connection file as it is for a client of the same machine, whatever host name and tunnel others are told
/// of. It goes with what is returned.
pub(crate) fn way_in(profile: &Profile, client_file: &Path) -> Result<TempPath, FileError> {
    let mut connection = connection_file::read_client(client_file)?;
    connection.common.ssh = String::new();
    connection.common.location = address::host_name().unwrap_or(connection.common.location);
    let folder = profile.security();
    let made = tempfile::Builder::new().prefix(".http-").tempfile_in(&folder);
    let path = made.map_err(|source| FileError::Unwritable { path: folder, source })?.into_temp_path();
    connection_file::write(&path, &connection)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_the_owners_and_go_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let profile = Profile::at(folder.path(), "x");
        profile.create().unwrap();
        let names = ["http-x-token", "http-x.json"].map(|name| profile.security().join(name));
        let token = Token::random();
        let files = Files::write(&profile, "http://127.0.0.1:1", &token, None).unwrap();
        for path in &names {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(Token::read(&names[0]).unwrap().text(), token.text());
        assert!(!fs::read_to_string(&names[1]).unwrap().contains(token.text()));
        drop(files);
        assert!(names.iter().all(|path| !path.exists()));
        let files = Files::write(&profile, "http://127.0.0.1:1", &token, Some(Path::new("/given"))).unwrap();
        assert!(!names[0].exists() && fs::read_to_string(&names[1]).unwrap().contains("\"/given\""));
        drop(files);
    }
}
