//! A controller that dies at any moment: what its files hold then is what was committed last, no more and no less.

use std::fs;
use std::path::Path;

use remuda_hub::Limits;
use remuda_hub::find::Query;
use remuda_hub::record::OutputPiece;
use remuda_hub::store::{Ask, MemoryStore, SqliteConfig, SqliteStore, TaskStore, Write};
use remuda_proto::monitor::Queue;
use serde_json::json;

use super::support::{Script, Shelf, Told, told};

fn all(shelf: &mut Shelf<impl TaskStore>) -> Vec<Told> {
    shelf.all().into_iter().map(told).collect()
}

/// The files as they are at this moment, as another controller finds them. `torn`: the last bytes of the log are missing.
fn crashed(from: &Path, to: &Path, torn: u64) -> Shelf<SqliteStore> {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    for name in ["tasks.db", "tasks.db-wal"] {
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
    let log = to.join("tasks.db-wal");
    if torn > 0 && log.exists() {
        let log = fs::OpenOptions::new().write(true).open(log).unwrap();
        let length = log.metadata().unwrap().len();
        log.set_len(length.saturating_sub(torn)).unwrap();
    }
    Shelf::new(SqliteStore::open(&SqliteConfig::new(to.join("tasks.db"))).unwrap())
}

/// What happens to some tasks, in an order in which everything happens before and after a commit.
fn script() -> Vec<Option<Write>> {
    let mut steps = Vec::new();
    let mut shelf = Shelf::new(Script::default());
    for (round, id) in ["a", "b", "c", "d"].into_iter().enumerate() {
        shelf.add(id, Queue::Task, None, &json!({"label": id}));
        shelf.assign(id, "e", 2);
        if round == 1 {
            shelf.requeue(id, 1);
            shelf.assign(id, "f", 1);
        }
        shelf.write(Write::Output { msg_id: id.into(), piece: OutputPiece::Stdout("text".into()) });
        if round != 2 {
            shelf.finish(id, &json!({"status": if round == 0 { "ok" } else { "error" }}));
        }
        if round == 3 {
            shelf.write(Write::Resubmit { msg_id: "a".into(), again: "a2".into() });
            shelf.write(Write::Purge(Query::tasks(&["b".into()])));
        }
    }
    for (at, write) in std::mem::take(&mut shelf.store.0).into_iter().enumerate() {
        steps.push(Some(write));
        if at % 3 == 2 {
            steps.push(None);
        }
    }
    steps.push(None);
    steps
}

#[test]
fn a_crash_at_any_step_leaves_what_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    let (live, dead) = (folder.path().join("live"), folder.path().join("dead"));
    fs::create_dir(&live).unwrap();
    let mut store = SqliteStore::open(&SqliteConfig::new(live.join("tasks.db"))).unwrap();
    let mut model = MemoryStore::new(Limits::default());
    let mut committed = vec![Vec::new()];
    for (number, step) in script().into_iter().enumerate() {
        if let Some(write) = step {
            model.write(write.clone());
            store.write(write);
            // A question in between brings it into the transaction, which changes nothing about that.
            if number % 4 == 1 {
                store.ask(&Ask::History).unwrap();
            }
        } else {
            store.commit().unwrap();
            committed.push(all(&mut Shelf::new(model.clone())));
        }
        let found = all(&mut crashed(&live, &dead, 0));
        assert_eq!(&found, committed.last().unwrap(), "after step {number}");
        // A log that is cut anywhere is what it was at some earlier commit.
        for torn in [1, 24, 4_096, 10_000] {
            let found = all(&mut crashed(&live, &dead, torn));
            assert!(committed.contains(&found), "after step {number}, less {torn} bytes: {found:?}");
        }
    }
    assert!(committed.len() > 6, "{} commits", committed.len());
}
