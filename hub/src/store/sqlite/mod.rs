//! Records in an SQLite database, which outlive the controller.
//!
//! What is written is collected for up to [`COMMIT_AFTER`] and committed at once. A request whose record is still in that
//! batch is changed there, so a short task costs one insertion. Should the database fail, what it lost is told, and the
//! next batch is tried like any other.

mod compile;
mod row;
mod schema;

use std::path::PathBuf;
use std::time::Duration;

use remuda_proto::{Instant, Map, MsgId};
use rusqlite::{Connection, params_from_iter};

use self::compile::{Compiled, compile};
use super::{Buffers, StoreError, StoreState, TaskStore, Write};
use crate::find::{Field, Query};
use crate::record::TaskRecord;

pub use schema::OpenError;

/// How long a change may wait before it is committed.
pub const COMMIT_AFTER: Duration = Duration::from_millis(100);
/// With this many changes a batch is committed at once.
pub const BATCH_CHANGES: usize = 5_000;
/// With new records of this size a batch is committed at once.
pub const BATCH_BYTES: usize = 16 << 20;

/// Which database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteConfig {
    /// The file (`SQLiteDB.location` and `SQLiteDB.filename` in stock).
    pub path: PathBuf,
    /// The table (`SQLiteDB.table` in stock). If there is one by that name which is not ours, such as stock's own, the
    /// name with `_1`, `_2` and so on is taken.
    pub table: String,
}

impl SqliteConfig {
    /// Name of the file in stock.
    pub const FILENAME: &str = "tasks.db";
    /// Name of the table in stock.
    pub const TABLE: &str = "ipython-tasks";

    /// The usual table in this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), table: Self::TABLE.to_owned() }
    }
}

/// Keeps records in a database.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    statements: Statements,
    /// New records that are not in the database yet, in the order in which they came. None is in the database.
    fresh: Map<MsgId, TaskRecord>,
    /// Size of all that came for the records in `fresh`, in bytes: no less than what they take.
    fresh_bytes: usize,
    /// Changes since the last commit.
    changes: usize,
    /// When to commit: set while there are changes.
    commit_at: Option<Instant>,
    /// Whether a transaction is open. Only while `commit_at` is set.
    in_transaction: bool,
    /// What was lost while a question was answered: for the next who can be told.
    lost: Option<StoreError>,
}

/// The texts of the statements, with the name of the table.
#[derive(Debug)]
struct Statements {
    table: String,
    exists: String,
    insert: String,
    assign: String,
    finish: String,
    resubmit: String,
    history: String,
    alike: String,
}

impl SqliteStore {
    /// Opens a database, which is made if it is not there, and brought to the newest schema.
    ///
    /// # Errors
    /// Says which file, why, and what to do.
    pub fn open(config: &SqliteConfig) -> Result<Self, OpenError> {
        let (connection, table) = schema::open(config)?;
        Ok(Self {
            connection,
            statements: Statements::new(&table),
            fresh: Map::default(),
            fresh_bytes: 0,
            changes: 0,
            commit_at: None,
            in_transaction: false,
            lost: None,
        })
    }

    fn add(&mut self, record: TaskRecord) -> rusqlite::Result<()> {
        let known = self.fresh.contains_key(&record.msg_id)
            || self.connection.prepare_cached(&self.statements.exists)?.exists([record.msg_id.as_str()])?;
        if !known {
            self.fresh_bytes += record.size_bytes();
            self.fresh.insert(record.msg_id.clone(), record);
        }
        Ok(())
    }

    fn apply(&mut self, write: Write) -> rusqlite::Result<()> {
        match write {
            Write::Add(record) => return self.add(record),
            Write::Assign { msg_id, engine } => match self.fresh.get_mut(&msg_id) {
                Some(record) => record.engine = Some(engine),
                None => self.update(|sql| &sql.assign, (engine.as_str(), msg_id.as_str()))?,
            },
            Write::Finish { msg_id, outcome } => {
                if let Some(record) = self.fresh.get_mut(&msg_id) {
                    self.fresh_bytes += outcome.body.size_bytes();
                    record.outcome = Some(outcome);
                } else if let Some(packer) = self.packer_of(&msg_id)? {
                    let values = row::of_outcome(packer, &outcome);
                    self.update(|sql| &sql.finish, params_from_iter(values.into_iter().chain([row::text(&msg_id)])))?;
                }
            }
            Write::Output { msg_id, piece } => {
                if let Some(record) = self.fresh.get_mut(&msg_id) {
                    self.fresh_bytes += piece.size_bytes();
                    record.add_output(piece);
                } else if let Some(packer) = self.packer_of(&msg_id)? {
                    let (column, grows, value) = row::of_piece(packer, piece);
                    let table = &self.statements.table;
                    let old = if grows { format!("{column} || ") } else { String::new() };
                    let sql = format!("UPDATE {table} SET {column} = {old}? WHERE msg_id = ?");
                    self.begin()?;
                    self.connection.prepare_cached(&sql)?.execute((value, msg_id.as_str()))?;
                }
            }
            Write::Resubmit { msg_id, again } => match self.fresh.get_mut(&msg_id) {
                Some(record) => record.resubmitted = Some(again),
                None => self.update(|sql| &sql.resubmit, (again.as_str(), msg_id.as_str()))?,
            },
            Write::Purge(query) => self.purge(&query)?,
        }
        Ok(())
    }

    fn update(&mut self, of: fn(&Statements) -> &String, params: impl rusqlite::Params) -> rusqlite::Result<()> {
        self.begin()?;
        self.connection.prepare_cached(of(&self.statements))?.execute(params)?;
        Ok(())
    }

    /// How the messages of a record in the database are packed; `None` if there is no such record.
    fn packer_of(&self, msg_id: &MsgId) -> rusqlite::Result<Option<remuda_proto::Packer>> {
        let sql = format!("SELECT packer FROM {} WHERE msg_id = ?", self.statements.table);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query([msg_id.as_str()])?;
        rows.next()?.map(|found| row::packer(found, 0)).transpose()
    }

    fn purge(&mut self, query: &Query) -> rusqlite::Result<()> {
        self.settle()?;
        self.begin()?;
        let compiled = compile(query);
        let table = &self.statements.table;
        if compiled.exact {
            let sql = format!("DELETE FROM {table} WHERE {}", compiled.condition);
            self.connection.execute(&sql, params_from_iter(compiled.values))?;
            return Ok(());
        }
        let sql = format!("DELETE FROM {table} WHERE msg_id = ?");
        for record in self.select(query, compiled, Buffers::default())? {
            self.connection.prepare_cached(&sql)?.execute([record.msg_id.as_str()])?;
        }
        Ok(())
    }

    fn select(&self, query: &Query, compiled: Compiled, buffers: Buffers) -> rusqlite::Result<Vec<TaskRecord>> {
        let buffers = Buffers {
            requests: buffers.requests || query.looks_at(Field::Buffers),
            results: buffers.results || query.looks_at(Field::ResultBuffers),
        };
        let Compiled { condition, values, exact } = compiled;
        let columns = row::columns(buffers);
        let sql = format!("SELECT {columns} FROM {} WHERE {condition} ORDER BY seq", self.statements.table);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let record = row::read(row)?;
            if exact || query.matches(&record) {
                found.push(record);
            }
        }
        Ok(found)
    }

    fn begin(&mut self) -> rusqlite::Result<()> {
        if !self.in_transaction {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
            self.in_transaction = true;
        }
        Ok(())
    }

    /// Brings new records into the database, without a commit. One that it does not take is lost, the others are not.
    fn settle(&mut self) -> rusqlite::Result<()> {
        if self.fresh.is_empty() {
            return Ok(());
        }
        self.begin()?;
        self.fresh_bytes = 0;
        let mut refused = Ok(());
        let mut statement = self.connection.prepare_cached(&self.statements.insert)?;
        for (_, record) in std::mem::take(&mut self.fresh) {
            if let Err(error) = statement.execute(params_from_iter(row::of_record(&record))) {
                refused = Err(error);
            }
        }
        refused
    }

    fn commit(&mut self) -> rusqlite::Result<()> {
        self.commit_at = None;
        self.changes = 0;
        let settled = self.settle();
        if !self.in_transaction {
            // Nothing got as far as the database, or it lost the transaction.
            return settled;
        }
        let committed = self.connection.execute_batch("COMMIT");
        if committed.is_err() && !self.connection.is_autocommit() {
            // Whatever comes of it, the next batch begins anew.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        self.in_transaction = false;
        settled.and(committed)
    }

    /// The state after a statement failed: SQLite ends a transaction by itself when the disk is full, say.
    fn note(&mut self, done: rusqlite::Result<()>) -> Result<(), StoreError> {
        self.in_transaction = self.in_transaction && !self.connection.is_autocommit();
        done.map_err(|error| StoreError::Failed(error.to_string()))
    }

    /// Brings everything into the database that a question has to see.
    fn answerable(&mut self) {
        let settled = self.settle();
        if let Err(error) = self.note(settled) {
            self.lost = Some(error);
        }
    }
}

impl TaskStore for SqliteStore {
    fn write(&mut self, now: Instant, write: Write) -> Result<(), StoreError> {
        self.commit_at.get_or_insert(now + COMMIT_AFTER);
        self.changes += 1;
        let applied = self.apply(write);
        let applied = self.note(applied);
        if self.changes >= BATCH_CHANGES || self.fresh_bytes >= BATCH_BYTES {
            let flushed = self.flush();
            return applied.and(flushed);
        }
        applied
    }

    fn find(&mut self, query: &Query, buffers: Buffers) -> Result<Vec<TaskRecord>, StoreError> {
        self.answerable();
        self.select(query, compile(query), buffers).map_err(|error| StoreError::Failed(error.to_string()))
    }

    fn history(&mut self) -> Result<Vec<MsgId>, StoreError> {
        self.answerable();
        let read = || -> rusqlite::Result<Vec<MsgId>> {
            let mut statement = self.connection.prepare_cached(&self.statements.history)?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0).map(MsgId::from))?;
            rows.collect()
        };
        read().map_err(|error| StoreError::Failed(error.to_string()))
    }

    fn ids(&mut self, prefix: &str, most: usize) -> Result<Vec<MsgId>, StoreError> {
        self.answerable();
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        // Every text that begins so sorts before the same with the last of all characters.
        let end = format!("{prefix}{}", char::MAX);
        let read = || -> rusqlite::Result<Vec<MsgId>> {
            let mut statement = self.connection.prepare_cached(&self.statements.alike)?;
            let rows = statement.query_map((prefix, end, most), |row| row.get::<_, String>(0).map(MsgId::from))?;
            rows.collect()
        };
        read().map_err(|error| StoreError::Failed(error.to_string()))
    }

    fn state(&self) -> StoreState {
        let pragma = |name: &str| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).ok();
        let bytes =
            pragma("page_count").zip(pragma("page_size")).and_then(|(count, size)| u64::try_from(count * size).ok());
        StoreState { kind: "sqlite", records: None, bytes, unsaved: self.changes as u64 }
    }

    fn deadline(&self) -> Option<Instant> {
        self.commit_at
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let committed = self.commit();
        let committed = self.note(committed);
        let before = self.lost.take().map_or(Ok(()), Err);
        before.and(committed)
    }

    fn check(&self) {
        let waits = !self.fresh.is_empty() || self.in_transaction || self.changes > 0;
        assert!(!waits || self.commit_at.is_some(), "changes that nobody will commit");
        assert!(self.changes < BATCH_CHANGES, "{} changes", self.changes);
        for (msg_id, record) in &self.fresh {
            assert_eq!(*msg_id, record.msg_id);
        }
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // The hub has flushed when it ended; this is for a hub that did not, and who would be told is gone.
        let _ = self.flush();
    }
}

impl Statements {
    fn new(table: &str) -> Self {
        let (names, places) = row::inserted();
        Self {
            exists: format!("SELECT 1 FROM {table} WHERE msg_id = ?"),
            insert: format!("INSERT INTO {table} ({names}) VALUES ({places})"),
            assign: format!("UPDATE {table} SET engine_uuid = ? WHERE msg_id = ?"),
            finish: format!("UPDATE {table} SET {} WHERE msg_id = ?", row::finished()),
            resubmit: format!("UPDATE {table} SET resubmitted = ? WHERE msg_id = ?"),
            history: format!("SELECT msg_id FROM {table} ORDER BY submitted, seq"),
            alike: format!("SELECT msg_id FROM {table} WHERE msg_id >= ? AND msg_id < ? ORDER BY msg_id LIMIT ?"),
            table: table.to_owned(),
        }
    }
}
