//! Nannies over SSH, on a real server of this machine. A small program stands for the nanny: it says what it hears.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout};

use nix::unistd::Pid;
use remuda_cluster::ProcessId;
use remuda_cluster::launch::ssh::{HostSpec, Prepared, Ssh, SshError, Stopped, Tunnels};
use remuda_tests::sshd::{ADDRESSES, Sshd};
use remuda_tests::wait_for;

const NANNY: &str = r#"#!/bin/sh
echo "pid $$"
echo "called $*"
while read -r word; do
    echo "heard $word"
    [ "$word" = stop ] && exit 0
    [ "$word" = fail ] && { echo "out of luck" >&2; exit 1; }
done
"#;

struct Site {
    sshd: Sshd,
    ssh: Ssh,
}

impl Site {
    /// `None`: there is no server to be had here, and it was said why.
    fn new() -> Option<Self> {
        let sshd = Sshd::start()?;
        let program = sshd.folder().join("it is a nanny");
        fs::write(&program, NANNY).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let ssh = Ssh { remote_program: vec![program.display().to_string()], ..with_key(&sshd, "key", "known_hosts") };
        Some(Self { sshd, ssh })
    }

    fn host(&self, at: usize) -> HostSpec {
        self.sshd.host(ADDRESSES[at]).parse().unwrap()
    }

    fn nanny(&self, host: &HostSpec, prepared: &Prepared) -> Nanny {
        let arguments = ["-n", "2", "--tag=it's $HOME", ""].map(str::to_owned);
        let mut child = self.ssh.nanny(host, prepared, &arguments).spawn().unwrap();
        let (to, from) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Nanny { child, to, from }
    }
}

fn with_key(sshd: &Sshd, key: &str, known_hosts: &str) -> Ssh {
    Ssh { program: sshd.client(key, known_hosts).into_iter().map(Into::into).collect(), ..Ssh::default() }
}

struct Nanny {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Nanny {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line.trim_end_matches('\n').to_owned()
    }

    fn tell(&mut self, word: &str) {
        writeln!(self.to.as_mut().unwrap(), "{word}").unwrap();
    }

    fn pid(&mut self) -> Pid {
        Pid::from_raw(self.line().strip_prefix("pid ").unwrap().parse().unwrap())
    }

    /// What is wrong, at its end.
    fn failure(mut self, site: &Site, host: &HostSpec) -> Option<SshError> {
        drop(self.to.take());
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        site.ssh.failure(host, self.child.wait().unwrap(), &said)
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_nanny_hears_and_is_heard_and_what_it_was_given_goes_with_it() {
    let Some(site) = Site::new() else { return };
    for at in 0..ADDRESSES.len() {
        let host = site.host(at);
        let folder = site.ssh.prepare(&host, "{\"key\": \"secret\"}").unwrap();
        let path = Path::new(&folder);
        assert!(path.starts_with(site.sshd.temporary()), "{folder}");
        let file = path.join("ipcontroller-engine.json");
        assert_eq!((mode(path), mode(&file)), (0o700, 0o600));
        assert_eq!(fs::read_to_string(&file).unwrap(), "{\"key\": \"secret\"}");
        let mut nanny = site.nanny(&host, &Prepared { folder: folder.clone(), tunnels: None });
        nanny.pid();
        assert_eq!(nanny.line(), format!("called nanny --file={} -n 2 --tag=it's $HOME ", file.display()));
        nanny.tell("{\"word\": \"a b\"}");
        assert_eq!(nanny.line(), "heard {\"word\": \"a b\"}");
        assert!(path.exists());
        let failure = if at == 0 {
            nanny.tell("stop");
            nanny.failure(&site, &host)
        } else {
            nanny.tell("fail");
            nanny.failure(&site, &host)
        };
        match failure {
            None => assert_eq!(at, 0),
            Some(SshError::Remote { said, .. }) => assert_eq!((at, &*said), (1, "out of luck")),
            Some(other) => panic!("{other}"),
        }
        assert!(!path.exists(), "it goes before the connection does");
    }
}

#[test]
fn what_is_wrong_is_told_in_the_words_of_ssh() {
    let Some(site) = Site::new() else { return };
    let host = site.host(0);
    let error = |key, known| with_key(&site.sshd, key, known).prepare(&host, "").unwrap_err().to_string();
    let denied = error("other_key", "known_hosts");
    assert!(denied.starts_with("cannot reach ") && denied.contains("Permission denied (publickey)"), "{denied}");
    let changed = error("key", "wrong_known_hosts");
    assert!(changed.contains("Host key verification failed"), "{changed}");
    let nowhere: HostSpec = "127.0.0.3:1".parse().unwrap();
    let refused = site.ssh.prepare(&nowhere, "").unwrap_err().to_string();
    assert!(refused.contains("Connection refused"), "{refused}");

    let folder = site.ssh.prepare(&host, "").unwrap();
    let other =
        Site { ssh: Ssh { remote_program: vec!["remuda-nowhere".into()], ..site.ssh.clone() }, sshd: site.sshd };
    let missing = other.nanny(&host, &Prepared { folder: folder.clone(), tunnels: None });
    let error = missing.failure(&other, &host).unwrap();
    assert!(
        matches!(&error, SshError::NoProgram { program, said, .. } if program == "remuda-nowhere" && said.contains("not found"))
    );
    assert!(!Path::new(&folder).exists());
    let folder = other.ssh.prepare(&host, "").unwrap();
    other.ssh.discard(&host, &folder).unwrap();
    assert!(!Path::new(&folder).exists());
}

#[test]
fn a_nanny_ends_with_its_connection_and_one_that_is_left_is_ended_by_its_pid() {
    let Some(site) = Site::new() else { return };
    let host = site.host(0);
    for how in ["the connection is cut", "its pid is known"] {
        let folder = site.ssh.prepare(&host, "").unwrap();
        let mut nanny = site.nanny(&host, &Prepared { folder: folder.clone(), tunnels: None });
        let process = ProcessId::of(nanny.pid());
        assert!(process.runs());
        if how == "its pid is known" {
            assert_eq!(site.ssh.stop(&host, process).unwrap(), Stopped::Ended);
            assert_eq!(site.ssh.stop(&host, process).unwrap(), Stopped::Gone);
        }
        nanny.child.kill().unwrap();
        nanny.child.wait().unwrap();
        wait_for(how, || !process.runs() && !Path::new(&folder).exists());
    }
}

#[test]
fn a_tunnel_leads_to_the_controller() {
    let Some(site) = Site::new() else { return };
    let host = site.host(1);
    let controller = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = controller.local_addr().unwrap().port();
    let file = serde_json::json!({
        "interface": "tcp://127.0.0.1", "registration": port, "control": port, "mux": port, "task": port, "iopub": port,
        "hb_ping": port, "hb_pong": port, "broadcast": [port], "key": "k",
    });
    let file = serde_json::from_value(file).unwrap();
    // Another process may have one of the ports: then ssh says so, and other ports are taken.
    let (tunnels, there, mut nanny) = (u64::from(std::process::id())..)
        .step_by(7)
        .find_map(|seed| {
            let (tunnels, there) = Tunnels::new(&file, seed).unwrap();
            let folder = site.ssh.prepare(&host, &serde_json::to_string(&there).unwrap()).unwrap();
            let mut nanny = site.nanny(&host, &Prepared { folder, tunnels: Some(tunnels.clone()) });
            if nanny.line().starts_with("pid ") {
                return Some((tunnels, there, nanny));
            }
            let failure = nanny.failure(&site, &host).unwrap();
            assert!(matches!(failure, SshError::Forward { .. }), "{failure}");
            None
        })
        .unwrap();
    assert_eq!(tunnels.ports(), [(there.mux, port)]);

    let mut engine = TcpStream::connect(("127.0.0.1", there.mux)).unwrap();
    let (mut accepted, _) = controller.accept().unwrap();
    engine.write_all(b"ping").unwrap();
    let mut heard = [0; 4];
    accepted.read_exact(&mut heard).unwrap();
    accepted.write_all(b"pong").unwrap();
    engine.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"pong");

    // The same ports cannot be had twice.
    let folder = site.ssh.prepare(&host, "{}").unwrap();
    let second = site.nanny(&host, &Prepared { folder: folder.clone(), tunnels: Some(tunnels) });
    let failure = second.failure(&site, &host).unwrap();
    assert!(matches!(failure, SshError::Forward { .. }), "{failure}");
    site.ssh.discard(&host, &folder).unwrap();

    // ssh ends when the last connection through its tunnels has.
    drop((engine, accepted));
    nanny.line();
    nanny.tell("stop");
    assert!(nanny.failure(&site, &host).is_none());
    wait_for("the end of the tunnel", || TcpStream::connect(("127.0.0.1", there.mux)).is_err());
}
