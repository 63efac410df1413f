//! A database with a thread of its own.

use std::time::Duration;

use remuda_net::{Backlog, Clock, Mail, Mailbox};
use remuda_proto::Now;
use remuda_proto::monitor::{Queue, Ticket};

use super::records::Job;
use crate::hub::Event;
use crate::store::{Pace, SqliteStore, StoreError, TaskStore};

/// How long the last commits are tried when the controller ends.
const LAST_TRIES: Duration = Duration::from_secs(3);

/// Most jobs for which the clock is read once.
const SAME_TIME: usize = 64;

/// From one of these tries to the next.
const LAST_PAUSE: Duration = Duration::from_millis(50);

/// A database with a thread of its own.
pub struct StoreThread<E, C> {
    store: SqliteStore,
    pace: Pace,
    backlog: Backlog,
    /// Takes what there is to say to the hub.
    tell: E,
    /// Takes what is committed to the scheduler that waits for it.
    committed: C,
    /// Whether it was told that the backlog is full.
    told_full: bool,
    /// How many changes the database refused.
    refused: u64,
}

impl<E: FnMut(Event), C: FnMut(Queue, Ticket)> StoreThread<E, C> {
    /// A thread that has not begun.
    pub fn new(store: SqliteStore, backlog: Backlog, tell: E, committed: C) -> Self {
        Self { store, pace: Pace::default(), backlog, tell, committed, told_full: false, refused: 0 }
    }

    /// Does what comes, until nobody can send anything any more. Then everything is committed, if that is possible.
    pub fn run(mut self, mailbox: &Mailbox<Job>, clock: Clock) {
        loop {
            let now = clock.now();
            let mut came = 0;
            while came < SAME_TIME
                && let Some(job) = mailbox.try_receive()
            {
                self.take(now, job);
                came += 1;
                if self.pace.is_due(now.instant, false) {
                    self.commit(now);
                    break;
                }
            }
            if came > 0 {
                continue;
            }
            if self.pace.is_due(now.instant, true) {
                self.commit(now);
                continue;
            }
            let is_clean = self.pace.deadline(true).is_none();
            if is_clean && self.store.tidy_at() <= now.instant {
                if let Err(error) = self.store.tidy(now.instant, now.date) {
                    tracing::warn!("{error}: old records are dropped later");
                }
                continue;
            }
            let next = self.pace.deadline(true).unwrap_or_else(|| self.store.tidy_at());
            match mailbox.receive_within(next.since(now.instant)) {
                Mail::Came(job) => self.take(clock.now(), job),
                Mail::None => {}
                Mail::Closed => break,
            }
        }
        self.finish(clock);
    }

    fn take(&mut self, now: Now, job: Job) {
        match job {
            Job::Write(write) => {
                self.pace.wrote(now.instant, &write);
                self.store.write(write);
                self.watch();
            }
            Job::Ask { question, ask } => {
                let answer = self.store.ask(&ask);
                (self.tell)(Event::Answered { question, answer });
            }
        }
    }

    fn commit(&mut self, now: Now) {
        match self.store.commit() {
            Ok(committed) => {
                self.backlog.remove(committed.changes, committed.bytes);
                if self.pace.committed(&committed) {
                    tracing::info!("the task records can be written again: nothing is lost");
                    (self.tell)(Event::StoreTrouble(None));
                }
                for (queue, ticket) in committed.marks {
                    (self.committed)(queue, ticket);
                }
                self.note_refused(&committed.refused);
                self.watch();
            }
            Err(error) => {
                if self.pace.failed(now.instant) {
                    let waiting = self.backlog.changes();
                    tracing::error!(
                        waiting,
                        "{error}: what is to be recorded waits in memory and is tried again and again; make room on the disk, \
                         or end the program that holds the database"
                    );
                    (self.tell)(Event::StoreTrouble(Some(error)));
                }
            }
        }
    }

    /// A change that the database will never take is no reason to keep the others back.
    fn note_refused(&mut self, refused: &[StoreError]) {
        let Some(first) = refused.first() else { return };
        let before = self.refused;
        self.refused += refused.len() as u64;
        if before == 0 || before.ilog2() != self.refused.ilog2() {
            let times = self.refused;
            tracing::error!(times, "{first}: what was to be recorded is lost, the controller goes on");
        }
        (self.tell)(Event::StoreRefused { changes: refused.len() as u64 });
    }

    /// Says once that too much waits, and once that it does no longer.
    fn watch(&mut self) {
        if self.told_full {
            if self.backlog.is_low() {
                self.told_full = false;
                tracing::info!("the task records have caught up: reading from clients again");
            }
        } else if let Some(passed) = self.backlog.passed() {
            self.told_full = true;
            tracing::warn!(
                found = passed.found,
                limit = passed.limit,
                "the task records are behind by the limit --{}: reading no more from clients until they catch up; a slow or \
                 full disk may be why",
                passed.name
            );
        }
    }

    fn finish(mut self, clock: Clock) {
        let until = clock.now().instant + LAST_TRIES;
        while self.store.pending() > 0 {
            let now = clock.now();
            self.commit(now);
            if self.pace.deadline(true).is_some_and(|at| at > now.instant) {
                if now.instant >= until {
                    let changes = self.store.pending();
                    tracing::error!(changes, "the task records cannot be written: these changes of them are lost");
                    return self.store.give_up();
                }
                std::thread::park_timeout(LAST_PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc;
    use std::thread;

    use remuda_net::mailbox;
    use remuda_proto::{BodyBuilder, Date, MsgId, Packer};
    use rusqlite::Connection;

    use super::*;
    use crate::find::Query;
    use crate::record::TaskRecord;
    use crate::run::Records;
    use crate::store::{Answer, Ask, Buffers, Find, SqliteConfig, Write};

    /// What a store thread says.
    #[derive(Debug)]
    enum Said {
        Hub(Event),
        Committed(Queue, Ticket),
    }

    /// A store thread over this file; it ends when the records are dropped.
    fn start(file: &Path) -> (Records, Backlog, mpsc::Receiver<Said>, thread::JoinHandle<()>) {
        let store = SqliteStore::open(&SqliteConfig::new(file)).unwrap();
        let backlog = Backlog::new(10, 1_000_000);
        let (said, hears) = mpsc::channel();
        let (jobs, mailbox) = mailbox().unwrap();
        let records = Records::Thread { jobs, backlog: backlog.clone() };
        let other = said.clone();
        let thread = StoreThread::new(
            store,
            backlog.clone(),
            move |event| drop(said.send(Said::Hub(event))),
            move |queue, ticket| drop(other.send(Said::Committed(queue, ticket))),
        );
        let thread = thread::spawn(move || thread.run(&mailbox, Clock::new()));
        (records, backlog, hears, thread)
    }

    fn add(id: &str) -> Job {
        let mut builder = BodyBuilder::default();
        ["", "{}", "{}", "{}", "{}"].into_iter().for_each(|part| builder.push(part.as_bytes()));
        let body = builder.finish().unwrap();
        Job::Write(Write::Add(Box::new(TaskRecord::new(MsgId::from(id), Packer::Json, Queue::Task, body, Date(1)))))
    }

    fn mark(ticket: u64) -> Job {
        Job::Write(Write::Mark { queue: Queue::Task, ticket: Ticket(ticket) })
    }

    fn hand_over(records: &mut Records, jobs: Vec<Job>) {
        let nothing = |event| panic!("a thread answers by itself, not {event:?}");
        records.hand_over(jobs, nothing, |queue, _| panic!("{queue:?} is told by the thread"));
    }

    fn hear(hears: &mpsc::Receiver<Said>) -> Said {
        hears.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    #[test]
    fn a_scheduler_hears_of_its_commit_and_a_question_has_an_answer() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tasks.db");
        let (mut records, backlog, hears, thread) = start(&file);
        hand_over(&mut records, vec![add("a"), mark(1), add("b"), mark(2)]);
        let mut last = Ticket(0);
        while last < Ticket(2) {
            let Said::Committed(Queue::Task, ticket) = hear(&hears) else { panic!("nothing else is said") };
            assert!(ticket > last);
            last = ticket;
        }
        let count = || {
            let sql = "SELECT count(*) FROM \"ipython-tasks\"";
            Connection::open(&file).unwrap().query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!((count(), backlog.changes(), backlog.bytes()), (2, 0, 0), "it is on disk");
        let ask = Ask::Find(Find::all(Query::everything(), Buffers::default()));
        hand_over(&mut records, vec![add("c"), Job::Ask { question: 7, ask }]);
        let Said::Hub(Event::Answered { question: 7, answer: Ok(Answer::Records(found)) }) = hear(&hears) else {
            panic!("an answer is due")
        };
        assert_eq!(found.len(), 3, "it knows what was written before");
        drop(records);
        thread.join().unwrap();
        assert_eq!(count(), 3, "the end commits");
    }

    #[test]
    fn a_locked_database_is_told_once_and_nothing_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tasks.db");
        let (mut records, backlog, hears, thread) = start(&file);
        hand_over(&mut records, vec![add("a"), mark(1)]);
        assert!(matches!(hear(&hears), Said::Committed(..)));
        let other = Connection::open(&file).unwrap();
        other.busy_timeout(Duration::from_secs(60)).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        hand_over(&mut records, (0..20).map(|number| add(&format!("m{number}"))).chain([mark(2)]).collect());
        let Said::Hub(Event::StoreTrouble(Some(trouble))) = hear(&hears) else { panic!("trouble is told") };
        assert_eq!(trouble.to_string(), "the task records failed: database is locked");
        assert!(backlog.is_full(), "the schedulers see it");
        other.execute_batch("ROLLBACK").unwrap();
        assert!(matches!(hear(&hears), Said::Hub(Event::StoreTrouble(None))));
        assert!(matches!(hear(&hears), Said::Committed(Queue::Task, Ticket(2))));
        assert_eq!(backlog.changes(), 0);
        drop(records);
        thread.join().unwrap();
    }
}
