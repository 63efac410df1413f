//! From traitlets' spellings to our options: `--HeartMonitor.period=200` becomes `--ping=200`.

use std::ffi::OsString;

use super::python::{self, Value};
use super::table::{Kind, Meaning, Program, Setting, Short};

/// What was typed, in our spelling.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Translated {
    pub(crate) words: Vec<OsString>,
    /// What was typed and has no effect here, with the reason.
    pub(crate) notes: Vec<String>,
    /// `--help-all`: the help and the table of settings.
    pub(crate) help_all: bool,
}

/// A spelling of traitlets' that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum WordError {
    /// No such setting.
    #[error("unexpected argument `{word}`{}", nearest.as_ref().map(|name| format!("; is `--{name}` meant?")).unwrap_or_default())]
    Unknown {
        /// What was typed.
        word: String,
        /// What is like it.
        nearest: Option<String>,
    },
    /// Nothing follows.
    #[error("`{0}` needs a value: `{0}=VALUE`")]
    NoValue(String),
    /// The value has the wrong shape.
    #[error("`{word}`: {reason}")]
    Value {
        /// What was typed.
        word: String,
        /// What is wrong.
        reason: String,
    },
}

/// Translates what was typed after the command's name. What follows `--` is left as it is, as are our own options.
pub(crate) fn translate(program: Program, typed: impl IntoIterator<Item = OsString>) -> Result<Translated, WordError> {
    let mut out = Translated::default();
    let mut typed = typed.into_iter().peekable();
    while let Some(word) = typed.next() {
        let Some(text) = word.to_str().map(str::to_owned) else {
            out.words.push(word);
            continue;
        };
        if text == "--" {
            out.words.push(word);
            out.words.extend(typed);
            break;
        }
        let (option, given) = match text.split_once('=') {
            Some((option, value)) => (option, Some(value.to_owned())),
            None => (&*text, None),
        };
        match option {
            "--help-all" => {
                out.help_all = true;
                continue;
            }
            // Both go over a file that was named before.
            "--secure" if program == Program::Controller => {
                out.words.push(format!("--key={}", remuda_net::random_session_id()).into());
                out.words.push("--key-file=".into());
                continue;
            }
            "--no-secure" if program == Program::Controller => out.words.push("--key-file=".into()),
            _ => {}
        }
        let Some(setting) = find(program, option)? else {
            out.words.push(word);
            continue;
        };
        let value = match (setting.short, given) {
            (Short::Flag(short, value), None) if option.trim_start_matches('-') == short => value.to_owned(),
            (_, Some(value)) => value,
            (_, None) => {
                let follows = typed.peek().and_then(|next| next.to_str()).filter(|next| !next.starts_with("--"));
                match follows.map(str::to_owned) {
                    Some(next) => {
                        typed.next();
                        next
                    }
                    None if is_switch(setting) => "True".to_owned(),
                    None => return Err(WordError::NoValue(option.to_owned())),
                }
            }
        };
        match setting.meaning {
            Meaning::None(why) => out.notes.push(format!("`{option}` has no effect: {why}")),
            Meaning::Option(name, kind) => {
                let words = words(name, kind, &value_of(kind, &value));
                let words = words.map_err(|reason| WordError::Value { word: text.clone(), reason })?;
                out.words.extend(words.into_iter().map(OsString::from));
            }
        }
    }
    Ok(out)
}

fn is_switch(setting: &Setting) -> bool {
    matches!(setting.meaning, Meaning::Option(_, Kind::Switch) | Meaning::None(_))
}

/// The setting that an option spells, if it is not one of our own options.
fn find(program: Program, option: &str) -> Result<Option<&'static Setting>, WordError> {
    let Some(name) = option.strip_prefix("--").or_else(|| option.strip_prefix('-')) else { return Ok(None) };
    if let Some((class, name)) = name.split_once('.').filter(|(class, _)| class.starts_with(char::is_uppercase)) {
        let found = program.setting(class, name);
        return found
            .map(Some)
            .ok_or_else(|| WordError::Unknown { word: option.to_owned(), nearest: program.nearest(class, name) });
    }
    // A single dash and one letter, or two dashes and more.
    let is_short = (name.len() == 1) != option.starts_with("--");
    Ok(program.short(name).filter(|_| is_short))
}

/// What a text on the command line means: texts may be quoted, several may be written as a list.
fn value_of(kind: Kind, text: &str) -> Value {
    let is_list = matches!(kind, Kind::Many | Kind::Each) && text.starts_with(['[', '(']);
    let is_quoted = ["'", "\"", "b'", "b\""].iter().any(|start| text.starts_with(start)) && text.len() > 1;
    if (is_list || is_quoted)
        && let Some(value) = python::literal(text)
    {
        return value;
    }
    if text == "None" { Value::None } else { Value::Text(text.to_owned()) }
}

/// The words that give a value to our option; none at all for `None`, which stands for the default.
pub(crate) fn words(option: &str, kind: Kind, value: &Value) -> Result<Vec<String>, String> {
    let word = |text: String| vec![format!("--{option}={text}")];
    Ok(match (kind, value) {
        (_, Value::None) => Vec::new(),
        (Kind::Switch, Value::Bool(switch)) => word(switch.to_string()),
        (Kind::Switch, Value::Int(0 | 1)) => word((*value == Value::Int(1)).to_string()),
        (Kind::Switch, Value::Text(text)) => word(text.clone()),
        (Kind::Switch, _) => return Err("True or False is wanted".to_owned()),
        (Kind::Class, Value::Text(text)) => {
            word(text.rsplit(['.', ':']).next().unwrap_or_default().to_ascii_lowercase())
        }
        (Kind::Class, _) => return Err("the name of a class is wanted".to_owned()),
        (Kind::Many, Value::List(items)) => {
            let items: Result<Vec<String>, String> = items.iter().map(one).collect();
            word(items?.join(","))
        }
        (Kind::Each, Value::List(items)) => {
            let items: Result<Vec<String>, String> = items.iter().map(one).collect();
            items?.into_iter().flat_map(word).collect()
        }
        (Kind::One | Kind::Many | Kind::Each, single) => word(one(single)?),
    })
}

fn one(value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        Value::Int(int) => Ok(int.to_string()),
        Value::Float(float) => Ok(float.to_string()),
        Value::Bool(switch) => Ok(switch.to_string()),
        Value::None => Err("one value is wanted".to_owned()),
        Value::List(_) => Err("one value is wanted, not a list".to_owned()),
        Value::Dict(_) => Err("one value is wanted, not a table".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controller(words: &str) -> Result<Translated, WordError> {
        translate(Program::Controller, words.split_whitespace().map(OsString::from))
    }

    fn becomes(typed: &str) -> String {
        let words = controller(typed).unwrap().words;
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_spelling_of_stock_becomes_ours() {
        for (typed, ours) in [
            ("--HeartMonitor.period=200", "--ping=200"),
            ("--HeartMonitor.period 200 --hwm=3", "--ping=200 --hwm=3"),
            ("--HeartMonitor.max_heartmonitor_misses=3", "--max-heart-misses=3"),
            ("--IPController.ip=*", "--ip=*"),
            ("--HubFactory.engine_ip=10.0.0.1", "--engine-ip=10.0.0.1"),
            ("--IPControllerApp.reuse_files=True", "--reuse=True"),
            ("--IPController.reuse_files", "--reuse=True"),
            ("--IPController.ports=[1,2,'3']", "--ports=1,2,3"),
            ("--IPController.ports=1-3,9", "--ports=1-3,9"),
            ("--Session.key=b'k'", "--key=k"),
            ("--Session.key=k", "--key=k"),
            ("--Session.key=", "--key="),
            ("--no-secure", "--key-file= --key="),
            ("--Session.packer=msgpack", "--packer=msgpack"),
            ("--TaskScheduler.scheme_name=lru", "--scheme=lru"),
            ("--IPController.db_class=ipyparallel.controller.sqlitedb.SQLiteDB", "--db=sqlitedb"),
            ("--nodb", "--db=nodb"),
            ("--dictdb --DictDB.record_limit=5", "--db=dictdb --record-limit=5"),
            ("--Application.log_level=10", "--log-level=10"),
            ("--IPController.log_level=10", "--log-level=10"),
            ("--debug", "--log-level=debug"),
            ("--quiet", "--log-level=50"),
            ("--keyfile=/k", "--key-file=/k"),
            ("--IPController.registration_timeout=None", ""),
            ("--ping=3 -- --HeartMonitor.period=1", "--ping=3 -- --HeartMonitor.period=1"),
            ("--log-level=10 --reuse --ip=::1 -x", "--log-level=10 --reuse --ip=::1 -x"),
        ] {
            assert_eq!(becomes(typed), ours, "{typed}");
            assert_eq!(controller(typed).unwrap().notes, [""; 0], "{typed}");
        }
    }

    #[test]
    fn secure_makes_a_new_key_each_time() {
        let (one, other) = (becomes("--secure"), becomes("--secure"));
        assert!(one.starts_with("--key=") && one.ends_with(" --key-file="), "{one}");
        assert_ne!(one, other);
    }

    #[test]
    fn what_has_no_meaning_here_is_named_with_the_reason_and_takes_its_value_along() {
        for typed in [
            "--usethreads",
            "--log-url=tcp://1.2.3.4:5",
            "--log-url tcp://1.2.3.4:5",
            "--IPController.monitor_ip=*",
            "--IPController.use_threads=True",
            "--IPController.hb=(1,2)",
            "--Session.copy_threshold=5",
            "--Session.username=me",
            "--user me",
            "--ident=x",
            "--init",
            "--MongoDB.database=x",
            "--BaseParallelApplication.log_format=x",
            "--IPController.verbose_crash=True",
        ] {
            let translated = controller(&format!("{typed} --hwm=1")).unwrap();
            assert_eq!(translated.words, ["--hwm=1"], "{typed}");
            assert_eq!(translated.notes.len(), 1, "{typed}");
            assert!(translated.notes[0].contains("has no effect: "), "{typed}: {}", translated.notes[0]);
        }
        let engine = ["-c", "import os", "--IPEngine.timeout=3"].map(OsString::from);
        let translated = translate(Program::Engine, engine).unwrap();
        assert_eq!(translated.words, ["--timeout=3"]);
        assert!(translated.notes[0].contains("ipengine"));
    }

    #[test]
    fn an_unknown_setting_is_an_error_that_names_the_nearest() {
        for (typed, named) in [
            ("--HeartMonitor.perod=3", "--HeartMonitor.period"),
            ("--heartmonitor.x=3", ""),
            ("--IPController.reuse_file=1", "--IPController.reuse_files"),
            ("--TaskSheduler.hwm=1", "--TaskScheduler.hwm"),
        ] {
            match controller(typed) {
                Err(error) => assert!(error.to_string().contains(named) && !named.is_empty(), "{error}"),
                // Left to the parser of our options, which does not know it either.
                Ok(translated) => assert!(named.is_empty() && translated.words == [typed], "{typed}"),
            }
        }
        assert_eq!(
            controller("--Zebra.stripes=3").unwrap_err(),
            WordError::Unknown { word: "--Zebra.stripes".into(), nearest: None }
        );
        assert!(matches!(controller("--HeartMonitor.period"), Err(WordError::NoValue(_))));
        assert!(matches!(controller("--HeartMonitor.period --hwm=1"), Err(WordError::NoValue(_))));
    }

    #[test]
    fn values_of_python_become_words_or_are_refused() {
        let list = Value::List(vec![Value::Int(1), Value::Text("2-4".into())]);
        assert_eq!(words("ports", Kind::Many, &list).unwrap(), ["--ports=1,2-4"]);
        assert_eq!(words("label", Kind::Each, &list).unwrap(), ["--label=1", "--label=2-4"]);
        assert_eq!(words("ping", Kind::One, &Value::Float(0.5)).unwrap(), ["--ping=0.5"]);
        assert_eq!(words("reuse", Kind::Switch, &Value::Int(0)).unwrap(), ["--reuse=false"]);
        for (kind, value) in [
            (Kind::One, list.clone()),
            (Kind::Switch, list),
            (Kind::Class, Value::Int(1)),
            (Kind::Switch, Value::Float(1.0)),
            (Kind::Many, Value::List(vec![Value::None])),
        ] {
            assert!(words("x", kind, &value).is_err(), "{kind:?} {value:?}");
        }
    }
}
