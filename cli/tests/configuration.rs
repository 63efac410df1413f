//! Configuration from all that gives it, and the names of ipyparallel's programs, on the built program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;
use remuda_net::Profile;
use remuda_tests::{Finished, Place, finish, processes_with, wait_for};
use serde_json::Value;

fn place() -> Place {
    Place::new(env!("CARGO_BIN_EXE_remuda"))
}

/// What `--show-config` prints for the controller.
fn shown(place: &Place, words: &[&str], variables: &[(&str, &str)]) -> Finished {
    let mut command = place.command(&[&["controller", &place.profile_option(), "--show-config"], words].concat());
    command.envs(variables.iter().copied());
    finish(command)
}

fn write(place: &Place, name: &str, text: &str) {
    place.profile().create().unwrap();
    fs::write(place.profile().dir().join(name), text).unwrap();
}

fn file(place: &Place, role: &str) -> Value {
    let profile = place.profile();
    let path = if role == "client" { profile.client_file() } else { profile.engine_file() };
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn what_ranks_higher_counts_and_everything_tells_where_it_is_from() {
    let place = place();
    write(
        &place,
        "ipcontroller_config.py",
        "c.TaskScheduler.hwm = 2\nc.HeartMonitor.period = 150\nc.IPController.location = 'py'\n",
    );
    write(
        &place,
        "ipcontroller_config.json",
        r#"{"IPController": {"location": "json"}, "Session": {"packer": "msgpack"}}"#,
    );
    write(&place, "remuda.toml", "[controller]\nlocation = 'toml'\nhwm = 4\nreuse = true\n[engine]\nlabel = ['x']\n");
    let done = shown(&place, &["--TaskScheduler.hwm=5"], &[("IPP_SESSION_KEY", "hidden-key")]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let lines: Vec<String> =
        done.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for (option, origin) in [
        ("ping 150 ", "line 2"),
        ("location json ", "ipcontroller_config.json"),
        ("location toml ", "remuda.toml"),
        ("packer msgpack ", "Session.packer"),
        ("key (secret) ", "IPP_SESSION_KEY"),
        ("hwm 5 ", "command line"),
    ] {
        assert!(
            lines.iter().any(|line| line.starts_with(option) && line.contains(origin)),
            "{option}\n{}",
            done.stdout
        );
    }
    assert!(!done.stdout.contains("hidden-key"));

    let mut controller = place.controller(&["--TaskScheduler.hwm=5"]);
    let client = file(&place, "client");
    assert_eq!((&client["location"], &client["pack"]), (&"toml".into(), &"msgpack".into()));
    wait_for("the log", || controller.log().contains("hwm=5"));
    controller.signal(Signal::SIGTERM);
    assert_eq!(controller.wait().code(), Some(0));
    assert!(place.profile().client_file().exists(), "`reuse` of remuda.toml was not heeded");
}

#[test]
fn a_line_that_needs_python_is_named_and_the_rest_counts() {
    let place = place();
    write(
        &place,
        "ipcontroller_config.py",
        "c = get_config()\nimport os\nc.IPController.location = os.environ['HOST']\nc.HeartMonitor.perod = 3\n\
         c.IPController.use_threads = True\nc.TaskScheduler.scheme_name = 'lru'\n",
    );
    let controller = place.controller(&[]);
    assert_eq!(file(&place, "client")["task_scheme"], "lru");
    let log = controller.log();
    for part in [
        "line 3: `c.IPController.location = os.environ['HOST']` needs Python to run",
        "is `c.HeartMonitor.period` meant?",
        "line 5: `c.IPController.use_threads = True` has no effect",
    ] {
        assert!(log.contains(part), "{part}\n{log}");
    }
}

#[test]
fn what_is_wrong_in_a_file_is_an_error_that_names_the_line() {
    for (name, text, part) in [
        ("ipcontroller_config.py", "\nc.TaskScheduler.scheme_name = 'fastest'\n", "line 2"),
        ("ipcontroller_config.py", "c.IPController.ip = ['a', 'b']\n", "one value"),
        ("ipcontroller_config.json", "{", "ipcontroller_config.json"),
        ("remuda.toml", "[controller]\npong = 3\n", "is `ping` meant?"),
        ("remuda.toml", "[contoller]\n", "[controller]"),
        ("remuda.toml", "hwm", "remuda.toml"),
        ("remuda.toml", "[controller]\nprofile = 'x'\n", "cannot be set in a file"),
    ] {
        let place = place();
        write(&place, name, text);
        let done = finish(place.command(&["controller", &place.profile_option()]));
        assert_eq!(done.code, Some(2), "{name}: {text}: {}", done.stderr);
        assert!(done.stderr.contains(name) && done.stderr.contains(part), "{text}: {}", done.stderr);
    }
    let place = place();
    let done = shown(&place, &["--config=/nowhere/c.py"], &[]);
    assert_eq!(done.code, Some(2));
    let done = shown(&place, &["--HeartMonitor.perod=3"], &[]);
    assert_eq!(done.code, Some(2));
    assert!(done.stderr.contains("--HeartMonitor.period"), "{}", done.stderr);
}

#[test]
fn an_extra_file_and_options_without_a_meaning_are_taken() {
    let place = place();
    place.profile().create().unwrap();
    let extra = place.folder().join("extra.py");
    fs::write(&extra, "c.IPController.engine_ssh_server = 'gate'\n").unwrap();
    let extra = format!("--config={}", extra.display());
    let controller =
        place.controller(&[&extra, "--usethreads", "--log-url=tcp://127.0.0.1:1", "--ssh=front", "--Session.key=b'k'"]);
    let (client, engine) = (file(&place, "client"), file(&place, "engine"));
    assert_eq!((&client["ssh"], &engine["ssh"], &client["key"]), (&"front".into(), &"gate".into(), &"k".into()));
    assert!(controller.log().contains("`--usethreads` has no effect"), "{}", controller.log());
}

#[test]
fn engines_and_clients_have_interfaces_of_their_own_and_the_depth_is_honoured() {
    let place = place();
    let _controller = place.controller(&[
        "--client-transport=ipc",
        "--engine-ip=127.0.0.1",
        "--IPController.broadcast_scheduler_depth=3",
    ]);
    let (client, engine) = (file(&place, "client"), file(&place, "engine"));
    assert_eq!(engine["interface"], "tcp://127.0.0.1");
    assert!(client["interface"].as_str().unwrap().starts_with("ipc:///"), "{client}");
    assert_eq!(client["registration"], engine["registration"]);
    let ports: std::collections::BTreeSet<u64> =
        engine["broadcast"].as_array().unwrap().iter().map(|port| port.as_u64().unwrap()).collect();
    assert_eq!(ports.len(), 8);
    let _engine = place.engine();
    wait_for("an engine", || {
        let status = finish(place.command(&["status", &place.profile_option()]));
        assert_eq!(status.code, Some(0), "{}", status.stderr);
        status.stdout.contains("native")
    });
}

#[test]
fn sockets_of_the_file_system_serve_all_and_leave_nothing() {
    let place = place();
    let mut controller = place.controller(&["--transport", "ipc"]);
    let _engine = place.engine();
    wait_for("an engine", || finish(place.command(&["status", &place.profile_option()])).stdout.contains("native"));
    let done = finish(place.command(&["map", &place.profile_option(), "-k", "--", "echo", ":::", "a", "b"]));
    assert_eq!((done.code, &*done.stdout), (Some(0), "a\nb\n"), "{}", done.stderr);
    controller.signal(Signal::SIGTERM);
    assert_eq!(controller.wait().code(), Some(0));
    assert_eq!(fs::read_dir(place.profile().security()).unwrap().count(), 0);
}

#[test]
fn half_a_pair_of_files_to_be_used_again_is_replaced_by_a_whole_one() {
    let place = place();
    let mut controller = place.controller(&["--reuse"]);
    controller.signal(Signal::SIGTERM);
    controller.wait();
    let before = file(&place, "client");
    fs::remove_file(place.profile().engine_file()).unwrap();
    let mut controller = place.controller(&["--reuse"]);
    assert_ne!(file(&place, "client")["key"], before["key"]);
    assert_eq!(file(&place, "client")["key"], file(&place, "engine")["key"]);

    // What the files say counts over another transport; what they cannot say is written anew.
    controller.signal(Signal::SIGTERM);
    controller.wait();
    let before = file(&place, "client");
    let _controller = place.controller(&["--reuse", "--transport=ipc", "--scheme=lru"]);
    wait_for("the new scheme", || file(&place, "client")["task_scheme"] == "lru");
    let after = file(&place, "client");
    for key in ["interface", "key", "registration", "mux"] {
        assert_eq!(after[key], before[key], "{key}");
    }
}

#[test]
fn curve_is_refused_with_what_to_do_or_keeps_strangers_out() {
    let place = place();
    if !remuda_net::curve::is_available() {
        let done = finish(place.command(&["controller", &place.profile_option(), "--enable-curve"]));
        assert_eq!(done.code, Some(2));
        assert!(done.stderr.contains("docs/configuration.md"), "{}", done.stderr);
        eprintln!("skipped: the rest, since this libzmq has no CURVE");
        return;
    }
    let _controller = place.controller(&["--enable-curve"]);
    let (client, engine) = (file(&place, "client"), file(&place, "engine"));
    assert_eq!((&client["key"], &engine["curve_serverkey"]), (&"".into(), &client["curve_serverkey"]));
    let _engine = place.engine();
    wait_for("an engine", || finish(place.command(&["status", &place.profile_option()])).stdout.contains("native"));
    let other = remuda_net::curve::KeyPair::generate().unwrap().public_text();
    for (path, mut content) in [(place.profile().client_file(), client), (place.profile().engine_file(), engine)] {
        content["curve_serverkey"] = other.clone().into();
        fs::write(path, content.to_string()).unwrap();
    }
    for command in ["status", "engine"] {
        let done = finish(place.command(&[command, &place.profile_option(), "--timeout", "1"]));
        assert_eq!(done.code, Some(1), "{command}: {}", done.stderr);
    }
}

/// A link to the program under another name.
fn linked(place: &Place, name: &str) -> Command {
    let link = place.folder().join(name);
    if !link.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_remuda"), &link).unwrap();
    }
    let mut command = Command::new(link);
    command.env("IPYTHONDIR", place.folder().join("ipython")).current_dir(place.folder());
    for variable in ["IPP_PROFILE_DIR", "IPP_CLUSTER_ID", "IPP_SESSION_KEY", "IPP_CONNECTION_INFO"] {
        command.env_remove(variable);
    }
    command
}

#[test]
fn as_ipcluster_it_has_the_codes_and_columns_that_scripts_rely_on() {
    let place = place();
    let profile = place.profile_option();
    let ipcluster = |words: &[&str]| {
        let mut command = linked(&place, "ipcluster");
        command.args(words).arg(&profile);
        finish(command)
    };
    let stop = ipcluster(&["stop"]);
    assert_eq!(stop.code, Some(11), "{}", stop.stderr);
    let start = ["start", "-n", "1", "--engines=native", "--daemonize", "--cluster-id=a", "--debug"];
    let started = ipcluster(&[&start[..], &["--Cluster.controller_args=['--ping=100']"]].concat());
    assert_eq!(started.code, Some(0), "{}", started.stderr);
    assert_eq!(ipcluster(&start).code, Some(10));

    let more = ipcluster(&["engines", "-n", "1", "--engines", "native", "--daemonize", "--cluster-id=a"]);
    assert_eq!(more.code, Some(0), "{}", more.stderr);
    let list = ipcluster(&["list"]);
    let row: Vec<&str> = list.stdout.lines().nth(1).unwrap().split_whitespace().skip(1).collect();
    assert_eq!(row, ["a", "True", "2", "Local"], "{}", list.stdout);
    let json: Value = serde_json::from_str(&ipcluster(&["list", "-o", "json"]).stdout).unwrap();
    assert_eq!(json[0]["cluster"]["cluster_id"], "a");
    assert_eq!(json[0]["engines"]["sets"]["remuda"]["n"], 2);

    let clean = ipcluster(&["clean"]);
    assert_eq!(clean.code, Some(1), "files of what runs were removed: {}", clean.stderr);
    let stopped = ipcluster(&["stop", "a"]);
    assert_eq!(stopped.code, Some(0), "{}", stopped.stderr);
    assert_eq!(processes_with(&place.profile().dir().display().to_string()), [0; 0]);
    assert_eq!(ipcluster(&["clean"]).code, Some(0));
    let left = |folder: std::path::PathBuf| fs::read_dir(folder).unwrap().count();
    assert_eq!((left(place.profile().security()), left(place.profile().log())), (0, 0));
    assert_eq!(ipcluster(&["list"]).stdout.lines().count(), 1);
}

#[test]
fn as_ipcontroller_it_is_the_controller_of_profile_and_cluster_in_the_environment() {
    let place = place();
    let profile = Profile::at(place.profile().dir(), "c");
    let mut command = linked(&place, "ipcontroller");
    command.args(["--HeartMonitor.period=100", "--quiet"]);
    command.env("IPP_PROFILE_DIR", profile.dir()).env("IPP_CLUSTER_ID", "c");
    let mut child = command.spawn().unwrap();
    wait_for("connection files", || profile.client_file().exists() && profile.engine_file().exists());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn as_ipengine_it_is_the_stock_engine_or_says_that_there_is_none() {
    let place = place();
    let mut command = linked(&place, "ipengine");
    command.arg("--version").env("REMUDA_PYTHON", "/nowhere/python");
    let done = finish(command);
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("/nowhere/python") && done.stderr.contains("remuda engine"), "{}", done.stderr);

    // A stand-in that has ipyparallel, and prints what it is asked to run.
    let python = place.folder().join("python");
    fs::write(&python, "#!/bin/sh\n[ \"$1\" = -m ] && echo \"$@\"\nexit 0\n").unwrap();
    fs::set_permissions(&python, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = linked(&place, "ipengine");
    command.args(["--file=x", "--IPEngine.timeout=3"]).env("REMUDA_PYTHON", &python);
    let done = finish(command);
    assert_eq!((done.code, done.stdout.trim()), (Some(0), "-m ipyparallel.engine --file=x --IPEngine.timeout=3"));
}
