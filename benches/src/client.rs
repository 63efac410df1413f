//! The client that makes the load: it sends signed tasks, keeps so many outstanding, and accounts for every reply.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use remuda_instructions::{
    EMPTY, Headers, PAYLOAD_BYTES, broadcast_metadata, engine_uuid, session, some_bytes, task_metadata, today,
};
use remuda_proto::message::content::ConnectionReply;
use remuda_proto::{DELIMITER, EngineUuid, Frames, Key, MsgType, Packer, Session, new_session_id};
use zmq::{Context, DEALER, POLLIN, SNDMORE, Socket};

use crate::broadcast;
use crate::engines::VERIFY_ONE_OF;
use crate::message::Layout;
use crate::parts::{self, ClientConfig, Event, Faults, Load, MuteConfig, Order, Outcome, Route};
use crate::replies::{Replies, Seen};
use crate::socket::{self, Incoming};
use crate::statistics::RoundTrips;

/// How long the engines may take to be known to the hub.
const ARRIVAL: Duration = Duration::from_secs(60);
/// How long a run may go without any reply: longer than a controller is ever stopped.
const SILENCE: Duration = Duration::from_secs(90);
/// How long a client listens on after the last reply, for one that comes twice.
const LINGER_MS: i64 = 50;
/// Tasks sent, and replies taken, before the other has its turn.
const TURN: u64 = 64;

/// Runs as a child of the bench until that goes away.
pub(crate) fn run() -> Result<()> {
    let done = converse();
    if let Err(error) = &done {
        parts::say(&Event::Failed(format!("{error:#}")));
    }
    done
}

/// Tasks that a client which never reads sends at a time, once it is ready, and how long it waits between.
const TRICKLE: (u64, Duration) = (5, Duration::from_millis(10));

/// A client that sends and never reads. As far as libzmq goes it reads a thousand messages, as a stock client that hangs.
pub(crate) fn mute(config: &MuteConfig) -> Result<()> {
    let mut client = Client::new(&config.client)?;
    // From here on another socket is used: those of a client have no limit, and take everything in.
    let socket = client.context.socket(DEALER)?;
    socket.set_linger(0)?;
    socket.set_sndhwm(0)?;
    socket::connect(&socket, &config.client.task)?;
    for _ in 0..config.tasks {
        client.maker.send(&socket, Route::Balanced)?;
    }
    parts::say(&Event::Ready);
    parts::spawn("trickle", move || {
        loop {
            for _ in 0..TRICKLE.0 {
                client.maker.send(&socket, Route::Balanced)?;
            }
            std::thread::sleep(TRICKLE.1);
        }
    })
}

fn converse() -> Result<()> {
    let config: ClientConfig = parts::listen()?.context("`client` is started by the bench, not by hand")?;
    let mut client = Client::new(&config)?;
    parts::say(&Event::Ready);
    let mut prepared: Option<(Load, Faults)> = None;
    while let Some(order) = parts::listen()? {
        match order {
            Order::Prepare(load) => {
                let least = if load.route == Route::Broadcast { 1 } else { 2 * u64::from(config.engines) };
                let tasks = if load.warm_up == 0 { load.tasks / 20 } else { load.warm_up };
                let warm_up = Load { tasks: tasks.max(least), ..load };
                prepared = Some((load, client.perform(warm_up)?.faults));
                parts::say(&Event::Warm);
            }
            Order::Go => {
                let (load, faults) = prepared.take().context("told to go, but not what to do")?;
                let mut outcome = client.perform(load)?;
                // A task lost while warming up is a task lost.
                outcome.faults = outcome.faults.and(faults);
                parts::say(&Event::Done(outcome));
            }
        }
    }
    Ok(())
}

/// A queue that takes tasks.
struct Queue {
    socket: Socket,
    incoming: Incoming,
}

impl Queue {
    fn new(context: &Context, address: &str) -> Result<Self> {
        let socket = socket::unlimited(context, DEALER, None)?;
        socket::connect(&socket, address)?;
        Ok(Self { socket, incoming: Incoming::new() })
    }
}

struct Client {
    task: Queue,
    mux: Queue,
    /// `None` where there are no broadcasts.
    broadcast: Option<Queue>,
    maker: Maker,
    /// A run in which nothing comes back for so long is over.
    silence: Duration,
    /// Held, since without it the sockets would end.
    context: Context,
}

impl Client {
    /// Connects, and waits until every engine is known.
    fn new(config: &ClientConfig) -> Result<Self> {
        let context = Context::new();
        let mut session = session(new_session_id(some_bytes()).as_str(), &config.key);
        let engines = match &config.registration {
            Some(registration) => known_engines(&context, &mut session, registration, config.engines)?,
            None => (0..config.engines).map(engine_uuid).collect(),
        };
        let maker = Maker {
            key: session.key().clone(),
            headers: Headers::new(&mut session, MsgType::ApplyRequest)?,
            metadata: task_metadata()?,
            broadcast_metadata: broadcast_metadata(&engines)?,
            engines,
            next: 0,
            header: Vec::new(),
        };
        let (task, mux) = (Queue::new(&context, &config.task)?, Queue::new(&context, &config.mux)?);
        let broadcast = config.broadcast.as_ref().map(|address| Queue::new(&context, address)).transpose()?;
        Ok(Self { task, mux, broadcast, maker, silence: SILENCE, context })
    }

    fn perform(&mut self, load: Load) -> Result<Outcome> {
        let queue = match load.route {
            Route::Balanced => &mut self.task,
            Route::Direct => &mut self.mux,
            Route::Broadcast => self.broadcast.as_mut().context("the plain relay has no broadcasts")?,
        };
        ensure!(load.window > 0, "a window of 0 lets no task through");
        let mut run = Run {
            load,
            maker: &mut self.maker,
            replies: Replies::new(0, 0),
            outcome: Outcome { tasks: load.tasks, ..Outcome::default() },
            came: 0,
            silence: self.silence,
        };
        if load.route == Route::Broadcast {
            run.broadcasts(queue)?;
            return Ok(run.outcome);
        }
        run.replies = Replies::new(run.maker.next, load.tasks);
        if load.window == 1 {
            run.one_at_a_time(queue)?;
        } else {
            run.flood(queue)?;
        }
        run.linger(queue)?;
        run.outcome.faults.lost = run.replies.missing();
        Ok(run.outcome)
    }
}

/// Asks the hub for its engines until there are enough.
fn known_engines(context: &Context, session: &mut Session, hub: &str, wanted: u32) -> Result<Vec<EngineUuid>> {
    let socket = socket::unlimited(context, DEALER, None)?;
    socket::connect(&socket, hub)?;
    let deadline = Instant::now() + ARRIVAL;
    let mut incoming = Incoming::new();
    let mut known = 0;
    while Instant::now() < deadline {
        let none = serde_json::Map::new();
        let (_, body) = session.message(today(), MsgType::ConnectionRequest, None, &none, &none, &[])?;
        socket.send_multipart(Frames::new([], body).parts(), 0)?;
        socket::poll(&mut [socket.as_poll_item(POLLIN)], 1000)?;
        while incoming.receive(&socket)? {
            let layout = Layout::of(incoming.frames()).context("the hub's answer is no message")?;
            let content = &incoming.frames()[layout.header() + 3];
            let reply: ConnectionReply = serde_json::from_slice(content)
                .with_context(|| format!("the hub answered {}", String::from_utf8_lossy(content)))?;
            known = reply.engines.len();
            if known >= wanted as usize {
                return Ok(reply.engines.into_values().collect());
            }
        }
        // Engines come a heartbeat after they register, and no event that is cheaper to follow says so.
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("only {known} of {wanted} engines were registered in time")
}

/// Makes tasks, each with a number of its own.
struct Maker {
    key: Key,
    headers: Headers,
    metadata: Vec<u8>,
    /// Packed metadata of a request to all engines.
    broadcast_metadata: Vec<u8>,
    engines: Vec<EngineUuid>,
    /// Number of the next task. Never used again, so that a late reply is told from one of this run.
    next: u64,
    /// Room for a header.
    header: Vec<u8>,
}

impl Maker {
    /// Sends the next task.
    fn send(&mut self, socket: &Socket, route: Route) -> Result<()> {
        const PAYLOAD: [u8; PAYLOAD_BYTES] = [b'x'; PAYLOAD_BYTES];
        const BROADCAST: [u8; broadcast::PAYLOAD_BYTES] = [b'x'; broadcast::PAYLOAD_BYTES];
        let (metadata, payload) = match route {
            Route::Balanced | Route::Direct => (&self.metadata, &PAYLOAD[..]),
            Route::Broadcast => (&self.broadcast_metadata, &BROADCAST[..]),
        };
        self.headers.write(self.next, &mut self.header);
        if route == Route::Direct {
            let turn = usize::try_from(self.next)? % self.engines.len();
            socket.send(self.engines[turn].as_str(), SNDMORE)?;
        }
        self.next += 1;
        let signature = self.key.sign([&self.header, EMPTY, metadata, EMPTY]);
        socket.send(DELIMITER, SNDMORE)?;
        socket.send(&signature[..], SNDMORE)?;
        socket.send(&self.header[..], SNDMORE)?;
        socket.send(EMPTY, SNDMORE)?;
        socket.send(&metadata[..], SNDMORE)?;
        socket.send(EMPTY, SNDMORE)?;
        socket.send(payload, 0)?;
        Ok(())
    }
}

/// One load under way.
struct Run<'a> {
    load: Load,
    maker: &'a mut Maker,
    replies: Replies,
    outcome: Outcome,
    /// Replies that came, of whatever kind.
    came: u64,
    /// How long nothing may come.
    silence: Duration,
}

impl Run<'_> {
    /// As many tasks outstanding as the window allows.
    fn flood(&mut self, queue: &mut Queue) -> Result<()> {
        let start = Instant::now();
        let mut heard = start;
        let mut sent = 0;
        while self.replies.missing() > 0 {
            let room = self.load.window.saturating_sub(sent - self.replies.answered());
            let turn = room.min(TURN).min(self.load.tasks - sent);
            for _ in 0..turn {
                self.maker.send(&queue.socket, self.load.route)?;
            }
            sent += turn;
            let before = self.came;
            while self.came - before < TURN && queue.incoming.receive(&queue.socket)? {
                self.note(&queue.incoming);
            }
            if self.came > before {
                heard = Instant::now();
            } else if turn == 0 {
                if heard.elapsed() > self.silence {
                    break;
                }
                self.wait(queue)?;
            }
        }
        self.outcome.seconds = (heard - start).as_secs_f64();
        Ok(())
    }

    /// The next task only when the last is answered; each round trip is measured.
    fn one_at_a_time(&mut self, queue: &mut Queue) -> Result<()> {
        let mut trips = RoundTrips::new();
        let start = Instant::now();
        for sent in 1..=self.load.tasks {
            let departed = Instant::now();
            self.maker.send(&queue.socket, self.load.route)?;
            while self.replies.answered() < sent {
                if queue.incoming.receive(&queue.socket)? {
                    self.note(&queue.incoming);
                } else if departed.elapsed() > self.silence {
                    self.outcome.seconds = start.elapsed().as_secs_f64();
                    return Ok(());
                } else {
                    self.wait(queue)?;
                }
            }
            trips.add(u64::try_from(departed.elapsed().as_nanos())?);
        }
        self.outcome.seconds = start.elapsed().as_secs_f64();
        self.outcome.latency_us = Some(trips.latency());
        Ok(())
    }

    /// One request after the other, each to all engines; the time until all have answered is measured.
    fn broadcasts(&mut self, queue: &mut Queue) -> Result<()> {
        let mut trips = RoundTrips::new();
        let start = Instant::now();
        for _ in 0..self.load.tasks {
            let number = self.maker.next;
            // Each engine has one bit, as each task has otherwise.
            self.replies = Replies::new(0, self.maker.engines.len() as u64);
            let departed = Instant::now();
            self.maker.send(&queue.socket, self.load.route)?;
            let mut heard = departed;
            while self.replies.missing() > 0 && heard.elapsed() <= self.silence {
                if queue.incoming.receive(&queue.socket)? {
                    self.note_copy(&queue.incoming, number);
                    heard = Instant::now();
                } else {
                    self.wait(queue)?;
                }
            }
            trips.add(u64::try_from(departed.elapsed().as_nanos())?);
            self.outcome.faults.lost += self.replies.missing();
        }
        self.outcome.seconds = start.elapsed().as_secs_f64();
        self.outcome.latency_us = Some(trips.latency());
        Ok(())
    }

    /// Accounts for the reply of one engine to the broadcast of that number.
    fn note_copy(&mut self, incoming: &Incoming, number: u64) {
        let frames = incoming.frames();
        let faults = &mut self.outcome.faults;
        let copy = Layout::of(frames).and_then(|layout| {
            let at = layout.header();
            let envelope: serde_json::Value = Packer::Json.unpack(&frames[at + 1]).ok()?;
            let (original, engine) = envelope.get("msg_id")?.as_str()?.rsplit_once('_')?;
            let (_, found) = original.rsplit_once('_')?;
            let engine = self.maker.engines.iter().position(|uuid| uuid.as_str() == engine)?;
            Some((found.parse::<u64>().ok()?, engine as u64, says_ok(&frames[at + 2])))
        });
        match copy {
            Some((found, engine, ok)) if found == number => match self.replies.note(engine) {
                Seen::First if ok => {}
                Seen::First => faults.failed += 1,
                Seen::Again => faults.twice += 1,
                Seen::Foreign => faults.foreign += 1,
            },
            _ => faults.foreign += 1,
        }
    }

    /// Waits for a reply, not for ever.
    fn wait(&self, queue: &Queue) -> Result<()> {
        socket::poll(&mut [queue.socket.as_poll_item(POLLIN)], i64::try_from(self.silence.as_millis())?)
    }

    /// Takes what still comes after the last reply.
    fn linger(&mut self, queue: &mut Queue) -> Result<()> {
        socket::poll(&mut [queue.socket.as_poll_item(POLLIN)], LINGER_MS)?;
        while queue.incoming.receive(&queue.socket)? {
            self.note(&queue.incoming);
        }
        Ok(())
    }

    /// Accounts for a reply.
    fn note(&mut self, incoming: &Incoming) {
        self.came += 1;
        let frames = incoming.frames();
        let faults = &mut self.outcome.faults;
        let Some(layout) = Layout::of(frames) else {
            faults.foreign += 1;
            return;
        };
        if self.came.is_multiple_of(VERIFY_ONE_OF) && !layout.is_signed(frames, &self.maker.key) {
            faults.foreign += 1;
            return;
        }
        let at = layout.header();
        let (parent, metadata) = (&frames[at + 1], &frames[at + 2]);
        match number_of(&self.maker.headers, parent).map(|number| self.replies.note(number)) {
            Some(Seen::First) if !says_ok(metadata) => faults.failed += 1,
            Some(Seen::First) => {}
            Some(Seen::Again) => faults.twice += 1,
            Some(Seen::Foreign) | None => faults.foreign += 1,
        }
    }
}

/// The number of the task with this header: as we wrote it, or as a controller that answers itself packed it anew.
fn number_of(headers: &Headers, parent: &[u8]) -> Option<u64> {
    headers.number(parent).or_else(|| {
        let envelope: serde_json::Value = Packer::Json.unpack(parent).ok()?;
        let (_, number) = envelope.get("msg_id")?.as_str()?.rsplit_once('_')?;
        number.parse().ok()
    })
}

/// Whether a reply's metadata says `ok`: at its end, where the null engines write it, or anywhere.
fn says_ok(metadata: &[u8]) -> bool {
    metadata.ends_with(br#""status":"ok"}"#)
        || serde_json::from_slice::<serde_json::Value>(metadata)
            .is_ok_and(|metadata| metadata.get("status").is_some_and(|status| status == "ok"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_of_a_reply_is_found_however_its_header_is_packed() {
        let mut session = session("s", "key");
        let headers = Headers::new(&mut session, MsgType::ApplyRequest).unwrap();
        let mut header = Vec::new();
        headers.write(42, &mut header);
        assert_eq!(number_of(&headers, &header), Some(42));
        let spaced = String::from_utf8(header).unwrap().replace(':', ": ");
        assert_eq!(number_of(&headers, spaced.as_bytes()), Some(42));
        assert_eq!(number_of(&headers, b"{}"), None);
        assert_eq!(number_of(&headers, b"\xff"), None);
    }

    /// A client whose tasks a controller of the test's making answers: `replies` says how many times, by number.
    fn client_of(replies: fn(u64) -> usize) -> Client {
        let context = Context::new();
        let router = socket::unlimited(&context, zmq::ROUTER, None).unwrap();
        let address = socket::bind(&router).unwrap();
        std::thread::spawn(move || {
            let key = Key::new("key");
            // It ends with the test, when its client has gone and nothing comes any more.
            for number in 0.. {
                let Ok(request) = router.recv_multipart(0) else { break };
                let metadata: &[u8] = if number == 7 { br#"{"status":"error"}"# } else { br#"{"status":"ok"}"# };
                let signature = key.sign([EMPTY, &request[3], metadata, EMPTY]);
                let reply = [&request[0][..], DELIMITER, &signature, EMPTY, &request[3], metadata, EMPTY];
                for _ in 0..replies(number) {
                    router.send_multipart(reply, 0).unwrap();
                }
            }
        });
        let config = ClientConfig {
            engines: 2,
            task: address.clone(),
            mux: address,
            broadcast: None,
            key: "key".to_owned(),
            registration: None,
        };
        let mut client = Client::new(&config).unwrap();
        client.silence = Duration::from_millis(300);
        client
    }

    #[test]
    fn a_sound_run_has_no_faults() {
        let mut client = client_of(|_| 1);
        let trips = client.perform(Load { route: Route::Balanced, tasks: 5, warm_up: 0, window: 1 }).unwrap();
        assert!(trips.faults.none() && trips.latency_us.is_some(), "{trips:?}");
        let many = client.perform(Load { route: Route::Balanced, tasks: 2, warm_up: 0, window: 16 }).unwrap();
        assert!(many.faults.none() && many.latency_us.is_none(), "{many:?}");
    }

    #[test]
    fn a_lost_task_a_second_reply_and_a_failure_are_told_apart() {
        let mut client = client_of(|number| match number {
            3 => 0,
            11 | 99 => 2,
            _ => 1,
        });
        let outcome = client.perform(Load { route: Route::Balanced, tasks: 100, warm_up: 0, window: 16 }).unwrap();
        assert_eq!(outcome.faults, Faults { lost: 1, twice: 2, failed: 1, foreign: 0 });
        // What comes late counts against nothing that comes after.
        let again = client.perform(Load { route: Route::Balanced, tasks: 10, warm_up: 0, window: 1 }).unwrap();
        assert!(again.faults.none(), "{again:?}");
    }

    #[test]
    fn only_ok_is_ok() {
        assert!(says_ok(br#"{"engine":"e","status":"ok"}"#));
        assert!(says_ok(br#"{"status": "ok", "engine": "e"}"#));
        assert!(!says_ok(br#"{"status": "error", "engine": "ok"}"#));
        assert!(!says_ok(b"{}"));
        assert!(!says_ok(b""));
    }
}
