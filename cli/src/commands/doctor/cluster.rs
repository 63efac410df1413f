//! The controller that runs, and the ports that one would take.

use std::time::Instant;

use remuda_client::records::Find;
use remuda_client::{Client, ConnectOptions};
use remuda_proto::Date;
use remuda_proto::message::content::DbOptions;
use serde_json::{Value, json};

use super::files::files_of;
use super::machine::Skew;
use super::{Finding, Subject, controller};

/// How many records tell of the clocks of engines.
const RECORDS: u64 = 200;

/// What a controller that runs said.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) findings: Vec<Finding>,
    /// Its state; none if it is a stock one, or none answered.
    pub(super) dump: Option<Value>,
    /// How many engines it has.
    pub(super) engines: usize,
    /// Its clock less ours, in microseconds, and how long it took to ask.
    pub(super) clock: Option<(i64, i64)>,
    /// What records tell of the clocks of engines.
    pub(super) skews: Vec<Skew>,
}

/// Asks the controller, if one listens.
pub(super) async fn ask(subject: &Subject<'_>, listens: bool) -> Asked {
    const CHECK: &str = "controller";
    let mut asked = Asked::default();
    if !listens {
        asked.findings.push(Finding::ok(CHECK, "none runs that could be asked"));
        return asked;
    }
    let (file, _) = files_of(subject);
    let options = ConnectOptions::file(&file).timeout(subject.timeout);
    let client = match Client::connect(options).await {
        Ok(client) => client,
        Err(error) => {
            let text = crate::failure::Failure::new(error).text();
            let fix = format!(
                "if its process runs, see its log in `{}`; else start it again: `remuda controller{}`",
                subject.profile.log().display(),
                subject.options
            );
            asked.findings.push(Finding::error(CHECK, text, fix));
            return asked;
        }
    };
    asked.engines = client.engines().len();
    let engines = asked.engines;
    let Some(info) = client.controller() else {
        asked.findings.push(Finding::ok(CHECK, format!("a stock one answers, with {engines} engines")));
        return asked;
    };
    let own = env!("CARGO_PKG_VERSION");
    asked.findings.push(if info.version == own {
        Finding::ok(CHECK, format!("version {own} answers, process {}, with {engines} engines", info.pid))
    } else {
        Finding::warning(
            CHECK,
            format!("version {} runs (process {}), and this program is {own}", info.version, info.pid),
            "start it again with this version, when its tasks are done",
        )
    });
    let (start, before) = (Instant::now(), now());
    if let Ok(dump) = client.dump(0).await {
        let took = i64::try_from(start.elapsed().as_micros()).unwrap_or(i64::MAX);
        let theirs = dump["now"].as_str().and_then(Date::parse);
        asked.clock = theirs.map(|theirs| (theirs.0 - before - took / 2, took));
        asked.findings.extend(store_trouble(&dump));
        asked.dump = Some(dump);
    }
    let find = Find {
        query: json!({"completed": {"$ne": null}}),
        keys: Some(["engine_uuid", "submitted", "started", "completed", "received"].map(str::to_owned).to_vec()),
        options: DbOptions { limit: Some(RECORDS), descending: true, ..DbOptions::default() },
    };
    // Without records there is nothing to tell from.
    if let Ok(records) = client.records(&find).await {
        asked.skews = Skew::of(records.iter().map(|record| &record.fields));
    }
    asked
}

/// The time, in microseconds since 1970.
pub(super) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// That its records cannot be written is what the controller itself says first.
fn store_trouble(dump: &Value) -> Option<Finding> {
    let trouble = dump["hub"]["store_trouble"].as_str()?;
    let text = format!("the controller cannot write its task records: {trouble}");
    Some(Finding::error(
        "database",
        text,
        "make room on the disk, or give the file back its permissions: nothing is lost yet",
    ))
}

/// Whether the ports that the profile asks for can be had, or are this profile's own controller's.
pub(super) fn ports(subject: &Subject<'_>, listens: bool) -> Vec<Finding> {
    const CHECK: &str = "ports";
    let Some(config) = &subject.config else { return Vec::new() };
    let (client, engine) = files_of(subject);
    let ours = if listens { controller::ports_of(&client, &engine) } else { Vec::new() };
    let (held, busy): (Vec<_>, Vec<_>) =
        remuda_cluster::busy_ports(config).into_iter().partition(|busy| busy.is_in_use() && ours.contains(&busy.port));
    if !busy.is_empty() {
        let fix = |port: u16| {
            format!(
                "`ss -ltnp 'sport = :{port}'` says who has it: end that, or give another with `ports` in remuda.toml"
            )
        };
        return busy.iter().map(|one| Finding::error(CHECK, one.to_string(), fix(one.port))).collect();
    }
    let asked = [&config.ports.engine, &config.ports.client, &config.ports.common].iter().any(|pool| !pool.is_empty());
    vec![Finding::ok(
        CHECK,
        match (asked || config.reuse, held.len()) {
            (false, 0) => "none are asked for: free ones are taken".to_owned(),
            (_, 0) => "those that a controller would take first are free".to_owned(),
            (_, count) => format!("{count} are held by the controller of this profile, and the others are free"),
        },
    )]
}
