//! Reading a query from the content of a `db_request`.

use remuda_proto::Date;
use serde_json::{Map, Value};

use super::{Choices, Field, Glob, Kind, Operand, Order, Query, Test};
use crate::repr;

/// A query that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// A field that records do not have. As stock's `SQLiteDB` puts it.
    #[error("Illegal testing key(s): {{{}}}", repr::text(.0))]
    UnknownField(String),
    /// Fields in `keys` that records do not have. As stock's `SQLiteDB` puts it.
    #[error("Bad record key(s): [{}]", .0.iter().map(|key| repr::text(key)).collect::<Vec<_>>().join(", "))]
    UnknownKeys(Vec<String>),
    /// An operator that there is not. As stock's `DictDB` puts it.
    #[error("{0}")]
    UnknownOperator(String),
    /// A value of the wrong type.
    #[error("{0}")]
    Type(String),
    /// A divisor of 0.
    #[error("integer modulo by zero")]
    DivisionByZero,
}

impl Query {
    /// Reads a query: a map of fields to values, or to maps of operators to operands. All of it has to hold. Beyond what
    /// stock knows there are `$and` and `$or` with a list of queries, and `$not` with a query or, in the map of a field,
    /// with operators.
    pub fn read(query: &Value) -> Result<Self, QueryError> {
        let map = as_map("query", query)?;
        map.iter().map(|(name, value)| condition(name, value)).collect::<Result<_, _>>().map(Self::all)
    }

    fn all(mut parts: Vec<Self>) -> Self {
        if parts.len() == 1 { parts.swap_remove(0) } else { Self::All(parts) }
    }
}

impl Field {
    /// Reads the `keys` of a `db_request`: the fields to show. `None`, which null and an empty list mean: all of them.
    pub fn read_keys(keys: &Value) -> Result<Option<Vec<Self>>, QueryError> {
        let keys = match keys {
            Value::Null => return Ok(None),
            keys => as_list("keys", keys)?,
        };
        let mut unknown = Vec::new();
        let mut fields = Vec::new();
        for key in keys {
            let name = key.as_str().ok_or_else(|| wrong("keys", "a list of texts", key))?;
            match Self::from_name(name) {
                Some(field) if !fields.contains(&field) => fields.push(field),
                Some(_) => {}
                None => unknown.push(name.to_owned()),
            }
        }
        match (unknown.is_empty(), fields.is_empty()) {
            (false, _) => Err(QueryError::UnknownKeys(unknown)),
            (true, true) => Ok(None),
            (true, false) => Ok(Some(fields)),
        }
    }
}

/// What one entry of a query says.
fn condition(name: &str, value: &Value) -> Result<Query, QueryError> {
    let queries = || as_list(name, value)?.iter().map(Query::read).collect::<Result<Vec<_>, _>>();
    match name {
        "$and" => Ok(Query::All(queries()?)),
        "$or" => Ok(Query::Any(queries()?)),
        "$not" => Ok(Query::read(value)?.negated()),
        _ if name.starts_with('$') => Err(QueryError::UnknownOperator(name.to_owned())),
        _ => {
            let field = Field::from_name(name).ok_or_else(|| QueryError::UnknownField(name.to_owned()))?;
            match value {
                Value::Object(tests) => tests_of(field, tests),
                one => Ok(equals(field, one)),
            }
        }
    }
}

fn tests_of(field: Field, tests: &Map<String, Value>) -> Result<Query, QueryError> {
    tests.iter().map(|(operator, value)| test(field, operator, value)).collect::<Result<_, _>>().map(Query::all)
}

fn test(field: Field, operator: &str, value: &Value) -> Result<Query, QueryError> {
    let is = |test| Query::Test(field, test);
    let choices = || Ok(as_list(operator, value)?.iter().map(|value| operand(field, value)).collect::<Choices>());
    Ok(match operator {
        "$eq" => equals(field, value),
        "$ne" => equals(field, value).negated(),
        "$in" => is(Test::OneOf(choices()?)),
        "$nin" => is(Test::OneOf(choices()?)).negated(),
        "$lt" => is(compare(field, operator, Order::Less, value)?),
        "$lte" => is(compare(field, operator, Order::LessOrEqual, value)?),
        "$gt" => is(compare(field, operator, Order::Greater, value)?),
        "$gte" => is(compare(field, operator, Order::GreaterOrEqual, value)?),
        "$exists" if truth(value) => Query::is_null(field).negated(),
        "$exists" => Query::is_null(field),
        "$glob" => {
            let pattern = value.as_str().ok_or_else(|| wrong(operator, "a pattern", value))?;
            is(Test::Glob(Glob::new(pattern)))
        }
        "$all" => is(Test::Holds(as_list(operator, value)?.iter().map(|value| operand(field, value)).collect())),
        "$mod" => {
            let numbers: Vec<_> = as_list(operator, value)?.iter().filter_map(Value::as_i64).collect();
            let [divisor, remainder] = numbers[..] else { return Err(wrong(operator, "[divisor, remainder]", value)) };
            if divisor == 0 {
                return Err(QueryError::DivisionByZero);
            }
            is(Test::Remainder { divisor, remainder })
        }
        "$not" => tests_of(field, as_map(operator, value)?)?.negated(),
        _ => return Err(QueryError::UnknownOperator(operator.to_owned())),
    })
}

fn equals(field: Field, value: &Value) -> Query {
    Query::Test(field, Test::OneOf([operand(field, value)].into_iter().collect()))
}

fn compare(field: Field, operator: &str, order: Order, value: &Value) -> Result<Test, QueryError> {
    let operand = operand(field, value);
    let comparable = match (field.kind(), &operand) {
        (Kind::Date, Operand::Date(_)) | (Kind::Text, Operand::Text(_)) => true,
        (Kind::Json, Operand::Text(_)) => field == Field::Label,
        (Kind::Json, Operand::Json(Value::Number(_))) => field == Field::Label,
        _ => false,
    };
    if comparable {
        return Ok(Test::Compare(order, operand));
    }
    let what = match field.kind() {
        Kind::Date => "a date",
        Kind::Text => "a text",
        Kind::Json if field == Field::Label => "a text or a number",
        Kind::Json | Kind::Buffers => "what has no order",
    };
    let text = format!("`{operator}` cannot compare `{}`, which is {what}, with {}", field.name(), repr::value(value));
    Err(QueryError::Type(text))
}

/// A value as it is compared with that field. A text that is no date is no date's equal.
fn operand(field: Field, value: &Value) -> Operand {
    match (field.kind(), value) {
        (_, Value::Null) => Operand::Null,
        (Kind::Date, Value::String(text)) => {
            Date::parse(text).map_or_else(|| Operand::Json(value.clone()), Operand::Date)
        }
        (_, Value::String(text)) => Operand::Text(text.clone()),
        (_, other) => Operand::Json(other.clone()),
    }
}

/// Whether Python takes a value for true.
fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

fn as_map<'a>(name: &str, value: &'a Value) -> Result<&'a Map<String, Value>, QueryError> {
    value.as_object().ok_or_else(|| wrong(name, "a map", value))
}

fn as_list<'a>(name: &str, value: &'a Value) -> Result<&'a Vec<Value>, QueryError> {
    value.as_array().ok_or_else(|| wrong(name, "a list", value))
}

fn wrong(name: &str, what: &str, value: &Value) -> QueryError {
    QueryError::Type(format!("`{name}` is not {what}: {}", repr::value(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_makes_no_sense_is_named() {
        for (query, error) in [
            (json!([]), "`query` is not a map: []"),
            (json!({"nosuch": null}), "Illegal testing key(s): {'nosuch'}"),
            (json!({"header.msg_id": "a"}), "Illegal testing key(s): {'header.msg_id'}"),
            (json!({"$nor": []}), "$nor"),
            (json!({"msg_id": {"$foo": 1}}), "$foo"),
            (json!({"msg_id": {"a": 1}}), "a"),
            (json!({"msg_id": {"$in": "abc"}}), "`$in` is not a list: 'abc'"),
            (json!({"$and": {}}), "`$and` is not a list: {}"),
            (json!({"$or": [7]}), "`query` is not a map: 7"),
            (json!({"msg_id": {"$not": "a"}}), "`$not` is not a map: 'a'"),
            (json!({"label": {"$glob": 5}}), "`$glob` is not a pattern: 5"),
            (json!({"label": {"$mod": [2]}}), "`$mod` is not [divisor, remainder]: [2]"),
            (json!({"label": {"$mod": [0, 0]}}), "integer modulo by zero"),
            (json!({"submitted": {"$lt": "soon"}}), "`$lt` cannot compare `submitted`, which is a date, with 'soon'"),
            (json!({"stdout": {"$gt": null}}), "`$gt` cannot compare `stdout`, which is a text, with None"),
            (json!({"header": {"$gt": {}}}), "`$gt` cannot compare `header`, which is what has no order, with {}"),
        ] {
            assert_eq!(Query::read(&query).map_err(|error| error.to_string()), Err(error.to_owned()), "{query}");
        }
    }

    #[test]
    fn keys_are_fields_or_nothing_for_all() {
        for keys in [json!(null), json!([])] {
            assert_eq!(Field::read_keys(&keys), Ok(None));
        }
        let fields = Field::read_keys(&json!(["queue", "msg_id", "queue"]));
        assert_eq!(fields, Ok(Some(vec![Field::Queue, Field::MsgId])));
        for (keys, error) in [
            (json!("msg_id"), "`keys` is not a list: 'msg_id'"),
            (json!([1]), "`keys` is not a list of texts: 1"),
            (json!(["a", "msg_id", "b"]), "Bad record key(s): ['a', 'b']"),
        ] {
            assert_eq!(Field::read_keys(&keys).map_err(|error| error.to_string()), Err(error.to_owned()));
        }
    }

    #[test]
    fn every_field_is_read_by_its_name() {
        for field in Field::ALL {
            assert_eq!(Field::from_name(field.name()), Some(*field));
        }
    }
}
