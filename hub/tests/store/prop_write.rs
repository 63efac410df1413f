//! Whatever is written, and whenever it is committed: a database holds what memory holds.

use proptest::prelude::*;
use remuda_hub::Limits;
use remuda_hub::find::Query;
use remuda_hub::record::OutputPiece;
use remuda_hub::store::{MemoryStore, SqliteConfig, SqliteStore, Write};
use remuda_proto::monitor::Queue;
use serde_json::json;

use super::support::{Script, Shelf, told};

/// What happens to one of a few tasks, in any order, whether it makes sense or not.
#[derive(Clone, Debug)]
enum Step {
    Add(&'static str),
    Assign(&'static str, u32),
    Requeue(&'static str, u32),
    Finish(&'static str, bool),
    Delivered(&'static str),
    Output(&'static str),
    Resubmit(&'static str),
    Purge(&'static str),
    Commit,
}

fn step() -> impl Strategy<Value = Step> {
    let id = || prop::sample::select(vec!["a", "b", "c"]);
    prop_oneof![
        4 => id().prop_map(Step::Add),
        4 => (id(), 0..3_u32).prop_map(|(id, retries)| Step::Assign(id, retries)),
        2 => (id(), 0..3_u32).prop_map(|(id, retries)| Step::Requeue(id, retries)),
        4 => (id(), any::<bool>()).prop_map(|(id, ok)| Step::Finish(id, ok)),
        3 => id().prop_map(Step::Delivered),
        1 => id().prop_map(Step::Output),
        1 => id().prop_map(Step::Resubmit),
        1 => id().prop_map(Step::Purge),
        4 => Just(Step::Commit),
    ]
}

fn write(step: &Step, number: usize) -> Option<Write> {
    let mut script = Shelf::new(Script::default());
    match *step {
        Step::Add(id) => script.add(id, Queue::Task, None, &json!({"label": id})),
        Step::Assign(id, retries) => script.assign(id, &format!("e{number}"), retries),
        Step::Requeue(id, retries) => script.requeue(id, retries),
        Step::Finish(id, ok) => script.finish(id, &json!({"status": if ok { "ok" } else { "error" }, "n": number})),
        Step::Delivered(id) => script.write(Write::Delivered { msg_id: id.into() }),
        Step::Output(id) => {
            script.write(Write::Output { msg_id: id.into(), piece: OutputPiece::Stdout(format!("{number};")) });
        }
        Step::Resubmit(id) => {
            script.write(Write::Resubmit { msg_id: id.into(), again: format!("again-{number}").as_str().into() });
        }
        Step::Purge(id) => script.write(Write::Purge(Query::read(&json!({"msg_id": id})).unwrap())),
        Step::Commit => return None,
    }
    script.store.0.pop()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_database_hold_the_same(steps in proptest::collection::vec(step(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteConfig::new(folder.path().join("tasks.db"));
        let mut memory = Shelf::new(MemoryStore::new(Limits::default()));
        let mut database = Shelf::new(SqliteStore::open(&file).unwrap());
        for (number, step) in steps.iter().enumerate() {
            match write(step, number) {
                Some(write) => {
                    memory.write(write.clone());
                    database.write(write);
                }
                None => database.commit(),
            }
        }
        let held: Vec<_> = memory.all().into_iter().map(told).collect();
        let stored: Vec<_> = database.all().into_iter().map(told).collect();
        prop_assert_eq!(&held, &stored);
        drop(database);
        let mut again = Shelf::new(SqliteStore::open(&file).unwrap());
        let stored: Vec<_> = again.all().into_iter().map(told).collect();
        prop_assert_eq!(&held, &stored, "and after a restart");
    }
}
