//! Task records without a hub: the database of a controller that has stopped, asked in the words of a `db_request`.

use bytes::Bytes;
use remuda_proto::{MsgId, RemoteError};
use serde_json::Value;

use crate::find::{Field, Query, QueryError};
use crate::query::db;
use crate::store::{OpenError, SqliteConfig, SqliteStore, StoreError, TaskStore, Write};

/// The database of a controller that has stopped. One that runs may have it open too: then it is read as it is at the moment.
#[derive(Debug)]
pub struct RecordFile {
    store: SqliteStore,
}

impl RecordFile {
    /// Opens a database for [`Self::purge`]. `named` says that somebody named the table: otherwise, if the database has
    /// another one and no more, that is taken.
    ///
    /// # Errors
    /// When there is none, or it cannot be written, or was written by another version.
    pub fn open(config: &SqliteConfig, named: bool) -> Result<Self, OpenError> {
        Ok(Self { store: SqliteStore::open_existing(config, named, true)? })
    }

    /// Opens a database to read it. Nothing in it changes.
    ///
    /// # Errors
    /// When there is none, or it cannot be read, or was written by another version.
    pub fn open_read_only(config: &SqliteConfig, named: bool) -> Result<Self, OpenError> {
        Ok(Self { store: SqliteStore::open_existing(config, named, false)? })
    }

    /// Answers the content of a `db_request`: the content of the `db_reply`, and its buffers.
    ///
    /// # Errors
    /// What a hub would answer.
    pub fn answer(&mut self, content: &Value) -> Result<(Value, Vec<Bytes>), RemoteError> {
        match content {
            Value::Object(content) => db::answer_from(&mut self.store, content),
            other => Err(RemoteError::new("TypeError", format!("the content is not a map: {other}"))),
        }
    }

    /// Drops the records of these requests, in whichever state they are. It lasts when this returns.
    ///
    /// # Errors
    /// When the database cannot be changed; then nothing, or a part, is dropped.
    pub fn purge(&mut self, ids: &[MsgId]) -> Result<(), StoreError> {
        self.store.write(Write::Purge(Query::tasks(ids)));
        while self.store.pending() > 0 {
            if let Some(refused) = self.store.commit()?.refused.into_iter().next() {
                return Err(refused);
            }
        }
        Ok(())
    }
}

/// What is wrong with a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// There is no such operator.
    Operator(String),
    /// There are no such fields; one at least.
    Fields(Vec<String>),
    /// A value of the wrong type; in words.
    Value(String),
}

/// Says what is wrong with a query or with the fields to show, if anything is.
///
/// # Errors
/// The first thing.
pub fn check(query: &Value, keys: &[String]) -> Result<(), Wrong> {
    let wrong = |error| match error {
        QueryError::UnknownField(name) => Wrong::Fields(vec![name]),
        QueryError::UnknownKeys(names) => Wrong::Fields(names),
        QueryError::UnknownOperator(name) => Wrong::Operator(name),
        other => Wrong::Value(other.to_string()),
    };
    Query::read(query).map_err(wrong)?;
    Field::read_keys(&Value::from(keys)).map_err(wrong)?;
    Ok(())
}

/// The names of all fields.
pub fn fields() -> Vec<&'static str> {
    Field::ALL.iter().map(|field| field.name()).collect()
}
