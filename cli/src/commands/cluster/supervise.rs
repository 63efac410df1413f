//! The supervisor of a cluster: `remuda cluster start`, in the foreground or behind.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use remuda_client::{Client, ConnectOptions};
use remuda_cluster::fleet::{
    Answer, Asker, Effect, Elastic, EngineEntry, EngineLoad, EngineStanding, Event, Fleet, UnitId,
};
use remuda_cluster::jobs;
use remuda_cluster::launch::batch::Shape;
use remuda_cluster::launch::ssh::{HostSpec, Ssh};
use remuda_cluster::{
    ClusterFile, Elsewhere, End, LocalCluster, Member, NANNY_STOP_TIMEOUT, ProcessId, Programs, Word,
};
use remuda_net::{Clock, Profile, connection_file};
use remuda_proto::message::restart::Restart;
use remuda_proto::{EngineId, EngineUuid};
use tokio::sync::{mpsc, oneshot};

use super::door::{Door, Question};
use super::jobs::{JobDriver, JobMail, JobPlan};
use super::line::Line;
use super::{Signals, WATCH, say};
use crate::args::cluster::StartArgs;
use crate::commands::venue::OUTPUT_LIMIT_BYTES;
use crate::failure::{Failure, Outcome};

/// How often a cluster that grows and shrinks looks what there is to do.
const LOOK: Duration = Duration::from_millis(250);
/// How long jobs may wait in their queue until it is said that they do.
const QUEUED: Duration = Duration::from_secs(2);
/// Longer than anybody waits.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How often it is looked whether the controller still has engines that run.
const COMPARE: Duration = Duration::from_secs(1);
/// How long nannies may take beyond the time that they give their engines.
const SLACK: Duration = Duration::from_secs(3);

/// What is started.
pub(super) struct Plan {
    pub(super) programs: Programs,
    /// What nannies are told, wherever they are, but for the number of engines.
    pub(super) nanny: Vec<String>,
    /// Where they are.
    pub(super) place: Where,
    /// When engines that have ended are started again, and nannies.
    pub(super) restart: Restart,
    /// How many engines to begin with, by unit.
    pub(super) units: Vec<u32>,
    /// Between how many there are to be, if that follows the work.
    pub(super) elastic: Option<Elastic>,
    /// Whether they run programs.
    pub(super) native: bool,
    /// Whether they are ipyparallel's, which do not come back by themselves.
    pub(super) is_python: bool,
    pub(super) reuse: bool,
}

impl Plan {
    fn fleet(&self) -> Fleet {
        let fleet = self.elastic.map_or_else(Fleet::default, |elastic| Fleet::elastic(elastic, self.native));
        let fleet = fleet.restarting(self.restart);
        match self.place {
            Where::Jobs(_, shape) => fleet.in_jobs(shape),
            Where::Here { .. } | Where::Hosts { .. } => fleet,
        }
    }
}

/// Where a cluster's engines are.
pub(super) enum Where {
    /// On this machine.
    Here {
        /// The nanny's program and first arguments.
        program: Vec<OsString>,
    },
    /// On other machines, which take turns.
    Hosts {
        /// How they are reached.
        ssh: Ssh,
        /// Which.
        hosts: Vec<HostSpec>,
        /// Whether the controller's ports are taken there.
        tunnel: bool,
        /// What nannies are told besides.
        arguments: Vec<String>,
    },
    /// In jobs of a batch system, or ranks of MPI.
    Jobs(Box<JobPlan>, Shape),
}

/// Runs a cluster until somebody ends it.
pub(super) async fn run(args: &StartArgs, profile: &Profile, plan: Plan) -> Outcome {
    let mut signals = Signals::new()?;
    let controller = LocalCluster::start(&plan.programs, profile, 0, Duration::from_secs_f64(args.delay), plan.reuse)?;
    let (door, mut questions) = Door::open(profile)?;
    let timeout = Duration::from_secs_f64(args.engine.timeout);
    let options = ConnectOptions::file(profile.client_file()).timeout(timeout).output_limit_bytes(OUTPUT_LIMIT_BYTES);
    let client = Client::connect(options).await?;
    let (events, mut mail) = mpsc::unbounded_channel();
    let (jobs, mut job_mail) = match &plan.place {
        Where::Jobs(jobs, _) => {
            let (driver, mail) = JobDriver::open((**jobs).clone(), profile).await?;
            (Some(driver), mail)
        }
        Where::Here { .. } | Where::Hosts { .. } => (None, JobMail::none()),
    };
    let mut supervisor = Supervisor {
        profile,
        plan: &plan,
        controller,
        door,
        client,
        fleet: plan.fleet(),
        units: BTreeMap::new(),
        jobs,
        clock: Clock::new(),
        compared: remuda_proto::Instant::default(),
        events,
        asked: BTreeMap::new(),
        next: 0,
        is_changed: false,
        saved: Instant::now(),
    };
    let wanted: u32 = plan.units.iter().sum();
    supervisor.handle(Event::Begin { units: plan.units.clone() });
    supervisor.save();
    if plan.elastic.is_some() {
        tokio::spawn(look(supervisor.client.clone(), supervisor.events.clone()));
    }
    let (mut start, mut ready, mut queued) = (Instant::now(), false, None);
    let ended = loop {
        tokio::select! {
            _ = signals.ends.next() => break Ok(()),
            signal = signals.forward.recv() => {
                let Some(signal) = signal else { break Ok(()) };
                supervisor.signal(signal);
            }
            Some(event) = mail.recv() => supervisor.handle(event),
            Some(event) = job_mail.events.recv() => supervisor.of_jobs(|jobs, now| jobs.handle(now, event)),
            Some(line) = job_mail.lines.recv() => supervisor.of_jobs(|jobs, now| jobs.hear(now, line)),
            Some(question) = questions.recv() => supervisor.asked(question),
            () = tokio::time::sleep(WATCH) => {}
        }
        supervisor.look();
        supervisor.save_if_due();
        if let Some(status) = supervisor.controller.controller_ended() {
            if status.success() {
                say("the controller was shut down");
                break Ok(());
            }
            let failure = supervisor.controller.failure();
            break Err(failure.map_or_else(|| Failure::usage("the controller ended"), Failure::new));
        }
        if ready {
            continue;
        }
        if let Some(why) = supervisor.jobs.as_ref().and_then(JobDriver::out_of_reach) {
            break Err(Failure::new(anyhow::anyhow!("{why}")).hint("start the cluster with `--ip='*'`"));
        }
        // What waits in a queue is not late.
        if let Some((engines, reason)) = supervisor.fleet.roster().waiting() {
            start = Instant::now();
            if queued.get_or_insert(start).elapsed() > QUEUED {
                queued = Some(start + FOREVER);
                say(&super::queue_text(engines, reason));
            }
        }
        let there = supervisor.registered();
        if there >= wanted as usize {
            ready = true;
            supervisor.handle(Event::Ready);
            let text = if there == 1 { "1 engine is".to_owned() } else { format!("{there} engines are") };
            say(&format!("{text} ready; connection files in `{}`", profile.security().display()));
            if !args.engine.detached {
                say(&format!("press Ctrl-C to stop, or run `remuda cluster stop{}`", args.place.options()));
            }
        } else if let Some(failure) = supervisor.fleet.roster().failure() {
            break Err(Failure::new(anyhow::anyhow!("{failure}")));
        } else if start.elapsed() > timeout {
            let what = format!("{there} of {wanted} engines registered within {} s", timeout.as_secs_f64());
            let hint = format!(
                "see the engines' logs in `{}`, or give them more time with `--timeout`",
                profile.log().display()
            );
            break Err(Failure::new(anyhow::anyhow!(what)).hint(hint));
        }
    };
    supervisor.stop(&mut mail, &mut job_mail).await;
    ended?;
    say("the cluster is stopped");
    Ok(ExitCode::SUCCESS)
}

/// A nanny that was started.
struct Unit {
    /// What it is told; when this goes its stdin ends.
    words: mpsc::UnboundedSender<Word>,
    /// The nanny's process, or that of its ssh, once it has started.
    process: Arc<OnceLock<ProcessId>>,
    log: PathBuf,
    /// Whether its engines are processes of this machine.
    is_here: bool,
}

struct Supervisor<'a> {
    profile: &'a Profile,
    plan: &'a Plan,
    /// The controller alone: engines are the nannies'.
    controller: LocalCluster,
    door: Door,
    client: Client,
    fleet: Fleet,
    /// Those that are processes of ours, or have an ssh that is.
    units: BTreeMap<UnitId, Unit>,
    /// The others, if units are jobs.
    jobs: Option<JobDriver>,
    clock: Clock,
    /// When it was looked last which engines are registered.
    compared: remuda_proto::Instant,
    events: mpsc::UnboundedSender<Event>,
    /// Who waits for an answer.
    asked: BTreeMap<Asker, oneshot::Sender<Answer>>,
    next: Asker,
    /// Whether there are other processes than were written down, and when that was.
    is_changed: bool,
    saved: Instant,
}

/// Tells what the controller has to do, again and again.
async fn look(client: Client, events: mpsc::UnboundedSender<Event>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Ok(status) = client.status().await else { continue };
        let Some(remuda) = status.remuda else { continue };
        let engines = remuda.engines.into_iter().filter_map(|(id, engine)| {
            let outstanding = engine.queue + engine.tasks;
            let id = EngineId(id.parse().ok()?);
            Some(EngineLoad { id, uuid: engine.uuid, outstanding, completed: engine.completed, slots: engine.slots })
        });
        let event = Event::Load { waiting: remuda.waiting, engines: engines.collect() };
        if events.send(event).is_err() {
            break;
        }
    }
}

impl Supervisor<'_> {
    fn handle(&mut self, event: Event) {
        let mut out = Vec::new();
        self.fleet.handle(self.clock.now().instant, event, &mut out);
        self.perform_all(out);
    }

    /// What is due.
    fn look(&mut self) {
        let (mut out, now) = (Vec::new(), self.clock.now().instant);
        self.fleet.look(now, &mut out);
        if self.plan.is_python && now.since(self.compared) >= COMPARE {
            self.compared = now;
            let registered = self.client.engines().into_iter().map(|engine| engine.uuid).collect();
            self.fleet.registered(now, &registered, &mut out);
        }
        self.perform_all(out);
        self.of_jobs(JobDriver::look);
    }

    /// Has the jobs do something, if there are any, and acts on what comes of it.
    fn of_jobs(&mut self, what: impl FnOnce(&mut JobDriver, remuda_proto::Instant) -> Vec<Event>) {
        let now = self.clock.now().instant;
        if let Some(jobs) = &mut self.jobs {
            for event in what(jobs, now) {
                self.is_changed = true;
                self.handle(event);
            }
        }
    }

    fn perform_all(&mut self, effects: Vec<Effect>) {
        // Units that begin together may be one job.
        let mut together = Vec::new();
        for effect in effects {
            match effect {
                Effect::StartUnit { unit, engines } if self.jobs.is_some() => together.push((unit, engines)),
                effect => self.perform(effect),
            }
        }
        if !together.is_empty() {
            self.is_changed = true;
            self.of_jobs(|jobs, now| jobs.handle(now, jobs::Event::Start { units: together }));
        }
    }

    fn asked(&mut self, question: Question) {
        let by = self.next;
        self.next += 1;
        self.asked.insert(by, question.answer);
        let engines = self.client.engines().into_iter();
        let registered = engines.filter_map(|engine| Some((engine.id?, engine.uuid))).collect();
        self.handle(Event::Asked { by, command: question.command, registered });
    }

    /// How many of its engines are registered.
    fn registered(&self) -> usize {
        let there: BTreeSet<EngineUuid> = self.client.engines().into_iter().map(|engine| engine.uuid).collect();
        self.fleet.roster().running().filter(|engine| there.contains(&engine.uuid)).count()
    }

    fn signal(&mut self, signal: Signal) {
        let word = Word::Signal { signal: signal as i32 };
        for unit in self.units.values() {
            let _ = unit.words.send(word.clone());
        }
        let (now, units) = (self.clock.now().instant, &self.fleet.roster().units);
        if let Some(jobs) = &mut self.jobs {
            units.iter().for_each(|unit| jobs.tell(now, unit.unit, word.clone()));
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::StartUnit { unit, engines } => {
                if let Err(failure) = self.start_unit(unit, engines) {
                    let end = End::failed(format!("cannot be started: {failure}"));
                    let _ = self.events.send(Event::UnitEnded { unit, end });
                }
            }
            Effect::Tell { unit, word } => {
                if let Some(jobs) = &mut self.jobs {
                    jobs.tell(self.clock.now().instant, unit, word);
                } else if let Some(unit) = self.units.get(&unit) {
                    let _ = unit.words.send(word);
                }
            }
            Effect::Drain { by, engines } => {
                let (client, events) = (self.client.clone(), self.events.clone());
                tokio::spawn(async move {
                    let (ids, uuids): (Vec<_>, Vec<EngineUuid>) = engines.into_iter().unzip();
                    let refused = client.drain(&ids, true).await.err().map(|error| error.to_string());
                    let _ = events.send(Event::Drained { by, uuids, refused });
                });
            }
            Effect::Answer { to, answer } => {
                if let Some(asker) = self.asked.remove(&to) {
                    let _ = asker.send(answer);
                }
            }
            Effect::Kill { unit, pids } => {
                if self.units.get(&unit).is_some_and(|unit| unit.is_here) {
                    for pid in pids {
                        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
                    }
                }
            }
            Effect::Save => self.is_changed = true,
            Effect::Complain(text) => say(&text),
        }
    }

    fn start_unit(&mut self, unit: UnitId, engines: u32) -> io::Result<()> {
        let log = self.profile.log_file(&format!("ipnanny-{unit}"));
        let (words, to_say) = mpsc::unbounded_channel::<Word>();
        let process = Arc::default();
        let line = Line { unit, to_say, events: self.events.clone(), process: Arc::clone(&process), log: log.clone() };
        let mut arguments = vec!["--speak".to_owned(), "-n".to_owned(), engines.to_string()];
        arguments.extend(self.plan.nanny.iter().cloned());
        let is_here = match &self.plan.place {
            Where::Here { program } => {
                let mut nanny = std::process::Command::new(&program[0]);
                nanny.args(&program[1..]).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
                let nanny = line.start(nanny)?;
                tokio::spawn(line.tend(nanny, End::of));
                true
            }
            Where::Hosts { ssh, hosts, tunnel, arguments: more } => {
                arguments.extend(more.iter().cloned());
                let host = hosts[unit as usize % hosts.len()].clone();
                let file = connection_file::read_engine(&self.profile.engine_file()).map_err(io::Error::other)?;
                tokio::spawn(line.reach(ssh.clone(), host, file, *tunnel, arguments));
                false
            }
            Where::Jobs(..) => return Ok(()),
        };
        self.units.insert(unit, Unit { words, process, log, is_here });
        Ok(())
    }

    /// The engines that run as processes of this machine.
    fn engines_here(&self) -> impl Iterator<Item = &EngineEntry> {
        let units = self.fleet.roster().units.iter();
        let here = units.filter(|of| self.units.get(&of.unit).is_some_and(|unit| unit.is_here));
        here.flat_map(|of| &of.engines).filter(|engine| engine.standing == EngineStanding::Running)
    }

    /// Writes down which processes there are, if that has changed and was not done just now: a thousand engines that start
    /// are not a thousand files.
    fn save_if_due(&mut self) {
        if self.is_changed && self.saved.elapsed() >= WATCH {
            self.save();
        }
    }

    /// Writes down which processes there are, for who stops the cluster when nobody supervises it.
    fn save(&mut self) {
        (self.is_changed, self.saved) = (false, Instant::now());
        let engines = self.engines_here().map(|engine| Member {
            process: ProcessId::of(Pid::from_raw(engine.pid)),
            log: PathBuf::from(&engine.log),
        });
        let nannies = self.units.values().filter_map(|unit| {
            let process = *unit.process.get()?;
            Some(Member { process, log: unit.log.clone() })
        });
        let this = Member { process: ProcessId::this(), log: PathBuf::new() };
        let elsewhere = self.fleet.roster().units.iter().filter_map(|of| {
            let unit = self.units.get(&of.unit);
            if unit.is_some_and(|unit| unit.is_here) {
                return None;
            }
            let ssh = unit.and_then(|unit| Some(Member { process: *unit.process.get()?, log: unit.log.clone() }));
            let through = ssh.unwrap_or_else(|| this.clone());
            let running = of.engines.iter().filter(|engine| engine.standing == EngineStanding::Running);
            Some(Elsewhere { through, engines: running.count() })
        });
        let mut file = ClusterFile {
            engines: engines.collect(),
            elsewhere: elsewhere.collect(),
            nannies: nannies.filter(|nanny| nanny.process.runs()).collect(),
            control: Some(self.door.path().to_owned()),
            ..self.controller.file(Some(ProcessId::this()))
        };
        if let Some(jobs) = &self.jobs {
            jobs.note(&mut file);
        }
        if let Err(error) = file.write(self.profile) {
            say(&format!("warning: {error}"));
        }
    }

    /// Ends the engines, then the controller.
    async fn stop(mut self, mail: &mut mpsc::UnboundedReceiver<Event>, job_mail: &mut JobMail) {
        self.handle(Event::Stop);
        self.of_jobs(|jobs, now| jobs.handle(now, jobs::Event::Stop));
        let patience = tokio::time::sleep(NANNY_STOP_TIMEOUT + SLACK);
        tokio::pin!(patience);
        // Jobs give up by themselves what does not end.
        while self.jobs.as_ref().map_or_else(|| self.fleet.units_left() > 0, |jobs| !jobs.is_empty()) {
            tokio::select! {
                Some(event) = mail.recv() => self.handle(event),
                Some(event) = job_mail.events.recv() => self.of_jobs(|jobs, now| jobs.handle(now, event)),
                Some(line) = job_mail.lines.recv() => self.of_jobs(|jobs, now| jobs.hear(now, line)),
                () = tokio::time::sleep(WATCH), if self.jobs.is_some() => self.look(),
                () = &mut patience, if self.jobs.is_none() => break,
            }
        }
        for engine in self.engines_here() {
            let _ = killpg(Pid::from_raw(engine.pid), Signal::SIGKILL);
        }
        for process in self.units.values().filter_map(|unit| unit.process.get()) {
            process.signal(Signal::SIGKILL);
        }
        let profile = self.profile;
        drop(self.client);
        self.controller.stop();
        ClusterFile::remove(profile);
    }
}
