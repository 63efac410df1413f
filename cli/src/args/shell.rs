//! `remuda completions` and `remuda man`.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// Arguments of `remuda completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// Arguments of `remuda man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Folder to write a page for each command to; made if it is not there [default: the main page is printed]
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}
