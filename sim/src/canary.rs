//! Testing the test: each scheduler that is broken on purpose must be noticed.

use crate::run::{Plan, run_seed};
use crate::tamper::Tampering;

/// Within how many seeds each has to be noticed.
pub const SEEDS: u64 = 150;

/// What became of one broken scheduler.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// How it was broken.
    pub tampering: Tampering,
    /// The first time that it was noticed.
    pub caught: Option<Caught>,
}

/// When a broken scheduler was noticed, and how.
#[derive(Clone, Debug)]
pub struct Caught {
    /// The seed.
    pub seed: u64,
    /// The checker.
    pub checker: &'static str,
    /// What it said.
    pub reason: String,
}

/// Runs every broken scheduler until it is noticed, or for [`SEEDS`] seeds.
pub fn sightings() -> impl Iterator<Item = Sighting> {
    Tampering::ALL.into_iter().map(|tampering| Sighting { tampering, caught: sight(tampering) })
}

/// Runs one broken scheduler until one of the checkers that have to notice does. That a core contradicts itself does not
/// count, nor that another checker notices.
pub fn sight(tampering: Tampering) -> Option<Caught> {
    (1..=SEEDS).find_map(|seed| {
        let failure = run_seed(Plan { tampering: Some(tampering), ..Plan::new(seed) }).err()?;
        let violation = failure.violation;
        tampering.checkers().contains(&violation.checker).then_some(Caught {
            seed,
            checker: violation.checker,
            reason: violation.reason,
        })
    })
}
