//! Queries as conditions of SQL.
//!
//! A condition holds for every row for whose record the query holds. It may hold for more: then it says that it is not
//! exact, and who asks looks at the records that it finds. No condition is null: what SQL would not know is false here.

use rusqlite::types::Value;

use crate::find::{Choices, Field, Kind, Operand, Order, Query, Test};

/// A query in SQL.
#[derive(Debug, PartialEq)]
pub(super) struct Compiled {
    /// What follows `WHERE`.
    pub(super) condition: String,
    /// The values of its question marks.
    pub(super) values: Vec<Value>,
    /// Whether it holds only for records for which the query holds.
    pub(super) exact: bool,
}

/// Compiles a query.
pub(super) fn compile(query: &Query) -> Compiled {
    match query {
        Query::All(parts) => join(parts, " AND ", "1"),
        Query::Any(parts) => join(parts, " OR ", "0"),
        Query::Not(part) => {
            let Compiled { condition, values, exact } = compile(part);
            // What is left out of more than there is would be too little.
            if exact { Compiled { condition: format!("NOT ({condition})"), values, exact } } else { Compiled::any() }
        }
        Query::Test(field, test) => compile_test(*field, test),
    }
}

fn join(parts: &[Query], with: &str, nothing: &str) -> Compiled {
    let mut joined = Compiled { condition: String::new(), values: Vec::new(), exact: true };
    for part in parts {
        let Compiled { condition, values, exact } = compile(part);
        joined.condition.push_str(if joined.condition.is_empty() { "" } else { with });
        joined.condition.push_str(&condition);
        joined.values.extend(values);
        joined.exact &= exact;
    }
    let condition = if parts.is_empty() { nothing } else { &joined.condition };
    Compiled { condition: format!("({condition})"), ..joined }
}

fn compile_test(field: Field, test: &Test) -> Compiled {
    match test {
        Test::OneOf(choices) => one_of(field, choices),
        Test::Compare(order, operand) => compare(field, *order, operand),
        Test::Glob(glob) => match field.kind() {
            Kind::Text | Kind::Json if has_text(field) => begins(field, &glob.prefix()),
            _ => Compiled::none(),
        },
        Test::Holds(operands) if operands.is_empty() => Compiled::exact("1", []),
        Test::Holds(_) | Test::Remainder { .. } => Compiled::any(),
    }
}

fn one_of(field: Field, choices: &Choices) -> Compiled {
    let column = field.name();
    let mut parts = Vec::new();
    if choices.null {
        parts.push(is_null(field));
    }
    if !choices.texts.is_empty() && has_text(field) {
        let texts: Vec<_> = choices.texts.iter().collect();
        parts.push(match &texts[..] {
            // Not `IS`, for which SQLite would not take an index of what is not null.
            [one] => {
                let condition = format!("({column} IS NOT NULL AND {column} = ?)");
                Compiled::exact(condition, [Value::Text((*one).clone())])
            }
            // SQLite takes a text in a list for ended at its first zero byte.
            many if many.iter().any(|text| text.contains('\0')) => Compiled::any(),
            many => listed(column, &serde_json::json!(many)),
        });
    }
    if !choices.dates.is_empty() && field.kind() == Kind::Date {
        let dates: Vec<_> = choices.dates.iter().map(|date| date.0).collect();
        parts.push(listed(column, &serde_json::json!(dates)));
    }
    if !choices.others.is_empty() {
        match field.kind() {
            Kind::Text | Kind::Date => {}
            // A label that is no text is in the metadata alone.
            Kind::Json if field == Field::Label => parts.push(Compiled::at_most("label IS NULL")),
            Kind::Json | Kind::Buffers => parts.push(Compiled::any()),
        }
    }
    let mut parts = parts.into_iter();
    let Some(mut one_of) = parts.next() else { return Compiled::none() };
    for part in parts {
        one_of.condition = format!("({} OR {})", one_of.condition, part.condition);
        one_of.values.extend(part.values);
        one_of.exact &= part.exact;
    }
    one_of
}

fn is_null(field: Field) -> Compiled {
    match field {
        Field::Header | Field::Metadata | Field::Content | Field::Buffers | Field::State => Compiled::none(),
        Field::ResultHeader | Field::ResultMetadata | Field::ResultContent | Field::ResultBuffers => {
            Compiled::exact("received IS NULL", [])
        }
        Field::Label => Compiled::at_most("label IS NULL"),
        field => Compiled::exact(format!("{} IS NULL", field.name()), []),
    }
}

fn compare(field: Field, order: Order, operand: &Operand) -> Compiled {
    let sign = match order {
        Order::Less => "<",
        Order::LessOrEqual => "<=",
        Order::Greater => ">",
        Order::GreaterOrEqual => ">=",
    };
    let value = match operand {
        Operand::Date(date) if field.kind() == Kind::Date => Value::Integer(date.0),
        Operand::Text(text) if has_text(field) => Value::Text(text.clone()),
        _ => return Compiled::any(),
    };
    let column = field.name();
    Compiled::exact(format!("({column} IS NOT NULL AND {column} {sign} ?)"), [value])
}

/// The texts that begin with this.
fn begins(field: Field, prefix: &str) -> Compiled {
    let column = field.name();
    if prefix.is_empty() {
        return Compiled::at_most(&format!("{column} IS NOT NULL"));
    }
    let mut begins = Compiled::at_most(&format!("({column} IS NOT NULL AND {column} >= ?)"));
    begins.values.push(Value::Text(prefix.to_owned()));
    if let Some(after) = after_all(prefix) {
        begins.condition = format!("({} AND {column} < ?)", begins.condition);
        begins.values.push(Value::Text(after));
    }
    begins
}

/// The first text after all that begin with this, if the last character has a next one.
fn after_all(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    let last = chars.pop()?;
    let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32)?;
    chars.push(next);
    Some(chars.into_iter().collect())
}

/// Values of which one is in the column. One parameter however many there are, so that the statement stays the same.
fn listed(column: &str, values: &serde_json::Value) -> Compiled {
    let condition = format!("({column} IS NOT NULL AND {column} IN (SELECT value FROM json_each(?)))");
    Compiled::exact(condition, [Value::Text(values.to_string())])
}

/// Whether a column of this field holds its texts.
fn has_text(field: Field) -> bool {
    field.kind() == Kind::Text || field == Field::Label
}

impl Compiled {
    fn exact(condition: impl Into<String>, values: impl Into<Vec<Value>>) -> Self {
        Self { condition: condition.into(), values: values.into(), exact: true }
    }

    /// For no record.
    fn none() -> Self {
        Self::exact("0", [])
    }

    /// Perhaps for each record.
    fn any() -> Self {
        Self::at_most("1")
    }

    /// Not for other records.
    fn at_most(condition: &str) -> Self {
        Self { condition: condition.to_owned(), values: Vec::new(), exact: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn compiled(query: &serde_json::Value) -> (String, bool) {
        let compiled = compile(&Query::read(query).unwrap());
        assert_eq!(compiled.condition.matches('?').count(), compiled.values.len(), "{query}");
        (compiled.condition, compiled.exact)
    }

    #[test]
    fn what_people_ask_compiles_to_columns_that_are_indexed() {
        for (query, condition) in [
            (json!({"msg_id": "a"}), "(msg_id IS NOT NULL AND msg_id = ?)"),
            (json!({"completed": null}), "completed IS NULL"),
            (json!({"submitted": {"$gte": "2026-11-22T00:00:00Z"}}), "(submitted IS NOT NULL AND submitted >= ?)"),
            (
                json!({"engine_uuid": {"$in": ["a", "b"]}}),
                "(engine_uuid IS NOT NULL AND engine_uuid IN (SELECT value FROM json_each(?)))",
            ),
            (json!({"queue": {"$ne": "mux"}}), "NOT ((queue IS NOT NULL AND queue = ?))"),
            (
                json!({"label": "x", "completed": {"$ne": null}}),
                "((label IS NOT NULL AND label = ?) AND NOT (completed IS NULL))",
            ),
        ] {
            assert_eq!(compiled(&query), (condition.to_owned(), true), "{query}");
        }
    }

    #[test]
    fn what_sql_cannot_know_is_looked_at_again() {
        for (query, condition) in [
            (json!({"label": {"$glob": "ab*"}}), "((label IS NOT NULL AND label >= ?) AND label < ?)"),
            (json!({"label": {"$not": {"$glob": "ab*"}}}), "1"),
            (json!({"label": 5}), "label IS NULL"),
            (json!({"header": {"$eq": {}}}), "1"),
        ] {
            assert_eq!(compiled(&query), (condition.to_owned(), false), "{query}");
        }
    }

    #[test]
    fn the_text_after_a_prefix_skips_what_is_no_character() {
        assert_eq!(after_all("ab"), Some("ac".to_owned()));
        assert_eq!(after_all("a\u{d7ff}"), Some("a\u{e000}".to_owned()));
        assert_eq!(after_all("\u{10ffff}"), None);
    }
}
