//! Opening a database, and its schema.
//!
//! The number of the schema is in `user_version`. A database may hold several tables of ours, which are listed in
//! `remuda_tables`, beside those of a stock controller; all have the same schema.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use remuda_proto::message::Status;
use remuda_proto::message::metadata::ReplyEnvelope;
use remuda_proto::monitor::Durability;
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior};

use super::{SqliteConfig, definitions, row};
use crate::record::TaskState;

/// The number of the schema that is written here.
pub(super) const SCHEMA: i64 = 4;

/// The size of a page of a new database. With SQLite's 4,096 a task costs 4 % more.
const PAGE_BYTES: i64 = 8_192;

/// From so many pages on, what is in the log beside the database is brought into it. A page that many tasks change, as
/// those of indexes are, is written once for all of them.
const LOG_PAGES: i64 = 2_000;

/// Most memory for pages of the database, in KiB: enough for those that a transaction changes. With SQLite's 2,000 many are
/// written before it ends, and read again.
const CACHE_KIB: i64 = 16_000;

/// How long to wait for another process that writes to the same database, when it is opened.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for one later, each time. A commit is tried again.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// A database that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file cannot be opened or made.
    #[error(
        "cannot open the task database `{}`: its folder has to exist and be writable, and so has the file; name another one \
         with `--sqlite-filename` or `--sqlite-location`, or keep records in memory with `--db=memory`", path.display()
    )]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no database, or a damaged one.
    #[error(
        "`{}` is no task database, or is damaged ({reason}): it is left as it is; move it away, with those beside it whose names \
         begin alike, or name another file with `--sqlite-filename` (`docs/records.md` says what can be saved of it)",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        reason: String,
    },
    /// It was written by a newer version, or by another program.
    #[error(
        "the task database `{}` has schema {found}, and this version knows up to {SCHEMA}: use the version of remuda that \
         wrote it, or name another file with `--sqlite-filename`", path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
    },
    /// It was written by an older version, and nothing is to be changed.
    #[error(
        "the task database `{}` has schema {found}, and this version reads {SCHEMA}: start a controller with it once, which brings \
         it up to date", path.display()
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
    },
    /// There is none, and none is to be made.
    #[error("there is no task database `{}`", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is no table of that name, and no other is the only one.
    #[error(
        "the database `{}` has no task records in a table `{wanted}`{}", path.display(),
        if tables.is_empty() { String::new() } else { format!(": name one of `{}` with `--table`", tables.join("`, `")) }
    )]
    NoTable {
        /// The file.
        path: PathBuf,
        /// The table.
        wanted: String,
        /// The tables of ours.
        tables: Vec<String>,
    },
    /// Anything else that SQLite says.
    #[error(
        "cannot use the task database `{}`: {reason}; its folder has to be writable, and no other program may hold it \
         locked; name another file with `--sqlite-filename`, or keep records in memory with `--db=memory`", path.display()
    )]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        reason: String,
    },
}

/// Opens the database, brings its schema up to date, and finds or makes the table: its name, quoted.
pub(super) fn open(config: &SqliteConfig) -> Result<(Connection, String), OpenError> {
    let path = || config.path.clone();
    // Made for the owner alone, since it holds what tasks compute; what SQLite puts beside it has the same mode.
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&config.path)
        .map_err(|source| OpenError::File { path: path(), source })?;
    let prepared = || -> rusqlite::Result<Result<(Connection, String), i64>> {
        let mut connection = Connection::open(&config.path)?;
        connection.busy_timeout(OPEN_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(64);
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        // Of a file that has tables already nothing changes by these.
        connection.pragma_update(None, "page_size", PAGE_BYTES)?;
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        let synchronous = if config.durability == Durability::Sync { "FULL" } else { "NORMAL" };
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
        let found = version(&connection)?;
        if !(0..=SCHEMA).contains(&found) {
            return Ok(Err(found));
        }
        let table = migrate(&mut connection, &config.table)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(Ok((connection, table)))
    };
    match prepared() {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(found)) => Err(OpenError::Newer { path: path(), found }),
        Err(error) => Err(of_sqlite(&config.path, &error)),
    }
}

/// What SQLite says of a file that it does not open.
pub(super) fn of_sqlite(path: &Path, error: &rusqlite::Error) -> OpenError {
    let (path, reason) = (path.to_owned(), error.to_string());
    if is_damage(error) { OpenError::Damaged { path, reason } } else { OpenError::Sqlite { path, reason } }
}

/// The number of the schema that a database has.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Whether the file itself is at fault: it is no database, or not in the state in which we leave one.
fn is_damage(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        Some(code) => {
            matches!(code, ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::Unknown)
        }
        // What is in it is not what we wrote.
        None => true,
    }
}

/// Brings the database from the schema that it has to [`SCHEMA`], one number at a time, and makes the table if it is not
/// there. All of it or nothing.
fn migrate(connection: &mut Connection, wanted: &str) -> rusqlite::Result<String> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Read again: another process may have been faster.
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found < 1 {
        transaction.execute_batch("CREATE TABLE remuda_tables (name TEXT PRIMARY KEY) WITHOUT ROWID")?;
    } else if found < SCHEMA {
        for table in tables(&transaction)? {
            if found < 2 {
                to_schema_2(&transaction, &table)?;
            }
            if found < 3 {
                to_schema_3(&transaction, &table)?;
            }
        }
    }
    if found < SCHEMA {
        // New in schema 4; one for all tables of records.
        transaction.execute_batch(definitions::CREATE)?;
        transaction.pragma_update(None, "user_version", SCHEMA)?;
    }
    let mut name = wanted.to_owned();
    let mut number = 0;
    loop {
        let ours: Option<i64> = transaction
            .query_row("SELECT 1 FROM remuda_tables WHERE name = ?", [&name], |row| row.get(0))
            .optional()?;
        if ours.is_some() {
            break;
        }
        let taken: Option<i64> = transaction
            .query_row("SELECT 1 FROM sqlite_master WHERE lower(name) = lower(?)", [&name], |row| row.get(0))
            .optional()?;
        if taken.is_none() {
            transaction.execute_batch(&create(&name))?;
            transaction.execute("INSERT INTO remuda_tables VALUES (?)", [&name])?;
            break;
        }
        number += 1;
        name = format!("{wanted}_{number}");
    }
    transaction.commit()?;
    Ok(quoted(&name))
}

/// A name as SQL has it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Beside a table, who is owed the reply to each of its requests until it is delivered: its name, quoted as the table's is.
pub(super) fn owed(table: &str) -> String {
    format!("\"remuda_owed_{}", &table[1..])
}

/// The names of our tables.
pub(super) fn tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name FROM remuda_tables ORDER BY name")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// What a later controller needs to go on: who gets the reply, when a request came, which engines tried it, how often it
/// may be tried again. And where it is on its way; the states of records that are there already are read from their
/// replies. Those without one are lost: nobody can say any more who wanted them.
fn to_schema_2(connection: &Connection, name: &str) -> rusqlite::Result<()> {
    let table = quoted(name);
    connection.execute_batch(&format!(
        "ALTER TABLE {table} ADD COLUMN state TEXT NOT NULL DEFAULT 'lost';
         ALTER TABLE {table} ADD COLUMN reply_to BLOB;
         ALTER TABLE {table} ADD COLUMN arrived INTEGER NOT NULL DEFAULT 0;
         ALTER TABLE {table} ADD COLUMN tried TEXT;
         ALTER TABLE {table} ADD COLUMN retries INTEGER;
         UPDATE {table} SET arrived = coalesce(submitted, 0);"
    ))?;
    let sql = format!(
        "SELECT seq, packer, result_header, result_metadata, result_content FROM {table} WHERE received IS NOT NULL"
    );
    let mut replies = connection.prepare(&sql)?;
    let mut update = connection.prepare(&format!("UPDATE {table} SET state = ? WHERE seq = ?"))?;
    let mut rows = replies.query([])?;
    while let Some(row) = rows.next()? {
        let packer = row::packer(row, 1)?;
        let reply = row::message(row, packer, [2, 3, 4], None)?;
        let status = ReplyEnvelope::read(packer, &reply).ok().and_then(|reply| reply.status);
        let state = TaskState::Ended(status.unwrap_or(Status::Error));
        update.execute((state.name(), row.get::<_, i64>(0)?))?;
    }
    for column in ["client_uuid", "engine_uuid", "label"] {
        connection.execute_batch(&format!("DROP INDEX IF EXISTS {}", quoted(&format!("{name}_{column}"))))?;
    }
    connection.execute_batch(&indexes(name))
}

/// Who is owed a reply is noted beside the records, so that what is delivered changes none of them.
fn to_schema_3(connection: &Connection, name: &str) -> rusqlite::Result<()> {
    let table = quoted(name);
    let owed = owed(&table);
    connection.execute_batch(&format!(
        "{}
         INSERT INTO {owed} SELECT seq, reply_to FROM {table}
             WHERE reply_to IS NOT NULL AND (received IS NOT NULL OR state IN ('waiting', 'running'));
         DROP INDEX IF EXISTS {};
         ALTER TABLE {table} DROP COLUMN reply_to;",
        create_owed(name),
        quoted(&format!("{name}_reply_to")),
    ))
}

/// A record that goes takes with it what is owed.
fn create_owed(name: &str) -> String {
    let table = quoted(name);
    let owed = owed(&table);
    let trigger = quoted(&format!("remuda_owed_{name}_goes"));
    format!(
        "CREATE TABLE {owed} (seq INTEGER PRIMARY KEY, reply_to BLOB NOT NULL);
         CREATE TRIGGER {trigger} AFTER DELETE ON {table} BEGIN DELETE FROM {owed} WHERE seq = OLD.seq; END;"
    )
}

/// Dates are microseconds since 1970 in UTC. Parts of messages are packed as they came: text if the packer is JSON.
/// Buffers come last, so that the rest of a row is read without them.
fn create(name: &str) -> String {
    let table = quoted(name);
    let index = |column: &str| {
        let index = quoted(&format!("{name}_{column}"));
        format!("CREATE INDEX {index} ON {table} ({column});")
    };
    let mut sql = format!(
        "CREATE TABLE {table} (
            seq INTEGER PRIMARY KEY,
            msg_id TEXT NOT NULL UNIQUE,
            packer TEXT NOT NULL,
            queue TEXT NOT NULL,
            state TEXT NOT NULL,
            client_uuid TEXT,
            engine_uuid TEXT,
            label TEXT,
            submitted INTEGER,
            started INTEGER,
            completed INTEGER,
            received INTEGER,
            arrived INTEGER NOT NULL,
            tried TEXT,
            retries INTEGER,
            resubmitted TEXT,
            header NOT NULL,
            metadata NOT NULL,
            content NOT NULL,
            result_header,
            result_metadata,
            result_content,
            execute_input TEXT,
            execute_result,
            error,
            display_data,
            stdout TEXT NOT NULL DEFAULT '',
            stderr TEXT NOT NULL DEFAULT '',
            buffers BLOB,
            result_buffers BLOB
        );"
    );
    for column in ["submitted", "completed"] {
        sql.push_str(&index(column));
    }
    sql + &indexes(name) + &create_owed(name)
}

/// The indexes for what people list: by one of these, the newest first.
fn indexes(name: &str) -> String {
    let table = quoted(name);
    let index = |column: &str, condition: &str| {
        let index = quoted(&format!("{name}_{column}_submitted"));
        format!("CREATE INDEX {index} ON {table} ({column}, submitted){condition};")
    };
    let all = ["state", "client_uuid", "engine_uuid"].map(|column| index(column, ""));
    all.concat() + &index("label", " WHERE label IS NOT NULL")
}
