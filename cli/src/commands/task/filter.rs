//! From what is typed to queries of ipyparallel's.

use remuda_client::Engine;
use remuda_proto::Date;
use serde_json::{Map, Value, json};

use super::source::State;
use crate::args::task::{FilterArgs, QueueArg, StateArg, When};

/// What the options say, without the states: a query that stock controllers understand too. Each value stands with its
/// operator, since a stock controller compares all plain ones with the value of the last.
pub(super) fn query(filter: &FilterArgs, engines: &[Engine], now: Date) -> Map<String, Value> {
    let mut query = Map::new();
    if let Some(engine) = &filter.engine {
        query.insert("engine_uuid".to_owned(), self::engine(engine, engines));
    }
    if let Some(label) = &filter.label {
        let test = if label.contains(['*', '?', '[']) { json!({"$glob": label}) } else { json!({"$eq": label}) };
        query.insert("label".to_owned(), test);
    }
    if let Some(client) = &filter.client {
        query.insert("client_uuid".to_owned(), json!({"$glob": beginning(client)}));
    }
    if let Some(queue) = filter.queue {
        let name = match queue {
            QueueArg::Task => "task",
            QueueArg::Mux => "mux",
            QueueArg::Broadcast => "broadcast",
        };
        query.insert("queue".to_owned(), json!({"$eq": name}));
    }
    let mut submitted = Map::new();
    for (operator, when) in [("$gte", filter.since), ("$lt", filter.until)] {
        if let Some(when) = when {
            submitted.insert(operator.to_owned(), json!(date(when, now)));
        }
    }
    if !submitted.is_empty() {
        query.insert("submitted".to_owned(), submitted.into());
    }
    query
}

/// The states that are meant, each once; none: all.
pub(super) fn states(filter: &FilterArgs) -> Vec<State> {
    let mut states: Vec<State> = Vec::new();
    for arg in &filter.state {
        let meant: &[State] = match arg {
            StateArg::Waiting => &[State::Waiting],
            StateArg::Running => &[State::Running],
            StateArg::Ok => &[State::Ok],
            StateArg::Error => &[State::Error],
            StateArg::Aborted => &[State::Aborted],
            StateArg::Lost => &[State::Lost],
            StateArg::Done => &State::DONE,
            StateArg::Pending => &State::PENDING,
        };
        for state in meant {
            if !states.contains(state) {
                states.push(*state);
            }
        }
    }
    states
}

/// A test of ids: those that begin so; `…` stands for any text.
pub(super) fn id(text: &str) -> Value {
    let parts: Vec<String> = text.split('…').map(escaped).collect();
    json!({"$glob": format!("{}*", parts.join("*"))})
}

/// A number is the id of an engine that is registered; anything else, how a uuid begins.
fn engine(text: &str, engines: &[Engine]) -> Value {
    let named =
        text.parse().ok().and_then(|id: u32| engines.iter().find(|engine| engine.id.is_some_and(|own| own.0 == id)));
    match named {
        Some(engine) => json!({"$eq": engine.uuid}),
        None => json!({"$glob": beginning(text)}),
    }
}

fn date(when: When, now: Date) -> Date {
    match when {
        When::At(date) => date,
        When::Ago(ago) => Date(now.0.saturating_sub(i64::try_from(ago.as_micros()).unwrap_or(i64::MAX))),
    }
}

/// A pattern for texts that begin so.
fn beginning(text: &str) -> String {
    format!("{}*", escaped(text))
}

/// A text as a pattern that only it matches.
fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '*' | '?' | '[' => pattern.extend(['[', c, ']']),
            c => pattern.push(c),
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;
    use remuda_proto::EngineId;
    use std::time::Duration;

    fn engines() -> Vec<Engine> {
        vec![Engine { id: Some(EngineId(3)), uuid: "three".into() }, Engine { id: None, uuid: "4".into() }]
    }

    fn of(filter: &FilterArgs) -> Value {
        query(filter, &engines(), Date::parse("2026-11-22T12:00:00Z").unwrap()).into()
    }

    #[test]
    fn each_option_is_a_test_with_an_operator() {
        let filter = FilterArgs {
            engine: Some("3".into()),
            label: Some("sweep".into()),
            client: Some("a*b".into()),
            queue: Some(QueueArg::Mux),
            since: Some(When::Ago(Duration::from_secs(7200))),
            until: Some(When::At(Date::parse("2026-11-22T11:30:00Z").unwrap())),
            ..FilterArgs::default()
        };
        assert_eq!(
            of(&filter),
            json!({
                "engine_uuid": {"$eq": "three"},
                "label": {"$eq": "sweep"},
                "client_uuid": {"$glob": "a[*]b*"},
                "queue": {"$eq": "mux"},
                "submitted": {"$gte": "2026-11-22T10:00:00Z", "$lt": "2026-11-22T11:30:00Z"},
            })
        );
        assert_eq!(of(&FilterArgs::default()), json!({}));
    }

    #[test]
    fn a_number_is_an_engine_that_is_registered_or_the_beginning_of_a_uuid() {
        for (text, test) in
            [("3", json!({"$eq": "three"})), ("4", json!({"$glob": "4*"})), ("th", json!({"$glob": "th*"}))]
        {
            assert_eq!(
                of(&FilterArgs { engine: Some(text.into()), ..FilterArgs::default() }),
                json!({"engine_uuid": test})
            );
        }
        let pattern = FilterArgs { label: Some("sweep-?".into()), ..FilterArgs::default() };
        assert_eq!(of(&pattern), json!({"label": {"$glob": "sweep-?"}}));
    }

    #[test]
    fn ids_may_be_cut_short_at_the_end_and_in_the_middle() {
        assert_eq!(id("ab_1"), json!({"$glob": "ab_1*"}));
        assert_eq!(id("ab…_7_1"), json!({"$glob": "ab*_7_1*"}));
        assert_eq!(id("[x"), json!({"$glob": "[[]x*"}));
    }

    #[test]
    fn a_state_that_is_said_twice_counts_once() {
        let filter =
            FilterArgs { state: vec![StateArg::Ok, StateArg::Done, StateArg::Pending], ..FilterArgs::default() };
        assert_eq!(states(&filter), [State::Ok, State::Error, State::Aborted, State::Waiting, State::Running]);
    }
}
