//! Null engines: they answer every `apply_request` at once, with a signed reply that says `ok`.
//!
//! All of them live in one process. Towards a controller with a hub they register for real and keep their hearts
//! beating; towards the plain relay they only connect. What a reply says is packed beforehand, but for its header.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use remuda_instructions::{Headers, engine_uuid, session, today};
use remuda_proto::message::content::{Done, RegistrationReply, RegistrationRequest};
use remuda_proto::message::metadata::ReplyMetadata;
use remuda_proto::{DELIMITER, EngineConnection, EngineUuid, Frames, Key, MsgType, Packer, Status};
use zmq::{Context, Message, POLLIN, SNDMORE, Socket, SocketType};

use crate::message::Layout;
use crate::parts::{self, EnginesConfig, Event};
use crate::relay::{MUX_OUT, READY, TASK_OUT};
use crate::socket::{self, Incoming};

/// How long the engines may take to connect or to register.
const ARRIVAL: Duration = Duration::from_secs(60);
/// How often the hearts look for pings. To wait for them would be to look at every socket for each of the others' pings,
/// and for each step of each connection that comes about: with hundreds in one process that is most of what they do.
const BEAT: Duration = Duration::from_millis(50);
/// How often the shells look for the first request, for the same reason. From then on they wait.
const AWAIT_FIRST: Duration = Duration::from_millis(50);
/// Requests that one engine answers before the next has its turn.
const TURN: usize = 16;
/// One signature of so many is verified: enough to notice a controller that garbles, and little enough that the
/// engines do not become what is measured.
pub(crate) const VERIFY_ONE_OF: u64 = 16;
/// Engines to a context: libzmq allows 1023 sockets in one, and an engine has five.
const ENGINES_PER_CONTEXT: usize = 160;

/// Connects the engines, says when all are there, and answers on threads of its own from then on.
pub(crate) fn run(config: &EnginesConfig) -> Result<()> {
    let contexts: Vec<Context> =
        (0..(config.count as usize).div_ceil(ENGINES_PER_CONTEXT)).map(|_| Context::new()).collect();
    let numbers = config.first..config.first + config.count;
    let context_of = |number: u32| &contexts[(number - config.first) as usize / ENGINES_PER_CONTEXT];
    let mut hearts = Vec::new();
    if let Some(connection) = &config.connection {
        ensure!(connection.common.packer()? == Packer::Json, "null engines speak JSON only");
        let registrars = register(config, connection, context_of)?;
        for (number, registrar) in numbers.clone().zip(registrars) {
            hearts.push(Heart::new(context_of(number), connection, number, registrar)?);
        }
    }
    let mut shells = Vec::new();
    for number in numbers {
        let shell = Shell::new(context_of(number), config, number)?;
        if config.connection.is_none() {
            shell.announce()?;
        }
        shells.push(shell);
    }
    // The heart comes last: once the controller has heard it, tasks may come (wire reference, 8.1).
    if !hearts.is_empty() {
        parts::spawn("hearts", move || beat(&mut hearts))?;
    }
    parts::say(&Event::Ready);
    parts::spawn("shells", move || answer(&mut shells))
}

/// Registers every engine with the hub. The sockets stay open, as a real engine's do.
fn register<'a>(
    config: &EnginesConfig,
    connection: &EngineConnection,
    context_of: impl Fn(u32) -> &'a Context,
) -> Result<Vec<Socket>> {
    let address = address(connection, connection.common.registration);
    let mut registrars = Vec::new();
    for number in config.first..config.first + config.count {
        let uuid = engine_uuid(number);
        let socket = socket::unlimited(context_of(number), SocketType::DEALER, Some(uuid.as_str()))?;
        socket::connect(&socket, &address)?;
        let request = RegistrationRequest { uuid: uuid.clone(), id: None, remuda: None };
        let mut session = session(uuid.as_str(), &config.key);
        let none = serde_json::Map::new();
        let (_, body) = session.message(today(), MsgType::RegistrationRequest, None, &none, &request, &[])?;
        socket.send_multipart(Frames::new([], body).parts(), 0)?;
        registrars.push(socket);
    }
    let deadline = Instant::now() + ARRIVAL;
    let mut incoming = Incoming::new();
    for (number, socket) in registrars.iter().enumerate() {
        while !incoming.receive(socket)? {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "engine {number} of {} was not registered in time", config.count);
            socket::poll(&mut [socket.as_poll_item(POLLIN)], i64::try_from(left.as_millis())?)?;
        }
        let layout = Layout::of(incoming.frames()).context("the hub's answer is no message")?;
        ensure!(layout.is_signed(incoming.frames(), &Key::new(&config.key)), "the hub's answer is not signed");
        let content = &incoming.frames()[layout.header() + 3];
        let _granted: RegistrationReply = serde_json::from_slice(content)
            .with_context(|| format!("engine {number} was refused: {}", String::from_utf8_lossy(content)))?;
    }
    Ok(registrars)
}

fn address(connection: &EngineConnection, port: u16) -> String {
    format!("{}:{port}", connection.common.interface)
}

/// What keeps an engine registered, and what it has besides.
struct Heart {
    ping: Socket,
    pong: Socket,
    /// Read and ignored: nobody aborts a null engine.
    control: Socket,
    /// Held open, and never written again.
    _registrar: Socket,
}

impl Heart {
    fn new(context: &Context, connection: &EngineConnection, number: u32, registrar: Socket) -> Result<Self> {
        let uuid = engine_uuid(number);
        let ping = socket::unlimited(context, SocketType::SUB, None)?;
        ping.set_subscribe(b"")?;
        let pong = socket::unlimited(context, SocketType::DEALER, Some(uuid.as_str()))?;
        let control = socket::unlimited(context, SocketType::ROUTER, Some(uuid.as_str()))?;
        socket::connect(&control, &address(connection, connection.control))?;
        socket::connect(&pong, &address(connection, connection.hb_pong))?;
        socket::connect(&ping, &address(connection, connection.hb_ping))?;
        Ok(Self { ping, pong, control, _registrar: registrar })
    }
}

/// Echoes pings for ever.
fn beat(hearts: &mut [Heart]) -> Result<()> {
    let mut incoming = Incoming::new();
    loop {
        std::thread::sleep(BEAT);
        for heart in &*hearts {
            while incoming.receive(&heart.ping)? {
                heart.pong.send(incoming.take(0), 0)?;
            }
            while incoming.receive(&heart.control)? {}
        }
    }
}

/// Where an engine's tasks come from.
struct Shell {
    socket: Socket,
    key: Key,
    headers: Headers,
    /// Packed metadata of every reply.
    metadata: Vec<u8>,
    /// Packed content of every reply.
    content: Vec<u8>,
    /// How many requests came; it numbers the replies.
    count: u64,
    /// Room for a header.
    header: Vec<u8>,
}

impl Shell {
    fn new(context: &Context, config: &EnginesConfig, number: u32) -> Result<Self> {
        let uuid: EngineUuid = engine_uuid(number);
        let socket = socket::unlimited(context, SocketType::ROUTER, Some(uuid.as_str()))?;
        socket.set_router_mandatory(config.connection.is_none())?;
        socket::connect(&socket, &config.mux)?;
        socket::connect(&socket, &config.task)?;
        if !config.broadcast.is_empty() {
            socket::connect(&socket, &config.broadcast[number as usize % config.broadcast.len()])?;
        }
        let mut session = session(uuid.as_str(), &config.key);
        let headers = Headers::new(&mut session, MsgType::ApplyReply)?;
        let metadata = Packer::Json.pack(&ReplyMetadata {
            started: today().to_string(),
            dependencies_met: true,
            engine: uuid,
            is_broadcast: false,
            is_coalescing: false,
            original_msg_id: String::new(),
            label: None,
            status: Status::Ok,
            engine_info: None,
        })?;
        let content = Packer::Json.pack(&Done::default())?;
        Ok(Self { socket, key: Key::new(&config.key), headers, metadata, content, count: 0, header: Vec::new() })
    }

    /// Makes the engine known to the plain relay, as soon as the connections stand.
    fn announce(&self) -> Result<()> {
        let deadline = Instant::now() + ARRIVAL;
        for queue in [MUX_OUT, TASK_OUT] {
            loop {
                match self.socket.send(queue.as_bytes(), SNDMORE) {
                    Ok(()) => break,
                    Err(zmq::Error::EHOSTUNREACH) if Instant::now() < deadline => {
                        // A ROUTER tells nobody that a peer has come; asking again is all there is.
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Err(error) => return Err(error).with_context(|| format!("cannot reach `{queue}`")),
                }
            }
            self.socket.send(READY, 0)?;
        }
        self.socket.set_router_mandatory(false)?;
        Ok(())
    }

    /// Answers the request that came.
    fn reply(&mut self, incoming: &mut Incoming) -> Result<()> {
        let Some(layout) = Layout::of(incoming.frames()) else { bail!("a request is no message") };
        self.count += 1;
        if self.count.is_multiple_of(VERIFY_ONE_OF) && !layout.is_signed(incoming.frames(), &self.key) {
            bail!("a request is not signed as it was");
        }
        self.headers.write(self.count, &mut self.header);
        let parent: Message = incoming.take(layout.header());
        let signature = self.key.sign([&self.header, &parent, &self.metadata, &self.content]);
        for at in 0..layout.delimiter {
            self.socket.send(incoming.take(at), SNDMORE)?;
        }
        self.socket.send(DELIMITER, SNDMORE)?;
        self.socket.send(&signature[..], SNDMORE)?;
        self.socket.send(&self.header[..], SNDMORE)?;
        self.socket.send(parent, SNDMORE)?;
        self.socket.send(&self.metadata[..], SNDMORE)?;
        self.socket.send(&self.content[..], 0)?;
        Ok(())
    }
}

/// Answers requests for ever.
fn answer(shells: &mut [Shell]) -> Result<()> {
    let mut incoming = Incoming::new();
    let mut has_worked = false;
    loop {
        let readable: Vec<usize> = {
            let mut items: Vec<_> = shells.iter().map(|shell| shell.socket.as_poll_item(POLLIN)).collect();
            socket::poll(&mut items, if has_worked { -1 } else { 0 })?;
            (0..items.len()).filter(|&at| items[at].is_readable()).collect()
        };
        if readable.is_empty() {
            std::thread::sleep(AWAIT_FIRST);
        }
        has_worked |= !readable.is_empty();
        for at in readable {
            let shell = &mut shells[at];
            for _ in 0..TURN {
                if !incoming.receive(&shell.socket)? {
                    break;
                }
                shell.reply(&mut incoming)?;
            }
        }
    }
}
