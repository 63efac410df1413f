//! The socket at which a cluster's supervisor is asked for things: a line of JSON each way.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use remuda_cluster::ClusterFile;
use remuda_cluster::fleet::{Answer, Command, Growth, Roster};
use remuda_net::Profile;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, unix};
use tokio::sync::{mpsc, oneshot};

use crate::args::PlaceArgs;
use crate::failure::Failure;

/// The longest path of a socket, in bytes, that every system takes.
const MAX_PATH_BYTES: usize = 100;
/// How long the supervisor may take to answer: it may have to ask the controller.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest command, in bytes.
const MAX_LINE_BYTES: u64 = 1024 * 1024;

/// A command, and where its answer goes.
pub(super) struct Question {
    pub(super) command: Command,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// An open socket. It is gone when this is dropped.
pub(super) struct Door {
    path: PathBuf,
    /// The folder that was made for it.
    _folder: Option<TempDir>,
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Door {
    /// Listens, for this user alone: in the profile's folder, or where that is too long for a socket, in a temporary one.
    pub(super) fn open(profile: &Profile) -> io::Result<(Self, mpsc::UnboundedReceiver<Question>)> {
        let id = profile.cluster_id();
        let dash = if id.is_empty() { "" } else { "-" };
        let mut path = profile.pid().join(format!("remuda-cluster{dash}{id}.sock"));
        let mut folder = None;
        if path.as_os_str().len() > MAX_PATH_BYTES {
            let made = tempfile::Builder::new().prefix("remuda-").tempdir()?;
            path = made.path().join("cluster.sock");
            folder = Some(made);
        }
        // One that is left of a supervisor that was killed; whether a cluster runs was looked at before.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let (sender, questions) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (reader, writer) = stream.into_split();
                tokio::spawn(attend(reader, writer, sender.clone()));
            }
        });
        Ok((Self { path, _folder: folder }, questions))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Answers one connection, line by line.
async fn attend(
    reader: unix::OwnedReadHalf,
    mut writer: unix::OwnedWriteHalf,
    questions: mpsc::UnboundedSender<Question>,
) {
    use tokio::io::AsyncReadExt;
    let mut lines = tokio::io::BufReader::new(reader.take(MAX_LINE_BYTES)).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let answer = match serde_json::from_str(&line) {
            Err(error) => Answer::Refused(format!("not understood: {error}")),
            Ok(command) => {
                let (answer, answered) = oneshot::channel();
                if questions.send(Question { command, answer }).is_err() {
                    return;
                }
                answered.await.unwrap_or_else(|_| Answer::Refused("the cluster has ended".to_owned()))
            }
        };
        let mut line = serde_json::to_vec(&answer).expect("plain data can be written");
        line.push(b'\n');
        if writer.write_all(&line).await.is_err() {
            return;
        }
    }
}

/// How far the cluster of a profile grows by itself, if it has a supervisor and does.
pub(in crate::commands) fn growth(profile: &Profile) -> Option<Growth> {
    match ask(profile, "", &Command::Status).ok()? {
        Answer::Roster(roster) => roster.grows,
        _ => None,
    }
}

/// How the engines of the cluster in this place stand.
///
/// # Errors
/// When there is no supervisor, or it does not answer.
pub(super) fn roster(place: &PlaceArgs) -> Result<Roster, Failure> {
    match ask(&place.profile(), &place.options(), &Command::Status)? {
        Answer::Roster(roster) => Ok(*roster),
        other => Err(Failure::new(anyhow::anyhow!("the supervisor answers what was not asked: {other:?}"))),
    }
}

/// Asks the supervisor of a profile's cluster.
///
/// # Errors
/// When there is none, when it does not answer, and what it refuses, in its words.
pub(in crate::commands) fn ask(profile: &Profile, options: &str, command: &Command) -> Result<Answer, Failure> {
    let start = format!("start a cluster with `remuda cluster start{options}`");
    let Some(file) = ClusterFile::read(profile)?.filter(ClusterFile::runs) else {
        return Err(Failure::new(anyhow::anyhow!("no cluster runs in `{}`", profile.dir().display())).hint(start));
    };
    let Some(path) = file.control else {
        let what = "this cluster was started by another program than `remuda cluster start`";
        return Err(
            Failure::new(anyhow::anyhow!(what)).hint("`remuda cluster engines drain` works with any controller")
        );
    };
    let answer = exchange(&path, command).map_err(|error| {
        let what = format!("the supervisor of the cluster does not answer at `{}`", path.display());
        let hint = format!("if it was killed, stop the rest with `remuda cluster stop{options}`, and start it anew");
        Failure::new(anyhow::Error::new(error).context(what)).hint(hint)
    })?;
    match answer {
        Answer::Refused(reason) => Err(Failure::new(anyhow::anyhow!(reason))),
        answer => Ok(answer),
    }
}

fn exchange(path: &Path, command: &Command) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut line = serde_json::to_vec(command)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}
