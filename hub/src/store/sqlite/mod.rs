//! Records in an SQLite database, which outlive the controller.
//!
//! What is written is kept in memory until it is committed, and a commit that fails changes nothing about that: it is tried
//! again. When many changes are brought into the database at once, a request whose record is among them is changed before
//! it gets there, so that a short task costs one insertion; what else becomes of a record meanwhile is one update.

mod compile;
mod definitions;
mod existing;
mod keep;
mod recover;
mod row;
mod schema;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::path::PathBuf;

use remuda_proto::monitor::Durability;
use remuda_proto::{EngineUuid, Map, MsgId, Packer};
use rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE;
use rusqlite::types::{ToSqlOutput, Value};
use rusqlite::{Connection, ErrorCode, params_from_iter};

use self::compile::{Compiled, compile};
use super::{
    Alike, Answer, Ask, BATCH_BYTES, BATCH_CHANGES, Buffers, Committed, DefinitionAsk, Find, OrderBy, StoreError,
    StoreState, TaskStore, Write,
};
use crate::find::Query;
use crate::record::{Outcome, TaskRecord};

pub use keep::Keep;
pub use schema::OpenError;

/// Which database, and how it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteConfig {
    /// The file (`SQLiteDB.location` and `SQLiteDB.filename` in stock).
    pub path: PathBuf,
    /// The table (`SQLiteDB.table` in stock). If there is one by that name which is not ours, such as stock's own, the
    /// name with `_1`, `_2` and so on is taken.
    pub table: String,
    /// Whether a commit waits for the disk: with [`Durability::Sync`] it does.
    pub durability: Durability,
    /// Which records are dropped by themselves.
    pub keep: Keep,
}

impl SqliteConfig {
    /// Name of the file in stock.
    pub const FILENAME: &str = "tasks.db";
    /// Name of the table in stock.
    pub const TABLE: &str = "ipython-tasks";

    /// The usual table in this file, with all records kept.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), table: Self::TABLE.to_owned(), durability: Durability::Async, keep: Keep::default() }
    }
}

/// Keeps records in a database.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    statements: Statements,
    /// What was written and is not committed, in order.
    written: VecDeque<Write>,
    /// How much of `written`, from its front, is in the open transaction. Not 0 only while one is open.
    applied: usize,
    /// What of that cannot be done, ever: one for each change.
    refused: Vec<StoreError>,
    /// Which records are dropped by themselves, and how far that is.
    keeper: keep::Keeper,
}

/// The texts of the statements, with the name of the table.
#[derive(Debug)]
struct Statements {
    table: String,
    /// The table of who is owed a reply.
    owed: String,
    exists: String,
    insert: String,
    insert_plain: String,
    owe: String,
    assign: String,
    requeue: String,
    finish: String,
    assign_and_finish: String,
    delivered: String,
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
        Ok(Self::new(schema::open(config)?, config))
    }

    /// Opens a database that is there, with the schema of this version, and changes nothing about it. Without `writes`
    /// nothing can be written to it later either. `named` says that somebody named the table: otherwise, if the database has
    /// another one of ours and no more, that is taken.
    ///
    /// # Errors
    /// Says which file, why, and what to do.
    pub fn open_existing(config: &SqliteConfig, named: bool, writes: bool) -> Result<Self, OpenError> {
        Ok(Self::new(existing::open(config, named, writes)?, config))
    }

    fn new((connection, table): (Connection, String), config: &SqliteConfig) -> Self {
        Self {
            connection,
            statements: Statements::new(&table),
            written: VecDeque::new(),
            applied: 0,
            refused: Vec::new(),
            keeper: keep::Keeper::new(config.keep),
        }
    }

    /// How many changes are not committed.
    pub fn pending(&self) -> usize {
        self.written.len()
    }

    /// Forgets what is not committed.
    pub fn give_up(&mut self) {
        self.roll_back();
        self.written.clear();
    }

    /// Brings so many of the changes that were written into the transaction. One that is refused for itself is dropped;
    /// when the database fails, nothing is in it any more.
    fn apply(&mut self, until: usize) -> Result<(), StoreError> {
        let mut applied = self.try_apply(until, Known::None);
        if applied.as_ref().is_err_and(is_known) {
            // Once in a while somebody sends an id again. To look for each would cost more than to begin anew for those.
            self.roll_back();
            applied = self.try_apply(until, Known::Some);
        }
        if applied.is_err() {
            self.roll_back();
        }
        applied.map_err(|error| failed(&error))
    }

    fn try_apply(&mut self, until: usize, known: Known) -> rusqlite::Result<()> {
        if self.applied >= until {
            return Ok(());
        }
        if self.connection.is_autocommit() {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
        }
        let (connection, sql) = (&self.connection, &self.statements);
        let mut batch = Batch { connection, sql, known, fresh: Map::default(), changed: Map::default() };
        let mut refused = Vec::new();
        for write in self.written.range(self.applied..until) {
            judge(batch.apply(write), &mut refused)?;
        }
        batch.settle(&mut refused)?;
        self.refused.append(&mut refused);
        self.applied = until;
        Ok(())
    }

    /// Ends the transaction without a trace.
    fn roll_back(&mut self) {
        self.applied = 0;
        self.refused.clear();
        if !self.connection.is_autocommit() {
            // SQLite ends it by itself where it fails at that.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    /// How many of the changes that were written go into the next transaction.
    fn batch(&self) -> usize {
        let mut bytes = 0;
        let full = self.written.iter().take(BATCH_CHANGES).position(|write| {
            bytes += write.size_bytes();
            bytes >= BATCH_BYTES
        });
        let batch = full.map_or_else(|| self.written.len().min(BATCH_CHANGES), |last| last + 1);
        batch.max(self.applied)
    }

    fn find(&self, find: &Find) -> rusqlite::Result<Vec<TaskRecord>> {
        let Compiled { condition, values, exact } = compile(&find.query);
        let columns = self.statements.columns(find.buffers_needed());
        let direction = if find.descending { " DESC" } else { "" };
        let order = match find.order {
            OrderBy::Arrival => format!("seq{direction}"),
            OrderBy::Submitted => format!("submitted{direction}, seq{direction}"),
            OrderBy::Completed => format!("completed{direction}, seq{direction}"),
        };
        let table = &self.statements.table;
        let most = find.most.unwrap_or(usize::MAX);
        let limit = if exact { i64::try_from(most).unwrap_or(-1) } else { -1 };
        let sql = format!("SELECT {columns} FROM {table} WHERE {condition} ORDER BY {order} LIMIT ?");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(values.into_iter().chain([Value::Integer(limit)])))?;
        let mut found = Vec::new();
        while found.len() < most
            && let Some(row) = rows.next()?
        {
            let record = row::read(row)?;
            if exact || find.query.matches(&record) {
                found.push(record);
            }
        }
        Ok(found)
    }

    fn history(&self) -> rusqlite::Result<Vec<MsgId>> {
        let mut statement = self.connection.prepare_cached(&self.statements.history)?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0).map(MsgId::from))?;
        rows.collect()
    }

    fn alike(&self, beginning: &str, most: usize) -> rusqlite::Result<Vec<Alike>> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        // Every text that begins so sorts before the same with the last of all characters; the text itself comes first.
        let end = format!("{beginning}{}", char::MAX);
        let mut statement = self.connection.prepare_cached(&self.statements.alike)?;
        let mut rows = statement.query((beginning, end, most))?;
        let mut alike = Vec::new();
        while let Some(row) = rows.next()? {
            alike.push(Alike {
                msg_id: MsgId::from(row.get::<_, String>(0)?),
                queue: row::queue(row, 1)?,
                engine: row.get::<_, Option<String>>(2)?.map(Into::into),
            });
        }
        Ok(alike)
    }

    fn state(&self) -> StoreState {
        let bytes = self.pages("page_count").and_then(|pages| u64::try_from(pages).ok());
        StoreState { kind: "sqlite", records: None, bytes, unsaved: self.written.len() as u64 }
    }

    /// A change of definitions waits for no batch. What records have in an open transaction is taken back for it, and
    /// brought in again with the next.
    fn definitions(&mut self, ask: &DefinitionAsk) -> Result<Answer, StoreError> {
        if definitions::changes(ask) {
            self.roll_back();
        }
        definitions::answer(&mut self.connection, ask).map(Answer::Definitions).map_err(|error| failed(&error))
    }

    /// The size of so many pages in bytes, as a pragma counts them.
    fn pages(&self, count: &str) -> Option<i64> {
        let pragma = |name: &str| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).ok();
        pragma(count)?.checked_mul(pragma("page_size")?)
    }
}

/// Which of the records that are to be added the database has already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// None, as far as anybody knows: that it has one after all is an error ([`is_known`]).
    None,
    /// Some may be: each is looked for.
    Some,
}

/// Changes on their way into the database.
struct Batch<'a> {
    connection: &'a Connection,
    sql: &'a Statements,
    known: Known,
    /// New records that are not in the database, in the order in which they came.
    fresh: Map<&'a MsgId, TaskRecord>,
    /// What becomes of records that are.
    changed: Map<&'a MsgId, Changes<'a>>,
}

/// Changes of one record, which go into the database together.
#[derive(Debug, Default)]
struct Changes<'a> {
    /// The engine that has the request, and how often it may be tried again.
    assigned: Option<(&'a EngineUuid, u32)>,
    /// The reply.
    outcome: Option<&'a Outcome>,
}

impl<'a> Batch<'a> {
    fn apply(&mut self, write: &'a Write) -> rusqlite::Result<()> {
        match write {
            Write::Add(record) => {
                let is_known = self.fresh.contains_key(&record.msg_id)
                    || (self.known == Known::Some
                        && self.connection.prepare_cached(&self.sql.exists)?.exists([record.msg_id.as_str()])?);
                if !is_known {
                    self.fresh.insert(&record.msg_id, (**record).clone());
                }
            }
            Write::Assign { msg_id, engine, retries } => match self.fresh.get_mut(msg_id) {
                Some(record) => record.assign(engine.clone(), *retries),
                None => self.changed.entry(msg_id).or_default().assigned = Some((engine, *retries)),
            },
            Write::Requeue { msg_id, retries } => {
                if let Some(record) = self.fresh.get_mut(msg_id) {
                    record.requeue(*retries);
                } else {
                    // The engine that it was assigned to before is one that tried it.
                    if let Some(changes) = self.changed.shift_remove(msg_id) {
                        self.change(msg_id, &changes)?;
                    }
                    self.update(&self.sql.requeue, (retries, msg_id.as_str()))?;
                }
            }
            Write::Finish { msg_id, outcome } => match self.fresh.get_mut(msg_id) {
                Some(record) => record.outcome = Some(outcome.clone()),
                None => self.changed.entry(msg_id).or_default().outcome = Some(outcome),
            },
            Write::Delivered { msg_id } => match self.fresh.get_mut(msg_id) {
                Some(record) => record.reply_to = None,
                None => self.update(&self.sql.delivered, [msg_id.as_str()])?,
            },
            Write::Output { msg_id, piece } => {
                if let Some(record) = self.fresh.get_mut(msg_id) {
                    record.add_output(piece.clone());
                } else if let Some(packer) = self.packer_of(msg_id)? {
                    let (column, grows, value) = row::of_piece(packer, piece);
                    let old = if grows { format!("{column} || ") } else { String::new() };
                    let sql = format!("UPDATE {} SET {column} = {old}? WHERE msg_id = ?", self.sql.table);
                    self.update(&sql, (value, msg_id.as_str()))?;
                }
            }
            Write::Resubmit { msg_id, again } => match self.fresh.get_mut(msg_id) {
                Some(record) => record.resubmitted = Some(again.clone()),
                None => self.update(&self.sql.resubmit, (again.as_str(), msg_id.as_str()))?,
            },
            Write::Purge(query) => {
                for (msg_id, changes) in std::mem::take(&mut self.changed) {
                    self.change(msg_id, &changes)?;
                }
                self.fresh.retain(|_, record| !query.matches(record));
                self.purge(query)?;
            }
            Write::Mark { .. } => {}
        }
        Ok(())
    }

    /// Changes a record in the database, if it is there.
    fn change(&self, msg_id: &MsgId, changes: &Changes<'_>) -> rusqlite::Result<()> {
        let id = msg_id.as_str();
        match *changes {
            Changes { assigned: None, outcome: None } => Ok(()),
            Changes { assigned: Some((engine, retries)), outcome: None } => {
                self.update(&self.sql.assign, (engine.as_str(), retries, id))
            }
            Changes { assigned: None, outcome: Some(outcome) } => {
                let values = row::of_outcome(outcome).into_iter().chain([ToSqlOutput::from(id)]);
                self.update(&self.sql.finish, params_from_iter(values))
            }
            Changes { assigned: Some((engine, retries)), outcome: Some(outcome) } => {
                let assigned = [ToSqlOutput::from(engine.as_str()), ToSqlOutput::from(retries)];
                let values = assigned.into_iter().chain(row::of_outcome(outcome)).chain([ToSqlOutput::from(id)]);
                self.update(&self.sql.assign_and_finish, params_from_iter(values))
            }
        }
    }

    fn update(&self, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute(params)?;
        Ok(())
    }

    /// How the messages of a record in the database are packed; `None` if there is no such record.
    fn packer_of(&self, msg_id: &MsgId) -> rusqlite::Result<Option<Packer>> {
        let sql = format!("SELECT packer FROM {} WHERE msg_id = ?", self.sql.table);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query([msg_id.as_str()])?;
        rows.next()?.map(|found| row::packer(found, 0)).transpose()
    }

    fn purge(&self, query: &Query) -> rusqlite::Result<()> {
        let Compiled { condition, values, exact } = compile(query);
        let table = &self.sql.table;
        if exact {
            let sql = format!("DELETE FROM {table} WHERE {condition}");
            self.connection.execute(&sql, params_from_iter(values))?;
            return Ok(());
        }
        let columns = self.sql.columns(Find::all(query.clone(), Buffers::default()).buffers_needed());
        let mut found = self.connection.prepare(&format!("SELECT {columns} FROM {table} WHERE {condition}"))?;
        let mut rows = found.query(params_from_iter(values))?;
        let mut goes = Vec::new();
        while let Some(row) = rows.next()? {
            let record = row::read(row)?;
            if query.matches(&record) {
                goes.push(record.msg_id);
            }
        }
        let sql = format!("DELETE FROM {table} WHERE msg_id = ?");
        goes.iter().try_for_each(|msg_id| self.update(&sql, [msg_id.as_str()]))
    }

    /// Changes the records that are there, then puts the new ones there: a change of what was not there when it was made
    /// changes nothing.
    fn settle(mut self, refused: &mut Vec<StoreError>) -> rusqlite::Result<()> {
        for (msg_id, changes) in std::mem::take(&mut self.changed) {
            judge(self.change(msg_id, &changes), refused)?;
        }
        let mut insert = self.connection.prepare_cached(&self.sql.insert)?;
        let mut insert_plain = self.connection.prepare_cached(&self.sql.insert_plain)?;
        let mut owe = self.connection.prepare_cached(&self.sql.owe)?;
        for record in self.fresh.values() {
            let values = row::of_record(record);
            let insert = if values.len() == row::PLAIN { &mut insert_plain } else { &mut insert };
            let done = insert.execute(params_from_iter(values));
            if self.known == Known::None && done.as_ref().is_err_and(is_known) {
                return done.map(drop);
            }
            if judge(done, refused)?.is_some()
                && let Some(client) = &record.reply_to
            {
                judge(owe.execute((self.connection.last_insert_rowid(), client.as_bytes())), refused)?;
            }
        }
        Ok(())
    }
}

/// Whether a record cannot be added because there is one with its id.
fn is_known(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == SQLITE_CONSTRAINT_UNIQUE)
}

/// Tells a change that can never be made, which is put aside, from a database that fails.
fn judge<T>(done: rusqlite::Result<T>, refused: &mut Vec<StoreError>) -> rusqlite::Result<Option<T>> {
    let error = match done {
        Ok(done) => return Ok(Some(done)),
        Err(error) => error,
    };
    let for_itself = match error.sqlite_error_code() {
        Some(code) => {
            matches!(code, ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch)
        }
        // A record that is there and cannot be read.
        None => true,
    };
    if for_itself {
        refused.push(failed(&error));
        return Ok(None);
    }
    Err(error)
}

fn failed(error: &rusqlite::Error) -> StoreError {
    StoreError::Failed(error.to_string())
}

impl TaskStore for SqliteStore {
    fn write(&mut self, write: Write) {
        self.written.push_back(write);
    }

    fn ask(&mut self, ask: &Ask) -> Result<Answer, StoreError> {
        if *ask == Ask::State {
            return Ok(Answer::State(self.state()));
        }
        if let Ask::Definitions(ask) = ask {
            return self.definitions(ask);
        }
        self.apply(self.written.len())?;
        let answer = match ask {
            Ask::Find(find) => self.find(find).map(Answer::Records),
            Ask::History => self.history().map(Answer::History),
            Ask::Alike { beginnings, most } => {
                let alike = beginnings.iter().map(|beginning| self.alike(beginning, *most));
                alike.collect::<rusqlite::Result<_>>().map(Answer::Alike)
            }
            Ask::State | Ask::Definitions(_) => unreachable!("answered above"),
        };
        answer.map_err(|error| failed(&error))
    }

    /// No more than [`BATCH_CHANGES`] at a time, unless a question needed more: [`pending`](Self::pending) says whether
    /// something is left.
    fn commit(&mut self) -> Result<Committed, StoreError> {
        self.apply(self.batch())?;
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("COMMIT")
        {
            self.roll_back();
            return Err(failed(&error));
        }
        let mut committed = Committed { refused: std::mem::take(&mut self.refused), ..Committed::default() };
        for write in self.written.drain(..self.applied) {
            committed.note(&write);
        }
        self.applied = 0;
        Ok(committed)
    }

    fn check(&self) {
        assert!(self.applied <= self.written.len(), "{} of {} changes", self.applied, self.written.len());
        let open = !self.connection.is_autocommit();
        assert!(open || self.applied == 0, "{} changes in no transaction", self.applied);
        assert!(open || self.refused.is_empty(), "{:?} of no transaction", self.refused);
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // Whoever drove it has committed; this is for one that did not, and who would be told is gone.
        while self.pending() > 0 && self.commit().is_ok() {}
    }
}

impl Statements {
    fn new(table: &str) -> Self {
        let insert = |columns: &[&str]| {
            format!("INSERT INTO {table} ({}) VALUES ({})", columns.join(", "), vec!["?"; columns.len()].join(", "))
        };
        let owed = schema::owed(table);
        let finished = row::finished();
        Self {
            exists: format!("SELECT 1 FROM {table} WHERE msg_id = ?"),
            insert: insert(&row::INSERTED),
            insert_plain: insert(&row::INSERTED[..row::PLAIN]),
            assign: format!(
                "UPDATE {table} SET engine_uuid = ?, retries = ?, \
                 state = CASE WHEN received IS NULL THEN 'running' ELSE state END WHERE msg_id = ?"
            ),
            owe: format!("INSERT INTO {owed} (seq, reply_to) VALUES (?, ?)"),
            delivered: format!("DELETE FROM {owed} WHERE seq = (SELECT seq FROM {table} WHERE msg_id = ?)"),
            requeue: format!(
                "UPDATE {table} SET retries = ?, \
                 tried = CASE WHEN engine_uuid IS NULL OR EXISTS (SELECT 1 \
                              FROM json_each(coalesce(tried, '[]')) WHERE value = engine_uuid) THEN tried \
                         ELSE json_insert(coalesce(tried, '[]'), '$[#]', engine_uuid) END, \
                 engine_uuid = NULL, \
                 state = CASE WHEN received IS NULL THEN 'waiting' ELSE state END WHERE msg_id = ?"
            ),
            finish: format!("UPDATE {table} SET {finished} WHERE msg_id = ?"),
            assign_and_finish: format!("UPDATE {table} SET engine_uuid = ?, retries = ?, {finished} WHERE msg_id = ?"),
            resubmit: format!("UPDATE {table} SET resubmitted = ? WHERE msg_id = ?"),
            history: format!("SELECT msg_id FROM {table} ORDER BY submitted, seq"),
            alike: format!(
                "SELECT msg_id, queue, engine_uuid FROM {table} WHERE msg_id >= ? AND msg_id < ? ORDER BY msg_id LIMIT ?"
            ),
            table: table.to_owned(),
            owed,
        }
    }

    /// What to select for [`row::read`].
    fn columns(&self, buffers: Buffers) -> String {
        row::columns(&self.table, &self.owed, buffers)
    }
}
