//! The results of tasks on record.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use remuda_net::Clock;
use remuda_proto::{Key, MsgId, MsgType, Packer, Session};
use serde_json::json;

use crate::client::Client;
use crate::error::{DecodeError, QueryError, TaskError};
use crate::outstanding::{self, Outcome};
use crate::query;
use crate::reply::{self, Decode, Metadata};

/// How long after a look at a task that is not done the next one follows, at first.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest that it comes to, as each is half as long again.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The result of a task that is on the controller's record, whoever submitted it: [`Client::get_result`]. `await` it, or a
/// reference to it.
///
/// A controller tells nobody but the submitter of the end of a task, so it is asked again and again while this is awaited:
/// after 20 ms at first, then less and less often, every second in the end.
#[derive(Clone)]
pub struct StoredResult<T> {
    client: Client,
    msg_id: MsgId,
    decode: Decode<T>,
}

impl<T> StoredResult<T> {
    pub(crate) fn new(client: Client, msg_id: MsgId, decode: Decode<T>) -> Self {
        Self { client, msg_id, decode }
    }

    /// The task's id.
    pub fn msg_id(&self) -> &MsgId {
        &self.msg_id
    }

    /// Whether the task is done, well or not.
    ///
    /// # Errors
    /// When the controller does not know it, or does not answer.
    pub async fn is_ready(&self) -> Result<bool, QueryError> {
        let status = self.client.result_status(std::slice::from_ref(&self.msg_id)).await?;
        Ok(status.completed.contains(&self.msg_id))
    }

    /// The result, once the task is done.
    ///
    /// # Errors
    /// Those of the task; [`TaskError::NotOnRecord`] if the controller does not know it, or cannot be asked.
    pub async fn get(&self) -> Result<T, TaskError> {
        Ok(self.get_with_metadata().await?.0)
    }

    /// The same, if it is there within this time.
    ///
    /// # Errors
    /// Besides those of [`Self::get`], [`TaskError::Pending`].
    pub async fn timeout(&self, timeout: Duration) -> Result<T, TaskError> {
        let pending = || TaskError::Pending { msg_id: self.msg_id.clone(), waited: timeout };
        tokio::time::timeout(timeout, self.get()).await.unwrap_or_else(|_| Err(pending()))
    }

    /// The result with what is known of the task: [`Metadata::received`] is when it was asked for.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub async fn get_with_metadata(&self) -> Result<(T, Metadata), TaskError> {
        let outcome = self
            .outcome()
            .await
            .map_err(|source| TaskError::NotOnRecord { msg_id: self.msg_id.clone(), source: Arc::new(source) })?;
        let packer = self.client.inner.packer;
        let result = reply::result(packer, &self.msg_id, &outcome, self.decode)?;
        match outcome {
            Outcome::Reply(reply) => Ok((result, Metadata::read(packer, &self.msg_id, &reply))),
            _ => Err(TaskError::Decode {
                msg_id: self.msg_id.clone(),
                source: Arc::new(DecodeError::Unreadable("it is no reply".to_owned())),
            }),
        }
    }

    async fn outcome(&self) -> Result<Outcome, QueryError> {
        let mut pause = FIRST_PAUSE;
        while !self.is_ready().await? {
            tokio::time::sleep(pause).await;
            pause = (pause + pause / 2).min(LONGEST_PAUSE);
        }
        let msg_type = MsgType::ResultRequest;
        let content = json!({"msg_ids": [&self.msg_id], "status_only": false});
        let answer = self.client.ask(msg_type.clone(), content).await?;
        let packer: Packer = self.client.inner.packer;
        query::read::<serde_json::Value>(packer, &msg_type, &answer)?;
        let Outcome::Reply(answer) = &*answer else { return Err(QueryError::Disconnected) };
        // Nobody looks at its signature.
        let session = Session::new("record".into(), "", Key::new(""), packer, 0);
        let body = outstanding::reply_on_record(&session, &self.msg_id, &answer.body)
            .map_err(|error| QueryError::Unreadable { msg_type, reason: error.to_string() })?;
        let list = self.client.engine_list();
        let id_of = |uuid: &_| list.iter().find(|(_, listed)| *listed == uuid).map(|(id, _)| *id);
        Ok(outstanding::outcome(packer, Clock::new().now().date, &body, id_of))
    }
}

impl<T: 'static> IntoFuture for StoredResult<T> {
    type Output = Result<T, TaskError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.get().await })
    }
}

impl<'a, T> IntoFuture for &'a StoredResult<T> {
    type Output = Result<T, TaskError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.get())
    }
}

impl<T> std::fmt::Debug for StoredResult<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredResult").field("msg_id", &self.msg_id).finish_non_exhaustive()
    }
}
