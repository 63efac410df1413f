//! The promises of [`TaskStore`], each tried on each store that keeps something.

use remuda_hub::Limits;
use remuda_hub::find::Query;
use remuda_hub::record::OutputPiece;
use remuda_hub::store::{
    Answer, Ask, Buffers, Committed, Find, MemoryStore, NoStore, OrderBy, SqliteConfig, SqliteStore, StoreError,
    TaskStore, Write,
};
use remuda_proto::Identity;
use remuda_proto::monitor::{Queue, Ticket};
use serde_json::{Value, json};

use super::support::{Shelf, arrived, kept, outcome, request};

fn a_record_comes_back_as_it_was_written<S: TaskStore>(mut shelf: Shelf<S>) {
    for (id, flushed) in [("a", false), ("b", true)] {
        shelf.add(id, Queue::Broadcast, Some("e"), &json!({"label": "l\u{0}\u{fe0f}", "x": [1, null]}));
        if flushed {
            shelf.commit();
        }
        shelf.assign(id, "f", 3);
        shelf.requeue(id, 2);
        shelf.assign(id, "g", 2);
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
        assert_eq!((record.queue, &record.engine), (Queue::Broadcast, &Some("g".into())));
        // It was added with an engine, and the next came without a word that the first was done with it.
        assert_eq!((&record.tried[..], record.retries), (&["f".into()][..], Some(2)));
        assert_eq!((record.arrived, record.lost), (arrived(id), false));
        assert_eq!(record.reply_to, Some(Identity::from(&b"\0\xff client"[..])));
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
        let found = shelf.records(Find::all(Query::everything(), Buffers { requests, results })).swap_remove(0);
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
            shelf.commit();
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
    shelf.assign("x", "e", 0);
    shelf.requeue("x", 0);
    shelf.write(Write::Output { msg_id: "x".into(), piece: OutputPiece::Stdout("x".into()) });
    shelf.write(Write::Resubmit { msg_id: "x".into(), again: "y".into() });
    assert_eq!(shelf.history(), ["a"]);
    assert_eq!(shelf.record("a").outcome, None);
}

fn records_come_in_the_order_in_which_they_were_added<S: TaskStore>(mut shelf: Shelf<S>) {
    for id in ["ccc", "a", "dddd", "bb"] {
        shelf.add(id, Queue::Task, None, &json!({}));
    }
    shelf.commit();
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
    shelf.commit();
    shelf.add("abd%", Queue::Task, None, &json!({}));
    let mut ids = |prefix: &str, most: usize| {
        let mut ids = shelf.alike(prefix, most);
        ids.sort();
        ids
    };
    assert_eq!(ids("abc", 9), ["abc"]);
    assert_eq!(ids("ab%", 9), [""; 0]);
    assert_eq!(ids("abd", 9), ["abd%"]);
    assert_eq!(ids("ab", 2).len(), 2);
    assert!(["ab", "abc", "abd%"].iter().all(|id| ids("ab", 9).iter().any(|found| found == id)));
    assert!(ids("x", 9).is_empty());
    assert_eq!(shelf.alike("ab", 2)[0], "ab", "the whole id comes first");
}

fn a_commit_tells_how_much_was_written_and_who_waited_for_it<S: TaskStore>(mut shelf: Shelf<S>) {
    assert_eq!(shelf.store.commit().unwrap(), Committed::default());
    shelf.add("a", Queue::Task, None, &json!({}));
    for (queue, ticket) in [(Queue::Task, 3), (Queue::Mux, 9), (Queue::Task, 4)] {
        shelf.write(Write::Mark { queue, ticket: Ticket(ticket) });
    }
    assert_eq!(shelf.history(), ["a"], "a question sees what is not committed");
    let committed = shelf.store.commit().unwrap();
    assert_eq!((committed.changes, committed.bytes), (4, request("a", &json!({})).size_bytes()));
    let marks: Vec<_> = committed.marks.into_iter().collect();
    assert_eq!(marks, [(Queue::Mux, Ticket(9)), (Queue::Task, Ticket(4))], "the last of each");
    assert_eq!(shelf.store.commit().unwrap(), Committed::default());
    assert_eq!(shelf.history(), ["a"]);
}

fn records_come_in_the_order_and_number_that_is_asked_for<S: TaskStore>(mut shelf: Shelf<S>) {
    for id in ["ccc", "a", "bb", "dddd"] {
        shelf.add(id, Queue::Task, None, &json!({"label": if id == "a" { "x" } else { "y" }}));
    }
    for id in ["bb", "ccc"] {
        shelf.finish(id, &json!({"status": "ok"}));
    }
    let mut found = |order, descending, most: Option<usize>, query: Value| {
        let query = Query::read(&query).unwrap();
        let find = Find { query, buffers: Buffers::default(), order, descending, most };
        shelf.records(find).iter().map(|record| record.msg_id.to_string()).collect::<Vec<_>>().join(" ")
    };
    let everything = || json!({});
    assert_eq!(found(OrderBy::Arrival, true, None, everything()), "dddd bb a ccc");
    assert_eq!(found(OrderBy::Arrival, false, Some(2), everything()), "ccc a");
    assert_eq!(found(OrderBy::Submitted, true, Some(3), everything()), "dddd ccc bb");
    assert_eq!(found(OrderBy::Submitted, false, Some(0), everything()), "");
    assert_eq!(
        found(OrderBy::Completed, true, Some(3), everything()),
        "ccc bb dddd",
        "those that have not ended are last"
    );
    assert_eq!(found(OrderBy::Completed, false, None, everything()), "a dddd bb ccc");
    assert_eq!(found(OrderBy::Submitted, true, Some(2), json!({"label": {"$glob": "[y]"}})), "dddd ccc");
}

fn records_are_found_by_their_state<S: TaskStore>(mut shelf: Shelf<S>) {
    for id in ["w", "r", "q", "o", "e"] {
        shelf.add(id, Queue::Task, None, &json!({}));
    }
    for committed in [false, true] {
        if committed {
            shelf.commit();
        }
        for id in ["r", "q", "o", "e"] {
            shelf.assign(id, "f", 1);
        }
        shelf.requeue("q", 0);
        shelf.finish("o", &json!({"status": "ok"}));
        shelf.finish("e", &json!({"status": "error"}));
        for (state, ids) in
            [("waiting", &["w", "q"][..]), ("running", &["r"]), ("ok", &["o"]), ("error", &["e"]), ("aborted", &[])]
        {
            assert_eq!(shelf.found(&json!({"state": state})), ids, "{state}");
        }
    }
    assert_eq!(shelf.found(&json!({"state": {"$nin": ["ok", "running", "waiting"]}})), ["e"]);
    assert_eq!(shelf.found(&json!({"state": null})), [""; 0]);
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
                a_commit_tells_how_much_was_written_and_who_waited_for_it
                records_come_in_the_order_and_number_that_is_asked_for
                records_are_found_by_their_state
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
    Shelf::in_folder(store, folder)
}

kept_by!(memory, in_memory());
kept_by!(sqlite, in_a_database());

#[test]
fn direct_requests_that_failed_are_found_among_the_last_requests() {
    let mut shelf = in_a_database();
    for id in ["old", "task", "good", "open", "mux", "all"] {
        let queue = match id {
            "task" => Queue::Task,
            "all" => Queue::Broadcast,
            _ => Queue::Mux,
        };
        shelf.add(id, queue, Some("e"), &json!({}));
        if id != "open" {
            shelf.finish(id, &json!({"status": if id == "good" { "ok" } else { "error" }}));
        }
    }
    let found = shelf.store.failed_direct(5).unwrap();
    let found: Vec<_> = found.iter().map(|(queue, task)| (*queue, task.msg_id.as_str(), task.ok)).collect();
    assert_eq!(found, [(Queue::Mux, "mux", false), (Queue::Broadcast, "all", false)]);
}

#[test]
fn a_store_that_keeps_nothing_says_so_and_keeps_nobody_waiting() {
    let mut store = NoStore::default();
    store.write(Write::Mark { queue: Queue::Broadcast, ticket: Ticket(7) });
    let alike = Ask::Alike { beginnings: vec!["a".to_owned()], most: 1 };
    for ask in [Ask::Find(Find::tasks(&[])), Ask::History, alike] {
        assert_eq!(store.ask(&ask), Err(StoreError::NoData));
    }
    assert!(matches!(store.ask(&Ask::State), Ok(Answer::State(state)) if state.kind == "none"));
    assert_eq!(store.commit().unwrap().marks.into_iter().collect::<Vec<_>>(), [(Queue::Broadcast, Ticket(7))]);
}
