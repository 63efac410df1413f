//! From a template and its values to the program to run.

use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use remuda_client::ProcessTask;

use crate::failure::Failure;

/// One program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    /// Its number, from 1.
    pub(super) seq: u64,
    /// What it is run for.
    pub(super) values: Vec<String>,
    argv: Vec<String>,
    /// Whether `argv` was made of a line for the shell.
    is_line: bool,
}

impl Job {
    /// The task, which may run for so many seconds.
    pub(super) fn task(&self, cwd: Option<String>) -> ProcessTask {
        ProcessTask { argv: self.argv.clone(), cwd, ..ProcessTask::default() }
    }

    /// The command as one would type it.
    pub(super) fn display(&self) -> String {
        if let (true, Some(line)) = (self.is_line, self.argv.last()) {
            return line.clone();
        }
        self.argv.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%^".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// What is taken of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `{}`: all of it.
    Whole,
    /// `{.}`: all but the extension.
    Stem,
    /// `{/}`: what follows the last slash.
    Base,
    /// `{//}`: the folder; `.` if there is none.
    Folder,
    /// `{/.}`: what follows the last slash, but for the extension.
    BaseStem,
}

impl Form {
    fn of(self, value: &str) -> &str {
        match self {
            Self::Whole => value,
            Self::Stem => stem(value),
            Self::Base => value.rsplit('/').next().unwrap_or(value),
            Self::Folder => match value.rfind('/') {
                Some(0) => "/",
                Some(at) => &value[..at],
                None => ".",
            },
            Self::BaseStem => stem(Self::Base.of(value)),
        }
    }
}

/// A path without its last extension; a dot in a folder's name begins none.
fn stem(path: &str) -> &str {
    match path.rfind('.') {
        Some(at) if at + 1 < path.len() && !path[at..].contains('/') => &path[..at],
        _ => path,
    }
}

/// A piece of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// All values, or the one in this place (from 0).
    Value(Option<usize>, Form),
    /// `{#}`: the number of the job.
    Seq,
}

/// A command with placeholders.
#[derive(Debug)]
pub(super) struct Template {
    words: Vec<Vec<Piece>>,
    /// Whether the words are a line for `sh -c`.
    shell: bool,
}

impl Template {
    /// Reads the words. Where none has a placeholder, the values come last, unless there are none (`has_values`).
    pub(super) fn read(words: &[&str], shell: bool, has_values: bool) -> Self {
        let mut words: Vec<Vec<Piece>> = words.iter().map(|word| pieces(word)).collect();
        let is_placed = words.iter().flatten().any(|piece| !matches!(piece, Piece::Text(_)));
        if !is_placed && has_values {
            words.push(vec![Piece::Value(None, Form::Whole)]);
        }
        Self { words, shell }
    }

    /// The program of job `seq`.
    ///
    /// # Errors
    /// A placeholder for a value that is not there.
    pub(super) fn job(&self, seq: u64, values: Vec<String>) -> Result<Job, Failure> {
        let mut argv = Vec::with_capacity(self.words.len() + values.len());
        for word in &self.words {
            if let [Piece::Value(None, form)] = word[..] {
                // A word of its own: each value is one.
                argv.extend(values.iter().map(|value| self.quote(form.of(value))));
                continue;
            }
            let mut text = String::new();
            for piece in word {
                match piece {
                    Piece::Text(piece) => text.push_str(piece),
                    Piece::Seq => text.push_str(&seq.to_string()),
                    Piece::Value(None, form) => {
                        let all: Vec<String> = values.iter().map(|value| self.quote(form.of(value))).collect();
                        text.push_str(&all.join(" "));
                    }
                    Piece::Value(Some(at), form) => {
                        let value = values.get(*at).ok_or_else(|| {
                            let what = format!("`{{{}}}` stands for a value that is not there", at + 1);
                            Failure::usage(format!("{what}: job {seq} has {}", values.len()))
                        })?;
                        text.push_str(&self.quote(form.of(value)));
                    }
                }
            }
            argv.push(text);
        }
        if self.shell {
            argv = vec!["sh".to_owned(), "-c".to_owned(), argv.join(" ")];
        }
        Ok(Job { seq, values, argv, is_line: self.shell })
    }

    fn quote(&self, value: &str) -> String {
        if self.shell { quoted(value) } else { value.to_owned() }
    }

    /// Refuses a program that is not there, before anything is started, where it is the same for all.
    pub(super) fn check_program(&self) -> Result<(), Failure> {
        let [Piece::Text(program)] = &self.words[0][..] else { return Ok(()) };
        if self.shell || found(program) {
            return Ok(());
        }
        let hint = if program.contains(char::is_whitespace) {
            "give the program and each argument as words of their own; `--shell` takes a line for the shell"
        } else if program.contains('/') {
            "check the path, and that the file may be executed"
        } else {
            "check the spelling, or give a path; `PATH` says where programs are looked for"
        };
        Err(Failure::usage(format!("no such program: `{program}`")).hint(hint))
    }
}

/// The pieces of a word. What looks like a placeholder and is none stays as it is.
fn pieces(word: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = word;
    while let Some(at) = rest.find('{') {
        let found = rest[at..].find('}').and_then(|end| Some((placeholder(&rest[at + 1..at + end])?, at + end + 1)));
        let Some((piece, end)) = found else {
            text.push_str(&rest[..=at]);
            rest = &rest[at + 1..];
            continue;
        };
        text.push_str(&rest[..at]);
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        pieces.push(piece);
        rest = &rest[end..];
    }
    text.push_str(rest);
    if !text.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(text));
    }
    pieces
}

/// What stands between braces, if it means something.
fn placeholder(inner: &str) -> Option<Piece> {
    if inner == "#" {
        return Some(Piece::Seq);
    }
    let digits = inner.len() - inner.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let form = match &inner[digits..] {
        "" => Form::Whole,
        "." => Form::Stem,
        "/" => Form::Base,
        "//" => Form::Folder,
        "/." => Form::BaseStem,
        _ => return None,
    };
    let place = match digits {
        0 => None,
        _ => Some(inner[..digits].parse::<usize>().ok()?.checked_sub(1)?),
    };
    Some(Piece::Value(place, form))
}

fn found(program: &str) -> bool {
    let executable =
        |path: &Path| path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    if program.contains('/') {
        return executable(Path::new(program));
    }
    let path = env::var_os("PATH").unwrap_or_else(|| OsStr::new("/usr/bin:/bin").to_owned());
    env::split_paths(&path).any(|folder| executable(&folder.join(program)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(template: &str, values: &[&str]) -> String {
        let words: Vec<&str> = template.split(' ').collect();
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        Template::read(&words, false, true).job(7, values).ok().unwrap().display()
    }

    #[test]
    fn a_value_stands_where_it_is_asked_for_or_last() {
        assert_eq!(made("cp {} {}.bak", &["a"]), "cp a a.bak");
        assert_eq!(made("wc -l", &["a"]), "wc -l a");
        assert_eq!(made("{} --version", &["cc"]), "cc --version");
        assert_eq!(made("echo {#}", &["a"]), "echo 7");
        assert_eq!(made("awk {print} {x} {", &["a"]), "awk '{print}' '{x}' '{' a");
    }

    #[test]
    fn parts_of_a_path_are_taken_as_parallel_takes_them() {
        for (value, stem, base, folder, base_stem) in [
            ("dir.d/sub/file.tar.gz", "dir.d/sub/file.tar", "file.tar.gz", "dir.d/sub", "file.tar"),
            ("dir.d/file", "dir.d/file", "file", "dir.d", "file"),
            ("file.txt", "file", "file.txt", ".", "file"),
            ("/file.txt", "/file", "file.txt", "/", "file"),
            ("no", "no", "no", ".", "no"),
        ] {
            assert_eq!(
                made("p {.} {/} {//} {/.}", &[value]),
                format!("p {stem} {base} {folder} {base_stem}"),
                "{value}"
            );
        }
    }

    #[test]
    fn several_values_have_places() {
        assert_eq!(made("p {2} {1}", &["a", "b"]), "p b a");
        assert_eq!(made("p {1/.}-{2.}.x", &["d/a.c", "b.c"]), "p a-b.x");
        assert_eq!(made("p {}", &["a", "b"]), "p a b", "each is a word");
        assert_eq!(made("p x{}", &["a", "b"]), "p 'xa b'");
        assert_eq!(made("p", &["a", "b"]), "p a b");
        let missing = Template::read(&["p", "{3}"], false, true).job(1, vec!["a".into()]);
        assert!(missing.is_err());
    }

    #[test]
    fn a_line_for_the_shell_has_its_values_quoted() {
        let template = Template::read(&["gzip -c {} > {.}.gz"], true, true);
        let job = template.job(1, vec!["it's a.txt".into()]).ok().unwrap();
        assert_eq!(job.display(), r"gzip -c 'it'\''s a.txt' > 'it'\''s a'.gz");
        assert_eq!(job.argv[..2], ["sh", "-c"]);
    }

    #[test]
    fn a_command_is_shown_as_a_shell_would_take_it() {
        let argv = vec!["echo".into(), "it's".into(), "a b".into(), String::new()];
        let job = Job { seq: 1, values: Vec::new(), argv, is_line: false };
        assert_eq!(job.display(), r"echo 'it'\''s' 'a b' ''");
    }

    #[test]
    fn a_program_that_is_not_there_is_refused_before_anything_starts() {
        let check = |program: &str| Template::read(&[program], false, true).check_program();
        assert!(check("sh").is_ok() && check("/bin/sh").is_ok() && check("{}").is_ok());
        for program in ["no-such-program-here", "/no/such/program", "/etc/passwd", "/tmp", "gzip -9"] {
            assert!(check(program).is_err(), "{program}");
        }
    }
}
