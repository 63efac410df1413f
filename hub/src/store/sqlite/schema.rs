//! Opening a database, and its schema.
//!
//! The number of the schema is in `user_version`. A database may hold several tables of ours, which are listed in
//! `remuda_tables`, beside those of a stock controller; all have the same schema.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior};

use super::SqliteConfig;

/// The number of the schema that is written here.
const SCHEMA: i64 = 1;

/// How long to wait for another process that writes to the same database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A database that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file cannot be opened or made.
    #[error(
        "cannot open the task database `{}`: its folder has to exist and be writable; name another file with \
         `--SQLiteDB.filename` or `--SQLiteDB.location`, or keep records in memory with `--dictdb`", path.display()
    )]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no database, or a damaged one.
    #[error(
        "`{}` is no task database, or is damaged ({reason}): move it away, or name another file with \
         `--SQLiteDB.filename`", path.display()
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
         wrote it, or name another file with `--SQLiteDB.filename`", path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
    },
    /// Anything else that SQLite says.
    #[error(
        "cannot use the task database `{}`: {reason}; name another file with `--SQLiteDB.filename`, or keep records in \
         memory with `--dictdb`", path.display()
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
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(64);
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if !(0..=SCHEMA).contains(&found) {
            return Ok(Err(found));
        }
        let table = migrate(&mut connection, &config.table)?;
        Ok(Ok((connection, table)))
    };
    match prepared() {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(found)) => Err(OpenError::Newer { path: path(), found }),
        Err(error) => {
            let reason = error.to_string();
            let damaged =
                matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt));
            Err(if damaged {
                OpenError::Damaged { path: path(), reason }
            } else {
                OpenError::Sqlite { path: path(), reason }
            })
        }
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
    }
    // Schema 2 will come here: `if found < 2`, for each table in `remuda_tables`.
    if found < SCHEMA {
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
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Dates are microseconds since 1970 in UTC. Parts of messages are packed as they came: text if the packer is JSON.
/// Buffers come last, so that the rest of a row is read without them.
fn create(name: &str) -> String {
    let table = quoted(name);
    let index = |column: &str, condition: &str| {
        let index = quoted(&format!("{name}_{column}"));
        format!("CREATE INDEX {index} ON {table} ({column}){condition};")
    };
    let mut sql = format!(
        "CREATE TABLE {table} (
            seq INTEGER PRIMARY KEY,
            msg_id TEXT NOT NULL UNIQUE,
            packer TEXT NOT NULL,
            queue TEXT NOT NULL,
            client_uuid TEXT,
            engine_uuid TEXT,
            label TEXT,
            submitted INTEGER,
            started INTEGER,
            completed INTEGER,
            received INTEGER,
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
    for column in ["submitted", "completed", "client_uuid", "engine_uuid"] {
        sql.push_str(&index(column, ""));
    }
    sql.push_str(&index("label", " WHERE label IS NOT NULL"));
    sql
}
