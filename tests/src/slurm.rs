//! A Slurm of one's own: controller, one node and munge, in a folder, on ports and a socket that nobody else has.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, getuid};

use crate::sshd::free_port;
use crate::{skipped, wait_for};

/// How long a part of it may take to end, before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to begin.
const START_TIMEOUT: Duration = Duration::from_secs(40);
/// How many processors its node says it has.
pub const CPUS: u32 = 16;

/// A Slurm. It ends when this goes, and with it all its jobs.
pub struct Slurm {
    folder: tempfile::TempDir,
    /// In the order in which they are to end.
    parts: Vec<Child>,
}

impl Slurm {
    /// Starts one as the user who runs the test, who has to be root. Where that cannot be done, says why on stderr and returns
    /// nothing.
    pub fn start() -> Option<Self> {
        Self::try_start().map_err(|why| skipped("Slurm", &why)).ok()
    }

    fn try_start() -> Result<Self, String> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = || std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
        let find = |program: &str| {
            let found = folders().map(|folder| folder.join(program)).find(|file| file.exists());
            found.ok_or_else(|| format!("{program} is not installed"))
        };
        let [munged, slurmctld, slurmd] = [find("munged")?, find("slurmctld")?, find("slurmd")?];
        find("sbatch")?;
        if !getuid().is_root() {
            return Err("slurmd has to be started by root".to_owned());
        }
        let folder = tempfile::Builder::new().prefix("remuda-slurm-").tempdir().map_err(|error| error.to_string())?;
        let mut slurm = Self { folder, parts: Vec::new() };
        slurm.write_files().map_err(|error| format!("its files cannot be written: {error}"))?;
        let at = |name: &str| slurm.folder.path().join(name);
        let mut munge = Command::new(munged);
        munge.args(["--foreground", "--force"]);
        for (option, file) in [
            ("socket", "munge.socket"),
            ("key-file", "key"),
            ("pid-file", "munge.pid"),
            ("log-file", "munge.log"),
            ("seed-file", "seed"),
        ] {
            munge.arg(format!("--{option}={}", at(file).display()));
        }
        let config = at("slurm.conf");
        let mut controller = Command::new(slurmctld);
        controller.args(["-D", "-f"]).arg(&config);
        let mut node = Command::new(slurmd);
        node.args(["-D", "-f"]).arg(&config).args(["-N", &host()]);
        slurm.begin("munged", munge, |slurm| slurm.folder.path().join("munge.socket").exists())?;
        slurm.begin("slurmctld", controller, |slurm| slurm.says("scontrol", &["ping"], "UP"))?;
        slurm.begin("slurmd", node, |slurm| slurm.says("sinfo", &["--noheader", "--format=%T"], "idle"))?;
        Ok(slurm)
    }

    fn write_files(&self) -> std::io::Result<()> {
        let at = |name: &str| self.folder.path().join(name);
        fs::create_dir(at("state"))?;
        fs::create_dir(at("spool"))?;
        // It keeps other users out: the folder alone would, too.
        fs::write(at("key"), [letters(), letters(), letters()].concat().repeat(2))?;
        fs::set_permissions(at("key"), fs::Permissions::from_mode(0o400))?;
        let user = User::from_uid(getuid()).ok().flatten().map_or_else(|| "root".to_owned(), |user| user.name);
        let (folder, host) = (self.folder.path().display(), host());
        let mut config = String::new();
        for (name, value) in [
            ("ClusterName", "remuda".to_owned()),
            ("SlurmctldHost", format!("{host}(127.0.0.1)")),
            ("AuthType", "auth/munge".to_owned()),
            ("AuthInfo", format!("socket={folder}/munge.socket")),
            ("CryptoType", "crypto/munge".to_owned()),
            ("SlurmctldPort", free_port().to_string()),
            ("SlurmdPort", free_port().to_string()),
            ("SlurmUser", user.clone()),
            ("SlurmdUser", user),
            ("StateSaveLocation", format!("{folder}/state")),
            ("SlurmdSpoolDir", format!("{folder}/spool")),
            ("SlurmctldPidFile", format!("{folder}/slurmctld.pid")),
            ("SlurmdPidFile", format!("{folder}/slurmd.pid")),
            ("ProctrackType", "proctrack/linuxproc".to_owned()),
            ("TaskPlugin", "task/none".to_owned()),
            ("SelectType", "select/cons_tres".to_owned()),
            ("SelectTypeParameters", "CR_CPU".to_owned()),
            ("SwitchType", "switch/none".to_owned()),
            ("MpiDefault", "none".to_owned()),
            ("ReturnToService", "2".to_owned()),
            ("SchedulerType", "sched/backfill".to_owned()),
            ("SchedulerParameters", "sched_interval=1,batch_sched_delay=0".to_owned()),
            ("JobAcctGatherType", "jobacct_gather/none".to_owned()),
            ("AccountingStorageType", "accounting_storage/none".to_owned()),
            ("KillWait", "3".to_owned()),
            ("SlurmdParameters", "config_overrides".to_owned()),
            ("NodeName", format!("{host} NodeAddr=127.0.0.1 CPUs={CPUS} RealMemory=1000 State=UNKNOWN")),
            ("PartitionName", format!("main Nodes={host} Default=YES MaxTime=INFINITE State=UP")),
        ] {
            writeln!(config, "{name}={value}").expect("a text can be written to");
        }
        fs::write(at("slurm.conf"), config)
    }

    /// Starts a part, and waits until it is ready.
    fn begin(&mut self, name: &str, mut command: Command, is_ready: impl Fn(&Self) -> bool) -> Result<(), String> {
        let path = self.folder.path().join(format!("{name}.out"));
        let output = File::create(&path).map_err(|error| error.to_string())?;
        let errors = output.try_clone().map_err(|error| error.to_string())?;
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        self.parts.insert(0, child.map_err(|error| format!("{name}: {error}"))?);
        let (start, mut trouble) = (Instant::now(), None);
        wait_for(name, || {
            let ended = matches!(self.parts[0].try_wait(), Ok(Some(_)));
            if ended || start.elapsed() > START_TIMEOUT {
                trouble = Some(format!("{name} is not ready: {}", fs::read_to_string(&path).unwrap_or_default()));
            }
            trouble.is_some() || is_ready(self)
        });
        trouble.map_or(Ok(()), Err)
    }

    fn says(&self, program: &str, arguments: &[&str], words: &str) -> bool {
        let output = Command::new(program).args(arguments).env("SLURM_CONF", self.config()).output();
        output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(words))
    }

    /// Its configuration file, for the variable `SLURM_CONF`.
    pub fn config(&self) -> String {
        self.folder.path().join("slurm.conf").display().to_string()
    }

    /// A folder for what the test itself needs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        if self.parts.len() == 3 {
            let mut all = Command::new("scancel");
            let _ = all.args(["--full", "--signal=KILL", "--state=RUNNING"]).env("SLURM_CONF", self.config()).output();
            let _ = Command::new("scancel").args(["--user", "root"]).env("SLURM_CONF", self.config()).output();
            let start = Instant::now();
            // What a job still runs would outlive its node.
            while start.elapsed() < STOP_TIMEOUT && self.says("squeue", &["--noheader", "--format=job"], "job") {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        for part in &mut self.parts {
            let _ = kill(Pid::from_raw(part.id().cast_signed()), Signal::SIGTERM);
            let start = Instant::now();
            while matches!(part.try_wait(), Ok(None)) && start.elapsed() < STOP_TIMEOUT {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = part.kill();
            let _ = part.wait();
        }
    }
}

/// The name of this machine, up to the first dot, as Slurm has it.
fn host() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// Letters that nobody guesses.
fn letters() -> String {
    let file = tempfile::Builder::new().prefix("").rand_bytes(32).tempfile();
    let name = file.ok().and_then(|file| file.path().file_name().map(|name| name.to_string_lossy().into_owned()));
    name.unwrap_or_default()
}
