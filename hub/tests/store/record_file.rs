//! The database of a controller that has stopped, was killed, or runs, asked without one.

use std::fs;
use std::path::Path;

use remuda_hub::record_file::{RecordFile, Wrong, check};
use remuda_hub::store::{OpenError, SqliteConfig, SqliteStore};
use remuda_proto::monitor::Queue;
use rusqlite::Connection;
use serde_json::{Value, json};

use super::support::Shelf;

fn shelf(file: &Path) -> Shelf<SqliteStore> {
    Shelf::new(SqliteStore::open(&SqliteConfig::new(file)).unwrap())
}

fn read(file: &Path) -> RecordFile {
    RecordFile::open_read_only(&SqliteConfig::new(file), false).unwrap()
}

/// The ids that a request for records finds.
fn ids(file: &mut RecordFile, content: &Value) -> Vec<String> {
    let (reply, _) = file.answer(content).unwrap();
    reply["records"].as_array().unwrap().iter().map(|record| record["msg_id"].as_str().unwrap().to_owned()).collect()
}

/// What is in a folder, by name.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let mut all: Vec<_> =
        entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect();
    all.sort();
    all
}

#[test]
fn a_request_is_answered_as_by_a_hub_and_nothing_in_the_folder_changes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ta%sk s.db");
    let mut shelf = shelf(&file);
    for id in ["a", "b", "c"] {
        shelf.add(id, Queue::Task, None, &json!({"label": id}));
    }
    shelf.finish("a", &json!({"status": "ok"}));
    shelf.finish("b", &json!({"status": "error"}));
    drop(shelf);
    let before = contents(folder.path());
    assert_eq!(before.len(), 1, "a store that is closed leaves one file");
    let mut open = read(&file);
    assert_eq!(ids(&mut open, &json!({})), ["a", "b", "c"]);
    let newest = json!({"query": {"state": {"$in": ["error", "waiting"]}}, "remuda": {"limit": 1, "order": "submitted", "descending": true}});
    assert_eq!(ids(&mut open, &newest), ["c"]);
    let asked = json!({"query": {"label": "a"}, "keys": ["state", "result_buffers"], "remuda": {"sizes": true}});
    let (reply, buffers) = open.answer(&asked).unwrap();
    assert_eq!((&reply["records"][0]["state"], &reply["result_buffer_lens"]), (&json!("ok"), &json!([1])));
    assert_eq!(buffers[0].len(), 100_000);
    let with_buffers = &reply["records"][0]["remuda"];
    assert!(
        with_buffers["result_bytes"].as_u64().unwrap() > 100_000
            && with_buffers["request_bytes"].as_u64().unwrap() < 1_000
    );
    let (reply, _) = open.answer(&json!({"query": {"label": "a"}, "remuda": {"sizes": true}})).unwrap();
    assert!(
        reply["records"][0]["remuda"]["result_bytes"].as_u64().unwrap() > 100_000,
        "known without reading them: {reply}"
    );
    for (wrong, says) in [
        (json!([]), "not a map"),
        (json!({"query": {"nosuch": 1}}), "nosuch"),
        (json!({"remuda": {"order": "size"}}), "size"),
        (json!({"remuda": {"limit": -1}}), "-1"),
    ] {
        let error = open.answer(&wrong).unwrap_err();
        assert!(error.evalue.contains(says), "{wrong}: {error}");
    }
    drop(open);
    assert_eq!(contents(folder.path()), before);
}

#[test]
fn what_a_controller_that_runs_or_was_killed_has_committed_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks.db");
    let mut shelf = shelf(&file);
    shelf.add("a", Queue::Task, None, &json!({}));
    shelf.commit();
    let mut open = read(&file);
    assert_eq!(ids(&mut open, &json!({})), ["a"]);
    shelf.add("b", Queue::Task, None, &json!({}));
    assert_eq!(ids(&mut open, &json!({})), ["a"], "what is not committed is not there for others");
    shelf.commit();
    assert_eq!(ids(&mut open, &json!({})), ["a", "b"]);
    // The same files, without the process that had them open.
    let copy = tempfile::tempdir().unwrap();
    for (name, bytes) in contents(folder.path()).into_iter().filter(|(name, _)| !name.ends_with("-shm")) {
        fs::write(copy.path().join(name), bytes).unwrap();
    }
    assert_eq!(ids(&mut read(&copy.path().join("tasks.db")), &json!({})), ["a", "b"]);
}

#[test]
fn records_are_purged_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks.db");
    let mut before = shelf(&file);
    for id in ["a", "b", "c"] {
        before.add(id, Queue::Task, None, &json!({}));
    }
    drop(before);
    let config = SqliteConfig::new(&file);
    let mut open = RecordFile::open(&config, false).unwrap();
    open.purge(&["a".into(), "c".into(), "never".into()]).unwrap();
    assert_eq!(ids(&mut open, &json!({})), ["b"]);
    drop(open);
    assert_eq!(shelf(&file).history(), ["b"]);
    let error = read(&file).purge(&["b".into()]).unwrap_err();
    assert!(error.to_string().contains("readonly"), "{error}");
    assert_eq!(shelf(&file).history(), ["b"]);
}

#[test]
fn what_is_no_database_of_ours_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str, table: Option<&str>| {
        let mut config = SqliteConfig::new(folder.path().join(name));
        config.table = table.map_or(config.table, str::to_owned);
        RecordFile::open_read_only(&config, table.is_some()).map(drop)
    };
    assert!(matches!(open("none.db", None), Err(OpenError::Missing { .. })));
    assert!(matches!(open(".", None), Err(OpenError::Missing { .. })));
    fs::write(folder.path().join("garbage.db"), vec![7; 5_000]).unwrap();
    assert!(matches!(open("garbage.db", None), Err(OpenError::Damaged { .. })));
    let other = Connection::open(folder.path().join("other.db")).unwrap();
    other.execute_batch("CREATE TABLE \"ipython-tasks\" (x)").unwrap();
    drop(other);
    assert!(matches!(open("other.db", None), Err(OpenError::NoTable { tables, .. }) if tables.is_empty()));
    for (version, name) in [(1, "old.db"), (99, "new.db")] {
        drop(shelf(&folder.path().join(name)));
        let connection = Connection::open(folder.path().join(name)).unwrap();
        connection.pragma_update(None, "user_version", version).unwrap();
    }
    assert!(matches!(open("old.db", None), Err(OpenError::Older { found: 1, .. })));
    assert!(matches!(open("new.db", None), Err(OpenError::Newer { found: 99, .. })));
    // A table that nobody named is found if there is one; of several one has to be named.
    for table in ["mine", "yours"] {
        let config = SqliteConfig { table: table.to_owned(), ..SqliteConfig::new(folder.path().join("named.db")) };
        drop(SqliteStore::open(&config).unwrap());
        assert!(open("named.db", Some(table)).is_ok());
        assert_eq!(open("named.db", None).is_ok(), table == "mine");
    }
    let error = open("named.db", Some("theirs")).unwrap_err().to_string();
    assert!(error.contains("`theirs`") && error.contains("`mine`, `yours`"), "{error}");
    assert!(!folder.path().join("none.db").exists());
    assert_eq!(fs::read(folder.path().join("garbage.db")).unwrap(), vec![7; 5_000]);
}

#[test]
fn what_is_wrong_with_a_query_is_told_by_kind() {
    let fields = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
    assert_eq!(check(&json!({"state": "ok"}), &fields(&["state", "msg_id"])), Ok(()));
    assert_eq!(check(&json!({"msg_id": {"$no": 1}}), &[]), Err(Wrong::Operator("$no".to_owned())));
    assert_eq!(check(&json!({"no": 1}), &[]), Err(Wrong::Fields(fields(&["no"]))));
    assert_eq!(check(&json!({}), &fields(&["a", "msg_id", "b"])), Err(Wrong::Fields(fields(&["a", "b"]))));
    assert!(matches!(check(&json!({"label": {"$mod": [0, 0]}}), &[]), Err(Wrong::Value(_))));
}
