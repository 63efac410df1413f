//! From what was typed to the programs to run.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use remuda_client::ProcessTask;

use crate::failure::Failure;

/// Stands for the value.
const PLACEHOLDER: &str = "{}";
/// Stands between the command and the values.
const SEPARATOR: &str = ":::";

/// One program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    argv: Vec<String>,
}

impl Job {
    pub(super) fn task(&self, cwd: Option<String>) -> ProcessTask {
        ProcessTask { argv: self.argv.clone(), cwd, ..ProcessTask::default() }
    }

    /// The command as one would type it.
    pub(super) fn display(&self) -> String {
        let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%^".contains(c);
        let quoted = self.argv.iter().map(|word| {
            if !word.is_empty() && word.chars().all(plain) {
                word.clone()
            } else {
                format!("'{}'", word.replace('\'', r"'\''"))
            }
        });
        quoted.collect::<Vec<_>>().join(" ")
    }
}

/// Splits `PROGRAM ARG... ::: VALUE...` and puts each value in its place.
pub(super) fn jobs(command: &[OsString]) -> Result<Vec<Job>, Failure> {
    const HINT: &str = "for example: remuda map -- sha256sum {} ::: *.txt";
    let words: Vec<&str> = command
        .iter()
        .map(|word| {
            word.to_str().ok_or_else(|| {
                Failure::usage(format!("`{}` is not UTF-8, and a task can hold only text", word.to_string_lossy()))
            })
        })
        .collect::<Result<_, _>>()?;
    let Some(at) = words.iter().position(|word| *word == SEPARATOR) else {
        return Err(Failure::usage("no values: give them after `:::`").hint(HINT));
    };
    let (template, values) = (&words[..at], &words[at + 1..]);
    if template.is_empty() {
        return Err(Failure::usage("no program before `:::`").hint(HINT));
    }
    if values.is_empty() {
        return Err(Failure::usage("no values after `:::`").hint(HINT));
    }
    if template[0].is_empty() {
        return Err(Failure::usage("the program's name is empty").hint(HINT));
    }
    let placed = template.iter().any(|word| word.contains(PLACEHOLDER));
    Ok(values
        .iter()
        .map(|value| {
            let argv = template.iter().map(|word| word.replace(PLACEHOLDER, value));
            Job { argv: argv.chain((!placed).then(|| (*value).to_owned())).collect() }
        })
        .collect())
}

/// Refuses programs that are not there, before anything is started.
pub(super) fn check_programs(jobs: &[Job]) -> Result<(), Failure> {
    let mut last = None;
    for job in jobs {
        let program = &job.argv[0];
        if last == Some(program) {
            continue;
        }
        last = Some(program);
        if !found(program) {
            let hint = if program.contains('/') {
                "check the path, and that the file may be executed"
            } else {
                "check the spelling, or give a path; `PATH` says where programs are looked for"
            };
            return Err(Failure::usage(format!("no such program: `{program}`")).hint(hint));
        }
    }
    Ok(())
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

    fn read(text: &str) -> Result<Vec<String>, Failure> {
        let words: Vec<OsString> = text.split(' ').map(OsString::from).collect();
        Ok(jobs(&words)?.iter().map(Job::display).collect())
    }

    #[test]
    fn a_value_stands_where_it_is_asked_for_or_last() {
        assert_eq!(read("cp {} {}.bak ::: a b").ok().unwrap(), ["cp a a.bak", "cp b b.bak"]);
        assert_eq!(read("wc -l ::: a").ok().unwrap(), ["wc -l a"]);
        assert_eq!(read("{} --version ::: cc ld").ok().unwrap(), ["cc --version", "ld --version"]);
        assert_eq!(read("echo ::: a:::b :::").ok().unwrap(), ["echo a:::b", "echo :::"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        for text in ["wc -l a", "wc :::", "::: a"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_command_is_shown_as_a_shell_would_take_it() {
        let job = Job { argv: vec!["echo".into(), "it's".into(), "a b".into(), String::new()] };
        assert_eq!(job.display(), r"echo 'it'\''s' 'a b' ''");
    }

    #[test]
    fn a_program_that_is_not_there_is_refused_before_anything_starts() {
        let job = |program: &str| [Job { argv: vec![program.to_owned()] }];
        assert!(check_programs(&job("sh")).is_ok() && check_programs(&job("/bin/sh")).is_ok());
        for program in ["no-such-program-here", "/no/such/program", "/etc/passwd", "/tmp"] {
            assert!(check_programs(&job(program)).is_err(), "{program}");
        }
    }
}
