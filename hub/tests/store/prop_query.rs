//! A query has the same answer from every store.

use proptest::prelude::*;
use proptest::sample::select;
use remuda_hub::Limits;
use remuda_hub::find::{Field, Kind, Query};
use remuda_hub::record::OutputPiece;
use remuda_hub::store::{MemoryStore, SqliteConfig, SqliteStore, TaskStore, Write};
use remuda_proto::monitor::Queue;
use serde_json::{Value, json};

use super::support::Shelf;

const TEXTS: &[&str] = &["a", "aa", "b", "ba", "c", "cc", "e", "f", "mux", "task", "client", "", "a\0b", "é", "[a]"];
const DATES: &[&str] = &["2026-11-22T01:37:20.001097Z", "2026-11-22T02:37:20.002194+01:00", "2030-01-01T00:00:00Z"];
const PATTERNS: &[&str] = &["*", "a*", "?", "[ab]*", "[!a]", "*a", "", "[[]a]", "mu*", "a\0*", "é"];

/// Records of all kinds, some of them in the same batch as the question.
fn fill(shelf: &mut Shelf<impl TaskStore>) {
    for (at, id) in ["a", "aa", "b", "ba", "c", "cc", "a\0b", "é"].into_iter().enumerate() {
        let label = [json!("a"), json!("[a]"), json!(3), json!(null), json!(["a", 3]), json!(-3.0), json!("a\0b")];
        let queue = [Queue::Task, Queue::Mux][at % 2];
        let engine = [None, Some("e"), Some("f")][at % 3];
        shelf.add(id, queue, engine, &json!({"label": label[at % label.len()], "after": []}));
        if at % 2 == 0 {
            shelf.finish(id, &json!({"status": if at % 4 == 0 { "ok" } else { "error" }}));
        }
        if at % 3 == 0 {
            for piece in [OutputPiece::Stdout("a\n".to_owned()), OutputPiece::ExecuteInput("é".to_owned())] {
                shelf.write(Write::Output { msg_id: id.into(), piece });
            }
            let content = b"{\"status\": \"ok\"}".to_vec().into();
            shelf.write(Write::Output { msg_id: id.into(), piece: OutputPiece::Error(content) });
        }
        if at == 5 {
            shelf.commit();
            shelf.write(Write::Resubmit { msg_id: "a".into(), again: "aa".into() });
        }
    }
}

/// A value that some record may have in such a field.
fn value(kind: Kind) -> BoxedStrategy<Value> {
    let text = select(TEXTS).prop_map(Value::from);
    let date = select(DATES).prop_map(Value::from);
    let json = select(&["3", "3.0", "-3", "{}", "[]", "{\"status\": \"ok\"}", "[\"a\", 3]", "true"][..])
        .prop_map(|text| serde_json::from_str::<Value>(text).unwrap());
    match kind {
        Kind::Date => prop_oneof![6 => date, 1 => text, 1 => Just(Value::Null), 1 => json].boxed(),
        Kind::Text => prop_oneof![6 => text, 1 => Just(Value::Null), 1 => json].boxed(),
        Kind::Json | Kind::Buffers => prop_oneof![3 => json, 2 => text, 1 => Just(Value::Null)].boxed(),
    }
}

fn test(field: Field) -> BoxedStrategy<Value> {
    let value = || value(field.kind());
    let list = || proptest::collection::vec(value(), 0..4).prop_map(Value::from);
    let orders = select(&["$lt", "$lte", "$gt", "$gte"][..]);
    let comparable = match field.kind() {
        Kind::Date => select(DATES).prop_map(Value::from).boxed(),
        Kind::Text => select(TEXTS).prop_map(Value::from).boxed(),
        _ if field == Field::Label => prop_oneof![select(TEXTS).prop_map(Value::from), Just(json!(-2.5))].boxed(),
        _ => {
            return prop_oneof![
                value().prop_map(|value| json!({"$eq": value})),
                list().prop_map(|list| json!({"$nin": list}))
            ]
            .boxed();
        }
    };
    let operator = |name: &'static str| move |value: Value| json!({name: value});
    prop_oneof![
        value().prop_filter("a map holds operators", |value| !value.is_object()),
        value().prop_map(operator("$eq")),
        value().prop_map(operator("$ne")),
        list().prop_map(operator("$in")),
        list().prop_map(operator("$nin")),
        list().prop_map(operator("$all")),
        (orders, comparable).prop_map(|(order, value)| json!({order: value})),
        any::<bool>().prop_map(|there| json!({"$exists": there})),
        select(PATTERNS).prop_map(|pattern| json!({"$glob": pattern})),
        (select(&[2, -2, 3][..]), 0..3).prop_map(|(divisor, rest)| json!({"$mod": [divisor, rest]})),
    ]
    .prop_recursive(2, 6, 2, |inner| {
        inner.prop_filter_map("a map of operators", |test| test.is_object().then(|| json!({"$not": test})))
    })
    .boxed()
}

fn query() -> impl Strategy<Value = Value> {
    // Those that differ from record to record, and all the others.
    let telling = [Field::MsgId, Field::Queue, Field::EngineUuid, Field::Label, Field::Submitted, Field::Stdout];
    let field = prop_oneof![3 => select(telling.to_vec()), 1 => select(Field::ALL)];
    let field = field.prop_flat_map(|field| test(field).prop_map(move |test| json!({field.name(): test})));
    field.prop_recursive(3, 12, 3, |inner| {
        let several = proptest::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            several.clone().prop_map(|queries| json!({"$and": queries})),
            several.clone().prop_map(|queries| json!({"$or": queries})),
            inner.prop_map(|query| json!({"$not": query})),
            several.prop_map(|queries| {
                let all = queries.iter().filter_map(Value::as_object).flatten();
                Value::Object(all.map(|(key, value)| (key.clone(), value.clone())).collect())
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_database_find_the_same(queries in proptest::collection::vec(query(), 300)) {
        let folder = tempfile::tempdir().unwrap();
        let mut memory = Shelf::new(MemoryStore::new(Limits::default()));
        let mut database = Shelf::new(SqliteStore::open(&SqliteConfig::new(folder.path().join("tasks.db"))).unwrap());
        fill(&mut memory);
        fill(&mut database);
        let mut some = 0;
        // A shrunken case says nothing of how well the queries are drawn.
        let cases = queries.len();
        for query in queries {
            let read = Query::read(&query);
            prop_assert!(read.is_ok(), "{query}: {read:?}");
            let found = memory.found(&query);
            prop_assert_eq!(&found, &database.found(&query), "{}", query);
            some += usize::from(!found.is_empty() && found.len() < 8);
        }
        prop_assert!(some > 25 || cases < 300, "only {some} of 300 queries tell records apart");
        prop_assert_eq!(memory.history(), database.history());
    }
}
