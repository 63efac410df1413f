//! From the words that a process was started with to the command to run.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command, ConfigArgs, PlaceArgs};
use crate::config::{self, Layers, Program};
use crate::failure::{Failure, Outcome};
use crate::output;

/// A command, and what there is to say before it begins.
pub(crate) struct Invocation {
    pub(crate) command: Command,
    /// What was said somewhere and has no effect, with the reason.
    pub(crate) notes: Vec<String>,
    /// What is wrong in the configuration. With any, the command does not begin.
    pub(crate) problems: Vec<Failure>,
    /// Whether it was called by a name of ipyparallel's: then what scripts rely on is as there.
    pub(crate) is_stock: bool,
}

/// What the words come to.
pub(crate) enum Read {
    /// A command is to be run.
    Run(Box<Invocation>),
    /// `ipengine` with these arguments.
    StockEngine(Vec<OsString>),
    /// Something was asked that is answered; or the command line is wrong, which was said.
    Done(ExitCode),
}

/// Reads the words that the process was started with, the program's name first.
///
/// Under the name `ipcontroller`, `ipcluster` or `ipengine` (a link to the program, or a first word) it is that command.
pub(crate) fn read(words: impl IntoIterator<Item = OsString>) -> Result<Read, Failure> {
    let mut words = words.into_iter();
    let called = words.next().unwrap_or_default();
    let mut rest: Vec<OsString> = words.collect();
    let mut stock = stock_name(&called);
    if stock.is_none() {
        stock = rest.first().and_then(|word| stock_name(word).filter(|name| word == name));
        if stock.is_some() {
            rest.remove(0);
        }
    }
    match stock {
        Some("ipengine") => return Ok(Read::StockEngine(rest)),
        Some(name) => rest.insert(0, name.trim_start_matches("ip").into()),
        None => {}
    }
    let is_stock = stock.is_some();
    let Some((program, path)) = program(&rest) else { return Ok(parse(&rest, Vec::new(), is_stock)) };
    let typed = config::translate(program, rest.split_off(path.len()))
        .map_err(|error| Failure::usage(error).hint(format!("`remuda {} --help-all` lists all", path.join(" "))))?;
    if typed.help_all {
        return Ok(Read::Done(print_help_all(program, &path)));
    }
    let whole = |layers: &Layers| -> Vec<OsString> {
        path.iter().map(OsString::from).chain(layers.words()).chain(typed.words.iter().cloned()).collect()
    };
    let invocation = match parse(&whole(&Layers::default()), typed.notes.clone(), is_stock) {
        Read::Run(invocation) => invocation,
        other => return Ok(other),
    };
    let Some((place, configured)) = invocation.command.configured() else { return Ok(Read::Run(invocation)) };
    let path_words: Vec<&str> = path.iter().map(String::as_str).collect();
    let profile = place.profile();
    let mut layers = Layers::read(program, &path_words, profile.dir(), configured.config.as_deref());
    let mut problems = std::mem::take(&mut layers.problems);
    if configured.check_config {
        let known: Vec<String> = problems.iter().map(Failure::text).collect();
        let others = Layers::problems_for_others(program, profile.dir()).into_iter();
        problems.extend(others.filter(|problem| !known.contains(&problem.text())));
    }
    if configured.show_config || configured.show_config_json {
        return show(&path_words, &layers, &typed.words, place, configured)
            .map(Read::Done)
            .and_then(|done| Failure::several(problems).map_or(Ok(done), Err));
    }
    let mut notes = std::mem::take(&mut layers.notes);
    notes.extend(typed.notes.iter().cloned());
    Ok(match parse(&whole(&layers), notes, is_stock) {
        Read::Run(mut invocation) => {
            invocation.problems = problems;
            Read::Run(invocation)
        }
        other => {
            if let Some(problems) = Failure::several(problems) {
                problems.report();
            }
            other
        }
    })
}

/// The name of ipyparallel's that a program is called by.
fn stock_name(called: &OsStr) -> Option<&'static str> {
    let name = Path::new(called).file_name()?;
    ["ipcontroller", "ipcluster", "ipengine"].into_iter().find(|stock| name == *stock)
}

/// The program that has settings, and the words that lead to its command.
fn program(rest: &[OsString]) -> Option<(Program, Vec<String>)> {
    let first = rest.first()?.to_str()?;
    match first {
        "controller" => Some((Program::Controller, vec![first.to_owned()])),
        "engine" => Some((Program::Engine, vec![first.to_owned()])),
        "cluster" => {
            let command = rest.get(1)?.to_str().filter(|word| !word.starts_with('-'))?;
            // What it does to engines has no spelling in stock.
            let action = rest.get(2).and_then(|word| word.to_str());
            if command == "engines" && action.is_some_and(|word| ["add", "remove", "restart", "drain"].contains(&word))
            {
                return None;
            }
            Some((Program::Cluster, vec![first.to_owned(), command.to_owned()]))
        }
        _ => None,
    }
}

fn parse(words: &[OsString], notes: Vec<String>, is_stock: bool) -> Read {
    let all = [OsString::from("remuda")].into_iter().chain(words.iter().cloned());
    match Args::try_parse_from(all) {
        Ok(args) => Read::Run(Box::new(Invocation { command: args.command, notes, problems: Vec::new(), is_stock })),
        Err(error) => {
            // Help and version are asked for and go to stdout; the rest is a wrong command line.
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            let _ = error.print();
            Read::Done(ExitCode::from(code))
        }
    }
}

fn print_help_all(program: Program, path: &[String]) -> ExitCode {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    let help = config::command(&names).render_long_help();
    let table = config::documentation(program);
    let text = format!("{help}\nSettings of {}, and what they are here:\n\n{table}", program.stock_name());
    // A pager that is closed early is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Prints every option with its value and who said so; below each what it overrides.
fn show(path: &[&str], layers: &Layers, typed: &[OsString], place: &PlaceArgs, configured: &ConfigArgs) -> Outcome {
    let settings = config::settings(path, layers, typed, place)
        .map_err(|error| Failure::usage(error.to_string().trim_start_matches("error: ").trim_end()))?;
    let mut out = std::io::stdout().lock();
    if configured.show_config_json {
        let list: Vec<_> = settings
            .iter()
            .map(|one| {
                let overridden: Vec<_> = one
                    .overridden
                    .iter()
                    .map(|(value, origin)| serde_json::json!({"value": value, "origin": origin}))
                    .collect();
                serde_json::json!({
                    "option": one.option, "value": one.value, "origin": one.origin, "overridden": overridden,
                })
            })
            .collect();
        writeln!(out, "{:#}", serde_json::Value::Array(list))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = Vec::new();
    for one in settings {
        rows.push(vec![one.option.clone(), one.value, one.origin]);
        for (value, origin) in one.overridden {
            rows.push(vec![one.option.clone(), value, format!("{origin} (overridden)")]);
        }
    }
    output::table(&mut out, &["OPTION", "VALUE", "FROM"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn a_name_of_ipyparallel_is_its_command_however_it_is_given() {
        assert_eq!(stock_name(OsStr::new("/usr/bin/ipcontroller")), Some("ipcontroller"));
        assert_eq!(stock_name(OsStr::new("remuda")), None);
        for text in ["/bin/ipengine --file=x", "remuda ipengine --file=x"] {
            let Ok(Read::StockEngine(rest)) = read(words(text)) else { panic!("{text}") };
            assert_eq!(rest, words("--file=x"));
        }
        let stop = read(words("ipcluster stop a b --profile-dir=/nowhere")).ok().unwrap();
        let Read::Run(invocation) = stop else { panic!("not run") };
        assert!(invocation.is_stock && matches!(invocation.command, Command::Cluster(_)));
    }

    #[test]
    fn words_lead_to_the_program_whose_settings_are_meant() {
        assert_eq!(program(&words("controller --hwm=1")), Some((Program::Controller, vec!["controller".into()])));
        let start = vec!["cluster".to_owned(), "start".to_owned()];
        assert_eq!(program(&words("cluster start -n 3")), Some((Program::Cluster, start)));
        for other in ["map -- true", "cluster --help", "status", ""] {
            assert_eq!(program(&words(other)), None, "{other}");
        }
    }
}
