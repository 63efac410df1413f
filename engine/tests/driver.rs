//! The engine on real sockets, against a controller made of bare ones.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use remuda_engine::{Ending, Engine, EngineBuilder, RunError, StopHandle};
use remuda_net::{Context, Kind, Received, Socket};
use remuda_proto::message::content::RegistrationRequest;
use remuda_proto::message::parent_msg_id;
use remuda_proto::{Body, Date, EngineConnection, Envelope, Frames, Identity, Key, MsgId, MsgType, Packer, Session};
use serde_json::{Value, json};

/// Longer than anything here takes on a machine that is busy with other things.
const LONG: Duration = Duration::from_secs(60);
const KEY: &str = "key";

struct Controller {
    session: Session,
    hub: Socket,
    mux: Socket,
    /// Task and broadcast: nothing comes from there; the engine connects to them all the same.
    others: [Socket; 2],
    control: Socket,
    iopub: Socket,
    ping: Socket,
    pong: Socket,
    engine: Identity,
}

impl Controller {
    fn new() -> Self {
        let context = Context::new();
        let bind = |kind| Socket::builder(&context, kind).unwrap().bind("tcp://127.0.0.1:0").unwrap();
        // The engine connects one ROUTER to mux, task and broadcast, so their identities must differ.
        Self {
            session: Session::new("controller".into(), "u", Key::new(KEY), Packer::Json, 1),
            hub: bind(Kind::Router),
            mux: bind(Kind::Router),
            others: [bind(Kind::Router), bind(Kind::Router)],
            control: bind(Kind::Router),
            iopub: bind(Kind::Sub),
            ping: bind(Kind::Pub),
            pong: bind(Kind::Router),
            engine: Identity::from(&b""[..]),
        }
    }

    fn connection(&self) -> EngineConnection {
        let port = |socket: &Socket| socket.port().unwrap();
        let [task, leaf] = &self.others;
        serde_json::from_value(json!({
            "interface": "tcp://127.0.0.1", "key": KEY, "location": "localhost", "ssh": "", "pack": "json",
            "unpack": "json", "signature_scheme": "hmac-sha256", "curve_serverkey": null,
            "registration": port(&self.hub), "control": port(&self.control), "mux": port(&self.mux),
            "task": port(task), "iopub": port(&self.iopub), "hb_ping": port(&self.ping),
            "hb_pong": port(&self.pong), "broadcast": [port(leaf)],
        }))
        .unwrap()
    }

    /// An engine on a thread of its own, registered as number 7, heart and sockets proved to work.
    fn with_engine(builder: EngineBuilder) -> (Self, Running) {
        let mut controller = Self::new();
        let running = Running::start(builder, controller.connection());
        let request = receive(&mut controller.hub);
        controller.engine = request.idents[0].clone();
        assert_eq!(Envelope::read(Packer::Json, &request.body).unwrap().msg_type, MsgType::RegistrationRequest);
        let asked: RegistrationRequest = serde_json::from_slice(request.body.content()).unwrap();
        assert_eq!(asked.uuid.identity(), controller.engine, "the uuid is the identity");
        controller.grant(&json!({"id": 7, "status": "ok", "hb_period": 1000}));
        controller.beat();
        controller.probe();
        (controller, running)
    }

    fn grant(&mut self, content: &Value) {
        let (_, body) = self.message(MsgType::RegistrationReply, content, &[]);
        assert!(self.hub.send([&self.engine], &body));
    }

    fn message(&mut self, msg_type: MsgType, content: &Value, buffers: &[Bytes]) -> (MsgId, Body) {
        self.session.message(Date(0), msg_type, None, &json!({}), content, buffers).unwrap()
    }

    /// Pings until the engine's heart answers: what is published before it subscribed is lost.
    fn beat(&mut self) {
        for beat in 0..600 {
            let text = format!("{beat}.25");
            assert!(self.ping.send_raw(&[&text]));
            if self.pong.wait(Duration::from_millis(100)) {
                let frames = self.pong.receive_raw().unwrap();
                assert_eq!(frames[0], self.engine.as_bytes());
                assert!(frames[1].ends_with(b".25"), "{frames:?}");
                return;
            }
        }
        panic!("the heart does not beat");
    }

    /// Asks until an answer and output come: what is sent before the engine's sockets are connected is lost.
    fn probe(&mut self) {
        let (mut answered, mut published) = (false, false);
        for _ in 0..600 {
            self.shell(MsgType::KernelInfoRequest, &json!({}), &[]);
            answered |= self.mux.wait(Duration::from_millis(100));
            published |= self.iopub.wait(Duration::from_millis(100));
            if answered && published {
                return;
            }
        }
        panic!("the engine does not answer");
    }

    fn shell(&mut self, msg_type: MsgType, content: &Value, buffers: &[Bytes]) -> MsgId {
        let (msg_id, body) = self.message(msg_type, content, buffers);
        let client = Identity::from(&[0, 1, 2, 3, 4][..]);
        assert!(self.mux.send_frames(&Frames::new([self.engine.clone(), client], body)));
        msg_id
    }

    fn program(&mut self, script: &str, stdin: Option<&'static [u8]>) -> MsgId {
        let process = json!({"argv": ["sh", "-c", script], "input": stdin.map(|_| "stdin")});
        let buffers: Vec<Bytes> = stdin.into_iter().map(Bytes::from_static).collect();
        self.shell(MsgType::ApplyRequest, &json!({"remuda": {"process": process}}), &buffers)
    }

    /// The reply on the mux socket to this request.
    fn reply(&mut self, to: &MsgId) -> (Value, Body) {
        loop {
            let frames = receive(&mut self.mux);
            self.session.key().verify(&frames.body).unwrap();
            if parent_msg_id(Packer::Json, &frames.body).unwrap().as_ref() == Some(to) {
                assert_eq!(frames.idents.len(), 2, "the routing is echoed");
                return (serde_json::from_slice(frames.body.content()).unwrap(), frames.body);
            }
        }
    }

    /// The next message published about this request: its type and content.
    fn published(&mut self, of: &MsgId) -> (MsgType, Value) {
        loop {
            let frames = receive(&mut self.iopub);
            if parent_msg_id(Packer::Json, &frames.body).unwrap().as_ref() == Some(of) {
                let msg_type = Envelope::read(Packer::Json, &frames.body).unwrap().msg_type;
                assert!(frames.idents[0].as_bytes().starts_with(b"engine.7."));
                return (msg_type, serde_json::from_slice(frames.body.content()).unwrap());
            }
        }
    }

    /// What was published about this request from `busy` to `idle`, those left out.
    fn output(&mut self, of: &MsgId) -> Vec<(MsgType, Value)> {
        let state = |state: &str| (MsgType::Status, json!({"execution_state": state}));
        assert_eq!(self.published(of), state("busy"));
        std::iter::from_fn(|| Some(self.published(of))).take_while(|message| *message != state("idle")).collect()
    }

    fn control(&mut self, msg_type: MsgType, content: &Value) -> Value {
        let (_, body) = self.message(msg_type, content, &[]);
        assert!(self.control.send([&self.engine], &body));
        serde_json::from_slice(receive(&mut self.control).body.content()).unwrap()
    }

    fn expect_goodbye(&mut self) {
        let frames = receive(&mut self.hub);
        assert_eq!(Envelope::read(Packer::Json, &frames.body).unwrap().msg_type, MsgType::UnregistrationRequest);
        assert_eq!(frames.body.content(), br#"{"id":7}"#);
    }
}

struct Running {
    stop: StopHandle,
    thread: JoinHandle<Result<Ending, RunError>>,
}

impl Running {
    fn start(builder: EngineBuilder, connection: EngineConnection) -> Self {
        let engine = builder.build().unwrap();
        let stop = engine.stop_handle();
        Self { stop, thread: std::thread::spawn(move || engine.run(&connection)) }
    }

    fn result(self) -> Result<Ending, RunError> {
        self.thread.join().unwrap()
    }
}

fn receive(socket: &mut Socket) -> Frames {
    assert!(socket.wait(LONG), "nothing came");
    match socket.receive().unwrap() {
        Received::Message(frames) => frames,
        Received::Garbage { error, .. } => panic!("{error}"),
    }
}

fn builder() -> EngineBuilder {
    Engine::builder()
        .function("mul", |(a, b): (i64, i64)| Ok::<_, String>(a * b))
        .function("panic", |(): ()| -> Result<(), String> { panic!("oh no") })
        .registration_timeout(LONG)
}

#[test]
fn an_engine_registers_runs_functions_and_programs_and_leaves() {
    let (mut controller, running) = Controller::with_engine(builder());

    let argument = Bytes::from(rmp_serde::to_vec(&(6, 7)).unwrap());
    let asked = controller.shell(MsgType::ApplyRequest, &json!({"remuda": {"function": "mul"}}), &[argument]);
    let (content, body) = controller.reply(&asked);
    assert_eq!(content, json!({"status": "ok", "remuda": "function"}));
    assert_eq!(rmp_serde::from_slice::<i64>(&body.buffer(1).unwrap()).unwrap(), 42);
    assert!(controller.output(&asked).is_empty());

    let asked = controller.shell(MsgType::ApplyRequest, &json!({"remuda": {"function": "panic"}}), &[]);
    let (content, _) = controller.reply(&asked);
    assert_eq!(content["evalue"], json!("`panic` panicked: oh no"));
    assert_eq!(controller.output(&asked)[0].0, MsgType::Error);

    let asked = controller.program("cat; echo $REMUDA_ENGINE_ID $REMUDA_TASK_ID >&2", Some(b"given\n"));
    let (content, body) = controller.reply(&asked);
    assert_eq!(content["remuda"]["process"]["exit_code"], json!(0));
    assert_eq!(body.buffer(1).unwrap(), "given\n");
    assert_eq!(body.buffer(2).unwrap(), format!("7 {asked}\n"));
    let mut output = controller.output(&asked);
    output.sort_by_key(|(_, content)| content["name"].to_string());
    let stream = |name: &str, text: &str| (MsgType::Stream, json!({"name": name, "text": text}));
    assert_eq!(output, [stream("stderr", &format!("7 {asked}\n")), stream("stdout", "given\n")]);

    running.stop.stop();
    controller.expect_goodbye();
    assert_eq!(running.result().unwrap(), Ending::Stopped);
}

#[test]
fn a_busy_engine_answers_pings_and_stops_its_program_when_told() {
    let (mut controller, running) = Controller::with_engine(builder());
    let asked = controller.program("echo ready; sleep 1000", None);
    assert_eq!(controller.published(&asked).0, MsgType::Status);
    assert_eq!(controller.published(&asked).1["text"], json!("ready\n"));
    while controller.pong.receive_raw().is_some() {}
    controller.beat();
    let queued = controller.program("echo queued", None);
    let content = json!({"msg_ids": [asked.as_str()], "remuda": {"stop": true}});
    assert_eq!(controller.control(MsgType::AbortRequest, &content), json!({"status": "ok"}));
    let (content, _) = controller.reply(&asked);
    assert_eq!(content["ename"], json!("TaskStopped"));
    assert_eq!(content["remuda"]["process"]["signal"], json!(15));
    assert_eq!(controller.reply(&queued).1.buffer(1).unwrap(), "queued\n");
    assert_eq!(
        controller.control(MsgType::ShutdownRequest, &json!({"restart": false})),
        json!({"status": "ok", "restart": false})
    );
    assert_eq!(running.result().unwrap(), Ending::Shutdown);
}

#[test]
fn an_engine_that_ends_takes_its_program_with_it() {
    let (mut controller, running) = Controller::with_engine(builder());
    let asked = controller.program("trap '' TERM INT HUP; echo $$; while :; do sleep 1000; done", None);
    assert_eq!(controller.published(&asked).0, MsgType::Status);
    let text = controller.published(&asked).1["text"].as_str().unwrap().trim().to_owned();
    running.stop.stop();
    running.result().unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{text}")).exists(), "{text} was killed and reaped");
}

#[test]
fn an_address_where_nothing_listens_is_named() {
    let mut controller = Controller::new();
    let mut connection = controller.connection();
    let context = Context::new();
    controller.hub = Socket::builder(&context, Kind::Router).unwrap().bind("tcp://127.0.0.1:0").unwrap();
    // The port of a listener that has gone.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    connection.common.registration = port;
    let running = Running::start(builder().registration_timeout(Duration::from_millis(50)), connection);
    let error = running.result().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("nothing answers at tcp://127.0.0.1:{port}: is the controller of this connection file still running?")
    );
}

#[test]
fn a_controller_with_another_key_is_no_controller() {
    let mut controller = Controller::new();
    let running = Running::start(builder().registration_timeout(Duration::from_millis(300)), controller.connection());
    controller.engine = receive(&mut controller.hub).idents[0].clone();
    controller.session = Session::new("c".into(), "u", Key::new("another"), Packer::Json, 1);
    controller.grant(&json!({"id": 7, "status": "ok", "hb_period": 1000}));
    assert!(matches!(running.result(), Err(RunError::NoAnswer { .. })));
}

#[test]
fn a_refusal_is_told_in_the_controllers_words() {
    let mut controller = Controller::new();
    let running = Running::start(builder(), controller.connection());
    controller.engine = receive(&mut controller.hub).idents[0].clone();
    controller.grant(&json!({"status": "error", "ename": "KeyError", "evalue": "uuid in use", "traceback": []}));
    let error = running.result().unwrap_err().to_string();
    assert!(error.ends_with("refused this engine: KeyError: uuid in use"), "{error}");
}
