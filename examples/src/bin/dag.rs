//! Tasks that wait for others: a small graph of steps, which the controller runs in the order of their dependencies.
//!
//! ```sh
//! remuda controller &
//! cargo run --release -p remuda-examples --bin engine &
//! cargo run --release -p remuda-examples --bin dag
//! ```
//!
//! It shows `after` (not before these ended) and `follow` (where these ran), a step that runs whether or not those before it
//! succeed, and one that never runs since the step before it fails. All are submitted at once: nobody waits here.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example shows its results")]

use remuda_client::{AsyncResult, Dependency, MsgId};
use remuda_examples::step;

/// Succeed or fail: these must have ended.
fn ended(tasks: &[&AsyncResult<String>]) -> Dependency {
    Dependency { failure: true, ..succeeded(tasks) }
}

fn succeeded(tasks: &[&AsyncResult<String>]) -> Dependency {
    Dependency::all_succeed(tasks.iter().map(|task| task.msg_id().clone()))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let client = remuda_examples::connect().await?;
    let view = client.load_balanced_view().fail_unplaceable(true).label("dag");

    //                       ┌► resize ┐
    // plan ─► fetch (three) ┤         ├► publish ─► tidy up
    //                       └► check ─┘
    let works = |name: &str, ms| (name.to_owned(), ms, false);
    let plan = view.call(step, works("plan", 20))?;
    let after_plan = view.after(succeeded(&[&plan]));
    let a = after_plan.call(step, works("fetch a", 60))?;
    let b = after_plan.call(step, works("fetch b", 30))?;
    let c = after_plan.call(step, works("fetch c", 10))?;
    let fetched = succeeded(&[&a, &b, &c]);
    // What was fetched last is on the disk of the engine that fetched it, say.
    let resize = view.after(fetched.clone()).follow(succeeded(&[&c])).call(step, works("resize", 20))?;
    let check = view.after(fetched).call(step, ("check".to_owned(), 20, true))?;
    let publish = view.after(succeeded(&[&resize, &check])).call(step, works("publish", 20))?;
    let tidy_up = view.after(ended(&[&resize, &check])).call(step, works("tidy up", 10))?;

    let steps = [
        ("plan", plan),
        ("fetch a", a),
        ("fetch b", b),
        ("fetch c", c),
        ("resize", resize),
        ("check", check),
        ("publish", publish),
        ("tidy up", tidy_up),
    ];
    eprintln!("{} steps are submitted", steps.len());
    let mut ran = Vec::new();
    for (name, task) in &steps {
        let end = match task.get().await {
            Ok(_) => "done".to_owned(),
            Err(error) => error.to_string().replace(MsgId::as_str(task.msg_id()), name),
        };
        // Times are those of the engine's clock; a step that no engine had has none.
        let metadata = task.metadata();
        let engine = metadata.as_ref().and_then(|metadata| metadata.engine_id);
        let times = metadata.and_then(|metadata| Some((metadata.started?.0, metadata.completed?.0)));
        ran.push((times.filter(|_| engine.is_some()), engine, *name, end));
    }
    // Those that never began come last.
    ran.sort_by_key(|(times, ..)| (times.is_none(), times.map(|(started, _)| started)));
    let first = ran.iter().find_map(|(times, ..)| Some(times.as_ref()?.0)).unwrap_or_default();

    println!("{:<8} {:>6} {:>10} {:>10}  end", "step", "engine", "from (ms)", "to (ms)");
    for (times, engine, name, end) in ran {
        let engine = engine.map_or_else(|| "-".to_owned(), |id| id.to_string());
        let ms =
            |at: Option<i64>| at.map_or_else(|| "-".to_owned(), |at| format!("{:.1}", (at - first) as f64 / 1000.0));
        let (from, to) = (ms(times.map(|(from, _)| from)), ms(times.map(|(_, to)| to)));
        println!("{name:<8} {engine:>6} {from:>10} {to:>10}  {end}");
    }
    Ok(())
}
