//! Which records are dropped by themselves, and the return of their space.
//!
//! It goes in small steps, for which there is time between commits: no task waits for it.

use std::time::Duration;

use remuda_proto::{Date, Instant};

use super::{SqliteStore, failed};
use crate::store::StoreError;

/// How many records are looked at in one step.
const STEP_RECORDS: i64 = 200;

/// How many pages are given back in one step.
const STEP_PAGES: i64 = 128;

/// From the end of one round to the next.
const ROUND_EVERY: Duration = Duration::from_secs(60);

/// How long records of requests that ended are kept. Those without a reply are always kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Those that ended longer ago go.
    pub age: Option<Duration>,
    /// With more records than so many, the oldest go.
    pub records: Option<u64>,
    /// With more bytes than so many in use in the file, the oldest go.
    pub bytes: Option<u64>,
}

impl Keep {
    fn is_everything(self) -> bool {
        self == Self::default()
    }
}

/// Goes through the records from the oldest, again and again.
#[derive(Debug)]
pub(super) struct Keeper {
    keep: Keep,
    /// The round that is under way.
    round: Option<Round>,
    /// When the next one begins.
    next_at: Instant,
}

#[derive(Debug)]
struct Round {
    /// The number of the last record that was looked at.
    last: i64,
    /// How many records have to go for the sake of their number.
    surplus: u64,
}

impl Keeper {
    pub(super) fn new(keep: Keep) -> Self {
        Self { keep, round: None, next_at: Instant::default() }
    }
}

impl SqliteStore {
    /// When to call [`tidy`](Self::tidy) next, once everything that was written is committed.
    pub fn tidy_at(&self) -> Instant {
        self.keeper.next_at
    }

    /// Drops some records that are not to be kept any longer, or returns some space. Does nothing while something waits for
    /// a commit.
    ///
    /// # Errors
    /// When the database fails; it is tried again later.
    pub fn tidy(&mut self, now: Instant, date: Date) -> Result<(), StoreError> {
        if self.applied > 0 || self.keeper.next_at > now {
            return Ok(());
        }
        let more = self.drop_some(date).and_then(|more| Ok(more || self.return_some()?));
        match more {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.keeper.round = None;
                self.keeper.next_at = now + ROUND_EVERY;
                Ok(())
            }
            Err(error) => {
                self.keeper.next_at = now + ROUND_EVERY;
                Err(failed(&error))
            }
        }
    }

    /// Returns whether there may be more to drop.
    fn drop_some(&mut self, date: Date) -> rusqlite::Result<bool> {
        let keep = self.keeper.keep;
        if keep.is_everything() {
            return Ok(false);
        }
        let table = &self.statements.table;
        let mut round = if let Some(round) = self.keeper.round.take() {
            round
        } else {
            let sql = format!("SELECT count(*) FROM {table}");
            let count: i64 = self.connection.query_row(&sql, [], |row| row.get(0))?;
            let count = u64::try_from(count).unwrap_or(0);
            Round { last: i64::MIN, surplus: count.saturating_sub(keep.records.unwrap_or(u64::MAX)) }
        };
        let oldest = keep.age.map(|age| date.0.saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX)));
        let used = || Some(self.pages("page_count")?.saturating_sub(self.pages("freelist_count")?));
        let is_too_big = keep.bytes.is_some_and(|most| used().is_some_and(|used| i128::from(used) > i128::from(most)));

        let sql = format!("SELECT seq, received FROM {table} WHERE seq > ? ORDER BY seq LIMIT ?");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map((round.last, STEP_RECORDS), |row| Ok((row.get(0)?, row.get(1)?)))?;
        let rows: Vec<(i64, Option<i64>)> = rows.collect::<rusqlite::Result<_>>()?;
        let mut goes = Vec::new();
        // Those of tasks that still run are young, or few: whether the others may stay decides whether to go on.
        let mut stays = false;
        for (seq, received) in &rows {
            let Some(received) = received else { continue };
            let is_old = oldest.is_some_and(|oldest| *received < oldest);
            if is_old || is_too_big || round.surplus > 0 {
                round.surplus = round.surplus.saturating_sub(1);
                goes.push(*seq);
            } else {
                stays = true;
            }
        }
        let Some((last, _)) = rows.last() else { return Ok(false) };
        round.last = *last;
        if !goes.is_empty() {
            let sql = format!("DELETE FROM {table} WHERE seq IN (SELECT value FROM json_each(?))");
            self.connection.prepare_cached(&sql)?.execute([serde_json::json!(goes).to_string()])?;
        }
        let more = !stays || !goes.is_empty();
        self.keeper.round = Some(round);
        Ok(more)
    }

    /// Returns whether there is more to return. Some free space stays: new records will take it.
    fn return_some(&self) -> rusqlite::Result<bool> {
        let count = |name: &str| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let (free, all) = (count("freelist_count")?, count("page_count")?);
        if free < STEP_PAGES || free < all / 8 {
            return Ok(false);
        }
        self.connection.pragma(None, "incremental_vacuum", STEP_PAGES, |_| Ok(()))?;
        // A file that was made by an earlier version does not give anything back.
        Ok(count("freelist_count")? < free)
    }
}
