//! What the machine gives: a Python, a clock, open files, room on disks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::statvfs::statvfs;
use remuda_cluster::{engines_that_fit, files_for};
use remuda_net::limits;
use remuda_proto::Date;
use serde_json::{Map, Value};

use super::cluster::{self, Asked};
use super::{Finding, Subject, database};
use crate::python;

/// Clocks may differ by so much, in microseconds: beyond it, times in records and time limits mislead.
const CLOCK_TOLERANCE: i64 = 2_000_000;
/// 2026-01-01, in microseconds since 1970: nothing of this program is older.
const EARLIEST: i64 = 1_767_225_600_000_000;
/// 2100-01-01.
const LATEST: i64 = 4_102_444_800_000_000;

/// With less room than this a controller that logs and keeps records stops soon, in bytes.
const LITTLE_ROOM: u64 = 1 << 30;
/// With less than this it does not start well.
const NO_ROOM: u64 = 100 << 20;

/// The oldest ipyparallel whose engines work, and the newest that was tried (docs/releases.md).
const OLDEST_RELEASE: (u32, u32) = (7, 1);
const NEWEST_RELEASE: (u32, u32) = (9, 2);

/// The Python that would run engines, if there is one.
pub(super) fn python(subject: &Subject<'_>) -> Vec<Finding> {
    const CHECK: &str = "python";
    let is_wanted = matches!(subject.of_cluster("engines"), Some("python" | "local"));
    let python = match python::find(subject.of_cluster("python")) {
        Ok(python) => python,
        Err(failure) if is_wanted => {
            return vec![Finding::error(CHECK, failure.text(), failure.advice().unwrap_or_default())];
        }
        Err(_) => {
            let text = "none with ipyparallel, which only engines for Python functions need";
            return vec![Finding::ok(CHECK, text)];
        }
    };
    let script = "import importlib.metadata as m, platform; print(platform.python_version(), m.version('ipyparallel'))";
    let said = Command::new(&python).args(["-c", script]).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    vec![release(&python.to_string_lossy(), &said)]
}

/// `said` is the version of Python, and that of ipyparallel.
fn release(python: &str, said: &str) -> Finding {
    const CHECK: &str = "python";
    let mut words = said.split_whitespace();
    let (Some(version), Some(release)) = (words.next(), words.next()) else {
        let text = format!("`{python}` has ipyparallel, but does not say which");
        return Finding::warning(CHECK, text, format!("`{python} -m pip install --force-reinstall ipyparallel`"));
    };
    let mut numbers = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let number = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let text = format!("`{python}` is Python {version} with ipyparallel {release}");
    if number < OLDEST_RELEASE {
        let (major, minor) = OLDEST_RELEASE;
        let fix = format!("`{python} -m pip install --upgrade ipyparallel`: {major}.{minor} and newer work");
        Finding::error(CHECK, text, fix)
    } else if number > NEWEST_RELEASE {
        let (major, minor) = NEWEST_RELEASE;
        Finding::warning(
            CHECK,
            format!("{text}, newer than what was tried"),
            format!("if engines fail, `{python} -m pip install 'ipyparallel<={major}.{minor}.*'`"),
        )
    } else {
        Finding::ok(CHECK, text)
    }
}

/// What the records of an engine tell of its clock: it is off by so much at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Skew {
    engine: String,
    /// Positive: ahead. In microseconds.
    micros: i64,
}

impl Skew {
    /// An engine says when it began a task and when it was done, the client when it submitted it, and the controller when it had
    /// the reply: an engine that is done after that is ahead, one that began before it was submitted is behind.
    pub(super) fn of<'a>(records: impl Iterator<Item = &'a Map<String, Value>>) -> Vec<Self> {
        let mut worst: BTreeMap<String, i64> = BTreeMap::new();
        for record in records {
            let date = |field: &str| Some(Date::parse(record.get(field)?.as_str()?)?.0);
            let Some(engine) = record.get("engine_uuid").and_then(Value::as_str) else { continue };
            let ahead = date("completed").zip(date("received")).map(|(done, had)| done - had);
            let behind = date("started").zip(date("submitted")).map(|(began, submitted)| began - submitted);
            let entry = worst.entry(engine.to_owned()).or_insert(0);
            for off in [ahead.filter(|off| *off > 0), behind.filter(|off| *off < 0)].into_iter().flatten() {
                if off.abs() > entry.abs() {
                    *entry = off;
                }
            }
        }
        worst.into_iter().map(|(engine, micros)| Self { engine, micros }).collect()
    }
}

/// The clock of this machine, the controller's, and those of engines as far as records tell.
pub(super) fn clock(asked: &Asked) -> Vec<Finding> {
    clocks(cluster::now(), asked.clock, &asked.skews)
}

fn clocks(now: i64, controller: Option<(i64, i64)>, skews: &[Skew]) -> Vec<Finding> {
    const CHECK: &str = "clock";
    const FIX: &str = "let the machines keep time by NTP (`timedatectl set-ntp true`)";
    let seconds = |micros: i64| format!("{:.1} s", micros.abs() as f64 / 1e6);
    let side = |micros: i64| if micros > 0 { "ahead" } else { "behind" };
    let mut findings = Vec::new();
    if !(EARLIEST..LATEST).contains(&now) {
        findings.push(Finding::error(CHECK, format!("that of this machine says {}", Date(now)), FIX));
    }
    if let Some((off, took)) = controller
        && off.abs() > CLOCK_TOLERANCE.max(took)
    {
        let text = format!("the controller's is {} {} of this machine's", seconds(off), side(off));
        findings.push(Finding::warning(CHECK, text, FIX));
    }
    for Skew { engine, micros } in skews.iter().filter(|skew| skew.micros.abs() > CLOCK_TOLERANCE) {
        let whose = if *micros > 0 { "the controller's" } else { "its clients'" };
        let text = format!("that of engine {engine} is at least {} {} of {whose}", seconds(*micros), side(*micros));
        findings.push(Finding::warning(CHECK, text, FIX));
    }
    if findings.is_empty() {
        let engines = match skews.len() {
            0 => String::new(),
            count => format!(", and so do those of {count} engines by their records"),
        };
        let text = if controller.is_some() {
            format!("this machine's and the controller's agree{engines}")
        } else {
            "that of this machine is sane; there is no controller to compare it with".to_owned()
        };
        findings.push(Finding::ok(CHECK, text));
    }
    findings
}

/// Whether so many engines as are wanted fit under the limits.
pub(super) fn open_files(subject: &Subject<'_>, asked: &Asked) -> Vec<Finding> {
    let of_profile = || subject.of_cluster("n").and_then(|n| n.parse().ok());
    let wanted = subject.args.engines.map(|engines| engines as usize).or_else(of_profile);
    let wanted = wanted.unwrap_or_else(super::super::cluster::cores).max(asked.engines);
    let running = asked.dump.as_ref().and_then(|dump| dump["config"]["limits"]["max_engines"].as_u64());
    let configured = subject.config.as_ref().and_then(|config| config.max_engines);
    vec![fits(wanted, limits::most_open_files(), configured, running)]
}

/// `configured` is the limit on engines of the profile, `running` that of the controller that runs.
fn fits(wanted: usize, most_open_files: u64, configured: Option<usize>, running: Option<u64>) -> Finding {
    const CHECK: &str = "open files";
    if let Some(running) = running.filter(|running| *running < wanted as u64) {
        return Finding::error(
            CHECK,
            format!("the controller that runs takes {running} engines, and {wanted} are wanted"),
            format!("start it again under a higher limit (`ulimit -Hn {}`) or `--max-engines`", files_for(wanted)),
        );
    }
    if let Some(configured) = configured.filter(|configured| running.is_none() && *configured < wanted) {
        let text = format!("`max-engines` of the profile is {configured}, and {wanted} engines are wanted");
        return Finding::error(CHECK, text, "raise it in remuda.toml, or leave it out");
    }
    let fit = engines_that_fit(most_open_files);
    if running.is_none() && fit < wanted {
        return Finding::error(
            CHECK,
            format!("the limit of {most_open_files} has room for {fit} engines, and {wanted} are wanted"),
            format!("`ulimit -Hn {}` as root, or `LimitNOFILE=` of the systemd unit", files_for(wanted)),
        );
    }
    let fit = running.map_or(fit as u64, |running| running);
    Finding::ok(CHECK, format!("{fit} engines fit, and {wanted} are wanted"))
}

/// Whether there is room for records, logs and what programs write.
pub(super) fn disk(subject: &Subject<'_>) -> Vec<Finding> {
    let database = database::path(subject, &Asked::default());
    let folders = [
        Some(("the profile", subject.profile.dir().to_owned())),
        database.and_then(|path| path.parent().map(|folder| ("the database", folder.to_owned()))),
        Some(("temporary files", std::env::temp_dir())),
    ];
    let mut seen: Vec<PathBuf> = Vec::new();
    let mut findings = Vec::new();
    for (what, folder) in folders.into_iter().flatten() {
        let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or_else(|| Path::new("/")).to_owned();
        if seen.contains(&there) {
            continue;
        }
        findings.extend(free(&there).map(|(free, files)| room(what, &there, free, files)));
        seen.push(there);
    }
    findings
}

/// How many bytes are free where a folder is, and how many more files there may be, if the file system says.
#[allow(clippy::useless_conversion, reason = "on other systems than Linux they are shorter")]
fn free(folder: &Path) -> Option<(u64, Option<u64>)> {
    let found = statvfs(folder).ok()?;
    let bytes = u64::from(found.blocks_available()).saturating_mul(u64::from(found.fragment_size()));
    Some((bytes, (found.files() > 0).then(|| u64::from(found.files_available()))))
}

/// `free` is in bytes; `files`, how many more there may be, where the file system says.
fn room(what: &str, folder: &Path, free: u64, files: Option<u64>) -> Finding {
    const CHECK: &str = "disk";
    let text = format!("{:.1} GB are free for {what} in `{}`", free as f64 / 1e9, folder.display());
    let fix = "make room, or use another place: `--profile-dir`, `--sqlite-location`, `--spool-dir`";
    if let Some(files) = files.filter(|files| *files < 1000) {
        let text = format!("only {files} more files fit for {what} in `{}`", folder.display());
        return Finding::error(CHECK, text, fix);
    }
    match free {
        0..NO_ROOM => Finding::error(CHECK, format!("only {text}"), fix),
        NO_ROOM..LITTLE_ROOM => Finding::warning(CHECK, format!("only {text}"), fix),
        _ => Finding::ok(CHECK, text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use serde_json::json;

    fn record(engine: &str, dates: [i64; 4]) -> Map<String, Value> {
        let [submitted, started, completed, received] = dates.map(|seconds| Date(EARLIEST + seconds * 1_000_000));
        let record = json!({
            "engine_uuid": engine, "submitted": submitted, "started": started, "completed": completed, "received": received,
        });
        record.as_object().cloned().unwrap()
    }

    #[test]
    fn the_clock_of_an_engine_is_told_from_its_records() {
        let records = [
            record("right", [0, 1, 2, 3]),
            record("ahead", [0, 61, 62, 3]),
            record("ahead", [0, 10, 11, 9]),
            record("behind", [100, 41, 42, 103]),
        ];
        let skews = Skew::of(records.iter());
        let of = |engine: &str| skews.iter().find(|skew| skew.engine == engine).unwrap().micros;
        assert_eq!((of("right"), of("ahead"), of("behind")), (0, 59_000_000, -59_000_000));
        let findings = clocks(EARLIEST, Some((0, 100)), &skews);
        assert_eq!(findings.len(), 2);
        assert!(findings[0].text.contains("engine ahead") && findings[0].text.contains("59.0 s ahead"), "{findings:?}");
        assert!(findings[1].text.contains("engine behind") && findings[1].fix.contains("NTP"), "{findings:?}");
    }

    #[test]
    fn clocks_that_differ_or_cannot_be_right_are_named() {
        let levels = |findings: Vec<Finding>| findings.iter().map(|finding| finding.level).collect::<Vec<_>>();
        assert_eq!(levels(clocks(EARLIEST, None, &[])), [Level::Ok]);
        assert_eq!(levels(clocks(EARLIEST, Some((1_000_000, 50)), &[])), [Level::Ok]);
        assert_eq!(levels(clocks(EARLIEST, Some((-5_000_000, 50)), &[])), [Level::Warning]);
        assert_eq!(levels(clocks(EARLIEST, Some((-5_000_000, 8_000_000)), &[])), [Level::Ok], "it took longer to ask");
        assert_eq!(levels(clocks(0, None, &[])), [Level::Error]);
    }

    #[test]
    fn engines_that_are_wanted_have_to_fit() {
        assert_eq!(fits(10, 1024, None, None).level, Level::Ok);
        let few = fits(1000, 1024, None, None);
        assert_eq!(few.level, Level::Error);
        assert!(few.text.contains("96 engines") && few.fix.contains("8256"), "{few:?}");
        assert_eq!(engines_that_fit(files_for(1000)), 1000);
        assert!(fits(10, 1024, Some(5), None).text.contains("max-engines"));
        assert!(fits(10, 1024, None, Some(5)).text.contains("takes 5 engines"));
        assert_eq!(fits(10, 100, None, Some(50)).level, Level::Ok, "what runs has its own limit");
    }

    #[test]
    fn little_room_is_a_warning_and_none_an_error() {
        let level = |free: u64, files: Option<u64>| room("logs", Path::new("/x"), free, files).level;
        assert_eq!((level(2 << 30, None), level(500 << 20, None)), (Level::Ok, Level::Warning));
        assert_eq!((level(1 << 20, None), level(2 << 30, Some(3))), (Level::Error, Level::Error));
    }

    #[test]
    fn releases_of_ipyparallel_that_work_are_known() {
        for (said, level) in [
            ("3.11.2 9.2.0", Level::Ok),
            ("3.11.2 7.1.0", Level::Ok),
            ("3.8.1 6.3.0", Level::Error),
            ("3.14.0 9.3.0", Level::Warning),
            ("", Level::Warning),
        ] {
            assert_eq!(release("python3", said).level, level, "{said}");
        }
    }
}
