//! Which records are asked for: the query language of `db_request` as a tree of typed tests.
//!
//! A query is read once ([`Query::read`]), and then either evaluated on a record ([`Query::matches`]) or compiled to SQL
//! that finds the same records. It means what its operators say; where the stores of a stock controller disagree with each
//! other or with themselves (`controller/dictdb.py: filters`, `controller/sqlitedb.py: operators`), `docs/differences.md`
//! says what holds here.

mod field;
mod glob;
mod matches;
mod read;

pub use field::{Field, Kind};
pub use glob::Glob;
pub use read::QueryError;

use remuda_proto::{Date, EngineUuid, MsgId, Set};
use serde_json::Value;

/// A condition on records. Unlike in SQL it is either true or false: a comparison with what is not there is false.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// All of these hold; none of them: every record.
    All(Vec<Self>),
    /// One of these holds; none of them: no record.
    Any(Vec<Self>),
    /// This does not hold.
    Not(Box<Self>),
    /// A test of one field.
    Test(Field, Test),
}

/// A test of the value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// It is one of these (`$eq`, `$in`).
    OneOf(Choices),
    /// It comes before or after this in the order of dates, texts or numbers. Nothing is before or after null.
    Compare(Order, Operand),
    /// It is a text of this form (`$glob`).
    Glob(Glob),
    /// It is a list with all of these in it, or all of these are it (`$all`).
    Holds(Vec<Operand>),
    /// It is a whole number that leaves this remainder (`$mod`), which has the sign of the divisor as in Python.
    Remainder {
        /// What it is divided by; not 0.
        divisor: i64,
        /// What is left.
        remainder: i64,
    },
}

/// How two values compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `$lt`.
    Less,
    /// `$lte`.
    LessOrEqual,
    /// `$gt`.
    Greater,
    /// `$gte`.
    GreaterOrEqual,
}

/// A value to compare with, read for the field that it is compared with: a date for a date.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// Null, which is the value of what is not there.
    Null,
    /// A date.
    Date(Date),
    /// A text.
    Text(String),
    /// Anything else.
    Json(Value),
}

/// Values of which one is looked for. Equal ones are one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choices {
    /// Whether null is among them.
    pub null: bool,
    /// The dates.
    pub dates: Set<Date>,
    /// The texts.
    pub texts: Set<String>,
    /// The others.
    pub others: Vec<Value>,
}

impl Query {
    /// Every record.
    pub fn everything() -> Self {
        Self::All(Vec::new())
    }

    /// Those of these requests.
    pub fn tasks(ids: &[MsgId]) -> Self {
        let texts = ids.iter().map(|id| id.as_str().to_owned()).collect();
        Self::Test(Field::MsgId, Test::OneOf(Choices { texts, ..Choices::default() }))
    }

    /// Those of requests that ended.
    pub fn finished() -> Self {
        Self::is_null(Field::Received).negated()
    }

    /// Those of requests that ended on this engine.
    pub fn finished_on(engine: &EngineUuid) -> Self {
        let engine = Operand::Text(engine.as_str().to_owned());
        Self::All(vec![Self::finished(), Self::Test(Field::EngineUuid, Test::OneOf([engine].into_iter().collect()))])
    }

    /// The ids among which all records that it can hold for are, if it says so.
    pub fn named_tasks(&self) -> Option<&Set<String>> {
        match self {
            Self::Test(Field::MsgId, Test::OneOf(choices)) => Some(&choices.texts),
            Self::All(parts) => parts.iter().find_map(Self::named_tasks),
            _ => None,
        }
    }

    /// Whether it looks at this field.
    pub fn looks_at(&self, field: Field) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().any(|part| part.looks_at(field)),
            Self::Not(part) => part.looks_at(field),
            Self::Test(tested, _) => *tested == field,
        }
    }

    fn is_null(field: Field) -> Self {
        Self::Test(field, Test::OneOf(Choices { null: true, ..Choices::default() }))
    }

    fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }
}

impl FromIterator<Operand> for Choices {
    fn from_iter<T: IntoIterator<Item = Operand>>(operands: T) -> Self {
        let mut choices = Self::default();
        for operand in operands {
            match operand {
                Operand::Null => choices.null = true,
                Operand::Date(date) => drop(choices.dates.insert(date)),
                Operand::Text(text) => drop(choices.texts.insert(text)),
                Operand::Json(value) => choices.others.push(value),
            }
        }
        choices
    }
}
