//! `remuda debug`: what happened to a task and why it is where it is; the controller's state as a whole.

mod tell;

use std::io::{self, Write};
use std::process::ExitCode;

use remuda_client::Client;
use remuda_proto::message::story::{Story, Told};
use serde_json::{Value, json};

use crate::args::debug::{AskArgs, DebugCommand, DumpArgs, StoryArgs};
use crate::failure::{Failure, Outcome};

pub(crate) fn run(command: &DebugCommand) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command {
        DebugCommand::Story(args) => runtime.block_on(story(args)),
        DebugCommand::Dump(args) => runtime.block_on(dump(args)),
    }
}

async fn connect(args: &AskArgs) -> Result<Client, Failure> {
    let client = super::reach(&args.reach, &args.place, args.timeout).await?;
    if client.controller().is_none() {
        return Err(Failure::new(anyhow::anyhow!("the controller is a stock one, which keeps no such account"))
            .hint("`remuda status` shows what it can say"));
    }
    Ok(client)
}

/// Exit code 1 if one of the ids stands for no task, or for several.
async fn story(args: &StoryArgs) -> Outcome {
    let reply = connect(&args.ask).await?.stories(&args.msg_ids).await?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{:#}", json!({"now": reply.now, "stories": reply.stories}))?;
    } else {
        write!(out, "{}", tell::stories(&reply, &args.ask.place.options()))?;
    }
    let is_one = |story: &Story| matches!(story.told, Told::Task(_) | Told::Broadcast(_));
    Ok(if reply.stories.iter().all(is_one) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn dump(args: &DumpArgs) -> Outcome {
    let mut dump = connect(&args.ask).await?.dump(args.tasks.into()).await?;
    if let Value::Object(dump) = &mut dump {
        dump.shift_remove("status");
    }
    writeln!(io::stdout().lock(), "{dump:#}")?;
    Ok(ExitCode::SUCCESS)
}
