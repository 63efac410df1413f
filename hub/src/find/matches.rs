//! Whether a query holds for a record.

use std::cmp::Ordering;

use remuda_proto::Date;
use serde_json::Value;

use super::{Choices, Operand, Order, Query, Test};
use crate::record::{Datum, TaskRecord};

impl Query {
    /// Whether it holds for this record.
    pub fn matches(&self, record: &TaskRecord) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.matches(record)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(record)),
            Self::Not(part) => !part.matches(record),
            Self::Test(field, test) => test.matches(&record.datum(*field)),
        }
    }
}

impl Test {
    fn matches(&self, value: &Datum<'_>) -> bool {
        match self {
            Self::OneOf(choices) => choices.contains(value),
            Self::Compare(order, operand) => compare(value, operand).is_some_and(|found| order.allows(found)),
            Self::Glob(glob) => matches!(value, Datum::Text(text) if glob.matches(text)),
            Self::Holds(operands) => operands.iter().all(|operand| holds(value, operand)),
            Self::Remainder { divisor, remainder } => {
                let Datum::Json(Value::Number(number)) = value else { return false };
                number.as_i64().is_some_and(|number| modulo(number, *divisor) == i128::from(*remainder))
            }
        }
    }
}

impl Order {
    fn allows(self, found: Ordering) -> bool {
        match self {
            Self::Less => found.is_lt(),
            Self::LessOrEqual => found.is_le(),
            Self::Greater => found.is_gt(),
            Self::GreaterOrEqual => found.is_ge(),
        }
    }
}

impl Choices {
    fn contains(&self, value: &Datum<'_>) -> bool {
        match value {
            Datum::Null => self.null,
            Datum::Date(date) => self.dates.contains(date),
            Datum::Text(text) => self.texts.contains(&**text),
            Datum::Json(value) => self.others.iter().any(|other| same(value, other)),
            Datum::Bytes => false,
        }
    }
}

fn compare(value: &Datum<'_>, operand: &Operand) -> Option<Ordering> {
    match (value, operand) {
        (Datum::Date(date), Operand::Date(other)) => Some(date.cmp(other)),
        (Datum::Text(text), Operand::Text(other)) => Some((**text).cmp(other)),
        (Datum::Json(Value::Number(number)), Operand::Json(Value::Number(other))) => {
            number.as_f64()?.partial_cmp(&other.as_f64()?)
        }
        _ => None,
    }
}

/// Whether a list has this in it; another value has itself.
fn holds(value: &Datum<'_>, operand: &Operand) -> bool {
    let operand_json = || match operand {
        Operand::Null => Value::Null,
        Operand::Date(date) => date.to_string().into(),
        Operand::Text(text) => text.as_str().into(),
        Operand::Json(value) => value.clone(),
    };
    match (value, operand) {
        (Datum::Json(Value::Array(items)), _) => items.iter().any(|item| same(item, &operand_json())),
        (Datum::Json(value), _) => same(value, &operand_json()),
        (Datum::Null, Operand::Null) => true,
        (Datum::Date(date), Operand::Date(other)) => date == other,
        (Datum::Text(text), Operand::Text(other)) => **text == **other,
        _ => false,
    }
}

/// The remainder with the sign of the divisor.
fn modulo(number: i64, divisor: i64) -> i128 {
    let (number, divisor) = (i128::from(number), i128::from(divisor));
    ((number % divisor) + divisor) % divisor
}

/// Whether Python takes two values for equal: 1 and 1.0 are, and a date is the same however it is written.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (Value::String(a), Value::String(b)) => {
            a == b || Date::parse(a).is_some_and(|date| Date::parse(b) == Some(date))
        }
        (a, b) => a == b,
    }
}
