//! Engines in jobs: what carries out what [`Jobs`] asks for, and brings it what happens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use remuda_cluster::fleet::{self, UnitId, UnitJob};
use remuda_cluster::jobs::{Effect, Event, Jobs};
use remuda_cluster::launch::batch::{Job, JobSpec, Shape};
use remuda_cluster::line::{DeskEvent, LineKey, Tale};
use remuda_cluster::{ClusterFile, Word};
use remuda_net::{Profile, address, connection_file};
use remuda_proto::Instant;
use tokio::sync::mpsc;

use super::lines::{LineMail, Lines};
use super::runner::Runner;
use super::say;
use crate::failure::Failure;

/// How engines are started in jobs.
#[derive(Clone)]
pub(super) struct JobPlan {
    pub(super) runner: Runner,
    pub(super) shape: Shape,
    /// What all jobs have, with the nanny's program and arguments.
    pub(super) spec: JobSpec,
    /// `None`: any port.
    pub(super) line_port: Option<u16>,
}

/// All jobs of a cluster.
pub(super) struct JobDriver {
    plan: JobPlan,
    jobs: Jobs,
    lines: Lines,
    mail: mpsc::UnboundedSender<Event>,
    /// The controller listens only here, for itself.
    is_loopback: bool,
    /// Why a job cannot reach the controller.
    out_of_reach: Option<String>,
}

/// What comes from outside.
pub(super) struct JobMail {
    pub(super) events: mpsc::UnboundedReceiver<Event>,
    pub(super) lines: mpsc::Receiver<LineMail>,
}

impl JobMail {
    /// Nothing ever comes.
    pub(super) fn none() -> Self {
        Self { events: mpsc::unbounded_channel().1, lines: mpsc::channel(1).1 }
    }
}

impl JobDriver {
    /// Listens for nannies where the controller listens for engines.
    pub(super) async fn open(plan: JobPlan, profile: &Profile) -> Result<(Self, JobMail), Failure> {
        // Each job has a connection.
        remuda_net::limits::raise_open_files();
        let file = connection_file::read_engine(&profile.engine_file())?;
        let common = &file.common;
        if common.transport() != "tcp" {
            let what = format!("engines in jobs cannot reach a controller at `{}`", common.interface);
            return Err(Failure::usage(what).hint("start it with `--transport=tcp`, which is the default"));
        }
        let ip = match common.ip() {
            "*" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            ip => {
                tokio::net::lookup_host((ip, 0)).await?.next().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |it| it.ip())
            }
        };
        let is_loopback = ip.is_loopback();
        if is_loopback {
            say(&format!(
                "warning: the controller listens at {ip}, where only jobs on this machine reach it: `--ip='*'` is for all"
            ));
        }
        let at = SocketAddr::new(ip, plan.line_port.unwrap_or(0));
        let (lines, line_mail) = Lines::open(at, LineKey::new(&common.key)).await.map_err(|error| {
            let what = format!("cannot listen at {at} for what runs in the jobs");
            Failure::new(anyhow::Error::new(error).context(what)).hint("name another port with `--line-port`")
        })?;
        let tag = format!("r{}", &remuda_net::random_session_id().to_string()[..8]);
        let jobs = Jobs::new(tag, plan.runner.arrays(plan.shape), plan.runner.first_element());
        let (mail, events) = mpsc::unbounded_channel();
        let driver = Self { plan, jobs, lines, mail, is_loopback, out_of_reach: None };
        Ok((driver, JobMail { events, lines: line_mail }))
    }

    /// Applies an event. Returns what that means for the units.
    pub(super) fn handle(&mut self, now: Instant, event: Event) -> Vec<fleet::Event> {
        let mut out = Vec::new();
        self.jobs.handle(now, event, &mut out);
        self.perform(now, out)
    }

    /// Takes in what came on a line.
    pub(super) fn hear(&mut self, now: Instant, mail: LineMail) -> Vec<fleet::Event> {
        let tales = self.lines.hear(now, mail);
        self.told(now, tales)
    }

    /// What is due.
    pub(super) fn look(&mut self, now: Instant) -> Vec<fleet::Event> {
        self.lines.look(now);
        let mut out = Vec::new();
        self.jobs.look(now, &mut out);
        self.perform(now, out)
    }

    /// Tells a unit's nanny something.
    pub(super) fn tell(&mut self, now: Instant, unit: UnitId, word: Word) {
        if let Some(name) = self.jobs.name(unit) {
            self.lines.handle(now, DeskEvent::Tell { name, word });
        }
    }

    /// Why engines of a job cannot reach the controller.
    pub(super) fn out_of_reach(&self) -> Option<&str> {
        self.out_of_reach.as_deref()
    }

    /// Whether no job is left.
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Writes down which jobs there are.
    pub(super) fn note(&self, file: &mut ClusterFile) {
        file.jobs = self.jobs.jobs().cloned().collect();
        file.launcher = Some(self.plan.runner.key().to_owned());
    }

    fn told(&mut self, now: Instant, tales: Vec<(String, Tale)>) -> Vec<fleet::Event> {
        let mut events = Vec::new();
        for (name, tale) in tales {
            let Some(unit) = self.jobs.unit(&name) else { continue };
            match tale {
                Tale::Said(saying) => {
                    events.extend(self.handle(now, Event::Joined { unit }));
                    events.push(fleet::Event::Said { unit, saying });
                }
                Tale::Bye { status } => events.extend(self.handle(now, Event::Bye { unit, status })),
            }
        }
        events
    }

    fn perform(&mut self, now: Instant, effects: Vec<Effect>) -> Vec<fleet::Event> {
        let mut events = Vec::new();
        for effect in effects {
            match effect {
                Effect::Submit { ticket, tag, engines, elements } => {
                    let (runner, spec) = (self.plan.runner.clone(), self.spec(ticket, tag, engines, elements));
                    self.run(move || Some(Event::Submitted { ticket, job: runner.submit(&spec) }));
                }
                Effect::Expect { name } => drop(self.lines.handle(now, DeskEvent::Expect { name })),
                Effect::Forget { name } => drop(self.lines.handle(now, DeskEvent::Forget { name })),
                Effect::Poll(jobs) => {
                    let runner = self.plan.runner.clone();
                    self.run(move || Some(Event::Polled { statuses: runner.poll(&jobs) }));
                }
                Effect::Cancel { job, element } => {
                    let runner = self.plan.runner.clone();
                    self.run(move || {
                        let reason = runner.cancel(&job, element).err()?;
                        Some(Event::NotCancelled { reason })
                    });
                }
                Effect::Stands { unit, ticket, job, element, waits, host } => {
                    self.note_host(&host);
                    let (id, output) = job.map(|job| self.place_of(ticket, &job, element)).unwrap_or_default();
                    let output = output.display().to_string();
                    events.push(fleet::Event::Queued { unit, job: UnitJob { id, waits, host, output } });
                }
                Effect::Ended { unit, ticket, job, element, end } => {
                    let end = match job {
                        Some(job) => end.with_log(&self.place_of(ticket, &job, element).1),
                        None => end,
                    };
                    events.push(fleet::Event::UnitEnded { unit, end });
                }
                Effect::Complain(text) => say(&format!("warning: {text}")),
            }
        }
        events
    }

    /// Runs what may take long, elsewhere.
    fn run(&self, what: impl FnOnce() -> Option<Event> + Send + 'static) {
        let mail = self.mail.clone();
        tokio::task::spawn_blocking(move || {
            if let Some(event) = what() {
                let _ = mail.send(event);
            }
        });
    }

    fn spec(&self, ticket: u32, tag: String, engines: u32, elements: u32) -> JobSpec {
        let mut spec = self.plan.spec.clone();
        spec.program.extend(["-n".to_owned(), engines.to_string(), format!("--line={}", self.lines.port())]);
        JobSpec { tag, engines, elements, output: self.output(ticket), ..spec }
    }

    fn output(&self, ticket: u32) -> String {
        format!("{}.{ticket}", self.plan.spec.output)
    }

    /// A job's name, and the file that it prints to.
    fn place_of(&self, ticket: u32, job: &Job, element: Option<u32>) -> (String, PathBuf) {
        let output = self.output(ticket);
        (self.plan.runner.name(job, element), self.plan.runner.output(output.as_ref(), job, element))
    }

    /// A job runs there: that may be where the controller cannot be reached.
    fn note_host(&mut self, host: &str) {
        let first = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        let here = address::host_name().unwrap_or_default();
        if self.is_loopback
            && !matches!(host, "" | "localhost")
            && first(host) != first(&here)
            && self.out_of_reach.is_none()
        {
            self.out_of_reach = Some(format!(
                "a job runs on `{host}`, which cannot reach the controller on this machine's loopback interface"
            ));
        }
    }
}
