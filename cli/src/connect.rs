//! Where a connection comes from, an engine's or a client's: a file, an invitation, or the profile.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use remuda_client::ConnectOptions;
use remuda_net::connection_file;
use remuda_net::profile::variable;
use remuda_proto::EngineConnection;
use remuda_proto::invitation::{self, Guest, PREFIX};
use tempfile::TempDir;

use crate::args::{ConnectArgs, PlaceArgs, ReachArgs};
use crate::failure::{Failure, Outcome};

/// What is said of the controller, in place of a file's name, that is to be read from stdin.
const STDIN: &str = "-";

/// Where a connection is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// It was given itself.
    Given(Box<EngineConnection>),
    /// It is in a file, which may still be to come.
    File(PathBuf),
    /// Nothing was said.
    Profile,
}

/// Where the connection is that was asked for: by the options, or else by the environment.
///
/// # Errors
/// When what was given is no connection.
pub(crate) fn source(args: &ConnectArgs) -> Result<Source, Failure> {
    let set = |name| std::env::var_os(name).filter(|text| !text.is_empty());
    match (&args.connect, &args.file) {
        (Some(text), _) if text == STDIN => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text)?;
            read(text.trim(), "what stdin has")
        }
        (Some(text), _) => named(text, "what `--connect` has"),
        (None, Some(file)) => Ok(Source::File(file.clone())),
        (None, None) => match (set(variable::CONNECT), set(variable::CONNECTION_INFO)) {
            (Some(text), _) => named(&text, &format!("the variable `{}`", variable::CONNECT)),
            (None, Some(text)) => {
                json(&text.to_string_lossy(), &format!("the variable `{}`", variable::CONNECTION_INFO))
            }
            (None, None) => Ok(Source::Profile),
        },
    }
}

/// An invitation, or the name of a file.
fn named(text: &OsString, what: &str) -> Result<Source, Failure> {
    match text.to_str().map(str::trim).filter(|text| text.starts_with(PREFIX)) {
        Some(word) => read(word, what),
        None => Ok(Source::File(text.into())),
    }
}

/// An invitation, or the JSON of a connection file.
fn read(text: &str, what: &str) -> Result<Source, Failure> {
    if text.starts_with('{') {
        return json(text, what);
    }
    let connection = invitation::from_word(text).map_err(|error| {
        let error = anyhow::Error::new(error).context(format!("{what} is no invitation to a cluster"));
        Failure::new(error)
            .hint(format!(
                "copy the whole line again that `{}` prints where the controller runs",
                Guest::Engine.command()
            ))
            .code(2)
    })?;
    Ok(Source::Given(Box::new(connection)))
}

fn json(text: &str, what: &str) -> Result<Source, Failure> {
    let connection = serde_json::from_str(text).map_err(|error| {
        let error = anyhow::Error::new(error).context(format!("{what} is no connection file of engines"));
        Failure::new(error).hint("give the text of `ipcontroller-engine.json`")
    })?;
    Ok(Source::Given(Box::new(connection)))
}

/// How a client connects, and whether that was said: by the option, or by the environment where no profile is named. It is not the
/// profile's controller then.
pub(crate) fn of_client(reach: &ReachArgs, place: &PlaceArgs) -> (ConnectOptions, bool) {
    if let Some(text) = &reach.connect {
        return match text.to_str().map(str::trim).filter(|text| text.starts_with(PREFIX)) {
            Some(word) => (ConnectOptions::url(word), true),
            None => (ConnectOptions::file(text), true),
        };
    }
    let is_said = std::env::var_os(variable::CLIENT).is_some_and(|text| !text.is_empty());
    if is_said && place.options().is_empty() {
        (ConnectOptions::default(), true)
    } else {
        (ConnectOptions::file(place.profile().client_file()), false)
    }
}

/// A connection's file, for those who take only that. It goes with this.
pub(crate) struct FileFor {
    path: PathBuf,
    /// Its user's alone, as what is in it.
    folder: Option<TempDir>,
}

impl FileFor {
    /// That of a source; what was given itself is written to one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn new(source: Source, of_profile: &Path) -> Result<Self, Failure> {
        let connection = match source {
            Source::File(path) => return Ok(Self { path, folder: None }),
            Source::Profile => return Ok(Self { path: of_profile.to_owned(), folder: None }),
            Source::Given(connection) => connection,
        };
        let owners = fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix("remuda-").permissions(owners).tempdir()?;
        let path = folder.path().join("ipcontroller-engine.json");
        connection_file::write(&path, &connection)?;
        Ok(Self { path, folder: Some(folder) })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs something that needs it, and removes it then, if it was written for that.
    pub(crate) fn during(self, work: impl FnOnce() -> Outcome) -> Outcome {
        let done = work();
        drop(self.folder);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> EngineConnection {
        let json = serde_json::json!({
            "interface": "tcp://10.0.0.1", "registration": 1, "control": 2, "mux": 3, "task": 4, "iopub": 5, "hb_ping": 6,
            "hb_pong": 7, "broadcast": [8], "key": "hunter2",
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn an_invitation_is_told_from_a_file_and_from_its_text() {
        let given = Source::Given(Box::new(connection()));
        let word = invitation::to_word(&connection());
        assert_eq!(named(&word.clone().into(), "it").unwrap(), given);
        assert_eq!(named(&format!("{word}\n").into(), "it").unwrap(), given);
        assert_eq!(read(&word, "it").unwrap(), given);
        assert_eq!(read(&serde_json::to_string(&connection()).unwrap(), "it").unwrap(), given);
        assert_eq!(named(&"./remuda:x".into(), "it").unwrap(), Source::File("./remuda:x".into()));
        for text in ["remuda:x", "file.json", "{}", ""] {
            let failure = read(text, "the thing").unwrap_err();
            assert!(failure.text().contains("the thing is no"), "{}", failure.text());
        }
    }

    #[test]
    fn what_was_given_is_in_a_file_of_the_users_alone_while_it_is_needed() {
        let file = FileFor::new(Source::Given(Box::new(connection())), Path::new("/p")).unwrap();
        let path = file.path().to_owned();
        let folder = path.parent().unwrap().to_owned();
        assert_eq!(connection_file::read_engine(&path).unwrap(), connection());
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        file.during(|| Ok(std::process::ExitCode::SUCCESS)).unwrap();
        assert!(!folder.exists());
        assert_eq!(FileFor::new(Source::Profile, Path::new("/p")).unwrap().path(), Path::new("/p"));
        assert_eq!(FileFor::new(Source::File("/f".into()), Path::new("/p")).unwrap().path(), Path::new("/f"));
    }
}
