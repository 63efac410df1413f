//! A program's bad end, as an error.

use remuda_proto::RemoteError;
use remuda_proto::message::native::{ProcessOutcome, StopReason};

use crate::signal;

/// How many of the last lines of stderr go into the traceback.
const LINES: usize = 20;
/// How much of the end of stderr is looked at for them, in bytes.
const TAIL_BYTES: usize = 8 * 1024;

/// The error of a program that did not exit with 0. The traceback holds the last of what it wrote to stderr.
pub(super) fn error(program: &str, ended: &ProcessOutcome, stderr: &[u8]) -> RemoteError {
    let how = match (ended.exit_code, ended.signal) {
        (Some(code), _) => format!("`{program}` exited with code {code}"),
        (None, Some(signal)) => format!("`{program}` was ended by {}", signal::describe(signal)),
        (None, None) => format!("`{program}` ended, nobody knows how"),
    };
    let mut error = match ended.stopped {
        None => RemoteError::new("ProcessFailed", how),
        Some(StopReason::Asked) => RemoteError::new("TaskStopped", format!("the task was stopped: {how}")),
        Some(StopReason::RunTimeout) => {
            RemoteError::new("RunTimeout", format!("the task ran for longer than its run timeout: {how}"))
        }
    };
    let tail = String::from_utf8_lossy(&stderr[stderr.len().saturating_sub(TAIL_BYTES)..]);
    let lines: Vec<&str> = tail.lines().collect();
    let last = lines[lines.len().saturating_sub(LINES)..].iter().map(|line| (*line).to_owned());
    error.traceback.splice(0..0, last);
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(exit_code: Option<i32>, signal: Option<i32>) -> ProcessOutcome {
        ProcessOutcome { exit_code, signal, ..ProcessOutcome::default() }
    }

    #[test]
    fn the_error_says_how_it_ended_and_shows_the_last_lines_of_stderr() {
        let stderr = (0..100).map(|n| format!("line {n}")).collect::<Vec<_>>().join("\n");
        let failed = error("prog", &ended(Some(3), None), stderr.as_bytes());
        assert_eq!(failed.to_string(), "ProcessFailed: `prog` exited with code 3");
        assert_eq!(failed.traceback.len(), LINES + 1);
        assert_eq!(failed.traceback[0], "line 80");
        assert_eq!(failed.traceback[LINES], failed.to_string());
        let killed = ProcessOutcome { stopped: Some(StopReason::Asked), ..ended(None, Some(9)) };
        let killed = error("prog", &killed, b"");
        assert_eq!(killed.to_string(), "TaskStopped: the task was stopped: `prog` was ended by signal 9 (SIGKILL)");
        let late =
            error("prog", &ProcessOutcome { stopped: Some(StopReason::RunTimeout), ..ended(Some(0), None) }, b"");
        let said = "RunTimeout: the task ran for longer than its run timeout: `prog` exited with code 0";
        assert_eq!(late.to_string(), said);
    }

    #[test]
    fn stderr_may_be_no_text() {
        let failed = error("prog", &ended(Some(1), None), &vec![0xff; 3 * TAIL_BYTES]);
        assert_eq!(failed.traceback.len(), 2);
    }
}
