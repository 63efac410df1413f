//! `remuda cluster logs`: what controller and engines printed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use remuda_cluster::ClusterFile;

use super::{door, say};
use crate::args::cluster::LogsArgs;
use crate::commands::{connect, unless_nobody_reads};
use crate::failure::{Failure, Outcome};

/// How often a log that is followed is looked at.
const POLL: Duration = Duration::from_millis(200);
/// Seconds that the controller may take to answer.
const CONNECT_S: f64 = 10.0;
/// How much of the end of a log is looked through for its last lines, in bytes.
const TAIL_BYTES: u64 = 1024 * 1024;

pub(super) fn run(args: &LogsArgs) -> Outcome {
    unless_nobody_reads(print(args))
}

fn print(args: &LogsArgs) -> Outcome {
    let logs = chosen(args)?;
    let mut out = io::stdout().lock();
    let named = logs.len() > 1;
    let mut ends = Vec::new();
    for (name, path) in &logs {
        let mut file = File::open(path).map_err(|error| {
            let what = format!("cannot read the log `{}` of {name}", path.display());
            Failure::new(anyhow::Error::new(error).context(what))
        })?;
        let size = file.metadata()?.len();
        let from = if args.lines == 0 { 0 } else { size.saturating_sub(TAIL_BYTES) };
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        if named {
            writeln!(out, "==> {name} ({}) <==", path.display())?;
        }
        out.write_all(last_lines(&bytes, args.lines))?;
        ends.push((name, file));
    }
    out.flush()?;
    if args.follow {
        follow(ends, &mut out)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what comes to these logs, until nobody reads it any more.
fn follow(mut logs: Vec<(&String, File)>, out: &mut impl Write) -> io::Result<()> {
    let named = logs.len() > 1;
    let mut last = None;
    loop {
        for (at, (name, file)) in logs.iter_mut().enumerate() {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            if bytes.is_empty() {
                continue;
            }
            if named && last != Some(at) {
                writeln!(out, "==> {name} <==")?;
                last = Some(at);
            }
            out.write_all(&bytes)?;
        }
        out.flush()?;
        thread::sleep(POLL);
    }
}

/// The logs that are meant, by what they are of.
fn chosen(args: &LogsArgs) -> Result<Vec<(String, PathBuf)>, Failure> {
    let profile = args.place.profile();
    let roster = door::roster(&args.place)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ids: BTreeMap<_, _> = runtime.block_on(async {
        let client = connect(&args.place, CONNECT_S).await?;
        Ok::<_, Failure>(client.engines().into_iter().filter_map(|engine| Some((engine.uuid, engine.id?))).collect())
    })?;
    let mut logs = Vec::new();
    if let Some(file) = ClusterFile::read(&profile)? {
        logs.push(("controller".to_owned(), file.controller.log));
    }
    for entry in roster.units.iter().flat_map(|unit| &unit.engines) {
        let name = match ids.get(&entry.uuid) {
            Some(id) => format!("engine {id}"),
            None => format!("engine of process {}", entry.pid),
        };
        logs.push((name, PathBuf::from(&entry.log)));
    }
    for job in roster.units.iter().filter_map(|unit| unit.job.as_ref()) {
        // One that waits has printed nothing, and on some systems it comes when the job has ended.
        let (name, path) = (format!("job {}", job.id), PathBuf::from(&job.output));
        if path.exists() && logs.iter().all(|(_, other)| *other != path) {
            logs.push((name, path));
        }
    }
    let Some(of) = &args.of else {
        // Logs of other machines are not here.
        let (here, elsewhere): (Vec<_>, Vec<_>) = logs.into_iter().partition(|(_, path)| path.exists());
        for (name, path) in elsewhere {
            say(&format!("warning: the log `{}` of {name} is not on this machine", path.display()));
        }
        return Ok(here);
    };
    let names: Vec<String> = logs.iter().map(|(name, _)| short(name).to_owned()).collect();
    logs.retain(|(name, _)| short(name) == of);
    if logs.is_empty() {
        let what =
            anyhow::anyhow!("nothing here has the name `{of}`, or it was not started by this cluster's supervisor");
        return Err(Failure::new(what).code(2).hint(format!("use one of: {}", names.join(", "))));
    }
    Ok(logs)
}

/// How an engine or a job is named by who asks for its log.
fn short(name: &str) -> &str {
    let engine = name.strip_prefix("engine ");
    engine.or_else(|| name.strip_prefix("job ")).unwrap_or(name)
}

/// The last lines of a text; all of it for none.
fn last_lines(bytes: &[u8], lines: usize) -> &[u8] {
    if lines == 0 {
        return bytes;
    }
    let without_last = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let breaks = without_last.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    &bytes[breaks.take(lines).nth(lines - 1).unwrap_or(0)..]
}

#[cfg(test)]
mod tests {
    use super::last_lines;

    #[test]
    fn the_last_lines_are_whole() {
        assert_eq!(last_lines(b"a\nb\nc\n", 2), b"b\nc\n");
        assert_eq!(last_lines(b"a\nb\nc", 1), b"c");
        for lines in [0, 3, 9] {
            assert_eq!(last_lines(b"a\nb\nc\n", lines), b"a\nb\nc\n", "{lines}");
        }
        assert_eq!(last_lines(b"", 3), b"");
    }
}
