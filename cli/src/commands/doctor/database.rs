//! The task database.

use std::path::{Path, PathBuf};

use remuda_cluster::record_file::RecordFile;
use remuda_cluster::{OpenError, SqliteConfig};

use super::cluster::Asked;
use super::{Finding, Subject, files};
use crate::args::controller::Store;

const CHECK: &str = "database";

/// The file of the task records, of the controller that runs, or that one of this profile would have.
pub(super) fn path(subject: &Subject<'_>, asked: &Asked) -> Option<PathBuf> {
    if let Some(dump) = &asked.dump {
        return dump["config"]["records"]["path"].as_str().map(PathBuf::from);
    }
    let args = subject.controller.as_ref()?;
    let path = args.database(subject.profile.dir());
    // One that is there may have been named on a command line.
    (matches!(args.db, Store::Sqlite | Store::File(_)) || path.exists()).then_some(path)
}

pub(super) fn look(subject: &Subject<'_>, asked: &Asked) -> Vec<Finding> {
    let Some(path) = path(subject, asked) else {
        return vec![Finding::ok(CHECK, "none: task records are not kept on disk")];
    };
    let mut config = SqliteConfig::new(&path);
    let table = subject.controller.as_ref().map(|args| args.sqlite_table.clone());
    config.table = table.filter(|table| !table.is_empty()).unwrap_or(config.table);
    let mut findings: Vec<Finding> = files::permissions(CHECK, &path).into_iter().collect();
    match RecordFile::open_read_only(&config, false) {
        Ok(_) if findings.is_empty() => {
            let bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
            findings.push(Finding::ok(CHECK, format!("`{}` opens, {} MB", path.display(), bytes.div_ceil(1_000_000))));
        }
        Ok(_) => {}
        Err(error) => findings.push(of_error(&path, error)),
    }
    findings
}

fn of_error(path: &Path, error: OpenError) -> Finding {
    let shown = path.display();
    match error {
        OpenError::Missing { .. } => Finding::ok(CHECK, format!("`{shown}` is not there yet: the controller makes it")),
        OpenError::NoTable { .. } => Finding::ok(CHECK, format!("`{shown}` opens; the controller makes its table")),
        OpenError::Older { found, .. } => {
            let text = format!("`{shown}` has the older schema {found}: the next controller brings it up to date");
            Finding::ok(CHECK, text)
        }
        OpenError::Newer { found, .. } => Finding::error(
            CHECK,
            format!("`{shown}` has schema {found}, which is newer than this version of remuda"),
            "use the version of remuda that wrote it, or name another file with `--sqlite-filename`",
        ),
        OpenError::Damaged { reason, .. } => Finding::error(
            CHECK,
            format!("`{shown}` is no task database, or is damaged: {reason}"),
            "move it away with those beside it whose names begin alike; docs/records.md says what can be saved of it",
        ),
        other => Finding::error(
            CHECK,
            crate::failure::Failure::new(other).text(),
            "see that its folder can be written, and that no other program holds it locked",
        ),
    }
}
