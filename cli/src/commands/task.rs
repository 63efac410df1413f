//! `remuda task`: what is on record of tasks, with a controller that runs or in the database of one that has stopped.

mod change;
mod filter;
mod follow;
mod list;
mod output;
mod query;
mod result;
mod show;
mod source;
mod stats;
mod stock;
mod summary;
pub(super) mod words;

use super::{say, unless_nobody_reads};
use crate::args::task::TaskCommand;
use crate::failure::Outcome;

pub(super) use source::failed as asked_in_vain;

pub(crate) fn run(command: &TaskCommand) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    unless_nobody_reads(runtime.block_on(async {
        match command {
            TaskCommand::List(args) => list::run(args).await,
            TaskCommand::Show(args) => show::run(args).await,
            TaskCommand::Result(args) => result::run(args).await,
            TaskCommand::Output(args) => output::run(args).await,
            TaskCommand::Abort(args) => change::abort(&args.change, args.stop).await,
            TaskCommand::Stop(args) => change::abort(args, true).await,
            TaskCommand::Resubmit(args) => change::resubmit(args).await,
            TaskCommand::Purge(args) => change::purge(args).await,
            TaskCommand::Query(args) => query::run(args).await,
            TaskCommand::Stats(args) => stats::run(args).await,
        }
    }))
}
