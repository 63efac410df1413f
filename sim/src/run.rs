//! Running a seed, and telling of a failure.

use std::cell::RefCell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::checker::Violation;
use crate::log::{Line, story};
use crate::parameters::{FaultLevel, Parameters};
use crate::tamper::Tampering;
use crate::world::{Options, Report, World};

/// How many of the last lines a failure shows.
const LAST_LINES: usize = 60;
/// How many requests a failure tells the story of.
const STORIES: usize = 5;
/// How many lines a story has at most.
const STORY_LINES: usize = 60;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Which faults it may have.
    pub faults: FaultLevel,
    /// Stop after so many steps, settled or not.
    pub steps: Option<u64>,
    /// How the task scheduler is broken, for the canary.
    pub tampering: Option<Tampering>,
}

impl Plan {
    /// A seed, with the faults that it draws.
    pub fn new(seed: u64) -> Self {
        Self { seed, faults: FaultLevel::Some, steps: None, tampering: None }
    }

    /// The command that does the same.
    pub fn command(&self) -> String {
        let Self { seed, faults, steps, .. } = self;
        let faults = if *faults == FaultLevel::Some { String::new() } else { format!(" --faults {faults}") };
        let steps = steps.map(|steps| format!(" --steps {steps}")).unwrap_or_default();
        format!("remuda-sim --seed {seed}{faults}{steps}")
    }
}

/// A run in which something was wrong.
#[derive(Debug)]
pub struct Failure {
    /// What was run.
    pub plan: Plan,
    /// What was wrong.
    pub violation: Violation,
    /// How far it got.
    pub report: Report,
    /// What happened, if that was recorded.
    lines: Vec<Line>,
}

impl fmt::Display for Failure {
    /// The reason, the parameters, the last events, the story of each request, and the command that replays it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { checker, reason, msg_ids } = &self.violation;
        writeln!(f, "seed {} failed at step {}: [{checker}] {reason}", self.plan.seed, self.report.steps)?;
        for msg_id in msg_ids.iter().take(20) {
            writeln!(f, "  `{msg_id}`")?;
        }
        writeln!(f, "parameters:\n{}", Parameters::draw(self.plan.seed, self.plan.faults))?;
        writeln!(f, "the last events:")?;
        for line in &self.lines[self.lines.len().saturating_sub(LAST_LINES)..] {
            writeln!(f, "  {line}")?;
        }
        for msg_id in msg_ids.iter().take(STORIES) {
            writeln!(f, "the story of `{msg_id}`:")?;
            let told = story(&self.lines, msg_id);
            told.iter().take(STORY_LINES).try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        write!(f, "run it again: {} --log", self.plan.command())
    }
}

/// Runs a seed.
///
/// # Errors
/// What was wrong, with all that happened: a run that fails is run again to record it.
pub fn run_seed(plan: Plan) -> Result<Report, Box<Failure>> {
    match attempt(plan, false) {
        (report, _, None) => Ok(report),
        (first, ..) => {
            let (report, lines, violation) = attempt(plan, true);
            let violation = violation.unwrap_or_else(|| {
                Violation::new("determinism", format!("it failed at step {} and then did not", first.steps))
            });
            Err(Box::new(Failure { plan, violation, report, lines }))
        }
    }
}

/// Runs a seed and keeps a line for everything that happens.
pub fn run_logged(plan: Plan) -> (Vec<Line>, Result<Report, Box<Failure>>) {
    let (report, lines, violation) = attempt(plan, true);
    let outcome = match violation {
        None => Ok(report),
        Some(violation) => Err(Box::new(Failure { plan, violation, report, lines: lines.clone() })),
    };
    (lines, outcome)
}

fn attempt(plan: Plan, record: bool) -> (Report, Vec<Line>, Option<Violation>) {
    let parameters = Parameters::draw(plan.seed, plan.faults);
    let mut world = World::new(parameters, Options { tampering: plan.tampering, record, ..Options::default() });
    let outcome = guarded(|| world.run(plan.steps));
    let violation = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(violation),
        Err(panic) => Some(Violation::new("panic", panic)),
    };
    (world.report(), world.into_lines(), violation)
}

thread_local! {
    /// What a panic said; `None` outside a run.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs something that may panic: a machine that contradicts itself does.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let caught = PANIC.with_borrow_mut(|panic| panic.as_mut().map(|text| *text = info.to_string()).is_some());
            if !caught {
                before(info);
            }
        }));
    });
    PANIC.set(Some(String::new()));
    let outcome = catch_unwind(AssertUnwindSafe(run));
    let text = PANIC.take().unwrap_or_default();
    outcome.map_err(|_| text)
}
