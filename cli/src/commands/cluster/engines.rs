//! `remuda cluster engines add`, `remove`, `restart` and `drain`.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use remuda_client::Client;
use remuda_cluster::fleet::{Answer, Command, Roster, UnitId};
use remuda_proto::{EngineId, EngineUuid};

use super::{WATCH, door, engines_text, queue_text, say};
use crate::args::cluster::{AddArgs, DrainArgs, EndArgs, EnginesAction};
use crate::commands::connect;
use crate::failure::{Failure, Outcome};

/// Seconds that the controller may take to answer.
const CONNECT_S: f64 = 10.0;

pub(super) fn run(action: &EnginesAction) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match action {
            EnginesAction::Add(args) => add(args).await,
            EnginesAction::Remove(args) => end(args, false).await,
            EnginesAction::Restart(args) => end(args, true).await,
            EnginesAction::Drain(args) => drain(args).await,
        }
    })
}

fn registered(client: &Client) -> BTreeSet<EngineUuid> {
    client.engines().into_iter().map(|engine| engine.uuid).collect()
}

async fn add(args: &AddArgs) -> Outcome {
    let client = connect(&args.place, CONNECT_S).await?;
    let command = Command::Add { engines: args.n };
    let Answer::Units(units) = door::ask(&args.place.profile(), &args.place.options(), &command)? else {
        return Err(Failure::new(anyhow::anyhow!("the supervisor does not say which engines it starts")));
    };
    let (mut start, mut is_told) = (Instant::now(), false);
    loop {
        let roster = only(&door::roster(&args.place)?, &units);
        if let Some(reason) = roster.failure() {
            return Err(Failure::new(anyhow::anyhow!(reason)));
        }
        // What waits in a queue is not late.
        if let Some((engines, reason)) = roster.waiting() {
            start = Instant::now();
            if !std::mem::replace(&mut is_told, true) {
                say(&format!("{} (Ctrl-C ends the waiting here)", queue_text(engines, reason)));
            }
        }
        let there = registered(&client);
        let engines = roster.units.iter().flat_map(|of| &of.engines);
        let ready = engines.filter(|engine| there.contains(&engine.uuid)).count();
        if ready >= args.n as usize {
            break;
        }
        if start.elapsed().as_secs_f64() > args.timeout {
            let what = format!("{ready} of {} engines registered within {} s", args.n, args.timeout);
            return Err(Failure::new(anyhow::anyhow!(what)).hint("`remuda cluster status` shows how they stand"));
        }
        tokio::time::sleep(WATCH).await;
    }
    say(&format!("{} more: {} in all are ready", args.n, engines_text(client.engines().len())));
    Ok(ExitCode::SUCCESS)
}

/// What there is to say of these units.
fn only(roster: &Roster, units: &[UnitId]) -> Roster {
    let meant = roster.units.iter().filter(|of| units.contains(&of.unit)).cloned();
    Roster { units: meant.collect(), ..Roster::default() }
}

async fn end(args: &EndArgs, again: bool) -> Outcome {
    let client = connect(&args.place, CONNECT_S).await?;
    let ids: Vec<EngineId> = args.ids.iter().copied().map(EngineId).collect();
    let uuids: BTreeSet<EngineUuid> = {
        let meant = client.engines().into_iter().filter(|engine| engine.id.is_some_and(|id| ids.contains(&id)));
        meant.map(|engine| engine.uuid).collect()
    };
    let before = client.engines().len();
    let command = Command::End { ids, again, now: args.now };
    door::ask(&args.place.profile(), &args.place.options(), &command)?;
    let to_do = if again { "to be started anew" } else { "to end" };
    if args.no_wait {
        say(&format!("{to_do} when finished with what it has: {}", engines_text(args.ids.len())));
        return Ok(ExitCode::SUCCESS);
    }
    wait_for("they have tasks to finish", || registered(&client).is_disjoint(&uuids)).await;
    if again {
        wait_for("they are to register", || client.engines().len() >= before).await;
        say(&format!("started anew: {}", engines_text(uuids.len())));
    } else {
        say(&format!("ended: {}; left: {}", engines_text(uuids.len()), client.engines().len()));
    }
    Ok(ExitCode::SUCCESS)
}

async fn drain(args: &DrainArgs) -> Outcome {
    let client = connect(&args.place, CONNECT_S).await?;
    let mut ids: Vec<EngineId> = args.ids.iter().copied().map(EngineId).collect();
    if let Some(host) = &args.host {
        let status = client.status().await?;
        let engines = status.remuda.into_iter().flat_map(|remuda| remuda.engines);
        let of_host: Vec<EngineId> = engines
            .filter(|(_, engine)| engine.host == *host)
            .filter_map(|(id, _)| Some(EngineId(id.parse().ok()?)))
            .collect();
        if of_host.is_empty() {
            let hint = "`remuda status` lists the hosts; a Python engine does not say its host: give its id";
            return Err(Failure::new(anyhow::anyhow!("no engine is on host `{host}`")).hint(hint));
        }
        ids.extend(of_host);
    }
    if args.undo {
        client.undrain(&ids).await?;
        say(&format!("tasks go again to {}", engines_text(ids.len())));
        return Ok(ExitCode::SUCCESS);
    }
    client.drain(&ids, args.shutdown).await?;
    if args.no_wait {
        say(&format!("no more tasks go to {}", engines_text(ids.len())));
        return Ok(ExitCode::SUCCESS);
    }
    let (mut told, start) = (false, Instant::now());
    loop {
        let status = client.status().await?;
        let left: usize = ids
            .iter()
            .filter(|id| {
                let queue = status.queues.engines.get(*id);
                let is_there = client.engines().iter().any(|engine| engine.id == Some(**id));
                is_there && (args.shutdown || queue.is_some_and(|queue| queue.queue + queue.tasks > 0))
            })
            .count();
        if left == 0 {
            break;
        }
        if !told && start.elapsed() > PATIENCE {
            told = true;
            say(&format!(
                "waiting for {} to finish what is there (Ctrl-C ends the waiting, not the work)",
                engines_text(left)
            ));
        }
        tokio::time::sleep(WATCH).await;
    }
    let then = if args.shutdown { "ended" } else { "drained" };
    say(&format!("{then}: {}", engines_text(ids.len())));
    Ok(ExitCode::SUCCESS)
}

/// How long to wait before it is said what for.
const PATIENCE: Duration = Duration::from_secs(1);

async fn wait_for(what: &str, done: impl Fn() -> bool) {
    let (start, mut told) = (Instant::now(), false);
    while !done() {
        if !told && start.elapsed() > PATIENCE {
            told = true;
            say(&format!("waiting: {what} (Ctrl-C ends the waiting, not the work)"));
        }
        tokio::time::sleep(WATCH).await;
    }
}
