//! The list of jobs that have ended (`--joblog`), in the form of GNU parallel, and going on after it (`--resume`).

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

const HEADING: &str = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n";

/// How a job ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// Its number, from 1.
    pub(super) seq: u64,
    /// Where it ran.
    pub(super) host: String,
    /// When it began, in seconds since 1970.
    pub(super) started_s: f64,
    /// How long it ran, in seconds.
    pub(super) runtime_s: f64,
    /// Bytes that it was sent.
    pub(super) sent: usize,
    /// Bytes that it wrote to stdout.
    pub(super) received: u64,
    /// Its exit code; -1 if it has none.
    pub(super) exit_code: i32,
    /// The signal that ended it; 0 if none did.
    pub(super) signal: i32,
    /// The command as one would type it.
    pub(super) command: String,
}

/// Which jobs of an earlier run are not run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resume {
    /// The log begins anew.
    No,
    /// Those that have ended.
    Ended,
    /// Those that exited with 0.
    Succeeded,
}

/// The log, open.
#[derive(Debug)]
pub(super) struct JobLog {
    path: PathBuf,
    file: File,
    /// What is not run again, with its command.
    done: BTreeMap<u64, String>,
}

impl JobLog {
    /// Opens the log; an earlier one is continued, or replaced.
    ///
    /// # Errors
    /// A file that cannot be read or written, or is no such log.
    pub(super) fn open(path: &Path, resume: Resume) -> Result<Self, Failure> {
        let told = |error: &io::Error| {
            Failure::usage(format!("cannot write the job log `{}`: {error}", path.display())).hint("name another place")
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(resume == Resume::No);
        let mut file = options.open(path).map_err(|error| told(&error))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(|error| told(&error))?;
        let mut done = BTreeMap::new();
        // A line without an end was cut off: the job that it was for is run again.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines = String::from_utf8_lossy(&text[..whole]);
        for (number, line) in lines.lines().enumerate().filter(|(number, _)| *number > 0) {
            let (seq, succeeded, command) = read(line).ok_or_else(|| {
                let what = format!("line {} of `{}` is no line of a job log: `{line}`", number + 1, path.display());
                Failure::usage(what).hint("remove the file, or name another")
            })?;
            if resume == Resume::Ended || succeeded {
                done.insert(seq, command.to_owned());
            } else {
                done.remove(&seq);
            }
        }
        file.set_len(whole as u64).and_then(|()| file.seek(SeekFrom::End(0))).map_err(|error| told(&error))?;
        if whole == 0 {
            file.write_all(HEADING.as_bytes()).map_err(|error| told(&error))?;
        } else if !lines.starts_with(HEADING) {
            return Err(Failure::usage(format!("`{}` is no job log", path.display())).hint("name another place"));
        }
        Ok(Self { path: path.to_owned(), file, done })
    }

    /// Whether a job of an earlier run is not run again.
    ///
    /// # Errors
    /// The earlier job with this number was another one.
    pub(super) fn has(&self, seq: u64, command: &str) -> Result<bool, Failure> {
        match self.done.get(&seq) {
            None => Ok(false),
            Some(known) if *known == line_of(command) => Ok(true),
            Some(known) => {
                let path = self.path.display();
                let what = format!("job {seq} was `{known}` in the job log `{path}`, and is `{command}` now");
                Err(Failure::usage(what).hint("resume with the same command and values, or name another log"))
            }
        }
    }

    /// Adds a job that has ended. It is in the file when this returns, whatever becomes of us.
    pub(super) fn write(&mut self, entry: &Entry) -> Result<(), Failure> {
        let Entry { seq, host, started_s, runtime_s, sent, received, exit_code, signal, command } = entry;
        let command = line_of(command);
        let line = format!(
            "{seq}\t{host}\t{started_s:.3}\t{runtime_s:.3}\t{sent}\t{received}\t{exit_code}\t{signal}\t{command}\n"
        );
        self.file.write_all(line.as_bytes()).map_err(|error| {
            Failure::usage(format!("cannot write the job log `{}`: {error}", self.path.display())).code(1)
        })
    }
}

/// A command in one line.
fn line_of(command: &str) -> String {
    command.replace('\n', "\\n")
}

/// Number, whether it exited with 0, and command.
fn read(line: &str) -> Option<(u64, bool, &str)> {
    let mut columns = line.splitn(9, '\t');
    let seq = columns.next()?.parse().ok()?;
    let mut columns = columns.skip(5);
    let (exit_code, signal, command) = (columns.next()?, columns.next()?, columns.next()?);
    Some((seq, exit_code == "0" && signal == "0", command))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64, exit_code: i32) -> Entry {
        let (host, command) = (":".to_owned(), format!("job {seq}\nx"));
        Entry { seq, host, started_s: 1.5, runtime_s: 0.25, sent: 0, received: 7, exit_code, signal: 0, command }
    }

    #[test]
    fn what_is_in_the_log_is_not_run_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = JobLog::open(&path, Resume::No).ok().unwrap();
        log.write(&entry(1, 0)).ok().unwrap();
        log.write(&entry(3, 2)).ok().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            format!("{HEADING}1\t:\t1.500\t0.250\t0\t7\t0\t0\tjob 1\\nx\n3\t:\t1.500\t0.250\t0\t7\t2\t0\tjob 3\\nx\n")
        );
        // The last line was cut off.
        std::fs::write(&path, format!("{text}4\t:\t1.500")).unwrap();
        for (resume, has) in [(Resume::Succeeded, [true, false, false]), (Resume::Ended, [true, true, false])] {
            let log = JobLog::open(&path, resume).ok().unwrap();
            assert_eq!([1, 3, 4].map(|seq| log.has(seq, &format!("job {seq}\nx")).ok().unwrap()), has);
            assert!(log.has(1, "another").is_err());
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "what was cut off is gone");
        JobLog::open(&path, Resume::No).ok().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), HEADING);
    }

    #[test]
    fn a_job_that_failed_first_and_then_did_not_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = JobLog::open(&path, Resume::No).ok().unwrap();
        log.write(&entry(1, 2)).ok().unwrap();
        log.write(&entry(1, 0)).ok().unwrap();
        let log = JobLog::open(&path, Resume::Succeeded).ok().unwrap();
        assert!(log.has(1, "job 1\nx").ok().unwrap());
    }

    #[test]
    fn a_file_that_is_no_log_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        for text in ["my notes\n", "one\ntwo\n"] {
            std::fs::write(&path, text).unwrap();
            assert!(JobLog::open(&path, Resume::Ended).is_err());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert!(JobLog::open(Path::new("/no/such/folder/log"), Resume::No).is_err());
    }
}
