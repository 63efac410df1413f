use super::*;
use remuda_proto::{Key, Packer, SessionId, Status, VerifyError};
use serde_json::{Value, json};

const KEY: &str = "k";

fn session(id: &str, key: &str) -> Session {
    Session::new(SessionId::from(id), "u", Key::new(key), Packer::Json, 1)
}

fn ident(text: &str) -> Identity {
    Identity::from(text.as_bytes())
}

/// A relay with engine `e-1`, and a client.
struct World {
    relay: Relay,
    client: Session,
}

impl World {
    fn new(channel: Channel) -> Self {
        let mut relay = Relay::new(channel, session("relay", KEY));
        let registered =
            RelayEvent::Registered { uuid: "e-1".into(), id: EngineId(0), capability: Capability::stock() };
        relay.handle(Now::default(), registered, &mut Vec::new());
        Self { relay, client: session("client", KEY) }
    }

    fn request(&mut self, msg_type: &str, content: &Value) -> Body {
        self.client.message(Now::default().date, msg_type.into(), None, &json!({}), content, &[]).unwrap().1
    }

    fn handle(&mut self, event: RelayEvent) -> Vec<RelayEffect> {
        let mut out = Vec::new();
        self.relay.handle(Now::default(), event, &mut out);
        self.relay.check();
        out
    }

    fn send(&mut self, idents: &[&str], body: &Body) -> Vec<RelayEffect> {
        let frames = Frames::new(idents.iter().map(|text| ident(text)), body.clone());
        self.handle(RelayEvent::FromClient { client: ident("c"), frames })
    }

    fn answer(&mut self, idents: &[&str], body: &Body) -> Vec<RelayEffect> {
        let frames = Frames::new(idents.iter().map(|text| ident(text)), body.clone());
        self.handle(RelayEvent::FromEngine { engine: ident("e-1"), frames })
    }
}

fn reply(key: &str, parent: &[u8], metadata: &Value, content: &Value) -> Body {
    let parent = Some(parent);
    session("e-1", key).message(Now::default().date, MsgType::ApplyReply, parent, metadata, content, &[]).unwrap().1
}

#[test]
fn a_request_goes_unchanged_to_the_engine_it_names() {
    let mut world = World::new(Channel::Mux);
    let request = world.request("apply_request", &json!({}));
    let out = world.send(&["e-1", "beyond"], &request);
    let [
        RelayEffect::Monitor(Monitor::Request { queue: Queue::Mux, engine: Some(uuid), envelope, .. }),
        RelayEffect::ToEngine { engine, idents, body },
    ] = &out[..]
    else {
        panic!("{out:?}")
    };
    assert_eq!((uuid.as_str(), envelope.session.as_str()), ("e-1", "client"));
    assert_eq!((engine, body), (&ident("e-1"), &request));
    assert_eq!(idents[..], [ident("c"), ident("beyond")]);
}

#[test]
fn a_reply_goes_unchanged_to_the_client_it_names() {
    let mut world = World::new(Channel::Mux);
    let sent = reply(KEY, br#"{"msg_id": "m"}"#, &json!({"status": "error"}), &json!({"status": "error"}));
    let out = world.answer(&["c", "beyond"], &sent);
    let [
        RelayEffect::ToClient { client, idents, body },
        RelayEffect::Monitor(Monitor::Reply { queue: Queue::Mux, engine: Some(engine), msg_id, status, .. }),
    ] = &out[..]
    else {
        panic!("{out:?}")
    };
    assert_eq!((client, body), (&ident("c"), &sent));
    assert_eq!(idents[..], [ident("e-1"), ident("beyond")]);
    assert_eq!((engine.as_str(), msg_id.as_str(), *status), ("e-1", "m", Status::Error));
}

#[test]
fn what_an_engine_says_is_relayed_whatever_it_is() {
    let mut world = World::new(Channel::Mux);
    world.handle(RelayEvent::Unregistered { uuid: "e-1".into() });
    let ok = json!({"status": "ok"});
    // No status, no parent, a parent that is no map, metadata that is none: all go to the client; those that name
    // their request close its record.
    for (parent, metadata, content, recorded) in [
        (&br#"{"msg_id": "m"}"#[..], json!({}), json!({}), false),
        (b"{}", json!({}), ok.clone(), false),
        (b"5", json!({}), ok.clone(), false),
        (br#"{"msg_id": "m"}"#, json!([5]), ok.clone(), true),
        (br#"{"msg_id": "m"}"#, json!({}), ok, true),
    ] {
        let out = world.answer(&["c"], &reply(KEY, parent, &metadata, &content));
        assert!(matches!(out[0], RelayEffect::ToClient { .. }), "{out:?}");
        assert_eq!(out.len(), 1 + usize::from(recorded), "{out:?}");
    }
}

#[test]
fn a_request_for_an_engine_that_is_not_there_is_answered() {
    for channel in [Channel::Mux, Channel::Control] {
        let mut world = World::new(channel);
        for (idents, named, refusal) in [
            (&["e-9"][..], "No Such Engine: `e-9`", Refusal::UnknownEngine(ident("e-9"))),
            (&[], "names no engine", Refusal::NoTarget),
        ] {
            let request = world.request("execute_request", &json!({}));
            let out = world.send(idents, &request);
            let [RelayEffect::ToClient { client, idents, body }, RelayEffect::Refused { from, refusal: why }] =
                &out[..]
            else {
                panic!("{out:?}")
            };
            assert_eq!((client, from, why, idents.len()), (&ident("c"), &ident("c"), &refusal, 0));
            world.client.key().verify(body).unwrap();
            assert_eq!(Envelope::read(Packer::Json, body).unwrap().msg_type, MsgType::ExecuteReply);
            assert_eq!(body.parent_header(), request.header());
            let content: Value = serde_json::from_slice(body.content()).unwrap();
            assert_eq!((&content["ename"], &content["engine_info"]), (&json!("IndexError"), &json!({})));
            assert!(content["evalue"].as_str().unwrap().contains(named), "{content}");
        }
    }
}

#[test]
fn a_question_about_requests_is_handed_to_the_hub_by_the_direct_queue_alone() {
    let mut world = World::new(Channel::Mux);
    let question = world.request("result_request", &json!({"msg_ids": ["m"], "status_only": true}));
    let out = world.send(&[], &question);
    let [RelayEffect::Monitor(Monitor::Asked { client, body })] = &out[..] else { panic!("{out:?}") };
    assert_eq!((client, body), (&ident("c"), &question));
    let again = world.send(&[], &question);
    assert!(matches!(&again[..], [RelayEffect::Refused { refusal: Refusal::Verify(VerifyError::Duplicate), .. }]));
    // One that names an engine is for that.
    let question = world.request("result_request", &json!({}));
    assert!(matches!(world.send(&["e-1"], &question)[..], [.., RelayEffect::ToEngine { .. }]));
    let mut world = World::new(Channel::Control);
    let question = world.request("result_request", &json!({}));
    let out = world.send(&[], &question);
    assert!(matches!(
        &out[..],
        [RelayEffect::ToClient { .. }, RelayEffect::Refused { refusal: Refusal::NoTarget, .. }]
    ));
}

#[test]
fn an_engine_that_left_is_not_there() {
    let mut world = World::new(Channel::Mux);
    assert_eq!(world.relay.engines().count(), 1);
    world.handle(RelayEvent::Unregistered { uuid: "e-1".into() });
    let request = world.request("apply_request", &json!({}));
    let out = world.send(&["e-1"], &request);
    assert!(matches!(&out[1], RelayEffect::Refused { refusal: Refusal::UnknownEngine(_), .. }), "{out:?}");
}

#[test]
fn what_asks_nothing_is_neither_answered_nor_recorded() {
    let mut world = World::new(Channel::Mux);
    let comm = world.request("comm_msg", &json!({}));
    let out = world.send(&["e-1"], &comm);
    assert!(matches!(&out[..], [RelayEffect::ToEngine { .. }]), "{out:?}");
    let comm = world.request("comm_msg", &json!({}));
    let out = world.send(&["e-9"], &comm);
    assert!(matches!(&out[..], [RelayEffect::Refused { .. }]), "{out:?}");
}

#[test]
fn a_replayed_request_is_refused() {
    let mut world = World::new(Channel::Control);
    let request = world.request("signal_request", &json!({"sig": 2}));
    assert!(matches!(&world.send(&["e-1"], &request)[..], [RelayEffect::ToEngine { .. }]));
    let out = world.send(&["e-1"], &request);
    assert!(
        matches!(&out[..], [RelayEffect::Refused { refusal: Refusal::Verify(VerifyError::Duplicate), .. }]),
        "{out:?}"
    );
}

#[test]
fn what_cannot_be_believed_or_read_is_refused() {
    let mut world = World::new(Channel::Mux);
    let mut stranger = session("x", "other");
    let (_, forged) =
        stranger.message(Now::default().date, MsgType::ApplyRequest, None, &json!({}), &json!({}), &[]).unwrap();
    for out in [world.send(&["e-1"], &forged), world.answer(&["c"], &forged)] {
        assert!(
            matches!(&out[..], [RelayEffect::Refused { refusal: Refusal::Verify(VerifyError::Invalid), .. }]),
            "{out:?}"
        );
    }
    let garbage = world.client.sign_parts([b"]", b"{}", b"{}", b"{}"], []);
    let out = world.send(&["e-1"], &garbage);
    assert!(matches!(&out[..], [RelayEffect::Refused { refusal: Refusal::Unpack(_), .. }]), "{out:?}");
    let out = world.answer(&[], &reply(KEY, b"{}", &json!({}), &json!({})));
    assert!(matches!(&out[..], [RelayEffect::Refused { refusal: Refusal::NoTarget, .. }]), "{out:?}");
}

#[test]
fn an_abort_is_heard_by_the_task_scheduler_and_relayed() {
    let mut world = World::new(Channel::Control);
    let request = world.request("abort_request", &json!({"msg_ids": ["a", "b"]}));
    let out = world.send(&["e-1"], &request);
    let [RelayEffect::Abort { msg_ids, .. }, RelayEffect::ToEngine { body, .. }] = &out[..] else { panic!("{out:?}") };
    assert_eq!((&msg_ids[..], body), (&[MsgId::from("a"), MsgId::from("b")][..], &request));
    for content in [json!({}), json!({"msg_ids": []}), json!({"msg_ids": 5})] {
        let request = world.request("abort_request", &content);
        let out = world.send(&["e-1"], &request);
        assert!(matches!(&out[..], [RelayEffect::ToEngine { .. }]), "{out:?}");
    }
    // On the direct queue it is a message like any other.
    let mut world = World::new(Channel::Mux);
    let request = world.request("abort_request", &json!({"msg_ids": ["a"]}));
    let out = world.send(&["e-1"], &request);
    assert!(!out.iter().any(|effect| matches!(effect, RelayEffect::Abort { .. })), "{out:?}");
}

#[test]
fn control_is_not_recorded() {
    let mut world = World::new(Channel::Control);
    let out = world.answer(&["c"], &reply(KEY, br#"{"msg_id": "m"}"#, &json!({}), &json!({"status": "ok"})));
    assert!(matches!(&out[..], [RelayEffect::ToClient { .. }]), "{out:?}");
}

#[test]
fn a_request_that_its_engine_does_not_read_is_answered_and_the_hub_is_told() {
    for (channel, told) in [(Channel::Mux, 1), (Channel::Control, 0)] {
        let mut world = World::new(channel);
        let body = world.request("apply_request", &json!({}));
        world.send(&["e-1"], &body);
        let idents = std::iter::once(ident("c")).collect();
        let out = world.handle(RelayEvent::Undelivered { engine: ident("e-1"), idents, body });
        let RelayEffect::ToClient { client, body, .. } = &out[0] else { panic!("{out:?}") };
        assert_eq!(*client, ident("c"));
        assert!(String::from_utf8_lossy(body.content()).contains("--max-unread-bytes"), "{body:?}");
        let monitored = |effect: &&RelayEffect| matches!(effect, RelayEffect::Monitor(Monitor::Reply { .. }));
        assert_eq!((out.iter().filter(monitored).count(), out.len()), (told, 1 + told));
    }
}

#[test]
fn messages_beyond_the_limit_are_answered_with_an_error_either_way() {
    let mut world = World::new(Channel::Mux);
    world.relay = world.relay.with_message_limit(2000);
    let large = json!({"text": "x".repeat(3000)});
    let request = world.request("apply_request", &large);
    let out = world.send(&["e-1"], &request);
    let [RelayEffect::ToClient { body, .. }, RelayEffect::Refused { refusal, .. }] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(refusal.kind(), "too_large");
    assert!(String::from_utf8_lossy(body.content()).contains("--max-message-bytes"), "{body:?}");

    let answer = reply(KEY, br#"{"msg_id": "m"}"#, &json!({"status": "ok"}), &large);
    let out = world.answer(&["c"], &answer);
    let [
        RelayEffect::Monitor(Monitor::Reply { msg_id, status, .. }),
        RelayEffect::ToClient { client, body, .. },
        RelayEffect::Refused { .. },
    ] = &out[..]
    else {
        panic!("{out:?}")
    };
    assert_eq!((msg_id.as_str(), *status, client), ("m", Status::Error, &ident("c")));
    assert_eq!(body.parent_header(), br#"{"msg_id": "m"}"#);
}

mod takeover {
    //! Records: nothing is seen that is not on disk, and what an earlier controller left.

    use remuda_proto::monitor::Durability;
    use remuda_proto::recovery::{FinishedTask, Recovered};

    use super::*;

    fn sync() -> World {
        let mut world = World::new(Channel::Mux);
        world.relay = Relay::new(Channel::Mux, session("relay", KEY)).with_durability(Durability::Sync);
        world.join("e-1");
        world
    }

    impl World {
        fn join(&mut self, uuid: &str) -> Vec<RelayEffect> {
            self.handle(RelayEvent::Registered { uuid: uuid.into(), id: EngineId(0), capability: Capability::stock() })
        }

        fn committed(&mut self, ticket: u64) -> Vec<RelayEffect> {
            self.handle(RelayEvent::Committed { ticket: Ticket(ticket) })
        }

        fn pass(&mut self, time: Duration) -> Vec<RelayEffect> {
            let mut out = Vec::new();
            self.relay.on_deadline(Now { instant: Instant(0) + time, ..Now::default() }, &mut out);
            self.relay.check();
            out
        }

        /// A relay that takes over these requests to `e-1`.
        fn inherits(bodies: &[&Body]) -> Self {
            let mut world = Self::new(Channel::Mux);
            world.relay = Relay::new(Channel::Mux, session("relay", KEY));
            let tasks = bodies.iter().map(|body| Recovered {
                queue: Queue::Mux,
                client: Some(ident("c")),
                msg_id: id(body),
                body: (*body).clone(),
                engine: Some("e-1".into()),
                tried: Vec::new(),
                retries: 0,
                waited: Duration::ZERO,
            });
            let recovery = Recovery { tasks: tasks.collect(), engines: vec!["e-1".into()], ..Recovery::default() };
            assert!(world.handle(RelayEvent::Recover(Box::new(recovery))).is_empty());
            world
        }

        /// The engine answers what it was asked.
        fn hear(&mut self, question: &[RelayEffect], has: Option<&[MsgId]>) -> Vec<RelayEffect> {
            let [RelayEffect::ToEngine { body, idents, .. }] = question else { panic!("{question:?}") };
            assert_eq!(idents[0], ident("hub"));
            let content = match has {
                None => json!({"status": "ok"}),
                Some(has) => json!({"status": "ok", "remuda": {"has": has}}),
            };
            let body = reply(KEY, body.header(), &json!({}), &content);
            self.answer(&["hub"], &body)
        }
    }

    fn id(body: &Body) -> MsgId {
        Envelope::read(Packer::Json, body).unwrap().msg_id
    }

    fn ok(request: &Body) -> Body {
        reply(KEY, request.header(), &json!({"status": "ok"}), &json!({"status": "ok"}))
    }

    /// `request`, `reply`: to the hub; `engine`, `client`: the rest.
    fn words(effects: &[RelayEffect]) -> Vec<&'static str> {
        let word = |effect: &RelayEffect| match effect {
            RelayEffect::ToEngine { .. } => "engine",
            RelayEffect::ToClient { .. } => "client",
            RelayEffect::Monitor(Monitor::Request { .. }) => "request",
            RelayEffect::Monitor(Monitor::Reply { .. }) => "reply",
            RelayEffect::Refused { .. } => "refused",
            other => panic!("{other:?}"),
        };
        effects.iter().map(word).collect()
    }

    /// Which error a client is told for which request.
    fn told(effects: &[RelayEffect]) -> Vec<(MsgId, String)> {
        let told = effects.iter().filter_map(|effect| match effect {
            RelayEffect::ToClient { client, body, .. } => {
                assert_eq!(*client, ident("c"));
                let error: RemoteError = Packer::Json.unpack(body.content()).unwrap();
                Some((parent_msg_id(Packer::Json, body).unwrap().unwrap(), error.ename))
            }
            _ => None,
        });
        told.collect()
    }

    #[test]
    fn a_request_goes_out_once_it_is_on_disk_and_so_does_its_reply() {
        let mut world = sync();
        let request = world.request("apply_request", &json!({}));
        assert_eq!(words(&world.send(&["e-1"], &request)), ["request"]);
        // What needs no record keeps its place.
        let other = world.request("comm_msg", &json!({}));
        assert!(world.send(&["e-1"], &other).is_empty());
        assert_eq!(words(&world.committed(1)), ["engine", "engine"]);
        assert_eq!(words(&world.answer(&["c"], &ok(&request))), ["reply"]);
        assert_eq!(words(&world.committed(2)), ["client"]);
        let nowhere = world.request("apply_request", &json!({}));
        assert_eq!(words(&world.send(&["nobody"], &nowhere)), ["client", "refused"]);
    }

    #[test]
    fn control_requests_never_wait_for_the_disk() {
        let relay = Relay::new(Channel::Control, session("relay", KEY)).with_durability(Durability::Sync);
        let mut world = World { relay, client: session("client", KEY) };
        world.join("e-1");
        let request = world.request("shutdown_request", &json!({}));
        assert_eq!(words(&world.send(&["e-1"], &request)), ["engine"]);
    }

    #[test]
    fn what_an_engine_does_not_answer_before_the_question_was_lost_and_its_client_is_told() {
        let mut client = World::new(Channel::Mux);
        let [one, two] = std::array::from_fn(|_| client.request("apply_request", &json!({})));
        let mut world = World::inherits(&[&one, &two]);
        // A reply may come before the engine is registered again.
        assert_eq!(words(&world.answer(&["c"], &ok(&one))), ["client", "reply"]);
        let question = world.join("e-1");
        // What is new waits: the connection may not be there yet.
        let new = client.request("apply_request", &json!({}));
        assert_eq!(words(&world.send(&["e-1"], &new)), ["request"]);
        let out = world.hear(&question, None);
        assert_eq!(words(&out), ["client", "reply", "engine"]);
        assert_eq!(told(&out), [(id(&two), "EngineError".to_owned())]);
        assert_eq!(words(&world.answer(&["c"], &ok(&new))), ["client", "reply"]);
        world.pass(REATTACH);
        assert_eq!(world.relay.deadline(), None, "nothing can come any more");
    }

    #[test]
    fn what_an_engine_sends_again_is_not_delivered_twice() {
        let mut client = World::new(Channel::Mux);
        let requests: [Body; 3] = std::array::from_fn(|_| client.request("apply_request", &json!({})));
        let [one, two, three] = &requests;
        let mut world = World::inherits(&[one, two, three]);
        assert_eq!(words(&world.answer(&["c"], &ok(one))), ["client", "reply"]);
        let question = world.join("e-1");
        assert_eq!(words(&world.answer(&["c"], &ok(one))), ["refused"], "it holds it, and was asked for it");
        assert_eq!(told(&world.hear(&question, Some(&[id(two)]))), [(id(three), "EngineError".to_owned())]);
        assert_eq!(words(&world.answer(&["c"], &ok(two))), ["client", "reply"], "it was running");
        assert_eq!(words(&world.answer(&["c"], &ok(two))), ["refused"], "the question was asked a second time");
        assert_eq!(words(&world.answer(&["c"], &ok(three))), ["refused"], "its client was told that it is lost");
    }

    #[test]
    fn what_was_given_up_is_not_delivered_when_it_comes_after_all_however_late() {
        let mut client = World::new(Channel::Mux);
        let [one, new] = std::array::from_fn(|_| client.request("apply_request", &json!({})));
        let mut world = World::inherits(&[&one]);
        assert_eq!(told(&world.pass(REATTACH)), [(id(&one), "EngineError".to_owned())]);
        let question = world.join("e-1");
        assert!(world.hear(&question, Some(&[id(&one)])).is_empty(), "it runs there");
        world.pass(REATTACH * 10);
        world.send(&["e-1"], &new);
        assert_eq!(words(&world.answer(&["c"], &ok(&new))), ["client", "reply"]);
        assert_eq!(words(&world.answer(&["c"], &ok(&one))), ["refused"]);
    }

    #[test]
    fn what_an_earlier_controller_gave_up_is_not_delivered_when_it_comes_after_all() {
        let mut client = World::new(Channel::Mux);
        let [given_up, new] = std::array::from_fn(|_| client.request("apply_request", &json!({})));
        let failed = |body: &Body| FinishedTask { msg_id: id(body), ok: false, engine: Some("e-1".into()) };
        // The earlier one may have taken it for gone, or not.
        for engines in [vec!["e-1".into()], Vec::new()] {
            let mut world = World::new(Channel::Mux);
            let finished = vec![failed(&given_up)];
            world.handle(RelayEvent::Recover(Box::new(Recovery { finished, engines, ..Recovery::default() })));
            assert_eq!(words(&world.answer(&["c"], &ok(&given_up))), ["refused"]);
            assert!(world.pass(REATTACH * 2).is_empty());
            let question = world.join("e-1");
            assert_eq!(words(&world.answer(&["c"], &ok(&given_up))), ["refused"]);
            world.hear(&question, None);
            world.send(&["e-1"], &new);
            assert_eq!(words(&world.answer(&["c"], &ok(&new))), ["client", "reply"]);
        }
    }

    #[test]
    fn what_a_native_engine_says_that_it_has_is_not_lost() {
        let mut client = World::new(Channel::Mux);
        let [one, two] = std::array::from_fn(|_| client.request("apply_request", &json!({})));
        let mut world = World::inherits(&[&one, &two]);
        let question = world.join("e-1");
        assert_eq!(told(&world.hear(&question, Some(&[id(&two)]))), [(id(&one), "EngineError".to_owned())]);
        assert_eq!(words(&world.answer(&["c"], &ok(&two))), ["client", "reply"]);
    }

    #[test]
    fn a_reply_to_a_request_of_an_earlier_controller_goes_to_its_client_by_the_name_that_it_has_now() {
        let mut client = World::new(Channel::Mux);
        let [one, two, three] = std::array::from_fn(|_| client.request("apply_request", &json!({})));
        let mut world = World::inherits(&[&one, &two]);
        let goes_to = |out: &[RelayEffect]| match out {
            [RelayEffect::ToClient { client, idents, .. }, RelayEffect::Monitor(_)] => {
                assert_eq!(idents[..], [ident("e-1")]);
                client.clone()
            }
            other => panic!("{other:?}"),
        };
        // The engine says the name that its client's connection had: another's now.
        assert_eq!(goes_to(&world.answer(&["another"], &ok(&one))), ident("c"));
        let question = world.join("e-1");
        world.hear(&question, Some(&[id(&two)]));
        assert_eq!(goes_to(&world.answer(&["another"], &ok(&two))), ident("c"));
        // What this controller had sent it says the name that is right.
        assert_eq!(goes_to(&world.answer(&["another"], &ok(&three))), ident("another"));
    }

    #[test]
    fn an_engine_that_does_not_come_back_is_given_up_and_one_that_is_busy_is_not() {
        let mut client = World::new(Channel::Mux);
        let one = client.request("apply_request", &json!({}));
        let mut world = World::inherits(&[&one]);
        assert_eq!(world.relay.deadline(), Some(Instant(0) + REATTACH));
        assert_eq!(told(&world.pass(REATTACH)), [(id(&one), "EngineError".to_owned())]);
        let mut world = World::inherits(&[&one]);
        world.join("e-1");
        assert_eq!(words(&world.pass(Duration::from_secs(1))), ["engine"], "it is asked once more");
        assert_eq!(words(&world.pass(REATTACH)), ["engine"]);
        assert_eq!(words(&world.answer(&["c"], &ok(&one))), ["client", "reply"]);
    }

    #[test]
    fn what_waits_for_an_engine_is_bounded_and_goes_with_it() {
        let mut world = World::inherits(&[]);
        world.join("e-1");
        for _ in 0..crate::owed::MAX_KEPT {
            let request = world.request("apply_request", &json!({}));
            let frames = Frames::new([ident("e-1")], request);
            let event = RelayEvent::FromClient { client: ident("c"), frames };
            world.relay.handle(Now::default(), event, &mut Vec::new());
        }
        let request = world.request("apply_request", &json!({}));
        assert_eq!(told(&world.send(&["e-1"], &request)), [(id(&request), "RuntimeError".to_owned())]);
        world.handle(RelayEvent::Unregistered { uuid: "e-1".into() });
        assert_eq!(world.relay.deadline(), None);
        assert!(world.join("e-1").is_empty());
    }
}
