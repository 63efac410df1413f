//! A database that fails: real failures of the real one, as far as a test can cause them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use remuda_proto::monitor::{Queue, Ticket};
use remuda_proto::{Body, BodyBuilder, Date, Identity, Instant, MsgId, Packer, Status};
use rusqlite::Connection;
use serde_json::json;

use super::{Keep, SqliteConfig, SqliteStore};
use crate::find::Query;
use crate::record::{Outcome, TaskRecord};
use crate::store::{Answer, Ask, Buffers, Find, StoreError, TaskStore, Write};

fn body(header: &str, buffer: usize) -> Body {
    let mut builder = BodyBuilder::default();
    for part in ["", header, "{}", "{\"status\": \"ok\"}", "{}"] {
        builder.push(part.as_bytes());
    }
    builder.push(&vec![7; buffer]);
    builder.finish().unwrap()
}

fn add(store: &mut SqliteStore, number: usize, bytes: usize) {
    let id = MsgId::from(format!("m{number}"));
    let header = format!("{{\"msg_id\": \"{id}\", \"session\": \"client\"}}");
    let mut record = TaskRecord::new(id, Packer::Json, Queue::Task, body(&header, bytes), Date(1));
    record.reply_to = Some(Identity::from(&b"c"[..]));
    store.write(Write::Add(Box::new(record)));
}

fn finish(store: &mut SqliteStore, number: usize, received: i64) {
    let outcome = Outcome { packer: Packer::Json, body: body("{}", 10), received: Date(received), status: Status::Ok };
    store.write(Write::Finish { msg_id: format!("m{number}").into(), outcome });
}

fn count(store: &mut SqliteStore) -> Result<usize, StoreError> {
    match store.ask(&Ask::Find(Find::all(Query::everything(), Buffers::default())))? {
        Answer::Records(records) => Ok(records.len()),
        other => panic!("{other:?}"),
    }
}

fn open(file: &Path) -> SqliteStore {
    SqliteStore::open(&SqliteConfig::new(file)).unwrap()
}

#[test]
fn with_a_full_disk_everything_waits_in_memory_and_is_committed_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks.db");
    let mut store = open(&file);
    add(&mut store, 0, 10);
    store.commit().unwrap();
    let pages: i64 = store.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    store.connection.pragma_update(None, "max_page_count", pages + 4).unwrap();
    for number in 1..20 {
        add(&mut store, number, 10_000);
    }
    store.write(Write::Mark { queue: Queue::Task, ticket: Ticket(5) });
    for _ in 0..3 {
        assert_eq!(store.commit().unwrap_err(), StoreError::Failed("database or disk is full".to_owned()));
        store.check();
        assert_eq!(store.pending(), 20);
        count(&mut store).unwrap_err();
    }
    store.connection.pragma_update(None, "max_page_count", 1_000_000).unwrap();
    let committed = store.commit().unwrap();
    assert_eq!((committed.changes, committed.refused.len()), (20, 0));
    assert_eq!(committed.marks.into_iter().collect::<Vec<_>>(), [(Queue::Task, Ticket(5))]);
    assert_eq!(count(&mut store), Ok(20));
    drop(store);
    assert_eq!(count(&mut open(&file)), Ok(20));
}

#[test]
fn while_another_process_holds_the_lock_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks.db");
    let mut store = open(&file);
    store.connection.busy_timeout(Duration::from_millis(1)).unwrap();
    let other = Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    add(&mut store, 1, 10);
    assert_eq!(store.commit().unwrap_err(), StoreError::Failed("database is locked".to_owned()));
    store.check();
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.commit().unwrap().changes, 1);
    assert_eq!(count(&mut store), Ok(1));
}

#[test]
fn what_waits_when_the_controller_ends_is_committed_or_given_up_on_purpose() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks.db");
    let mut store = open(&file);
    add(&mut store, 1, 10);
    drop(store);
    let mut store = open(&file);
    assert_eq!(count(&mut store), Ok(1));
    add(&mut store, 2, 10);
    store.give_up();
    store.check();
    drop(store);
    assert_eq!(count(&mut open(&file)), Ok(1));
}

/// Whatever is done to the file: it opens and answers, or says what is wrong with it and leaves it as it is.
#[test]
fn a_damaged_file_is_opened_or_refused_and_never_changed_by_that() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks.db");
    let mut store = open(&file);
    for number in 0..60 {
        add(&mut store, number, 500);
        if number % 2 == 0 {
            finish(&mut store, number, 7);
        }
    }
    store.commit().unwrap();
    drop(store);
    let whole = fs::read(&file).unwrap();
    // The numbers of a generator that everybody knows: no dice in tests.
    let mut seed = 88_172_645_463_325_252_u64;
    let mut random = move |most: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % most as u64).unwrap()
    };
    let (mut opened, mut refused) = (0, 0);
    for round in 0..400 {
        let mut bytes = whole.clone();
        if round < 200 {
            bytes.truncate(random(whole.len()));
        } else {
            (0..=random(30)).for_each(|_| bytes[random(whole.len())] = u8::try_from(random(256)).unwrap());
        }
        let damaged = folder.path().join(format!("damaged-{round}.db"));
        fs::write(&damaged, &bytes).unwrap();
        match SqliteStore::open(&SqliteConfig::new(&damaged)) {
            Err(error) => {
                refused += 1;
                let said = error.to_string();
                assert!(said.contains(&damaged.display().to_string()), "{said}");
                assert_eq!(fs::read(&damaged).unwrap(), bytes, "round {round}: {said}");
            }
            Ok(mut store) => {
                opened += 1;
                // An answer or an error; and what is new is not lost to what is old.
                let _ = (store.unfinished(), store.finished(100), count(&mut store), store.ask(&Ask::History));
                add(&mut store, 1_000, 10);
                let _ = store.commit();
                let _ = store.tidy(Instant(1), Date(2));
                store.check();
                store.give_up();
            }
        }
        for ending in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(folder.path().join(format!("damaged-{round}.db{ending}")));
        }
    }
    assert!(opened > 20 && refused > 20, "{opened} opened, {refused} refused");
}

#[test]
fn a_file_of_schema_1_has_all_its_records_and_their_states() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks.db");
    // As a controller with schema 1 left it.
    Connection::open(&file).unwrap().execute_batch(include_str!("schema-1.sql")).unwrap();
    let mut store = open(&file);
    let states = |store: &mut SqliteStore| {
        let find = Find::all(Query::everything(), Buffers { requests: true, results: true });
        let Ok(Answer::Records(records)) = store.ask(&Ask::Find(find)) else { panic!("they cannot be read") };
        let told = records.iter().map(|record| {
            assert_eq!(record.request.buffer_count(), 1);
            assert!(record.reply_to.is_none() || record.msg_id.as_str() == "m1");
            assert!(record.submitted().is_none_or(|submitted| submitted == record.arrived));
            format!("{} {}", record.msg_id, record.state().name())
        });
        told.collect::<Vec<_>>()
    };
    assert_eq!(states(&mut store), ["done ok", "failed error", "stopped aborted", "open lost"]);
    assert_eq!(store.unfinished().unwrap(), [], "nobody knows any more who wanted it");
    let finished: Vec<_> = store.finished(2).unwrap().into_iter().map(|task| (task.msg_id, task.ok)).collect();
    assert_eq!(finished, [("failed".into(), false), ("stopped".into(), false)]);
    add(&mut store, 1, 10);
    store.commit().unwrap();
    drop(store);
    assert_eq!(states(&mut open(&file))[4], "m1 waiting", "and it goes on with the new schema");
}

#[test]
fn a_file_of_schema_2_still_says_who_is_owed_a_reply() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks.db");
    Connection::open(&file).unwrap().execute_batch(include_str!("schema-2.sql")).unwrap();
    let mut store = open(&file);
    let owed = |records: Vec<TaskRecord>| {
        let owed = records.into_iter().map(|record| (record.msg_id.to_string(), record.reply_to));
        owed.collect::<Vec<_>>()
    };
    let client = Some(Identity::from(&b"\0\xffc"[..]));
    assert_eq!(owed(store.unfinished().unwrap()), [("runs".to_owned(), client.clone())]);
    assert_eq!(owed(store.undelivered(9).unwrap()), [("ended".to_owned(), client.clone())]);
    let find = Find::all(Query::everything(), Buffers::default());
    let Ok(Answer::Records(records)) = store.ask(&Ask::Find(find)) else { panic!("they cannot be read") };
    let states: Vec<_> = records.iter().map(|record| record.state().name()).collect();
    assert_eq!(states, ["ok", "ok", "running", "lost"]);
    store.write(Write::Delivered { msg_id: "ended".into() });
    store.commit().unwrap();
    drop(store);
    let mut store = open(&file);
    assert_eq!(owed(store.undelivered(9).unwrap()), []);
    assert_eq!(owed(store.unfinished().unwrap()), [("runs".to_owned(), client)], "the others are still owed theirs");
}

#[test]
fn a_record_that_goes_takes_with_it_what_is_owed() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&folder.path().join("tasks.db"));
    for number in 0..3 {
        add(&mut store, number, 10);
    }
    store.commit().unwrap();
    let owed = |store: &SqliteStore| {
        let sql = format!("SELECT count(*) FROM {}", store.statements.owed);
        store.connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(owed(&store), 3);
    store.write(Write::Purge(Query::read(&json!({"msg_id": "m1"})).unwrap()));
    store.commit().unwrap();
    assert_eq!(owed(&store), 2);
    store.abandon().unwrap();
    assert_eq!(owed(&store), 0, "nobody waits for what is lost");
}

#[test]
fn what_has_no_reply_is_taken_over_or_lost() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks.db");
    let mut store = open(&file);
    (0..4).for_each(|number| add(&mut store, number, 10));
    let assign = |engine: &str| Write::Assign { msg_id: "m1".into(), engine: engine.into(), retries: 2 };
    store.write(assign("a"));
    store.write(Write::Requeue { msg_id: "m1".into(), retries: 1 });
    store.write(assign("b"));
    finish(&mut store, 2, 7);
    drop(store);
    let mut store = open(&file);
    let unfinished = store.unfinished().unwrap();
    let ids: Vec<_> = unfinished.iter().map(|record| record.msg_id.as_str()).collect();
    assert_eq!(ids, ["m0", "m1", "m3"]);
    assert_eq!((&unfinished[1].engine, &unfinished[1].tried[..]), (&Some("b".into()), &["a".into()][..]));
    assert_eq!(unfinished[1].request.buffer_bytes(), 10);
    assert_eq!(store.finished(9).unwrap().len(), 1);
    assert_eq!(store.abandon(), Ok(3));
    store.commit().unwrap();
    drop(store);
    assert_eq!(open(&file).unfinished().unwrap(), []);
}

#[test]
fn replies_that_may_not_have_reached_their_clients_are_found_until_they_are_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks.db");
    let mut store = open(&file);
    for number in 0..6 {
        add(&mut store, number, 10);
    }
    let whom = Query::everything();
    let find = Find::all(whom, Buffers { requests: true, results: true });
    let Ok(Answer::Records(records)) = store.ask(&Ask::Find(find)) else { panic!("they cannot be read") };
    store.write(Write::Purge(Query::everything()));
    for record in records {
        store.write(Write::Add(Box::new(TaskRecord { reply_to: Some(b"c"[..].into()), ..record })));
    }
    // The first three have a reply; one was delivered in the same batch, one in a later one.
    (0..3).for_each(|number| finish(&mut store, number, 7));
    store.write(Write::Delivered { msg_id: "m1".into() });
    store.commit().unwrap();
    let ids = |store: &mut SqliteStore, most| {
        let records = store.undelivered(most).unwrap().into_iter();
        records.map(|record| record.msg_id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&mut store, 9), ["m0", "m2"]);
    assert_eq!(ids(&mut store, 1), ["m2"], "the last ones");
    store.write(Write::Delivered { msg_id: "m0".into() });
    store.commit().unwrap();
    drop(store);
    assert_eq!(ids(&mut open(&file), 9), ["m2"]);
}

#[test]
fn records_go_by_age_number_or_size_and_those_of_tasks_that_run_stay() {
    let second = 1_000_000;
    for (keep, left) in [
        (Keep::default(), 1_000),
        // The two that run are among those that are too old.
        (Keep { age: Some(Duration::from_secs(100)), ..Keep::default() }, 402),
        (Keep { records: Some(300), ..Keep::default() }, 300),
        (Keep { records: Some(0), ..Keep::default() }, 2),
        (Keep { bytes: Some(1), ..Keep::default() }, 2),
        (Keep { bytes: Some(1 << 40), age: Some(Duration::from_secs(10_000)), ..Keep::default() }, 1_000),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let config = SqliteConfig { keep, ..SqliteConfig::new(folder.path().join("tasks.db")) };
        let mut store = SqliteStore::open(&config).unwrap();
        for number in 0..1_000 {
            add(&mut store, number, 6_000);
            if number % 500 != 0 {
                finish(&mut store, number, i64::try_from(number).unwrap() * second);
            }
        }
        store.commit().unwrap();
        let before = store.pages("page_count").unwrap();
        let date = Date(700 * second);
        let mut now = Instant(1);
        for _ in 0..1_000 {
            store.tidy(now, date).unwrap();
            store.check();
        }
        assert!(store.tidy_at() > now, "it comes to an end");
        let found = count(&mut store).unwrap();
        assert_eq!(found, left, "{keep:?}");
        assert_eq!(store.unfinished().unwrap().len(), 2);
        if left == 2 {
            assert!(store.pages("page_count").unwrap() < before / 4, "space is returned");
        }
        now = store.tidy_at();
        store.tidy(now, date).unwrap();
        assert_eq!(count(&mut store).unwrap(), found, "another round changes nothing");
    }
}
