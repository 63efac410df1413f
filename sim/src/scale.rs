//! One run of a large cluster: as many engines and tasks as are asked for, with faults, and with all checkers.
//!
//! What looks at every task that waits is done now and then only, since it would take longer than all the rest.

use std::time::Duration;

use remuda_scheduler::Scheme;

use crate::checker::Violation;
use crate::parameters::{Act, Fault, Kind, Latency, Parameters};
use crate::world::{Options, Report, World};

/// How many clients share the work.
const CLIENTS: u32 = 4;
/// Most tasks that a client sends at once.
const MAP: u64 = 1000;
/// How long engines take to start, all together.
const STARTING: Duration = Duration::from_secs(5);

/// How large a run is.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// The seed.
    pub seed: u64,
    /// How many engines start.
    pub engines: u32,
    /// How many tasks are sent at least.
    pub tasks: u64,
}

impl Scale {
    /// The shape of the run: tasks of a second, sent twice as fast as the engines can run them.
    pub fn parameters(&self) -> Parameters {
        let engines = self.engines.max(1);
        let each = self.tasks.div_ceil(CLIENTS.into());
        let map = MAP.min(each.div_ceil(10)).max(1);
        let task_time = Duration::from_secs(1);
        let sending = task_time * u32::try_from(self.tasks.div_ceil(u64::from(engines) * 2)).unwrap_or(u32::MAX);
        let maps = u32::try_from(each.div_ceil(map)).unwrap_or(u32::MAX);
        let kind = |number| if number % 10 == 0 { Kind::Native } else { Kind::Stock };
        Parameters {
            seed: self.seed,
            scheme: Scheme::LeastLoad,
            heart_period: Duration::from_secs(3),
            max_misses: 10,
            max_pending_tasks: usize::MAX,
            latency: Latency {
                low: Duration::from_micros(30),
                high: Duration::from_millis(1),
                spike_percent: 1,
                spike: Duration::from_millis(100),
            },
            engines: (0..engines).map(|number| (kind(number), STARTING * number / engines)).collect(),
            kinds: vec![(Kind::Stock, 9), (Kind::Native, 1)],
            clients: CLIENTS,
            acts: u64::MAX,
            map_size: (map, map),
            most_tasks: usize::try_from(each).unwrap_or(usize::MAX),
            max_engines: engines as usize + 64,
            act_weights: vec![
                (Act::Map, 20),
                (Act::After, 2),
                (Act::Follow, 2),
                (Act::Targets, 2),
                (Act::Abort, 1),
                (Act::Resubmit, 1),
                (Act::Coalesce, 1),
            ],
            // Twenty of 29 acts are maps.
            pause: sending / maps * 20 / 29,
            task_time,
            fail_percent: 1,
            native_percent: 5,
            needs_percent: 0,
            priority_percent: 0,
            retry_percent: 5,
            timeout_percent: 0,
            fault_weights: vec![
                (Fault::KillTold, 4),
                (Fault::KillSilent, 2),
                (Fault::Leave, 1),
                (Fault::Freeze, 4),
                (Fault::Slow, 2),
                (Fault::Join, 2),
                (Fault::Return, 1),
                (Fault::HeartReconnects, 2),
                (Fault::TaskLag, 1),
                (Fault::HubLag, 1),
                (Fault::ControllerStops, 1),
            ],
            fault_pause: Duration::from_secs(1),
            rejoin_percent: 100,
            calm_at: STARTING + sending * 2,
            ..Parameters::quiet()
        }
    }

    /// How the run is watched.
    pub fn options(&self) -> Options {
        // Some twenty looks at everything in the whole run, whatever its size.
        let look_every = (self.tasks / 10).max(1);
        Options {
            check_every: (self.tasks / 2).max(1),
            look_every,
            max_steps: u64::MAX,
            // The hub may find three reports of every task, and a beat of every heart, when it wakes.
            max_turn: 100_000 + self.tasks * 10 + u64::from(self.engines) * 100,
            compared: 20_000,
            ..Options::default()
        }
    }

    /// Runs it, until everything has settled.
    ///
    /// # Errors
    /// What was wrong.
    pub fn run(&self) -> Result<Report, Violation> {
        let mut world = World::new(self.parameters(), self.options());
        world.run(None)?;
        Ok(world.report())
    }
}
