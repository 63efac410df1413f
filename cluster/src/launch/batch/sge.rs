//! Grid Engine: `qsub`, `qstat`, `qacct`, `qdel`. What is read here is as the manuals of Grid Engine 6.2 and 8 say.

use super::state::{Seen, leading_number};
use super::{Batch, BatchError, Doing, Job, JobEnd, JobState};

/// No array is longer: what a listing says beyond that is not believed.
const MOST_ELEMENTS: usize = 1_000_000;

/// `17`, or `17.1-4:1`, with `-terse`; else `Your job 17 ("name") has been submitted`.
pub(super) fn job_id(answer: &str) -> Option<String> {
    let line = answer.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    let words = ["Your job-array ", "Your job "].iter().find_map(|words| line.strip_prefix(words)).unwrap_or(line);
    leading_number(words).map(|number| number.to_string())
}

pub(super) fn list(batch: &Batch, jobs: &[Job]) -> Result<Vec<Seen>, BatchError> {
    let ran = batch.run(Doing::Poll, &batch.commands.list, &[], "")?;
    let seen = listed(&ran.success().map_err(batch.error(Doing::Poll))?);
    Ok(seen.into_iter().filter(|seen| jobs.iter().any(|job| job.number() == seen.number)).collect())
}

pub(super) fn history(batch: &Batch, jobs: &[Job]) -> Vec<Seen> {
    let of = |job: &Job| {
        // It fails for a job that is not on record yet, and where no records are kept.
        let ran = batch.run(Doing::Poll, &batch.commands.history, &["-j", &job.id], "");
        ran.ok().and_then(|ran| ran.success().ok()).map(|text| accounted(&text)).unwrap_or_default()
    };
    jobs.iter().flat_map(of).collect()
}

/// What `qstat` prints: two lines of heading, then id, priority, name, user, state, date, time, the queue if it has one, slots, and
/// elements if it is an array.
fn listed(text: &str) -> Vec<Seen> {
    let mut seen = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let Some(number) = fields.first().and_then(|id| id.parse().ok()) else { continue };
        let (Some(state), Some(rest)) = (fields.get(4), fields.get(7..)) else { continue };
        let queue = rest.first().filter(|word| word.contains('@'));
        let host = queue.and_then(|queue| queue.split_once('@')).map_or("", |(_, host)| host);
        let state = state_of(state, host);
        match rest.get(usize::from(queue.is_some()) + 1) {
            None => seen.push(Seen { number, element: None, state }),
            Some(elements) => {
                let each = |element| Seen { number, element: Some(element), state: state.clone() };
                seen.extend(expand(elements).map(each));
            }
        }
    }
    seen
}

/// The state's letters: `d` it is being deleted, `E` error, `h` hold, `q` it waits, `r` it runs, `R` again, `s`, `S`, `T` suspended, `t` it
/// is brought to its host.
fn state_of(letters: &str, host: &str) -> JobState {
    if letters.contains('E') {
        return JobState::Pending {
            reason: format!("in error ({letters}): `qstat -j` says why, `qmod -cj` lets it run again"),
        };
    }
    if letters.contains('q') {
        return JobState::Pending {
            reason: if letters.contains('h') { format!("it is held ({letters})") } else { letters.to_owned() },
        };
    }
    JobState::Running { host: host.to_owned() }
}

/// `3`, `2-4:1`, `1,3`: elements.
fn expand(text: &str) -> impl Iterator<Item = u32> {
    let range = |part: &str| {
        let (range, step) = part.split_once(':').unwrap_or((part, "1"));
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        Some((from.parse::<u32>().ok()?..=to.parse().ok()?).step_by(step.parse().ok().filter(|step| *step > 0)?))
    };
    let ranges: Vec<_> = text.split(',').filter_map(range).collect();
    ranges.into_iter().flatten().take(MOST_ELEMENTS)
}

/// What `qacct -j` prints: a block for each element, with lines `name value`, after a line of `=`.
fn accounted(text: &str) -> Vec<Seen> {
    let block = |block: &str| {
        let field = |name: &str| {
            let of = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(' ')?.trim().to_owned());
            block.lines().find_map(of)
        };
        let number = leading_number(&field("jobnumber")?)?;
        // `100 : assumedly after job`
        let failed = field("failed").unwrap_or_default();
        let code =
            field("exit_status").and_then(|code| leading_number(&code)).and_then(|code| i32::try_from(code).ok());
        let end = match (leading_number(&failed).unwrap_or_default(), code) {
            (0, Some(code)) => JobEnd::by_code(code, ""),
            _ if field("deleted_by").is_some_and(|by| by != "NONE") => JobEnd::Cancelled { reason: failed },
            (_, code) => JobEnd::Failed { code, reason: failed },
        };
        Some(Seen { number, element: field("taskid").and_then(|id| id.parse().ok()), state: JobState::Ended(end) })
    };
    text.split("\n===").filter_map(|part| part.split("====\n").last()).filter_map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const QSTAT: &str = "\
job-ID  prior   name       user         state submit/start at     queue                          slots ja-task-ID 
-----------------------------------------------------------------------------------------------------------------
      3 0.55500 engines    me           r     07/02/2010 12:00:00 all.q@node1                        1 1
      3 0.00000 engines    me           qw    07/02/2010 12:00:00                                    1 2-6:2,7
      4 0.55500 other      me           Eqw   07/02/2010 12:00:00                                    1
      5 0.55500 other      me           dr    07/02/2010 12:00:00 all.q@node2                        8
";

    #[test]
    fn ids_are_read_of_what_qsub_says() {
        for answer in [
            "17\n",
            "17.1-4:1\n",
            "Your job 17 (\"x\") has been submitted\n",
            "Your job-array 17.1-4:1 (\"x\") has been submitted",
        ] {
            assert_eq!(job_id(answer).as_deref(), Some("17"), "{answer}");
        }
        assert_eq!(job_id("Unable to run job: no such queue"), None);
    }

    #[test]
    fn states_are_read_of_what_qstat_lists() {
        let seen = listed(QSTAT);
        let running = |host: &str| JobState::Running { host: host.into() };
        let waiting = JobState::Pending { reason: "qw".into() };
        assert_eq!(seen[0], Seen { number: 3, element: Some(1), state: running("node1") });
        let elements: Vec<_> = seen[1..5].iter().map(|seen| (seen.element, seen.state == waiting)).collect();
        assert_eq!(elements, [2, 4, 6, 7].map(|element| (Some(element), true)));
        assert!(matches!(&seen[5].state, JobState::Pending { reason } if reason.contains("Eqw")), "{seen:?}");
        assert_eq!(seen[6], Seen { number: 5, element: None, state: running("node2") });
    }

    #[test]
    fn ends_are_read_of_what_qacct_shows() {
        let line = "=".repeat(62);
        let text = format!(
            "{line}\nqname        all.q\njobnumber    3\ntaskid       1\nfailed       0\nexit_status  2\n\
             {line}\nqname        all.q\njobnumber    3\ntaskid       2\nfailed       0\nexit_status  0\n\
             {line}\njobnumber    4\ntaskid       undefined\nfailed       100 : assumedly after job\nexit_status  137\ndeleted_by   me@host\n"
        );
        let states: Vec<_> = accounted(&text).into_iter().map(|seen| (seen.number, seen.element, seen.state)).collect();
        assert_eq!(
            states,
            [
                (3, Some(1), JobState::Ended(JobEnd::by_code(2, ""))),
                (3, Some(2), JobState::Ended(JobEnd::Done)),
                (4, None, JobState::Ended(JobEnd::Cancelled { reason: "100 : assumedly after job".into() })),
            ]
        );
    }
}
