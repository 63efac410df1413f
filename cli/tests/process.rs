//! Process definitions by the command and by the client, on controllers and engines that run: is what a definition says what
//! its program does, and is it there again after a controller was killed?

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use nix::sys::signal::Signal;
use remuda_client::{Client, ConnectOptions, DefinitionError};
use remuda_tests::{DEADLINE, Finished, Place, Running, finish, wait_for};
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

struct Cluster {
    _engine: Running,
    controller: Running,
    place: Place,
}

impl Cluster {
    fn new(options: &[&str]) -> Self {
        let place = Place::new(env!("CARGO_BIN_EXE_remuda"));
        let controller = place.controller(options);
        let cluster = Self { _engine: place.engine(), controller, place };
        let (runtime, client) = cluster.client();
        runtime.block_on(client.wait_for_engines(1, DEADLINE)).unwrap();
        cluster
    }

    fn client(&self) -> (Runtime, Client) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options = ConnectOptions::file(self.place.profile().client_file());
        let client = runtime.block_on(Client::connect(options)).unwrap();
        (runtime, client)
    }

    fn command(&self, args: &[&str]) -> Command {
        self.place.command(&[&["process"], args, &[&self.place.profile_option()]].concat())
    }

    fn process(&self, args: &[&str]) -> Finished {
        finish(self.command(args))
    }

    /// A file with this in it: its path.
    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.place.folder().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Keeps a definition: its id.
    fn create(&self, definition: &Value) -> String {
        let file = self.file("definition.json", definition.to_string());
        let done = self.process(&["create", &file]);
        assert_eq!(done.code, Some(0), "{definition}: {}", done.stderr);
        done.stdout.trim().to_owned()
    }

    fn shown(&self, which: &str) -> Value {
        let done = self.process(&["show", which, "--json"]);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        serde_json::from_str(&done.stdout).unwrap()
    }
}

fn map(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { panic!("{value}") };
    map
}

fn assert_says(done: &Finished, code: i32, words: &[&str]) {
    let text = format!("{}{}", done.stdout, done.stderr);
    assert_eq!(done.code, Some(code), "{text}");
    for words in words {
        assert!(text.contains(words), "no `{words}` in:\n{text}");
    }
}

#[test]
fn definitions_are_kept_shown_changed_and_deleted() {
    let cluster = Cluster::new(&[]);
    let tr = json!({"name": "tr", "exec": "tr", "argv": ["-d", "x y"], "timeout": 5.0});
    assert_eq!(cluster.create(&tr), "1");
    assert_eq!(cluster.create(&json!({"exec": "true"})), "2");
    assert_eq!(cluster.shown("tr")["definition"].to_string(), tr.to_string(), "as it was given");
    assert_says(&cluster.process(&["show", "1"]), 0, &["-d 'x y'", "timeout", "5.0", "created"]);
    assert_says(&cluster.process(&["list"]), 0, &["tr -d 'x y'", "single", "PROGRAM"]);
    let listed = cluster.process(&["list", "--json", "--limit", "1", "--offset", "1"]);
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["id"]), (1, &json!(2)));

    let file = cluster.file("other.json", r#"{"exec": "wc", "name": "count"}"#);
    assert_says(&cluster.process(&["update", "tr", &file]), 0, &["1 (`count`)"]);
    assert_eq!(cluster.shown("count")["id"], 1);
    assert_says(&cluster.process(&["show", "tr"]), 1, &["no process definition `tr`", "remuda process list"]);
    assert_says(&cluster.process(&["create", &file]), 1, &["`count` is that of process definition 1"]);
    assert_says(&cluster.process(&["delete", "count", "7"]), 1, &["1 (`count`) is deleted", "definition `7`"]);
    assert_says(&cluster.process(&["delete", "2"]), 0, &[]);
    assert_says(&cluster.process(&["list"]), 0, &["no process definitions are kept"]);
}

#[test]
fn what_is_wrong_is_all_said_before_anybody_is_asked() {
    let place = Place::new(env!("CARGO_BIN_EXE_remuda"));
    let file = place.folder().join("wrong.json");
    fs::write(&file, r#"{"exce": "tr", "timeout": 0, "input_adapter": {"input_type": "stream_tcp"}}"#).unwrap();
    let file = file.to_str().unwrap();
    let all = ["did you mean `exec`?", "`timeout` is `0`", "`input_adapter.tcp_port` is missing", "`exec` is missing"];
    let checked = finish(place.command(&["process", "check", file]));
    assert_says(&checked, 1, &all);
    assert_eq!(checked.stdout.lines().count(), all.len());
    assert_says(&finish(place.command(&["process", "create", file])), 1, &all);
    fs::write(file, "[]").unwrap();
    assert_says(&finish(place.command(&["process", "check", file])), 1, &["no map"]);
    fs::write(file, "{").unwrap();
    assert_says(&finish(place.command(&["process", "check", file])), 1, &["no JSON"]);
    fs::write(file, r#"{"exec": "tr"}"#).unwrap();
    assert_says(&finish(place.command(&["process", "check", file])), 0, &[]);
    assert_says(&finish(place.command(&["process", "check", "nowhere"])), 1, &["cannot read `nowhere`"]);
}

/// A port that nobody listens on at the moment.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// One definition for each adapter, each of which makes `Xab` of `Xxaxb`.
fn adapters() -> Vec<(&'static str, Value)> {
    let port = free_port();
    let listens = format!(
        "$s = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1:{port}', ReuseAddr => 1) or die; \
         $c = $s->accept; while (<$c>) {{ s/x//g; print }}"
    );
    let sh = |name: &str, script: &str, input: Value, output: &str| {
        json!({"name": name, "exec": "sh", "argv": ["-c", script], "input_adapter": input, "timeout": 60,
            "output_adapter": {"output_type": output}})
    };
    vec![
        ("plain", json!({"name": "plain", "exec": "tr", "argv": ["-d", "x"]})),
        (
            "stdin",
            json!({"name": "stdin", "exec": "tr", "argv": ["-d", "x"], "input_adapter": {"input_type": "stdin"},
                "output_adapter": {"output_type": "stdout"}}),
        ),
        (
            "files",
            sh(
                "files",
                "echo talk; tr -d x < ${input_file} | gzip -c | gzip -dc > ${output_file}",
                json!({"input_type": "file_argv"}),
                "file_argv",
            ),
        ),
        (
            "arguments",
            json!({"name": "arguments", "exec": "sed", "argv": ["-n", "s/x//g;w ${output_file}", "${input_file}"],
                "input_adapter": {"input_type": "file_argv"}, "output_adapter": {"output_type": "file_argv"}}),
        ),
        (
            "tcp",
            json!({"name": "tcp", "exec": "perl", "argv": ["-MIO::Socket::INET", "-e", listens], "timeout": 60,
                "input_adapter": {"input_type": "stream_tcp", "tcp_port": port, "chunk_size": 2}}),
        ),
        (
            "environment",
            json!({"name": "environment", "exec": "sh", "argv": ["-c", "tr -d $WHAT < $IN"],
                "environment": {"WHAT": "x", "IN": "${input_file}"}, "input_adapter": {"input_type": "file_argv"}}),
        ),
        (
            "append",
            sh(
                "append",
                "until [ $(wc -c < ${input_file}) -ge 5 ]; do :; done; tr -d x < ${input_file} > ${output_file}",
                json!({"input_type": "file_append", "chunk_size": 2}),
                "file_append",
            ),
        ),
        (
            "pipe",
            sh(
                "pipe",
                "tr -d x < ${input_file} > ${output_file}",
                json!({"input_type": "stream_pipe", "chunk_size": 2}),
                "pipe",
            ),
        ),
    ]
}

#[test]
fn each_adapter_runs_by_command_and_by_client() {
    let cluster = Cluster::new(&[]);
    let input = cluster.file("input", "Xxaxb");
    let (runtime, client) = cluster.client();
    for (name, definition) in adapters() {
        cluster.create(&definition);
        let done = cluster.process(&["run", name, "--input", &input]);
        assert_eq!((done.code, &*done.stdout), (Some(0), "Xab"), "{name}: {}", done.stderr);
        let output = cluster.place.folder().join("output");
        let done = cluster.process(&["run", name, "--input", &input, "--output", output.to_str().unwrap()]);
        assert_eq!((done.code, &*done.stdout), (Some(0), ""), "{name}: {}", done.stderr);
        assert_eq!(fs::read_to_string(&output).unwrap(), "Xab", "{name}");
        let result = runtime.block_on(async {
            let task = client.definitions().run(name, Some("Xxaxb".into())).await.unwrap();
            task.timeout(DEADLINE).await.unwrap()
        });
        assert_eq!(&result.result()[..], b"Xab", "{name}");
    }
}

#[test]
fn bytes_that_are_no_text_go_through_xz_and_openssl_and_back() {
    let cluster = Cluster::new(&[]);
    let files = |name: &str, script: &str| {
        json!({"name": name, "exec": "sh", "argv": ["-c", script], "input_adapter": {"input_type": "file_argv"},
            "output_adapter": {"output_type": "file_argv"}})
    };
    cluster.create(&files("pack", "xz -c ${input_file} > ${output_file}"));
    cluster.create(&files("unpack", "xz -dc < ${input_file} > ${output_file}"));
    let cipher = |name: &str, way: &str| {
        let argv = [
            "enc",
            way,
            "-aes-256-cbc",
            "-pbkdf2",
            "-pass",
            "env:PASS",
            "-in",
            "${input_file}",
            "-out",
            "${output_file}",
        ];
        json!({"name": name, "exec": "openssl", "argv": argv, "environment": {"PASS": "word"},
            "input_adapter": {"input_type": "file_argv"}, "output_adapter": {"output_type": "file_argv"}})
    };
    cluster.create(&cipher("encrypt", "-e"));
    cluster.create(&cipher("decrypt", "-d"));
    let bytes: Vec<u8> =
        (0..200_000_u32).flat_map(|number| (number.wrapping_mul(2_654_435_761) >> 9).to_le_bytes()).collect();
    let (input, packed, output) =
        (cluster.file("input", &bytes), cluster.file("packed", ""), cluster.file("output", ""));
    assert_says(&cluster.process(&["run", "pack", "--input", &input, "--output", &packed]), 0, &[]);
    assert!(fs::read(&packed).unwrap().starts_with(b"\xfd7zXZ\0"));
    assert_says(&cluster.process(&["run", "unpack", "--input", &packed, "--output", &output]), 0, &[]);
    assert!(fs::read(&output).unwrap() == bytes);
    assert_says(&cluster.process(&["run", "encrypt", "--input", &input, "--output", &packed]), 0, &[]);
    assert!(fs::read(&packed).unwrap().starts_with(b"Salted__"));
    assert_says(&cluster.process(&["run", "decrypt", "--input", &packed, "--output", &output]), 0, &[]);
    assert!(fs::read(&output).unwrap() == bytes);
}

#[test]
fn a_program_that_fails_gives_its_exit_code_and_what_it_said() {
    let cluster = Cluster::new(&[]);
    let run = |definition: Value| {
        cluster.create(&definition);
        cluster.process(&["run", definition["name"].as_str().unwrap()])
    };
    let sh = |name: &str, script: &str| json!({"name": name, "exec": "sh", "argv": ["-c", script]});
    let failed = run(sh("fails", "echo out; echo err >&2; exit 7"));
    assert_eq!((failed.code, &*failed.stdout, &*failed.stderr), (Some(7), "out\n", "err\n"));
    assert_says(&run(sh("killed", "kill -9 $$")), 137, &["signal 9"]);
    let mut slow = sh("slow", "sleep 600");
    slow["timeout"] = json!(0.2);
    assert_says(&run(slow), 143, &["ran for longer than it may"]);
    let service = json!({"name": "server", "exec": "sleep", "argv": ["600"], "process_type": "service"});
    assert_says(&run(service), 1, &["`server` is a service", "remuda service start server"]);
    assert_says(&cluster.process(&["run", "nothing"]), 1, &["no process definition `nothing`"]);
}

#[test]
fn definitions_survive_a_controller_that_is_killed() {
    for durability in ["async", "sync"] {
        let options = ["--db=sqlitedb", &*format!("--durability={durability}")];
        let mut cluster = Cluster::new(&options);
        for number in 0..5 {
            assert_eq!(
                cluster.create(&json!({"exec": "tr", "argv": ["-d", "x"], "name": format!("d{number}")})),
                (number + 1).to_string()
            );
        }
        assert_says(&cluster.process(&["delete", "d1"]), 0, &[]);
        let before = cluster.process(&["list", "--json"]).stdout;
        cluster.controller.signal(Signal::SIGKILL);
        cluster.controller.wait();
        cluster.controller = cluster.place.controller(&options);
        // Its files are those of the one before.
        wait_for("a controller that listens", || cluster.controller.log().contains("listening at"));
        let after = cluster.process(&["list", "--json"]);
        assert_eq!((after.code, after.stdout), (Some(0), before), "{}", after.stderr);
        assert_eq!(cluster.create(&json!({"exec": "true"})), "6", "no id is given twice");
        let input = cluster.file("input", "xax");
        let done = cluster.process(&["run", "d0", "--input", &input]);
        assert_eq!((done.code, &*done.stdout), (Some(0), "a"), "{}", done.stderr);
    }
}

#[test]
fn a_client_is_told_what_is_wrong() {
    let cluster = Cluster::new(&[]);
    let (runtime, client) = cluster.client();
    let definitions = client.definitions();
    runtime.block_on(async {
        let first = definitions.create(map(json!({"exec": "tr", "name": "tr"}))).await.unwrap();
        let second = definitions.update("tr", map(json!({"exec": "wc"}))).await.unwrap();
        assert_eq!((second.id, second.created), (first.id, first.created));
        let replaced = definitions.replace(first, map(json!({"exec": "cat"}))).await;
        assert!(matches!(replaced, Err(DefinitionError::Changed { .. })), "{replaced:?}");
        let wrong = definitions.create(map(json!({"argv": 5}))).await.unwrap_err();
        assert!(
            wrong.to_string().contains("`exec` is missing") && wrong.to_string().contains("`argv` is `5`"),
            "{wrong}"
        );
        assert_eq!(definitions.list(10, 0).await.unwrap().total, 1);
        assert_eq!(definitions.delete(1).await.unwrap().id, 1);
        assert!(matches!(definitions.get(1).await, Err(DefinitionError::NotFound { .. })));
    });
}
