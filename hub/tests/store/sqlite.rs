//! What only a database does: it is there again after a restart, or says why it cannot be.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use remuda_hub::store::{BATCH_CHANGES, SqliteConfig, SqliteStore, StoreError, TaskStore, Write};
use remuda_proto::monitor::{Queue, Ticket};
use rusqlite::Connection;
use serde_json::json;

use super::support::Shelf;

fn open(file: &Path) -> Shelf<SqliteStore> {
    Shelf::new(SqliteStore::open(&SqliteConfig::new(file)).unwrap())
}

/// How many records another process sees.
fn seen(file: &Path) -> i64 {
    let connection = Connection::open(file).unwrap();
    connection.query_row("SELECT count(*) FROM \"ipython-tasks\"", [], |row| row.get(0)).unwrap()
}

#[test]
fn records_are_there_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks.db");
    let mut shelf = open(&file);
    shelf.add("a", Queue::Task, None, &json!({"label": "x"}));
    shelf.add("b", Queue::Task, None, &json!({}));
    shelf.finish("a", &json!({"status": "ok"}));
    drop(shelf);
    let mut shelf = open(&file);
    assert_eq!(shelf.history(), ["a", "b"]);
    assert_eq!(shelf.found(&json!({"label": "x", "completed": {"$ne": null}})), ["a"]);
    shelf.finish("b", &json!({"status": "ok"}));
    assert_eq!(shelf.found(&json!({"completed": null})), Vec::<String>::new());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_question_sees_what_is_not_committed_and_another_process_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks.db");
    let mut shelf = open(&file);
    shelf.add("a", Queue::Task, None, &json!({}));
    assert_eq!(shelf.history(), ["a"]);
    assert_eq!((seen(&file), shelf.store.pending()), (0, 1));
    shelf.commit();
    assert_eq!((seen(&file), shelf.store.pending()), (1, 0));
}

#[test]
fn much_is_committed_in_several_transactions() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder.path().join("tasks.db")).store;
    for _ in 0..=BATCH_CHANGES {
        store.write(Write::Assign { msg_id: "a".into(), engine: "e".into(), retries: 0 });
    }
    store.write(Write::Mark { queue: Queue::Task, ticket: Ticket(1) });
    let first = store.commit().unwrap();
    assert_eq!((first.changes, first.marks.is_empty(), store.pending()), (BATCH_CHANGES, true, 2));
    let second = store.commit().unwrap();
    assert_eq!((second.changes, second.marks.is_empty(), store.pending()), (2, false, 0));
}

#[test]
fn tables_of_a_stock_controller_and_of_others_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks.db");
    let stock = Connection::open(&file).unwrap();
    stock
        .execute_batch("CREATE TABLE 'ipython-tasks' (msg_id text); INSERT INTO 'ipython-tasks' VALUES ('old')")
        .unwrap();
    for _ in 0..2 {
        let mut shelf = open(&file);
        shelf.add("a", Queue::Task, None, &json!({}));
        assert_eq!(shelf.history(), ["a"]);
    }
    let other = SqliteConfig { table: "o\"ther".to_owned(), ..SqliteConfig::new(&file) };
    assert_eq!(Shelf::new(SqliteStore::open(&other).unwrap()).history(), Vec::<String>::new());
    assert_eq!(seen(&file), 1, "stock's record");
    let names: Vec<String> = stock
        .prepare("SELECT name FROM remuda_tables ORDER BY name")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(names, ["ipython-tasks_1", "o\"ther"]);
}

#[test]
fn a_database_that_cannot_be_used_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let newer = folder.path().join("newer.db");
    drop(open(&newer));
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let damaged = folder.path().join("damaged.db");
    fs::write(
        &damaged,
        "no database at all, but long enough to have a header of one hundred bytes, or so it seems to be",
    )
    .unwrap();
    let nowhere = folder.path().join("missing").join("tasks.db");
    for (file, said) in [
        (&newer, "has schema 7, and this version knows up to 4: use the version of remuda that wrote it"),
        (&damaged, "is no task database, or is damaged"),
        (&nowhere, "its folder has to exist and be writable"),
    ] {
        let error = SqliteStore::open(&SqliteConfig::new(file)).unwrap_err().to_string();
        assert!(error.contains(said) && error.contains(&file.display().to_string()), "{error}");
    }
}

#[test]
fn what_the_database_refuses_is_told_and_all_else_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks.db");
    let mut shelf = open(&file);
    shelf.add("a", Queue::Task, None, &json!({}));
    shelf.commit();
    let breaks = "CREATE TRIGGER breaks BEFORE INSERT ON \"ipython-tasks\" WHEN new.msg_id = 'b' \
                  BEGIN SELECT RAISE(FAIL, 'no room'); END";
    Connection::open(&file).unwrap().execute_batch(breaks).unwrap();
    for id in ["b", "c"] {
        shelf.add(id, Queue::Task, None, &json!({}));
    }
    assert_eq!(shelf.store.commit().unwrap().refused, [StoreError::Failed("no room".to_owned())]);
    shelf.store.check();
    shelf.add("d", Queue::Task, None, &json!({}));
    assert_eq!(shelf.history(), ["a", "c", "d"], "only what it refused is lost");
    shelf.commit();
}
