//! Process definitions in the database. Each change is a transaction of its own, which is committed before it is answered.

use remuda_proto::Date;
use remuda_proto::message::definition::{DefinitionRecord, Which};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior};
use serde_json::{Map, Value};

use crate::store::definitions::{
    DefinitionAnswer, DefinitionAsk, DefinitionRefusal, Given, check_expected, check_room,
};

/// The table. Ids are given once, whatever is deleted.
pub(super) const CREATE: &str = "CREATE TABLE process_definitions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT UNIQUE,
    definition TEXT NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL
)";

const COLUMNS: &str = "id, definition, created, updated";

/// What a step comes to: inside, what is refused.
type Step<T> = rusqlite::Result<Result<T, DefinitionRefusal>>;

/// Whether the question changes something.
pub(super) fn changes(ask: &DefinitionAsk) -> bool {
    !matches!(ask, DefinitionAsk::Get(_) | DefinitionAsk::List { .. })
}

/// Does what is asked. No transaction is open where something is to be changed.
pub(super) fn answer(connection: &mut Connection, ask: &DefinitionAsk) -> rusqlite::Result<DefinitionAnswer> {
    let done = match ask {
        DefinitionAsk::Get(which) => find(connection, which)?.map(DefinitionAnswer::One),
        DefinitionAsk::List { limit, offset } => Ok(list(connection, *limit, *offset)?),
        change => {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = apply(&transaction, change)?;
            if done.is_ok() {
                transaction.commit()?;
            }
            done.map(DefinitionAnswer::One)
        }
    };
    Ok(done.unwrap_or_else(DefinitionAnswer::Refused))
}

fn apply(transaction: &Transaction<'_>, change: &DefinitionAsk) -> Step<DefinitionRecord> {
    match change {
        DefinitionAsk::Create { given, date } => {
            if let Err(refusal) = check(transaction, given, None)? {
                return Ok(Err(refusal));
            }
            let sql = "INSERT INTO process_definitions (name, definition, created, updated) VALUES (?1, ?2, ?3, ?3)";
            transaction.execute(sql, (&given.name, &given.text, date.0))?;
            let id = u64::try_from(transaction.last_insert_rowid()).unwrap_or_default();
            Ok(Ok(DefinitionRecord { id, definition: given.definition.clone(), created: *date, updated: *date }))
        }
        DefinitionAsk::Update { which, given, expected, date } => {
            let old = match find(transaction, which)? {
                Ok(old) => old,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let checked = check(transaction, given, Some(old.id))?;
            if let Err(refusal) = checked.and_then(|()| check_expected(old.id, &old.definition, expected.as_ref())) {
                return Ok(Err(refusal));
            }
            let sql = "UPDATE process_definitions SET name = ?, definition = ?, updated = ? WHERE id = ?";
            transaction.execute(sql, (&given.name, &given.text, date.0, number(old.id)))?;
            Ok(Ok(DefinitionRecord { definition: given.definition.clone(), updated: *date, ..old }))
        }
        DefinitionAsk::Delete(which) => {
            let old = find(transaction, which)?;
            if let Ok(old) = &old {
                transaction.execute("DELETE FROM process_definitions WHERE id = ?", [number(old.id)])?;
            }
            Ok(old)
        }
        DefinitionAsk::Get(which) => find(transaction, which),
        DefinitionAsk::List { .. } => unreachable!("a list changes nothing"),
    }
}

/// Whether the name is free, and there is room; of the one that is replaced, both are.
fn check(connection: &Connection, given: &Given, replaced: Option<u64>) -> Step<()> {
    let own = replaced.map_or(-1, number);
    if let Some(name) = &given.name {
        let sql = "SELECT id FROM process_definitions WHERE name = ? AND id != ?";
        let other: Option<i64> = connection.query_row(sql, (name, own), |row| row.get(0)).optional()?;
        if let Some(id) = other.and_then(|id| u64::try_from(id).ok()) {
            return Ok(Err(DefinitionRefusal::NameTaken { name: name.clone(), id }));
        }
    }
    let sql =
        "SELECT count(*), coalesce(sum(length(CAST(definition AS BLOB))), 0) FROM process_definitions WHERE id != ?";
    let (count, bytes): (i64, i64) = connection.query_row(sql, [own], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let others = |number: i64| u64::try_from(number).unwrap_or_default();
    Ok(check_room(others(count) + 1, others(bytes) + given.size()))
}

fn find(connection: &Connection, which: &Which) -> Step<DefinitionRecord> {
    let found = match which {
        Which::Id(id) => {
            let sql = format!("SELECT {COLUMNS} FROM process_definitions WHERE id = ?");
            connection.query_row(&sql, [number(*id)], read).optional()?
        }
        Which::Name(name) => {
            let sql = format!("SELECT {COLUMNS} FROM process_definitions WHERE name = ?");
            connection.query_row(&sql, [name], read).optional()?
        }
    };
    Ok(found.ok_or_else(|| DefinitionRefusal::NotFound(which.clone())))
}

fn list(connection: &Connection, limit: u64, offset: u64) -> rusqlite::Result<DefinitionAnswer> {
    let total: i64 = connection.query_row("SELECT count(*) FROM process_definitions", [], |row| row.get(0))?;
    let sql = format!("SELECT {COLUMNS} FROM process_definitions ORDER BY id LIMIT ? OFFSET ?");
    let mut statement = connection.prepare_cached(&sql)?;
    let definitions = statement.query_map([number(limit), number(offset)], read)?.collect::<rusqlite::Result<_>>()?;
    Ok(DefinitionAnswer::List { definitions, total: u64::try_from(total).unwrap_or_default() })
}

fn read(row: &Row<'_>) -> rusqlite::Result<DefinitionRecord> {
    let text: String = row.get(1)?;
    let definition: Map<String, Value> = serde_json::from_str(&text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(1, Type::Text, Box::new(error)))?;
    let id: i64 = row.get(0)?;
    Ok(DefinitionRecord {
        id: u64::try_from(id).unwrap_or_default(),
        definition,
        created: Date(row.get(2)?),
        updated: Date(row.get(3)?),
    })
}

/// A number as SQLite has it. No row has one that is too large for it.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
