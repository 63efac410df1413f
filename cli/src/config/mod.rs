//! What a program is to do, from all that says so: defaults < configuration files < environment < command line.
//!
//! Everything becomes words of our own command line, in this order, of which the last counts: so that each value is
//! checked in one place, whoever gave it. Start with [`Layers`].

mod environment;
mod file;
mod python;
mod resolved;
mod table;
mod template;
mod words;
mod wrong;

use std::ffi::OsString;
use std::path::Path;

use clap::{CommandFactory, Parser};

use crate::args::controller::ControllerArgs;
use crate::args::{Args, Command, PlaceArgs};
use crate::failure::Failure;

pub(crate) use resolved::settings;
pub(crate) use table::Program;
pub(crate) use template::{TEMPLATES, Template};
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
    /// All that is wrong, each with file and line. What is wrong is not among what is given.
    pub(crate) problems: Vec<Failure>,
}

/// Options that say where the configuration is, and so cannot come from there, or that a file cannot ask for.
const NOT_IN_FILES: [&str; 8] =
    ["profile", "profile-dir", "ipython-dir", "config", "show-config", "show-config-json", "check-config", "parent"];

/// Our own file, in the profile's folder.
pub(crate) const OWN_FILE: &str = "remuda.toml";

impl Layers {
    /// Reads the files of a profile (and `extra`, the file that `--config` names) and the environment, for the command
    /// that `path` leads to (`["controller"]`). What cannot be read, or says what no option takes, is among the problems.
    pub(crate) fn read(program: Program, path: &[&str], profile: &Path, extra: Option<&Path>) -> Self {
        let mut layers = Self::default();
        for name in ["ipython", program.stock_name()] {
            for ending in ["py", "json"] {
                let file = profile.join(format!("{name}_config.{ending}"));
                if let Some(text) = layers.text(&file) {
                    layers.add_traits(program, &file, &text, name == "ipython");
                }
            }
        }
        if let Some(file) = extra {
            let problems = layers.problems.len();
            if let Some(text) = layers.text(file) {
                layers.add_traits(program, file, &text, false);
            } else if layers.problems.len() == problems {
                let missing = Failure::usage(format!("no configuration file `{}`", file.display()));
                layers.problems.push(missing.hint("name another with `--config`"));
            }
        }
        layers.add_own(program, &profile.join(OWN_FILE));
        layers.given.extend(environment::options(program, |name| std::env::var(name).ok()));
        layers.check(path);
        layers
    }

    /// What is wrong in the tables of `remuda.toml` that are for other programs than this one.
    pub(crate) fn problems_for_others(program: Program, profile: &Path) -> Vec<Failure> {
        let others = Program::ALL.into_iter().filter(|other| *other != program);
        let of = |other: Program| {
            let mut layers = Self::default();
            layers.add_own(other, &profile.join(OWN_FILE));
            let path: &[&str] = if other == Program::Cluster { &["cluster", "start"] } else { &[other.command()] };
            layers.check(path);
            layers.problems
        };
        others.flat_map(of).collect()
    }

    /// The text of a file, if there is one; that it cannot be read is a problem.
    fn text(&mut self, file: &Path) -> Option<String> {
        file::read(file).unwrap_or_else(|problem| {
            self.problems.push(problem);
            None
        })
    }

    /// Adds the program's table of a `remuda.toml`, if there is one.
    fn add_own(&mut self, program: Program, path: &Path) {
        if let Some(text) = self.text(path) {
            let (given, problems) = file::options(program, path, &text);
            self.given.extend(given);
            self.problems.extend(problems);
        }
    }

    /// Adds the settings of a file of traitlets'. A `shared` one is that of all of IPython, where much is said to others.
    fn add_traits(&mut self, program: Program, path: &Path, text: &str, shared: bool) {
        let (settings, skipped) = match file::traits(path, text) {
            Ok(read) => read,
            Err(problem) => return self.problems.push(problem),
        };
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
                    let origin = &setting.origin;
                    match words::words(option, kind, &setting.value) {
                        Ok(words) => {
                            self.given.extend(words.into_iter().map(|word| Given { word, origin: origin.clone() }));
                        }
                        Err(reason) => self.problems.push(Failure::usage(format!("{origin}: {reason}"))),
                    }
                }
            }
        }
    }

    /// Leaves out what the command has no option for, since a file serves several; and tries each of the rest alone, so
    /// that what is wrong is told with its origin, and left out.
    fn check(&mut self, path: &[&str]) {
        let command = command(path);
        let argument = |option: &str| command.get_arguments().find(|arg| arg.get_long() == Some(option));
        let problems = &mut self.problems;
        self.given.retain(|given| {
            let Some(argument) = argument(given.option().0) else { return false };
            let words = [&["remuda"], path, &[&*given.word]].concat();
            match Args::try_parse_from(words) {
                // What it needs besides may be said elsewhere.
                Err(error) if error.kind() != clap::error::ErrorKind::MissingRequiredArgument => {
                    let reason = wrong::reason(&error, argument);
                    problems.push(Failure::usage(format!("{}: {reason}", given.origin)));
                    false
                }
                _ => true,
            }
        });
    }

    /// The words, to be put before those that were typed.
    pub(crate) fn words(&self) -> impl Iterator<Item = OsString> {
        self.given.iter().map(|given| OsString::from(&given.word))
    }
}

/// What files, environment and these further words come to for a controller of this place; without what is wrong in them.
///
/// # Errors
/// Where they contradict each other.
pub(crate) fn controller_of(place: &PlaceArgs, more: &[String]) -> Result<(Box<ControllerArgs>, Layers), Failure> {
    let profile = place.profile();
    let layers = Layers::read(Program::Controller, &["controller"], profile.dir(), None);
    let more = more.iter().map(OsString::from);
    let more = translate(Program::Controller, more).map_err(Failure::usage)?.words;
    let all = ["remuda", "controller"].map(OsString::from).into_iter().chain(layers.words()).chain(more);
    match Args::try_parse_from(all).map(|args| args.command) {
        Ok(Command::Controller(mut args)) => {
            args.place = place.clone();
            Ok((args, layers))
        }
        Ok(_) => unreachable!("the words begin with `controller`"),
        Err(error) => Err(Failure::usage(error.to_string().trim_start_matches("error: ").trim_end())),
    }
}

/// Whether something secret was given by a file.
pub(crate) fn is_secret_in(given: &Given, file: &Path) -> bool {
    file::is_secret(given.option().0) && given.origin.contains(&*file.to_string_lossy())
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

    /// With `REMUDA_WRITE_DOCS` in the environment it writes them instead.
    #[test]
    fn the_documentation_has_the_table_of_settings() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        let mut text = fs::read_to_string(&path).unwrap();
        for program in Program::ALL {
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
        for program in Program::ALL {
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
        let Command::Engine(engine) = args.command else { panic!() };
        assert_eq!((engine.label, engine.timeout), (vec!["a".to_owned(), "b".to_owned()], 2.0));
    }
}
