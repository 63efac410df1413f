//! Engines that are run by a command of the user's own: `nice -n 10 remuda engine`.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::failure::Failure;

/// Whether an engine's kind is a command: a name of a kind has neither space nor slash.
pub(crate) fn is_command(text: &str) -> bool {
    text.contains(|letter: char| letter == '/' || letter.is_whitespace())
}

/// The words of a command, as a shell splits them; variables and the like mean nothing.
pub(crate) fn split(text: &str) -> Result<Vec<String>, String> {
    let words = shlex::split(text).ok_or("a quote is not closed, or a backslash is the last character")?;
    if words.first().is_none_or(String::is_empty) {
        return Err("no program is named".to_owned());
    }
    Ok(words)
}

/// Words as one text, for [`split`].
pub(crate) fn joined(words: &[String]) -> String {
    shlex::try_join(words.iter().map(String::as_str)).expect("arguments have no zero bytes")
}

/// Says at once that the program of a command cannot be run here.
///
/// # Errors
/// When there is no such program.
pub(crate) fn check(words: &[String]) -> Result<(), Failure> {
    let program = words.first().map(String::as_str).unwrap_or_default();
    let can_run =
        |path: &Path| path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    let (is_there, place) = if program.contains('/') {
        (can_run(Path::new(program)), "there")
    } else {
        let path = env::var_os("PATH").unwrap_or_default();
        (env::split_paths(&path).any(|folder| can_run(&folder.join(program))), "in the folders of `PATH`")
    };
    if is_there {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "the engines' command `{}` cannot be run: no program `{program}` is {place}",
        joined(words)
    ))
    .hint("install it, or name it by its whole path"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_command_is_what_has_a_space_or_a_slash() {
        assert!(is_command("nice remuda") && is_command("./engine") && is_command("remuda\tengine"));
        assert!(!is_command("python") && !is_command("ipyparallel.cluster.launcher.LocalEngineSetLauncher"));
        assert_eq!(split(r#"nice -n 10 "my engine" --x='a b'"#).unwrap(), ["nice", "-n", "10", "my engine", "--x=a b"]);
        for text in ["a 'b", "a \\", " ", "'' a"] {
            assert!(split(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let wrong = |text: &str| check(&split(text).unwrap()).unwrap_err().text();
        assert!(wrong("no-such-wrapper remuda engine").contains("no program `no-such-wrapper` is in the folders"));
        assert!(wrong("/etc/passwd x").contains("no program `/etc/passwd` is there"));
        check(&split("sh -c true").unwrap()).unwrap();
        check(&split("/bin/sh -c true").unwrap()).unwrap();
    }

    proptest! {
        #[test]
        fn words_come_back_as_they_were(words in prop::collection::vec("[^\0]{1,12}", 1..6)) {
            prop_assert_eq!(split(&joined(&words)).unwrap(), words);
        }
    }
}
