//! Process definitions over HTTP, with `curl` as the client: each request has the status and the body that are promised.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use remuda_client::{Client, ConnectOptions};
use remuda_tests::{DEADLINE, Place, Running, finish, wait_for};
use serde_json::{Value, json};

const ALL: &str = "/api/process_definition/";

struct Site {
    controller: Running,
    url: String,
    token: String,
    place: Place,
}

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// By names in small letters.
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json", "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Its error.
    #[track_caller]
    fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

impl Site {
    fn new(options: &[&str]) -> Self {
        let place = Place::new(env!("CARGO_BIN_EXE_remuda"));
        let controller = place.controller(&[&["--http", "127.0.0.1:0"], options].concat());
        let file = place.profile().security().join("http.json");
        wait_for("the HTTP server", || file.exists());
        let found: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let url = found["url"].as_str().unwrap().to_owned();
        let token = fs::read_to_string(found["token_file"].as_str().unwrap()).unwrap().trim().to_owned();
        Self { controller, url, token, place }
    }

    fn engine(&self) -> Running {
        let engine = self.place.engine();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Client::connect(ConnectOptions::file(self.place.profile().client_file())).await.unwrap();
            client.wait_for_engines(1, DEADLINE).await.unwrap();
        });
        engine
    }

    /// Asks without a token.
    fn curl(&self, method: &str, path: &str, options: &[&str], body: Option<&[u8]>) -> Answer {
        let mut command = Command::new("curl");
        command.args(["-sS", "-i", "--http1.1", "-X", method, "-H", "Expect:"]).args(options);
        let input = self.place.folder().join("body");
        if let Some(body) = body {
            fs::write(&input, body).unwrap();
            command.args(["--data-binary", &format!("@{}", input.display())]);
        }
        command.arg(format!("{}{path}", self.url)).stdin(Stdio::null());
        let done = command.output().unwrap();
        assert!(done.status.success(), "{method} {path}: {}", String::from_utf8_lossy(&done.stderr));
        let end = done.stdout.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&done.stdout[..end]).into_owned();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = BTreeMap::new();
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            let before: &mut String = headers.entry(name.to_ascii_lowercase()).or_default();
            *before = if before.is_empty() { value.to_owned() } else { format!("{before}, {value}") };
        }
        Answer { status, headers, body: done.stdout[end + 4..].to_vec() }
    }

    fn ask(&self, method: &str, path: &str, kind: &str, body: Option<&[u8]>) -> Answer {
        let bearer = format!("Authorization: Bearer {}", self.token);
        self.curl(method, path, &["-H", &bearer, "-H", &format!("Content-Type: {kind}")], body)
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", None)
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.ask(method, path, "application/json", Some(body.to_string().as_bytes()))
    }

    /// Keeps a definition: where it is.
    fn create(&self, definition: &Value) -> String {
        let created = self.send("POST", ALL, definition);
        assert_eq!(created.status, 201, "{created:?}");
        created.headers["location"].clone()
    }
}

#[test]
fn definitions_are_created_listed_shown_changed_and_deleted() {
    let site = Site::new(&["--db=sqlitedb"]);
    let tr = json!({"name": "tr", "exec": "tr", "argv": ["-d", "x"]});
    let created = site.send("POST", ALL, &json!({"definition": tr}));
    let object = json!({"id": 1, "resource_uri": "/api/process_definition/1/", "definition": tr});
    assert_eq!((created.status, created.json()), (201, object.clone()));
    assert_eq!(created.headers["location"], "/api/process_definition/1/");
    assert_eq!(site.get("/api/process_definition/1/").json(), object);
    assert_eq!(site.get("/api/process_definition/tr/").json(), object);
    for number in 2..=4 {
        assert_eq!(site.create(&json!({"exec": "true"})), format!("/api/process_definition/{number}/"));
    }
    let listed = site.get("/api/process_definition/?limit=2&offset=1").json();
    let meta = json!({"limit": 2, "offset": 1, "next": "/api/process_definition/?limit=2&offset=3",
        "previous": "/api/process_definition/?limit=2&offset=0", "total_count": 4});
    assert_eq!(listed["meta"], meta);
    let ids: Vec<&Value> = listed["objects"].as_array().unwrap().iter().map(|object| &object["id"]).collect();
    assert_eq!(ids, [2, 3]);
    let all = site.get(ALL).json();
    assert_eq!((&all["meta"]["limit"], &all["meta"]["next"], &all["objects"][0]), (&json!(20), &Value::Null, &object));

    let put = site.send("PUT", "/api/process_definition/1/", &json!({"exec": "wc", "name": "tr"}));
    assert_eq!((put.status, &put.json()["definition"]), (200, &json!({"exec": "wc", "name": "tr"})));
    let patched = site.send("PATCH", "/api/process_definition/tr/", &json!({"timeout": 5, "name": null}));
    assert_eq!((patched.status, &patched.json()["definition"]), (200, &json!({"exec": "wc", "timeout": 5})));
    let deleted = site.ask("DELETE", "/api/process_definition/1/", "", None);
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    assert_eq!(site.get("/api/process_definition/1/").status, 404);
    // By the command too: it is the same shelf.
    let listed = finish(site.place.command(&["process", "list", "--json", &site.place.profile_option()]));
    assert_eq!(
        serde_json::from_str::<Value>(&listed.stdout).unwrap().as_array().unwrap().len(),
        3,
        "{}",
        listed.stderr
    );
}

#[test]
fn each_mistake_has_its_status() {
    let site = Site::new(&["--http-max-input-bytes", "1000"]);
    site.create(&json!({"exec": "tr", "name": "tr"}));
    site.create(&json!({"exec": "sleep", "process_type": "service", "name": "service"}));
    let json_type = "application/json";
    let large = format!("{{\"exec\": \"{}\"}}", "x".repeat(300_000));
    let wide = format!("{{\"exec\": \"{}\"}}", "x".repeat(100_000));
    let one = "/api/process_definition/1/";
    for (method, path, kind, body, status, says) in [
        ("POST", ALL, json_type, "{", 400, "no JSON"),
        ("POST", ALL, json_type, "[]", 400, "no map"),
        ("POST", ALL, json_type, "", 400, "no JSON"),
        ("POST", ALL, json_type, r#"{"definition": {"exec": "x"}, "exec": "y"}"#, 400, "`exec`"),
        ("POST", ALL, "text/plain", r#"{"exec": "x"}"#, 415, "text/plain"),
        ("POST", ALL, "application/x-www-form-urlencoded", "a=b", 415, "application/json"),
        ("POST", ALL, json_type, &large, 413, "too large"),
        ("POST", ALL, json_type, &wide, 400, "100011 bytes"),
        ("PUT", "/api/process_definition/9/", json_type, r#"{"exec": "x"}"#, 404, "`9`"),
        ("PATCH", "/api/process_definition/x/", json_type, "{}", 404, "`x`"),
        ("PUT", one, "text/plain", "", 415, "text/plain"),
        ("PATCH", one, json_type, "5", 400, "no map"),
        ("DELETE", "/api/process_definition/9/", "", "", 404, "`9`"),
        ("GET", "/api/process_definition/9/", "", "", 404, "`9`"),
        ("GET", "/api/process_definition/?limit=x", "", "", 400, "`limit` is `x`"),
        ("GET", "/api/process_definition/?offset=-1", "", "", 400, "`offset` is `-1`"),
        ("GET", "/elsewhere", "", "", 404, "/elsewhere"),
        ("DELETE", ALL, "", "", 405, "GET"),
        ("POST", one, json_type, "{}", 405, "PATCH"),
        ("GET", "/api/process_definition/1/run/", "", "", 405, "POST"),
        ("POST", "/api/process_definition/9/run/", "", "", 404, "`9`"),
        ("POST", "/api/process_definition/service/run/", "", "", 409, "service"),
        ("POST", "/api/process_definition/1/run/", "", "", 503, "remuda engine"),
    ] {
        let answer = site.ask(method, path, kind, (!body.is_empty() || method == "POST").then_some(body.as_bytes()));
        let error = answer.error(status);
        let allowed = answer.headers.get("allow").map(String::as_str);
        assert_eq!(allowed.is_some(), status == 405, "{answer:?}");
        assert!(allowed.unwrap_or(&error).contains(says), "{method} {path}: {error}");
        assert_eq!(answer.headers.contains_key("retry-after"), status == 503, "{answer:?}");
    }
    let wrong =
        site.send("POST", ALL, &json!({"argv": 5, "timeout": 0, "input_adapter": {"input_type": "stream_tcp"}}));
    assert_eq!(wrong.status, 400);
    let reasons = &wrong.json()["process_definition"];
    for (key, says) in
        [("exec", "is missing"), ("argv", "is `5`"), ("timeout", "is `0`"), ("input_adapter.tcp_port", "port")]
    {
        assert!(reasons[key][0].as_str().unwrap().contains(says), "{reasons}");
    }
    let taken = site.send("POST", ALL, &json!({"exec": "x", "name": "tr"}));
    assert_eq!(taken.status, 409);
    assert!(taken.json()["process_definition"]["name"][0].as_str().unwrap().contains("process definition 1"));
    let patched = site.send("PATCH", one, &json!({"exec": null}));
    assert_eq!((patched.status, &patched.json()["process_definition"]["exec"].is_array()), (400, &true));
    let moved = site.get("/api/process_definition?limit=1");
    assert_eq!((moved.status, &*moved.headers["location"]), (308, "/api/process_definition/?limit=1"));
    assert_eq!(site.get("/api/process_definition/1").headers["location"], one);

    let _engine = site.engine();
    let input = vec![b'x'; 1001];
    let answer = site.ask("POST", "/api/process_definition/1/run/", "", Some(&input));
    assert!(answer.error(413).contains("1000 bytes"));
}

#[test]
fn who_shows_no_token_gets_nothing() {
    let site = Site::new(&[]);
    for name in ["http-token", "http.json"] {
        let mode = fs::metadata(site.place.profile().security().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert!(!site.controller.log().contains(&site.token), "the log does not say it");
    let as_user = format!("{}:", site.token);
    for (method, path) in
        [("GET", ALL), ("GET", "/elsewhere"), ("DELETE", ALL), ("POST", "/api/process_definition/1/run/")]
    {
        for options in [&[][..], &["-H", "Authorization: Bearer wrong"], &["-u", "user:wrong"], &["-u", &as_user]] {
            let answer = site.curl(method, path, options, None);
            answer.error(401);
            let schemes = &answer.headers["www-authenticate"];
            assert!(schemes.contains("Bearer") && schemes.contains("Basic"), "{schemes}");
        }
    }
    let basic = format!("anybody:{}", site.token);
    assert_eq!(site.curl("GET", ALL, &["-u", &basic], None).status, 200);
}

#[test]
fn a_program_is_run_with_the_body_and_answers_with_its_result() {
    let site = Site::new(&[]);
    let _engine = site.engine();
    let binary: Vec<u8> =
        (0..50_000_u32).flat_map(|number| (number.wrapping_mul(2_654_435_761) >> 9).to_le_bytes()).collect();
    let tr = site.create(&json!({"exec": "tr", "argv": ["-d", "x"]}));
    let ran = site.ask("POST", &format!("{tr}run/"), "text/plain", Some(b"Xxaxb"));
    assert_eq!(
        (ran.status, &ran.body[..], &*ran.headers["content-type"]),
        (200, &b"Xab"[..], "application/octet-stream")
    );
    assert_eq!(ran.headers["x-remuda-exit-code"], "0");
    let task = &ran.headers["x-remuda-task-id"];
    let shown = finish(site.place.command(&["task", "show", task, &site.place.profile_option()]));
    assert!(shown.stdout.contains(&**task), "{}{}", shown.stdout, shown.stderr);

    let files = |script: &str| {
        let adapters = (json!({"input_type": "file_argv"}), json!({"output_type": "file_argv"}));
        site.create(
            &json!({"exec": "sh", "argv": ["-c", script], "input_adapter": adapters.0, "output_adapter": adapters.1}),
        )
    };
    let (pack, unpack) =
        (files("xz -c ${input_file} > ${output_file}"), files("xz -dc < ${input_file} > ${output_file}"));
    let packed = site.ask("POST", &format!("{pack}run/"), "", Some(&binary));
    assert!(packed.status == 200 && packed.body.starts_with(b"\xfd7zXZ\0"), "{}", packed.status);
    let unpacked = site.ask("POST", &format!("{unpack}run/"), "", Some(&packed.body));
    assert!(unpacked.status == 200 && unpacked.body == binary, "{}", unpacked.status);

    let sh = |script: &str| site.create(&json!({"exec": "sh", "argv": ["-c", script], "timeout": 30}));
    let failed = site.ask("POST", &format!("{}run/", sh("echo said >&2; exit 7")), "", None);
    assert_eq!((failed.status, &*failed.headers["x-remuda-exit-code"]), (422, "7"));
    let said = failed.json();
    assert_eq!((&said["exit_code"], &said["signal"], &said["stderr"]), (&json!(7), &Value::Null, &json!("said\n")));
    assert_eq!(
        (&said["task_id"], &said["error"]),
        (&json!(failed.headers["x-remuda-task-id"]), &json!("the program exited with code 7"))
    );
    let killed = site.ask("POST", &format!("{}run/", sh("kill -9 $$")), "", None).json();
    assert_eq!((&killed["exit_code"], &killed["signal"]), (&Value::Null, &json!(9)));
    let away = site.create(&json!({"exec": "no-such-program-anywhere"}));
    let away = site.ask("POST", &format!("{away}run/"), "", None);
    assert!(away.status == 502 || away.status == 422, "{away:?}");
    assert!(away.json()["error"].as_str().unwrap().contains("no-such-program-anywhere"), "{away:?}");
    let elsewhere = site.create(&json!({"exec": "true", "application": "image"}));
    let elsewhere = site.ask("POST", &format!("{elsewhere}run/"), "", None);
    assert!(elsewhere.error(503).contains("label=image"));
}

#[test]
fn a_program_is_stopped_when_who_asked_has_gone() {
    let site = Site::new(&[]);
    let _engine = site.engine();
    let mark = site.place.folder().join("runs");
    let script = format!("trap 'rm {0}; exit' TERM; touch {0}; while :; do sleep 0.02; done", mark.display());
    let slow = site.create(&json!({"exec": "sh", "argv": ["-c", script]}));
    let address = site.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "POST {slow}run/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 0\r\n\r\n",
        site.token
    )
    .unwrap();
    wait_for("the program", || mark.exists());
    drop(stream);
    wait_for("its end", || !mark.exists());
}

#[test]
fn the_files_go_with_the_controller_and_a_given_token_stays() {
    let mut site = Site::new(&[]);
    site.controller.signal(Signal::SIGTERM);
    assert!(site.controller.wait().success(), "{}", site.controller.log());
    let security = site.place.profile().security();
    for name in ["http.json", "http-token"] {
        assert!(!security.join(name).exists(), "{name}");
    }
    let given = site.place.folder().join("token");
    fs::write(&given, "a-token-of-my-own\n").unwrap();
    // What others are told of the way in does not matter to the server.
    let told = ["--location=elsewhere.invalid", "--ssh=gate.invalid"];
    let options = [&["--http", ":0", "--http-token-file", given.to_str().unwrap()], &told[..]].concat();
    site.controller = site.place.controller(&options);
    let file = security.join("http.json");
    wait_for("the HTTP server", || file.exists());
    let is_left = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".http-");
    assert!(!fs::read_dir(&security).unwrap().any(|entry| is_left(&entry.unwrap().file_name())), "nothing is left");
    let found: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    site.url = found["url"].as_str().unwrap().to_owned();
    site.token = "a-token-of-my-own".to_owned();
    assert_eq!((site.get(ALL).status, security.join("http-token").exists()), (200, false));

    let other = Place::new(env!("CARGO_BIN_EXE_remuda"));
    let refused = |options: &[&str]| {
        let done = finish(other.command(&[&["controller"], options, &[&other.profile_option()]].concat()));
        (done.code, done.stderr)
    };
    let (code, said) = refused(&["--http", "*:0"]);
    assert!(code == Some(2) && said.contains("--http-token-file"), "{said}");
    let address = site.url.strip_prefix("http://").unwrap();
    let (code, said) = refused(&["--http", address]);
    assert!(code == Some(1) && said.contains("cannot listen for HTTP") && said.contains(address), "{said}");
    assert!(!other.profile().client_file().exists(), "nothing is left");
}

#[test]
fn a_body_without_a_length_is_taken_in_chunks() {
    let site = Site::new(&["--http-max-input-bytes", "1000"]);
    let _engine = site.engine();
    let tr = site.create(&json!({"exec": "tr", "argv": ["-d", "x"]}));
    let address = site.url.strip_prefix("http://").unwrap();
    for (bytes, status) in [(100, "200"), (2_000, "413")] {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(
            stream,
            "POST {tr}run/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\r\n\
             {bytes:x}\r\n{}\r\n0\r\n\r\n",
            site.token,
            "a".repeat(bytes)
        )
        .unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}
