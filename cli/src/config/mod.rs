//! What a program is to do, from all that says so: defaults < configuration files < environment < command line.
//!
//! Everything becomes words of our own command line, in this order, of which the last counts: so that each value is
//! checked in one place, whoever gave it. Start with [`Layers`].

mod environment;
mod file;
mod python;
mod table;
mod words;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};

use crate::args::Args;
use crate::failure::Failure;

pub(crate) use table::Program;
pub(crate) use words::translate;

/// A word of our command line, and who gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    /// `--ping=200`.
    pub(crate) word: String,
    /// A file and line, a variable, or the command line.
    pub(crate) origin: String,
}

impl Given {
    /// The option's name and its value.
    pub(crate) fn option(&self) -> (&str, &str) {
        let word = self.word.trim_start_matches('-');
        word.split_once('=').unwrap_or((word, ""))
    }
}

/// What files and environment say for one command.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    /// In the order of their rank, the lowest first.
    pub(crate) given: Vec<Given>,
    /// What has no effect, and why.
    pub(crate) notes: Vec<String>,
}

/// Options that say where the configuration is, and so cannot come from there, or that a file cannot ask for.
const NOT_IN_FILES: [&str; 7] =
    ["profile", "profile-dir", "ipython-dir", "config", "show-config", "show-config-json", "parent"];

impl Layers {
    /// Reads the files of a profile (and `extra`, the file that `--config` names) and the environment, for the command
    /// that `path` leads to (`["controller"]`).
    ///
    /// # Errors
    /// Where a file cannot be read, or says what no option takes; the message names file and line.
    pub(crate) fn read(program: Program, path: &[&str], profile: &Path, extra: Option<&Path>) -> Result<Self, Failure> {
        let mut layers = Self::default();
        let mut files: Vec<(PathBuf, bool)> = Vec::new();
        for name in ["ipython", program.stock_name()] {
            for ending in ["py", "json"] {
                files.push((profile.join(format!("{name}_config.{ending}")), name == "ipython"));
            }
        }
        for (file, is_shared) in &files {
            if let Some(text) = file::read(file)? {
                layers.add_traits(program, file, &text, *is_shared)?;
            }
        }
        if let Some(file) = extra {
            let text = file::read(file)?.ok_or_else(|| {
                Failure::usage(format!("no configuration file `{}`", file.display()))
                    .hint("name another with `--config`")
            })?;
            layers.add_traits(program, file, &text, false)?;
        }
        let own = profile.join("remuda.toml");
        if let Some(text) = file::read(&own)? {
            layers.given.extend(file::options(program, &own, &text)?);
        }
        layers.given.extend(environment::options(program, |name| std::env::var(name).ok()));
        layers.check(path)?;
        Ok(layers)
    }

    /// Adds the settings of a file of traitlets'. A `shared` one is that of all of IPython, where much is said to others.
    fn add_traits(&mut self, program: Program, path: &Path, text: &str, shared: bool) -> Result<(), Failure> {
        let (settings, skipped) = file::traits(path, text)?;
        for line in skipped {
            self.notes.push(format!("{line} needs Python to run, and was not"));
        }
        for setting in settings {
            let (class, name) = (&*setting.class, &*setting.name);
            let Some(known) = program.setting(class, name) else {
                if !shared || program.has_class(class) {
                    let nearest = program.nearest(class, name).map(|name| format!("; is `c.{name}` meant?"));
                    let nearest = nearest.unwrap_or_default();
                    self.notes.push(format!("{}: no setting `{class}.{name}`{nearest}", setting.origin));
                }
                continue;
            };
            match known.meaning {
                table::Meaning::None(_) if shared => {}
                table::Meaning::None(why) => self.notes.push(format!("{} has no effect: {why}", setting.origin)),
                table::Meaning::Option(option, _) if NOT_IN_FILES.contains(&option) => {
                    self.notes.push(format!("{} has no effect in a file: use `--{option}`", setting.origin));
                }
                table::Meaning::Option(option, kind) => {
                    let words = words::words(option, kind, &setting.value);
                    let words = words.map_err(|reason| Failure::usage(format!("{}: {reason}", setting.origin)))?;
                    let origin = &setting.origin;
                    self.given.extend(words.into_iter().map(|word| Given { word, origin: origin.clone() }));
                }
            }
        }
        Ok(())
    }

    /// Leaves out what the command has no option for, since a file serves several; and tries each of the rest alone, so
    /// that what is wrong is told with its origin.
    fn check(&mut self, path: &[&str]) -> Result<(), Failure> {
        let command = command(path);
        let has = |option: &str| command.get_arguments().any(|arg| arg.get_long() == Some(option));
        self.given.retain(|given| has(given.option().0));
        for given in &self.given {
            let words = [&["remuda"], path, &[&*given.word]].concat();
            if let Err(error) = Args::try_parse_from(words) {
                let text = error.to_string();
                let reason = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
                return Err(Failure::usage(format!("{}: {reason}", given.origin)));
            }
        }
        Ok(())
    }

    /// The words, to be put before those that were typed.
    pub(crate) fn words(&self) -> impl Iterator<Item = OsString> {
        self.given.iter().map(|given| OsString::from(&given.word))
    }
}

/// An option and its value for people: never a secret.
pub(crate) fn shown(given: &Given) -> (&str, &str) {
    let (option, value) = given.option();
    (option, if file::is_secret(option) && !value.is_empty() { "(secret)" } else { value })
}

/// The command that a path of names leads to.
pub(crate) fn command(path: &[&str]) -> clap::Command {
    let mut command = Args::command();
    command.build();
    for name in path {
        command = command.find_subcommand(name).cloned().unwrap_or(command);
    }
    command
}

/// The settings of a program as a table of Markdown, for the documentation and `--help-all`.
pub(crate) fn documentation(program: Program) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("| ipyparallel | here |\n|---|---|\n");
    for setting in program.settings() {
        let short = match setting.short {
            table::Short::Same => String::new(),
            table::Short::Valued(short) if short.len() == 1 => format!(", `-{short}`"),
            table::Short::Valued(short) => format!(", `--{short}`"),
            table::Short::Flag(short, _) => format!(", `--{short}`"),
        };
        let here = match (setting.meaning, setting.short) {
            (table::Meaning::None(why), _) => format!("no effect: {why}"),
            (table::Meaning::Option(option, _), table::Short::Flag(_, value)) => {
                let value = if value.is_empty() { "''".to_owned() } else { value.to_lowercase() };
                format!("`--{option}={value}`")
            }
            (table::Meaning::Option(option, _), _) => format!("`--{option}`"),
        };
        let _ = writeln!(text, "| `{}.{}`{short} | {here} |", setting.class, setting.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const PROGRAMS: [Program; 3] = [Program::Controller, Program::Engine, Program::Cluster];

    /// With `REMUDA_WRITE_DOCS` in the environment it writes them instead.
    #[test]
    fn the_documentation_has_the_table_of_settings() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        let mut text = fs::read_to_string(&path).unwrap();
        for program in PROGRAMS {
            let begin = format!("<!-- settings of {} -->\n", program.command());
            let start = text.find(&begin).unwrap() + begin.len();
            let end = start + text[start..].find("<!-- end -->").unwrap();
            let wanted = documentation(program);
            if std::env::var_os("REMUDA_WRITE_DOCS").is_some() {
                text.replace_range(start..end, &wanted);
            } else {
                let is_same = text[start..end] == wanted;
                assert!(is_same, "docs/configuration.md is behind: run this test with REMUDA_WRITE_DOCS=1");
            }
        }
        if std::env::var_os("REMUDA_WRITE_DOCS").is_some() {
            fs::write(&path, text).unwrap();
        }
    }

    #[test]
    fn every_setting_leads_to_an_option_of_its_program() {
        for program in PROGRAMS {
            let command = command(&[program.command()]);
            let all: Vec<clap::Command> = command.get_subcommands().cloned().chain([command.clone()]).collect();
            for setting in program.settings() {
                let table::Meaning::Option(option, _) = setting.meaning else { continue };
                let has = all.iter().any(|one| one.get_arguments().any(|arg| arg.get_long() == Some(option)));
                assert!(has, "{program:?}: {}.{} leads to `--{option}`", setting.class, setting.name);
            }
        }
    }

    #[test]
    fn options_of_which_there_may_be_several_add_up_and_others_give_way() {
        let words = "remuda engine --label a --label b --timeout 1 --timeout 2";
        let args = Args::try_parse_from(words.split_whitespace()).unwrap();
        let crate::args::Command::Engine(engine) = args.command else { panic!() };
        assert_eq!((engine.label, engine.timeout), (vec!["a".to_owned(), "b".to_owned()], 2.0));
    }
}
