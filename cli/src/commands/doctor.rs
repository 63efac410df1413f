//! `remuda doctor`: looks at everything that keeps a cluster from working, and says of each what to do about it.
//!
//! It changes nothing, runs no task, and asks the controller only what `remuda status` and `remuda debug dump` ask.

mod cluster;
mod database;
mod files;
mod machine;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use remuda_cluster::ControllerConfig;
use remuda_net::Profile;
use serde_json::json;

use super::{controller, say};
use crate::args::Format;
use crate::args::controller::ControllerArgs;
use crate::args::doctor::DoctorArgs;
use crate::config::{self, Layers, OWN_FILE, Program};
use crate::failure::{Failure, Outcome};
use crate::output::{Colour, has_colours};

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// As it should be.
    Ok,
    /// It works, and may not for long.
    Warning,
    /// Something does not work.
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    fn colour(self) -> Colour {
        match self {
            Self::Ok => Colour::Green,
            Self::Warning => Colour::Yellow,
            Self::Error => Colour::Red,
        }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    level: Level,
    /// What was looked at.
    check: &'static str,
    /// What is the matter.
    text: String,
    /// What to do about it; empty where nothing is to be done.
    fix: String,
}

impl Finding {
    fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self { level: Level::Ok, check, text: text.into(), fix: String::new() }
    }

    fn warning(check: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { level: Level::Warning, check, text: text.into(), fix: fix.into() }
    }

    fn error(check: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { level: Level::Error, check, text: text.into(), fix: fix.into() }
    }
}

/// What all checks look at.
struct Subject<'a> {
    args: &'a DoctorArgs,
    profile: Profile,
    /// Options that lead to the profile, for commands that are named.
    options: String,
    /// What a controller of this profile would be told, if that can be made out.
    controller: Option<Box<ControllerArgs>>,
    /// What that comes to, if it does not contradict itself.
    config: Option<ControllerConfig>,
    /// What files and environment say for `remuda cluster start`.
    cluster: Layers,
    timeout: Duration,
}

impl Subject<'_> {
    /// What the profile says of an option of `remuda cluster start`.
    fn of_cluster(&self, option: &str) -> Option<&str> {
        let given = self.cluster.given.iter().rev().map(config::Given::option);
        given.filter(|(name, _)| *name == option).map(|(_, value)| value).next()
    }
}

/// Exit code 1 with any error.
pub(super) fn run(args: &DoctorArgs) -> Outcome {
    let findings = look(args)?;
    print(args.output, &findings)?;
    let count = |level: Level| findings.iter().filter(|finding| finding.level == level).count();
    let (errors, warnings) = (count(Level::Error), count(Level::Warning));
    if errors + warnings > 0 {
        say(&format!("{errors} errors, {warnings} warnings"));
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn look(args: &DoctorArgs) -> Result<Vec<Finding>, Failure> {
    let profile = args.place.profile();
    let mut findings = vec![files::program()];
    let own = profile.dir().join(OWN_FILE);
    let (controller, problems, has_secret) = match config::controller_of(&args.place, &[]) {
        Ok((controller, layers)) => {
            let has_secret = layers.given.iter().any(|given| config::is_secret_in(given, &own));
            (Some(controller), layers.problems, has_secret)
        }
        Err(problem) => (None, vec![problem], false),
    };
    findings.extend(configuration(&profile, problems));
    if has_secret {
        findings.extend(files::permissions("configuration", &own));
    }
    let subject = Subject {
        args,
        options: args.place.options(),
        config: controller.as_ref().and_then(|args| controller::resolve(args).ok()),
        controller,
        cluster: Layers::read(Program::Cluster, &["cluster", "start"], profile.dir(), None),
        timeout: Duration::from_secs_f64(args.timeout),
        profile,
    };
    findings.extend(files::folder(&subject));
    let (connection, listens) = files::connection(&subject);
    findings.extend(connection);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = runtime.block_on(cluster::ask(&subject, listens));
    findings.extend(asked.findings.iter().cloned());
    findings.extend(cluster::ports(&subject, listens));
    findings.extend(machine::python(&subject));
    findings.extend(machine::clock(&asked));
    findings.extend(machine::open_files(&subject, &asked));
    findings.extend(database::look(&subject, &asked));
    findings.extend(machine::disk(&subject));
    Ok(findings)
}

/// The files of the profile, for all programs.
fn configuration(profile: &Profile, mut problems: Vec<Failure>) -> Vec<Finding> {
    const CHECK: &str = "configuration";
    let known: Vec<String> = problems.iter().map(Failure::text).collect();
    let others = Layers::problems_for_others(Program::Controller, profile.dir()).into_iter();
    problems.extend(others.filter(|problem| !known.contains(&problem.text())));
    if problems.is_empty() {
        return vec![Finding::ok(CHECK, "nothing is wrong in the files of the profile and the environment")];
    }
    let fix = |problem: &Failure| problem.advice().unwrap_or("correct it where it stands").to_owned();
    problems.iter().map(|problem| Finding::error(CHECK, problem.text(), fix(problem))).collect()
}

fn print(format: Format, findings: &[Finding]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if format == Format::Json {
        let all: Vec<_> = findings
            .iter()
            .map(|one| json!({"level": one.level.name(), "check": one.check, "finding": one.text, "fix": one.fix}))
            .collect();
        return writeln!(out, "{:#}", json!(all));
    }
    let colours = out.is_terminal() && has_colours();
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or_default();
    for Finding { level, check, text, fix } in findings {
        let padded = format!("{:<7}", level.name());
        let level = if colours { level.colour().paint(&padded) } else { padded };
        // One line each, whatever a text from elsewhere holds.
        let text = text.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
        let fix = if fix.is_empty() { String::new() } else { format!("; fix: {fix}") };
        writeln!(out, "{level}  {check:<width$}  {text}{fix}")?;
    }
    Ok(())
}
