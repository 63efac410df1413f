//! Slurm: `sbatch`, `squeue`, `scontrol`, `sacct`, `scancel`. What the tests here read is what Slurm 22.05 printed, but for `sacct`,
//! which is as its manual says.

use super::state::{Seen, leading_number};
use super::{Batch, BatchError, Doing, Job, JobEnd, JobState, ids};

/// `17`, or `17;cluster`; or `Submitted batch job 17` where `--parsable` was taken away.
pub(super) fn job_id(answer: &str) -> Option<String> {
    let line = answer.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    let id = line.strip_prefix("Submitted batch job ").unwrap_or(line);
    let id = id.split([';', ' ']).next()?;
    leading_number(id).map(|_| id.to_owned())
}

pub(super) fn list(batch: &Batch, jobs: &[Job]) -> Result<Vec<Seen>, BatchError> {
    let of = format!("--jobs={}", ids(jobs, ","));
    let arguments = ["--noheader", "--array", "--states=all", "--format=%i|%T|%r|%B", &of];
    let ran = batch.run(Doing::Poll, &batch.commands.list, &arguments, "")?;
    // It says so when it was asked for one job only; of several it lists those that it knows.
    if !ran.status.success() && ran.said("Invalid job id") {
        return Ok(Vec::new());
    }
    let mut seen = listed(&ran.success().map_err(batch.error(Doing::Poll))?);
    for job in jobs {
        let is_open =
            |seen: &&Seen| seen.number == job.number() && matches!(seen.state, JobState::Ended(JobEnd::Failed { .. }));
        if !batch.commands.details.is_empty() && seen.iter().any(|seen| is_open(&seen)) {
            // Without it, a job that failed has no exit code: no reason to fail.
            let shown = batch.run(Doing::Poll, &batch.commands.details, &["show", "job", "-o", &job.id], "");
            seen.extend(
                shown
                    .and_then(|ran| ran.success().map_err(batch.error(Doing::Poll)))
                    .map(|text| shown_jobs(&text))
                    .unwrap_or_default(),
            );
        }
    }
    Ok(seen)
}

pub(super) fn history(batch: &Batch, jobs: &[Job]) -> Vec<Seen> {
    let of = ids(jobs, ",");
    let arguments = ["-X", "-n", "-P", "-o", "JobID,State,ExitCode,NodeList", "-j", &of];
    // Many a site keeps no accounts.
    let ran = batch.run(Doing::Poll, &batch.commands.history, &arguments, "");
    ran.ok().and_then(|ran| ran.success().ok()).map(|text| accounted(&text)).unwrap_or_default()
}

/// A job, `17`, or an element, `17_3`. `None`: another kind of id, of several elements, say.
fn job_and_element(id: &str) -> Option<(u64, Option<u32>)> {
    match id.split_once('_') {
        None => Some((id.parse().ok()?, None)),
        Some((job, element)) => Some((job.parse().ok()?, Some(element.parse().ok()?))),
    }
}

/// What `squeue --format=%i|%T|%r|%B` prints.
fn listed(text: &str) -> Vec<Seen> {
    let line = |line: &str| {
        let mut fields = line.splitn(4, '|').map(str::trim);
        let (id, state, reason, host) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let (number, element) = job_and_element(id)?;
        Some(Seen { number, element, state: state_of(state, reason, host) })
    };
    text.lines().filter_map(line).collect()
}

fn state_of(state: &str, reason: &str, host: &str) -> JobState {
    let host = if matches!(host, "n/a" | "None assigned") { "" } else { host }.to_owned();
    let reason = if reason == "None" { "" } else { reason };
    // `CANCELLED by 1000`
    match state.split_whitespace().next().unwrap_or_default().trim_end_matches('+') {
        "RUNNING" | "COMPLETING" | "SUSPENDED" | "STOPPED" | "SIGNALING" | "STAGE_OUT" | "RESIZING" => {
            JobState::Running { host }
        }
        "COMPLETED" => JobState::Ended(JobEnd::Done),
        "CANCELLED" => JobState::Ended(JobEnd::Cancelled { reason: reason.to_owned() }),
        failed @ ("FAILED" | "TIMEOUT" | "NODE_FAIL" | "OUT_OF_MEMORY" | "PREEMPTED" | "DEADLINE" | "BOOT_FAIL"
        | "REVOKED") => {
            let reason = if failed == "FAILED" && !reason.is_empty() { reason } else { failed };
            JobState::Ended(JobEnd::Failed { code: None, reason: reason.to_owned() })
        }
        "PENDING" => JobState::Pending { reason: reason.to_owned() },
        other => JobState::Pending {
            reason: if reason.is_empty() { other.to_owned() } else { format!("{other}: {reason}") },
        },
    }
}

/// What `scontrol show job -o` prints: of jobs that failed.
fn shown_jobs(text: &str) -> Vec<Seen> {
    let line = |line: &str| {
        let field = |name: &str| {
            line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
        };
        let number = field("ArrayJobId").parse().or_else(|_| field("JobId").parse()).ok()?;
        let state = state_of(field("JobState"), field("Reason"), field("BatchHost"));
        let state = with_code(state, field("ExitCode"));
        let element = field("ArrayTaskId").parse().ok();
        matches!(state, JobState::Ended(JobEnd::Failed { .. })).then_some(Seen { number, element, state })
    };
    text.lines().filter_map(line).collect()
}

/// What `sacct -X -n -P -o JobID,State,ExitCode,NodeList` prints.
fn accounted(text: &str) -> Vec<Seen> {
    let line = |line: &str| {
        let mut fields = line.splitn(4, '|').map(str::trim);
        let (id, state, code, host) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let (number, element) = job_and_element(id)?;
        Some(Seen { number, element, state: with_code(state_of(state, "", host), code) })
    };
    text.lines().filter_map(line).collect()
}

/// With an exit code as Slurm writes it: `3:0`, or `0:9` after a signal.
fn with_code(state: JobState, code: &str) -> JobState {
    let JobState::Ended(JobEnd::Failed { reason, .. }) = state else { return state };
    let mut numbers = code.split(':').map(|number| number.parse::<i32>().ok());
    let (code, signal) = (numbers.next().flatten(), numbers.next().flatten().filter(|signal| *signal != 0));
    let reason = signal.map_or_else(|| reason.clone(), |signal| format!("{reason}, signal {signal}"));
    JobState::Ended(JobEnd::Failed { code: code.filter(|code| *code != 0), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(reason: &str) -> JobState {
        JobState::Pending { reason: reason.to_owned() }
    }

    #[test]
    fn ids_are_read_of_what_sbatch_says() {
        for (answer, id) in [("17\n", Some("17")), ("17;east\n", Some("17")), ("Submitted batch job 17\n", Some("17"))]
        {
            assert_eq!(job_id(answer).as_deref(), id);
        }
        assert_eq!(job_id("sbatch: error: x"), None);
    }

    #[test]
    fn states_are_read_of_what_squeue_lists() {
        let text = "2|FAILED|NonZeroExitCode|vm\n3|PENDING|PartitionConfig|n/a\n4_0|PENDING|Resources|n/a\n\
                    1_0|RUNNING|None|vm\n1_1|COMPLETED|None|vm\n4_1|CANCELLED|Resources|n/a\n4_[2-5]|PENDING|Priority|n/a\n";
        let failed = JobEnd::Failed { code: None, reason: "NonZeroExitCode".into() };
        let seen: Vec<_> = listed(text).into_iter().map(|seen| (seen.number, seen.element, seen.state)).collect();
        assert_eq!(
            seen,
            [
                (2, None, JobState::Ended(failed)),
                (3, None, pending("PartitionConfig")),
                (4, Some(0), pending("Resources")),
                (1, Some(0), JobState::Running { host: "vm".into() }),
                (1, Some(1), JobState::Ended(JobEnd::Done)),
                (4, Some(1), JobState::Ended(JobEnd::Cancelled { reason: "Resources".into() })),
            ]
        );
    }

    #[test]
    fn exit_codes_are_read_of_what_scontrol_and_sacct_show() {
        let failed = |code, reason: &str| JobState::Ended(JobEnd::Failed { code, reason: reason.into() });
        let shown = "JobId=5 ArrayJobId=1 ArrayTaskId=3 JobName=a.sh UserId=root(0) JobState=FAILED Reason=NonZeroExitCode \
                     Dependency=(null) ExitCode=3:0 RunTime=00:00:01 BatchHost=vm\n\
                     JobId=6 JobName=b JobState=RUNNING Reason=None ExitCode=0:0 BatchHost=vm\n";
        assert_eq!(
            shown_jobs(shown),
            [Seen { number: 1, element: Some(3), state: failed(Some(3), "NonZeroExitCode") }]
        );
        let seen = accounted(
            "1_3|FAILED|2:0|n1\n7|CANCELLED by 1000|0:15|n1\n8|OUT_OF_MEMORY|0:125|n2\n9_[1-2]|PENDING|0:0|\n",
        );
        let states: Vec<_> = seen.iter().map(|seen| &seen.state).collect();
        let cancelled = JobState::Ended(JobEnd::Cancelled { reason: String::new() });
        assert_eq!(states, [&failed(Some(2), "FAILED"), &cancelled, &failed(None, "OUT_OF_MEMORY, signal 125")]);
    }
}
