//! Which engines are registered, on disk for the next controller.
//!
//! All of them are in `engines.json`, in stock's format, which is written anew now and then. An engine that was told its id
//! a moment ago must be known too, or another would get that id: so each id that is given is first appended to a second
//! file, a line of JSON each, until `engines.json` is written the next time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use remuda_hub::{EngineState, Grant};
use remuda_net::Profile;
use remuda_net::connection_file::{self, FileError};

/// The two files of a profile.
pub(crate) struct EnginesFile {
    /// All engines.
    state: PathBuf,
    /// Those that got ids since `state` was written.
    grants: PathBuf,
    /// `grants`, opened when the first is written.
    open: Option<File>,
}

impl EnginesFile {
    /// Those of this profile. Touches nothing.
    pub(crate) fn of(profile: &Profile) -> Self {
        Self { state: profile.engine_state_file(), grants: profile.engine_grants_file(), open: None }
    }

    /// What an earlier controller left; `None` if it left nothing that can be read. A last line that it did not complete was
    /// told to nobody.
    pub(crate) fn read(&mut self) -> Option<EngineState> {
        let mut state = match connection_file::read::<EngineState>(&self.state) {
            Ok(state) => Some(state),
            Err(FileError::Missing { .. }) => None,
            Err(error) => {
                tracing::warn!("{error}: only the engines that registered last are restored");
                None
            }
        };
        let text = match fs::read(&self.grants) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!(
                    "cannot read {}: {error}: the engines that registered last are unknown",
                    self.grants.display()
                );
                Vec::new()
            }
        };
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice::<Grant>(line) {
                Ok(grant) => state.get_or_insert_default().grant(grant),
                Err(error) => tracing::warn!(
                    "{}: {error} in the line `{}`, which is skipped",
                    self.grants.display(),
                    String::from_utf8_lossy(line)
                ),
            }
        }
        if let Some(state) = &state {
            tracing::info!("waiting for {} engines of an earlier controller", state.engines.len());
        }
        state
    }

    /// No engine of an earlier controller counts any more.
    pub(crate) fn begin_anew(&mut self) -> Option<EngineState> {
        if let Err(error) = self.remove_grants() {
            self.warn(&error);
        }
        None
    }

    /// Adds an id that is being given to an engine.
    pub(crate) fn grant(&mut self, grant: &Grant) {
        if let Err(error) = self.append(grant) {
            self.open = None;
            self.warn(&error);
        }
    }

    /// Writes all engines. Those that were added before are among them, or gone.
    pub(crate) fn save(&mut self, state: &EngineState) {
        if let Err(error) = connection_file::write(&self.state, state) {
            return tracing::warn!("{error}: a controller that is started after this one will not know these engines");
        }
        let emptied = match &self.open {
            Some(file) => file.set_len(0),
            // An earlier controller's.
            None => self.remove_grants(),
        };
        if let Err(error) = emptied {
            self.open = None;
            self.warn(&error);
        }
    }

    fn remove_grants(&self) -> io::Result<()> {
        match fs::remove_file(&self.grants) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn append(&mut self, grant: &Grant) -> io::Result<()> {
        let mut line = serde_json::to_vec(grant)?;
        line.push(b'\n');
        if self.open.is_none() {
            let mut file = OpenOptions::new().read(true).append(true).create(true).open(&self.grants)?;
            end_last_line(&mut file)?;
            self.open = Some(file);
        }
        let file = self.open.as_mut().expect("it was just opened");
        file.write_all(&line)
    }

    fn warn(&self, error: &io::Error) {
        tracing::warn!(
            "cannot write {}: {error}: a controller that is started after this one may give the ids of the newest engines again",
            self.grants.display()
        );
    }
}

/// An earlier controller may have died in the middle of a line.
fn end_last_line(file: &mut File) -> io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    let mut last = [b'\n'];
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use remuda_proto::{EngineId, EngineUuid};
    use serde_json::{Value, json};

    fn profile(folder: &tempfile::TempDir) -> Profile {
        fs::create_dir_all(folder.path().join("log")).unwrap();
        Profile::at(folder.path(), "")
    }

    fn grant(id: u32, uuid: &str) -> Grant {
        Grant { id: EngineId(id), uuid: EngineUuid::from(uuid), announcement: None }
    }

    fn read(profile: &Profile) -> Value {
        serde_json::to_value(EnginesFile::of(profile).read()).unwrap()
    }

    #[test]
    fn an_id_that_was_given_is_known_before_all_are_saved() {
        let folder = tempfile::tempdir().unwrap();
        let profile = profile(&folder);
        assert_eq!(read(&profile), Value::Null, "nothing was left");
        let mut file = EnginesFile::of(&profile);
        file.grant(&grant(0, "a"));
        assert_eq!(read(&profile), json!({"engines": {"0": "a"}, "next_id": 1}));
        let mut state = file.read().unwrap();
        state.engines.clear();
        file.save(&state);
        assert_eq!(
            read(&profile),
            json!({"engines": {}, "next_id": 1}),
            "what was saved counts, not what was added before"
        );
        file.grant(&grant(1, "b"));
        file.grant(&grant(2, "b"));
        assert_eq!(read(&profile), json!({"engines": {"2": "b"}, "next_id": 3}), "an engine has one id, the last");
    }

    #[test]
    fn what_an_earlier_controller_added_does_not_outlive_what_is_saved() {
        let folder = tempfile::tempdir().unwrap();
        let profile = profile(&folder);
        EnginesFile::of(&profile).grant(&grant(0, "a"));
        let mut next = EnginesFile::of(&profile);
        let mut state = next.read().unwrap();
        state.grant(grant(1, "a"));
        next.save(&state);
        assert_eq!(read(&profile), json!({"engines": {"1": "a"}, "next_id": 2}), "it came back under another id");
    }

    #[test]
    fn half_a_line_is_no_engine_and_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let profile = profile(&folder);
        EnginesFile::of(&profile).grant(&grant(0, "a"));
        let path = profile.engine_grants_file();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], &whole[..whole.len() / 2]].concat()).unwrap();
        EnginesFile::of(&profile).grant(&grant(1, "b"));
        assert_eq!(read(&profile)["engines"], json!({"0": "a", "1": "b"}));
    }

    #[test]
    fn who_begins_anew_knows_no_engine_of_before() {
        let folder = tempfile::tempdir().unwrap();
        let profile = profile(&folder);
        EnginesFile::of(&profile).grant(&grant(0, "a"));
        EnginesFile::of(&profile).begin_anew();
        assert_eq!(read(&profile), Value::Null);
    }
}
