//! `remuda profile`: profiles, and the templates that are shipped.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use remuda_net::{Profile, profile};
use serde_json::json;

use super::say;
use crate::args::profile::{CreateArgs, FolderArgs, ListArgs, PathArgs, ProfileCommand, ShowArgs};
use crate::args::{Format, PlaceArgs};
use crate::config::{OWN_FILE, TEMPLATES, Template};
use crate::failure::{Failure, Outcome};
use crate::output;

pub(super) fn run(command: &ProfileCommand) -> Outcome {
    match command {
        ProfileCommand::Create(args) => create(args),
        ProfileCommand::List(args) => super::unless_nobody_reads(list(args)),
        ProfileCommand::Show(args) => super::unless_nobody_reads(show(args)),
        ProfileCommand::Path(args) => path(args),
    }
}

fn create(args: &CreateArgs) -> Outcome {
    let template = match &args.template {
        Some(name) => Template::named(name).ok_or_else(|| no_template(name))?,
        None => args.name.as_deref().and_then(Template::named).unwrap_or(&TEMPLATES[0]),
    };
    let dir = folder(args.name.as_deref(), &args.folder)?;
    let file = dir.join(OWN_FILE);
    if file.exists() && !args.reset {
        let what = anyhow::anyhow!("`{}` is there already", file.display());
        return Err(Failure::new(what).hint("give the profile another name, or write the file anew with `--reset`"));
    }
    Profile::at(&dir, "").create()?;
    write_whole(&file, template.text).map_err(|error| {
        Failure::new(anyhow::Error::new(error).context(format!("cannot write `{}`", file.display())))
    })?;
    writeln!(io::stdout().lock(), "{}", file.display())?;
    let options = match &args.name {
        Some(name) => PlaceArgs {
            profile: Some(name.clone()),
            ipython_dir: args.folder.ipython_dir.clone(),
            ..PlaceArgs::default()
        },
        None => PlaceArgs { profile_dir: Some(dir), ..PlaceArgs::default() },
    };
    say(&format!(
        "made from the template `{}`; start a controller with `remuda controller{}`",
        template.name,
        options.options()
    ));
    Ok(ExitCode::SUCCESS)
}

/// There whole or not at all, with the permissions that a new file has.
fn write_whole(file: &Path, text: &str) -> io::Result<()> {
    let beside = file.with_extension("toml.new");
    fs::write(&beside, text)?;
    fs::rename(&beside, file)
}

fn list(args: &ListArgs) -> Outcome {
    let parent = args.ipython_dir.clone().unwrap_or_else(profile::ipython_dir);
    let profiles = profiles(&parent)?;
    let mut out = io::stdout().lock();
    if args.output == Format::Json {
        let profiles: Vec<_> = profiles
            .iter()
            .map(|(name, dir)| json!({"name": name, "dir": dir, "configured": dir.join(OWN_FILE).exists()}))
            .collect();
        let templates: Vec<_> =
            TEMPLATES.iter().map(|template| json!({"name": template.name, "summary": template.summary()})).collect();
        writeln!(out, "{:#}", json!({"profiles": profiles, "templates": templates}))?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |name: &str, kind: &str, about: String| vec![name.to_owned(), kind.to_owned(), about];
    let own = profiles.iter().map(|(name, dir)| row(name, "profile", dir.display().to_string()));
    let shipped = TEMPLATES.iter().map(|template| row(template.name, "template", template.summary().to_owned()));
    let rows: Vec<Vec<String>> = own.chain(shipped).collect();
    output::table(&mut out, &["NAME", "KIND", "WHERE, OR WHAT FOR"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// The profiles in IPython's folder, by name.
fn profiles(parent: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            let what = format!("cannot read IPython's folder `{}`", parent.display());
            return Err(Failure::new(anyhow::Error::new(error).context(what)).hint("name another with `--ipython-dir`"));
        }
    };
    let folders = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.strip_prefix("profile_")?.to_owned());
    let mut all: Vec<(String, PathBuf)> = folders.filter_map(|path| Some((name(&path)?, path))).collect();
    all.sort();
    Ok(all)
}

fn show(args: &ShowArgs) -> Outcome {
    let template = args.name.as_deref().and_then(Template::named);
    let text = if args.template {
        template.ok_or_else(|| no_template(args.name.as_deref().unwrap_or_default()))?.text.to_owned()
    } else {
        let dir = folder(args.name.as_deref(), &args.folder)?;
        let file = dir.join(OWN_FILE);
        match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() != ErrorKind::NotFound => {
                let what = format!("cannot read `{}`", file.display());
                return Err(Failure::new(anyhow::Error::new(error).context(what)));
            }
            Err(_) if dir.is_dir() => {
                let what = anyhow::anyhow!("the profile in `{}` has no {OWN_FILE}: the defaults hold", dir.display());
                let hint = "`remuda profile create` with its name makes one; `remuda controller --show-config` prints what holds";
                return Err(Failure::new(what).hint(hint));
            }
            Err(_) => match template {
                Some(template) => template.text.to_owned(),
                None => return Err(no_profile(&dir)),
            },
        }
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn path(args: &PathArgs) -> Outcome {
    let dir = match (&args.name, &args.folder.profile_dir) {
        // As for all other commands.
        (None, None) => PlaceArgs { ipython_dir: args.folder.ipython_dir.clone(), ..PlaceArgs::default() }
            .profile()
            .dir()
            .to_owned(),
        (name, _) => folder(name.as_deref(), &args.folder)?,
    };
    if !dir.is_dir() {
        return Err(no_profile(&dir));
    }
    writeln!(io::stdout().lock(), "{}", dir.display())?;
    Ok(ExitCode::SUCCESS)
}

/// The folder of a profile that was named here, whatever the environment says.
fn folder(name: Option<&str>, folder: &FolderArgs) -> Result<PathBuf, Failure> {
    let dir = match (name, &folder.profile_dir) {
        (_, Some(dir)) => dir.clone(),
        (name, None) => {
            let name = name.unwrap_or("default");
            if name.is_empty() || name.starts_with('.') || name.contains('/') {
                return Err(Failure::usage(format!("`{name}` cannot be the name of a profile")).hint(
                    "a name is part of a folder's: no `/`, and no `.` in front; `--profile-dir` takes any folder",
                ));
            }
            folder.ipython_dir.clone().unwrap_or_else(profile::ipython_dir).join(format!("profile_{name}"))
        }
    };
    Ok(std::path::absolute(&dir).unwrap_or(dir))
}

fn no_template(name: &str) -> Failure {
    let names = TEMPLATES.map(|template| format!("`{}`", template.name)).join(", ");
    Failure::usage(format!("no template `{name}`")).hint(format!("use {names}"))
}

fn no_profile(dir: &Path) -> Failure {
    Failure::new(anyhow::anyhow!("no profile `{}`", dir.display()))
        .hint("`remuda profile list` lists them, `remuda profile create NAME` makes one")
}
