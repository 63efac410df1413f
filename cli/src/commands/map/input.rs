//! The values: typed after `:::`, read from files after `::::`, or from stdin.
//!
//! Several groups are combined, each value of one with each of the others, the last one fastest; groups that begin with
//! `:::+` or `::::+` go in step with the one before, up to the end of the shorter one. Only the first group is read bit by
//! bit: the others are needed again and again.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Where values come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// They were typed.
    Words(Vec<String>),
    /// One a line in a file.
    File(PathBuf),
    /// One a line on stdin.
    Stdin,
}

/// What was typed, in its parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    /// The program and its arguments, with placeholders.
    pub(super) template: Vec<&'a str>,
    /// The groups of values: each combined with the others, and each of sources that go in step.
    pub(super) groups: Vec<Vec<Source>>,
}

/// Splits `PROGRAM ARG... ::: VALUE... :::: FILE...`.
pub(super) fn split<'a>(words: &[&'a str]) -> Result<Parts<'a>, Failure> {
    const HINT: &str = "for example: remuda map -- sha256sum {} ::: *.txt";
    let is_separator = |word: &&str| matches!(*word, ":::" | ":::+" | "::::" | "::::+");
    let end = words.iter().position(is_separator).unwrap_or(words.len());
    let (template, mut rest) = words.split_at(end);
    if template.is_empty() {
        return Err(Failure::usage("no program before the values").hint(HINT));
    }
    if template[0].is_empty() {
        return Err(Failure::usage("the program's name is empty").hint(HINT));
    }
    let mut groups: Vec<Vec<Source>> = Vec::new();
    while let Some((separator, after)) = rest.split_first() {
        let end = after.iter().position(is_separator).unwrap_or(after.len());
        let (values, next) = after.split_at(end);
        rest = next;
        if values.is_empty() {
            return Err(Failure::usage(format!("no values after `{separator}`")).hint(HINT));
        }
        let sources = if separator.starts_with("::::") {
            values.iter().map(|file| Source::of_file(file)).collect()
        } else {
            vec![Source::Words(values.iter().map(|value| (*value).to_owned()).collect())]
        };
        match groups.last_mut().filter(|_| separator.ends_with('+')) {
            Some(before) => before.extend(sources),
            None if separator.ends_with('+') => {
                return Err(Failure::usage(format!(
                    "`{separator}` goes in step with values before it: there are none"
                )));
            }
            // Several files are several groups.
            None => groups.extend(sources.into_iter().map(|source| vec![source])),
        }
    }
    Ok(Parts { template: template.to_vec(), groups })
}

impl Source {
    /// A file by its name; `-` is stdin.
    pub(super) fn of_file(name: &str) -> Self {
        if name == "-" { Self::Stdin } else { Self::File(PathBuf::from(name)) }
    }

    fn open(&self, end: u8) -> io::Result<Values> {
        let lines = |reader: Box<dyn BufRead + Send>, name: String| Values::Lines { reader, name, end };
        Ok(match self {
            Self::Words(words) => Values::Words(words.clone().into_iter()),
            Self::Stdin => lines(Box::new(BufReader::new(io::stdin())), "stdin".to_owned()),
            Self::File(path) => {
                let name = format!("`{}`", path.display());
                let file = File::open(path).map_err(|error| told(&name, &error))?;
                lines(Box::new(BufReader::new(file)), name)
            }
        })
    }
}

/// An error that names the file.
fn told(name: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot read the values from {name}: {error}"))
}

/// The values of one source.
enum Values {
    Words(std::vec::IntoIter<String>),
    Lines { reader: Box<dyn BufRead + Send>, name: String, end: u8 },
}

impl Iterator for Values {
    type Item = io::Result<String>;

    fn next(&mut self) -> Option<io::Result<String>> {
        let (reader, name, end) = match self {
            Self::Words(words) => return words.next().map(Ok),
            Self::Lines { reader, name, end } => (reader, name, *end),
        };
        let mut line = Vec::new();
        match reader.read_until(end, &mut line) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => return Some(Err(told(name, &error))),
        }
        if line.last() == Some(&end) {
            line.pop();
        }
        Some(String::from_utf8(line).map_err(|error| {
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let reason = format!("`{text}` from {name} is not UTF-8, and a task can hold only text");
            io::Error::new(io::ErrorKind::InvalidData, reason)
        }))
    }
}

/// Rows of sources that go in step.
struct Group(Vec<Values>);

impl Iterator for Group {
    type Item = io::Result<Vec<String>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.iter_mut().map(Iterator::next).collect::<Option<io::Result<Vec<String>>>>()
    }
}

/// What the programs are run for, one row after the other.
pub(super) struct Rows {
    first: Group,
    /// The rows of the other groups.
    others: Vec<Vec<Vec<String>>>,
    /// The row of the first group that is combined with the others, and how far that is, in each.
    current: Option<(Vec<String>, Vec<usize>)>,
    /// How many values make a row, where it is not one of each source.
    many: Option<usize>,
    /// How many rows there are, if that is known.
    count: Option<usize>,
}

impl Rows {
    /// `end` ends each value in a file. `many`: so many values of the only source make a row, the last one with what is left.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn open(groups: &[Vec<Source>], end: u8, many: Option<usize>) -> io::Result<Self> {
        let mut opened = groups
            .iter()
            .map(|sources| sources.iter().map(|source| source.open(end)).collect::<io::Result<_>>().map(Group));
        let first = opened.next().transpose()?.unwrap_or(Group(vec![Values::Words(Vec::new().into_iter())]));
        let others = opened.map(|group| group?.collect()).collect::<io::Result<Vec<Vec<Vec<String>>>>>()?;
        let count = groups.first().and_then(|sources| {
            let typed = sources.iter().map(|source| match source {
                Source::Words(words) => Some(words.len()),
                _ => None,
            });
            let rows = typed.collect::<Option<Vec<usize>>>()?.into_iter().min()?;
            let rows = rows.div_ceil(many.unwrap_or(1));
            others.iter().try_fold(rows, |rows, other: &Vec<_>| rows.checked_mul(other.len()))
        });
        Ok(Self { first, others, current: None, many, count })
    }

    /// How many rows there are, if that is known before they are read.
    pub(super) fn known_count(&self) -> Option<usize> {
        self.count
    }

    /// The next row of the first group.
    fn next_first(&mut self) -> Option<io::Result<Vec<String>>> {
        let Some(many) = self.many else { return self.first.next() };
        let row: io::Result<Vec<Vec<String>>> = self.first.by_ref().take(many).collect();
        row.map(|row| row.into_iter().flatten().collect::<Vec<_>>())
            .map(|row| (!row.is_empty()).then_some(row))
            .transpose()
    }
}

impl Iterator for Rows {
    type Item = io::Result<Vec<String>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.others.is_empty() {
            return self.next_first();
        }
        if self.others.iter().any(Vec::is_empty) {
            return None;
        }
        if self.current.is_none() {
            match self.next_first()? {
                Ok(row) => self.current = Some((row, vec![0; self.others.len()])),
                Err(error) => return Some(Err(error)),
            }
        }
        let (first, at) = self.current.as_mut()?;
        let mut row = first.clone();
        row.extend(self.others.iter().zip(&*at).flat_map(|(other, at)| other[*at].iter().cloned()));
        // The last one goes fastest; when all are through, the next row of the first group comes.
        let mut carries = true;
        for (at, other) in at.iter_mut().zip(&self.others).rev() {
            *at += 1;
            carries = *at == other.len();
            if !carries {
                break;
            }
            *at = 0;
        }
        if carries {
            self.current = None;
        }
        Some(Ok(row))
    }
}

/// Values in files of these names.
pub(super) fn files(names: &[PathBuf]) -> Vec<Vec<Source>> {
    names
        .iter()
        .map(|name| vec![if name == Path::new("-") { Source::Stdin } else { Source::File(name.clone()) }])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str, many: Option<usize>) -> Vec<String> {
        let words: Vec<&str> = text.split(' ').collect();
        let parts = split(&words).ok().unwrap();
        let rows = Rows::open(&parts.groups, b'\n', many).unwrap();
        let count = rows.known_count();
        let found: Vec<String> = rows.map(|row| row.unwrap().join(" ")).collect();
        assert!(count.is_none_or(|count| count == found.len()), "{count:?} {found:?}");
        found
    }

    #[test]
    fn groups_are_combined_the_last_one_fastest() {
        assert_eq!(rows("p ::: a b", None), ["a", "b"]);
        assert_eq!(rows("p ::: a b ::: 1 2 3", None), ["a 1", "a 2", "a 3", "b 1", "b 2", "b 3"]);
        assert_eq!(rows("p ::: a ::: 1 2 ::: x y", None), ["a 1 x", "a 1 y", "a 2 x", "a 2 y"]);
    }

    #[test]
    fn what_goes_in_step_ends_with_the_shorter_one() {
        assert_eq!(rows("p ::: a b c :::+ 1 2", None), ["a 1", "b 2"]);
        assert_eq!(rows("p ::: x y ::: a b :::+ 1 2", None), ["x a 1", "x b 2", "y a 1", "y b 2"]);
    }

    #[test]
    fn several_values_make_a_row_and_the_last_has_what_is_left() {
        assert_eq!(rows("p ::: a b c d e", Some(2)), ["a b", "c d", "e"]);
    }

    #[test]
    fn files_have_a_value_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("values");
        std::fs::write(&file, "one\n\ntwo words\nlast").unwrap();
        let text = format!("p :::: {}", file.display());
        assert_eq!(rows(&text, None), ["one", "", "two words", "last"]);
        assert_eq!(rows(&format!("{text} ::: 1 2"), None).len(), 8);
        assert_eq!(rows(&format!("p ::: 1 2 {}", text.trim_start_matches("p ")), None).len(), 8);
        let nul = Rows::open(&[vec![Source::File(file)]], 0, None).unwrap();
        assert_eq!(nul.map(Result::unwrap).collect::<Vec<_>>(), [["one\n\ntwo words\nlast"]]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error = Rows::open(&files(&["/no/such/file".into()]), b'\n', None).err().unwrap();
        assert!(error.to_string().contains("/no/such/file"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("values");
        std::fs::write(&file, b"ok\n\xff\n").unwrap();
        let mut rows = Rows::open(&files(&[file]), b'\n', None).unwrap();
        assert_eq!(rows.next().unwrap().unwrap(), ["ok"]);
        assert!(rows.next().unwrap().unwrap_err().to_string().contains("not UTF-8"));
    }

    #[test]
    fn what_is_missing_is_named() {
        for text in ["p :::", "::: a", "p ::::", "p :::+ a", "p ::: a :::"] {
            assert!(split(&text.split(' ').collect::<Vec<_>>()).is_err(), "{text}");
        }
        assert_eq!(split(&["p", "a"]).ok().unwrap().groups, [] as [Vec<Source>; 0]);
    }
}
