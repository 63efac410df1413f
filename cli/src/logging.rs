//! Logs: to stderr, or to a file of the profile.

mod rotation;

use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use remuda_net::Profile;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::args::{LogArgs, LogFormat};
use crate::failure::Failure;
use rotation::{LogFile, number_of};

/// Whether what goes to stderr is to be JSON on each line.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Whether errors are to be logged, and not printed for people.
pub(crate) fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

/// How much is logged: a name, or one of the numbers that Python uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level(LevelFilter);

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse::<u32>() {
            return Ok(Self(match number {
                0..=5 => LevelFilter::TRACE,
                6..=10 => LevelFilter::DEBUG,
                11..=20 => LevelFilter::INFO,
                21..=30 => LevelFilter::WARN,
                31..=50 => LevelFilter::ERROR,
                _ => LevelFilter::OFF,
            }));
        }
        Ok(Self(match text.to_ascii_lowercase().as_str() {
            "trace" => LevelFilter::TRACE,
            "debug" => LevelFilter::DEBUG,
            "info" => LevelFilter::INFO,
            "warn" | "warning" => LevelFilter::WARN,
            "error" | "critical" | "fatal" => LevelFilter::ERROR,
            "off" => LevelFilter::OFF,
            _ => return Err("use trace, debug, info, warn, error, off, or a number from 0 to 50".to_owned()),
        }))
    }
}

/// Starts logging as asked: to stderr, or to `<name>-<cluster id>-<pid>.log` in the profile's `log` folder; and says what was
/// noticed before. Once for a process.
pub(crate) fn start(args: &LogArgs, profile: &Profile, name: &str, notes: &[String]) -> Result<(), Failure> {
    if args.clean_logs {
        remove_earlier(profile, |file| is_log_of(file, name, profile.cluster_id()));
    }
    let is_json = args.log_format == LogFormat::Json;
    let (writer, colour) = if args.log_to_file {
        profile.create()?;
        let path = profile.log().join(format!("{name}-{}-{}.log", profile.cluster_id(), std::process::id()));
        let max_bytes = args.log_max_bytes.map_or(u64::MAX, |bytes| bytes as u64);
        let file = LogFile::open(&path, max_bytes, args.log_files).map_err(|error| {
            Failure::new(anyhow::Error::new(error).context(format!("cannot write the log `{}`", path.display())))
        })?;
        (BoxMakeWriter::new(file), false)
    } else {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        (BoxMakeWriter::new(std::io::stderr), colour && !is_json)
    };
    let builder = tracing_subscriber::fmt()
        .with_max_level(args.log_level.0)
        .with_target(false)
        .with_ansi(colour)
        .with_writer(writer);
    if is_json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
        if !args.log_to_file {
            IS_JSON.store(true, Ordering::Relaxed);
            std::panic::set_hook(Box::new(|panic| tracing::error!(panic = true, "{panic}")));
        }
    } else {
        builder.init();
    }
    for note in notes {
        tracing::warn!("{note}");
    }
    Ok(())
}

/// Removes logs of a profile.
pub(crate) fn remove_earlier(profile: &Profile, which: impl Fn(&str) -> bool) {
    for entry in std::fs::read_dir(profile.log()).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(&which)
            && let Err(error) = std::fs::remove_file(entry.path())
        {
            tracing::debug!("cannot remove `{}`: {error}", entry.path().display());
        }
    }
}

/// Whether a file is a log that a run of `name` in the cluster wrote, by itself or through its launcher: the name, the
/// cluster's id and a process id, with dashes between.
pub(crate) fn is_log_of(file: &str, name: &str, cluster_id: &str) -> bool {
    // Older ones have a number behind.
    let file = number_of(file).map_or(file, |(newest, _)| newest);
    let Some(rest) = file.strip_prefix(name).and_then(|rest| rest.strip_suffix(".log")) else { return false };
    let Some((before, pid)) = rest.rsplit_once('-') else { return false };
    // An engine's number, and the double dash of an empty id, may stand before it.
    let before = before.trim_start_matches('-');
    let numbered = before.split_once('-').filter(|(number, _)| number.bytes().all(|byte| byte.is_ascii_digit()));
    let is_number = !before.is_empty() && before.bytes().all(|byte| byte.is_ascii_digit());
    let is_id = before == cluster_id
        || numbered.is_some_and(|(_, rest)| rest == cluster_id)
        || cluster_id.is_empty() && is_number;
    is_id && !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_as_python_names_and_numbers_them() {
        assert_eq!("10".parse::<Level>().unwrap(), Level(LevelFilter::DEBUG));
        assert_eq!("WARNING".parse::<Level>().unwrap(), Level(LevelFilter::WARN));
        assert_eq!("20".parse::<Level>(), "info".parse());
        assert!("loud".parse::<Level>().is_err());
    }

    #[test]
    fn only_the_logs_of_the_same_cluster_are_earlier_ones() {
        for (file, name, id, is) in [
            ("ipcontroller--12.log", "ipcontroller", "", true),
            ("ipcontroller-12.log", "ipcontroller", "", true),
            ("ipcontroller-x-12.log", "ipcontroller", "x", true),
            ("ipengine-3-12.log", "ipengine", "", true),
            ("ipengine-3-x-12.log", "ipengine", "x", true),
            ("ipcontroller--12.log.3", "ipcontroller", "", true),
            ("ipcontroller--12.log.x", "ipcontroller", "", false),
            ("ipcontroller--12.txt.3", "ipcontroller", "", false),
            ("ipcontroller-x-12.log", "ipcontroller", "", false),
            ("ipcontroller-12.log", "ipcontroller", "x", false),
            ("ipcontroller-x-y-12.log", "ipcontroller", "y", false),
            ("ipcontroller-x-12.txt", "ipcontroller", "x", false),
            ("ipcontroller-x-12a.log", "ipcontroller", "x", false),
            ("other.log", "ipcontroller", "", false),
            ("ipcontroller.log", "ipcontroller", "", false),
        ] {
            assert_eq!(is_log_of(file, name, id), is, "{file} {name} {id:?}");
        }
    }
}
