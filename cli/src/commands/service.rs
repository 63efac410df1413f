//! `remuda service`: programs that the task scheduler keeps running.

mod known;
mod list;
mod logs;

use std::process::ExitCode;
use std::time::Duration;

use remuda_client::Targets;
use remuda_client::definitions::SERVICE_LABEL;
use remuda_proto::message::story::TaskState;

use super::process::{bytes_of, called, client, failed, print};
use super::{say, unless_nobody_reads};
use crate::args::service::{ServiceCommand, StartArgs, StopArgs};
use crate::failure::{Failure, Outcome};
use known::{Service, Services};

/// How often it is looked what became of a service.
const EVERY: Duration = Duration::from_millis(100);
/// How long a service may take to end that was told to: longer than its engine waits before it kills it.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn run(command: &ServiceCommand) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    unless_nobody_reads(runtime.block_on(async {
        match command {
            ServiceCommand::Start(args) => start(args).await,
            ServiceCommand::List(args) => list::list(args).await,
            ServiceCommand::Stop(args) => stop(args).await,
            ServiceCommand::Logs(args) => logs::logs(args).await,
        }
    }))
}

async fn start(args: &StartArgs) -> Outcome {
    let input = args.input.as_deref().map(bytes_of).transpose()?;
    let services = Services::of(client(&args.controller).await?)?;
    let definitions = services.client.definitions();
    let record = definitions.get(&*args.which).await.map_err(failed)?;
    let (_, options) = remuda_client::definitions::service(&record).map_err(failed)?;
    let label = options.label.as_ref().and_then(|label| label.as_str()).unwrap_or_default();
    let name = label.strip_prefix(SERVICE_LABEL).unwrap_or_default();
    if !args.another
        && let Some(other) = services.live().await?.iter().find(|service| service.name == name)
    {
        return Err(Failure::new(anyhow::anyhow!(
            "service `{name}` is {} already, as task {}",
            other.state(),
            other.msg_id
        ))
        .hint(format!("`remuda service stop {name}` ends it; with `--another` there are several")));
    }
    let task = definitions.start_record(&record, input.map(Into::into)).map_err(failed)?;
    let known = async {
        loop {
            if let Some(story) = services.story(task.msg_id()).await? {
                return Ok::<_, Failure>(story);
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    let timeout = Duration::from_secs_f64(args.controller.timeout);
    let Ok(story) = tokio::time::timeout(timeout, known).await else {
        return Err(Failure::new(anyhow::anyhow!("the controller has not taken the service within {timeout:?}"))
            .hint("`remuda status` says whether it takes tasks; `remuda service list` whether it has come since"));
    };
    print(task.msg_id().as_str())?;
    let where_it_is = match story?.state {
        TaskState::Assigned(assigned) => match assigned.engine.id {
            Some(id) => format!("runs on engine {id}"),
            None => format!("runs on engine {}", assigned.engine.uuid),
        },
        TaskState::Finished(_) => "has ended already: `remuda service list` says how".to_owned(),
        _ => format!("waits for an engine with room for it: `remuda debug story {}` says why", task.msg_id()),
    };
    say(&format!("service {} {where_it_is}", called(&record)));
    Ok(ExitCode::SUCCESS)
}

async fn stop(args: &StopArgs) -> Outcome {
    let services = Services::of(client(&args.controller).await?)?;
    let live = services.live().await?;
    let mut meant: Vec<&Service> = Vec::new();
    for which in &args.which {
        let some = services.meant(&live, which).await?;
        match &some[..] {
            [] => {
                return Err(Failure::new(anyhow::anyhow!("no service `{which}` runs"))
                    .hint("`remuda service list` names those that do"));
            }
            [_] => {}
            several if !args.all => {
                let ids: Vec<&str> = several.iter().map(|service| service.msg_id.as_str()).collect();
                return Err(Failure::new(anyhow::anyhow!(
                    "{} services are called `{which}`:\n  {}",
                    ids.len(),
                    ids.join("\n  ")
                ))
                .hint("give the id of one, or `--all`"));
            }
            _ => {}
        }
        meant.extend(some);
    }
    if services.client.engines().is_empty() {
        return Err(Failure::new(anyhow::anyhow!("no engine is registered, and word to stop goes by way of one"))
            .hint("start one and try again: a service that waits for an engine may run there for a moment"));
    }
    let ids: Vec<_> = meant.iter().map(|service| service.msg_id.clone()).collect();
    services.client.stop(&ids, Targets::All).await?;
    let ended = async {
        for id in &ids {
            while services.story(id).await?.is_some_and(|story| !known::has_ended(&story)) {
                tokio::time::sleep(EVERY).await;
            }
        }
        Ok::<_, Failure>(())
    };
    let Ok(ended) = tokio::time::timeout(STOP_TIMEOUT, ended).await else {
        return Err(Failure::new(anyhow::anyhow!("not all have ended within {STOP_TIMEOUT:?}"))
            .hint("they were told to, and are not started again; `remuda service list` says what they do"));
    };
    ended?;
    for service in meant {
        say(&format!("service `{}` is stopped (task {})", service.name, service.msg_id));
    }
    Ok(ExitCode::SUCCESS)
}
