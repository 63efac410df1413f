//! Logs, `remuda doctor`, completions, manual pages and the service manager, on the built program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use remuda_tests::{Finished, Place, finish, wait_for};
use serde_json::Value;

fn place() -> Place {
    Place::new(env!("CARGO_BIN_EXE_remuda"))
}

fn run(place: &Place, words: &[&str]) -> Finished {
    finish(place.command(&[words, &[&place.profile_option()]].concat()))
}

/// What the doctor found: level, check, finding and fix of each.
fn doctor(place: &Place, words: &[&str]) -> (Option<i32>, Vec<[String; 4]>) {
    findings(&run(place, &[&["doctor", "--output=json"], words].concat()))
}

fn findings(done: &Finished) -> (Option<i32>, Vec<[String; 4]>) {
    let all: Vec<Value> =
        serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", done.stdout, done.stderr));
    let text = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
    (done.code, all.iter().map(|one| ["level", "check", "finding", "fix"].map(|key| text(one, key))).collect())
}

/// That one finding of this level and check says this, and the fix that.
#[track_caller]
fn has(found: &(Option<i32>, Vec<[String; 4]>), level: &str, check: &str, says: &str, fix: &str) {
    let is = |[one, other, text, advice]: &&[String; 4]| {
        one == level && other == check && text.contains(says) && advice.contains(fix)
    };
    assert!(found.1.iter().any(|finding| is(&finding)), "no {level} of {check}: {says}; {fix}\n{:#?}", found.1);
    assert_eq!(found.0, Some(i32::from(found.1.iter().any(|[level, ..]| level == "error"))));
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn each_line_of_a_json_log_is_json() {
    let place = place();
    place.profile().create().unwrap();
    fs::write(place.profile().dir().join("ipcontroller_config.py"), "import os\nos.environ['X']\n").unwrap();
    let mut controller = place.controller(&["--log-format=json", "--log-level=debug"]);
    let mut engine = place.start(&["engine", "--slots=1", "--log-format", "json"]);
    wait_for("an engine", || run(&place, &["status"]).stdout.contains("native"));
    // A second one finds its ports taken; that too is JSON.
    let port: Value = serde_json::from_str(&fs::read_to_string(place.profile().engine_file()).unwrap()).unwrap();
    let port = port["registration"].to_string();
    let refused = run(&place, &["controller", "--log-format=json", "--cluster-id=b", "--port", &port]);
    assert_eq!(refused.code, Some(1));
    let said: Vec<Value> = refused.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let error = said.last().unwrap();
    assert!(error["message"].as_str().unwrap().contains("is in use") && error["hint"].is_string(), "{error}");
    engine.signal(Signal::SIGTERM);
    engine.wait();
    controller.signal(Signal::SIGTERM);
    controller.wait();
    for log in [controller.log(), engine.log()] {
        let lines: Vec<Value> =
            log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
        assert!(lines.len() >= 2, "{log}");
        for line in &lines {
            assert!(
                line["timestamp"].is_string() && line["level"].is_string() && line["message"].is_string(),
                "{line}"
            );
        }
    }
    let listening = controller.log().lines().find(|line| line.contains("listening at")).unwrap().to_owned();
    let listening: Value = serde_json::from_str(&listening).unwrap();
    assert_eq!((&listening["hwm"], &listening["level"]), (&1.into(), &"INFO".into()));
}

#[test]
fn a_log_of_bounded_size_keeps_so_many_files_and_no_more() {
    let place = place();
    place.profile().create().unwrap();
    // Each is warned of in a line of its own.
    let lines = "c.IPController.use_threads = True\n".repeat(100);
    fs::write(place.profile().dir().join("ipcontroller_config.py"), lines).unwrap();
    let folder = place.profile().log();
    let logs = || -> Vec<(String, u64)> {
        let entries = fs::read_dir(&folder).unwrap().flatten();
        let logs = entries.filter(|entry| entry.file_name().to_string_lossy().contains(".log"));
        logs.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.metadata().ok()?.len()))).collect()
    };
    let words = ["--log-to-file", "--log-format=json", "--log-max-bytes=2k", "--log-files=3"];
    let mut controller = place.controller(&words);
    controller.signal(Signal::SIGTERM);
    assert_eq!(controller.wait().code(), Some(0));
    assert_eq!(logs().len(), 3, "{:?}", logs());
    for (name, bytes) in logs() {
        let text = fs::read_to_string(folder.join(&name)).unwrap();
        assert!(bytes <= 2048 && bytes > 0, "{name}: {bytes}");
        text.lines().for_each(|line| drop(serde_json::from_str::<Value>(line).unwrap()));
    }
    let newest = logs().into_iter().find(|(name, _)| !name.contains(".log.")).unwrap().0;
    assert!(fs::read_to_string(folder.join(newest)).unwrap().contains("\"ended\""));
    // The next one may remove those of earlier runs, whatever their number.
    let _controller = place.controller(&["--log-to-file", "--clean-logs"]);
    assert_eq!(logs().len(), 1, "{:?}", logs());
}

#[test]
fn a_healthy_cluster_is_all_right() {
    let place = place();
    let database = place.folder().join("records.db");
    fs::create_dir_all(place.profile().dir()).unwrap();
    let toml = format!("[controller]\ndb = \"{}\"\n[cluster]\nn = 1\n", database.display());
    fs::write(place.profile().dir().join("remuda.toml"), toml).unwrap();
    let before = doctor(&place, &[]);
    assert_eq!(before.0, Some(0), "{:#?}", before.1);
    has(&before, "ok", "controller", "none runs", "");

    let _controller = place.controller(&[]);
    let _engine = place.engine();
    wait_for("an engine", || run(&place, &["status"]).stdout.contains("native"));
    let ran = finish(place.command(&["run", &place.profile_option(), "--", "true"]));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let found = doctor(&place, &[]);
    assert_eq!(found.0, Some(0), "{:#?}", found.1);
    for [level, _, finding, fix] in &found.1 {
        assert_eq!((&**level, &**fix), ("ok", ""), "{finding}");
    }
    has(&found, "ok", "controller", "with 1 engines", "");
    has(&found, "ok", "clock", "1 engines by their records", "");
    has(&found, "ok", "database", "records.db` opens", "");
    let text = run(&place, &["doctor"]);
    assert_eq!(text.stdout.lines().count(), found.1.len(), "{}", text.stdout);
    assert!(text.stdout.lines().all(|line| line.starts_with("ok ")), "{}", text.stdout);
}

#[test]
fn each_fault_is_found_with_its_fix() {
    let place = place();
    let profile = place.profile();
    let mut controller = place.controller(&["--reuse"]);

    mode(&profile.client_file(), 0o644);
    has(&doctor(&place, &[]), "error", "connection files", "mode 644", "chmod 600");
    mode(&profile.client_file(), 0o600);
    mode(&profile.security(), 0o755);
    has(&doctor(&place, &[]), "error", "profile", "mode 755", "chmod 700");
    mode(&profile.security(), 0o700);

    // It is there and does not answer.
    controller.signal(Signal::SIGSTOP);
    let found = doctor(&place, &["--timeout=1"]);
    controller.signal(Signal::SIGCONT);
    has(&found, "error", "controller", "ipcontroller-client.json", "see its log");

    // The files stay, and nobody listens.
    controller.signal(Signal::SIGTERM);
    controller.wait();
    has(&doctor(&place, &[]), "error", "connection files", "nothing listens", "remuda controller");
    fs::write(profile.dir().join("remuda.toml"), "[controller]\nreuse = true\n").unwrap();
    let kept = doctor(&place, &[]);
    // (Its ports may be another test's by now.)
    let is_wrong = |[level, check, ..]: &[String; 4]| level == "error" && check != "ports";
    assert!(!kept.1.iter().any(is_wrong), "{:#?}", kept.1);
    has(&kept, "warning", "connection files", "kept for the next start", "remuda controller");
    fs::write(profile.engine_file(), "{").unwrap();
    has(&doctor(&place, &[]), "error", "connection files", "ipcontroller-engine.json", "remove it");
    fs::remove_file(profile.engine_file()).unwrap();
    has(&doctor(&place, &[]), "error", "connection files", "no connection file", "writes both");
    fs::remove_file(profile.client_file()).unwrap();

    // Another process has the port; a name is misspelt; a key is open to others.
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    fs::write(profile.dir().join("remuda.toml"), format!("[controller]\nport = {port}\nhmw = 2\nkey = 'k'\n")).unwrap();
    mode(&profile.dir().join("remuda.toml"), 0o644);
    let found = doctor(&place, &[]);
    has(&found, "error", "ports", &format!("port {port} at 127.0.0.1"), "another with `ports`");
    has(&found, "error", "configuration", "is `hwm` meant?", "");
    has(&found, "error", "configuration", "remuda.toml` (mode 644)", "chmod 600");
    fs::remove_file(profile.dir().join("remuda.toml")).unwrap();

    newer_database(&place, &profile.dir().join("tasks.db"));
    has(&doctor(&place, &[]), "error", "database", "schema 99", "version of remuda that wrote it");
    fs::write(profile.dir().join("tasks.db"), "no database at all, but as long as one might be\n".repeat(100)).unwrap();
    mode(&profile.dir().join("tasks.db"), 0o640);
    let found = doctor(&place, &[]);
    has(&found, "error", "database", "damaged", "docs/records.md");
    has(&found, "error", "database", "mode 640", "chmod 600");
    fs::remove_file(profile.dir().join("tasks.db")).unwrap();

    let program = env!("CARGO_BIN_EXE_remuda");
    let mut limited = Command::new("sh");
    let line = format!("ulimit -n 300; exec {program} doctor --output=json --engines=100 {}", place.profile_option());
    limited.args(["-c", &line]).env("IPYTHONDIR", place.folder().join("ipython")).current_dir(place.folder());
    has(&findings(&finish(limited)), "error", "open files", "100 are wanted", "ulimit -Hn 1056");

    if nix::unistd::geteuid().is_root() {
        eprintln!("skipped: the rest, since nothing is read-only for root");
        return;
    }
    mode(profile.dir(), 0o555);
    let found = doctor(&place, &[]);
    mode(profile.dir(), 0o755);
    has(&found, "error", "profile", "nothing can be written", "chmod u+w");
}

/// Makes a task database of a schema that is newer than any.
fn newer_database(place: &Place, path: &Path) {
    let mut controller = place.controller(&[&format!("--db={}", path.display())]);
    controller.signal(Signal::SIGTERM);
    controller.wait();
    // The number of the schema is in bytes 60 to 63 of the file.
    let mut bytes = fs::read(path).unwrap();
    bytes[60..64].copy_from_slice(&99_u32.to_be_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_folder_that_cannot_be_made_is_found() {
    if nix::unistd::geteuid().is_root() {
        // For root too there is nothing under a file.
        let place = place();
        fs::write(place.folder().join("file"), "").unwrap();
        let dir = format!("--profile-dir={}/file/profile", place.folder().display());
        let found = findings(&finish(place.command(&["doctor", "--output=json", &dir])));
        has(&found, "error", "profile", "cannot be made", "--profile-dir");
    }
}

#[test]
fn shells_and_manual_pages_have_every_command() {
    let place = place();
    let help = finish(place.command(&["--help"])).stdout;
    let commands =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.starts_with("Options"));
    let commands: Vec<&str> = commands
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() > 10 && commands.contains(&"doctor"), "{commands:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let done = finish(place.command(&["completions", shell]));
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        for command in &commands {
            assert!(done.stdout.contains(command), "{shell}: {command}");
        }
    }
    let script = place.folder().join("remuda.bash");
    fs::write(&script, finish(place.command(&["completions", "bash"])).stdout).unwrap();
    assert!(Command::new("bash").arg("-n").arg(&script).status().unwrap().success());

    let main = finish(place.command(&["man"]));
    assert!(main.code == Some(0) && main.stdout.contains(".TH remuda 1"), "{}", main.stdout);
    assert_eq!(finish(place.command(&["man", "pages"])).code, Some(0));
    let pages = place.folder().join("pages");
    for command in commands.iter().filter(|command| **command != "help") {
        let page = fs::read_to_string(pages.join(format!("remuda-{command}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{command}");
        assert!(main.stdout.contains(&format!("remuda\\-{command}")), "{command}");
    }
    let nowhere = finish(place.command(&["man", "/proc/nowhere"]));
    assert_eq!(nowhere.code, Some(1));
    assert!(nowhere.stderr.contains("/proc/nowhere"), "{}", nowhere.stderr);
}

#[test]
fn a_service_manager_is_told_when_the_controller_serves_and_when_it_ends() {
    let place = place();
    let path = place.folder().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(remuda_tests::DEADLINE)).unwrap();
    let mut command = place.command(&["controller", &place.profile_option()]);
    let mut child = command.env("NOTIFY_SOCKET", &path).spawn().unwrap();
    let said = || {
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert_eq!(said(), "READY=1");
    assert!(place.profile().client_file().exists() && place.profile().engine_file().exists());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(said(), "STOPPING=1");
    assert!(child.wait().unwrap().success());
}

#[test]
fn systemd_takes_the_unit() {
    let place = place();
    let unit =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/remuda-controller@.service")).unwrap();
    let path = place.folder().join("remuda-controller@durable.service");
    fs::write(&path, unit).unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.args(["--user", "--man=no", "verify"]).arg(&path).env("XDG_RUNTIME_DIR", place.folder());
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("skipped: this machine has no systemd-analyze");
        return;
    }
    let done = finish(verify);
    assert_eq!((done.code, &*done.stderr), (Some(0), ""), "{}", done.stdout);
}
