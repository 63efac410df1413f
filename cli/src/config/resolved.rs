//! Every option of a command with the value that it has, and who said so: for `--show-config`.

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory};
use remuda_net::profile::variable;

use super::{Given, Layers, command, file};
use crate::args::{Args, PlaceArgs};

/// What stands for the value of a secret.
const SECRET: &str = "(secret)";

/// An option and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Its name on the command line, without the dashes.
    pub(crate) option: String,
    /// The value for people, never a secret; of several, with commas between. `-`: there is none.
    pub(crate) value: String,
    /// Who said so: `default`, a file with line or key, a variable, or the command line.
    pub(crate) origin: String,
    /// What was said by others, of lower rank, the highest first: value and origin.
    pub(crate) overridden: Vec<(String, String)>,
}

const DEFAULT: &str = "default";
const COMMAND_LINE: &str = "command line";

/// What does not say how the command runs.
const NOT_SHOWN: [&str; 5] = ["help", "version", "show-config", "show-config-json", "check-config"];

/// All options of the command that `path` leads to, in the order of their names; with what files and environment say, and what
/// was typed. `place` is what that comes to.
///
/// # Errors
/// Where the words contradict each other; none of them alone is wrong.
pub(crate) fn settings(
    path: &[&str],
    layers: &Layers,
    typed: &[OsString],
    place: &PlaceArgs,
) -> Result<Vec<Setting>, clap::Error> {
    // What was typed may need something that a file says.
    let of = |words: Vec<OsString>, is_whole: bool| -> Result<ArgMatches, clap::Error> {
        let start = ["remuda"].iter().chain(path).map(OsString::from);
        let mut matches = &Args::command().ignore_errors(!is_whole).try_get_matches_from(start.chain(words))?;
        for name in path {
            matches = matches.subcommand_matches(name).expect("the words begin with the path");
        }
        Ok(matches.clone())
    };
    let all = of(layers.words().chain(typed.iter().cloned()).collect(), true)?;
    let typed = of(typed.to_vec(), false)?;
    let command = command(path);
    let mut settings: Vec<Setting> = Vec::new();
    for argument in command.get_arguments() {
        let Some(option) = argument.get_long().filter(|option| !NOT_SHOWN.contains(option)) else { continue };
        let is_said =
            |matches: &ArgMatches| matches.value_source(argument.get_id().as_str()) == Some(ValueSource::CommandLine);
        if argument.is_hide_set() && !is_said(&all) {
            continue;
        }
        let given: Vec<&Given> = layers.given.iter().filter(|given| given.option().0 == option).collect();
        let by_typing = is_said(&typed).then(|| values(&typed, argument));
        settings.push(setting(option, argument, &values(&all, argument), &given, by_typing));
    }
    of_place(&mut settings, place);
    settings.sort_by(|one, other| one.option.cmp(&other.option));
    Ok(settings)
}

/// The values of an option, in the order in which they were given.
fn values(matches: &ArgMatches, argument: &Arg) -> Vec<String> {
    let raw = matches.get_raw(argument.get_id().as_str());
    raw.into_iter().flatten().map(|value| value.to_string_lossy().into_owned()).collect()
}

fn setting(
    option: &str,
    argument: &Arg,
    values: &[String],
    given: &[&Given],
    by_typing: Option<Vec<String>>,
) -> Setting {
    let shown = |values: &[String]| {
        let shown: Vec<String> = values.iter().map(|value| shown(option, value)).collect();
        if shown.iter().all(String::is_empty) { "''".to_owned() } else { shown.join(", ") }
    };
    let mut said: Vec<(String, String)> =
        given.iter().map(|given| (shown(&[given.option().1.to_owned()]), given.origin.clone())).collect();
    said.extend(by_typing.map(|values| (shown(&values), COMMAND_LINE.to_owned())));
    let option = option.to_owned();
    if matches!(argument.get_action(), clap::ArgAction::Append) && !said.is_empty() {
        // They add up.
        let mut origins: Vec<String> = said.into_iter().map(|(_, origin)| origin).collect();
        origins.dedup();
        return Setting { option, value: shown(values), origin: origins.join("; "), overridden: Vec::new() };
    }
    let Some((value, origin)) = said.pop() else {
        let value = if values.is_empty() { documented(argument) } else { shown(values) };
        return Setting { option, value, origin: DEFAULT.to_owned(), overridden: Vec::new() };
    };
    said.reverse();
    Setting { option, value, origin, overridden: said }
}

/// What the help says of a default that is made only when the command runs.
fn documented(argument: &Arg) -> String {
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let default = help.split_once("[default: ").and_then(|(_, rest)| rest.split_once(']'));
    default.map_or_else(|| "-".to_owned(), |(default, _)| default.to_owned())
}

/// The profile is a folder, whichever option or variable leads to it.
fn of_place(settings: &mut [Setting], place: &PlaceArgs) {
    let profile = place.profile();
    let named = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    for setting in settings {
        match &*setting.option {
            "profile-dir" if setting.origin == DEFAULT => {
                if named(variable::PROFILE_DIR) {
                    setting.origin = of_variable(variable::PROFILE_DIR);
                } else if place.profile.is_some() {
                    "`--profile`".clone_into(&mut setting.origin);
                }
                setting.value = profile.dir().display().to_string();
            }
            "ipython-dir" if setting.origin == DEFAULT => {
                if named(variable::IPYTHON_DIR) {
                    setting.origin = of_variable(variable::IPYTHON_DIR);
                }
                setting.value = remuda_net::profile::ipython_dir().display().to_string();
            }
            _ => {}
        }
    }
}

fn of_variable(name: &str) -> String {
    format!("the variable `{name}`")
}

/// A value for people: never a secret, nor one among the arguments for another program.
fn shown(option: &str, value: &str) -> String {
    if file::is_secret(option) && !value.is_empty() {
        return SECRET.to_owned();
    }
    let inner = value.split_once('=').filter(|(name, _)| {
        let name = name.trim_start_matches('-');
        value.starts_with('-') && file::is_secret(name.rsplit('.').next().unwrap_or(name))
    });
    inner.map_or_else(|| value.to_owned(), |(name, _)| format!("{name}={SECRET}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(typed: &[&str], given: &[(&str, &str)]) -> Vec<Setting> {
        let given = given.iter().map(|(word, origin)| Given { word: (*word).into(), origin: (*origin).into() });
        let layers = Layers { given: given.collect(), ..Layers::default() };
        let typed: Vec<OsString> = typed.iter().map(OsString::from).collect();
        let place = PlaceArgs { profile_dir: Some("/p".into()), ..PlaceArgs::default() };
        settings(&["controller"], &layers, &typed, &place).unwrap()
    }

    fn one(settings: &[Setting], option: &str) -> (String, String) {
        let one = settings.iter().find(|setting| setting.option == option).unwrap();
        (one.value.clone(), one.origin.clone())
    }

    #[test]
    fn each_value_tells_who_said_so() {
        let settings = of(
            &["--hwm", "5", "--reuse"],
            &[("--hwm=4", "a file"), ("--hwm=3", "a later one"), ("--ip=*", "a file"), ("--key=hidden", "a variable")],
        );
        for (option, value, origin) in [
            ("hwm", "5", COMMAND_LINE),
            ("reuse", "true", COMMAND_LINE),
            ("ip", "*", "a file"),
            ("key", SECRET, "a variable"),
            ("ping", "3000", DEFAULT),
            ("record-limit", "1024", DEFAULT),
            ("location", "this host's", DEFAULT),
            ("ports", "''", DEFAULT),
            ("engine-ip", "-", DEFAULT),
            ("profile-dir", "/p", DEFAULT),
        ] {
            assert_eq!(one(&settings, option), (value.to_owned(), origin.to_owned()), "{option}");
        }
        let hwm = settings.iter().find(|setting| setting.option == "hwm").unwrap();
        let said = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());
        assert_eq!(hwm.overridden, [said("3", "a later one"), said("4", "a file")]);
        assert!(!settings.iter().any(|setting| matches!(&*setting.option, "parent" | "help" | "show-config")));
    }

    #[test]
    fn a_secret_among_the_arguments_of_another_program_is_none_the_less() {
        assert_eq!(shown("controller-arg", "--key=x"), "--key=(secret)");
        assert_eq!(shown("controller-arg", "--Session.key=x"), "--Session.key=(secret)");
        assert_eq!(shown("controller-arg", "--ping=5"), "--ping=5");
        assert_eq!(shown("key", ""), "");
    }
}
