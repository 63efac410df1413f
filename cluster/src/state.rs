//! The file that says which processes make up a cluster, so that another command can stop them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use remuda_net::Profile;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::launch::batch::Job;
use crate::process::ProcessId;

/// One process of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Which one.
    #[serde(flatten)]
    pub process: ProcessId,
    /// What it prints goes here.
    #[serde(default)]
    pub log: PathBuf,
}

/// Engines of other machines, and the process of this one through which they are reached: when it ends, so do they.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// That of ssh, or the command that started them.
    #[serde(flatten)]
    pub through: Member,
    /// How many engines run.
    pub engines: usize,
}

/// A cluster's processes.
///
/// It is kept in two files: one of ours, and one of the form that stock's `ipcluster` and `Cluster.from_file` know
/// (`cluster/cluster.py: Cluster.to_dict`). They are two since stock writes its own anew without what it does not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFile {
    /// The controller.
    pub controller: Member,
    /// The engines that run here.
    pub engines: Vec<Member>,
    /// The engines that run on other machines.
    #[serde(default)]
    pub elsewhere: Vec<Elsewhere>,
    /// The processes that keep the engines running.
    #[serde(default)]
    pub nannies: Vec<Member>,
    /// The command that started them and waits for them.
    #[serde(default)]
    pub supervisor: Option<ProcessId>,
    /// The socket at which that command listens.
    #[serde(default)]
    pub control: Option<PathBuf>,
    /// Jobs of a batch system, in which there are engines.
    #[serde(default)]
    pub jobs: Vec<Job>,
    /// Which system has them, by its name in settings.
    #[serde(default)]
    pub launcher: Option<String>,
    /// Whether the connection files are to be used again, and so stay when the cluster ends.
    #[serde(default)]
    pub reuse: bool,
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
    /// Where ours is: in the profile's `pid` folder.
    pub fn path(profile: &Profile) -> PathBuf {
        let id = profile.cluster_id();
        let dash = if id.is_empty() { "" } else { "-" };
        profile.pid().join(format!("remuda-cluster{dash}{id}.json"))
    }

    /// Where stock's is (`cluster/cluster.py: Cluster._default_cluster_file`).
    pub fn stock_path(profile: &Profile) -> PathBuf {
        profile.security().join(format!("cluster-{}.json", profile.cluster_id()))
    }

    /// The ids of all clusters of a profile that have a file, in order.
    pub fn ids(profile_dir: &Path) -> Vec<String> {
        let profile = Profile::at(profile_dir, "");
        let names = |folder: PathBuf| {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.file_name().into_string().ok())
        };
        let ours = names(profile.pid()).filter_map(|name| {
            let id = name.strip_prefix("remuda-cluster")?.strip_suffix(".json")?;
            Some(id.strip_prefix('-').unwrap_or(id).to_owned())
        });
        let stock = names(profile.security())
            .filter_map(|name| Some(name.strip_prefix("cluster-")?.strip_suffix(".json")?.to_owned()));
        let all: BTreeSet<String> = ours.chain(stock).collect();
        all.into_iter().collect()
    }

    /// Reads that of a profile's cluster, whether we started it or stock did; `None` if there is none.
    pub fn read(profile: &Profile) -> Result<Option<Self>, StateError> {
        if let Some(text) = read(&Self::path(profile))? {
            let path = Self::path(profile);
            return serde_json::from_slice(&text).map(Some).map_err(|source| StateError::Invalid { path, source });
        }
        let path = Self::stock_path(profile);
        let Some(text) = read(&path)? else { return Ok(None) };
        let stock = serde_json::from_slice(&text).map_err(|source| StateError::Invalid { path, source })?;
        Ok(Self::of_stock(&stock))
    }

    /// Writes both files, each whole or not at all.
    pub fn write(&self, profile: &Profile) -> Result<(), StateError> {
        write(&Self::path(profile), self)?;
        write(&Self::stock_path(profile), &self.to_stock(profile))
    }

    /// Removes both files.
    pub fn remove(profile: &Profile) {
        for path in [Self::path(profile), Self::stock_path(profile)] {
            let _ = fs::remove_file(path);
        }
    }

    /// All processes, in the order in which they are to end.
    pub fn processes(&self) -> Vec<ProcessId> {
        self.nannies.iter().chain(&self.engines).chain([&self.controller]).map(|member| member.process).collect()
    }

    /// Whether its controller runs.
    pub fn runs(&self) -> bool {
        self.controller.process.runs()
    }

    /// How many of its engines run.
    pub fn engines_running(&self) -> usize {
        self.running().count()
    }

    /// The processes by which each of its engines that run is ended: its own, or that through which it is reached.
    fn running(&self) -> impl Iterator<Item = &Member> {
        let elsewhere = self.elsewhere.iter().flat_map(|of| std::iter::repeat_n(&of.through, of.engines));
        self.engines.iter().chain(elsewhere).filter(|member| member.process.runs())
    }

    /// What stock writes of such a cluster; of its engines, those that run. One that runs on another machine is the process of this one
    /// through which it is reached: stock counts it, and ends it with that process.
    pub fn to_stock(&self, profile: &Profile) -> Value {
        let (dir, id) = (profile.dir().to_string_lossy(), profile.cluster_id());
        let state = |member: &Member| {
            json!({"cluster_id": id, "output_file": member.log.to_string_lossy(), "pid": member.process.pid,
                   "profile_dir": dir, "state": "running"})
        };
        let mut engines = serde_json::Map::new();
        for (index, member) in self.running().enumerate() {
            let mut engine = state(member);
            engine["n"] = 1.into();
            engines.insert(index.to_string(), engine);
        }
        let count = engines.len();
        let mut sets = serde_json::Map::new();
        if count > 0 {
            // Of a set without engines stock complains.
            let set = json!({"cluster_id": id, "n": count, "pid": -1, "profile_dir": dir, "state": "running",
                             "engines": engines});
            sets.insert("remuda".to_owned(), set);
        }
        json!({
            "cluster": {"cluster_id": id, "controller_args": [], "controller_ip": "", "controller_location": "",
                        "delay": 1.0, "n": count, "profile_dir": dir,
                        "class": "ipyparallel.cluster.cluster.Cluster"},
            "controller": {"class": "local", "state": state(&self.controller)},
            "engines": {"class": "local", "sets": sets},
        })
    }

    /// What can be made of stock's file: of clusters that run on this machine, all. The processes are known by their
    /// pids alone.
    fn of_stock(stock: &Value) -> Option<Self> {
        let member = |state: &Value| {
            let pid = i32::try_from(state["pid"].as_i64()?).ok().filter(|pid| *pid > 0)?;
            let log = PathBuf::from(state["output_file"].as_str().unwrap_or_default());
            Some(Member { process: ProcessId { pid, started: None }, log })
        };
        let controller = member(&stock["controller"]["state"])?;
        let sets = stock["engines"]["sets"].as_object().into_iter().flat_map(|sets| sets.values());
        let engines = sets.filter_map(|set| set["engines"].as_object()).flat_map(|engines| engines.values());
        Some(Self {
            controller,
            engines: engines.filter_map(member).collect(),
            elsewhere: Vec::new(),
            nannies: Vec::new(),
            supervisor: None,
            control: None,
            jobs: Vec::new(),
            launcher: None,
            reuse: false,
        })
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateError::Io { path: path.to_owned(), source }),
    }
}

fn write(path: &Path, content: &impl Serialize) -> Result<(), StateError> {
    let attempt = || -> io::Result<()> {
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut file, content)?;
        file.flush()?;
        file.persist(path)?;
        Ok(())
    };
    attempt().map_err(|source| StateError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_comes_back_from_either_file() {
        let folder = tempfile::tempdir().unwrap();
        let profile = Profile::at(folder.path(), "x");
        profile.create().unwrap();
        assert_eq!(ClusterFile::read(&profile).unwrap(), None);
        let this = ProcessId::this();
        let member = |log: &str| Member { process: this, log: log.into() };
        let ended = Member { process: ProcessId { pid: this.pid, started: Some(0) }, log: "c.log".into() };
        let file = ClusterFile {
            controller: member("a.log"),
            engines: vec![member("b.log"), ended.clone()],
            elsewhere: vec![
                Elsewhere { through: member("s.log"), engines: 2 },
                Elsewhere { through: ended, engines: 5 },
            ],
            nannies: vec![member("n.log")],
            supervisor: Some(this),
            control: Some("c.sock".into()),
            jobs: vec![Job { id: "17".to_owned(), elements: 2 }],
            launcher: Some("slurm".to_owned()),
            reuse: false,
        };
        file.write(&profile).unwrap();
        assert_eq!(ClusterFile::read(&profile).unwrap().as_ref(), Some(&file));
        assert_eq!((file.runs(), file.engines_running()), (true, 3));
        assert_eq!(ClusterFile::ids(profile.dir()), ["x"]);

        fs::remove_file(ClusterFile::path(&profile)).unwrap();
        let stock = ClusterFile::read(&profile).unwrap().unwrap();
        assert_eq!((stock.controller.process.pid, &*stock.controller.log), (this.pid, Path::new("a.log")));
        let logs: Vec<&str> = stock.engines.iter().filter_map(|member| member.log.to_str()).collect();
        assert_eq!(
            logs,
            ["b.log", "s.log", "s.log"],
            "engines that ended are not told to stock, and those elsewhere are"
        );
        assert_eq!(ClusterFile::ids(profile.dir()), ["x"]);
        ClusterFile::remove(&profile);
        assert_eq!(ClusterFile::ids(profile.dir()), [""; 0]);
    }

    #[test]
    fn a_file_that_is_none_is_named_and_one_of_a_cluster_elsewhere_is_none_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let profile = Profile::at(folder.path(), "");
        profile.create().unwrap();
        fs::write(ClusterFile::stock_path(&profile), "{").unwrap();
        assert!(ClusterFile::read(&profile).unwrap_err().to_string().contains("cluster-.json"));
        for text in ["[]", "{}", r#"{"controller": {"class": "slurm", "state": {"job_id": "3"}}}"#] {
            fs::write(ClusterFile::stock_path(&profile), text).unwrap();
            assert_eq!(ClusterFile::read(&profile).unwrap(), None, "{text}");
        }
    }
}
