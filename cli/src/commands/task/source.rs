//! Where records come from: a controller that runs, ours or a stock one, or the database of one that has stopped.

use std::ops::ControlFlow;
use std::time::Duration;

use remuda_client::records::{Find, Record};
use remuda_client::{Client, ConnectError, Engine, MsgId, QueryError, RemoteError};
use remuda_cluster::SqliteConfig;
use remuda_cluster::record_file::RecordFile;
use remuda_proto::message::content::{DbOptions, RecordOrder};
use remuda_proto::{Date, Set};
use serde_json::{Map, Value, json};

use super::{filter, say, stock};
use crate::args::task::SourceArgs;
use crate::config;
use crate::connect::of_client;
use crate::failure::Failure;

/// Most records that are asked for at once.
const PAGE: usize = 5_000;
/// Most ids that are named in one question.
pub(super) const MAX_NAMED: usize = 10_000;
/// Most tasks that are named where an id stands for several.
const MAX_ALIKE: usize = 10;

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// No engine has it.
    Waiting,
    /// An engine has it.
    Running,
    /// It has a result.
    Ok,
    /// It failed.
    Error,
    /// It was told not to run.
    Aborted,
    /// Its controller ended without a reply to it, and no other took it over.
    Lost,
}

impl State {
    pub(super) const ALL: [Self; 6] = [Self::Waiting, Self::Running, Self::Ok, Self::Error, Self::Aborted, Self::Lost];
    pub(super) const DONE: [Self; 3] = [Self::Ok, Self::Error, Self::Aborted];
    pub(super) const PENDING: [Self; 2] = [Self::Waiting, Self::Running];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Aborted => "aborted",
            Self::Lost => "lost",
        }
    }

    /// The state of a record that has the field `state`.
    pub(super) fn of(record: &Record) -> Option<Self> {
        let name = record.fields.get("state")?.as_str()?;
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// Which records are wanted, and what of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    /// What stock controllers understand too.
    pub(super) query: Map<String, Value>,
    /// In one of these states; none: in any.
    pub(super) states: Vec<State>,
    /// The fields, `state` among them where that is wanted; none: all but the buffers, and the state.
    pub(super) keys: Option<Vec<String>>,
    /// What they are sorted by.
    pub(super) order: RecordOrder,
    /// The first of that order first.
    pub(super) oldest_first: bool,
    /// Most records; none: all.
    pub(super) limit: Option<usize>,
    /// Whether their sizes are wanted, where they are to be had.
    pub(super) sizes: bool,
}

impl Selection {
    /// These tasks, in the order in which they came.
    pub(super) fn tasks(ids: &[MsgId], keys: &[&str]) -> Self {
        let mut query = Map::new();
        query.insert("msg_id".to_owned(), json!({"$in": ids}));
        Self { query, keys: Some(owned(keys)), oldest_first: true, ..Self::default() }
    }

    /// The question for those that are wanted, in our own words.
    fn find(&self) -> Find {
        let mut query = self.query.clone();
        if !self.states.is_empty() {
            let names: Vec<_> = self.states.iter().map(|state| state.name()).collect();
            query.insert("state".to_owned(), json!({"$in": names}));
        }
        let options = DbOptions {
            limit: self.limit.map(|limit| limit as u64),
            order: self.order,
            descending: !self.oldest_first,
            sizes: self.sizes,
        };
        Find { query: query.into(), keys: self.keys.clone(), options }
    }
}

/// The pages of a selection without end. Each begins with the date of submission that the last one ended with.
struct Pages {
    /// What is asked for, by date of submission.
    first: Find,
    /// The records of that date that were seen.
    seen: Set<MsgId>,
    /// Where the next page begins.
    from: Option<Date>,
    /// Its length: more than one date has.
    length: usize,
}

impl Pages {
    fn new(selection: &Selection) -> Self {
        let mut first = selection.find();
        first.options.order = RecordOrder::Submitted;
        if let Some(keys) = first.keys.as_mut().filter(|keys| !keys.iter().any(|key| key == "submitted")) {
            keys.push("submitted".to_owned());
        }
        Self { first, seen: Set::default(), from: None, length: PAGE }
    }

    fn find(&self) -> Find {
        let mut find = self.first.clone();
        find.options.limit = Some(self.length as u64);
        if let Some(from) = self.from {
            let operator = if find.options.descending { "$lte" } else { "$gte" };
            find.query = json!({"$and": [find.query, {"submitted": {operator: from}}]});
        }
        find
    }

    /// Those that were not seen yet, and whether there may be more.
    fn take(&mut self, found: Vec<Record>) -> (Vec<Record>, bool) {
        let is_full = found.len() >= self.length;
        let last = found.last().and_then(date_of);
        if last == self.from && is_full {
            // So many have the same date that a page does not get beyond it.
            self.length *= 2;
        }
        let mut seen = if last == self.from { self.seen.clone() } else { Set::default() };
        seen.extend(found.iter().filter(|record| date_of(record) == last).filter_map(id_of));
        let before = std::mem::replace(&mut self.seen, seen);
        let fresh = found.into_iter().filter(|record| id_of(record).is_none_or(|id| !before.contains(&id)));
        let fresh = fresh.collect();
        self.from = last;
        // What has no date stands at one end, and is no place to go on from.
        (fresh, is_full && last.is_some())
    }
}

fn date_of(record: &Record) -> Option<Date> {
    record.fields.get("submitted").and_then(Value::as_str).and_then(Date::parse)
}

/// Names as a question has them.
pub(super) fn owned(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

/// Where records come from.
pub(super) enum Source {
    /// A controller that runs.
    Live(Client),
    /// A database.
    File(Box<RecordFile>),
}

/// What a command is about to do with the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// Look at them.
    Read,
    /// Drop some.
    Purge,
    /// What only a controller does, in the words of a command.
    Act(&'static str),
}

impl Source {
    /// The controller of the place; or the database that is named, or that of the place if no controller runs.
    pub(super) async fn open(args: &SourceArgs, intent: Intent) -> Result<Self, Failure> {
        let start = || format!("start a controller with `remuda controller{}`", args.place.options());
        if let Some(path) = &args.db {
            if let Intent::Act(what) = intent {
                return Err(Failure::usage(format!("`remuda task {what}` needs a controller that runs"))
                    .hint(format!("leave out `--db`; {}", start())));
            }
            let mut config = SqliteConfig::new(path);
            config.table = args.table.clone().unwrap_or(config.table);
            return Self::file(&config, args.table.is_some(), intent);
        }
        let (options, is_said) = of_client(&args.reach, &args.place);
        let error = match Client::connect(options.timeout(Duration::from_secs_f64(args.timeout))).await {
            Ok(client) => return Ok(Self::Live(client)),
            // The profile's database is not that of a controller that was named.
            Err(error) if is_said => return Err(Failure::new(error)),
            Err(error) => error,
        };
        let has_stopped = matches!(error, ConnectError::NoFile { .. } | ConnectError::Stale { .. });
        if let Intent::Act(_) = intent {
            return Err(Failure::new(error).hint(start()));
        }
        match database(args).filter(|config| has_stopped && config.path.exists()) {
            Some(config) => {
                say(&format!("no controller runs: reading `{}`", config.path.display()));
                Self::file(&config, false, intent)
            }
            None => Err(Failure::new(error)
                .hint(format!("{}; or name the database of one that has stopped with `--db`", start()))),
        }
    }

    fn file(config: &SqliteConfig, named: bool, intent: Intent) -> Result<Self, Failure> {
        let opened = match intent {
            Intent::Purge => RecordFile::open(config, named),
            Intent::Read | Intent::Act(_) => RecordFile::open_read_only(config, named),
        };
        Ok(Self::File(Box::new(opened?)))
    }

    /// The engines that are registered; none in a database.
    pub(super) fn engines(&self) -> Vec<Engine> {
        match self {
            Self::Live(client) => client.engines(),
            Self::File(_) => Vec::new(),
        }
    }

    /// Whether it is a stock controller, which knows less.
    pub(super) fn is_stock(&self) -> bool {
        matches!(self, Self::Live(client) if client.controller().is_none())
    }

    /// The records, as many as are wanted.
    pub(super) async fn records(&mut self, selection: &Selection) -> Result<Vec<Record>, Failure> {
        let mut all = Vec::new();
        self.pages(selection, |mut page| {
            all.append(&mut page);
            Ok(ControlFlow::Continue(()))
        })
        .await?;
        Ok(all)
    }

    /// The records, a page after the other: not all are in memory at once.
    pub(super) async fn pages(
        &mut self,
        selection: &Selection,
        mut each: impl FnMut(Vec<Record>) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<(), Failure> {
        if self.is_stock() {
            let found = self.ask(&stock::find(selection)?).await?;
            let _all = each(stock::select(found, selection))?;
            return Ok(());
        }
        if selection.limit.is_some_and(|limit| limit <= MAX_NAMED) || selection.order == RecordOrder::Completed {
            let _all = each(self.ask(&selection.find()).await?)?;
            return Ok(());
        }
        let mut pages = Pages::new(selection);
        let mut left = selection.limit.unwrap_or(usize::MAX);
        loop {
            let (mut page, goes_on) = pages.take(self.ask(&pages.find()).await?);
            page.truncate(left);
            left -= page.len();
            if each(page)?.is_break() || !goes_on || left == 0 {
                return Ok(());
            }
        }
    }

    /// The tasks that texts stand for: ids, or beginnings of ids that are enough to tell them apart. The id of a broadcast
    /// stands for its copies.
    pub(super) async fn tasks(&mut self, texts: &[String]) -> Result<Vec<MsgId>, Failure> {
        let ids: Vec<MsgId> = texts.iter().map(|text| MsgId::from(&**text)).collect();
        let mut known: Vec<MsgId> = Vec::new();
        for some in ids.chunks(MAX_NAMED) {
            known.extend(self.records(&Selection::tasks(some, &["msg_id"])).await?.iter().filter_map(id_of));
        }
        let mut tasks = Vec::with_capacity(ids.len());
        for (text, id) in texts.iter().zip(ids) {
            if known.contains(&id) {
                tasks.push(id);
            } else {
                tasks.extend(self.alike(text).await?);
            }
        }
        Ok(tasks)
    }

    async fn alike(&mut self, text: &str) -> Result<Vec<MsgId>, Failure> {
        let mut selection = Selection { limit: Some(MAX_NAMED), ..Selection::tasks(&[], &["msg_id", "engine_uuid"]) };
        selection.query.insert("msg_id".to_owned(), filter::id(text));
        let found = if text.is_empty() { Vec::new() } else { self.records(&selection).await? };
        let is_copy = |record: &Record| {
            let engine = record.fields.get("engine_uuid").and_then(Value::as_str);
            let id = record.fields.get("msg_id").and_then(Value::as_str);
            id.zip(engine).is_some_and(|(id, engine)| id.strip_suffix(engine) == Some(&format!("{text}_")))
        };
        let ids: Vec<MsgId> = found.iter().filter_map(id_of).collect();
        match &ids[..] {
            [] => Err(Failure::new(anyhow::anyhow!("no task on record is called `{text}`")).hint(
                "`remuda task list` names the newest; records are dropped beyond limits, and when they are purged",
            )),
            [_] => Ok(ids),
            _ if found.iter().all(is_copy) => Ok(ids),
            several => {
                let named: Vec<&str> = several.iter().take(MAX_ALIKE).map(MsgId::as_str).collect();
                let more = if several.len() > MAX_ALIKE { "\n  …" } else { "" };
                let count = several.len();
                Err(Failure::new(anyhow::anyhow!("{count} tasks begin with `{text}`:\n  {}{more}", named.join("\n  ")))
                    .hint("give more of the id"))
            }
        }
    }

    async fn ask(&mut self, find: &Find) -> Result<Vec<Record>, Failure> {
        match self {
            Self::Live(client) => client.records(find).await.map_err(failed),
            Self::File(file) => {
                let (content, buffers) = file.answer(&find.content()).map_err(|error| refused(&error))?;
                remuda_client::records::read(content, buffers)
                    .map_err(|reason| Failure::new(anyhow::anyhow!("the database gave no sense: {reason}")))
            }
        }
    }
}

/// The id of a record.
pub(super) fn id_of(record: &Record) -> Option<MsgId> {
    record.fields.get("msg_id").and_then(Value::as_str).map(MsgId::from)
}

/// What went wrong with a question.
pub(in crate::commands) fn failed(error: QueryError) -> Failure {
    match error {
        QueryError::Refused { source, .. } => refused(&source),
        other => Failure::new(other),
    }
}

/// What a controller, or a database in its place, says no to.
fn refused(error: &RemoteError) -> Failure {
    let failure = Failure::new(anyhow::anyhow!("the records say no: {error}"));
    match &*error.ename {
        "NoData" => Failure::new(anyhow::anyhow!("the controller keeps no task records"))
            .hint("start it without `--nodb`: records are in memory then, or with `--sqlitedb` in a database"),
        "KeyError" | "TypeError" | "ZeroDivisionError" => {
            failure.hint("`remuda task query --help` lists the operators")
        }
        _ => failure,
    }
}

/// The database that a controller of this place keeps, or would: what its configuration says.
fn database(args: &SourceArgs) -> Option<SqliteConfig> {
    let (controller, _) = config::controller_of(&args.place, &[]).ok()?;
    let mut config = SqliteConfig::new(controller.database(args.place.profile().dir()));
    config.table = Some(controller.sqlite_table).filter(|table| !table.is_empty()).unwrap_or(config.table);
    Some(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that the pages of a selection give, from records that are sorted by date.
    fn paged(dates: &[i64], length: usize, oldest_first: bool) -> Vec<String> {
        let mut records: Vec<(i64, Record)> = Vec::new();
        for (at, date) in dates.iter().enumerate() {
            let Value::Object(fields) = json!({"msg_id": at.to_string(), "submitted": Date(*date)}) else { panic!() };
            records.push((*date, Record { fields, ..Record::default() }));
        }
        records.sort_by_key(|(date, _)| if oldest_first { *date } else { -*date });
        let mut pages = Pages::new(&Selection { oldest_first, ..Selection::default() });
        pages.length = length;
        let mut all = Vec::new();
        for _ in 0..1000 {
            let find = pages.find();
            let from = find.query["$and"][1]["submitted"].as_object().map(|test| {
                let (operator, date) = test.iter().next().unwrap();
                assert_eq!(operator == "$gte", oldest_first);
                Date::parse(date.as_str().unwrap()).unwrap().0
            });
            let most = usize::try_from(find.options.limit.unwrap()).unwrap();
            let found = records
                .iter()
                .filter(|(date, _)| from.is_none_or(|from| if oldest_first { *date >= from } else { *date <= from }));
            let found: Vec<Record> = found.take(most).map(|(_, record)| record.clone()).collect();
            let (fresh, goes_on) = pages.take(found);
            all.extend(fresh.iter().filter_map(|record| record.fields["msg_id"].as_str().map(str::to_owned)));
            if !goes_on {
                return all;
            }
        }
        panic!("the pages do not end: {dates:?}")
    }

    #[test]
    fn pages_give_each_record_once_however_many_have_the_same_date() {
        for dates in
            [vec![], vec![1], (0..17).collect(), vec![5; 23], [vec![1; 3], vec![2; 9], vec![3; 2], vec![4; 1]].concat()]
        {
            for length in [1, 2, 4, 5, 100] {
                for oldest_first in [true, false] {
                    let mut given: Vec<usize> =
                        paged(&dates, length, oldest_first).iter().map(|id| id.parse().unwrap()).collect();
                    given.sort_unstable();
                    assert_eq!(given, (0..dates.len()).collect::<Vec<_>>(), "{dates:?} by {length}");
                }
            }
        }
    }

    #[test]
    fn a_question_for_states_is_one_for_a_field() {
        let selection = Selection { states: State::PENDING.to_vec(), limit: Some(7), ..Selection::default() };
        let find = selection.find();
        assert_eq!(find.query, json!({"state": {"$in": ["waiting", "running"]}}));
        assert_eq!((find.options.limit, find.options.descending, find.keys), (Some(7), true, None));
    }
}
