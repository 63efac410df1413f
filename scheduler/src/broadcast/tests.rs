use super::*;
use bytes::Bytes;
use remuda_proto::message::parent_msg_id;
use remuda_proto::{Date, Key, MsgType, Packer, SessionId};

fn session(id: &str) -> Session {
    Session::new(SessionId::from(id), "u", Key::new("k"), Packer::Json, 1)
}

/// A scheduler with engines `e0` and `e1`, and a client.
struct World {
    broadcast: Broadcast,
    client: Session,
}

impl World {
    fn new() -> Self {
        let mut world = Self { broadcast: Broadcast::new(session("b")), client: session("c") };
        for uuid in ["e0", "e1"] {
            world.handle(BroadcastEvent::Registered { uuid: uuid.into() });
        }
        world
    }

    fn handle(&mut self, event: BroadcastEvent) -> Vec<BroadcastEffect> {
        let mut out = Vec::new();
        self.broadcast.handle(Now::default(), event, &mut out);
        self.broadcast.check();
        out
    }

    fn send(&mut self, coalescing: bool, targets: &Value) -> (MsgId, Vec<BroadcastEffect>) {
        let metadata = json!({"targets": targets, "is_broadcast": true, "is_coalescing": coalescing});
        let buffers = [Bytes::from_static(b"payload")];
        let message = self.client.message(Date(0), MsgType::ApplyRequest, None, &metadata, &json!({}), &buffers);
        let (id, body) = message.unwrap();
        (id, self.handle(BroadcastEvent::FromClient { client: Identity::from(&b"c"[..]), body }))
    }

    /// Answers a copy as a stock engine does.
    fn answer(&mut self, engine: &str, copy: &Body, status: &str, result: &'static str) -> Vec<BroadcastEffect> {
        let request: Value = serde_json::from_slice(copy.metadata()).unwrap();
        let metadata = json!({
            "engine": engine, "status": status, "dependencies_met": true, "is_broadcast": true,
            "is_coalescing": request["is_coalescing"], "original_msg_id": request["original_msg_id"],
        });
        let content = json!({"status": status});
        let buffers = [Bytes::from_static(result.as_bytes())];
        let parent = Some(copy.header());
        let mut engines = session(engine);
        let body = engines.message(Date(0), MsgType::ApplyReply, parent, &metadata, &content, &buffers).unwrap().1;
        self.handle(BroadcastEvent::FromEngine {
            engine: Identity::from(engine.as_bytes()),
            idents: [Identity::from(&b"c"[..])].into_iter().collect(),
            body,
        })
    }
}

fn copies(effects: &[BroadcastEffect]) -> Vec<Body> {
    let mut copies = Vec::new();
    for effect in effects {
        if let BroadcastEffect::ToEngine { body, .. } = effect {
            assert_eq!(Key::new("k").verify(body), Ok(()));
            copies.push(body.clone());
        }
    }
    copies
}

fn replies(effects: &[BroadcastEffect]) -> Vec<Body> {
    let bodies = effects.iter().filter_map(|effect| match effect {
        BroadcastEffect::ToClient { body, .. } => Some(body.clone()),
        _ => None,
    });
    bodies.inspect(|body| assert_eq!(Key::new("k").verify(body), Ok(()))).collect()
}

fn both() -> Value {
    json!([["e0", 0], ["e1", 1]])
}

#[test]
fn each_target_gets_a_copy_under_an_id_of_its_own() {
    let mut world = World::new();
    let (id, effects) = world.send(false, &both());
    let copies = copies(&effects);
    assert_eq!(copies.len(), 2);
    for (copy, uuid) in copies.iter().zip(["e0", "e1"]) {
        assert_eq!(Envelope::read(Packer::Json, copy).unwrap().msg_id.as_str(), format!("{id}_{uuid}"));
        let metadata: Value = serde_json::from_slice(copy.metadata()).unwrap();
        assert_eq!(metadata["original_msg_id"], id.as_str());
        assert_eq!(copy.buffer(0).unwrap(), "payload");
    }
    let replies = replies(&world.answer("e1", &copies[1], "ok", "one"));
    assert_eq!(parent_msg_id(Packer::Json, &replies[0]).unwrap().unwrap().as_str(), format!("{id}_e1"));
}

#[test]
fn coalesced_replies_come_as_one_in_the_order_of_the_targets() {
    let mut world = World::new();
    let (id, effects) = world.send(true, &both());
    let copies = copies(&effects);
    assert!(replies(&world.answer("e1", &copies[1], "ok", "one")).is_empty());
    let replies = replies(&world.answer("e0", &copies[0], "ok", "zero"));
    let buffers: Vec<&[u8]> = replies[0].buffers().collect();
    assert_eq!(buffers, [&b"zero"[..], b"one"]);
    let metadata: Value = serde_json::from_slice(replies[0].metadata()).unwrap();
    assert_eq!((&metadata["broadcast_targets"], &metadata["original_msg_id"]), (&both(), &json!(id)));
    assert_eq!(world.broadcast.outstanding(), 0);
}

#[test]
fn a_failure_is_seen_whichever_reply_comes_last() {
    let mut world = World::new();
    let (_, effects) = world.send(true, &both());
    let copies = copies(&effects);
    world.answer("e0", &copies[0], "error", "");
    let replies = replies(&world.answer("e1", &copies[1], "ok", "one"));
    let content: Value = serde_json::from_slice(replies[0].content()).unwrap();
    assert_eq!(content["status"], "error");
}

#[test]
fn a_second_reply_of_the_same_engine_counts_for_nothing() {
    let mut world = World::new();
    let (_, effects) = world.send(true, &both());
    let copies = copies(&effects);
    world.answer("e0", &copies[0], "ok", "zero");
    let again = world.answer("e0", &copies[0], "ok", "zero");
    let refused = matches!(again.last(), Some(BroadcastEffect::Refused { refusal: Refusal::Unexpected(_), .. }));
    assert!(refused && replies(&again).is_empty(), "{again:?}");
}

#[test]
fn the_hub_hears_of_each_copy_before_its_engine_and_of_each_reply() {
    let told = |effects: &[BroadcastEffect]| -> Vec<String> {
        let tell = |effect: &BroadcastEffect| match effect {
            BroadcastEffect::Monitor(Monitor::Request { queue: Queue::Broadcast, engine, envelope, body, .. }) => {
                assert_eq!(Envelope::read(Packer::Json, body).unwrap(), *envelope);
                format!("request {} for {engine:?}", envelope.msg_id)
            }
            BroadcastEffect::Monitor(Monitor::Reply { queue: Queue::Broadcast, engine, msg_id, status, .. }) => {
                format!("{msg_id} {status:?} from {engine:?}")
            }
            BroadcastEffect::ToEngine { engine, .. } => format!("to {engine}"),
            BroadcastEffect::ToClient { .. } => "to client".to_owned(),
            other => panic!("{other:?}"),
        };
        effects.iter().map(tell).collect()
    };
    for coalescing in [false, true] {
        let mut world = World::new();
        let (id, effects) = world.send(coalescing, &both());
        let expected = ["e0", "e1"]
            .map(|engine| [format!("request {id}_{engine} for Some(\"{engine}\")"), format!("to {engine}")]);
        assert_eq!(told(&effects), expected.concat());
        let copies = copies(&effects);
        let mut seen = told(&world.answer("e0", &copies[0], "error", ""));
        seen.retain(|what| what != "to client");
        assert_eq!(seen, [format!("{id}_e0 Error from Some(\"e0\")")]);
    }
}

#[test]
fn a_target_that_is_not_there_is_an_error_and_not_silence() {
    let mut world = World::new();
    let (id, effects) = world.send(false, &json!([["e9", 9]]));
    let replies = replies(&effects);
    assert_eq!(parent_msg_id(Packer::Json, &replies[0]).unwrap().unwrap().as_str(), format!("{id}_e9"));
    for targets in [json!([]), json!(5), json!([["e0"]])] {
        let (_, effects) = world.send(true, &targets);
        assert!(matches!(effects[..], [BroadcastEffect::ToClient { .. }, BroadcastEffect::Refused { .. }]));
    }
}

#[test]
fn what_waits_for_an_engine_that_is_gone_is_forgotten() {
    let mut world = World::new();
    world.send(true, &both());
    assert_eq!(world.broadcast.outstanding(), 1);
    world.handle(BroadcastEvent::Unregistered { uuid: "e0".into() });
    assert_eq!(world.broadcast.outstanding(), 0);
}

/// A scheduler that takes over what is on record of these copies, all for `e0`.
fn inherits(copies: &[Body]) -> (World, Vec<BroadcastEffect>) {
    let mut world = World { broadcast: Broadcast::new(session("b")), client: session("c") };
    let tasks = copies.iter().map(|body| remuda_proto::recovery::Recovered {
        queue: Queue::Broadcast,
        client: Some(Identity::from(&b"c"[..])),
        msg_id: Envelope::read(Packer::Json, body).unwrap().msg_id,
        body: body.clone(),
        engine: Some("e0".into()),
        tried: Vec::new(),
        retries: 0,
        waited: Duration::ZERO,
    });
    let recovery = Recovery { tasks: tasks.collect(), engines: vec!["e0".into()], ..Recovery::default() };
    let out = world.handle(BroadcastEvent::Recover(Box::new(recovery)));
    (world, out)
}

fn ename(reply: &Body) -> Value {
    let content: Value = serde_json::from_slice(reply.content()).unwrap();
    content["ename"].clone()
}

#[test]
fn a_copy_goes_out_once_it_is_on_disk_and_so_does_a_reply() {
    let mut world = World::new();
    world.broadcast = Broadcast::new(session("b")).with_durability(Durability::Sync);
    for uuid in ["e0", "e1"] {
        world.handle(BroadcastEvent::Registered { uuid: uuid.into() });
    }
    let (_, effects) = world.send(true, &both());
    assert!(copies(&effects).is_empty());
    let sent = copies(&world.handle(BroadcastEvent::Committed { ticket: Ticket(1) }));
    assert_eq!(sent.len(), 1);
    let sent = [sent, copies(&world.handle(BroadcastEvent::Committed { ticket: Ticket(2) }))].concat();
    world.answer("e0", &sent[0], "ok", "zero");
    assert!(replies(&world.answer("e1", &sent[1], "ok", "one")).is_empty());
    assert!(replies(&world.handle(BroadcastEvent::Committed { ticket: Ticket(3) })).is_empty());
    assert_eq!(replies(&world.handle(BroadcastEvent::Committed { ticket: Ticket(4) })).len(), 1);
}

#[test]
fn a_copy_that_was_lost_with_a_controller_is_answered_with_an_error() {
    let (mut before, target) = (World::new(), json!([["e0", 0]]));
    let [one, two] = std::array::from_fn(|_| copies(&before.send(false, &target).1).remove(0));
    let (mut world, out) = inherits(&[one.clone(), two.clone()]);
    assert!(out.is_empty());
    assert_eq!(replies(&world.answer("e0", &one, "ok", "done")).len(), 1);
    let question = copies(&world.handle(BroadcastEvent::Registered { uuid: "e0".into() })).remove(0);
    // What is new waits for the answer.
    assert!(copies(&world.send(false, &target).1).is_empty());
    let out = world.answer("e0", &question, "ok", "");
    let lost = replies(&out);
    assert_eq!((lost.len(), ename(&lost[0]), copies(&out).len()), (1, json!("EngineError"), 1));
    let parent = parent_msg_id(Packer::Json, &lost[0]).unwrap().unwrap();
    assert_eq!(parent, Envelope::read(Packer::Json, &two).unwrap().msg_id);
    let metadata: Value = serde_json::from_slice(lost[0].metadata()).unwrap();
    let original = parent.as_str().strip_suffix("_e0").unwrap();
    assert_eq!(metadata["original_msg_id"], original);
    let (mut world, _) = inherits(&[one]);
    let mut out = Vec::new();
    world.broadcast.on_deadline(Now { instant: Instant(0) + REATTACH, ..Now::default() }, &mut out);
    assert_eq!(replies(&out).len(), 1);
}

#[test]
fn a_request_whose_replies_were_to_come_as_one_fails_when_the_controller_dies() {
    let mut before = World::new();
    let (id, effects) = before.send(true, &both());
    let (mut world, out) = inherits(&copies(&effects)[..1]);
    let failed = replies(&out);
    let metadata: Value = serde_json::from_slice(failed[0].metadata()).unwrap();
    assert_eq!((failed.len(), ename(&failed[0])), (1, json!("EngineError")));
    assert_eq!((&metadata["original_msg_id"], &metadata["is_coalescing"]), (&json!(id), &json!(true)));
    let told = |effect: &BroadcastEffect| {
        matches!(effect, BroadcastEffect::Monitor(Monitor::Reply { status: Status::Error, .. }))
    };
    assert!(out.iter().any(told), "the hub is told what the client is: {out:?}");
    // What the engine says later is for nobody.
    let out = world.answer("e0", &copies(&effects)[0], "ok", "zero");
    assert!(replies(&out).is_empty());
}
