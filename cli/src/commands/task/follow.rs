//! Tasks as they come and change: what is new on record, and what became of those that had not ended.

use std::time::Duration;

use remuda_client::MsgId;
use remuda_client::records::Record;
use remuda_proto::message::content::RecordOrder;
use remuda_proto::{Map, Set};

use super::list::{Rows, print_jsonl};
use super::say;
use super::source::{MAX_NAMED, Selection, Source, State, id_of};
use super::summary::Summary;
use crate::args::task::RecordFormat;
use crate::failure::{Failure, Outcome};

/// How often it is looked for what is new; less often if that takes long.
pub(super) const EVERY: Duration = Duration::from_millis(300);
/// A question takes this part of the time between two at most.
pub(super) const SHARE: u32 = 10;
/// The newest tasks, as far as they are looked for at once. It grows while all of them are new.
const NEWEST: usize = 500;
/// The tasks that were seen and are known not to be new: more than can come between two looks.
const MAX_KNOWN: usize = 4 * MAX_NAMED;

/// What is known of the tasks that were seen.
#[derive(Debug, Default)]
struct Seen {
    /// Those that had not ended, each with what was last printed of it. No more than [`MAX_NAMED`].
    pending: Map<MsgId, (String, Option<String>)>,
    /// All that were seen, the last ones. Fewer than [`MAX_KNOWN`].
    young: Set<MsgId>,
    /// Those before.
    old: Set<MsgId>,
    /// Whether it was said that not all can be followed.
    overflowed: bool,
}

impl Seen {
    fn is_known(&self, id: &MsgId) -> bool {
        self.young.contains(id) || self.old.contains(id)
    }

    /// Takes note of a task as it is now: whether that is news.
    fn note(&mut self, id: MsgId, state: Option<State>, task: &Summary) -> bool {
        if !self.is_known(&id) {
            self.young.insert(id.clone());
            if self.young.len() >= MAX_KNOWN {
                self.old = std::mem::take(&mut self.young);
            }
        }
        let now = (task.state.clone(), task.engine_uuid.clone());
        if !state.is_some_and(|state| State::PENDING.contains(&state)) {
            return self.pending.swap_remove(&id).is_none_or(|before| before != now);
        }
        if let Some(before) = self.pending.get_mut(&id) {
            return std::mem::replace(before, now.clone()) != now;
        }
        if self.pending.len() < MAX_NAMED {
            self.pending.insert(id, now);
        } else {
            self.overflowed = true;
        }
        true
    }
}

/// Prints tasks, then those that come or change, until it is interrupted.
pub(super) async fn list(mut source: Source, selection: Selection, format: RecordFormat) -> Outcome {
    if let Source::File(_) = source {
        return Err(Failure::usage("nothing changes in the database of a stopped controller")
            .hint("leave out `--follow`, or `--db`"));
    }
    let states = selection.states.clone();
    // Whichever state it is in: it may come to be in one that is wanted.
    // By date of submission where that is what records are indexed by; else in the order of arrival, which no client's clock
    // can put wrong.
    let order = if selection.query.is_empty() { RecordOrder::Arrival } else { RecordOrder::Submitted };
    let any = Selection { states: Vec::new(), order, oldest_first: false, ..selection.clone() };
    let mut rows = Rows::new(remuda_net::Clock::new().now().date);
    let mut seen = Seen::default();
    let mut said = false;
    // The newest of those that are there already; the others are none of our business.
    let mut found = source.records(&any).await?;
    found.reverse();
    loop {
        let started = std::time::Instant::now();
        let engines = source.engines();
        let mut news = Vec::new();
        for record in found {
            let task = Summary::of(&record, &engines);
            let state = State::of(&record);
            let Some(id) = id_of(&record) else { continue };
            if seen.note(id, state, &task) && (states.is_empty() || state.is_some_and(|state| states.contains(&state)))
            {
                news.push(task);
            }
        }
        if !news.is_empty() {
            print(&news, format, &mut rows)?;
        }
        if seen.overflowed && !std::mem::replace(&mut said, true) {
            say(&format!("note: more than {MAX_NAMED} tasks have not ended: not all of them are followed"));
        }
        tokio::time::sleep(EVERY).await;
        found = changed(&mut source, &any, &seen).await?;
        // Whoever has a large record waits longer for news of it, so that the controller has time for others.
        let busy = started.elapsed().saturating_sub(EVERY);
        tokio::time::sleep(busy.saturating_mul(SHARE)).await;
    }
}

/// The tasks that are new, and those that had not ended as they are now; the oldest first.
async fn changed(source: &mut Source, any: &Selection, seen: &Seen) -> Result<Vec<Record>, Failure> {
    let mut found = Vec::new();
    if !seen.pending.is_empty() {
        let ids: Vec<MsgId> = seen.pending.keys().cloned().collect();
        let keys = any.keys.clone();
        found = source.records(&Selection { keys, ..Selection::tasks(&ids, &[]) }).await?;
    }
    let mut most = NEWEST;
    loop {
        let newest = Selection { limit: Some(most), ..any.clone() };
        let page = source.records(&newest).await?;
        let count = page.len();
        let mut fresh: Vec<Record> =
            page.into_iter().filter(|record| id_of(record).is_some_and(|id| !seen.is_known(&id))).collect();
        if fresh.len() == count && count >= most && most < MAX_NAMED {
            most = (most * 4).min(MAX_NAMED);
            continue;
        }
        fresh.reverse();
        found.append(&mut fresh);
        return Ok(found);
    }
}

fn print(news: &[Summary], format: RecordFormat, rows: &mut Rows) -> Result<(), Failure> {
    match format {
        RecordFormat::Table => {
            rows.at(remuda_net::Clock::new().now().date);
            rows.print(news)
        }
        // A document that does not end is of no use: a line for each in either case.
        RecordFormat::Json | RecordFormat::Jsonl => print_jsonl(news),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn note(seen: &mut Seen, id: &str, state: &str, engine: Option<&str>) -> bool {
        let Value::Object(fields) = json!({"msg_id": id, "state": state, "engine_uuid": engine}) else { panic!() };
        let record = Record { fields, ..Record::default() };
        seen.note(id.into(), State::of(&record), &Summary::of(&record, &[]))
    }

    #[test]
    fn a_task_is_news_when_it_comes_and_each_time_it_changes() {
        let mut seen = Seen::default();
        assert!(note(&mut seen, "a", "waiting", None));
        assert!(!note(&mut seen, "a", "waiting", None));
        assert!(note(&mut seen, "a", "running", Some("e")));
        assert!(note(&mut seen, "a", "running", Some("f")), "another engine has it");
        assert!(note(&mut seen, "a", "ok", Some("f")));
        assert!(seen.pending.is_empty() && seen.is_known(&"a".into()));
        assert!(note(&mut seen, "b", "error", Some("e")), "it came and ended between two looks");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut seen = Seen::default();
        for at in 0..3 * MAX_KNOWN {
            note(&mut seen, &at.to_string(), "waiting", None);
        }
        assert!(seen.pending.len() == MAX_NAMED && seen.overflowed);
        assert!(seen.young.len() + seen.old.len() <= 2 * MAX_KNOWN);
        assert!(seen.is_known(&(3 * MAX_KNOWN - 1).to_string().into()) && !seen.is_known(&"0".into()));
    }
}
