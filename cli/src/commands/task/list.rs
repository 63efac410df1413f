//! `remuda task list`.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use remuda_client::Engine;
use remuda_client::records::Record;
use remuda_proto::Date;
use serde::Serialize;

use super::source::{Intent, Selection, Source, owned};
use super::summary::{KEYS, Summary};
use super::{filter, follow, say, words};
use crate::args::task::{ListArgs, RecordFormat};
use crate::failure::{Failure, Outcome};
use crate::output::{Colour, Look, Table};

pub(super) async fn run(args: &ListArgs) -> Outcome {
    let mut source = Source::open(&args.source, Intent::Read).await?;
    let now = remuda_net::Clock::new().now().date;
    let selection = Selection {
        query: filter::query(&args.filter, &source.engines(), now),
        states: filter::states(&args.filter),
        keys: Some(owned(&KEYS)),
        order: args.page.sort.into(),
        oldest_first: args.page.reverse,
        limit: args.page.limit(),
        sizes: false,
    };
    if source.is_stock() && selection.limit.is_some() {
        say("note: a stock controller sends all of its records: what is wanted of them is picked out here");
    }
    if args.follow {
        return follow::list(source, selection, args.output).await;
    }
    let engines = source.engines();
    if args.output == RecordFormat::Jsonl {
        source.pages(&selection, |page| print_lines(&page, &engines)).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let records = source.records(&selection).await?;
    let tasks: Vec<Summary> = records.iter().map(|record| Summary::of(record, &engines)).collect();
    if args.output == RecordFormat::Json {
        print_json(&tasks)?;
        return Ok(ExitCode::SUCCESS);
    }
    if tasks.is_empty() {
        say(if args.filter.is_empty() { "no tasks are on record" } else { "no task on record is like that" });
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = Rows::new(now);
    rows.print(&tasks)?;
    if args.page.limit().is_some_and(|limit| tasks.len() == limit) && !args.page.reverse {
        say(&format!("the newest {}; `--limit` shows more", tasks.len()));
    }
    Ok(ExitCode::SUCCESS)
}

fn print_lines(page: &[Record], engines: &[Engine]) -> Result<ControlFlow<()>, Failure> {
    print_jsonl(&page.iter().map(|record| Summary::of(record, engines)).collect::<Vec<_>>())?;
    Ok(ControlFlow::Continue(()))
}

/// Prints each as a line.
pub(super) fn print_jsonl(items: &[impl Serialize]) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for item in items {
        serde_json::to_writer(&mut out, item).map_err(io::Error::from)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}

/// Prints one document.
pub(super) fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    serde_json::to_writer_pretty(&mut out, document).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

const HEADER: [&str; 9] = ["TASK ID", "STATE", "QUEUE", "ENGINE", "LABEL", "AGE", "WAITED", "RAN", "TASK"];
/// What it runs, then the label.
const NARROW: &[usize] = &[8, 4];
/// Below this width ids are shortened.
const WIDE: usize = 140;

/// A table of tasks, which may go on.
pub(super) struct Rows {
    now: Date,
    look: Look<'static>,
    table: Option<Table<'static>>,
}

impl Rows {
    pub(super) fn new(now: Date) -> Self {
        Self { now, look: Look::of_stdout(NARROW, colour), table: None }
    }

    /// For tasks that come later, with ages at that time.
    pub(super) fn at(&mut self, now: Date) {
        self.now = now;
    }

    /// Prints more rows; the first time with the header.
    pub(super) fn print(&mut self, tasks: &[Summary]) -> Result<(), Failure> {
        let is_narrow = self.look.width.is_some_and(|width| width < WIDE);
        let rows: Vec<Vec<String>> = tasks.iter().map(|task| row(task, self.now, is_narrow)).collect();
        let mut out = io::BufWriter::new(io::stdout().lock());
        if let Some(table) = &self.table {
            table.rows(&mut out, &rows)?;
        } else {
            let table = Table::new(&HEADER, &rows, self.look);
            table.print(&mut out, &rows)?;
            self.table = Some(table);
        }
        out.flush()?;
        Ok(())
    }
}

fn row(task: &Summary, now: Date, is_narrow: bool) -> Vec<String> {
    let seconds = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), words::duration);
    let id = words::line(&task.msg_id);
    vec![
        if is_narrow { short(&id) } else { id },
        task.state.clone(),
        task.queue.clone().unwrap_or_else(|| "-".to_owned()),
        task.engine(),
        task.label(),
        task.submitted.map_or_else(|| "-".to_owned(), |date| words::ago(date, now)),
        seconds(task.waited_s),
        seconds(task.ran_s),
        task.words(),
    ]
}

/// The ids that clients make, without most of their session: `1b2c3d4e…_811_7`. It is understood where ids are.
fn short(id: &str) -> String {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = id.rsplitn(3, '_');
    match (parts.next(), parts.next(), parts.next()) {
        // A letter before the number says which kind of client counts.
        (Some(count), Some(pid), Some(session))
            if is_number(count.trim_start_matches(char::is_alphabetic)) && is_number(pid) && session.len() > 9 =>
        {
            format!("{}…_{pid}_{count}", session.chars().take(8).collect::<String>())
        }
        _ => id.to_owned(),
    }
}

fn colour(column: usize, text: &str) -> Option<Colour> {
    match (column, text.trim()) {
        (1, "ok") => Some(Colour::Green),
        (1, "error" | "lost") => Some(Colour::Red),
        (1, "aborted") => Some(Colour::Yellow),
        (1, "running") => Some(Colour::Blue),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn summary(fields: serde_json::Value) -> Summary {
        let serde_json::Value::Object(fields) = fields else { panic!("{fields}") };
        Summary::of(&Record { fields, ..Record::default() }, &[])
    }

    #[test]
    fn ids_are_shortened_where_that_leaves_them_apart() {
        assert_eq!(short("1b2c3d4e-9f8a7b6c5d4e_811_7"), "1b2c3d4e…_811_7");
        assert_eq!(short("1b2c3d4e-9f8a7b6c5d4e_811_t7"), "1b2c3d4e…_811_t7");
        for id in ["short_811_7", "1b2c3d4e-9f8a7b6c5d4e_811_7_engine", "of-another-client", ""] {
            assert_eq!(short(id), id);
        }
    }

    #[test]
    fn a_row_says_what_is_known_and_a_dash_for_the_rest() {
        let now = Date::parse("2026-11-22T10:01:00Z").unwrap();
        let task = summary(json!({"msg_id": "1b2c3d4e-9f8a7b6c5d4e_811_7", "state": "running", "queue": "mux",
            "engine_uuid": "0123456789", "submitted": "2026-11-22T10:00:30Z", "label": "a\nb"}));
        assert_eq!(
            row(&task, now, true),
            ["1b2c3d4e…_811_7", "running", "mux", "01234567", "a b", "30.0 s", "-", "-", "-"]
        );
        let bare = summary(json!({"msg_id": "m"}));
        assert_eq!(row(&bare, now, false), ["m", "", "-", "-", "", "-", "-", "-", "-"]);
    }
}
