//! `remuda controller`, `engine`, `cluster` and `status` as processes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use remuda_tests::{Place, finish, processes_with, wait_for};

fn place() -> Place {
    Place::new(env!("CARGO_BIN_EXE_remuda"))
}

#[test]
fn a_signal_ends_it_well_and_removes_the_connection_files() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let place = place();
        let mut controller = place.controller(&[]);
        let profile = place.profile();
        for file in [profile.client_file(), profile.engine_file()] {
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        controller.signal(signal);
        assert_eq!(controller.wait().code(), Some(0));
        assert!(!profile.client_file().exists() && !profile.engine_file().exists());
    }
}

#[test]
fn reused_files_keep_ports_and_key_and_stay() {
    let place = place();
    let read = |place: &Place| fs::read_to_string(place.profile().client_file()).unwrap();
    let mut controller = place.controller(&["--reuse"]);
    let before = read(&place);
    for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGTERM] {
        controller.signal(signal);
        controller.wait();
        controller = place.controller(&["--reuse"]);
        assert_eq!(read(&place), before);
        wait_for("an answer", || {
            finish(place.command(&["status", &place.profile_option(), "--timeout", "1"])).code == Some(0)
        });
    }
}

#[test]
fn ports_are_taken_in_the_order_given() {
    let place = place();
    // Free at this moment; another process could take them in between, which the pool then shows as an error.
    let free: Vec<u16> = {
        let held: Vec<_> = (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        held.iter().map(|socket| socket.local_addr().unwrap().port()).collect()
    };
    let pool = format!("--ports={},{}", free[1], free[2]);
    let _controller = place.controller(&[&format!("--port={}", free[0]), &pool]);
    let file: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(place.profile().engine_file()).unwrap()).unwrap();
    assert_eq!(
        (&file["registration"], &file["control"], &file["mux"]),
        (&free[0].into(), &free[1].into(), &free[2].into())
    );
}

#[test]
fn a_port_in_use_is_named() {
    let place = place();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let done = finish(place.command(&["controller", &place.profile_option(), "--port", &port]));
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains(&port) && done.stderr.to_lowercase().contains("in use"), "{}", done.stderr);
    assert!(!place.profile().client_file().exists());
}

#[test]
fn an_engine_without_a_controller_says_what_to_do() {
    let place = place();
    let engine = |place: &Place, more: &[&str]| {
        finish(place.command(&[&["engine", &place.profile_option(), "--timeout", "2"], more].concat()))
    };
    let done = engine(&place, &["--wait-for-file", "0.1"]);
    assert_eq!(done.code, Some(1));
    assert!(
        done.stderr.contains("ipcontroller-engine.json") && done.stderr.contains("remuda controller"),
        "{}",
        done.stderr
    );

    let mut controller = place.controller(&[]);
    controller.signal(Signal::SIGKILL);
    controller.wait();
    let done = engine(&place, &[]);
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("nothing answers") && done.stderr.contains("hint:"), "{}", done.stderr);
    let done = finish(place.command(&["status", &place.profile_option()]));
    assert_eq!(done.code, Some(1));
    assert!(
        done.stderr.contains("no controller listens") && done.stderr.contains("ipcontroller-client.json"),
        "{}",
        done.stderr
    );
}

#[test]
fn a_wrong_key_is_an_error_within_seconds_that_names_the_file() {
    let place = place();
    let _controller = place.controller(&[]);
    for file in [place.profile().client_file(), place.profile().engine_file()] {
        let text = fs::read_to_string(&file).unwrap();
        let mut connection: serde_json::Value = serde_json::from_str(&text).unwrap();
        connection["key"] = "not-the-key".into();
        fs::write(&file, connection.to_string()).unwrap();
    }
    let done = finish(place.command(&["status", &place.profile_option(), "--timeout", "1"]));
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("key") && done.stderr.contains("ipcontroller-client.json"), "{}", done.stderr);
    let done = finish(place.command(&["engine", &place.profile_option(), "--timeout", "1"]));
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("key"), "{}", done.stderr);
}

#[test]
fn a_file_that_is_none_is_named() {
    let place = place();
    place.profile().create().unwrap();
    fs::write(place.profile().client_file(), "{").unwrap();
    let done = finish(place.command(&["status", &place.profile_option()]));
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("ipcontroller-client.json"), "{}", done.stderr);
}

#[test]
fn a_cluster_starts_works_and_stops_without_a_trace() {
    let place = place();
    let profile = place.profile_option();
    let mark = place.profile().dir().display().to_string();
    let started =
        finish(place.command(&["cluster", "start", "-n", "2", "--daemonize", &profile, "--", "--ping", "100"]));
    assert_eq!(started.code, Some(0), "{}", started.stderr);
    let again = finish(place.command(&["cluster", "start", "-n", "2", "--daemonize", &profile]));
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("remuda cluster stop"), "{}", again.stderr);
    let status = finish(place.command(&["status", &profile]));
    assert_eq!(status.stdout.matches("native").count(), 2, "{}", status.stdout);
    let done = finish(place.command(&["map", &profile, "-k", "--", "echo", ":::", "a", "b"]));
    assert_eq!((done.code, &*done.stdout), (Some(0), "a\nb\n"), "{}", done.stderr);
    let stopped = finish(place.command(&["cluster", "stop", &profile]));
    assert_eq!(stopped.code, Some(0), "{}", stopped.stderr);
    assert_eq!(processes_with(&mark), [0; 0]);
    assert!(!place.profile().client_file().exists());
    let nothing = finish(place.command(&["cluster", "stop", &profile]));
    assert_eq!(nothing.code, Some(1));
}

#[test]
fn a_cluster_in_the_foreground_ends_with_its_command() {
    let place = place();
    let mark = place.profile().dir().display().to_string();
    for stop in ["signal", "command", "kill"] {
        let mut cluster = place.start(&["cluster", "start", "-n", "2", "--timeout", "50"]);
        wait_for("the engines", || {
            assert!(!cluster.ended(), "{}", cluster.log());
            cluster.log().contains("2 engines are ready")
        });
        match stop {
            "signal" => cluster.signal(Signal::SIGINT),
            "command" => {
                let stopped = finish(place.command(&["cluster", "stop", &place.profile_option()]));
                assert_eq!(stopped.code, Some(0), "{}", stopped.stderr);
            }
            _ => cluster.signal(Signal::SIGKILL),
        }
        let status = cluster.wait();
        assert!(status.success() || stop == "kill", "{stop}: {status}: {}", cluster.log());
        wait_for("the end of all processes", || processes_with(&mark).is_empty());
    }
}

#[test]
fn a_place_where_no_database_can_be_written_is_named_with_what_to_do() {
    let place = place();
    let folder = |name: &str| place.folder().join(name);
    fs::write(folder("file"), "").unwrap();
    fs::create_dir(folder("empty")).unwrap();
    fs::create_dir(folder("used")).unwrap();
    let refused = |location: &str, command: &dyn Fn(&[&str]) -> Command| {
        let location = format!("--sqlite-location={}", folder(location).display());
        let done = finish(command(&["controller", &place.profile_option(), "--db=sqlite", &location]));
        assert_eq!(done.code, Some(1), "{location}: {}", done.stderr);
        for said in [folder("").to_str().unwrap(), "writable", "--sqlite-filename", "--db=memory"] {
            assert!(done.stderr.contains(said), "{location}: {}", done.stderr);
        }
        assert!(!place.profile().client_file().exists());
    };
    for location in ["file", "missing"] {
        refused(location, &|args| place.command(args));
    }
    let mut controller = place.controller(&["--db=sqlite", &format!("--sqlite-location={}", folder("used").display())]);
    controller.signal(Signal::SIGTERM);
    assert!(controller.wait().success());
    let database = folder("used").join("tasks.db");
    let before = fs::read(&database).unwrap();
    // Root may write everywhere, but not in a user namespace where it is nobody.
    let is_root = nix::unistd::geteuid().is_root();
    let as_nobody = |args: &[&str]| if is_root { in_user_namespace(&place.command(args)) } else { place.command(args) };
    if is_root && finish(in_user_namespace(&Command::new("true"))).code != Some(0) {
        return;
    }
    for name in ["empty", "used"] {
        fs::set_permissions(folder(name), fs::Permissions::from_mode(0o500)).unwrap();
        refused(name, &as_nobody);
    }
    fs::set_permissions(&database, fs::Permissions::from_mode(0o400)).unwrap();
    refused("used", &as_nobody);
    let list = finish(as_nobody(&["task", "list", "--db", database.to_str().unwrap()]));
    assert_eq!(list.code, Some(0), "reading needs no more than to read: {}", list.stderr);
    assert_eq!(fs::read(&database).unwrap(), before);
    for name in ["empty", "used"] {
        fs::set_permissions(folder(name), fs::Permissions::from_mode(0o700)).unwrap();
    }
}

/// The same, without root's rights.
fn in_user_namespace(command: &Command) -> Command {
    let mut inside = Command::new("unshare");
    inside.arg("--user").arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    command.get_current_dir().map(|folder| inside.current_dir(folder));
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => inside.env(name, value),
            None => inside.env_remove(name),
        };
    }
    inside
}
