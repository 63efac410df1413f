//! `remuda service logs`.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use remuda_client::{EngineUuid, ProgramStream, QueryError};
use remuda_proto::message::story::{TaskState, TaskStory};
use remuda_proto::{Map, Set};

use super::known::{Service, Services, has_ended};
use super::{client, say};
use crate::args::service::LogsArgs;
use crate::commands::spooled::{SpoolError, Spooled};
use crate::failure::{Failure, Outcome};

/// How often it is looked for more.
const EVERY: Duration = Duration::from_millis(300);

pub(super) async fn logs(args: &LogsArgs) -> Outcome {
    let services = Services::of(client(&args.controller).await?)?;
    let all = services.listed(true).await?;
    let meant = services.meant(&all, &args.which).await?;
    let live: Vec<&&Service> = meant.iter().filter(|service| !has_ended(&service.story)).collect();
    let service = match (&live[..], &meant[..]) {
        (_, []) => {
            return Err(Failure::new(anyhow::anyhow!("no service on record is called `{}`", args.which))
                .hint("`remuda service list --all` names them"));
        }
        ([one], _) => **one,
        // The newest comes first.
        ([], [newest, ..]) => *newest,
        (several, _) => {
            let ids: Vec<&str> = several.iter().map(|service| service.msg_id.as_str()).collect();
            let text = format!("{} services are called `{}`:\n  {}", ids.len(), args.which, ids.join("\n  "));
            return Err(Failure::new(anyhow::anyhow!("{text}")).hint("give the id of one"));
        }
    };
    let mut shown = Shown {
        services: &services,
        service,
        streams: match (args.stdout, args.stderr) {
            (true, _) => &[ProgramStream::Stdout],
            (_, true) => &[ProgramStream::Stderr],
            _ => &[ProgramStream::Stdout, ProgramStream::Stderr],
        },
        read: Map::default(),
        over: Set::default(),
    };
    loop {
        let story = services.story(&service.msg_id).await?;
        let Some(story) = story else { return Err(Failure::new(anyhow::anyhow!("the record of the service is gone"))) };
        shown.show(&story).await?;
        if !args.follow || has_ended(&story) {
            break;
        }
        tokio::time::sleep(EVERY).await;
    }
    if shown.read.is_empty() && !shown.over.is_empty() {
        return Err(Failure::new(anyhow::anyhow!("no engine has anything of what service `{}` wrote", service.name))
            .hint("it goes with the engine, and an hour after the end of the service"));
    }
    Ok(ExitCode::SUCCESS)
}

/// What was shown of a service's output.
struct Shown<'a> {
    services: &'a Services,
    service: &'a Service,
    streams: &'static [ProgramStream],
    /// How far the files of each engine were read: stdout, stderr.
    read: Map<EngineUuid, [u64; 2]>,
    /// The engines that have no more to show, unless they get it again.
    over: Set<EngineUuid>,
}

impl Shown<'_> {
    /// Shows what is new, of the engines that had the service in the order in which they had it last.
    async fn show(&mut self, story: &TaskStory) -> Result<(), Failure> {
        let current = match &story.state {
            TaskState::Assigned(assigned) => Some(&assigned.engine.uuid),
            TaskState::Finished(finished) => finished.engine.as_ref().map(|engine| &engine.uuid),
            _ => None,
        };
        let mut engines: Vec<&EngineUuid> = Vec::new();
        for engine in story.attempts.iter().map(|attempt| &attempt.engine.uuid).chain(current) {
            engines.retain(|other| *other != engine);
            engines.push(engine);
        }
        for engine in engines {
            let runs = current == Some(engine) && !has_ended(story);
            if runs {
                self.over.swap_remove(engine);
            } else if !self.over.insert(engine.clone()) {
                continue;
            }
            match self.copy(engine).await {
                Ok(()) => {}
                Err(SpoolError::Write(error)) => return Err(error.into()),
                // It has not begun to write, or is about to be found gone.
                Err(SpoolError::Query(_)) if runs => {}
                Err(SpoolError::Query(QueryError::EngineLost { .. })) => {
                    say(&format!("what it wrote on engine {engine} has gone with that"));
                }
                Err(SpoolError::Query(error)) => say(&format!("engine {engine}: {error}")),
            }
        }
        Ok(())
    }

    async fn copy(&mut self, engine: &EngineUuid) -> Result<(), SpoolError> {
        let spooled = Spooled { client: &self.services.client, engine, msg_id: &self.service.msg_id };
        let mut at = self.read.get(engine).copied().unwrap_or_default();
        for stream in self.streams {
            match stream {
                ProgramStream::Stderr => spooled.copy(*stream, &mut at[1], &mut io::stderr()).await?,
                _ => spooled.copy(*stream, &mut at[0], &mut io::stdout()).await?,
            }
            self.read.insert(engine.clone(), at);
        }
        Ok(())
    }
}
