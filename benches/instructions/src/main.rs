//! `remuda-instructions`: how many instructions a task costs in the cores, counted by callgrind: the same on every machine and however busy it
//! is, so that a change of a few percent is seen.
//!
//! What is counted is one thread's work on prepared events, without sockets. A row is counted in a process of its own,
//! twice with different numbers of tasks, so that what happens only once drops out.

mod args;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{self, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use remuda_hub::store::{MemoryStore, TaskStore};
use remuda_hub::{Config, Effect, EngineState, Event, Hub, Limits};
use remuda_instructions::{EMPTY, Headers, PAYLOAD_BYTES, engine_uuid, session, task_metadata, today};
use remuda_proto::message::native::Capability;
use remuda_proto::monitor::Monitor;
use remuda_proto::{Body, EngineId, Frames, FramesBuilder, Identity, Instant, Machine, MsgType, Now, Session};
use remuda_scheduler::{Channel, Relay, RelayEffect, RelayEvent, TaskConfig, TaskEffect, TaskEvent, TaskScheduler};
use serde_json::json;

use crate::args::{Args, Command, CountArgs, Row};

/// Tasks of the shorter of the two runs of a row; the longer one has three times as many.
const TASKS: u32 = 2_000;
/// Engines, and most tasks outstanding on each.
const ENGINES: u32 = 16;
const HWM: u32 = 64;
/// Most tasks outstanding in all.
const WINDOW: usize = 2 * (ENGINES * HWM) as usize;
/// By how much a row may cost more than what is stored before `--check` fails, in percent. Compilers differ by a few.
const MARGIN_PERCENT: u64 = 5;

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.command {
        Some(Command::Count(work)) => count(work),
        None => run(&args),
    };
    done.unwrap_or_else(|error| {
        let _gone = writeln!(io::stderr(), "error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Counts every row, and compares.
fn run(args: &Args) -> Result<ExitCode> {
    let counted = Row::ALL.into_iter().map(|row| Ok((row.name().to_owned(), per_task(row)?)));
    let counted: BTreeMap<String, u64> = counted.collect::<Result<_>>()?;
    if args.write {
        let text = serde_json::to_string_pretty(&counted)? + "\n";
        std::fs::write(&args.stored, text).with_context(|| format!("cannot write `{}`", args.stored.display()))?;
    }
    let stored = read(&args.stored)?;
    let mut text = format!("{:<12}{:>20}{:>10}{:>10}\n", "row", "instructions a task", "stored", "ratio");
    let mut slower = Vec::new();
    for row in Row::ALL {
        let (now, before) = (counted[row.name()], stored.get(row.name()).copied());
        let Some(before) = before.filter(|before| *before > 0) else {
            writeln!(text, "{:<12}{now:>20}{:>10}{:>10}", row.name(), "-", "-")?;
            slower.push(format!("`{}` is not stored", row.name()));
            continue;
        };
        writeln!(text, "{:<12}{now:>20}{before:>10}{:>10.3}", row.name(), now as f64 / before as f64)?;
        if now * 100 > before * (100 + MARGIN_PERCENT) {
            slower.push(format!("`{}` takes {now} instructions a task instead of {before}", row.name()));
        }
    }
    io::stdout().write_all(text.as_bytes()).context("cannot write to stdout")?;
    if args.check && !slower.is_empty() {
        let all = slower.join(", ");
        bail!(
            "{all}: make it cheaper, or, if that is the price of something, store it with `remuda-instructions --write`"
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<BTreeMap<String, u64>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("`{}` is not a map of rows to numbers", path.display()))
}

/// What a task costs: the difference of two runs.
fn per_task(row: Row) -> Result<u64> {
    let _gone = writeln!(io::stderr(), "{}: {TASKS} and {} tasks under callgrind", row.name(), 3 * TASKS);
    let (short, long) = (collect(row, TASKS)?, collect(row, 3 * TASKS)?);
    ensure!(long > short && short > 0, "callgrind counted {short} instructions, then {long}");
    Ok((long - short) / u64::from(2 * TASKS))
}

/// Runs `remuda-instructions count` under callgrind.
fn collect(row: Row, tasks: u32) -> Result<u64> {
    let folder = tempfile::tempdir()?;
    let out = format!("--callgrind-out-file={}", folder.path().join("out").display());
    let mut command = process::Command::new("valgrind");
    command.args(["--tool=callgrind", "--toggle-collect=*remuda_instructions::counted*", &out]);
    command.arg(std::env::current_exe()?).args(["count", row.name(), &tasks.to_string()]);
    let output = command.output().context("cannot run `valgrind`: install it (Debian: `apt-get install valgrind`)")?;
    let talk = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind failed: {talk}");
    let line = talk.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, count)| count.trim());
    let line = line.with_context(|| format!("valgrind says nothing of what it collected: {talk}"))?;
    line.parse().with_context(|| format!("valgrind collected `{line}`"))
}

/// `remuda-instructions count`: what callgrind looks at.
fn count(args: &CountArgs) -> Result<ExitCode> {
    let scripts = Scripts::new(args.tasks)?;
    match args.row {
        Row::Task => {
            let mut machine = Scripts::scheduler();
            counted(|| play(&mut machine, scripts.task.clone()));
        }
        Row::Direct => {
            let mut machine = Scripts::relay();
            counted(|| play(&mut machine, scripts.direct.clone()));
        }
        Row::Hub => {
            let (mut hub, mut store) = (Scripts::hub(), MemoryStore::new(Limits::default()));
            counted(|| keep_books(&mut hub, &mut store, scripts.hub.clone()));
        }
        Row::Read => {
            let mut builder = FramesBuilder::default();
            counted(|| {
                for frames in &scripts.frames {
                    frames.parts().for_each(|part| builder.push(part));
                    drop(black_box(builder.finish()));
                }
            });
        }
        Row::Verify => {
            let signer = session("client", "a key of the usual length, in hex");
            let signed = scripts.frames.iter().map(|frames| {
                let body = &frames.body;
                signer.sign_parts([body.header(), body.parent_header(), body.metadata(), body.content()], [])
            });
            let signed: Vec<Body> = signed.collect();
            counted(|| {
                assert!(signed.iter().all(|body| signer.key().verify(body).is_ok()), "it was signed with the same key");
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What is called here is counted, and nothing else.
#[inline(never)]
fn counted(work: impl FnOnce()) {
    work();
}

fn play<M: Machine>(machine: &mut M, script: Vec<M::Event>) {
    let mut out = Vec::new();
    for event in script {
        machine.handle(NOW, event, &mut out);
        black_box(&out);
        out.clear();
    }
}

/// The hub as it is driven, with the records in the driver's own hands.
fn keep_books(hub: &mut Hub, store: &mut MemoryStore, script: Vec<Event>) {
    let mut out = Vec::new();
    for event in script {
        hub.handle(NOW, event, &mut out);
        for effect in out.drain(..) {
            match effect {
                Effect::Store(write) => store.write(write),
                other => drop(black_box(other)),
            }
        }
    }
}

/// No timer is on in what is played, so time stands still.
const NOW: Now = Now { instant: Instant(1), date: remuda_proto::Date(1) };

/// Events as they come for so many tasks, each of which is queued, assigned and answered.
struct Scripts {
    task: Vec<TaskEvent>,
    direct: Vec<RelayEvent>,
    hub: Vec<Event>,
    frames: Vec<Frames>,
}

impl Scripts {
    fn scheduler() -> TaskScheduler {
        let config = TaskConfig { hwm: HWM, ..TaskConfig::default() };
        let mut scheduler = TaskScheduler::new(config, session("scheduler", ""));
        let joined = (0..ENGINES)
            .map(|engine| TaskEvent::Registered { uuid: engine_uuid(engine), capability: Capability::stock() });
        play(&mut scheduler, joined.collect());
        scheduler
    }

    fn relay() -> Relay {
        let mut relay = Relay::new(Channel::Mux, session("mux", ""));
        let joined = (0..ENGINES).map(|engine| RelayEvent::Registered {
            uuid: engine_uuid(engine),
            id: EngineId(engine),
            capability: Capability::stock(),
        });
        play(&mut relay, joined.collect());
        relay
    }

    fn hub() -> Hub {
        let mut hub = Hub::new(Config::default(), session("hub", ""));
        let engines = (0..ENGINES).map(|engine| (EngineId(engine), engine_uuid(engine))).collect();
        let state = EngineState { engines, next_id: ENGINES, ..EngineState::default() };
        let hearts = (0..ENGINES).map(|engine| (engine_uuid(engine), NOW.instant)).collect();
        play(&mut hub, vec![Event::Restore(state), Event::NewHearts(hearts)]);
        hub
    }

    /// The scripts, put down while a scheduler, whose decisions they hang on, is asked what it does.
    fn new(tasks: u32) -> Result<Self> {
        let mut world = World::new()?;
        let mut scripts = Self { task: Vec::new(), direct: Vec::new(), hub: Vec::new(), frames: Vec::new() };
        let mut scheduler = Self::scheduler();
        let mut running: VecDeque<(Identity, Body)> = VecDeque::new();
        let mut out = Vec::new();
        let client = Identity::from(&b"client"[..]);
        let (mut sent, mut answered) = (0_u32, 0_u32);
        while answered < tasks {
            let event = if sent < tasks && (sent - answered) as usize <= WINDOW {
                let body = world.request(sent);
                let engine = engine_uuid(sent % ENGINES).identity();
                let idents = [client.clone(), engine.clone()];
                scripts.frames.push(Frames::new(idents, body.clone()));
                let reply = world.reply(&body, &engine);
                let to_engine = RelayEvent::FromClient {
                    client: client.clone(),
                    frames: Frames::new([engine.clone()], body.clone()),
                };
                let frames = Frames::new([client.clone()], reply);
                scripts.direct.extend([to_engine, RelayEvent::FromEngine { engine, frames }]);
                sent += 1;
                TaskEvent::Submit { client: client.clone(), body }
            } else {
                let (engine, request) = running.pop_front().context("nothing runs, and nothing is left to send")?;
                let body = world.reply(&request, &engine);
                answered += 1;
                TaskEvent::Result { engine, client: client.clone(), body }
            };
            scripts.task.push(event.clone());
            scheduler.handle(NOW, event, &mut out);
            for effect in out.drain(..) {
                match effect {
                    TaskEffect::ToEngine { engine, body, .. } => running.push_back((engine, body)),
                    TaskEffect::Monitor(seen) => scripts.hub.push(Event::Monitor(seen)),
                    TaskEffect::ToClient { .. } => {}
                    other => bail!("the scheduler did {other:?}"),
                }
            }
        }
        scripts.prove(tasks)?;
        Ok(scripts)
    }

    /// What is counted has to be the work of tasks that end well, not of refusals.
    fn prove(&self, tasks: u32) -> Result<()> {
        let replies = self.hub.iter().filter(|event| matches!(event, Event::Monitor(Monitor::Reply { .. }))).count();
        ensure!(replies == tasks as usize, "{replies} of {tasks} tasks were answered");
        let (mut hub, mut seen) = (Self::hub(), Vec::new());
        self.hub.iter().for_each(|event| hub.handle(NOW, event.clone(), &mut seen));
        let odd = seen.iter().find(|effect| !matches!(effect, Effect::Store(_)));
        ensure!(odd.is_none(), "the hub did {odd:?}");
        let (mut relay, mut seen) = (Self::relay(), Vec::new());
        self.direct.iter().for_each(|event| relay.handle(NOW, event.clone(), &mut seen));
        let refused = seen.iter().find(|effect| matches!(effect, RelayEffect::Refused { .. }));
        ensure!(refused.is_none(), "the relay did {refused:?}");
        Ok(())
    }
}

/// The messages of a client and its engines.
struct World {
    session: Session,
    requests: Headers,
    replies: Headers,
    metadata: Vec<u8>,
    content: Vec<u8>,
    header: Vec<u8>,
}

impl World {
    fn new() -> Result<Self> {
        let mut session = session("client", "");
        let requests = Headers::new(&mut session, MsgType::ApplyRequest)?;
        let replies = Headers::new(&mut session, MsgType::ApplyReply)?;
        Ok(Self { session, requests, replies, metadata: task_metadata()?, content: EMPTY.to_vec(), header: Vec::new() })
    }

    fn request(&mut self, number: u32) -> Body {
        self.requests.write(u64::from(number), &mut self.header);
        let buffer = bytes::Bytes::from_static(&[0; PAYLOAD_BYTES]);
        self.session.sign_parts([&self.header, EMPTY, &self.metadata, &self.content], [buffer])
    }

    fn reply(&mut self, request: &Body, engine: &Identity) -> Body {
        self.replies.write(0, &mut self.header);
        let metadata = json!({
            "date": today(), "dependencies_met": true, "engine": engine.to_string(), "is_broadcast": false,
            "is_coalescing": false, "original_msg_id": "", "started": today(), "status": "ok",
        });
        let metadata = metadata.to_string().into_bytes();
        self.session.sign_parts([&self.header, request.header(), &metadata, b"{\"status\":\"ok\"}"], [])
    }
}
