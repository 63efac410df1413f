//! Logs: to stderr, or to a file of the profile.

use std::fs::File;
use std::io::IsTerminal;
use std::str::FromStr;

use remuda_net::Profile;
use tracing::level_filters::LevelFilter;

use crate::args::LogArgs;
use crate::failure::Failure;

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

/// Starts logging as asked: to stderr, or to `<name>-<cluster id>-<pid>.log` in the profile's `log` folder. Once for a process.
pub(crate) fn start(args: &LogArgs, profile: &Profile, name: &str) -> Result<(), Failure> {
    let builder = tracing_subscriber::fmt().with_max_level(args.log_level.0).with_target(false);
    if !args.log_to_file {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        builder.with_ansi(colour).with_writer(std::io::stderr).init();
        return Ok(());
    }
    profile.create()?;
    let path = profile.log().join(format!("{name}-{}-{}.log", profile.cluster_id(), std::process::id()));
    let file = File::options().create(true).append(true).open(&path).map_err(|error| {
        Failure::new(anyhow::Error::new(error).context(format!("cannot write the log `{}`", path.display())))
    })?;
    builder.with_ansi(false).with_writer(file).init();
    Ok(())
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
}
