//! The thread that keeps task records: what it keeps, and when it commits, are the real ones.

use remuda_hub::hub;
use remuda_hub::store::{Ask, Pace, TaskStore, Write};
use remuda_proto::monitor::{Queue, Ticket};
use remuda_proto::{Instant, Machine, Now};

/// What the thread is told.
#[derive(Debug)]
pub(crate) enum Job {
    /// Write this.
    Write(Write),
    /// Answer this.
    Ask(u64, Ask),
}

/// What it does.
#[derive(Debug)]
pub(crate) enum Done {
    /// It tells the hub.
    Tell(hub::Event),
    /// What this scheduler waits for is committed.
    Committed(Queue, Ticket),
}

/// The thread.
#[derive(Debug)]
pub(crate) struct StoreCore {
    store: Box<dyn TaskStore>,
    pace: Pace,
}

impl StoreCore {
    pub(crate) fn new(store: Box<dyn TaskStore>) -> Self {
        Self { store, pace: Pace::default() }
    }

    fn commit(&mut self, now: Now, out: &mut Vec<Done>) {
        match self.store.commit() {
            Ok(committed) => {
                self.pace.committed(&committed);
                out.extend(committed.marks.into_iter().map(|(queue, ticket)| Done::Committed(queue, ticket)));
            }
            Err(error) => {
                self.pace.failed(now.instant);
                out.push(Done::Tell(hub::Event::StoreTrouble(Some(error))));
            }
        }
    }
}

impl Machine for StoreCore {
    type Event = Job;
    type Effect = Done;

    fn handle(&mut self, now: Now, job: Job, out: &mut Vec<Done>) {
        match job {
            Job::Write(write) => {
                self.pace.wrote(now.instant, &write);
                self.store.write(write);
                if self.pace.is_due(now.instant, false) {
                    self.commit(now, out);
                }
            }
            Job::Ask(question, ask) => {
                let answer = self.store.ask(&ask);
                out.push(Done::Tell(hub::Event::Answered { question, answer }));
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.pace.deadline(true)
    }

    fn on_deadline(&mut self, now: Now, out: &mut Vec<Done>) {
        if self.pace.is_due(now.instant, true) {
            self.commit(now, out);
        }
    }

    fn check(&self) {
        self.store.check();
    }
}
