//! A log file of bounded size: when it is full it is put aside under a number, and the oldest of those goes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// A log file, and those that were put aside: `x.log`, then `x.log.1` to the oldest.
pub(super) struct LogFile {
    path: PathBuf,
    /// Beyond it the next file is begun; a line that is longer is alone in its file.
    max_bytes: u64,
    /// How many files there may be, `path` among them; at least one.
    files: u16,
    open: Mutex<Open>,
}

/// The file that is written.
struct Open {
    file: File,
    bytes: u64,
}

impl LogFile {
    /// Opens the file, and goes on behind what is in it.
    ///
    /// # Errors
    /// When it cannot be made or written.
    pub(super) fn open(path: &Path, max_bytes: u64, files: u16) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        let open = Mutex::new(Open { file, bytes });
        Ok(Self { path: path.to_owned(), max_bytes, files: files.max(1), open })
    }

    fn write_line(&self, line: &[u8]) -> io::Result<()> {
        // A log goes on, whatever happened to who wrote before.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let length = line.len() as u64;
        // A file that cannot be put aside is written on: a log that is too long is better than none.
        if open.bytes > 0
            && open.bytes.saturating_add(length) > self.max_bytes
            && let Ok(file) = self.rotate()
        {
            *open = Open { file, bytes: 0 };
        }
        open.bytes += length;
        open.file.write_all(line)
    }

    /// Puts the file aside, and begins the next.
    fn rotate(&self) -> io::Result<File> {
        let oldest = self.files - 1;
        if oldest == 0 {
            fs::remove_file(&self.path)?;
        } else {
            for number in (1..oldest).rev() {
                match fs::rename(numbered(&self.path, number), numbered(&self.path, number + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            fs::rename(&self.path, numbered(&self.path, 1))?;
        }
        File::options().create(true).append(true).open(&self.path)
    }
}

fn numbered(path: &Path, number: u16) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// The name of the log, and the number behind it, of one that was put aside.
pub(super) fn number_of(file: &str) -> Option<(&str, u16)> {
    let (newest, number) = file.rsplit_once('.')?;
    let is_log = Path::new(newest).extension().is_some_and(|ending| ending == "log");
    number.parse().ok().filter(|_| is_log).map(|number| (newest, number))
}

/// What writes to it, for as long as one line takes.
pub(super) struct Line<'a>(&'a LogFile);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_line(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of a folder with their content, by name.
    fn contents(folder: &Path) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
            .collect();
        all.sort();
        all
    }

    fn written(max_bytes: u64, files: u16, lines: &[&str]) -> Vec<(String, String)> {
        let folder = tempfile::tempdir().unwrap();
        let log = LogFile::open(&folder.path().join("x.log"), max_bytes, files).unwrap();
        lines.iter().for_each(|line| log.make_writer().write_all(line.as_bytes()).unwrap());
        contents(folder.path())
    }

    fn files(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn no_file_is_larger_than_it_may_be_and_the_oldest_goes() {
        let lines = ["1\n", "2\n", "3\n", "4\n", "5\n", "6\n", "7\n"];
        let three = files(&[("x.log", "7\n"), ("x.log.1", "5\n6\n"), ("x.log.2", "3\n4\n")]);
        assert_eq!(written(4, 3, &lines), three);
        assert_eq!(written(4, 1, &lines), files(&[("x.log", "7\n")]));
        assert_eq!(written(u64::MAX, 3, &lines), files(&[("x.log", &lines.concat())]));
    }

    #[test]
    fn a_line_that_is_too_long_is_alone_in_its_file() {
        let expected = files(&[("x.log", "b\n"), ("x.log.1", "longer\n"), ("x.log.2", "a\n")]);
        assert_eq!(written(3, 5, &["a\n", "longer\n", "b\n"]), expected);
    }

    #[test]
    fn what_is_in_the_file_already_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        fs::write(&path, "old\n").unwrap();
        let log = LogFile::open(&path, 6, 2).unwrap();
        log.write_line(b"new\n").unwrap();
        assert_eq!(contents(folder.path()), files(&[("x.log", "new\n"), ("x.log.1", "old\n")]));
    }

    #[test]
    fn a_log_that_was_put_aside_is_known_by_its_number() {
        assert_eq!(number_of("x.log.12"), Some(("x.log", 12)));
        assert_eq!((number_of("x.log"), number_of("x.txt.1"), number_of("x.log.a")), (None, None, None));
    }
}
