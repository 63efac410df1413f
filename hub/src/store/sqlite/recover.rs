//! What a controller finds in the database when it starts.

use remuda_proto::monitor::Queue;
use remuda_proto::recovery::FinishedTask;
use remuda_proto::{EngineUuid, MsgId};

use super::{SqliteStore, Statements, failed, row};
use crate::record::{TaskRecord, TaskState};
use crate::store::{Buffers, StoreError};

impl SqliteStore {
    /// The requests without a reply that an earlier controller was to answer, in the order in which they came.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn unfinished(&mut self) -> Result<Vec<TaskRecord>, StoreError> {
        self.apply(self.written.len())?;
        let read = || -> rusqlite::Result<Vec<TaskRecord>> {
            let columns = self.statements.columns(Buffers { requests: true, results: false });
            let table = &self.statements.table;
            let sql = format!("SELECT {columns} FROM {table} WHERE state IN (?, ?) ORDER BY seq");
            let mut statement = self.connection.prepare(&sql)?;
            let states = [TaskState::Waiting, TaskState::Running].map(TaskState::name);
            let rows = statement.query_map(states, row::read)?;
            rows.collect()
        };
        read().map_err(|error| failed(&error))
    }

    /// The tasks of the task scheduler that ended: the last ones that came, no more than `most`, oldest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn finished(&mut self, most: usize) -> Result<Vec<FinishedTask>, StoreError> {
        self.apply(self.written.len())?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let read = || -> rusqlite::Result<Vec<FinishedTask>> {
            let table = &self.statements.table;
            let sql = format!(
                "SELECT msg_id, state, engine_uuid FROM {table} WHERE queue = 'task' AND received IS NOT NULL \
                 ORDER BY seq DESC LIMIT ?"
            );
            let mut statement = self.connection.prepare(&sql)?;
            let rows = statement.query_map([most], |row| {
                Ok(FinishedTask {
                    msg_id: MsgId::from(row.get_ref(0)?.as_str()?),
                    ok: row.get_ref(1)?.as_str()? == "ok",
                    engine: row.get_ref(2)?.as_str_or_null()?.map(EngineUuid::from),
                })
            })?;
            rows.collect()
        };
        let mut finished = read().map_err(|error| failed(&error))?;
        finished.reverse();
        Ok(finished)
    }

    /// The direct requests among the last `most` requests that failed, oldest first: engines may still answer what was given
    /// up.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn failed_direct(&mut self, most: usize) -> Result<Vec<(Queue, FinishedTask)>, StoreError> {
        self.apply(self.written.len())?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let read = || -> rusqlite::Result<Vec<(Queue, FinishedTask)>> {
            let table = &self.statements.table;
            // By the order of arrival: an index on the state would find all that ever failed. (A plus hides a column from
            // the choice of an index.)
            let sql = format!(
                "SELECT msg_id, queue, engine_uuid FROM {table} WHERE seq > (SELECT max(seq) FROM {table}) - ? \
                 AND +queue IN ('mux', 'broadcast') AND +state = 'error' ORDER BY seq"
            );
            let mut statement = self.connection.prepare(&sql)?;
            let rows = statement.query_map([most], |row| {
                let queue = if row.get_ref(1)?.as_str()? == "mux" { Queue::Mux } else { Queue::Broadcast };
                let msg_id = MsgId::from(row.get_ref(0)?.as_str()?);
                let engine = row.get_ref(2)?.as_str_or_null()?.map(EngineUuid::from);
                Ok((queue, FinishedTask { msg_id, ok: false, engine }))
            })?;
            rows.collect()
        };
        read().map_err(|error| failed(&error))
    }

    /// The requests to the task scheduler and the direct queue whose replies may not have reached their clients, oldest first:
    /// no more than `most` of the last.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn undelivered(&mut self, most: usize) -> Result<Vec<TaskRecord>, StoreError> {
        self.apply(self.written.len())?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let read = || -> rusqlite::Result<Vec<TaskRecord>> {
            let columns = self.statements.columns(Buffers { requests: false, results: true });
            let Statements { table, owed, .. } = &self.statements;
            let sql = format!(
                "SELECT {columns} FROM {owed} CROSS JOIN {table} USING (seq) WHERE received IS NOT NULL \
                 AND queue IN ('task', 'mux') ORDER BY {owed}.seq DESC LIMIT ?"
            );
            let mut statement = self.connection.prepare(&sql)?;
            let rows = statement.query_map([most], row::read)?;
            rows.collect()
        };
        let mut records = read().map_err(|error| failed(&error))?;
        records.reverse();
        Ok(records)
    }

    /// Requests without a reply are lost: nobody will answer them any more. Returns how many there were. Lasts with the next
    /// commit.
    ///
    /// # Errors
    /// When the database cannot be changed.
    pub fn abandon(&mut self) -> Result<usize, StoreError> {
        self.apply(self.written.len())?;
        let Statements { table, owed, .. } = &self.statements;
        let [lost, waiting, running] = [TaskState::Lost, TaskState::Waiting, TaskState::Running].map(TaskState::name);
        let abandon = || {
            let sql = format!("DELETE FROM {owed} WHERE seq IN (SELECT seq FROM {table} WHERE state IN (?, ?))");
            self.connection.execute(&sql, [waiting, running])?;
            let sql = format!("UPDATE {table} SET state = ? WHERE state IN (?, ?)");
            self.connection.execute(&sql, [lost, waiting, running])
        };
        abandon().map_err(|error| failed(&error))
    }
}
