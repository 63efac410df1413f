//! HTCondor: `condor_submit`, `condor_q`, `condor_history`, `condor_rm`. What is read here is as the manual of HTCondor 10 says.

use super::state::{Seen, leading_number};
use super::{Batch, BatchError, Doing, Job, JobEnd, JobState};

/// What the queue and the history are to print of each job, with tabs between.
const FIELDS: [&str; 10] = [
    "-af:t",
    "ClusterId",
    "ProcId",
    "JobStatus",
    "RemoteHost",
    "ExitCode",
    "ExitBySignal",
    "ExitSignal",
    "HoldReason",
    "RemoveReason",
];

/// `17.0 - 17.3` with `-terse`; else `4 job(s) submitted to cluster 17.`
pub(super) fn job_id(answer: &str) -> Option<String> {
    let line = answer.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    let words = line.split_once("submitted to cluster ").map_or(line, |(_, rest)| rest);
    leading_number(words).map(|number| number.to_string())
}

pub(super) fn list(batch: &Batch, jobs: &[Job]) -> Result<Vec<Seen>, BatchError> {
    let ran = batch.run(Doing::Poll, &batch.commands.list, &arguments(jobs), "")?;
    Ok(listed(&ran.success().map_err(batch.error(Doing::Poll))?))
}

/// Jobs leave the queue at their end.
pub(super) fn history(batch: &Batch, jobs: &[Job]) -> Vec<Seen> {
    let ran = batch.run(Doing::Poll, &batch.commands.history, &arguments(jobs), "");
    ran.ok().and_then(|ran| ran.success().ok()).map(|text| listed(&text)).unwrap_or_default()
}

fn arguments(jobs: &[Job]) -> Vec<&str> {
    jobs.iter().map(|job| &*job.id).chain(FIELDS).collect()
}

fn listed(text: &str) -> Vec<Seen> {
    let line = |line: &str| {
        let mut fields = line.split('\t').map(|field| if field.trim() == "undefined" { "" } else { field.trim() });
        let mut next = || fields.next();
        let (number, element, status) = (next()?.parse().ok()?, next()?.parse().ok()?, next()?);
        let (host, code, by_signal, signal) = (next()?, next()?, next()?, next()?);
        let (hold, removal) = (next().unwrap_or_default(), next().unwrap_or_default());
        let state = match status {
            "2" | "6" | "7" => JobState::Running { host: host.rsplit('@').next().unwrap_or_default().to_owned() },
            "3" => JobState::Ended(JobEnd::Cancelled { reason: removal.to_owned() }),
            "4" if by_signal == "true" => {
                JobState::Ended(JobEnd::Failed { code: None, reason: format!("signal {signal}") })
            }
            "4" => JobState::Ended(match code.parse() {
                Ok(code) => JobEnd::by_code(code, ""),
                Err(_) => JobEnd::Failed { code: None, reason: "its exit code is not known".to_owned() },
            }),
            "5" => JobState::Pending { reason: format!("it is held: {hold}") },
            _ => JobState::Pending { reason: String::new() },
        };
        Some(Seen { number, element: Some(element), state })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_of_what_condor_submit_says() {
        assert_eq!(job_id("17.0 - 17.3\n").as_deref(), Some("17"));
        assert_eq!(job_id("Submitting job(s)....\n4 job(s) submitted to cluster 17.\n").as_deref(), Some("17"));
        assert_eq!(job_id("ERROR: on Line 3 of submit file"), None);
    }

    #[test]
    fn states_are_read_of_the_queue_and_of_the_history() {
        let u = "undefined";
        let text = [
            format!("17\t0\t2\tslot1@node1\t{u}\t{u}\t{u}\t{u}\t{u}"),
            format!("17\t1\t1\t{u}\t{u}\t{u}\t{u}\t{u}\t{u}"),
            format!("17\t2\t5\t{u}\t{u}\t{u}\t{u}\tError from slot1: no such file\t{u}"),
            format!("18\t0\t4\t{u}\t3\tfalse\t{u}\t{u}\t{u}"),
            format!("19\t0\t4\t{u}\t{u}\ttrue\t9\t{u}\t{u}"),
            format!("20\t0\t3\t{u}\t{u}\t{u}\t{u}\t{u}\tvia condor_rm (by user me)"),
        ]
        .join("\n");
        let states: Vec<_> = listed(&text).into_iter().map(|seen| (seen.number, seen.element, seen.state)).collect();
        let pending = |reason: &str| JobState::Pending { reason: reason.into() };
        let failed = JobEnd::Failed { code: None, reason: "signal 9".into() };
        let cancelled = JobEnd::Cancelled { reason: "via condor_rm (by user me)".into() };
        assert_eq!(
            states,
            [
                (17, Some(0), JobState::Running { host: "node1".into() }),
                (17, Some(1), pending("")),
                (17, Some(2), pending("it is held: Error from slot1: no such file")),
                (18, Some(0), JobState::Ended(JobEnd::by_code(3, ""))),
                (19, Some(0), JobState::Ended(failed)),
                (20, Some(0), JobState::Ended(cancelled)),
            ]
        );
    }
}
