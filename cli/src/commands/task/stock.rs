//! What a stock controller cannot do with records is done here: states, order, limits.

use std::cmp::Ordering;

use remuda_client::records::{Find, Record};
use remuda_proto::Date;
use remuda_proto::message::content::DbOptions;
use serde_json::{Value, json};

use super::source::{Selection, State};
use crate::failure::Failure;

/// What the state of a record follows from.
const FACTS: [&str; 4] = ["engine_uuid", "completed", "result_header", "result_content"];

/// The question in words that a stock controller knows; it gives more than is wanted.
pub(super) fn find(selection: &Selection) -> Result<Find, Failure> {
    let mut query = selection.query.clone();
    if uses_state(&Value::Object(query.clone())) {
        return Err(Failure::usage("a stock controller has no field `state`")
            .hint("`remuda task list --state` can do it: it sorts out here what it gets"));
    }
    match &selection.states[..] {
        [] => {}
        states if states.iter().all(|state| State::PENDING.contains(state)) => {
            query.insert("completed".to_owned(), json!({"$eq": null}));
        }
        states if states.iter().all(|state| State::DONE.contains(state)) => {
            query.insert("completed".to_owned(), json!({"$ne": null}));
        }
        _ => {}
    }
    if query.is_empty() {
        // Its `SQLiteDB` cannot be asked for everything.
        query.insert("msg_id".to_owned(), json!({"$ne": ""}));
    }
    let keys = selection.keys.as_ref().map(|keys| {
        let mut keys: Vec<String> = keys.iter().filter(|key| *key != "state").cloned().collect();
        let needs_state = selection.keys.iter().flatten().any(|key| key == "state") || !selection.states.is_empty();
        let facts = FACTS.into_iter().filter(|_| needs_state);
        for key in facts.chain(selection.order.field()) {
            if !keys.iter().any(|own| own == key) {
                keys.push(key.to_owned());
            }
        }
        keys
    });
    Ok(Find { query: query.into(), keys, options: DbOptions::default() })
}

/// Whether a query tests the state, anywhere.
fn uses_state(query: &Value) -> bool {
    match query {
        Value::Object(map) => map
            .iter()
            .any(|(key, value)| key == "state" || (matches!(&**key, "$and" | "$or" | "$not") && uses_state(value))),
        Value::Array(items) => items.iter().any(uses_state),
        _ => false,
    }
}

/// Those of the records that are wanted, in their order, with what is wanted of them.
pub(super) fn select(mut records: Vec<Record>, selection: &Selection) -> Vec<Record> {
    for record in &mut records {
        let state = state(record);
        record.fields.insert("state".to_owned(), state.name().into());
    }
    if !selection.states.is_empty() {
        records.retain(|record| State::of(record).is_some_and(|state| selection.states.contains(&state)));
    }
    if let Some(order) = selection.order.field() {
        records.sort_by(|a, b| compare(a.fields.get(order), b.fields.get(order)));
    }
    if !selection.oldest_first {
        records.reverse();
    }
    if let Some(limit) = selection.limit {
        records.truncate(limit);
    }
    if let Some(keys) = &selection.keys {
        for record in &mut records {
            record.fields.retain(|name, _| name == "msg_id" || keys.contains(name));
        }
    }
    records
}

/// The state that the other fields of a record come to.
fn state(record: &Record) -> State {
    let is_there = |name: &str| record.fields.get(name).is_some_and(|value| !value.is_null());
    if !is_there("completed") && !is_there("result_header") {
        return if is_there("engine_uuid") { State::Running } else { State::Waiting };
    }
    match record.fields.get("result_content").and_then(|content| content.get("status")).and_then(Value::as_str) {
        Some("ok") => State::Ok,
        Some("aborted") => State::Aborted,
        _ => State::Error,
    }
}

/// The order of two values: null first; dates as dates, however they are written.
fn compare(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let (a, b) = (text(a), text(b));
    let date = |text: &Option<String>| text.as_deref().and_then(Date::parse);
    match (date(&a), date(&b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.cmp(&b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::task::source::owned;
    use remuda_proto::message::content::RecordOrder;

    fn record(fields: Value) -> Record {
        let Value::Object(fields) = fields else { panic!("{fields}") };
        Record { fields, ..Record::default() }
    }

    fn ids(records: &[Record]) -> Vec<&str> {
        records.iter().filter_map(|record| record.fields["msg_id"].as_str()).collect()
    }

    fn some() -> Vec<Record> {
        let done = |id: &str, status: &str, date: &str| {
            record(
                json!({"msg_id": id, "engine_uuid": "e", "completed": date, "result_header": {}, "result_content": {"status": status}}),
            )
        };
        vec![
            record(
                json!({"msg_id": "w", "engine_uuid": null, "completed": null, "result_header": null, "result_content": null}),
            ),
            record(
                json!({"msg_id": "r", "engine_uuid": "e", "completed": null, "result_header": null, "result_content": null}),
            ),
            done("late", "ok", "2026-11-22T10:00:00.5Z"),
            done("early", "error", "2026-11-22T10:00:00.25Z"),
            done("a", "aborted", "2026-11-22T10:00:00Z"),
        ]
    }

    #[test]
    fn states_follow_from_the_other_fields() {
        let in_states = |states: &[State]| {
            let selection = Selection { states: states.to_vec(), oldest_first: true, ..Selection::default() };
            ids(&select(some(), &selection)).join(" ")
        };
        assert_eq!(in_states(&[]), "w r late early a");
        assert_eq!(in_states(&[State::Waiting]), "w");
        assert_eq!(in_states(&State::DONE), "late early a");
        assert_eq!(in_states(&[State::Error, State::Running]), "r early");
    }

    #[test]
    fn order_limit_and_fields_are_as_asked_for() {
        let selection = Selection {
            order: RecordOrder::Completed,
            keys: Some(owned(&["msg_id", "state"])),
            limit: Some(3),
            ..Selection::default()
        };
        let found = select(some(), &selection);
        assert_eq!(ids(&found), ["late", "early", "a"]);
        assert_eq!(Value::Object(found[0].fields.clone()), json!({"msg_id": "late", "state": "ok"}));
        let newest_first = Selection { limit: Some(2), ..Selection::default() };
        assert_eq!(ids(&select(some(), &newest_first)), ["a", "early"]);
    }

    #[test]
    fn what_is_asked_of_a_stock_controller_it_understands() {
        let selection = Selection {
            states: vec![State::Ok],
            order: RecordOrder::Submitted,
            keys: Some(owned(&["msg_id", "state"])),
            ..Selection::default()
        };
        let find = find(&selection).ok().unwrap();
        assert_eq!(find.query, json!({"completed": {"$ne": null}}));
        assert_eq!(
            find.keys.unwrap(),
            ["msg_id", "engine_uuid", "completed", "result_header", "result_content", "submitted"]
        );
        let all = super::find(&Selection::default()).ok().unwrap();
        assert_eq!(all.query, json!({"msg_id": {"$ne": ""}}));
        let query = json!({"$or": [{"queue": "task"}, {"state": "ok"}]}).as_object().unwrap().clone();
        assert!(super::find(&Selection { query, ..Selection::default() }).is_err());
    }
}
