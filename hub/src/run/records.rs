//! Who does what the hub says about task records: at once, or a thread of its own.

use remuda_net::{Backlog, Sender};
use remuda_proto::monitor::{Queue, Ticket};

use crate::hub::Event;
use crate::store::{Ask, TaskStore, Write};

/// What a store thread is told, in order.
#[derive(Debug)]
pub enum Job {
    /// Write this.
    Write(Write),
    /// Answer this, by an [`Event::Answered`].
    Ask {
        /// Number of the question.
        question: u64,
        /// What.
        ask: Ask,
    },
}

/// The task records, as the hub's driver has them.
pub enum Records {
    /// In its own hands.
    Inline(Box<dyn TaskStore>),
    /// With a thread of their own.
    Thread {
        /// The way there.
        jobs: Sender<Job>,
        /// What was sent there and is not committed.
        backlog: Backlog,
    },
}

impl Records {
    /// Has these jobs done. What there is to say comes by `answer`; what is committed at once, by `committed`.
    pub(super) fn hand_over(
        &mut self,
        jobs: Vec<Job>,
        mut answer: impl FnMut(Event),
        mut committed: impl FnMut(Queue, Ticket),
    ) {
        match self {
            Self::Thread { jobs: thread, backlog } => {
                let writes = jobs.iter().filter_map(|job| if let Job::Write(write) = job { Some(write) } else { None });
                let (mut changes, mut bytes) = (0, 0);
                for write in writes {
                    changes += 1;
                    bytes += write.size_bytes();
                }
                backlog.add(changes, bytes);
                thread.send_all(jobs.into_iter());
            }
            Self::Inline(store) => {
                let mut awaited = false;
                for job in jobs {
                    match job {
                        Job::Write(write) => {
                            awaited |= matches!(write, Write::Mark { .. });
                            store.write(write);
                        }
                        Job::Ask { question, ask } => answer(Event::Answered { question, answer: store.ask(&ask) }),
                    }
                }
                if awaited && let Ok(done) = store.commit() {
                    done.marks.into_iter().for_each(|(queue, ticket)| committed(queue, ticket));
                }
            }
        }
    }
}
