//! The controller: hub, heart monitor and schedulers, each with its thread, in one process.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use remuda_hub::heart::{self, HeartMonitor};
use remuda_hub::hub::{self, Hub};
use remuda_hub::run::{HeartDriver, HubDriver, News};
use remuda_hub::store::{OpenError, StoreError};
use remuda_hub::{MAX_ENGINES, StoreKind};
use remuda_net::connection_file::{self, FileError};
use remuda_net::curve::KeyPair;
use remuda_net::{
    Backlog, Clock, Context, Driver, Kind, Mailbox, NetError, Profile, RefusalCounts, Security, Sender, Unsent,
    address, drive, limits, mailbox,
};
use remuda_proto::connection::Common;
use remuda_proto::message::content::ControllerInfo;
use remuda_proto::message::story::{DriverState, Refused};
use remuda_proto::monitor::{Durability, Monitor, Queue};
use remuda_proto::{ClientConnection, EngineConnection, Key, Machine, Packer};
use remuda_scheduler::broadcast::{Broadcast, BroadcastEvent};
use remuda_scheduler::relay::{Channel, OutputRelay, Relay, RelayEvent};
use remuda_scheduler::run::{BroadcastDriver, MAX_HUB_LAG, MonitorLink, OutputDriver, RelayDriver, TaskDriver};
use remuda_scheduler::task::{TaskConfig, TaskEvent, TaskScheduler};
use serde_json::{Value, json};

use crate::engines_file::EnginesFile;
use crate::in_effect::in_effect;
use crate::ports::{Binder, For, Interface, Ports};
use crate::records::{Opened, TakenOver, durability, receipts};
use crate::reuse::{Known, Resolved, SocketFiles};

/// Largest [`ControllerConfig::broadcast_depth`]: 1,024 ports.
pub const MAX_BROADCAST_DEPTH: u8 = 10;

/// By default, most bytes that wait on one socket for peers that do not read them.
pub const MAX_UNREAD_BYTES: usize = 1 << 30;

/// How long a client or an engine may be away before what is for it is not delivered any more, unless told otherwise.
pub const RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// By default, most changes of task records that wait to be committed.
pub const MAX_STORE_LAG: usize = 200_000;

/// By default, most bytes of such changes.
pub const MAX_STORE_LAG_BYTES: usize = 256 << 20;

/// Most tasks that ended of which a controller that takes over reads from the database, for those that depend on them. (A
/// million take some seconds.)
const MAX_RECOVERED_IDS: usize = 100_000;

/// The connections that an engine takes: registration, control, mux, task, iopub, heartbeat (two) and broadcast.
const ENGINE_CONNECTIONS: u64 = 8;

/// Open files that are left to everything else: sockets of our own, threads, logs, records, and some thirty clients.
const OTHER_FILES: u64 = 256;

/// How a controller is to run.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// Where the connection files go.
    pub profile: Profile,
    /// The connection file of clients.
    pub client_file: PathBuf,
    /// The connection file of engines.
    pub engine_file: PathBuf,
    /// Where engines find it.
    pub engine_interface: Interface,
    /// Where clients find it.
    pub client_interface: Interface,
    /// Host name for the connection files.
    pub location: String,
    /// SSH server that clients tunnel through; empty: none. Written into their file; no tunnel is made here.
    pub ssh: String,
    /// SSH server that engines tunnel through; empty: none.
    pub engine_ssh: String,
    /// Ports to take first.
    pub ports: Ports,
    /// Engines spread over 2 to the power of this many ports of the broadcast scheduler; at most
    /// [`MAX_BROADCAST_DEPTH`].
    pub broadcast_depth: u8,
    /// The HMAC key, empty for no signatures; `None`: a new one, or with CURVE none.
    pub key: Option<String>,
    /// The keys with which connections are encrypted.
    pub curve: Option<KeyPair>,
    /// How messages are packed.
    pub packer: Packer,
    /// The heartbeat.
    pub heart: heart::Config,
    /// How long an engine may take to register; `None`: as long as it may take by default at this heartbeat.
    pub registration_timeout: Option<Duration>,
    /// The task scheduler. Its limit on the size of messages is that of all.
    pub task: TaskConfig,
    /// Most engines; `None`: as many as the limit on open files allows.
    pub max_engines: Option<usize>,
    /// What is kept on each socket for peers that do not read it, or are not connected at the moment.
    pub unsent: Unsent,
    /// Most reports of the schedulers that wait for the hub.
    pub max_hub_lag: usize,
    /// Where task records are kept.
    pub store: StoreKind,
    /// Most changes of task records that wait to be committed.
    pub max_store_lag: usize,
    /// Most bytes of such changes.
    pub max_store_lag_bytes: usize,
    /// Whether the engines of an earlier controller that still run are registered again as soon as they answer. They
    /// find this controller only on the ports of that one: see `reuse`.
    pub restore: bool,
    /// Whether ports and key come from the files that are there, and the files stay at the end.
    pub reuse: bool,
}

impl ControllerConfig {
    /// A controller on loopback with everything as stock has it.
    pub fn new(profile: Profile) -> Self {
        Self {
            client_file: profile.client_file(),
            engine_file: profile.engine_file(),
            profile,
            engine_interface: Interface::tcp("127.0.0.1"),
            client_interface: Interface::tcp("127.0.0.1"),
            location: address::host_name().unwrap_or_default(),
            ssh: String::new(),
            engine_ssh: String::new(),
            ports: Ports::default(),
            broadcast_depth: 1,
            key: None,
            curve: None,
            packer: Packer::Json,
            heart: heart::Config::default(),
            registration_timeout: None,
            task: TaskConfig::default(),
            max_engines: None,
            unsent: Unsent { max_bytes: MAX_UNREAD_BYTES, keep: RECONNECT_TIMEOUT },
            max_hub_lag: MAX_HUB_LAG,
            store: StoreKind::default(),
            max_store_lag: MAX_STORE_LAG,
            max_store_lag_bytes: MAX_STORE_LAG_BYTES,
            restore: false,
            reuse: false,
        }
    }
}

/// A controller that could not be started. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The profile's folder.
    #[error("cannot use the profile folder `{}`", path.display())]
    Profile {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder for socket files, with the transport `ipc`.
    #[error("cannot make the folder `{}` for the sockets", path.display())]
    SocketFolder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A socket.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A connection file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The database of task records.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// What is on record of an earlier controller.
    #[error(
        "what an earlier controller left in the task database cannot be read or changed (`docs/records.md` says what to do)"
    )]
    Records(#[source] StoreError),
    /// A thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// A controller that runs.
pub struct Controller {
    hub: Sender<hub::Event>,
    threads: Vec<JoinHandle<()>>,
    /// To be removed at the end.
    files: Vec<PathBuf>,
    /// To be removed at the end, too.
    socket_files: SocketFiles,
    client: ClientConnection,
    max_engines: usize,
}

/// Ends a controller, from any thread.
#[derive(Clone)]
pub struct Stopper(Sender<hub::Event>);

impl Stopper {
    /// Asks the controller to end.
    pub fn stop(&self) {
        self.0.send(hub::Event::Stop);
    }
}

impl Controller {
    /// Binds all sockets, starts all threads, and then writes the connection files: who finds them can connect.
    pub fn start(config: &ControllerConfig) -> Result<Self, StartError> {
        let profile = &config.profile;
        profile.create().map_err(|source| StartError::Profile { path: profile.dir().to_owned(), source })?;
        let mut opened = Opened::open(&config.store)?;
        // Connection files are removed at the end. Where they are there, the controller that wrote them was killed, and with a
        // database there is something to take over.
        let files = [&config.client_file, &config.engine_file];
        let reuse = config.reuse || (opened.lasts() && files.iter().all(|path| path.exists()));
        let known = reuse.then(|| Known::read(&config.client_file, &config.engine_file)).flatten();
        let clock = Clock::new();
        let security = config.curve.clone().map_or(Security::Plain, Security::Server);
        let context = Context::new().secured(security);

        let resolved = Resolved::new(config, known.as_ref());
        let mut socket_files = SocketFiles::make_folders(&resolved)?;
        let mut binder =
            Binder::new(&context, resolved.engine_interface.clone(), resolved.client_interface.clone(), resolved.ports);

        // The order in which stock draws its ports: engines first, then clients. An engine connects one ROUTER to mux,
        // task and broadcast, so these need identities that differ.
        let (registration, registration_port) = binder.bind_hub()?;
        let (engine_control, engine_control_port) = binder.bind(For::Engines, Kind::Router, Some("control_out"))?;
        let (engine_mux, engine_mux_port) = binder.bind(For::Engines, Kind::Router, Some("mux_out"))?;
        let (engine_task, engine_task_port) = binder.bind(For::Engines, Kind::Router, Some("task_out"))?;
        let (engine_iopub, engine_iopub_port) = binder.bind(For::Engines, Kind::Sub, None)?;
        let (ping, ping_port) = binder.bind(For::Engines, Kind::Pub, None)?;
        let (pong, pong_port) = binder.bind(For::Engines, Kind::Router, None)?;
        let (engine_broadcast, first_leaf) = binder.bind(For::Engines, Kind::Router, Some("broadcast_out"))?;
        let mut leaves = vec![first_leaf];
        for _ in 1..resolved.leaves {
            leaves.push(binder.bind_again(&engine_broadcast)?);
        }
        let (client_control, client_control_port) = binder.bind(For::Clients, Kind::Router, Some("control_in"))?;
        let (client_mux, client_mux_port) = binder.bind(For::Clients, Kind::Router, Some("mux_in"))?;
        let (client_task, client_task_port) = binder.bind(For::Clients, Kind::Router, Some("task_in"))?;
        let (client_iopub, client_iopub_port) = binder.bind(For::Clients, Kind::Pub, None)?;
        let (notification, notification_port) = binder.bind(For::Clients, Kind::Pub, None)?;
        let (client_broadcast, client_broadcast_port) =
            binder.bind(For::Clients, Kind::Router, Some("broadcast_in"))?;

        let (key, packer) = (resolved.key, resolved.packer);
        let common = Common {
            ssh: resolved.engine_ssh,
            interface: resolved.engine_interface.to_string(),
            registration: registration_port,
            key: key.clone(),
            curve_serverkey: config.curve.as_ref().map(KeyPair::public_text),
            location: resolved.location,
            pack: packer.name().to_owned(),
            unpack: packer.name().to_owned(),
            signature_scheme: "hmac-sha256".to_owned(),
        };
        let client_common =
            Common { ssh: resolved.ssh, interface: resolved.client_interface.to_string(), ..common.clone() };
        let engine_file = EngineConnection {
            common,
            control: engine_control_port,
            mux: engine_mux_port,
            task: engine_task_port,
            iopub: engine_iopub_port,
            hb_ping: ping_port,
            hb_pong: pong_port,
            broadcast: leaves,
        };
        let client_file = ClientConnection {
            common: client_common,
            control: client_control_port,
            mux: client_mux_port,
            task: client_task_port,
            task_scheme: config.task.scheme.to_string(),
            iopub: client_iopub_port,
            notification: notification_port,
            broadcast: client_broadcast_port,
        };

        socket_files.remember(&client_file, &engine_file);

        let signing = Key::new(&key);
        let session = || remuda_net::session(None, signing.clone(), packer);
        let (hub_sender, hub_mailbox) = mailbox().map_err(NetError::from)?;
        let (heart_sender, heart_mailbox) = mailbox().map_err(NetError::from)?;
        let (task_sender, task_mailbox) = mailbox().map_err(NetError::from)?;
        let (mux_sender, mux_mailbox) = mailbox().map_err(NetError::from)?;
        let (control_sender, control_mailbox) = mailbox().map_err(NetError::from)?;
        let (output_sender, output_mailbox) = mailbox().map_err(NetError::from)?;
        let (broadcast, broadcast_mailbox) = mailbox().map_err(NetError::from)?;

        let started = clock.now();
        let max_engines = config.max_engines.unwrap_or_else(|| engines_that_fit(limits::open_files())).min(MAX_ENGINES);
        let (max_message_bytes, unsent) = (config.task.max_message_bytes, config.unsent);
        let hub_defaults = hub::Config::with_heart_period(config.heart.period);
        let hub_machine = Hub::new(
            hub::Config {
                registration_timeout: config.registration_timeout.unwrap_or(hub_defaults.registration_timeout),
                // Longer than the schedulers wait for these engines.
                recovery_timeout: config.task.reattach * 2,
                max_engines,
                max_message_bytes,
                engine_connection: engine_addresses(&engine_file),
                controller: ControllerInfo {
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    pid: std::process::id(),
                    scheme: config.task.scheme.to_string(),
                    hwm: config.task.hwm,
                    started: started.date.to_string(),
                    durability: durability(&config.store).name().to_owned(),
                },
                in_effect: in_effect(config, max_engines),
                started_at: started.instant,
                ..hub_defaults
            },
            session(),
        );
        let refusals = RefusalCounts::default();
        let committed = {
            let (task, mux, broadcast) = (task_sender.clone(), mux_sender.clone(), broadcast.clone());
            move |queue, ticket| match queue {
                Queue::Task => task.send(TaskEvent::Committed { ticket }),
                Queue::Mux => mux.send(RelayEvent::Committed { ticket }),
                Queue::Broadcast => broadcast.send(BroadcastEvent::Committed { ticket }),
            }
        };
        let state = config.restore || known.is_some() && opened.lasts();
        let mut engines_file = EnginesFile::of(profile);
        let state = if state { engines_file.read() } else { engines_file.begin_anew() };
        let engines = state.iter().flat_map(|state| state.engines.values().cloned()).collect();
        let finished = config.task.max_finished_ids.min(MAX_RECOVERED_IDS);
        let (receipts, delivered) = receipts(&config.store);
        let taken = opened.take_over(known.is_some(), &session(), (finished, engines), &delivered, started.date)?;
        if let Some(TakenOver { all, task, delivered, mux, broadcast: to_broadcast }) = taken {
            // Before anything else, and before anybody can send anything.
            hub_sender.send(hub::Event::Recover(all));
            let delivered = delivered.into_iter().map(|msg_id| Monitor::Delivered { msg_id });
            hub_sender.send_all(delivered.map(hub::Event::Monitor));
            task_sender.send(TaskEvent::Recover(Box::new(task)));
            mux_sender.send(RelayEvent::Recover(Box::new(mux)));
            broadcast.send(BroadcastEvent::Recover(Box::new(to_broadcast)));
        }
        let tell = {
            let (task, mux, control) = (task_sender.clone(), mux_sender, control_sender);
            let committed = committed.clone();
            let (hub, refusals, max_hub_lag) = (hub_sender.clone(), refusals.clone(), config.max_hub_lag);
            // Held so that the output relay, which gets no mail, ends together with the others.
            let output = output_sender;
            move |news| {
                let _ = &output;
                match news {
                    News::Joined { uuid, id, capability } => {
                        task.send(TaskEvent::Registered { uuid: uuid.clone(), capability: capability.clone() });
                        mux.send(RelayEvent::Registered { uuid: uuid.clone(), id, capability: capability.clone() });
                        broadcast.send(BroadcastEvent::Registered { uuid: uuid.clone() });
                        control.send(RelayEvent::Registered { uuid, id, capability });
                    }
                    News::Left { uuid } => {
                        task.send(TaskEvent::Unregistered { uuid: uuid.clone() });
                        mux.send(RelayEvent::Unregistered { uuid: uuid.clone() });
                        broadcast.send(BroadcastEvent::Unregistered { uuid: uuid.clone() });
                        control.send(RelayEvent::Unregistered { uuid });
                    }
                    News::Granted(grant) => engines_file.grant(&grant),
                    News::Engines(state) => engines_file.save(&state),
                    News::Drain { uuid, request } => task.send(TaskEvent::Drain { uuid, request }),
                    News::Signal { engine, body } => control.send(RelayEvent::Signal { engine, body }),
                    News::Resubmit { msg_id, body } => task.send(TaskEvent::Resubmit { msg_id, body }),
                    News::Explain { question, msg_ids, whole } => {
                        task.send(TaskEvent::Explain { question, msg_ids, whole });
                        if whole {
                            heart_sender.send(heart::Event::Explain { question });
                            let drivers = driver_state(&refusals, hub.lag(), max_hub_lag);
                            hub.send(hub::Event::Drivers { question, drivers });
                        }
                    }
                    News::ExpectHeart(uuid) => heart_sender.send(heart::Event::Expect { heart: uuid }),
                    News::ForgetHeart(uuid) => heart_sender.send(heart::Event::Forget { heart: uuid }),
                    News::Committed { queue, ticket } => committed(queue, ticket),
                }
            }
        };
        let backlog = Backlog::new(config.max_store_lag, config.max_store_lag_bytes);
        let link = MonitorLink::new(hub_sender.clone(), config.max_hub_lag).with_backlog(backlog.clone());
        let monitor = || link.clone();
        let to_hub = hub_sender.clone();
        let tell_task = move |event| task_sender.send(event);

        if let Some(state) = state {
            hub_sender.send(hub::Event::Restore(state));
        }
        let durability = durability(&config.store);
        let task_config = TaskConfig { durability, ..config.task.clone() };
        let (records, store_thread) = opened.start(&hub_sender, backlog, committed, clock)?;
        // Where records outlive this controller, they tell which replies went out.
        let tells = (durability != Durability::None).then_some(packer);
        let task_driver = TaskDriver::new(client_task, engine_task, monitor(), unsent);
        let mut threads = vec![
            spawn(
                "hub",
                hub_machine,
                HubDriver::new(registration, notification, unsent, (records, hub_sender.clone()), tell)
                    .counted_in(&refusals),
                hub_mailbox,
                clock,
            )?,
            spawn(
                "heart",
                HeartMonitor::new(config.heart, clock.now().instant),
                HeartDriver::new(ping, pong, move |event| to_hub.send(event)).counted_in(&refusals),
                heart_mailbox,
                clock,
            )?,
            spawn(
                "task",
                TaskScheduler::new(task_config, session()),
                tells
                    .iter()
                    .fold(task_driver, |driver, packer| driver.telling(*packer, receipts.clone()))
                    .counted_in(&refusals),
                task_mailbox,
                clock,
            )?,
        ];
        let relay = |channel| {
            let relay = Relay::new(channel, session()).with_message_limit(max_message_bytes);
            relay.with_durability(durability).with_reattach(config.task.reattach)
        };
        let names = ["mux", "mux (engines)"];
        let mux = RelayDriver::new(client_mux, engine_mux, names, monitor(), unsent, |_| ());
        let mux = tells.iter().fold(mux, |driver, packer| driver.telling(*packer, receipts.clone()));
        let names = ["control", "control (engines)"];
        let control = RelayDriver::new(client_control, engine_control, names, monitor(), unsent, tell_task);
        let (mux, control) = (mux.counted_in(&refusals), control.counted_in(&refusals));
        threads.push(spawn("mux", relay(Channel::Mux), mux, mux_mailbox, clock)?);
        threads.push(spawn("control", relay(Channel::Control), control, control_mailbox, clock)?);
        let output = OutputDriver::new(engine_iopub, client_iopub, monitor(), unsent);
        let output = output.counted_in(&refusals);
        let relay = OutputRelay::new(session()).with_message_limit(max_message_bytes);
        threads.push(spawn("iopub", relay, output, output_mailbox, clock)?);
        let driver = BroadcastDriver::new(client_broadcast, engine_broadcast, monitor(), unsent);
        let driver = driver.counted_in(&refusals);
        let broadcast = Broadcast::new(session()).with_message_limit(max_message_bytes);
        let broadcast = broadcast.with_durability(durability).with_reattach(config.task.reattach);
        threads.push(spawn("broadcast", broadcast, driver, broadcast_mailbox, clock)?);
        drop(link);
        threads.extend(store_thread);

        let paths = [config.client_file.clone(), config.engine_file.clone()];
        let is_known = known.is_some_and(|known| known.client == client_file && known.engine == engine_file);
        let mut controller =
            Self { hub: hub_sender, threads, files: Vec::new(), socket_files, client: client_file, max_engines };
        if !is_known {
            let written = connection_file::write(&paths[0], &controller.client)
                .and_then(|()| connection_file::write(&paths[1], &engine_file));
            if let Err(error) = written {
                controller.files.extend(paths);
                controller.stopper().stop();
                controller.wait();
                return Err(error.into());
            }
        }
        if !config.reuse {
            controller.files.extend(paths);
        }
        Ok(controller)
    }

    /// What clients need to connect.
    pub fn connection(&self) -> &ClientConnection {
        &self.client
    }

    /// How many engines it takes.
    pub fn max_engines(&self) -> usize {
        self.max_engines
    }

    /// Something that can end it.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.hub.clone())
    }

    /// Waits until it ends: by a [`Stopper`], or because a client shut it down. Removes the connection files, unless
    /// they are to be used again.
    pub fn wait(self) {
        let Self { hub, threads, files, socket_files, .. } = self;
        drop(hub);
        let mut threads = threads.into_iter();
        // The hub ends first, and the others as they lose their link to it.
        if let Some(first) = threads.next() {
            let _ = first.join();
        }
        for file in &files {
            if let Err(error) = fs::remove_file(file) {
                tracing::debug!("cannot remove `{}`: {error}", file.display());
            }
        }
        threads.for_each(|thread| drop(thread.join()));
        drop(socket_files);
    }
}

/// What the threads count, with so many reports on their way to the hub.
fn driver_state(refusals: &RefusalCounts, hub_lag: usize, hub_lag_limit: usize) -> DriverState {
    let refused = refusals.all().into_iter();
    let refused =
        refused.map(|(socket, kind, count)| Refused { socket: socket.to_owned(), kind: kind.to_owned(), count });
    DriverState { refused: refused.collect(), hub_lag: hub_lag as u64, hub_lag_limit: hub_lag_limit as u64 }
}

/// How many engines fit a controller that may have so many files open. Where that is very low, one fits all the same: it may.
pub fn engines_that_fit(open_files: u64) -> usize {
    let files = open_files.saturating_sub(OTHER_FILES) / ENGINE_CONNECTIONS;
    usize::try_from(files).unwrap_or(usize::MAX).max(1)
}

/// How many files a controller with so many engines has to be allowed to open.
pub fn files_for(engines: usize) -> u64 {
    (engines as u64).saturating_mul(ENGINE_CONNECTIONS).saturating_add(OTHER_FILES)
}

/// What an engine is told of addresses when it registers: its file less the key (wire reference, 4.3).
fn engine_addresses(file: &EngineConnection) -> Value {
    json!({
        "interface": file.common.interface, "registration": file.common.registration, "control": file.control,
        "mux": file.mux, "task": file.task, "iopub": file.iopub, "hb_ping": file.hb_ping, "hb_pong": file.hb_pong,
        "broadcast": file.broadcast,
    })
}

/// Runs a machine on a thread of its own. A machine that panics ends the process: its state is not to be believed, and
/// starting again is a tested path.
fn spawn<D>(
    name: &str,
    mut machine: D::Machine,
    mut driver: D,
    mailbox: Mailbox<<D::Machine as Machine>::Event>,
    clock: Clock,
) -> Result<JoinHandle<()>, StartError>
where
    D: Driver + Send + 'static,
    D::Machine: Send + 'static,
    <D::Machine as Machine>::Event: Send + 'static,
{
    start_thread(name, move || drive(&mut machine, &mut driver, &mailbox, clock))
}

/// Starts a thread whose panic ends the process.
pub(crate) fn start_thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    let run = move || {
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            tracing::error!("a part of the controller contradicted itself (see above): ending the process");
            std::process::abort();
        }
    };
    thread::Builder::new().name(name.to_owned()).spawn(run).map_err(StartError::Thread)
}

/// How long a clean end may take before the process gives up waiting for its threads.
pub const END_TIMEOUT: Duration = Duration::from_secs(4);
