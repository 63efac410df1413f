//! `remuda process`: the process definitions of a controller that runs.

mod run;
mod show;

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use remuda_client::definitions::{DefinitionRecord, Which};
use remuda_client::{Client, DefinitionError};
use remuda_process::Definition;
use serde_json::{Map, Value};

use super::{reach, say, unless_nobody_reads};
use crate::args::process::{CheckArgs, ControllerPlaceArgs, CreateArgs, DeleteArgs, ProcessCommand, UpdateArgs};
use crate::failure::{Failure, Outcome};

pub(crate) fn run(command: &ProcessCommand) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    unless_nobody_reads(runtime.block_on(async {
        match command {
            ProcessCommand::Create(args) => create(args).await,
            ProcessCommand::List(args) => show::list(args).await,
            ProcessCommand::Show(args) => show::show(args).await,
            ProcessCommand::Update(args) => update(args).await,
            ProcessCommand::Delete(args) => delete(args).await,
            ProcessCommand::Run(args) => run::run(args).await,
            ProcessCommand::Check(args) => check(args),
        }
    }))
}

async fn create(args: &CreateArgs) -> Outcome {
    let definition = definition(&args.file)?;
    let client = client(&args.controller).await?;
    let record = client.definitions().create(definition).await.map_err(failed)?;
    print(&record.id.to_string())?;
    say(&format!("process definition {} is kept", called(&record)));
    Ok(ExitCode::SUCCESS)
}

async fn update(args: &UpdateArgs) -> Outcome {
    let definition = definition(&args.file)?;
    let client = client(&args.controller).await?;
    let record = client.definitions().update(&*args.which, definition).await.map_err(failed)?;
    say(&format!("process definition {} is changed", called(&record)));
    Ok(ExitCode::SUCCESS)
}

/// Deletes all that are there, and says which were not.
async fn delete(args: &DeleteArgs) -> Outcome {
    let client = client(&args.controller).await?;
    let mut missing = None;
    for which in &args.which {
        match client.definitions().delete(&**which).await {
            Ok(record) => say(&format!("process definition {} is deleted", called(&record))),
            Err(error @ DefinitionError::NotFound { .. }) => {
                if let Some(before) = missing.replace(failed(error)) {
                    before.report();
                }
            }
            Err(error) => return Err(failed(error)),
        }
    }
    missing.map_or(Ok(ExitCode::SUCCESS), Err)
}

fn check(args: &CheckArgs) -> Outcome {
    let value = Value::Object(read(&args.file)?);
    match Definition::read(&value) {
        Ok(_) => {
            say("the definition is good");
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            for problem in &problems {
                print(&problem.to_string())?;
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

/// A client of the controller in this place.
pub(super) async fn client(args: &ControllerPlaceArgs) -> Result<Client, Failure> {
    reach(&args.reach, &args.place, args.timeout).await
}

/// Reads a definition, and says all that is wrong with it before anybody is asked.
fn definition(file: &Path) -> Result<Map<String, Value>, Failure> {
    let map = read(file)?;
    match Definition::read(&Value::Object(map.clone())) {
        Ok(_) => Ok(map),
        Err(problems) => {
            let lines: Vec<String> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
            let text = format!("the definition in {} is wrong:{}", shown(file), lines.concat());
            Err(Failure::new(anyhow::anyhow!("{text}")).hint("`docs/process.md` has all keys"))
        }
    }
}

fn read(file: &Path) -> Result<Map<String, Value>, Failure> {
    let text = bytes_of(file)?;
    let value: Value = serde_json::from_slice(&text).map_err(|error| {
        Failure::new(anyhow::anyhow!("{} is no JSON: {error}", shown(file)))
            .hint("a definition is a map: {\"exec\": \"tr\", \"argv\": [\"-d\", \"x\"]}")
    })?;
    match value {
        Value::Object(map) => Ok(map),
        other => Err(Failure::new(anyhow::anyhow!("{} holds no map: `{other:.60}`", shown(file)))
            .hint("a definition is a map: {\"exec\": \"tr\", \"argv\": [\"-d\", \"x\"]}")),
    }
}

/// All that is in a file, or on stdin.
pub(super) fn bytes_of(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let done = if file == Path::new("-") {
        io::stdin().lock().read_to_end(&mut bytes).map(drop)
    } else {
        fs::read(file).map(|read| bytes = read)
    };
    match done {
        Ok(()) => Ok(bytes),
        Err(error) => Err(Failure::new(anyhow::Error::new(error).context(format!("cannot read {}", shown(file))))),
    }
}

fn shown(file: &Path) -> String {
    if file == Path::new("-") { "stdin".to_owned() } else { format!("`{}`", file.display()) }
}

/// A definition, by its id and its name.
pub(super) fn called(record: &DefinitionRecord) -> String {
    record.name().map_or_else(|| record.id.to_string(), |name| format!("{} (`{name}`)", record.id))
}

/// What went wrong, and what to do.
pub(super) fn failed(error: DefinitionError) -> Failure {
    let hint = match &error {
        DefinitionError::NotFound { which: Which::Id(_) | Which::Name(_) } => "`remuda process list` shows all",
        DefinitionError::Service { which } => {
            let hint = format!("`remuda service start {which}` starts it, and keeps it running");
            return Failure::new(error).hint(hint);
        }
        DefinitionError::NoService { which } => {
            let hint = format!("`remuda process run {which}` runs it once");
            return Failure::new(error).hint(hint);
        }
        DefinitionError::Unsupported => "start Remuda's own controller: `remuda controller`",
        DefinitionError::Wrong { .. } => "`docs/process.md` has all keys",
        _ => return Failure::new(error),
    };
    Failure::new(error).hint(hint)
}

pub(super) fn print(line: &str) -> Result<(), Failure> {
    use io::Write;
    writeln!(io::stdout().lock(), "{line}")?;
    Ok(())
}
