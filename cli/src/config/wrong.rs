//! What is wrong with the value of an option, in words: which type is wanted, and what was given.

use std::any::TypeId;
use std::error::Error;
use std::num::NonZeroU32;

use clap::Arg;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Why the parser of our options refuses a value of this one.
pub(super) fn reason(error: &clap::Error, argument: &Arg) -> String {
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => value.as_str(),
        _ => "",
    };
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    let says_nothing = cause.is_empty() || is_of_a_number(&cause);
    match error.kind() {
        ErrorKind::InvalidValue | ErrorKind::ValueValidation if value.is_empty() && says_nothing => {
            "a value is wanted".to_owned()
        }
        ErrorKind::InvalidValue => match possible(argument) {
            Some(possible) => format!("one of {possible} is wanted, not `{value}`"),
            None => first_line(error),
        },
        // What the standard library says of a text that is no number names no type.
        ErrorKind::ValueValidation if is_of_a_number(&cause) => match wanted(argument) {
            Some(wanted) => format!("{wanted} is wanted, not `{value}`"),
            None => format!("`{value}`: {cause}"),
        },
        // Some name the value themselves.
        ErrorKind::ValueValidation if cause.starts_with(value) => cause,
        ErrorKind::ValueValidation => format!("`{value}`: {cause}"),
        _ => first_line(error),
    }
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

fn is_of_a_number(cause: &str) -> bool {
    [
        "invalid digit",
        "invalid float",
        "cannot parse integer",
        "cannot parse float",
        "number too",
        "number would be zero",
    ]
    .iter()
    .any(|start| cause.starts_with(start))
}

/// The type of an option that takes a number.
fn wanted(argument: &Arg) -> Option<String> {
    let whole = [
        (TypeId::of::<u8>(), 0, u64::from(u8::MAX)),
        (TypeId::of::<u16>(), 0, u64::from(u16::MAX)),
        (TypeId::of::<u32>(), 0, u64::from(u32::MAX)),
        (TypeId::of::<NonZeroU32>(), 1, u64::from(u32::MAX)),
        (TypeId::of::<u64>(), 0, u64::MAX),
        (TypeId::of::<usize>(), 0, usize::MAX as u64),
    ];
    let id = argument.get_value_parser().type_id();
    if let Some((_, least, most)) = whole.into_iter().find(|(whole, ..)| id == *whole) {
        // The largest of them say nothing to people.
        let most = if most > u64::from(u32::MAX) { String::new() } else { format!(" to {most}") };
        return Some(format!("a whole number from {least}{}", if most.is_empty() { " on" } else { &most }));
    }
    if id == TypeId::of::<i32>() {
        return Some("a whole number".to_owned());
    }
    (id == TypeId::of::<f64>()).then(|| "a number".to_owned())
}

/// The values of an option that takes only some.
fn possible(argument: &Arg) -> Option<String> {
    let names: Vec<String> =
        argument.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use crate::config::command;
    use clap::Parser;

    fn of(option: &str, value: &str) -> String {
        let error = Args::try_parse_from(["remuda", "controller", &format!("--{option}={value}")]).unwrap_err();
        let command = command(&["controller"]);
        reason(&error, command.get_arguments().find(|one| one.get_long() == Some(option)).unwrap())
    }

    #[test]
    fn the_type_that_is_wanted_is_named_with_what_was_given() {
        for (option, value, text) in [
            ("hwm", "many", "a whole number from 0 to 4294967295 is wanted, not `many`"),
            ("hwm", "-1", "-1 is not in 0..=4294967295"),
            ("port", "70000", "70000 is not in 0..=65535"),
            ("ping", "true", "a whole number from 0 on is wanted, not `true`"),
            ("ping", "1", "10..=3600000"),
            ("reuse", "maybe", "`maybe`: use true or false"),
            ("transport", "udp", "one of `tcp`, `ipc` is wanted, not `udp`"),
            ("scheme", "fastest", "leastload"),
            ("ports", "5-2", "ends before it begins"),
            ("hwm", "", "a value is wanted"),
        ] {
            let reason = of(option, value);
            assert!(reason.contains(text), "{option}={value}: {reason}");
        }
    }
}
