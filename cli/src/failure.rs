//! How a command fails: what to print, and the exit code.

use std::fmt::Display;
use std::process::ExitCode;

/// A command that could not do what it was asked.
pub(crate) struct Failure {
    error: anyhow::Error,
    /// What to do about it.
    hint: Option<String>,
    code: u8,
}

impl Failure {
    /// The command line or the configuration is wrong: exit code 2.
    pub(crate) fn usage(message: impl Display) -> Self {
        Self { error: anyhow::anyhow!("{message}"), hint: None, code: 2 }
    }

    /// What was asked for was tried and failed: exit code 1.
    pub(crate) fn new(error: impl Into<anyhow::Error>) -> Self {
        Self { error: error.into(), hint: None, code: 1 }
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

    /// Prints the error, its causes and the hint on stderr.
    #[expect(clippy::print_stderr, reason = "this is where errors are printed")]
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("error: {}", self.error);
        for cause in self.error.chain().skip(1) {
            eprintln!("  caused by: {cause}");
        }
        if let Some(hint) = &self.hint {
            eprintln!("\nhint: {hint}");
        }
        ExitCode::from(self.code)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

/// What a command gives.
pub(crate) type Outcome = Result<ExitCode, Failure>;
