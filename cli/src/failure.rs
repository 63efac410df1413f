//! How a command fails: what to print, and the exit code.

use std::fmt::Display;
use std::process::ExitCode;

use crate::logging;

/// A command that could not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    error: anyhow::Error,
    /// What to do about it.
    hint: Option<String>,
    code: u8,
    /// What else is wrong, independently of it.
    others: Vec<Self>,
}

impl Failure {
    /// The command line or the configuration is wrong: exit code 2.
    pub(crate) fn usage(message: impl Display) -> Self {
        Self { error: anyhow::anyhow!("{message}"), hint: None, code: 2, others: Vec::new() }
    }

    /// What was asked for was tried and failed: exit code 1.
    pub(crate) fn new(error: impl Into<anyhow::Error>) -> Self {
        Self { error: error.into(), hint: None, code: 1, others: Vec::new() }
    }

    /// All that is wrong at once, in this order: with the exit code that is highest. `None` if nothing is.
    pub(crate) fn several(all: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut all = all.into_iter();
        let mut first = all.next()?;
        first.others.extend(all);
        first.code = first.others.iter().map(|other| other.code).fold(first.code, u8::max);
        Some(first)
    }

    /// Says what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With another exit code.
    pub(crate) fn code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// What went wrong.
    pub(crate) fn cause(&self) -> &anyhow::Error {
        &self.error
    }

    /// The error with its causes, in one line.
    pub(crate) fn text(&self) -> String {
        let mut text = self.error.to_string();
        for cause in self.error.chain().skip(1) {
            text.extend([": ", &cause.to_string()]);
        }
        text
    }

    /// What to do about it, where that can be said.
    pub(crate) fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Prints the error, its causes and the hint on stderr, and so with all else that is wrong; or logs them, where the log on
    /// stderr is to be JSON on each line.
    pub(crate) fn report(&self) -> ExitCode {
        if logging::is_json() {
            for failure in [self].into_iter().chain(&self.others) {
                tracing::error!(hint = failure.advice(), "{}", failure.text());
            }
        } else {
            self.print();
        }
        ExitCode::from(self.code)
    }

    #[expect(clippy::print_stderr, reason = "this is where errors are printed")]
    fn print(&self) {
        for (at, failure) in [self].into_iter().chain(&self.others).enumerate() {
            if at > 0 {
                eprintln!();
            }
            eprintln!("error: {}", failure.error);
            for cause in failure.error.chain().skip(1) {
                eprintln!("  caused by: {cause}");
            }
            if let Some(hint) = &failure.hint {
                // With several errors, what belongs together stands together.
                eprintln!("{}hint: {hint}", if self.others.is_empty() { "\n" } else { "  " });
            }
        }
        if !self.others.is_empty() {
            eprintln!("\n{} errors", self.others.len() + 1);
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

/// What a command gives.
pub(crate) type Outcome = Result<ExitCode, Failure>;
