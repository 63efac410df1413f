//! `remuda profile`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Format;

#[derive(Debug, Subcommand)]
pub(crate) enum ProfileCommand {
    /// Make a profile: its folder as IPython lays it out, and a remuda.toml from a template.
    Create(CreateArgs),
    /// List the profiles of IPython's folder, and the templates that are shipped.
    List(ListArgs),
    /// Print the remuda.toml of a profile, or a template.
    Show(ShowArgs),
    /// Print the folder of a profile.
    Path(PathArgs),
}

/// Where profiles are.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct FolderArgs {
    /// Folder of the profile, wherever it is
    #[arg(long, value_name = "DIR", conflicts_with = "name")]
    pub(crate) profile_dir: Option<PathBuf>,
    /// IPython's folder [env: IPYTHONDIR] [default: ~/.ipython]
    #[arg(long, value_name = "DIR")]
    pub(crate) ipython_dir: Option<PathBuf>,
}

/// Arguments of `remuda profile create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Name of the profile: folder `profile_<NAME>` in IPython's folder
    #[arg(value_name = "NAME", required_unless_present = "profile_dir")]
    pub(crate) name: Option<String>,
    /// Template of its remuda.toml (`remuda profile list`) [default: the one of the profile's name, or else `default`]
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) template: Option<String>,
    /// Write the remuda.toml anew if there is one
    #[arg(long)]
    pub(crate) reset: bool,
    #[command(flatten)]
    pub(crate) folder: FolderArgs,
}

/// Arguments of `remuda profile list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// IPython's folder [env: IPYTHONDIR] [default: ~/.ipython]
    #[arg(long, value_name = "DIR")]
    pub(crate) ipython_dir: Option<PathBuf>,
}

/// Arguments of `remuda profile show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Name of a profile or, if there is none of that name, of a template
    #[arg(value_name = "NAME", required_unless_present = "profile_dir")]
    pub(crate) name: Option<String>,
    /// The template of that name, even if there is a profile
    #[arg(long, conflicts_with = "profile_dir")]
    pub(crate) template: bool,
    #[command(flatten)]
    pub(crate) folder: FolderArgs,
}

/// Arguments of `remuda profile path`.
#[derive(Debug, Args)]
pub(crate) struct PathArgs {
    /// Name of the profile [default: default]
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) folder: FolderArgs,
}
