//! Engines that come and go.

use std::collections::VecDeque;

use futures::stream::{self, Stream};
use tokio::sync::watch;

use crate::outstanding::Engine;
use crate::run::EngineList;

/// A change of the list of engines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineChange {
    /// It can be used.
    Joined(Engine),
    /// It is no more: what it had to do by name has failed.
    Left(Engine),
}

/// What changes from one list to the next, those that left first.
fn differences(before: &EngineList, after: &EngineList) -> VecDeque<EngineChange> {
    let only = |list: &EngineList, other: &EngineList| -> Vec<Engine> {
        let missing = list.iter().filter(|(id, uuid)| other.get(id) != Some(uuid));
        missing.map(|(id, uuid)| Engine { id: Some(*id), uuid: uuid.clone() }).collect()
    };
    let left = only(before, after).into_iter().map(EngineChange::Left);
    left.chain(only(after, before).into_iter().map(EngineChange::Joined)).collect()
}

pub(crate) fn engine_changes(mut engines: watch::Receiver<EngineList>) -> impl Stream<Item = EngineChange> + Send {
    engines.mark_changed();
    stream::unfold((engines, EngineList::default(), VecDeque::new()), |(mut engines, mut known, mut due)| async move {
        loop {
            if let Some(change) = due.pop_front() {
                return Some((change, (engines, known, due)));
            }
            engines.changed().await.ok()?;
            let now = EngineList::clone(&engines.borrow_and_update());
            due = differences(&known, &now);
            known = now;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use remuda_proto::EngineId;

    #[test]
    fn an_id_that_another_engine_has_now_has_changed_hands() {
        let list = |engines: &[(u32, &str)]| {
            Arc::new(engines.iter().map(|(id, uuid)| (EngineId(*id), (*uuid).into())).collect()) as EngineList
        };
        let told: Vec<_> = differences(&list(&[(0, "a"), (1, "b")]), &list(&[(1, "c"), (0, "a"), (2, "d")])).into();
        let engine = |id, uuid: &str| Engine { id: Some(EngineId(id)), uuid: uuid.into() };
        let [left, one, two] = [engine(1, "b"), engine(1, "c"), engine(2, "d")];
        assert_eq!(told, [EngineChange::Left(left), EngineChange::Joined(one), EngineChange::Joined(two)]);
    }
}
