//! Task records in a database with many of them: what people ask, a start, and what a record takes.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use remuda_hub::find::Query;
use remuda_hub::record::{Outcome, TaskRecord};
use remuda_hub::recovered;
use remuda_hub::store::{
    Answer, Ask, BATCH_CHANGES, Buffers, Find, OrderBy, SqliteConfig, SqliteStore, StoreError, TaskStore, Write,
};
use remuda_proto::message::Status;
use remuda_proto::monitor::Queue;
use remuda_proto::{Body, Date, Header, Identity, Key, MsgType, Packer, Session};
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::RecordsArgs;
use crate::report::{Journal, print};

/// Engines that the tasks are spread over.
const ENGINES: u64 = 64;
/// One task in so many has each of the rarer states and labels.
const ONE_IN: u64 = 1_000;
/// From one task to the next, in microseconds.
const APART: i64 = 100;
/// How many records are listed.
const LISTED: usize = 50;
/// What a list may take, in milliseconds.
const LIST_MS: f64 = 10.0;
/// What a start may take, in seconds.
const START_S: f64 = 3.0;
/// How often each is asked; the slowest time counts but for the first, which reads from the disk.
const ROUNDS: usize = 5;

#[derive(Debug, Serialize)]
struct Asked {
    what: &'static str,
    found: usize,
    first_ms: f64,
    slowest_ms: f64,
}

/// `remuda-bench records`
pub(crate) fn run(args: &RecordsArgs) -> Result<ExitCode> {
    let folder = tempfile::tempdir_in(&args.folder)?;
    let file = folder.path().join("tasks.db");
    let mut journal = Journal::open("records", args.json.as_deref())?;
    let begun = Instant::now();
    fill(&file, args.records).context("filling the database")?;
    let filled_s = begun.elapsed().as_secs_f64();
    let bytes = std::fs::metadata(&file)?.len();
    let mut text = format!("{}\n\n", journal.machine());
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    writeln!(
        text,
        "{} records in {filled_s:.1} s, {:.0} bytes each on disk\n\n{:<34}{:>7}{:>10}{:>10}",
        args.records,
        bytes as f64 / args.records as f64,
        "list of 50, newest first",
        "found",
        "first ms",
        "slowest"
    )?;

    let begun = Instant::now();
    let mut store = SqliteStore::open(&SqliteConfig::new(&file))?;
    let unfinished = store.unfinished().map_err(told)?;
    let session = session();
    let taken = unfinished.iter().filter_map(|record| recovered(&session, record, Date(0))).count();
    let finished = store.finished(args.finished).map_err(told)?.len();
    let start_s = begun.elapsed().as_secs_f64();

    let mut met = start_s < START_S;
    for (what, query, order) in questions(args.records) {
        let asked = ask(&mut store, what, &query, order)?;
        met &= asked.slowest_ms < LIST_MS;
        writeln!(text, "{:<34}{:>7}{:>10.2}{:>10.2}", asked.what, asked.found, asked.first_ms, asked.slowest_ms)?;
        journal.write(&asked)?;
    }
    writeln!(
        text,
        "\nopen and take over: {start_s:.2} s ({taken} requests without a reply, {finished} that ended)\nlists under {LIST_MS} ms and a \
         start under {START_S} s: {}",
        if met { "yes" } else { "NO" }
    )?;
    journal.write(&json!({
        "records": args.records, "filled_s": filled_s, "bytes": bytes, "start_s": start_s, "taken": taken,
        "finished": finished,
    }))?;
    print(&text)?;
    drop(store);
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn told(error: StoreError) -> anyhow::Error {
    anyhow!(error)
}

fn session() -> Session {
    Session::new("client".into(), "bench", Key::new(""), Packer::Json, 1)
}

fn message(session: &mut Session, header: &Header, metadata: &Value, content: &Value, buffer: usize) -> Result<Body> {
    Ok(session.assemble(header, None, metadata, content, &[vec![7; buffer].into()])?)
}

fn submitted(number: u64) -> Date {
    let start = Date::parse("2026-11-22T00:00:00Z").map_or(0, |date| date.0);
    Date(start + APART * i64::try_from(number).unwrap_or(0))
}

fn fill(file: &Path, records: u64) -> Result<()> {
    let mut store = SqliteStore::open(&SqliteConfig::new(file))?;
    let mut session = session();
    for number in 0..records {
        let date = submitted(number);
        let mut header = session.header(date, MsgType::ApplyRequest);
        header.session = format!("client-{}", number % ONE_IN).as_str().into();
        let label = (number % ONE_IN == 3).then_some("rare");
        let metadata = json!({"label": label, "retries": 0, "after": [], "follow": [], "targets": []});
        let body = message(&mut session, &header, &metadata, &json!({}), 200)?;
        let msg_id = header.msg_id.clone();
        let record = TaskRecord::new(msg_id.clone(), Packer::Json, Queue::Task, body, date);
        let engine = Some(format!("engine-{}", number % ENGINES).as_str().into());
        let runs = number % ONE_IN == 1;
        let engine = if number % ONE_IN == 2 { None } else { engine };
        let has_reply = engine.is_some() && !runs;
        store.write(Write::Add(Box::new(TaskRecord {
            engine,
            reply_to: Some(Identity::from(&b"client"[..])),
            ..record
        })));
        if has_reply {
            let received = Date(date.0 + 1_000);
            let status = if number % ONE_IN == 5 { Status::Error } else { Status::Ok };
            let metadata = json!({"status": status, "engine": "e", "started": date, "dependencies_met": true});
            let header = session.header(received, MsgType::ApplyReply);
            let body = message(&mut session, &header, &metadata, &json!({"status": status}), 100)?;
            store.write(Write::Finish { msg_id, outcome: Outcome { packer: Packer::Json, body, received, status } });
        }
        if store.pending() >= BATCH_CHANGES {
            commit(&mut store)?;
        }
    }
    commit(&mut store)
}

fn commit(store: &mut SqliteStore) -> Result<()> {
    while store.pending() > 0 {
        let refused = store.commit().map_err(told)?.refused;
        ensure!(refused.is_empty(), "{refused:?}");
    }
    Ok(())
}

/// What people ask: each kind of filter, for much and for little, and windows of time.
fn questions(records: u64) -> Vec<(&'static str, Value, OrderBy)> {
    let date = |part: u64| submitted(records / 10 * part).to_string();
    let newest = OrderBy::Submitted;
    vec![
        ("everything", json!({}), newest),
        ("state ok", json!({"state": "ok"}), newest),
        ("state error", json!({"state": "error"}), newest),
        ("state running", json!({"state": "running"}), newest),
        ("state waiting or running", json!({"state": {"$in": ["waiting", "running"]}}), newest),
        ("label", json!({"label": "rare"}), newest),
        ("engine", json!({"engine_uuid": "engine-7"}), newest),
        ("client", json!({"client_uuid": "client-7"}), newest),
        ("submitted since", json!({"submitted": {"$gte": date(2)}}), newest),
        ("submitted in a window", json!({"submitted": {"$gte": date(2), "$lt": date(3)}}), newest),
        ("state error in a window", json!({"state": "error", "submitted": {"$gte": date(2), "$lt": date(3)}}), newest),
        ("state ok in a window", json!({"state": "ok", "submitted": {"$gte": date(2), "$lt": date(3)}}), newest),
        ("completed in a window", json!({"completed": {"$gte": date(2), "$lt": date(3)}}), OrderBy::Completed),
        ("completed (stock: not null)", json!({"completed": {"$ne": null}}), newest),
        ("by arrival", json!({}), OrderBy::Arrival),
    ]
}

fn ask(store: &mut SqliteStore, what: &'static str, query: &Value, order: OrderBy) -> Result<Asked> {
    let query = Query::read(query).with_context(|| format!("the question `{what}`"))?;
    let find = Find { query, buffers: Buffers::default(), order, descending: true, most: Some(LISTED) };
    let ask = Ask::Find(find);
    let mut times = Vec::new();
    let mut found = 0;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        found = match store.ask(&ask).map_err(told)? {
            Answer::Records(records) => records.len(),
            other => bail!("asked for records, the store answers {other:?}"),
        };
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    ensure!(found > 0, "`{what}` finds nothing");
    let slowest_ms = times[1..].iter().copied().fold(0.0, f64::max);
    Ok(Asked { what, found, first_ms: times[0], slowest_ms })
}
