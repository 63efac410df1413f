//! `remuda task abort`, `resubmit` and `purge`.

use std::io::{self, Write};
use std::process::ExitCode;

use remuda_client::query::Purge;
use remuda_client::{Client, MsgId, QueryError, Targets};
use serde_json::{Value, json};

use super::source::{Intent, MAX_NAMED, Selection, Source, State, failed, id_of, owned};
use super::{filter, say, words};
use crate::args::task::{ChangeArgs, FilterArgs, PurgeArgs};
use crate::failure::{Failure, Outcome};

pub(super) async fn abort(change: &ChangeArgs, stop: bool) -> Outcome {
    let intent = Intent::Act(if stop { "stop" } else { "abort" });
    let mut source = Source::open(&change.source, intent).await?;
    let Source::Live(client) = &source else { unreachable!("aborting needs a controller, which was asked for") };
    let client = client.clone();
    // What a controller does not keep records of can be aborted all the same, by its whole id.
    let ids = if !change.tasks.is_empty() && !keeps_records(&client).await? {
        change.tasks.iter().map(|text| MsgId::from(&**text)).collect()
    } else {
        meant(&mut source, change, &State::PENDING).await?
    };
    if change.dry_run {
        return print_ids(&ids);
    }
    let engines = client.engines().len();
    if engines == 0 && !ids.is_empty() {
        return Err(Failure::new(anyhow::anyhow!(
            "no engine is registered, and word to abort a task goes by way of one"
        ))
        .hint("start one that does not run these tasks, `remuda engine` for Python tasks say, and try again"));
    }
    for some in ids.chunks(MAX_NAMED) {
        let told = if stop { client.stop(some, Targets::All).await } else { client.abort(some, Targets::All).await };
        told.map_err(failed)?;
    }
    let count = words::count(ids.len() as u64, "task");
    say(&match (ids.is_empty(), stop) {
        (true, _) => format!("no task has to be {}", if stop { "stopped" } else { "aborted" }),
        (false, false) => format!("{count} will not be run, unless an engine runs it already: `--stop` ends programs"),
        (false, true) => format!("{count} will not be run, and programs that run are ended"),
    });
    Ok(ExitCode::SUCCESS)
}

async fn keeps_records(client: &Client) -> Result<bool, Failure> {
    match client.db_query(json!({"msg_id": {"$eq": ""}}), Some(&["msg_id"])).await {
        Ok(_) => Ok(true),
        Err(QueryError::Refused { source, .. }) if source.ename == "NoData" => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

pub(super) async fn resubmit(args: &ChangeArgs) -> Outcome {
    let mut source = Source::open(&args.source, Intent::Act("resubmit")).await?;
    let ids = meant(&mut source, args, &State::DONE).await?;
    if args.dry_run {
        return print_ids(&ids);
    }
    let Source::Live(client) = &source else { unreachable!("resubmitting needs a controller, which was asked for") };
    let mut out = io::stdout().lock();
    for some in ids.chunks(MAX_NAMED) {
        let again = client.resubmit(some).await.map_err(failed)?;
        for (old, new) in &again {
            writeln!(out, "{old} {new}")?;
        }
    }
    say(&format!("{} submitted again, each beside its new id", words::count(ids.len() as u64, "task")));
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn purge(args: &PurgeArgs) -> Outcome {
    let change = &args.change;
    let intent = if change.dry_run { Intent::Read } else { Intent::Purge };
    let mut source = Source::open(&change.source, intent).await?;
    let ids = if args.all {
        select(&mut source, &FilterArgs::default(), &State::DONE).await?
    } else {
        meant(&mut source, change, &State::DONE).await?
    };
    // Those that were found by their state need no second look.
    let asked = filter::states(&change.filter);
    if !change.tasks.is_empty() || asked.iter().any(|state| State::PENDING.contains(state)) {
        refuse_pending(&mut source, &ids).await?;
    }
    if change.dry_run {
        return print_ids(&ids);
    }
    match &mut source {
        Source::Live(client) => {
            for some in ids.chunks(MAX_NAMED) {
                client.purge(Purge::Tasks(some.to_vec())).await.map_err(failed)?;
            }
        }
        Source::File(file) => file.purge(&ids)?,
    }
    say(&format!("{} purged", words::count(ids.len() as u64, "record")));
    Ok(ExitCode::SUCCESS)
}

/// A record without a reply is what a controller goes on with when it is started again.
async fn refuse_pending(source: &mut Source, ids: &[MsgId]) -> Result<(), Failure> {
    for some in ids.chunks(MAX_NAMED) {
        let pending = Selection {
            states: State::PENDING.to_vec(),
            limit: Some(1),
            ..Selection::tasks(some, &["msg_id", "state"])
        };
        if let Some(record) = source.records(&pending).await?.first() {
            let id = record.fields.get("msg_id").and_then(Value::as_str).unwrap_or_default();
            return Err(Failure::new(anyhow::anyhow!("task `{id}` has not ended: its record is still needed"))
                .hint("abort it first (`remuda task abort`)"));
        }
    }
    Ok(())
}

/// The tasks that are named, or those that the options name.
async fn meant(source: &mut Source, args: &ChangeArgs, states: &[State]) -> Result<Vec<MsgId>, Failure> {
    if !args.tasks.is_empty() {
        return source.tasks(&args.tasks).await;
    }
    if args.filter.is_empty() {
        return Err(
            Failure::usage("no tasks are named").hint("give their ids, or options such as `--label` and `--state`")
        );
    }
    select(source, &args.filter, states).await
}

/// The tasks that the options name; in one of `states` where they do not say in which.
async fn select(source: &mut Source, options: &FilterArgs, states: &[State]) -> Result<Vec<MsgId>, Failure> {
    let said = filter::states(options);
    let now = remuda_net::Clock::new().now().date;
    let selection = Selection {
        query: filter::query(options, &source.engines(), now),
        states: if said.is_empty() { states.to_vec() } else { said },
        keys: Some(owned(&["msg_id"])),
        oldest_first: true,
        ..Selection::default()
    };
    Ok(source.records(&selection).await?.iter().filter_map(id_of).collect())
}

fn print_ids(ids: &[MsgId]) -> Outcome {
    let mut out = io::BufWriter::new(io::stdout().lock());
    ids.iter().try_for_each(|id| writeln!(out, "{id}"))?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
