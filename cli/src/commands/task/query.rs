//! `remuda task query`.

use std::process::ExitCode;

use remuda_client::records::Record;
use remuda_cluster::record_file::{self, Wrong};
use serde_json::{Map, Value};

use super::list::{print_json, print_jsonl};
use super::source::{Intent, Selection, Source};
use super::{say, words};
use crate::args::task::{QueryArgs, RecordFormat};
use crate::failure::{Failure, Outcome};
use crate::output::{Look, Table};

/// Operators of queries, for who mistypes one.
const OPERATORS: [&str; 15] = [
    "$eq", "$ne", "$lt", "$lte", "$gt", "$gte", "$in", "$nin", "$all", "$exists", "$glob", "$mod", "$and", "$or",
    "$not",
];

pub(super) async fn run(args: &QueryArgs) -> Outcome {
    let query = read(&args.query, &args.keys)?;
    let keys = (!args.keys.is_empty()).then(|| args.keys.clone());
    let usual = if keys.is_some() { RecordFormat::Table } else { RecordFormat::Json };
    let format = args.output.unwrap_or(usual);
    let mut source = Source::open(&args.source, Intent::Read).await?;
    let selection = Selection {
        query,
        states: Vec::new(),
        keys: keys.clone(),
        order: args.page.sort.into(),
        oldest_first: args.page.reverse,
        limit: args.page.limit(),
        sizes: false,
    };
    let records = source.records(&selection).await?;
    let mut fields: Vec<Map<String, Value>> = records.into_iter().map(|record: Record| record.fields).collect();
    if let Some(keys) = &keys {
        // The id is always there; it is shown where it was asked for.
        for fields in &mut fields {
            *fields = keys.iter().map(|key| (key.clone(), fields.get(key).cloned().unwrap_or_default())).collect();
        }
    }
    match format {
        RecordFormat::Json => print_json(&fields)?,
        RecordFormat::Jsonl => print_jsonl(&fields)?,
        RecordFormat::Table => print_table(&fields)?,
    }
    if args.page.limit().is_some_and(|limit| fields.len() == limit) {
        say(&format!("{}; `--limit` shows more", words::count(fields.len() as u64, "record")));
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a query, and says what is wrong with it before anybody is asked.
fn read(text: &str, keys: &[String]) -> Result<Map<String, Value>, Failure> {
    let query: Value = serde_json::from_str(text).map_err(|error| {
        Failure::usage(format!("the query is no JSON: {error}"))
            .hint("a query is a map in JSON: '{\"completed\": {\"$ne\": null}}'; quote it for the shell")
    })?;
    let named = record_file::check(&query, keys).map_err(|wrong| {
        let (what, near) = match &wrong {
            Wrong::Operator(name) => (format!("there is no operator `{name}`"), nearest(name, &OPERATORS)),
            Wrong::Fields(names) => {
                let list: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
                (format!("records have no field {}", list.join(", ")), nearest(&names[0], &record_file::fields()))
            }
            Wrong::Value(text) => (text.clone(), None),
        };
        let near = near.map(|near| format!("is `{near}` meant? ")).unwrap_or_default();
        Failure::usage(what).hint(format!(
            "{near}operators are {}; fields are {}",
            OPERATORS.join(" "),
            record_file::fields().join(" ")
        ))
    });
    named?;
    match query {
        Value::Object(map) => Ok(map),
        other => Err(Failure::usage(format!("the query is no map: {other}"))),
    }
}

fn nearest<'a>(name: &str, of: &[&'a str]) -> Option<&'a str> {
    let like = |other: &&&str| strsim::normalized_damerau_levenshtein(name, other);
    of.iter().max_by(|one, other| like(one).total_cmp(&like(other))).filter(|other| like(other) > 0.4).copied()
}

fn print_table(records: &[Map<String, Value>]) -> Result<(), Failure> {
    let Some(first) = records.first() else {
        say("no record is like that");
        return Ok(());
    };
    let header: Vec<&str> = first.keys().map(String::as_str).collect();
    let rows: Vec<Vec<String>> = records.iter().map(|record| record.values().map(cell).collect()).collect();
    // The widest last columns give way first.
    let narrow: Vec<usize> = (1..header.len()).rev().collect();
    let look = Look { narrow: &narrow, ..Look::of_stdout(&[], |_, _| None) };
    let mut out = std::io::stdout().lock();
    Table::new(&header, &rows, look).print(&mut out, &rows)?;
    Ok(())
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => words::line(text),
        other => words::line(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(query: &str, keys: &[&str]) -> String {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        read(query, &keys).err().map(|failure| failure.cause().to_string()).unwrap_or_default()
    }

    #[test]
    fn what_is_wrong_with_a_query_is_named() {
        assert_eq!(said(r#"{"completed": {"$ne": null}, "state": "ok"}"#, &["msg_id", "state"]), "");
        for (query, keys, says) in [
            (r#"{"completed": {"$nee": null}}"#, &[][..], "no operator `$nee`"),
            (r#"{"complete": null}"#, &[], "no field `complete`"),
            ("{}", &["msg_id", "stdoud"], "no field `stdoud`"),
            (r#"{"submitted": {"$lt": "soon"}}"#, &[], "`submitted`"),
            (r#"{"msg_id": {"$in": "a"}}"#, &[], "`$in`"),
            ("[]", &[], "map"),
            ("completed", &[], "no JSON"),
        ] {
            assert!(said(query, keys).contains(says), "{query}: {}", said(query, keys));
        }
    }

    #[test]
    fn a_slip_is_answered_with_what_was_meant() {
        assert_eq!(nearest("$nee", &OPERATORS), Some("$ne"));
        assert_eq!(nearest("completd", &record_file::fields()), Some("completed"));
        assert_eq!(nearest("zzzzzzzzzzzz", &record_file::fields()), None);
    }

    #[test]
    fn cells_are_one_line_each() {
        assert_eq!(cell(&serde_json::json!({"a": [1]})), r#"{"a":[1]}"#);
        assert_eq!((cell(&Value::Null), cell(&"a\nb".into())), ("-".to_owned(), "a b".to_owned()));
    }
}
