//! Tasks that are begun when others end, without the machine: what they take is what those give back.

use std::collections::VecDeque;

use remuda_proto::MsgId;
use remuda_proto::message::native::StopReason;
use remuda_proto::message::needs::Needs;

use super::running::Running;

/// Most tasks that are lined up.
pub(super) const MAX_LINED_UP: usize = 64;

/// A task that is lined up, as far as is known here.
pub(super) struct Lined {
    pub(super) running: Running,
    /// It was asked to end, and is being taken back. If it was begun in time, it is stopped, or goes on.
    pub(super) withdrawn: Option<Withdrawn>,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Withdrawn {
    /// Stop it, if it has begun.
    pub(super) stop: Option<StopReason>,
}

/// The line. All in it take the same, and so does all that runs beside it.
#[derive(Default)]
pub(super) struct Line {
    tasks: VecDeque<Lined>,
    /// How many were asked to begin beside what runs, and are not known to have: what each takes is taken.
    starting: usize,
    /// What each of them takes. Only while there are some, or `starting`.
    needs: Option<Needs>,
}

impl Line {
    pub(super) fn push(&mut self, running: Running) {
        assert!(self.needs.get_or_insert_with(|| running.needs.clone()) == &running.needs, "all take the same");
        self.tasks.push_back(Lined { running, withdrawn: None });
    }

    /// What each takes, if there are some.
    pub(super) fn needs(&self) -> Option<&Needs> {
        self.needs.as_ref()
    }

    /// Whether one is there that was not asked to begin.
    pub(super) fn waits(&self) -> bool {
        self.tasks.len() > self.starting
    }

    /// One is asked to begin.
    pub(super) fn start(&mut self) {
        self.starting += 1;
    }

    /// One that was asked to begin has, or none was left. What it has taken.
    pub(super) fn started(&mut self) -> Needs {
        self.starting -= 1;
        let needs = self.needs.clone().unwrap_or_else(|| panic!("nothing was asked to begin"));
        self.settle();
        needs
    }

    /// One has begun, or was taken back.
    pub(super) fn take(&mut self, msg_id: &MsgId) -> Lined {
        let at = self.position(msg_id).unwrap_or_else(|| panic!("`{msg_id}` was not lined up"));
        let lined = self.tasks.remove(at).unwrap_or_else(|| unreachable!("it is there"));
        self.settle();
        lined
    }

    fn settle(&mut self) {
        if self.tasks.is_empty() && self.starting == 0 {
            self.needs = None;
        }
    }

    /// Notes that a task is to be taken back. Returns whether it is to be asked for: it was not before.
    pub(super) fn withdraw(&mut self, msg_id: &MsgId, stop: Option<StopReason>) -> bool {
        let Some(at) = self.position(msg_id) else { return false };
        let before = self.tasks[at].withdrawn;
        self.tasks[at].withdrawn = Some(Withdrawn { stop: before.and_then(|before| before.stop).or(stop) });
        before.is_none()
    }

    fn position(&self, msg_id: &MsgId) -> Option<usize> {
        self.tasks.iter().position(|lined| lined.running.request.msg_id == *msg_id)
    }

    pub(super) fn has(&self, msg_id: &MsgId) -> bool {
        self.position(msg_id).is_some()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &MsgId> {
        self.tasks.iter().map(|lined| &lined.running.request.msg_id)
    }

    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether none is there, nor asked to begin.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.starting == 0
    }

    /// How many of what each takes are taken for those that were asked to begin.
    pub(super) fn starting(&self) -> usize {
        self.starting
    }

    pub(super) fn check(&self) {
        assert!(self.tasks.len() <= MAX_LINED_UP, "{} tasks are lined up", self.tasks.len());
        let any = !self.tasks.is_empty() || self.starting > 0;
        assert_eq!(self.needs.is_some(), any, "what they take is known as long as there are some");
        assert!(self.tasks.iter().all(|lined| Some(&lined.running.needs) == self.needs()), "all take the same");
    }
}
