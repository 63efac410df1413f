//! What is written: progress and errors on stderr, the table on stdout, a line of JSON per run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::args::Kind;
use crate::machine::{Machine, commit};
use crate::parts::{Faults, Latency};
use crate::statistics::{median, paired_ratio, spread};
use crate::table::{Row, Run, What};

/// Says how far the bench is.
pub(crate) fn note(text: &str) {
    let _gone = writeln!(io::stderr(), "{text}");
}

/// Says why the bench ends, with all causes.
pub(crate) fn complain(error: &anyhow::Error) {
    let mut text = format!("error: {error}");
    for cause in error.chain().skip(1) {
        let _infallible = write!(text, "\n  because: {cause}");
    }
    note(&text);
}

/// Writes data to stdout.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("cannot write to stdout")
}

/// Where the lines of JSON go, and what all of them say.
pub(crate) struct Journal {
    bench: &'static str,
    commit: Option<String>,
    machine: Machine,
    file: Option<Box<dyn Write>>,
}

#[derive(Serialize)]
struct Line<'a, T> {
    bench: &'static str,
    commit: Option<&'a str>,
    machine: &'a Machine,
    #[serde(flatten)]
    run: &'a T,
}

impl Journal {
    /// Opens the file for appending; `-` is stdout, and no path at all is nowhere.
    pub(crate) fn open(bench: &'static str, path: Option<&Path>) -> Result<Self> {
        let append = |path: &Path| -> Result<File> {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.with_context(|| format!("cannot write `{}`", path.display()))
        };
        let file: Option<Box<dyn Write>> = match path {
            None => None,
            Some(path) if path == Path::new("-") => Some(Box::new(io::stdout())),
            Some(path) => Some(Box::new(append(path)?)),
        };
        Ok(Self { bench, commit: commit(), machine: Machine::this(), file })
    }

    /// Writes one line.
    pub(crate) fn write(&mut self, run: &impl Serialize) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let line = Line { bench: self.bench, commit: self.commit.as_deref(), machine: &self.machine, run };
        let line = serde_json::to_string(&line)?;
        writeln!(file, "{line}").and_then(|()| file.flush()).context("cannot write JSON")
    }

    /// Where the bench runs.
    pub(crate) fn machine(&self) -> String {
        let Machine { cores, cpu_model, kernel, libzmq } = &self.machine;
        let commit = self.commit.as_deref().unwrap_or("unknown");
        format!("commit {commit}; {cores} cores, {cpu_model}, Linux {kernel}, libzmq {libzmq}")
    }
}

/// How a figure must be to pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bar {
    /// No less than this.
    AtLeast(f64),
    /// No more than this.
    AtMost(f64),
    /// However it is.
    None,
}

/// A figure, and its bar.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    /// What it is, with its unit.
    what: String,
    /// The figure.
    value: f64,
    /// The bar in words, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    bar: Option<String>,
    /// Whether it passes, if it has a bar.
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<bool>,
}

impl Figure {
    pub(crate) fn new(what: &str, value: f64, bar: Bar) -> Self {
        let (bar, met) = match bar {
            Bar::AtLeast(limit) => (Some(format!("≥ {limit}")), Some(value >= limit)),
            Bar::AtMost(limit) => (Some(format!("≤ {limit}")), Some(value <= limit)),
            Bar::None => (None, None),
        };
        Self { what: what.to_owned(), value, bar, met }
    }

    fn render(&self, out: &mut String) -> std::fmt::Result {
        write!(out, "    {:<32}{:>9.2}", self.what, self.value)?;
        match (&self.bar, self.met) {
            (Some(bar), Some(met)) => writeln!(out, "   bar {bar}: {}", if met { "met" } else { "MISSED" }),
            _ => writeln!(out),
        }
    }
}

/// A row of the table, as one line of JSON has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct RowReport {
    /// What was measured, of which controller where it is of one alone.
    #[serde(rename = "row")]
    pub(crate) heading: String,
    /// What came of it.
    pub(crate) figures: Vec<Figure>,
}

/// The runs of one row, by controller.
struct RowRuns<'a> {
    row: Row,
    runs: Vec<&'a Run>,
}

impl RowRuns<'_> {
    /// One value of each round, in order, of one controller.
    fn by_round(&self, kind: Kind, value: impl Fn(&Run) -> f64) -> Vec<Option<f64>> {
        let rounds = self.runs.iter().map(|run| run.round).max().unwrap_or(0);
        (1..=rounds)
            .map(|round| {
                let run = self.runs.iter().find(|run| run.round == round && run.controller == kind.name())?;
                Some(value(run))
            })
            .collect()
    }

    /// The ratio of one value between two controllers.
    fn ratio(&self, ours: Kind, theirs: Kind, value: impl Fn(&Run) -> f64) -> Option<f64> {
        paired_ratio(&self.by_round(ours, &value), &self.by_round(theirs, &value))
    }
}

fn throughput(run: &Run) -> f64 {
    run.tasks_per_s
}
fn cpu(run: &Run) -> f64 {
    run.cpu_us_per_task.controller
}
/// A round trip of a run; no number where none was measured.
fn latency(run: &Run, pick: fn(&Latency) -> f64) -> f64 {
    run.outcome.latency_us.as_ref().map_or(f64::NAN, pick)
}
fn p50(run: &Run) -> f64 {
    latency(run, |latency| latency.p50)
}

/// The runs by row, in the order of the table.
fn by_row(runs: &[Run]) -> Vec<RowRuns<'_>> {
    let mut rows: Vec<RowRuns<'_>> = Vec::new();
    for run in runs {
        match rows.iter_mut().find(|row| row.row == run.row) {
            Some(row) => row.runs.push(run),
            None => rows.push(RowRuns { row: run.row, runs: vec![run] }),
        }
    }
    rows.sort_by_key(|row| (row.row.what, row.row.hwm, row.row.engines));
    rows
}

/// What the runs come to: a report for each row, with the figures of our controller and the comparisons.
pub(crate) fn rows(runs: &[Run]) -> Vec<RowReport> {
    let report = |row: &RowRuns<'_>| {
        let ours = |value: &dyn Fn(&Run) -> f64| median(row.by_round(Kind::Remuda, value).into_iter().flatten());
        let own: [(&str, Option<f64>); 3] = if row.row.what.is_latency() {
            [("remuda, p50 in µs", ours(&p50)), ("", None), ("", None)]
        } else {
            let peak = ours(&|run| run.peak_rss_bytes as f64 / 1e6);
            [
                ("remuda, tasks/s", ours(&throughput)),
                ("remuda, CPU µs a task", ours(&cpu)),
                ("remuda, MB at most", peak),
            ]
        };
        let own = own.into_iter().filter_map(|(what, value)| Some(Figure::new(what, value?, Bar::None)));
        let compared = comparisons(row).into_iter().map(|(what, value, bar)| Figure::new(what, value, bar));
        RowReport { heading: heading(row.row), figures: own.chain(compared).collect() }
    };
    by_row(runs).iter().map(report).collect()
}

/// Prints the table, the ratios and how they stand to the bars: the runs, then the rows that are none of these.
pub(crate) fn table(runs: &[Run], rows: &[RowReport], machine: &str) -> Result<()> {
    let by_row = by_row(runs);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _infallible = render(&mut text, &by_row, machine);
    let others = rows.iter().filter(|report| !by_row.iter().any(|row| heading(row.row) == report.heading));
    let _infallible = others.clone().try_for_each(|report| {
        writeln!(text, "\n{}", report.heading)?;
        report.figures.iter().try_for_each(|figure| figure.render(&mut text))
    });
    let (mut met, mut missed) = (0, Vec::new());
    for (report, figure) in rows.iter().flat_map(|report| report.figures.iter().map(move |figure| (report, figure))) {
        match figure.met {
            Some(true) => met += 1,
            Some(false) => missed.push(format!("  {}: {} is {:.2}", report.heading, figure.what, figure.value)),
            None => {}
        }
    }
    let _infallible = writeln!(text, "\nbars: {met} met, {} missed\n{}", missed.len(), missed.join("\n"));
    print(text.trim_end()).and_then(|()| print("\n"))
}

fn render(out: &mut String, rows: &[RowRuns<'_>], machine: &str) -> std::fmt::Result {
    writeln!(out, "{machine}")?;
    for row in rows {
        writeln!(out, "\n{}", heading(row.row))?;
        if row.row.what.is_latency() {
            writeln!(
                out,
                "  {:<8}{:>9}{:>9}{:>9}   round trip, µs: p50 p90 p99, medians of the runs",
                "", "p50", "p90", "p99"
            )?;
        } else {
            writeln!(
                out,
                "  {:<8}{:>9}  {:<19}{:>24}{:>9}{:>9}{:>10}{:>10}{:>10}{:>9}",
                "",
                "tasks/s",
                "(least–most)",
                "CPU µs/task: controller",
                "client",
                "engines",
                "MB before",
                "at most",
                "after",
                "rest s",
            )?;
        }
        for kind in [Kind::Relay, Kind::Remuda, Kind::Stock] {
            if row.runs.iter().any(|run| run.controller == kind.name()) {
                line(out, row, kind)?;
            }
        }
        ratios(out, row)?;
    }
    if !rows.is_empty() {
        faults(out, rows)?;
    }
    writeln!(
        out,
        "\nThe ends here are null engines and a client in Rust. With stock Python ends, client and engines cost"
    )?;
    writeln!(out, "milliseconds of CPU a task, whatever the controller: none of these figures is what a user sees.")
}

fn heading(row: Row) -> String {
    let engines = row.engines;
    let plural = if engines == 1 { "" } else { "s" };
    match row.what {
        What::Balanced => {
            format!("load-balanced, {engines} engine{plural}, hwm {}, window {}", row.hwm, row.window)
        }
        What::Direct => format!("direct queue, {engines} engine{plural}, window {}", row.window),
        What::BalancedLatency => format!("round trip, load-balanced, {engines} engine{plural}, hwm {}", row.hwm),
        What::DirectLatency => format!("round trip, direct queue, {engines} engine{plural}"),
    }
}

fn line(out: &mut String, row: &RowRuns<'_>, kind: Kind) -> std::fmt::Result {
    let of = |value: &dyn Fn(&Run) -> f64| row.by_round(kind, value).into_iter().flatten().collect::<Vec<_>>();
    let middle = |value: &dyn Fn(&Run) -> f64| median(of(value)).unwrap_or(f64::NAN);
    if row.row.what.is_latency() {
        let part = |pick: fn(&Latency) -> f64| middle(&|run| latency(run, pick));
        return writeln!(
            out,
            "  {:<8}{:>9.0}{:>9.0}{:>9.0}   CPU µs/task: {:.0}",
            kind.name(),
            part(|latency| latency.p50),
            part(|latency| latency.p90),
            part(|latency| latency.p99),
            middle(&cpu),
        );
    }
    let (least, most) = spread(of(&throughput)).unwrap_or_default();
    writeln!(
        out,
        "  {:<8}{:>9.0}  {:<19}{:>24.1}{:>9.1}{:>9.1}{:>10.1}{:>10.1}{:>10.1}{:>9.1}",
        kind.name(),
        middle(&throughput),
        format!("({least:.0}–{most:.0})"),
        middle(&cpu),
        middle(&|run| run.cpu_us_per_task.client),
        middle(&|run| run.cpu_us_per_task.engines),
        middle(&|run| run.rss_before_bytes as f64 / 1e6),
        middle(&|run| run.peak_rss_bytes as f64 / 1e6),
        middle(&|run| run.rss_after_bytes as f64 / 1e6),
        middle(&|run| run.settled_s),
    )
}

/// The comparisons of a row, where it has both sides, with their bars.
fn comparisons(row: &RowRuns<'_>) -> Vec<(&'static str, f64, Bar)> {
    let (remuda, relay, stock) = (Kind::Remuda, Kind::Relay, Kind::Stock);
    let compared = if row.row.what.is_latency() {
        let (ours, theirs) = (row.by_round(remuda, p50), row.by_round(relay, p50));
        let added = median(ours.iter().zip(&theirs).filter_map(|(ours, theirs)| Some((*ours)? - (*theirs)?)));
        vec![
            ("remuda - relay, p50 in µs", added, Bar::AtMost(30.0)),
            ("stock / remuda, p50", row.ratio(stock, remuda, p50), Bar::None),
            ("stock / relay, p50", row.ratio(stock, relay, p50), Bar::None),
        ]
    } else {
        let least = if row.row.what == What::Direct { 0.9 } else { 0.85 };
        let balanced_one = row.row.what == What::Balanced && row.row.hwm == 1;
        let over_stock = if balanced_one { Bar::AtLeast(15.0) } else { Bar::None };
        vec![
            ("remuda / relay, tasks/s", row.ratio(remuda, relay, throughput), Bar::AtLeast(least)),
            ("remuda / relay, CPU a task", row.ratio(remuda, relay, cpu), Bar::AtMost(1.3)),
            ("remuda / stock, tasks/s", row.ratio(remuda, stock, throughput), over_stock),
            ("stock / remuda, CPU a task", row.ratio(stock, remuda, cpu), Bar::None),
            ("relay / stock, tasks/s", row.ratio(relay, stock, throughput), Bar::None),
        ]
    };
    compared.into_iter().filter_map(|(what, value, bar)| Some((what, value?, bar))).collect()
}

fn ratios(out: &mut String, row: &RowRuns<'_>) -> std::fmt::Result {
    let figures = comparisons(row).into_iter().map(|(what, value, bar)| Figure::new(what, value, bar));
    figures.into_iter().try_for_each(|figure| figure.render(out))
}

/// Replies that went wrong, by controller.
fn faults(out: &mut String, rows: &[RowRuns<'_>]) -> std::fmt::Result {
    let mut sums: BTreeMap<&str, (u64, Faults)> = BTreeMap::new();
    for run in rows.iter().flat_map(|row| &row.runs) {
        let sum = sums.entry(run.controller).or_default();
        sum.0 += run.outcome.tasks;
        sum.1 = sum.1.and(run.outcome.faults);
    }
    writeln!(out)?;
    for (controller, (tasks, Faults { lost, twice, failed, foreign })) in sums {
        writeln!(
            out,
            "{controller:<8} {tasks} tasks: {lost} lost, {twice} answered twice, {failed} failed, {foreign} stray replies"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::Outcome;
    use crate::table::CpuPerTask;

    fn run(kind: Kind, round: u32, tasks_per_s: f64) -> Run {
        Run {
            controller: kind.name(),
            row: Row { what: What::Balanced, engines: 4, hwm: 1, window: 1024 },
            round,
            outcome: Outcome { tasks: 10, seconds: 1.0, ..Outcome::default() },
            tasks_per_s,
            cpu_us_per_task: CpuPerTask { controller: 2.0, client: 1.0, engines: 1.0 },
            settled_s: 0.1,
            rss_before_bytes: 4_000_000,
            rss_after_bytes: 4_500_000,
            peak_rss_bytes: 5_000_000,
            processes: 1,
            payload_bytes: 64,
        }
    }

    fn rendered(runs: &[Run]) -> String {
        let mut text = String::new();
        let rows = [RowRuns { row: runs[0].row, runs: runs.iter().collect() }];
        render(&mut text, &rows, "here").unwrap();
        text
    }

    #[test]
    fn ratios_stand_beside_their_bars() {
        let runs = [run(Kind::Relay, 1, 100.0), run(Kind::Remuda, 1, 90.0), run(Kind::Stock, 1, 10.0)];
        let text = rendered(&runs);
        let has = |words: &[&str]| text.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(has(&["remuda / relay, tasks/s", "0.90", "≥ 0.85: met"]), "{text}");
        assert!(has(&["remuda / relay, CPU a task", "1.00", "≤ 1.3: met"]), "{text}");
        assert!(has(&["remuda / stock, tasks/s", "9.00", "≥ 15: MISSED"]), "{text}");
    }

    #[test]
    fn a_row_is_one_line_of_json_with_its_bars() {
        let runs = [run(Kind::Relay, 1, 100.0), run(Kind::Remuda, 1, 80.0)];
        let rows = rows(&runs);
        assert_eq!(rows.len(), 1);
        let value = serde_json::to_value(&rows[0]).unwrap();
        assert_eq!(value["row"], "load-balanced, 4 engines, hwm 1, window 1024");
        let find =
            |what: &str| value["figures"].as_array().unwrap().iter().find(|of| of["what"] == what).unwrap().clone();
        let ratio = find("remuda / relay, tasks/s");
        assert_eq!((&ratio["value"], &ratio["bar"], &ratio["met"]), (&0.8.into(), &"≥ 0.85".into(), &false.into()));
        assert_eq!(find("remuda, tasks/s").get("met"), None);
    }

    #[test]
    fn what_was_lost_is_told() {
        let mut lossy = run(Kind::Remuda, 1, 1.0);
        lossy.outcome.faults = Faults { lost: 3, twice: 1, ..Faults::default() };
        let text = rendered(&[lossy]);
        assert!(text.contains("10 tasks: 3 lost, 1 answered twice, 0 failed, 0 stray replies"), "{text}");
    }

    #[test]
    fn a_line_of_json_says_where_and_of_what() {
        let line =
            Line { bench: "table", commit: Some("abc"), machine: &Machine::this(), run: &run(Kind::Relay, 1, 2.0) };
        let value = serde_json::to_value(&line).unwrap();
        for key in ["bench", "commit", "machine", "controller", "engines", "hwm", "tasks", "lost", "payload_bytes"] {
            assert!(value.get(key).is_some(), "{key} in {value}");
        }
    }
}
