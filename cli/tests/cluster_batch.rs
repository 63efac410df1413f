//! Clusters whose engines are jobs of batch systems that are not to be had here: stand-ins for their programs, which run what they are
//! given, on this machine, and answer as the manuals say. `cluster_slurm.rs` is on the real thing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use remuda_tests::{Finished, Place, finish, processes_with, wait_for};
use serde_json::Value;

/// What all stand-ins share: a folder for each job, and in it the pid of each element and how it ended.
const COMMON: &str = r#"
# Runs what comes on stdin; $1 finds the number of elements in it, $2 is the variable with an element's number, $3 the first.
submit() {
    id=12; until mkdir "$D/job$id" 2> /dev/null; do id=$((id + 1)); done; cd "$D/job$id"; cat > script
    if grep -q nowhere script; then rm -r "$D/job$id"; echo 'Unknown queue: nowhere' >&2; exit 1; fi
    count=$(sed -n "$1" script); elements=none; [ -z "$count" ] || elements=$(seq $3 $(($3 + count - 1)))
    for e in $elements; do
        export "$2=$e" E=$e
        setsid sh -c 'sh ./script & echo $! > $E.pid; wait $!; echo $? > $E.code' < /dev/null > $e.out 2>&1 &
        while [ ! -s $e.pid ]; do sleep 0.01; done
    done
}
# Has `show ID ELEMENT STATE` say how each stands: `run`, or its exit code.
each() {
    for p in "$D"/job*/*.pid; do
        [ -e "$p" ] || continue
        j=${p%/*}; e=${p##*/}; s=run; [ ! -s "${p%.pid}.code" ] || s=$(cat "${p%.pid}.code")
        show ${j##*/job} ${e%.pid} $s
    done
}
# Ends a job, or one element of it.
end() {
    for p in "$D/job$1"/${2:-*}.pid; do [ -s "${p%.pid}.code" ] || kill -TERM $(cat "$p"); done
}
host=$(uname -n)
"#;

/// A system by its name in the options, and its programs.
type System = (&'static str, &'static [(&'static str, &'static str)]);

const PBS_DEL: &str =
    r"n=${1%%.*}; n=${n%%'['*}; case $1 in *'[]'*) end $n;; *'['*) e=${1#*'['}; end $n ${e%%]*};; *) end $n;; esac";

const SYSTEMS: [System; 5] = [
    (
        "sge",
        &[
            ("qsub", r#"[ "$*" = -terse ] || exit 99; submit 's/^#\$ -t 1-//p' SGE_TASK_ID 1; echo $id"#),
            (
                "qstat",
                r#"show() { [ $3 = run ] || return 0; [ $2 = none ] && set -- $1 '' $3
                   echo "$1 0.5 remuda me r 07/02/2010 12:00:00 all.q@$host 1 $2"; }; each"#,
            ),
            (
                "qacct",
                r#"[ "$1" = -j ] || exit 99; job=$2; show() { [ $1 = $job ] && [ $3 != run ] || return 0
                   printf '==============\njobnumber    %s\ntaskid       %s\nfailed       0\nexit_status  %s\n' $1 $2 $3; }; each"#,
            ),
            ("qdel", r#"[ $# = 1 ] || [ "$2" = -t ] || exit 99; end $1 $3"#),
        ],
    ),
    (
        "openpbs",
        &[
            (
                "qsub",
                r#"[ $# = 0 ] || exit 99; submit 's/^#PBS -J 1-//p' PBS_ARRAY_INDEX 1; [ -z "$count" ] || id="$id[]"; echo $id.server"#,
            ),
            (
                "qstat",
                r#"case "$1 $2 $3" in '-f -t '*) past=;; '-x -f -t') past=1;; *) exit 99;; esac
                   show() { [ $2 = none ] && n=$1.server || n="$1[$2].server"
                   if [ $3 = run ]; then printf 'Job Id: %s\n    job_state = R\n    exec_host = %s/0\n\n' $n $host
                   elif [ -n "$past" ]; then printf 'Job Id: %s\n    job_state = F\n    Exit_status = %s\n\n' $n $3; fi; }; each"#,
            ),
            ("qdel", PBS_DEL),
        ],
    ),
    (
        "pbs",
        &[
            (
                "qsub",
                r#"[ $# = 0 ] || exit 99; submit 's/^#PBS -t 1-//p' PBS_ARRAYID 1; [ -z "$count" ] || id="$id[]"; echo $id.server"#,
            ),
            (
                "qstat",
                r#"[ "$1 $2" = '-f -t' ] || exit 99; show() { [ $2 = none ] && n=$1.server || n="$1[$2].server"
                   if [ $3 = run ]; then printf 'Job Id: %s\n    job_state = R\n    exec_host = %s/0\n\n' $n $host
                   else printf 'Job Id: %s\n    job_state = C\n    exit_status = %s\n\n' $n $3; fi; }; each"#,
            ),
            ("qdel", PBS_DEL),
        ],
    ),
    (
        "lsf",
        &[
            (
                "bsub",
                r#"[ $# = 0 ] || exit 99; submit 's/^#BSUB -J remuda\[1-\([0-9]*\)\]/\1/p' LSB_JOBINDEX 1
                   echo "Job <$id> is submitted to default queue <normal>.""#,
            ),
            (
                "bjobs",
                r#"[ "$1 $2 $3" = '-a -noheader -o' ] || exit 99; show() { [ $2 = none ] && set -- $1 0 $3
                   case $3 in run) echo "$1|$2|RUN|$host|-|-|-";; 0) echo "$1|$2|DONE|$host|-|-|-";; *) echo "$1|$2|EXIT|$host|$3|-|-";; esac; }
                   each"#,
            ),
            ("bkill", r"e=; case $1 in *'['*) e=${1#*[}; e=${e%]};; esac; end ${1%%[*} $e"),
        ],
    ),
    (
        "htcondor",
        &[
            (
                "condor_submit",
                // The description becomes a script: its arguments are quoted as for a shell, where no word has a quote in it.
                r#"[ "$*" = -terse ] || exit 99; sed -n 's/^arguments = "\(.*\)"$/exec \1/p; s/^queue \(.*\)/# queue \1/p; /nowhere/p' |
                   sed 's/\$(Process)/$P/g' > "$D/made$$"; [ -s "$D/made$$" ] || exit 98
                   submit 's/^# queue //p' P 0 < "$D/made$$"; echo "$id.0 - $id.$((count - 1))""#,
            ),
            (
                "condor_q",
                r"u=undefined; show() { [ $3 = run ] && printf '%s\t%s\t2\tslot1@%s\t%s\t%s\t%s\t%s\t%s\n' $1 $2 $host $u $u $u $u $u
                   return 0; }; each",
            ),
            (
                "condor_history",
                r"u=undefined; show() { [ $3 = run ] || printf '%s\t%s\t4\t%s\t%s\tfalse\t%s\t%s\t%s\n' $1 $2 $u $3 $u $u $u; }; each",
            ),
            ("condor_rm", r"e=; case $1 in *.*) e=${1#*.};; esac; end ${1%%.*} $e"),
        ],
    ),
];

/// A place for a cluster, and a stand-in for a batch system.
struct Site {
    place: Place,
    launcher: String,
}

impl Site {
    fn new(system: System) -> Self {
        let place = Place::new(env!("CARGO_BIN_EXE_remuda"));
        let site = Self { place, launcher: format!("--launcher={}", system.0) };
        fs::create_dir_all(site.programs()).unwrap();
        fs::create_dir(site.place.folder().join("jobs")).unwrap();
        for (name, script) in system.1 {
            let path = site.programs().join(name);
            let folder = site.place.folder().join("jobs");
            fs::write(&path, format!("#!/bin/sh\nD={}\n{COMMON}\n{script}\n", folder.display())).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        site
    }

    fn programs(&self) -> PathBuf {
        self.place.folder().join("bin")
    }

    fn command(&self, words: &[&str]) -> Command {
        let at = words.iter().position(|word| *word == "--").unwrap_or(words.len());
        let option = self.place.profile_option();
        let mut command = self.place.command(&[&words[..at], &[&*option], &words[at..]].concat());
        let path = std::env::var_os("PATH").unwrap();
        let path = [self.programs()].into_iter().chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(path).unwrap());
        command
    }

    fn run(&self, words: &[&str]) -> Finished {
        finish(self.command(words))
    }

    fn does(&self, words: &[&str]) -> Finished {
        let done = self.run(words);
        assert_eq!(done.code, Some(0), "{}: {words:?}: {}", self.launcher, done.stderr);
        done
    }

    fn start(&self, options: &[&str]) -> Finished {
        self.run(&[&["cluster", "start", &self.launcher, "--daemonize"], options].concat())
    }

    fn engines(&self) -> Vec<Value> {
        let status: Value = serde_json::from_str(&self.does(&["cluster", "status", "-o", "json"]).stdout).unwrap();
        status["engines"].as_array().unwrap().iter().filter(|engine| engine["state"] == "idle").cloned().collect()
    }

    /// How many jobs were submitted.
    fn submitted(&self) -> usize {
        let jobs = fs::read_dir(self.place.folder().join("jobs")).unwrap();
        jobs.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("job")).count()
    }

    fn is_gone(&self) {
        let text = self.place.folder().display().to_string();
        wait_for("the end of all processes", || processes_with(&text).is_empty());
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.run(&["cluster", "stop"]);
    }
}

fn a_cluster_in_jobs_of(system: &str) {
    let site = Site::new(SYSTEMS.into_iter().find(|(name, _)| *name == system).unwrap());
    let done = site.start(&["-n", "3", "--queue=nowhere", "--job-option=# nowhere"]);
    assert_eq!(done.code, Some(1), "{system}: {}", done.stderr);
    assert!(done.stderr.contains("Unknown queue: nowhere"), "{system}: {}", done.stderr);
    site.is_gone();

    let done = site.start(&["-n", "3"]);
    assert_eq!(done.code, Some(0), "{system}: {}", done.stderr);
    assert_eq!((site.engines().len(), site.submitted()), (3, 1), "{system}: one array");
    assert_eq!(site.does(&["run", "--", "echo", "in a job"]).stdout, "in a job\n");

    // An element's nanny is killed: the system says that its job failed, and another one is submitted.
    let status: Value = serde_json::from_str(&site.does(&["cluster", "status", "-o", "json"]).stdout).unwrap();
    let unit = &status["units"][2];
    kill(Pid::from_raw(i32::try_from(unit["pid"].as_i64().unwrap()).unwrap()), Signal::SIGKILL).unwrap();
    wait_for("another one in its place", || {
        let engines = site.engines();
        engines.len() == 3 && engines.iter().any(|engine| engine["unit"] == 2 && engine["job"] != unit["job"])
    });
    assert_eq!(site.submitted(), 2, "{system}");
    site.does(&["cluster", "engines", "add", "1"]);
    assert_eq!((site.engines().len(), site.submitted()), (4, 3), "{system}");
    site.does(&["cluster", "stop"]);
    site.is_gone();

    // Without arrays, and with engines that share a job.
    let done = site.start(&["-n", "4", "--no-array", "--engines-per-job=2"]);
    assert_eq!(done.code, Some(0), "{system}: {}", done.stderr);
    assert_eq!((site.engines().len(), site.submitted()), (4, 5), "{system}");
    site.does(&["cluster", "stop"]);
    site.is_gone();
}

#[test]
fn a_cluster_in_jobs_of_grid_engine() {
    a_cluster_in_jobs_of("sge");
}

#[test]
fn a_cluster_in_jobs_of_openpbs() {
    a_cluster_in_jobs_of("openpbs");
}

#[test]
fn a_cluster_in_jobs_of_torque() {
    a_cluster_in_jobs_of("pbs");
}

#[test]
fn a_cluster_in_jobs_of_lsf() {
    a_cluster_in_jobs_of("lsf");
}

#[test]
fn a_cluster_in_jobs_of_htcondor() {
    a_cluster_in_jobs_of("htcondor");
}

#[test]
fn a_system_that_is_not_there_is_named() {
    let site = Site::new(("lsf", &[]));
    let done = site.start(&["-n", "1"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("cannot run `bsub`: is it installed"), "{}", done.stderr);
    site.is_gone();
    let done = site.run(&["cluster", "start", "--launcher=cron", "-n", "1"]);
    assert_eq!(done.code, Some(2));
    assert!(done.stderr.contains("htcondor"), "{}", done.stderr);
}

#[test]
fn options_for_jobs_come_from_the_profile_and_make_the_script() {
    let site = Site::new(SYSTEMS[0]);
    let profile = site.place.profile();
    profile.create().unwrap();
    let template = site.place.folder().join("own.template");
    fs::write(
        &template,
        "#!/bin/sh\n#$ -t {array}\n# queue {queue} account {account} time {time}\n# {options}\nexec {command}\n",
    )
    .unwrap();
    let settings = format!(
        "[cluster]\nlauncher = \"sge\"\nn = 2\nqueue = \"long\"\naccount = \"physics\"\ntime = \"1:00:00\"\n\
         job-option = [\"-pe one\", \"-l two\"]\ntemplate = \"{}\"\n",
        template.display()
    );
    fs::write(profile.dir().join("remuda.toml"), settings).unwrap();
    let shown = site.does(&["cluster", "start", "--show-config"]).stdout;
    assert!(shown.contains("physics") && shown.contains("-pe one"), "{shown}");
    site.does(&["cluster", "start", "--daemonize"]);
    let script = fs::read_to_string(site.place.folder().join("jobs/job12/script")).unwrap();
    assert!(script.contains("# queue long account physics time 1:00:00\n# -pe one\n# -l two\n"), "{script}");
    site.does(&["cluster", "stop"]);
    site.is_gone();
}

/// A network that can be cut, between nannies and the supervisor that is at the port which `port` finds.
struct Network {
    at: u16,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

impl Network {
    fn new(port: impl Fn() -> u16 + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (at, connections) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
        let all = Arc::clone(&connections);
        thread::spawn(move || {
            for nanny in listener.incoming().map(Result::unwrap) {
                let supervisor = TcpStream::connect(("127.0.0.1", port())).unwrap();
                for (mut from, mut to) in [(&nanny, &supervisor), (&supervisor, &nanny)]
                    .map(|(from, to)| (from.try_clone().unwrap(), to.try_clone().unwrap()))
                {
                    thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                all.lock().unwrap().extend([nanny, supervisor]);
            }
        });
        Self { at, connections }
    }

    /// Cuts all connections. Returns how many there were.
    fn cut(&self) -> usize {
        let connections = std::mem::take(&mut *self.connections.lock().unwrap());
        connections.iter().for_each(|connection| drop(connection.shutdown(Shutdown::Both)));
        connections.len() / 2
    }
}

/// The port at which a cluster's supervisor is called, as its first job was told.
fn line_port(script: &PathBuf) -> u16 {
    let script = fs::read_to_string(script).unwrap();
    let word = script.split_whitespace().find_map(|word| word.strip_prefix("--line=")).unwrap();
    word.parse().unwrap()
}

#[test]
fn a_line_that_is_cut_is_made_again_and_nothing_that_happened_meanwhile_is_lost() {
    let site = Site::new(SYSTEMS[0]);
    let script = site.place.folder().join("jobs/job12/script");
    let network = Network::new(move || line_port(&script));
    let template = site.place.folder().join("own.template");
    // The last of two addresses counts.
    fs::write(&template, format!("exec {{command}} --line=127.0.0.1:{}\n", network.at)).unwrap();
    let done = site.start(&["-n", "1", &format!("--template={}", template.display())]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    for restarts in 1..=3 {
        let pid = i32::try_from(site.engines()[0]["pid"].as_i64().unwrap()).unwrap();
        assert_eq!(network.cut(), 1);
        // This is told on another connection.
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        wait_for("the dead engine to be back", || {
            let engines = site.engines();
            engines.len() == 1 && engines[0]["restarts"] == restarts
        });
    }
    network.cut();
    let id = site.engines()[0]["id"].to_string();
    site.does(&["cluster", "engines", "remove", &id]);
    site.does(&["cluster", "stop"]);
    assert_eq!(site.submitted(), 1);
    site.is_gone();
}

#[test]
fn who_is_no_nanny_is_dropped_with_a_word_and_harms_nobody() {
    let site = Site::new(SYSTEMS[0]);
    let done = site.start(&["-n", "2"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let port = line_port(&site.place.folder().join("jobs/job12/script"));
    let long = vec![b'x'; 4 << 20];
    let proof = format!("hello r-1-1 x {} 0 {}\n", "0".repeat(32), "0".repeat(64));
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &long, b"\xff\xfe\n", proof.as_bytes()] {
        let mut stranger = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let _ = stranger.write_all(garbage);
        // It is greeted, and then there is nothing more to hear.
        let mut heard = Vec::new();
        let _ = stranger.read_to_end(&mut heard);
        assert!(heard.len() < 100, "{}", String::from_utf8_lossy(&heard));
    }
    let logs = fs::read_dir(site.place.profile().log()).unwrap().map(|entry| entry.unwrap().path());
    let logs = logs.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("ipcluster"));
    let log: String = logs.map(|path| fs::read_to_string(path).unwrap()).collect();
    assert_eq!(log.matches("warning: dropped 127.0.0.1:").count(), 4, "{log}");
    assert!(log.contains("does not have this cluster's key"), "{log}");
    assert_eq!(site.does(&["run", "--", "echo", "unharmed"]).stdout, "unharmed\n");
    assert_eq!((site.engines().len(), site.submitted()), (2, 1));
    site.does(&["cluster", "stop"]);
    site.is_gone();
}
