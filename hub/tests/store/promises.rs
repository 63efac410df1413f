//! The promises of [`TaskStore`], each tried on each store that keeps something.

use remuda_hub::Limits;
use remuda_hub::find::{Field, Query};
use remuda_hub::record::OutputPiece;
use remuda_hub::store::{Buffers, MemoryStore, NoStore, SqliteConfig, SqliteStore, StoreError, TaskStore, Write};
use remuda_proto::Instant;
use remuda_proto::monitor::Queue;
use serde_json::json;

use super::support::{Shelf, kept, outcome, request};

fn a_record_comes_back_as_it_was_written<S: TaskStore>(mut shelf: Shelf<S>) {
    for (id, flushed) in [("a", false), ("b", true)] {
        shelf.add(id, Queue::Broadcast, Some("e"), &json!({"label": "l\u{0}\u{fe0f}", "x": [1, null]}));
        if flushed {
            shelf.store.flush().unwrap();
        }
        shelf.write(Write::Assign { msg_id: id.into(), engine: "f".into() });
        for text in ["one\0", "two"] {
            shelf.write(Write::Output { msg_id: id.into(), piece: OutputPiece::Stdout(text.into()) });
        }
        for piece in [
            OutputPiece::Stderr("err".into()),
            OutputPiece::ExecuteInput("1/0".into()),
            OutputPiece::ExecuteResult(b"{\"data\": 1}".to_vec().into()),
            OutputPiece::ExecuteResult(b"{\"data\": 2}".to_vec().into()),
            OutputPiece::DisplayData(vec![0xff, 0xfe].into()),
            OutputPiece::Error(b"{}".to_vec().into()),
        ] {
            shelf.write(Write::Output { msg_id: id.into(), piece });
        }
        shelf.finish(id, &json!({"status": "ok"}));
        shelf.write(Write::Resubmit { msg_id: id.into(), again: "again".into() });
        let record = shelf.record(id);
        assert_eq!((record.queue, record.engine), (Queue::Broadcast, Some("f".into())));
        assert_eq!(kept(&record.request), kept(&request(id, &json!({"label": "l\u{0}\u{fe0f}", "x": [1, null]}))));
        let (found, given) = (record.outcome.unwrap(), outcome(id, &json!({"status": "ok"})));
        assert_eq!((kept(&found.body), found.received), (kept(&given.body), given.received));
        assert_eq!(record.resubmitted, Some("again".into()));
        let output = record.output;
        assert_eq!((&*output.stdout, &*output.stderr), ("one\0two", "err"));
        assert_eq!(output.execute_input.as_deref(), Some("1/0"));
        assert_eq!(output.execute_result.as_deref(), Some(&b"{\"data\": 2}"[..]));
        assert_eq!(output.display_data.as_deref(), Some(&[0xff, 0xfe][..]));
        assert_eq!(output.error.as_deref(), Some(&b"{}"[..]));
    }
}

fn buffers_come_if_they_are_asked_for<S: TaskStore>(mut shelf: Shelf<S>) {
    shelf.add("a", Queue::Task, None, &json!({}));
    shelf.finish("a", &json!({"status": "ok"}));
    for (requests, results) in [(true, false), (false, true)] {
        let found = shelf.store.find(&Query::everything(), Buffers { requests, results }).unwrap().swap_remove(0);
        assert!(!requests || found.request.buffer_count() == 2);
        assert!(!results || found.outcome.unwrap().body.buffer_bytes() == 100_000);
    }
    assert_eq!(shelf.found(&json!({"buffers": []})), Vec::<String>::new(), "a query sees them in any case");
    assert_eq!(shelf.found(&json!({"result_buffers": {"$ne": null}})), ["a"]);
}

fn a_second_record_by_an_id_changes_nothing<S: TaskStore>(mut shelf: Shelf<S>) {
    for flushed in [false, true] {
        shelf.add("a", Queue::Task, None, &json!({"label": "first"}));
        if flushed {
            shelf.store.flush().unwrap();
        }
        shelf.add("a", Queue::Mux, Some("e"), &json!({"label": "second"}));
        assert_eq!((shelf.record("a").queue, shelf.record("a").engine), (Queue::Task, None));
        assert_eq!(shelf.found(&json!({"label": "first"})), ["a"]);
        shelf.write(Write::Purge(Query::everything()));
    }
}

fn a_change_of_what_is_not_there_changes_nothing<S: TaskStore>(mut shelf: Shelf<S>) {
    shelf.add("a", Queue::Task, None, &json!({}));
    shelf.finish("x", &json!({}));
    shelf.write(Write::Assign { msg_id: "x".into(), engine: "e".into() });
    shelf.write(Write::Output { msg_id: "x".into(), piece: OutputPiece::Stdout("x".into()) });
    shelf.write(Write::Resubmit { msg_id: "x".into(), again: "y".into() });
    assert_eq!(shelf.history(), ["a"]);
    assert_eq!(shelf.record("a").outcome, None);
}

fn records_come_in_the_order_in_which_they_were_added<S: TaskStore>(mut shelf: Shelf<S>) {
    for id in ["ccc", "a", "dddd", "bb"] {
        shelf.add(id, Queue::Task, None, &json!({}));
    }
    shelf.store.flush().unwrap();
    shelf.add("ee", Queue::Task, None, &json!({}));
    assert_eq!(shelf.found(&json!({})), ["ccc", "a", "dddd", "bb", "ee"]);
    assert_eq!(shelf.found(&json!({"msg_id": {"$in": ["ee", "bb", "ccc"]}})), ["ccc", "bb", "ee"]);
    assert_eq!(shelf.history(), ["a", "bb", "ee", "ccc", "dddd"], "by the dates of clients");
}

fn purges_drop_what_they_name<S: TaskStore>(mut shelf: Shelf<S>) {
    for (id, engine) in [("a", "e"), ("b", "e"), ("c", "f"), ("d", "f"), ("e", "e")] {
        shelf.add(id, Queue::Mux, Some(engine), &json!({"label": {"of": id}}));
    }
    for id in ["a", "b", "c"] {
        shelf.finish(id, &json!({"status": "ok"}));
    }
    shelf.write(Write::Purge(Query::tasks(&["d".into(), "x".into()])));
    assert_eq!(shelf.history(), ["a", "b", "c", "e"]);
    shelf.write(Write::Purge(Query::finished_on(&"f".into())));
    assert_eq!(shelf.history(), ["a", "b", "e"]);
    shelf.write(Write::Purge(Query::read(&json!({"label": {"$eq": {"of": "b"}}})).unwrap()));
    assert_eq!(shelf.history(), ["a", "e"]);
    shelf.write(Write::Purge(Query::finished()));
    assert_eq!(shelf.history(), ["e"]);
}

fn many_ids_are_found_at_once<S: TaskStore>(mut shelf: Shelf<S>) {
    for id in ["a", "b\0c", "b"] {
        shelf.add(id, Queue::Task, None, &json!({}));
    }
    let ids: Vec<_> = (0..100_000).map(|number| format!("t{number}").into()).chain(["b".into()]).collect();
    assert_eq!(shelf.found_by(&Query::tasks(&ids)), ["b"]);
    assert_eq!(shelf.found(&json!({"msg_id": {"$in": ["b\0c", "a"]}})), ["a", "b\0c"]);
    assert_eq!(shelf.found(&json!({"msg_id": {"$nin": ["b\0c", "a"]}})), ["b"]);
}

fn ids_are_found_by_their_beginning<S: TaskStore>(mut shelf: Shelf<S>) {
    for id in ["ab", "a", "abc", "b", "ab\u{10ffff}x", "aB", "ac"] {
        shelf.add(id, Queue::Task, None, &json!({}));
    }
    shelf.store.flush().unwrap();
    shelf.add("abd%", Queue::Task, None, &json!({}));
    let mut ids = |prefix: &str, most: usize| {
        let mut ids: Vec<String> = shelf.store.ids(prefix, most).unwrap().iter().map(ToString::to_string).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids("abc", 9), ["abc"]);
    assert_eq!(ids("ab%", 9), [""; 0]);
    assert_eq!(ids("abd", 9), ["abd%"]);
    assert_eq!(ids("ab", 2).len(), 2);
    assert!(["ab", "abc", "abd%"].iter().all(|id| ids("ab", 9).iter().any(|found| found == id)));
    assert!(ids("x", 9).is_empty());
    assert_ne!(shelf.store.state().kind, "none");
}

fn a_deadline_is_met_by_flushing<S: TaskStore>(mut shelf: Shelf<S>) {
    assert_eq!(shelf.store.deadline(), None, "nothing to do");
    shelf.add("a", Queue::Task, None, &json!({}));
    for _ in 0..2 {
        shelf.store.flush().unwrap();
        shelf.store.check();
        assert_eq!(shelf.store.deadline(), None);
    }
    assert_eq!(shelf.history(), ["a"]);
}

macro_rules! kept_by {
    ($store:ident, $shelf:expr) => {
        mod $store {
            use super::*;
            kept_by!(@each $shelf;
                a_record_comes_back_as_it_was_written
                buffers_come_if_they_are_asked_for
                a_second_record_by_an_id_changes_nothing
                a_change_of_what_is_not_there_changes_nothing
                records_come_in_the_order_in_which_they_were_added
                purges_drop_what_they_name
                many_ids_are_found_at_once
                ids_are_found_by_their_beginning
                a_deadline_is_met_by_flushing
            );
        }
    };
    (@each $shelf:expr; $($promise:ident)*) => {
        $(
            #[test]
            fn $promise() {
                super::$promise($shelf);
            }
        )*
    };
}

fn in_memory() -> Shelf<MemoryStore> {
    Shelf::new(MemoryStore::new(Limits::default()))
}

fn in_a_database() -> Shelf<SqliteStore> {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&SqliteConfig::new(folder.path().join("tasks.db"))).unwrap();
    Shelf { _folder: Some(folder), ..Shelf::new(store) }
}

kept_by!(memory, in_memory());
kept_by!(sqlite, in_a_database());

#[test]
fn a_store_that_keeps_nothing_says_so() {
    let mut store = NoStore;
    assert_eq!(store.write(Instant(0), Write::Purge(Query::everything())), Ok(()));
    assert_eq!(store.find(&Query::everything(), Buffers::default()), Err(StoreError::NoData));
    assert_eq!(store.history(), Err(StoreError::NoData));
    assert_eq!(store.ids("a", 1), Err(StoreError::NoData));
    assert!(Query::tasks(&[]).looks_at(Field::MsgId));
}
