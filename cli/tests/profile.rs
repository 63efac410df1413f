//! Shipped profiles, and what tells whether a configuration is right, on the built program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use remuda_tests::{Finished, Place, finish};
use serde_json::Value;

const TEMPLATES: [&str; 7] = ["default", "durable", "throughput", "many-engines", "ssh", "slurm", "notebook"];

fn place() -> Place {
    Place::new(env!("CARGO_BIN_EXE_remuda"))
}

fn run(place: &Place, words: &[&str]) -> Finished {
    finish(place.command(words))
}

/// The program on the place's profile.
fn with_profile(place: &Place, words: &[&str]) -> Finished {
    run(place, &[words, &[&place.profile_option()]].concat())
}

fn write(place: &Place, text: &str) {
    place.profile().create().unwrap();
    fs::write(place.profile().dir().join("remuda.toml"), text).unwrap();
}

#[test]
fn each_shipped_profile_is_right_for_all_programs_and_a_controller_starts_with_it() {
    for template in TEMPLATES {
        let place = place();
        let made = with_profile(&place, &["profile", "create", "--template", template]);
        assert_eq!(made.code, Some(0), "{template}: {}", made.stderr);
        for program in [&["controller"][..], &["engine"], &["cluster", "start"]] {
            let done = with_profile(&place, &[program, &["--check-config"]].concat());
            assert_eq!(
                (done.code, &*done.stdout),
                (Some(0), "the configuration is right\n"),
                "{template}: {}",
                done.stderr
            );
        }
        assert!(!place.profile().client_file().exists(), "something was started");
        let mut controller = place.controller(&[]);
        controller.signal(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(controller.wait().code(), Some(0), "{template}: {}", controller.log());
    }
}

#[test]
fn a_misspelt_key_a_wrong_type_and_a_port_in_use_are_told_at_once() {
    let place = place();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    write(&place, &format!("[controller]\nport = {port}\npnig = 500\nhwm = \"many\"\n\n[engine]\nslost = 3\n"));
    let parts = [
        "line 3, `pnig` of [controller]: there is no such option; is `ping` meant?".to_owned(),
        "line 4, `hwm` of [controller]: a whole number from 0 to 4294967295 is wanted, not `many`".to_owned(),
        format!("port {port} at 127.0.0.1, for registration of engines, is in use"),
        "--engine-ports".to_owned(),
    ];
    let checked = with_profile(&place, &["controller", "--check-config"]);
    let started = with_profile(&place, &["controller"]);
    for done in [&checked, &started] {
        assert_eq!(done.code, Some(2), "{}", done.stderr);
        for part in &parts {
            assert!(done.stderr.contains(part), "{part}\n{}", done.stderr);
        }
    }
    // A check looks at the whole file, a start at what concerns it.
    let other = "line 7, `slost` of [engine]: there is no such option; is `slots` meant?";
    assert!(checked.stderr.contains(other) && checked.stderr.contains("4 errors"), "{}", checked.stderr);
    assert!(!started.stderr.contains(other) && started.stderr.contains("3 errors"), "{}", started.stderr);
    assert!(!place.profile().client_file().exists());

    let cluster = with_profile(&place, &["cluster", "start", "--check-config"]);
    assert_eq!(cluster.code, Some(2));
    assert!(cluster.stderr.contains("is in use") && cluster.stderr.contains("pnig"), "{}", cluster.stderr);

    // An engine and a table are looked at in the same way.
    write(&place, "[contoller]\nhwm = 1\n[engine]\nslots = 0\nlabel = \"big\"\nresource = [\"gpu\"]\n");
    let done = with_profile(&place, &["engine", "--check-config"]);
    assert_eq!(done.code, Some(2), "{}", done.stderr);
    for part in [
        "no program has the table [contoller]; is [controller] meant?",
        "line 4, `slots` of [engine]: a whole number from 1 to 4294967295 is wanted, not `0`",
        "`resource` of [engine]: `gpu`: give a name and an amount: `gpu=2`",
        "3 errors",
    ] {
        assert!(done.stderr.contains(part), "{part}\n{}", done.stderr);
    }

    // A database may be named by its path.
    write(&place, "[controller]\ndb = \"/tmp/X.db\"\n");
    let done = with_profile(&place, &["controller", "--check-config"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);

    // What needs something else besides is no error by itself; what contradicts itself is.
    write(
        &place,
        "[controller]\nhttp = 0\nhttp-token-file = \"/nowhere/token\"\npacker = \"json\"\nunpacker = \"msgpack\"\n",
    );
    let done = with_profile(&place, &["controller", "--check-config"]);
    assert!(done.stderr.contains("packer and unpacker differ"), "{}", done.stderr);
}

#[test]
fn each_value_tells_where_it_was_said_and_secrets_are_hidden() {
    let place = place();
    write(&place, "[controller]\nping = 500\nhwm = 3\nkey = \"hidden-key\"\n");
    let mut command = place.command(&["controller", &place.profile_option(), "--show-config", "--hwm=5"]);
    command.env("IPP_CONTROLLER_IP", "127.0.0.2");
    let done = finish(command);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let row = |option: &str| -> String {
        let line = done.stdout.lines().find(|line| line.split_whitespace().next() == Some(option));
        line.unwrap_or_else(|| panic!("{option}\n{}", done.stdout)).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row("max-heart-misses"), "max-heart-misses 10 default");
    assert!(row("ping").starts_with("ping 500 `") && row("ping").ends_with("line 2, `ping` of [controller]"));
    assert_eq!(row("ip"), "ip 127.0.0.2 the variable `IPP_CONTROLLER_IP`");
    assert_eq!(row("hwm"), "hwm 5 command line");
    assert!(row("key").starts_with("key (secret) "), "{}", row("key"));
    assert!(done.stdout.contains("line 3, `hwm` of [controller] (overridden)"), "{}", done.stdout);
    assert!(!done.stdout.contains("hidden-key"));

    let done = with_profile(&place, &["controller", "--show-config-json"]);
    let all: Vec<Value> = serde_json::from_str(&done.stdout).unwrap();
    let ping = all.iter().find(|one| one["option"] == "ping").unwrap();
    assert_eq!(ping["value"], "500");
    assert!(all.len() > 40 && !done.stdout.contains("hidden-key"));
    for program in [&["engine"][..], &["cluster", "start"]] {
        let done = with_profile(&place, &[program, &["--show-config"]].concat());
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        assert!(done.stdout.contains("profile-dir"), "{}", done.stdout);
    }
    assert!(!place.profile().client_file().exists());

    // What is right is shown, and what is wrong told.
    write(&place, "[controller]\nping = 500\nhwm = true\n");
    let done = with_profile(&place, &["controller", "--show-config"]);
    assert_eq!(done.code, Some(2));
    assert!(done.stdout.contains("line 2") && done.stderr.contains("line 3"), "{}{}", done.stdout, done.stderr);
}

#[test]
fn a_profile_is_laid_out_as_ipython_does_it_and_never_overwritten() {
    let place = place();
    let done = run(&place, &["profile", "create", "work", "--template", "durable"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("remuda controller --profile work"), "{}", done.stderr);
    let dir = place.folder().join("ipython/profile_work");
    let file = dir.join("remuda.toml");
    assert_eq!(done.stdout.trim(), file.display().to_string());
    assert!(dir.join("log").is_dir());
    for folder in ["security", "pid"] {
        assert_eq!(fs::metadata(dir.join(folder)).unwrap().permissions().mode() & 0o777, 0o700, "{folder}");
    }
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("durability = \"sync\""));

    fs::write(&file, "[controller]\nhwm = 7\n").unwrap();
    let again = run(&place, &["profile", "create", "work"]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("is there already") && again.stderr.contains("--reset"), "{}", again.stderr);
    assert_eq!(run(&place, &["profile", "show", "work"]).stdout, "[controller]\nhwm = 7\n");
    assert_eq!(run(&place, &["profile", "create", "work", "--template=durable", "--reset"]).code, Some(0));
    assert_eq!(run(&place, &["profile", "show", "work"]).stdout, text);

    // A profile that ipyparallel made has no file of ours.
    fs::create_dir_all(place.folder().join("ipython/profile_stock")).unwrap();
    let stock = run(&place, &["profile", "show", "stock"]);
    assert_eq!(stock.code, Some(1));
    assert!(stock.stderr.contains("the defaults hold"), "{}", stock.stderr);
    assert_eq!(run(&place, &["profile", "create", "stock"]).code, Some(0));

    let list = run(&place, &["profile", "list"]);
    let rows: Vec<Vec<&str>> = list.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(rows.iter().any(|row| row[..2] == ["work", "profile"] && row[2] == dir.display().to_string()));
    assert!(rows.iter().any(|row| row[..2] == ["stock", "profile"]));
    for template in TEMPLATES {
        assert!(rows.iter().any(|row| row[..2] == [template, "template"]), "{}", list.stdout);
    }
    let json: Value = serde_json::from_str(&run(&place, &["profile", "list", "--output=json"]).stdout).unwrap();
    assert_eq!(json["profiles"].as_array().unwrap().len(), 2);

    assert_eq!(run(&place, &["profile", "path", "work"]).stdout.trim(), dir.display().to_string());
    let other = with_profile(&place, &["profile", "path"]);
    assert_eq!(other.code, Some(1), "{}", other.stdout);
    assert!(other.stderr.contains("remuda profile create"), "{}", other.stderr);
    let shipped = run(&place, &["profile", "show", "notebook"]).stdout;
    assert_eq!(shipped, fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../profiles/notebook.toml")).unwrap());
    for (words, part) in [
        (&["profile", "create", "x", "--template=nosuch"][..], "many-engines"),
        (&["profile", "create", "../x"], "cannot be the name"),
        (&["profile", "create"], "NAME"),
    ] {
        let done = run(&place, words);
        assert_eq!(done.code, Some(2), "{}", done.stderr);
        assert!(done.stderr.contains(part), "{}", done.stderr);
    }
}
