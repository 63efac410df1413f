//! PBS, both kinds: `qsub`, `qstat`, `qdel`. What is read here is as the manuals of OpenPBS 23 and Torque 6 say.

use super::state::{Seen, leading_number};
use super::system::{System, pbs_gone};
use super::{Batch, BatchError, Doing, Job, JobEnd, JobState};

/// `1234.server`, or `1234[].server`.
pub(super) fn job_id(answer: &str) -> Option<String> {
    let line = answer.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    leading_number(line).filter(|_| !line.contains(' ')).map(|_| line.to_owned())
}

pub(super) fn list(batch: &Batch, jobs: &[Job]) -> Result<Vec<Seen>, BatchError> {
    let arguments: Vec<&str> = ["-f", "-t"].into_iter().chain(jobs.iter().map(|job| &*job.id)).collect();
    let ran = batch.run(Doing::Poll, &batch.commands.list, &arguments, "")?;
    let is_told = |line: &str| pbs_gone().iter().any(|words| line.contains(words));
    let mut errors = ran.err.lines().filter(|line| !line.trim().is_empty()).peekable();
    // It lists those that it knows, and fails if there was one that it does not.
    if !ran.status.success() && (errors.peek().is_none() || !errors.all(is_told)) {
        return Err(batch.error(Doing::Poll)(ran.refused()));
    }
    Ok(listed(&ran.out, batch.system))
}

/// OpenPBS keeps jobs for some days after their end, if it is told to.
pub(super) fn history(batch: &Batch, jobs: &[Job]) -> Vec<Seen> {
    let arguments: Vec<&str> = ["-x", "-f", "-t"].into_iter().chain(jobs.iter().map(|job| &*job.id)).collect();
    let ran = batch.run(Doing::Poll, &batch.commands.history, &arguments, "");
    ran.map(|ran| listed(&ran.out, batch.system)).unwrap_or_default()
}

/// What `qstat -f` prints: a block for each job, with lines `name = value`, continued on lines that begin with a tab.
fn listed(text: &str, system: System) -> Vec<Seen> {
    let text = text.replace("\n\t", "");
    let blocks = text.split("Job Id:").skip(1);
    blocks.filter_map(|block| of_block(block, system)).collect()
}

fn of_block(block: &str, system: System) -> Option<Seen> {
    let id = block.lines().next()?.trim();
    let field = |name: &str| {
        let value =
            |line: &str| Some(line.trim().strip_prefix(name)?.trim_start().strip_prefix('=')?.trim().to_owned());
        block.lines().skip(1).find_map(value)
    };
    // `1234[7].server` is an element, `1234[].server` the array as a whole, and with old versions of Torque `1234-7.server` an element.
    let number = leading_number(id)?;
    let rest = &id[number.to_string().len().min(id.len())..];
    let of_array = rest.strip_prefix(['[', '-']);
    let element = of_array.and_then(leading_number).and_then(|element| u32::try_from(element).ok());
    let is_whole = of_array.is_some() && element.is_none();
    let reason = field("comment").unwrap_or_default();
    let code = field("Exit_status").or_else(|| field("exit_status")).and_then(|code| code.parse::<i32>().ok());
    let state = match &*field("job_state")? {
        "R" | "E" | "S" | "U" if is_whole => return None,
        "R" | "E" | "S" | "U" => JobState::Running { host: host(&field("exec_host").unwrap_or_default()) },
        // An array that has begun: its elements are listed as well.
        "B" => return None,
        "F" | "C" | "X" | "M" if is_whole => return None,
        "F" | "C" | "X" | "M" => JobState::Ended(end(code, &reason, system)),
        "H" => JobState::Pending { reason: if reason.is_empty() { "it is held".to_owned() } else { reason } },
        _ => JobState::Pending { reason },
    };
    Some(Seen { number, element, state })
}

/// Codes from 256 on (OpenPBS: also from 128 on) are those of a signal; those below 0 are PBS's own.
fn end(code: Option<i32>, reason: &str, system: System) -> JobEnd {
    match code {
        None if system == System::Torque => JobEnd::Cancelled { reason: reason.to_owned() },
        None => JobEnd::Failed { code: None, reason: reason.to_owned() },
        Some(code @ 256..) if code == 256 + 15 => JobEnd::Cancelled { reason: format!("signal {}", code - 256) },
        Some(code @ 256..) => JobEnd::Failed { code: None, reason: format!("signal {}", code - 256) },
        Some(code @ ..0) => {
            let said = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            JobEnd::Failed { code: None, reason: format!("PBS could not run it, {code}{said}") }
        }
        Some(code) => JobEnd::by_code(code, reason),
    }
}

/// `node1/0*4+node2/0*4`: the first host.
fn host(text: &str) -> String {
    text.split(['/', '+']).next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENPBS: &str = "Job Id: 12.server\n    Job_Name = engines\n    job_state = Q\n    comment = Not Running: Insufficient \
        amount of resource: ncpus (R: 8 A:\n\t 4 T: 4)\n\nJob Id: 13[].server\n    job_state = B\n    array = True\n\n\
        Job Id: 13[1].server\n    job_state = R\n    exec_host = node1/0*2\n    exec_vnode = (node1:ncpus=2)\n\n\
        Job Id: 13[2].server\n    job_state = X\n    Exit_status = 0\n\nJob Id: 14.server\n    job_state = F\n    Exit_status = 3\n    \
        comment = Job run at Mon Jan 01 on (node1:ncpus=1) and failed\n\nJob Id: 15.server\n    job_state = F\n    Exit_status = 271\n";

    #[test]
    fn ids_are_read_of_what_qsub_says() {
        assert_eq!(job_id("1234.server.example.org\n").unwrap(), "1234.server.example.org");
        assert_eq!(job_id("1234[].server\n").unwrap(), "1234[].server");
        assert_eq!(job_id("qsub: Unknown queue\n"), None);
    }

    #[test]
    fn states_are_read_of_what_qstat_lists() {
        let seen = listed(OPENPBS, System::OpenPbs);
        let states: Vec<_> = seen.iter().map(|seen| (seen.number, seen.element, &seen.state)).collect();
        let reason = "Not Running: Insufficient amount of resource: ncpus (R: 8 A: 4 T: 4)".to_owned();
        let failed = "Job run at Mon Jan 01 on (node1:ncpus=1) and failed".to_owned();
        assert_eq!(
            states,
            [
                (12, None, &JobState::Pending { reason }),
                (13, Some(1), &JobState::Running { host: "node1".into() }),
                (13, Some(2), &JobState::Ended(JobEnd::Done)),
                (14, None, &JobState::Ended(JobEnd::Failed { code: Some(3), reason: failed })),
                (15, None, &JobState::Ended(JobEnd::Cancelled { reason: "signal 15".into() })),
            ]
        );
    }

    #[test]
    fn torques_elements_and_ends_are_read_too() {
        let text = "Job Id: 7[2].server\n    job_state = C\n    exit_status = 1\n\nJob Id: 8-3.server\n    job_state = H\n\n\
                    Job Id: 9.server\n    job_state = C\n    exit_status = -3\n";
        let seen: Vec<_> =
            listed(text, System::Torque).into_iter().map(|seen| (seen.number, seen.element, seen.state)).collect();
        let failed = |code, reason: &str| JobState::Ended(JobEnd::Failed { code, reason: reason.into() });
        assert_eq!(
            seen,
            [
                (7, Some(2), failed(Some(1), "")),
                (8, Some(3), JobState::Pending { reason: "it is held".into() }),
                (9, None, failed(None, "PBS could not run it, -3")),
            ]
        );
    }
}
