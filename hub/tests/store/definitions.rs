//! Process definitions: the same questions to each store have the same answers, and a database keeps what was answered.

use std::path::Path;

use remuda_hub::Limits;
use remuda_hub::store::{
    Answer, Ask, DefinitionAnswer, DefinitionAsk, DefinitionRefusal, Given, MAX_DEFINITION_BYTES, MAX_DEFINITIONS,
    MAX_DEFINITIONS_BYTES, MemoryStore, NoStore, SqliteConfig, SqliteStore, StoreError, TaskStore,
};
use remuda_proto::Date;
use remuda_proto::message::definition::{DefinitionRecord, Which};
use remuda_proto::monitor::Queue;
use rusqlite::Connection;
use serde_json::{Value, json};

use super::support::Shelf;

fn given(definition: Value) -> Given {
    let Value::Object(definition) = definition else { panic!("{definition}") };
    let name = definition.get("name").map(|name| name.as_str().unwrap().to_owned());
    Given { name, text: Value::Object(definition.clone()).to_string(), definition }
}

fn create(definition: Value) -> DefinitionAsk {
    DefinitionAsk::Create { given: given(definition), date: Date(1) }
}

fn update(which: impl Into<Which>, definition: Value, expected: Option<Value>) -> DefinitionAsk {
    let expected = expected.map(|expected| expected.as_object().unwrap().clone());
    DefinitionAsk::Update { which: which.into(), given: given(definition), expected, date: Date(2) }
}

fn list(limit: u64, offset: u64) -> DefinitionAsk {
    DefinitionAsk::List { limit, offset }
}

fn tell(store: &mut impl TaskStore, ask: DefinitionAsk) -> Result<DefinitionAnswer, StoreError> {
    let answer = store.ask(&Ask::Definitions(ask));
    store.check();
    answer.map(|answer| match answer {
        Answer::Definitions(answer) => answer,
        other => panic!("{other:?}"),
    })
}

fn one(store: &mut impl TaskStore, ask: DefinitionAsk) -> DefinitionRecord {
    match tell(store, ask).unwrap() {
        DefinitionAnswer::One(record) => record,
        other => panic!("{other:?}"),
    }
}

fn refused(store: &mut impl TaskStore, ask: DefinitionAsk) -> DefinitionRefusal {
    match tell(store, ask).unwrap() {
        DefinitionAnswer::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

/// The ids that a list has, and how many there are in all.
fn ids(store: &mut impl TaskStore, limit: u64, offset: u64) -> (Vec<u64>, u64) {
    match tell(store, list(limit, offset)).unwrap() {
        DefinitionAnswer::List { definitions, total } => {
            (definitions.iter().map(|definition| definition.id).collect(), total)
        }
        other => panic!("{other:?}"),
    }
}

fn definitions_are_kept_found_changed_and_deleted<S: TaskStore>(mut store: S) {
    assert_eq!(ids(&mut store, 5, 0), (vec![], 0));
    let plain = json!({"timeout": 5.0, "exec": "tr", "argv": ["-d", "x"]});
    let named = json!({"exec": "xz", "name": "xz"});
    let first = one(&mut store, create(plain.clone()));
    assert_eq!((first.id, first.created, first.updated), (1, Date(1), Date(1)));
    assert_eq!(Value::Object(first.definition.clone()).to_string(), plain.to_string(), "as it was given");
    let second = one(&mut store, create(named.clone()));
    assert_eq!(one(&mut store, DefinitionAsk::Get("xz".into())), second);
    assert_eq!(one(&mut store, DefinitionAsk::Get(1.into())), first);
    one(&mut store, create(plain.clone()));
    assert_eq!(ids(&mut store, 2, 0), (vec![1, 2], 3));
    assert_eq!(ids(&mut store, 2, 2), (vec![3], 3));
    assert_eq!(ids(&mut store, 0, 0), (vec![], 3));
    assert_eq!(ids(&mut store, u64::MAX, u64::MAX), (vec![], 3));

    let taken = DefinitionRefusal::NameTaken { name: "xz".into(), id: 2 };
    assert_eq!(refused(&mut store, create(named.clone())), taken);
    assert_eq!(refused(&mut store, update(1, named.clone(), None)), taken);
    for which in [Which::from(9), Which::from(u64::MAX), "9x".into()] {
        let missing = DefinitionRefusal::NotFound(which.clone());
        assert_eq!(refused(&mut store, DefinitionAsk::Get(which.clone())), missing);
        assert_eq!(refused(&mut store, DefinitionAsk::Delete(which.clone())), missing);
        assert_eq!(refused(&mut store, update(0, plain.clone(), None)), DefinitionRefusal::NotFound(Which::Id(0)));
    }

    let renamed = json!({"exec": "xz", "name": "pack"});
    assert_eq!(refused(&mut store, update("xz", renamed.clone(), Some(plain))), DefinitionRefusal::Changed(2));
    let changed = one(&mut store, update("xz", renamed.clone(), Some(named.clone())));
    assert_eq!((changed.id, changed.created, changed.updated), (2, Date(1), Date(2)));
    assert_eq!(one(&mut store, update(2, renamed, None)).id, 2, "it may keep its name");
    assert_eq!(one(&mut store, DefinitionAsk::Delete("pack".into())).id, 2);
    assert_eq!(one(&mut store, create(named)).id, 4, "no id is given twice");
    assert_eq!(ids(&mut store, 9, 0), (vec![1, 3, 4], 3));
}

fn there_is_room_for_so_many<S: TaskStore>(mut store: S) {
    let large = json!({"exec": "x".repeat(MAX_DEFINITION_BYTES - 11)});
    let most = MAX_DEFINITIONS_BYTES / MAX_DEFINITION_BYTES as u64;
    assert!(most < MAX_DEFINITIONS);
    for _ in 0..most {
        one(&mut store, create(large.clone()));
    }
    assert_eq!(refused(&mut store, create(json!({"exec": "tr"}))), DefinitionRefusal::Full);
    one(&mut store, update(1, json!({"exec": "tr"}), None));
    one(&mut store, create(json!({"exec": "tr"})));
    assert_eq!(refused(&mut store, update(1, large, None)), DefinitionRefusal::Full);
}

#[test]
fn every_store_keeps_definitions() {
    let folder = tempfile::tempdir().unwrap();
    definitions_are_kept_found_changed_and_deleted(MemoryStore::new(Limits::default()));
    definitions_are_kept_found_changed_and_deleted(NoStore::default());
    definitions_are_kept_found_changed_and_deleted(open(&folder.path().join("tasks.db")));
}

#[test]
fn every_store_has_room_for_so_many() {
    let folder = tempfile::tempdir().unwrap();
    there_is_room_for_so_many(MemoryStore::new(Limits::default()));
    there_is_room_for_so_many(open(&folder.path().join("tasks.db")));
}

fn open(file: &Path) -> SqliteStore {
    SqliteStore::open(&SqliteConfig::new(file)).unwrap()
}

/// The files as they are at this moment, as another controller finds them.
fn crashed(file: &Path) -> SqliteStore {
    let other = file.with_file_name("crashed.db");
    for ending in ["", "-wal"] {
        let name = |path: &Path| format!("{}{ending}", path.display());
        std::fs::copy(name(file), name(&other)).unwrap();
    }
    open(&other)
}

#[test]
fn what_was_answered_outlives_a_crash_and_costs_no_record() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks.db");
    let mut shelf = Shelf::new(open(&file));
    shelf.add("a", Queue::Task, None, &json!({}));
    // A question brings what was written into a transaction that stays open.
    assert_eq!(shelf.history(), ["a"]);
    one(&mut shelf.store, create(json!({"exec": "tr", "name": "tr"})));
    let mut other = crashed(&file);
    assert_eq!(one(&mut other, DefinitionAsk::Get("tr".into())).id, 1);
    assert_eq!(shelf.history(), ["a"]);
    shelf.commit();
    assert_eq!(shelf.history(), ["a"]);
    drop(shelf);
    assert_eq!(Shelf::new(open(&file)).history(), ["a"]);
}

#[test]
fn a_locked_database_refuses_a_change_and_answers_questions() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks.db");
    let mut store = open(&file);
    one(&mut store, create(json!({"exec": "tr"})));
    let other = Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let locked = StoreError::Failed("database is locked".to_owned());
    assert_eq!(tell(&mut store, create(json!({"exec": "tr"}))), Err(locked));
    assert_eq!(ids(&mut store, 9, 0), (vec![1], 1));
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(one(&mut store, create(json!({"exec": "tr"}))).id, 2);
}

#[test]
fn a_database_of_schema_3_gets_the_table_and_keeps_its_records() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks.db");
    let mut shelf = Shelf::new(open(&file));
    shelf.add("a", Queue::Task, None, &json!({}));
    shelf.commit();
    drop(shelf);
    Connection::open(&file).unwrap().execute_batch("DROP TABLE process_definitions; PRAGMA user_version = 3").unwrap();
    let mut shelf = Shelf::new(open(&file));
    assert_eq!(shelf.history(), ["a"]);
    assert_eq!(one(&mut shelf.store, create(json!({"exec": "tr"}))).id, 1);
}
