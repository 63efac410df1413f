//! LSF: `bsub`, `bjobs`, `bkill`. What is read here is as the manuals of LSF 10.1 say.

use super::state::Seen;
use super::{Batch, BatchError, Doing, Job, JobEnd, JobState};

/// What `bjobs` is to print; what may hold any character comes last.
const FIELDS: &str = "jobid jobindex stat exec_host exit_code exit_reason pend_reason delimiter='|'";

/// `Job <17> is submitted to queue <normal>.`
pub(super) fn job_id(answer: &str) -> Option<String> {
    let id = answer.split_once("Job <")?.1.split_once('>')?.0;
    id.parse::<u64>().ok().map(|id| id.to_string())
}

pub(super) fn list(batch: &Batch, jobs: &[Job]) -> Result<Vec<Seen>, BatchError> {
    let arguments = ["-a", "-noheader", "-o", FIELDS];
    let arguments: Vec<&str> = arguments.into_iter().chain(jobs.iter().map(|job| &*job.id)).collect();
    let ran = batch.run(Doing::Poll, &batch.commands.list, &arguments, "")?;
    let is_told = |line: &str| line.contains("is not found") || line.contains("No matching job found");
    let mut errors = ran.err.lines().filter(|line| !line.trim().is_empty()).peekable();
    // It lists those that it knows, and fails if there was one that it does not.
    if !ran.status.success() && (errors.peek().is_none() || !errors.all(is_told)) {
        return Err(batch.error(Doing::Poll)(ran.refused()));
    }
    Ok(listed(&ran.out))
}

fn listed(text: &str) -> Vec<Seen> {
    let line = |line: &str| {
        let mut fields = line.splitn(7, '|').map(|field| if field.trim() == "-" { "" } else { field.trim() });
        let mut next = || fields.next();
        let (id, index, state, host) = (next()?, next()?, next()?, next()?);
        let (code, reason, waits) = (next()?, next()?, next()?);
        // A job that is no array has the index 0.
        let element = index.parse().ok().filter(|index| *index > 0);
        Some(Seen { number: id.parse().ok()?, element, state: state_of(state, host, code, reason, waits) })
    };
    text.lines().filter_map(line).collect()
}

fn state_of(state: &str, host: &str, code: &str, reason: &str, waits: &str) -> JobState {
    match state {
        "RUN" | "USUSP" | "SSUSP" | "UNKWN" | "PROV" => JobState::Running { host: first_host(host) },
        "DONE" => JobState::Ended(JobEnd::Done),
        "EXIT" | "ZOMBI"
            if reason.starts_with("TERM_OWNER")
                || reason.starts_with("TERM_ADMIN")
                || reason.starts_with("TERM_FORCE") =>
        {
            JobState::Ended(JobEnd::Cancelled { reason: reason.to_owned() })
        }
        "EXIT" | "ZOMBI" => JobState::Ended(JobEnd::Failed { code: code.parse().ok(), reason: reason.to_owned() }),
        "PEND" => JobState::Pending { reason: waits.to_owned() },
        other => JobState::Pending { reason: [other, waits].join(" ").trim().to_owned() },
    }
}

/// `4*node1:node2`: the first host.
fn first_host(hosts: &str) -> String {
    let first = hosts.split(':').next().unwrap_or_default();
    first.split_once('*').map_or(first, |(_, host)| host).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_of_what_bsub_says() {
        assert_eq!(job_id("Job <17> is submitted to queue <normal>.\n").as_deref(), Some("17"));
        assert_eq!(job_id("Job <17> is submitted to default queue <normal>.\n").as_deref(), Some("17"));
        assert_eq!(job_id("no: No such queue. Job not submitted."), None);
    }

    #[test]
    fn states_are_read_of_what_bjobs_lists() {
        let text = "17|1|RUN|4*node1:node2|-|-|-\n17|2|PEND|-|-|-|Not enough slots; load: 3|4\n18|0|EXIT|node1|3|-|-\n\
                    19|0|EXIT|node1|130|TERM_OWNER: job killed by owner|-\n20|0|DONE|node1|-|-|-\n21|0|PSUSP|-|-|-|-\n";
        let seen: Vec<_> = listed(text).into_iter().map(|seen| (seen.number, seen.element, seen.state)).collect();
        let pending = |reason: &str| JobState::Pending { reason: reason.into() };
        let cancelled = JobEnd::Cancelled { reason: "TERM_OWNER: job killed by owner".into() };
        assert_eq!(
            seen,
            [
                (17, Some(1), JobState::Running { host: "node1".into() }),
                (17, Some(2), pending("Not enough slots; load: 3|4")),
                (18, None, JobState::Ended(JobEnd::by_code(3, ""))),
                (19, None, JobState::Ended(cancelled)),
                (20, None, JobState::Ended(JobEnd::Done)),
                (21, None, pending("PSUSP")),
            ]
        );
    }
}
