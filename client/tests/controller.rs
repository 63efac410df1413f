//! The client against a controller made of bare sockets, which answers as the test says.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use remuda_client::{
    Client, ConnectError, ConnectOptions, EngineId, Mechanism, Named, Origin, PieceKind, ProcessTask, QueryError,
    Silence, SubmitError, Targets, TaskError, Unauthorized,
};
use remuda_net::{Context, Kind, Received, Socket};
use remuda_proto::{
    Date, EngineConnection, Envelope, Frames, Header, Identity, Key, MsgId, MsgType, Packer, Session, invitation,
};
use serde_json::{Value, json};

/// How long anything may take before it counts as hung.
const DEADLINE: Duration = Duration::from_secs(60);
const KEY: &str = "the key";

/// The sockets of a controller, and the file that names them.
struct Controller {
    query: Socket,
    notification: Socket,
    mux: Socket,
    task: Socket,
    broadcast: Socket,
    control: Socket,
    /// An XPUB, which hears of subscriptions.
    iopub: zmq::Socket,
    session: Session,
    folder: tempfile::TempDir,
}

impl Controller {
    fn new() -> Self {
        let context = Context::new();
        let bind = |kind| Socket::builder(&context, kind).unwrap().bind("tcp://127.0.0.1:0").unwrap();
        let controller = Self {
            query: bind(Kind::Router),
            notification: bind(Kind::Pub),
            mux: bind(Kind::Router),
            task: bind(Kind::Router),
            broadcast: bind(Kind::Router),
            control: bind(Kind::Router),
            iopub: publisher(),
            session: Session::new("hub".into(), "u", Key::new(KEY), Packer::Json, 1),
            folder: tempfile::tempdir().unwrap(),
        };
        let port = |socket: &Socket| socket.port().unwrap();
        let file = json!({
            "interface": "tcp://*", "location": "", "key": KEY, "registration": port(&controller.query),
            "notification": port(&controller.notification), "mux": port(&controller.mux), "task": port(&controller.task),
            "control": port(&controller.control), "iopub": port_of(&controller.iopub), "broadcast": port(&controller.broadcast),
        });
        fs::write(controller.path(), file.to_string()).unwrap();
        controller
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("ipcontroller-client.json")
    }

    fn options(&self) -> ConnectOptions {
        ConnectOptions::file(self.path())
    }

    fn receive(socket: &mut Socket) -> Frames {
        assert!(socket.wait(DEADLINE), "nothing came");
        match socket.receive() {
            Some(Received::Message(frames)) => frames,
            other => panic!("{other:?}"),
        }
    }

    fn reply(&mut self, to: &Frames, metadata: &Value, content: &Value, buffers: &[Bytes]) -> Frames {
        let msg_type = Envelope::read(Packer::Json, &to.body).unwrap().msg_type.reply();
        let message = self.session.message(Date(0), msg_type, Some(to.body.header()), metadata, content, buffers);
        Frames::new([to.idents[0].clone()], message.unwrap().1)
    }

    /// Answers the next query, whatever it is.
    fn answer(&mut self, content: &Value) -> Frames {
        let request = Self::receive(&mut self.query);
        let reply = self.reply(&request, &json!({}), content, &[]);
        assert!(self.query.send_frames(&reply));
        request
    }

    fn publish(&mut self, topic: &str, msg_type: &str, parent: Option<&[u8]>, metadata: &Value, content: &Value) {
        let (_, body) = self.session.message(Date(0), msg_type.into(), parent, metadata, content, &[]).unwrap();
        if topic.is_empty() {
            assert!(self.notification.send_frames(&Frames::new(None, body)));
        } else {
            let frames = Frames::new([Identity::from(topic.as_bytes())], body);
            self.iopub.send_multipart(frames.parts(), 0).unwrap();
        }
    }

    /// Waits until the client has subscribed to output: what is published before is lost.
    fn await_subscriber(&self) {
        assert_eq!(self.iopub.recv_bytes(0).unwrap(), [1], "a subscription to everything");
    }
}

fn publisher() -> zmq::Socket {
    let socket = zmq::Context::new().socket(zmq::XPUB).unwrap();
    socket.set_rcvtimeo(i32::try_from(DEADLINE.as_millis()).unwrap()).unwrap();
    socket.bind("tcp://127.0.0.1:0").unwrap();
    socket
}

fn port_of(socket: &zmq::Socket) -> u16 {
    let endpoint = socket.get_last_endpoint().unwrap().unwrap();
    endpoint.rsplit_once(':').unwrap().1.parse().unwrap()
}

/// Runs the controller's side on a thread of its own.
fn controlled(
    mut controller: Controller,
    script: impl FnOnce(&mut Controller) + Send + 'static,
) -> JoinHandle<Controller> {
    std::thread::spawn(move || {
        script(&mut controller);
        controller
    })
}

fn engines() -> Value {
    json!({"status": "ok", "engines": {"0": "e0", "3": "e3"}})
}

fn ok() -> Value {
    json!({"status": "ok"})
}

/// A client that knows engines 0 and 3, and its controller, which then follows the script.
async fn connected(script: impl FnOnce(&mut Controller) + Send + 'static) -> (Client, JoinHandle<Controller>) {
    let controller = Controller::new();
    let options = controller.options();
    let thread = controlled(controller, |controller| {
        controller.answer(&engines());
        script(controller);
    });
    (Client::connect(options).await.unwrap(), thread)
}

fn ids(ids: &[u32]) -> Vec<EngineId> {
    ids.iter().copied().map(EngineId).collect()
}

#[tokio::test]
async fn engines_are_known_at_once_and_change_with_notifications() {
    let (client, thread) = connected(|_| {}).await;
    assert_eq!(client.engine_ids(), ids(&[0, 3]));
    assert_eq!(client.engines()[1].uuid.as_str(), "e3");
    assert_eq!(client.controller(), None);
    let mut controller = thread.join().unwrap();
    // A subscription may take effect late: the notification is repeated until it is seen.
    let joined = json!({"id": 4, "uuid": "e4"});
    loop {
        controller.publish("", "registration_notification", None, &json!({}), &joined);
        if client.wait_for_engines(3, Duration::from_millis(50)).await.is_ok() {
            break;
        }
    }
    assert_eq!(client.engine_ids(), ids(&[0, 3, 4]));
    let too_few = client.wait_for_engines(9, Duration::from_millis(1)).await.unwrap_err();
    assert_eq!((too_few.found, too_few.wanted), (3, 9));
}

#[tokio::test]
async fn a_function_is_called_by_name_and_gives_a_typed_result() {
    let (client, thread) = connected(|controller| {
        let request = Controller::receive(&mut controller.task);
        assert_eq!(request.body.content(), br#"{"remuda":{"function":"mul"}}"#);
        // This controller says nothing of itself, as a stock one: a Python engine could get the task.
        assert_eq!(request.body.buffer_count(), 2);
        assert!(request.body.buffer(0).unwrap().starts_with(b"cipyparallel.controller.dependency\n"));
        assert_eq!(request.body.last_buffer().unwrap(), &b"\x92\x06\x07"[..]);
        let metadata: Value = serde_json::from_slice(request.body.metadata()).unwrap();
        assert_eq!((&metadata["retries"], &metadata["targets"]), (&json!(2), &json!(["e3"])));
        assert_eq!((&metadata["after"], &metadata["timeout"]), (&json!(["x"]), &json!(1.5)));
        let metadata = json!({"status": "ok", "engine": "e3", "started": "2026-11-22T01:37:19Z"});
        let content = json!({"status": "ok", "remuda": "function"});
        let reply = controller.reply(
            &request,
            &metadata,
            &content,
            &[Bytes::from_static(b"K\x2a."), Bytes::from_static(b"\x2a")],
        );
        let parent = request.body.header();
        let stream = json!({"name": "stdout", "text": "6 * 7\n"});
        controller.await_subscriber();
        controller.publish("engine.3.stdout", "stream", Some(parent), &json!({}), &stream);
        let idle = json!({"execution_state": "idle"});
        controller.publish("engine.3.status", "status", Some(parent), &json!({"engine": "e3"}), &idle);
        assert!(controller.task.send_frames(&reply));
    })
    .await;
    let view = client.load_balanced_view().retries(2).targets(ids(&[3]));
    let view =
        view.timeout(Duration::from_millis(1500)).after(remuda_client::Dependency::all_succeed([MsgId::from("x")]));
    let result = view.call(Named::<_, i64>::new("mul"), (6, 7)).unwrap();
    assert_eq!(result.timeout(DEADLINE).await.unwrap(), 42);
    assert_eq!((&result).await.unwrap(), 42, "it can be asked for again");
    assert_eq!(result.value().await.unwrap(), serde_pickle::Value::I64(42));
    let metadata = result.metadata().unwrap();
    assert_eq!((metadata.engine_id, metadata.started), (Some(EngineId(3)), Date::parse("2026-11-22T01:37:19Z")));
    assert!(metadata.submitted.is_some() && metadata.received > Date(0));
    thread.join().unwrap();
    let output = result.output().await;
    assert!(output.complete, "{output:?}");
    assert_eq!(output.stdout(), "6 * 7\n");
    let mut live = result.live_output();
    assert_eq!(live.next().await.unwrap().kind, PieceKind::Stdout("6 * 7\n".into()));
    assert_eq!(live.next().await, None);
    assert_eq!(live.next().await, None, "it may be asked for more than there is");
    assert_eq!(client.outstanding(), 0);
    assert!(matches!(
        view.targets(ids(&[9])).call(Named::<_, i64>::new("mul"), 1),
        Err(SubmitError::NoSuchEngine { id: 9 })
    ));
}

#[tokio::test]
async fn a_map_is_in_order_however_the_replies_come_and_keeps_what_succeeded() {
    let (client, thread) = connected(|controller| {
        let requests: Vec<Frames> = (0..4).map(|_| Controller::receive(&mut controller.task)).collect();
        for request in requests.iter().rev() {
            let argument = request.body.last_buffer().unwrap();
            let reply = if &*argument == b"\x02" {
                let info = json!({"engine_uuid": "e0", "engine_id": 0, "method": "apply"});
                let content =
                    json!({"status": "error", "ename": "Bad", "evalue": "two", "traceback": [], "engine_info": info});
                controller.reply(request, &json!({"status": "error", "engine": "e0"}), &content, &[])
            } else {
                let content = json!({"status": "ok", "remuda": "function"});
                controller.reply(request, &ok(), &content, &[Bytes::from_static(b"N."), argument])
            };
            assert!(controller.task.send_frames(&reply));
        }
    })
    .await;
    let error = client.load_balanced_view().map(Named::<_, u8>::new("same"), 0..4_u8).await.unwrap_err();
    assert_eq!((error.first().items.clone(), error.total), (2..3, 4));
    assert_eq!(error.succeeded, [(0, 0), (1, 1), (3, 3)]);
    assert!(matches!(error.into_first(), TaskError::Remote(remote) if remote.evalue == "two"));
    thread.join().unwrap();
}

#[tokio::test]
async fn a_program_gets_its_stdin_and_gives_its_exit_code() {
    let (client, thread) = connected(|controller| {
        let request = Controller::receive(&mut controller.mux);
        // The client's ident, then the engine's.
        assert_eq!(request.idents[1].as_bytes(), b"e0");
        assert_eq!(request.body.content(), br#"{"remuda":{"process":{"argv":["cat"],"input":"stdin"}}}"#);
        let content = json!({"status": "error", "ename": "ProcessFailed", "evalue": "", "traceback": [], "engine_info": {},
            "remuda": {"process": {"exit_code": null, "signal": 9, "wall_us": 1}}});
        let buffers = [Bytes::from_static(b"N."), request.body.last_buffer().unwrap(), Bytes::new()];
        let reply = controller.reply(&request, &json!({"status": "error", "engine": "e0"}), &content, &buffers);
        assert!(controller.mux.send_frames(&reply));
    })
    .await;
    let task = ProcessTask { argv: vec!["cat".into()], ..ProcessTask::default() };
    let view = client.direct_view(ids(&[0]));
    let results = view.process(task, Bytes::from_static(b"in")).unwrap().await.unwrap();
    assert_eq!((results[0].outcome.signal, &*results[0].stdout), (Some(9), &b"in"[..]));
    assert!(matches!(view.process(ProcessTask::default(), None), Err(SubmitError::NoProgram)));
    thread.join().unwrap();
}

/// What a leaf makes of a broadcast for one of its engines.
fn part_header(request: &Frames, engine: &str) -> Vec<u8> {
    let mut header: Header = serde_json::from_slice(request.body.header()).unwrap();
    header.msg_id = format!("{}_{engine}", header.msg_id).into();
    serde_json::to_vec(&header).unwrap()
}

#[tokio::test]
async fn a_broadcast_is_sent_once_and_gives_a_result_for_each_engine() {
    let (client, thread) = connected(|controller| {
        let request = Controller::receive(&mut controller.broadcast);
        let metadata: Value = serde_json::from_slice(request.body.metadata()).unwrap();
        let expected = json!({"targets": [["e3", 3], ["e0", 0]], "is_broadcast": true, "is_coalescing": false});
        assert_eq!(metadata, expected);
        assert_eq!((request.idents.len(), request.body.last_buffer().as_deref()), (1, Some(&b"\x92\x06\x07"[..])));
        controller.await_subscriber();
        let buffers = [Bytes::from_static(b"N."), Bytes::from_static(b"\x2a")];
        for engine in ["e0", "e3"] {
            let parent = part_header(&request, engine);
            let stream = json!({"name": "stdout", "text": engine});
            controller.publish("engine.stdout", "stream", Some(&parent), &json!({}), &stream);
            let idle = json!({"execution_state": "idle"});
            controller.publish("engine.status", "status", Some(&parent), &json!({"engine": engine}), &idle);
            let metadata = json!({"status": "ok", "engine": engine, "is_broadcast": true});
            let content = json!({"status": "ok", "remuda": "function"});
            let session = &mut controller.session;
            let message = session.message(Date(0), MsgType::ApplyReply, Some(&parent), &metadata, &content, &buffers);
            assert!(controller.broadcast.send_frames(&Frames::new([request.idents[0].clone()], message.unwrap().1)));
        }
    })
    .await;
    let results = client.broadcast_view(ids(&[3, 0, 3, 9])).call(Named::<_, i64>::new("mul"), (6, 7)).unwrap();
    assert_eq!(results.len(), 3);
    for (index, engine) in [(0, "e3"), (1, "e0")] {
        let result = results.results().nth(index).unwrap().unwrap();
        assert_eq!(result.timeout(DEADLINE).await.unwrap(), 42);
        assert_eq!(result.metadata().unwrap().engine_uuid.unwrap().as_str(), engine);
        assert!(result.msg_id().as_str().ends_with(engine), "{}", result.msg_id());
        let output = result.output().await;
        assert!(output.complete && output.stdout() == engine, "{output:?}");
    }
    thread.join().unwrap();
    assert!(matches!(results.results().nth(2), Some(Err(SubmitError::NoSuchEngine { id: 9 }))));
    assert_eq!(client.outstanding(), 0);
}

#[tokio::test]
async fn a_broadcast_without_engines_is_refused_and_one_to_unknown_ones_fails_without_being_sent() {
    let (client, thread) = connected(|controller| {
        let first = Controller::receive(&mut controller.broadcast);
        let content: Value = serde_json::from_slice(first.body.content()).unwrap();
        assert_eq!(content["code"], "to somebody");
    })
    .await;
    let nobody = client.broadcast_view(ids(&[])).execute("1");
    assert!(matches!(nobody, Err(SubmitError::NoTargets)), "{nobody:?}");
    let error = client
        .broadcast_view(ids(&[8, 9]))
        .coalesce(true)
        .call(Named::<_, ()>::new("f"), 1)
        .unwrap()
        .await
        .unwrap_err();
    assert!(
        matches!(&error.first().error, TaskError::NotSubmitted(why) if matches!(**why, SubmitError::NoSuchEngine { id: 8 })),
        "{error:?}"
    );
    assert_eq!(error.failed(), 2);
    let sent = client.broadcast_view(Targets::All).execute("to somebody").unwrap();
    assert_eq!(sent.len(), 2);
    thread.join().unwrap();
}

#[tokio::test]
async fn replies_are_coalesced_for_functions_and_for_nothing_else() {
    let (client, thread) = connected(|controller| {
        let coalescing = |request: &Frames| -> Value {
            let metadata: Value = serde_json::from_slice(request.body.metadata()).unwrap();
            metadata["is_coalescing"].clone()
        };
        let request = Controller::receive(&mut controller.broadcast);
        assert_eq!(coalescing(&request), json!(true));
        let parent = part_header(&request, "e0");
        let metadata = json!({"status": "ok", "engine": "e0", "is_broadcast": true, "is_coalescing": true,
            "broadcast_targets": [["e3", 3], ["e0", 0]]});
        let buffers = [Bytes::from_static(b"K\x03."), Bytes::from_static(b"K\x00.")];
        let message =
            controller.session.message(Date(0), MsgType::ApplyReply, Some(&parent), &metadata, &ok(), &buffers);
        assert!(controller.broadcast.send_frames(&Frames::new([request.idents[0].clone()], message.unwrap().1)));
        for _ in 0..2 {
            assert_eq!(coalescing(&Controller::receive(&mut controller.broadcast)), json!(false));
        }
    })
    .await;
    let view = client.broadcast_view(Targets::All).coalesce(true);
    let results = view.call_python::<_, i64>("os", "getpid", &()).unwrap();
    let ids = tokio::time::timeout(DEADLINE, results.get()).await.unwrap().unwrap();
    assert_eq!(ids, [0, 3]);
    view.execute("1").unwrap();
    view.process(ProcessTask { argv: vec!["true".into()], ..ProcessTask::default() }, None).unwrap();
    thread.join().unwrap();
}

#[tokio::test]
async fn a_task_that_a_controller_died_with_before_it_took_it_goes_to_the_next_as_it_was() {
    let welcome = |pid: u32| {
        let mut list = engines();
        list["remuda"] = json!({"version": "1", "pid": pid, "scheme": "lru", "hwm": 1, "durability": "sync"});
        list
    };
    let controller = Controller::new();
    let options = controller.options();
    let thread = controlled(controller, move |controller| {
        controller.answer(&welcome(1));
        let swallowed = Controller::receive(&mut controller.task);
        controller.answer(&welcome(2));
        let nobody_knows = |question: &Frames| {
            let asked: Value = serde_json::from_slice(question.body.content()).unwrap();
            json!({"status": "ok", "pending": [], "completed": [], "unknown": asked["msg_ids"]})
        };
        let question = Controller::receive(&mut controller.query);
        let answer = controller.reply(&question, &json!({}), &nobody_knows(&question), &[]);
        assert!(controller.query.send_frames(&answer));
        // It could be on its way: the same is asked behind it.
        let question = Controller::receive(&mut controller.task);
        assert_eq!(Envelope::read(Packer::Json, &question.body).unwrap().msg_type, MsgType::ResultRequest);
        let answer = controller.reply(&question, &json!({}), &nobody_knows(&question), &[]);
        assert!(controller.query.send_frames(&answer));
        let again = Controller::receive(&mut controller.task);
        assert_eq!(again, swallowed, "from the same name, in the same bytes");
        let content = json!({"status": "ok", "remuda": "function"});
        let buffers = [Bytes::from_static(b"N."), Bytes::from_static(b"\x07")];
        let reply = controller.reply(&again, &ok(), &content, &buffers);
        assert!(controller.task.send_frames(&reply));
    });
    let client = Client::connect(options).await.unwrap();
    let result = client.load_balanced_view().call(Named::<_, u8>::new("seven"), ()).unwrap();
    assert_eq!(result.timeout(DEADLINE).await.unwrap(), 7);
    thread.join().unwrap();
}

#[tokio::test]
async fn a_direct_task_fails_with_its_engine() {
    let (client, thread) = connected(|controller| {
        Controller::receive(&mut controller.mux);
        let left = json!({"id": 3, "uuid": "e3"});
        controller.publish("", "unregistration_notification", None, &json!({}), &left);
    })
    .await;
    let result = client.direct_view(ids(&[3])).execute("while True: pass");
    let error = tokio::time::timeout(DEADLINE, result.get()).await.unwrap().unwrap_err();
    assert!(
        matches!(error.into_first(), TaskError::EngineLost { engine: Some(engine), .. } if engine.as_str() == "e3")
    );
    assert_eq!(client.engine_ids(), ids(&[0]));
    let gone = client.direct_view(ids(&[3])).execute("1").await.unwrap_err();
    assert!(
        matches!(gone.into_first(), TaskError::NotSubmitted(error) if matches!(*error, SubmitError::NoSuchEngine { id: 3 }))
    );
    thread.join().unwrap();
}

#[tokio::test]
async fn an_abort_goes_to_every_engine_that_may_get_the_task() {
    let (client, thread) = connected(|controller| {
        let mut told = Vec::new();
        for _ in 0..2 {
            let request = Controller::receive(&mut controller.control);
            let content: Value = serde_json::from_slice(request.body.content()).unwrap();
            assert_eq!(content["remuda"], json!({"stop": true}));
            assert_eq!(content["msg_ids"].as_array().unwrap().len(), 1);
            told.push(request.idents[1].to_string());
            let reply = controller.reply(&request, &json!({}), &ok(), &[]);
            assert!(controller.control.send_frames(&reply));
        }
        told.sort();
        assert_eq!(told, ["e0", "e3"]);
        let request = Controller::receive(&mut controller.task);
        let aborted = json!({"status": "aborted"});
        let reply = controller.reply(&request, &aborted, &aborted, &[]);
        assert!(controller.task.send_frames(&reply));
    })
    .await;
    let result = client.load_balanced_view().call(Named::<_, ()>::new("sleep"), 100).unwrap();
    result.stop().await.unwrap();
    assert!(matches!(result.timeout(DEADLINE).await, Err(TaskError::Aborted { .. })));
    thread.join().unwrap();
}

#[tokio::test]
async fn questions_are_answered_refused_or_given_up() {
    let controller = Controller::new();
    let options = controller.options().query_timeout(Duration::from_millis(200));
    let thread = controlled(controller, |controller| {
        controller.answer(&engines());
        let status = json!({"status": "ok", "0": {"queue": 0, "completed": 6, "tasks": 0}, "unassigned": 2});
        let request = controller.answer(&status);
        let header: Header = serde_json::from_slice(request.body.header()).unwrap();
        assert_eq!(header.msg_type, MsgType::QueueRequest);
        controller
            .answer(&json!({"status": "error", "ename": "IndexError", "evalue": "msg pending: 'x'", "traceback": []}));
    });
    let client = Client::connect(options).await.unwrap();
    let status = client.status().await.unwrap();
    assert_eq!((status.queues.unassigned, status.queues.engines[&EngineId(0)].completed), (2, 6));
    assert_eq!(status.remuda, None);
    let refused = client.purge(remuda_client::query::Purge::Tasks(vec!["x".into()])).await.unwrap_err();
    assert!(matches!(refused, QueryError::Refused { source, .. } if source.ename == "IndexError"));
    let _controller = thread.join().unwrap();
    assert!(matches!(client.queue_status().await, Err(QueryError::NoAnswer { .. })));
}

#[tokio::test]
async fn a_shutdown_disconnects_and_leaves_nobody_waiting() {
    let (client, thread) = connected(|controller| {
        Controller::receive(&mut controller.task);
        for _ in 0..2 {
            let request = Controller::receive(&mut controller.control);
            let reply = controller.reply(&request, &json!({}), &json!({"status": "ok", "restart": false}), &[]);
            assert!(controller.control.send_frames(&reply));
        }
        controller.answer(&ok());
        controller.publish("", "shutdown_notification", None, &json!({}), &ok());
    })
    .await;
    let result = client.load_balanced_view().call(Named::<_, ()>::new("sleep"), 100).unwrap();
    client.shutdown(Targets::All, true).await.unwrap();
    assert!(matches!(result.timeout(DEADLINE).await, Err(TaskError::Shutdown { .. })));
    // The thread goes with the controller, and says so to whoever comes later.
    result.output().await;
    assert!(matches!(client.queue_status().await, Err(QueryError::Disconnected)));
    let later = client.load_balanced_view().call(Named::<_, ()>::new("sleep"), 100);
    assert!(matches!(later, Err(SubmitError::Disconnected)));
    thread.join().unwrap();
}

#[tokio::test]
async fn a_file_that_is_of_no_use_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let security = folder.path().join("security");
    fs::create_dir(&security).unwrap();
    let path = security.join("ipcontroller-c-client.json");
    let connect =
        async || Client::connect(ConnectOptions::profile_dir(folder.path()).cluster_id("c")).await.unwrap_err();
    let check = |error: &ConnectError| {
        let text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        assert!(text.contains("remuda controller --profile-dir"), "{text}");
        assert!(text.contains("--cluster-id c"), "{text}");
    };
    let missing = connect().await;
    assert!(matches!(missing, ConnectError::NoFile { .. }), "{missing:?}");
    check(&missing);
    fs::write(&path, "{").unwrap();
    let invalid = connect().await;
    assert!(matches!(invalid, ConnectError::File { .. }), "{invalid:?}");
    check(&invalid);
    // A port where nobody listens any more.
    let controller = Controller::new();
    fs::copy(controller.path(), &path).unwrap();
    drop(controller);
    let stale = connect().await;
    assert!(matches!(stale, ConnectError::Stale { .. }), "{stale:?}");
    check(&stale);
}

#[tokio::test]
async fn a_controller_that_does_not_answer_may_have_another_key() {
    let controller = Controller::new();
    let error = Client::connect(controller.options().timeout(Duration::from_millis(200))).await.unwrap_err();
    assert!(matches!(error, ConnectError::NoAnswer { silence: Silence::Peer, .. }), "{error:?}");
    let text = error.to_string();
    for words in ["key", "remuda controller", "ipcontroller-client.json", "127.0.0.1:"] {
        assert!(text.contains(words), "`{words}` is not in: {text}");
    }
}

/// What listens at the hub's address says this, and no more.
async fn connect_to(says: &'static [u8], timeout: Duration) -> ConnectError {
    let controller = Controller::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut file: Value = serde_json::from_slice(&fs::read(controller.path()).unwrap()).unwrap();
    file["registration"] = listener.local_addr().unwrap().port().into();
    fs::write(controller.path(), file.to_string()).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = stream.write_all(says);
                let _ = stream.read_to_end(&mut Vec::new());
            });
        }
    });
    Client::connect(controller.options().timeout(timeout)).await.unwrap_err()
}

#[tokio::test]
async fn another_program_on_the_port_is_told_from_one_that_says_nothing() {
    let timeout = Duration::from_secs(3);
    let (foreign, mute) = tokio::join!(connect_to(b"SSH-2.0-OpenSSH_9.9\r\n", timeout), connect_to(b"", timeout));
    assert!(matches!(foreign, ConnectError::NoAnswer { silence: Silence::Foreign, .. }), "{foreign:?}");
    assert!(matches!(mute, ConnectError::NoAnswer { silence: Silence::Mute, .. }), "{mute:?}");
}

#[tokio::test]
async fn who_does_not_encrypt_is_not_authorized_where_curve_is_wanted() {
    const CURVE: &[u8; 64] = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0CURVE\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\
        \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    // Nobody waits for an answer that cannot come.
    let error = connect_to(CURVE, Duration::from_secs(86_400)).await;
    let expected = Unauthorized::Mechanism { theirs: Mechanism::Curve, ours: Mechanism::Null };
    assert!(matches!(&error, ConnectError::Unauthorized { reason, .. } if *reason == expected), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("`curve_serverkey`") && text.contains("ipcontroller-client.json"), "{text}");
}

#[tokio::test]
async fn an_invitation_leads_to_a_controller() {
    let controller = Controller::new();
    let connection = remuda_net::connection_file::read_client(&controller.path()).unwrap();
    let word = invitation::to_word(&connection);
    let thread = controlled(controller, |controller| drop(controller.answer(&engines())));
    let client = Client::connect(ConnectOptions::url(&word)).await.unwrap();
    assert_eq!(client.engine_ids(), [EngineId(0), EngineId(3)]);
    drop(thread.join().unwrap());
    // Now nobody listens there.
    let stale = Client::connect(ConnectOptions::url(&word)).await.unwrap_err();
    assert!(matches!(stale, ConnectError::Stale { origin: Origin::Invitation, .. }), "{stale:?}");
    assert!(stale.to_string().contains("remuda cluster invite --client"), "{stale}");
}

#[tokio::test]
async fn an_invitation_that_is_none_for_clients_is_refused_without_a_word_of_it() {
    let engines: EngineConnection = serde_json::from_value(json!({
        "interface": "tcp://127.0.0.1", "registration": 1, "control": 2, "mux": 3, "task": 4, "iopub": 5, "hb_ping": 6,
        "hb_pong": 7, "broadcast": [8], "key": "hunter2",
    }))
    .unwrap();
    let word = invitation::to_word(&engines);
    for (given, says) in [(&*word, "remuda cluster invite --client"), (&word[..word.len() - 4], "incomplete")] {
        let error = Client::connect(ConnectOptions::url(given)).await.unwrap_err();
        let ConnectError::Invitation(source) = &error else { panic!("{error:?}") };
        assert!(source.to_string().contains(says), "{source}");
        assert!(!format!("{error:?} {error} {source}").contains(&word[10..30]), "{error:?}");
    }
}

#[tokio::test]
async fn a_controller_that_refuses_is_quoted() {
    let controller = Controller::new();
    let options = controller.options();
    let thread = controlled(controller, |controller| {
        controller.answer(&json!({"status": "error", "ename": "Full", "evalue": "go away", "traceback": []}));
    });
    let error = Client::connect(options).await.unwrap_err();
    let ConnectError::Refused { source, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(**source, QueryError::Refused { .. }), "{source:?}");
    thread.join().unwrap();
}

/// A bare TCP listener in the place of one socket sees when the client's end is closed.
#[tokio::test]
async fn the_last_handle_that_goes_ends_the_connection() {
    let controller = Controller::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut file: Value = serde_json::from_slice(&fs::read(controller.path()).unwrap()).unwrap();
    file["iopub"] = listener.local_addr().unwrap().port().into();
    fs::write(controller.path(), file.to_string()).unwrap();
    let options = controller.options();
    let thread = controlled(controller, |controller| drop(controller.answer(&engines())));
    let client = Client::connect(options).await.unwrap();
    let _controller = thread.join().unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let (clone, view) = (client.clone(), client.load_balanced_view());
    let result = view.call(Named::<_, ()>::new("sleep"), 100).unwrap();
    drop((client, clone, view));
    // The greeting comes; then nothing, for the result still waits.
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut greeting = Vec::new();
    let error = stream.read_to_end(&mut greeting).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    drop(result);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(stream.read_to_end(&mut greeting).unwrap(), 0);
}
