//! Whole runs: the same seed twice, seeds that hold, and schedulers that are broken on purpose.

use remuda_sim::coverage::Coverage;
use remuda_sim::run::Plan;
use remuda_sim::scale::Scale;
use remuda_sim::{FaultLevel, Tampering, canary, run_seed};

#[test]
fn a_seed_gives_the_same_run_each_time() {
    for seed in 1..=10 {
        let run = || run_seed(Plan::new(seed)).map_err(|failure| failure.to_string()).unwrap();
        assert_eq!(run(), run(), "seed {seed}");
    }
}

#[test]
fn seeds_give_different_runs() {
    let digest = |seed| run_seed(Plan::new(seed)).map_err(|failure| failure.to_string()).unwrap().digest;
    assert_ne!(digest(1), digest(2));
}

/// Fails also when a kind of act, fault or task is never there: then nothing would be known of it.
#[test]
fn nothing_is_wrong_with_any_seed_whatever_the_faults_and_seeds_do_everything_that_can_be_done() {
    let mut coverage = Coverage::default();
    for (level, seeds) in [(FaultLevel::Some, 100), (FaultLevel::None, 30), (FaultLevel::All, 30)] {
        for seed in 1..=seeds {
            match run_seed(Plan { faults: level, ..Plan::new(seed) }) {
                Ok(report) => coverage.merge(&report.coverage),
                Err(failure) => panic!("{failure}"),
            }
        }
    }
    let missing: Vec<_> = coverage.counts().into_iter().filter(|(_, count)| *count == 0).collect();
    assert!(missing.is_empty(), "{missing:?} of\n{coverage}");
}

#[test]
fn a_large_cluster_settles_and_every_task_that_was_sent_is_answered() {
    let scale = Scale { seed: 1, engines: 150, tasks: 2_000 };
    let report = scale.run().unwrap_or_else(|violation| panic!("{violation:?}"));
    let answered: u64 = report
        .endings
        .iter()
        .filter(|(word, _)| !["stranded", "tried again"].contains(&&***word))
        .map(|(_, n)| n)
        .sum();
    assert!(report.tasks >= 2_000 && answered == report.tasks, "{report:?}");
    assert!(report.faults > 0, "{report:?}");
}

#[test]
fn seeds_see_tasks_end_in_every_way() {
    let mut seen = std::collections::BTreeMap::new();
    for seed in 1..=60 {
        let report = run_seed(Plan::new(seed)).map_err(|failure| failure.to_string()).unwrap();
        for (ending, count) in report.endings {
            *seen.entry(ending).or_insert(0) += count;
        }
    }
    for ending in [
        "EngineError",
        "ImpossibleDependency",
        "InvalidDependency",
        "ProcessFailed",
        "TaskTimeout",
        "ValueError",
        "aborted",
        "ok",
        "stranded",
        "tried again",
    ] {
        assert!(seen.contains_key(ending), "{ending}: {seen:?}");
    }
}

#[test]
fn a_run_ends_after_the_steps_that_it_may_take() {
    let report = run_seed(Plan { steps: Some(50), ..Plan::new(3) }).map_err(|failure| failure.to_string()).unwrap();
    assert_eq!(report.steps, 50);
}

#[test]
fn every_scheduler_that_is_broken_on_purpose_is_noticed() {
    let missed: Vec<Tampering> =
        canary::sightings().filter(|sighting| sighting.caught.is_none()).map(|sighting| sighting.tampering).collect();
    assert!(missed.is_empty(), "not noticed within {} seeds: {missed:?}", canary::SEEDS);
}

#[test]
fn a_failure_tells_the_reason_the_parameters_the_story_and_how_to_run_it_again() {
    let failing = |seed| {
        let plan = Plan { tampering: Some(Tampering::ReplyTwice), ..Plan::new(seed) };
        run_seed(plan).err().map(|failure| (seed, failure))
    };
    let (seed, failure) = (1..=canary::SEEDS).find_map(failing).expect("a second reply is noticed");
    let text = failure.to_string();
    for part in [
        &format!("seed {seed} failed at step"),
        "[one reply]",
        "parameters:",
        "scheme = ",
        "the last events:",
        "the story of `client-",
        &format!("run it again: remuda-sim --seed {seed}"),
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
