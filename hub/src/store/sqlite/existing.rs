//! Opening a database that a controller has left, or has open, without making or changing anything.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::SqliteConfig;
use super::schema::{self, OPEN_TIMEOUT, OpenError, SCHEMA};

/// Opens the database, and finds the table: its name, quoted.
pub(super) fn open(config: &SqliteConfig, named: bool, writes: bool) -> Result<(Connection, String), OpenError> {
    let path = &config.path;
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(OpenError::Missing { path: path.clone() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(OpenError::Missing { path: path.clone() }),
        Err(source) => return Err(OpenError::File { path: path.clone(), source }),
    }
    let connection = connect(path, writes).map_err(|error| schema::of_sqlite(path, &error))?;
    let found = schema::version(&connection).map_err(|error| schema::of_sqlite(path, &error))?;
    match found {
        // A database of other programs commonly says 0; ours is never left at that.
        0 => return Err(OpenError::NoTable { path: path.clone(), wanted: config.table.clone(), tables: Vec::new() }),
        SCHEMA => {}
        found if (1..SCHEMA).contains(&found) => return Err(OpenError::Older { path: path.clone(), found }),
        found => return Err(OpenError::Newer { path: path.clone(), found }),
    }
    let tables = schema::tables(&connection).map_err(|error| schema::of_sqlite(path, &error))?;
    let table = match &tables[..] {
        tables if tables.contains(&config.table) => &config.table,
        [only] if !named => only,
        _ => return Err(OpenError::NoTable { path: path.clone(), wanted: config.table.clone(), tables }),
    };
    Ok((connection, schema::quoted(table)))
}

fn connect(path: &Path, writes: bool) -> rusqlite::Result<Connection> {
    let access = if writes { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    // Where nobody has left anything in a log beside it, the file is all there is: nothing has to be made beside it, which
    // a folder may not allow. A log means that a controller runs, or was killed; SQLite then reads both.
    let is_whole = fs::metadata(beside(path)).map_or(true, |log| log.len() == 0);
    let uri = format!("file:{}?immutable=1", escaped(path));
    let connection = if is_whole && !writes {
        Connection::open_with_flags(uri, flags)?
    } else {
        Connection::open_with_flags(path, flags)?
    };
    connection.busy_timeout(OPEN_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    if writes {
        connection.pragma_update(None, "synchronous", "FULL")?;
    }
    Ok(connection)
}

/// The log that SQLite keeps beside a database.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// A path as a part of a URI.
fn escaped(path: &Path) -> String {
    use std::fmt::Write;
    use std::os::unix::ffi::OsStrExt;

    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => text.push(char::from(*byte)),
            byte => write!(text, "%{byte:02X}").expect("a text takes all that is written"),
        }
    }
    text
}
