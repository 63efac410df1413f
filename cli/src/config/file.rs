//! Configuration files: traitlets' in Python and JSON, and our own in TOML.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::python::{self, Value};
use super::table::{Kind, Meaning, Program};
use super::{Given, NOT_IN_FILES, words};
use crate::failure::Failure;

/// A value for `class.name`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Trait {
    pub(super) class: String,
    pub(super) name: String,
    pub(super) value: Value,
    /// File, line and text, for messages.
    pub(super) origin: String,
}

/// The text of a file; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let what = format!("cannot read the configuration file `{}`", path.display());
            Err(Failure::new(anyhow::Error::new(error).context(what)))
        }
    }
}

/// The settings of one of traitlets' files, and the lines that were not understood.
pub(super) fn traits(path: &Path, text: &str) -> Result<(Vec<Trait>, Vec<String>), Failure> {
    if path.extension().is_some_and(|ending| ending == "json") {
        return json(path, text).map(|settings| (settings, Vec::new()));
    }
    let script = python::read(text);
    let origin = |line: usize, text: &str| {
        let first = text.lines().next().unwrap_or_default();
        format!("`{}`, line {line}: `{first}`", path.display())
    };
    let settings = script.assignments.into_iter().map(|one| Trait {
        origin: origin(one.line, hide_secret(&one.name, &one.text)),
        class: one.class,
        name: one.name,
        value: one.value,
    });
    let skipped = script.skipped.iter().map(|one| origin(one.line, &one.text));
    Ok((settings.collect(), skipped.collect()))
}

/// The line, or of one that holds a key the part before it. It may be among the arguments for a program, too.
fn hide_secret<'a>(name: &str, text: &'a str) -> &'a str {
    if is_secret(name) || text.contains("key=") {
        text.split_once('=').map_or("", |(target, _)| target.trim_end())
    } else {
        text
    }
}

/// Whether the value of a setting or option must not be shown, nor be in a file that others may read.
pub(crate) fn is_secret(name: &str) -> bool {
    matches!(name, "key" | "curve_secretkey" | "curve-secretkey")
}

fn json(path: &Path, text: &str) -> Result<Vec<Trait>, Failure> {
    let wrong = |what: String| Failure::usage(format!("`{}`: {what}", path.display()));
    let classes: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let mut settings = Vec::new();
    for (class, traits) in classes {
        // traitlets counts versions of its form here.
        if class == "version" {
            continue;
        }
        let serde_json::Value::Object(traits) = traits else {
            return Err(wrong(format!("`{class}` holds no settings")));
        };
        for (name, value) in traits {
            let origin = format!("`{}`, `{class}.{name}`", path.display());
            settings.push(Trait { class: class.clone(), name, value: of_json(value), origin });
        }
    }
    Ok(settings)
}

fn of_json(value: serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::None,
        serde_json::Value::Bool(switch) => Value::Bool(switch),
        serde_json::Value::Number(number) => {
            number.as_i64().map_or_else(|| Value::Float(number.as_f64().unwrap_or(f64::NAN)), Value::Int)
        }
        serde_json::Value::String(text) => Value::Text(text),
        serde_json::Value::Array(items) => Value::List(items.into_iter().map(of_json).collect()),
        serde_json::Value::Object(pairs) => {
            Value::Dict(pairs.into_iter().map(|(key, value)| (Value::Text(key), of_json(value))).collect())
        }
    }
}

/// The options in the program's table of a `remuda.toml`, each under the name that it has on our command line; and all that is
/// wrong with the rest.
pub(super) fn options(program: Program, path: &Path, text: &str) -> (Vec<Given>, Vec<Failure>) {
    let shown = path.display();
    let (mut given, mut problems) = (Vec::new(), Vec::new());
    let tables: toml::Table = match text.parse() {
        Ok(tables) => tables,
        Err(error) => {
            let error: toml::de::Error = error;
            return (given, vec![Failure::usage(format!("`{shown}`: {}", error.to_string().trim()))]);
        }
    };
    let programs = Program::ALL.map(Program::command);
    for name in tables.keys().filter(|name| !programs.contains(&name.as_str())) {
        let all = programs.map(|name| format!("[{name}]")).join(", ");
        let like = |program: &&str| strsim::normalized_damerau_levenshtein(name, program);
        let nearest = programs.iter().max_by(|one, other| like(one).total_cmp(&like(other)));
        let nearest = nearest.filter(|program| like(program) > 0.5).map(|name| format!("; is [{name}] meant?"));
        let nearest = nearest.unwrap_or_else(|| format!(": use {all}"));
        problems.push(Failure::usage(format!("`{shown}`: no program has the table [{name}]{nearest}")));
    }
    let table = match tables.get(program.command()) {
        None => return (given, problems),
        Some(toml::Value::Table(table)) => table,
        Some(_) => {
            problems.push(Failure::usage(format!("`{shown}`: `{}` is no table", program.command())));
            return (given, problems);
        }
    };
    let lines = lines(program, text);
    for (option, value) in table {
        let line = lines.get(option).map(|line| format!("line {line}, ")).unwrap_or_default();
        let origin = format!("`{shown}`, {line}`{option}` of [{}]", program.command());
        match of_option(program, option, value) {
            Ok(words) => given.extend(words.into_iter().map(|word| Given { word, origin: origin.clone() })),
            Err(reason) => problems.push(Failure::usage(format!("{origin}: {reason}"))),
        }
    }
    (given, problems)
}

/// The words that an option of a `remuda.toml` comes to, or what is wrong with it.
fn of_option(program: Program, option: &str, value: &toml::Value) -> Result<Vec<String>, String> {
    if NOT_IN_FILES.contains(&option) {
        return Err(format!("it cannot be set in a file: use `--{option}`"));
    }
    if !is_option(program, option) {
        let nearest = nearest(program, option).map(|name| format!("; is `{name}` meant?")).unwrap_or_default();
        return Err(format!("there is no such option{nearest}"));
    }
    let value = of_toml(value).ok_or("a date is not wanted here")?;
    words::words(option, kind(program, option, &value), &value)
}

/// The lines on which the options of the program's table stand, from 1 on; nothing where a table is written otherwise.
fn lines(program: Program, text: &str) -> BTreeMap<String, usize> {
    type Keys = BTreeMap<toml::Spanned<String>, toml::Value>;
    let tables: BTreeMap<String, Keys> = toml::from_str(text).unwrap_or_default();
    let keys = tables.into_iter().filter(|(name, _)| name == program.command()).flat_map(|(_, keys)| keys.into_keys());
    let line = |key: &toml::Spanned<String>| text[..key.span().start].matches('\n').count() + 1;
    keys.map(|key| (line(&key), key)).map(|(line, key)| (key.into_inner(), line)).collect()
}

/// How stock writes what the option stands for; for those that are ours alone, as the value looks. What is a class in stock's
/// files has a name of ours here, or is the path of a database.
fn kind(program: Program, option: &str, value: &Value) -> Kind {
    let of_stock = program.settings().find_map(|setting| match setting.meaning {
        Meaning::Option(name, Kind::Class) if name == option => Some(Kind::One),
        Meaning::Option(name, kind) if name == option => Some(kind),
        _ => None,
    });
    let own = match value {
        Value::List(_) => Kind::Each,
        Value::Bool(_) => Kind::Switch,
        _ => Kind::One,
    };
    of_stock.unwrap_or(own)
}

/// All long options of the program's commands.
fn long_options(program: Program) -> Vec<String> {
    let command = super::command(&[program.command()]);
    let subcommands: Vec<_> = command.get_subcommands().cloned().collect();
    let all = std::iter::once(command).chain(subcommands);
    all.flat_map(|command| {
        command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect::<Vec<_>>()
    })
    .collect()
}

fn is_option(program: Program, name: &str) -> bool {
    long_options(program).iter().any(|option| option == name)
}

fn nearest(program: Program, name: &str) -> Option<String> {
    let like = |option: &String| strsim::normalized_damerau_levenshtein(name, option);
    let options = long_options(program);
    options.into_iter().max_by(|one, other| like(one).total_cmp(&like(other))).filter(|option| like(option) > 0.5)
}

fn of_toml(value: &toml::Value) -> Option<Value> {
    Some(match value {
        toml::Value::String(text) => Value::Text(text.clone()),
        toml::Value::Integer(int) => Value::Int(*int),
        toml::Value::Float(float) => Value::Float(*float),
        toml::Value::Boolean(switch) => Value::Bool(*switch),
        toml::Value::Array(items) => Value::List(items.iter().map(of_toml).collect::<Option<_>>()?),
        toml::Value::Table(pairs) => {
            let pairs = pairs.iter().map(|(key, value)| Some((Value::Text(key.clone()), of_toml(value)?)));
            Value::Dict(pairs.collect::<Option<_>>()?)
        }
        toml::Value::Datetime(_) => return None,
    })
}
