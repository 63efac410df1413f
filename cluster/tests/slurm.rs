//! Jobs of a real Slurm, with one node on this machine.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::time::{Duration, Instant};

use remuda_cluster::launch::batch::{Batch, Job, JobEnd, JobSpec, JobState, System, render};
use remuda_tests::slurm::Slurm;
use remuda_tests::wait_for;

/// The system's programs, for this Slurm.
fn batch(slurm: &Slurm) -> Batch {
    let mut batch = Batch::new(System::Slurm);
    let with = |program: &mut Vec<String>| {
        program.splice(0..0, ["env".to_owned(), format!("SLURM_CONF={}", slurm.config())]);
    };
    let commands = &mut batch.commands;
    [&mut commands.submit, &mut commands.list, &mut commands.details, &mut commands.history, &mut commands.cancel]
        .into_iter()
        .for_each(with);
    batch
}

fn spec(slurm: &Slurm, elements: u32, script: &str) -> JobSpec {
    JobSpec {
        name: "engines".into(),
        engines: 2,
        elements,
        program: ["sh", "-c", script, "nanny"].map(str::to_owned).into(),
        tag: "unit-1".into(),
        output: slurm.folder().join("job").display().to_string(),
        ..JobSpec::default()
    }
}

fn submit(batch: &Batch, spec: &JobSpec) -> Job {
    let script = render(System::Slurm, System::Slurm.template(), spec).unwrap();
    batch.submit(&script, spec.elements).unwrap()
}

fn states(batch: &Batch, job: &Job) -> Vec<JobState> {
    batch.poll(std::slice::from_ref(job)).unwrap().into_iter().map(|status| status.state).collect()
}

#[test]
fn jobs_of_a_real_slurm_run_fail_and_are_cancelled() {
    let Some(slurm) = Slurm::start() else { return };
    let batch = batch(&slurm);

    // An array: all run, each with a tag of its own, and when it is cancelled they get the signal that nannies end by.
    let forever = "echo $1; trap 'echo asked to end; exit 0' TERM; while :; do sleep 0.1; done";
    let forever = spec(&slurm, 4, forever);
    let array = submit(&batch, &forever);
    wait_for("4 elements that run", || {
        states(&batch, &array).iter().all(|state| matches!(state, JobState::Running { host } if !host.is_empty()))
    });
    let said = |element| fs::read_to_string(batch.output_file(&forever, &array, Some(element))).unwrap_or_default();
    for element in 1..=4 {
        wait_for("its tag", || said(element).contains(&format!("--tag=unit-1-{element}\n")));
    }

    // One that does not fit beside them waits, and Slurm says why.
    let waiting = submit(&batch, &JobSpec { engines: 9, ..spec(&slurm, 0, "exit 0") });
    wait_for(
        "the reason why a job waits",
        || matches!(&states(&batch, &waiting)[..], [JobState::Pending { reason }] if reason == "Resources"),
    );
    batch.cancel(&array, None).unwrap();
    wait_for("the end of the array", || {
        states(&batch, &array).iter().all(|state| matches!(state, JobState::Ended(JobEnd::Cancelled { .. })))
    });
    wait_for("what they say at their end", || (1..=4).all(|element| said(element).contains("asked to end")));
    wait_for("the end of the one that waited", || states(&batch, &waiting) == [JobState::Ended(JobEnd::Done)]);
    batch.cancel(&array, None).unwrap();

    // One that fails.
    let failing = submit(&batch, &spec(&slurm, 0, "exit 3"));
    wait_for("the exit code", || {
        let failed = JobEnd::Failed { code: Some(3), reason: "NonZeroExitCode".into() };
        states(&batch, &failing) == [JobState::Ended(failed)]
    });

    // What is refused, or not known, is told at once.
    let start = Instant::now();
    let nowhere = JobSpec { queue: "nowhere".into(), ..spec(&slurm, 0, "exit 0") };
    let script = render(System::Slurm, System::Slurm.template(), &nowhere).unwrap();
    let error = batch.submit(&script, 0).unwrap_err();
    assert_eq!(error.to_string(), "Slurm: the job was not accepted");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("invalid partition specified: nowhere"), "{source}");
    let unknown = Job { id: "99999".into(), elements: 0 };
    assert_eq!(states(&batch, &unknown), [JobState::Ended(JobEnd::Forgotten)]);
    assert_eq!(batch.poll(&[unknown.clone(), failing]).unwrap()[0].state, JobState::Ended(JobEnd::Forgotten));
    batch.cancel(&unknown, None).unwrap();
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_slurm_that_does_not_answer_says_nothing_of_its_jobs() {
    let mut batch = Batch::new(System::Slurm);
    batch.commands.list = vec![
        "sh".into(),
        "-c".into(),
        "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1".into(),
    ];
    let error = batch.poll(&[Job { id: "1".into(), elements: 0 }]).unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("Unable to contact"));
}
