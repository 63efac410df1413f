//! Tests that are left out, since something that they need is not there.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

/// Names a file that gets a line for each test that is left out: what a test that passes prints is seen by nobody.
const FILE: &str = "REMUDA_SKIPPED";

/// Says that the test of this thread is left out: there is no such thing as `what`, and why.
pub(crate) fn skipped(what: &str, why: &str) {
    let line = line(std::thread::current().name(), what, why);
    #[allow(clippy::print_stderr, reason = "people are to see that a test did not run")]
    {
        eprintln!("skipped: {line}");
    }
    if let Some(file) = env::var_os(FILE).filter(|file| !file.is_empty()) {
        append(Path::new(&file), &line)
            .unwrap_or_else(|error| panic!("cannot write `{}` ({FILE}): {error}", file.display()));
    }
}

fn line(test: Option<&str>, what: &str, why: &str) -> String {
    format!("{}: there is no {what}: {}", test.unwrap_or("a test"), why.trim().replace('\n', "; "))
}

/// Tests run at the same time: what is appended by one call stays together.
fn append(file: &Path, line: &str) -> io::Result<()> {
    OpenOptions::new().create(true).append(true).open(file)?.write_all(format!("{line}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_that_is_left_out_has_a_line_with_its_name_and_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("skipped");
        for (test, why) in [(Some("ssh::hosts"), "sshd is not installed"), (None, "sshd ended:\nno keys\n")] {
            append(&file, &line(test, "SSH server", why)).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(&file).unwrap(),
            "ssh::hosts: there is no SSH server: sshd is not installed\na test: there is no SSH server: sshd ended:; no keys\n"
        );
    }
}
