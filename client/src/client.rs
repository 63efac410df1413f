//! The client itself: engines, questions, and words to engines. Tasks are submitted through its [views](crate::view).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::Stream;
use futures::future::join_all;
use remuda_net::Sender;
use remuda_proto::message::content::{AbortOptions, AbortRequest, ControllerInfo, DrainRequest, Shutdown};
use remuda_proto::message::native::{ApplyContent, NativeTask};
use remuda_proto::message::story::{StoryReply, StoryRequest};
use remuda_proto::{EngineId, EngineUuid, Map, MsgId, MsgType, Packer};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use bytes::Bytes;

use crate::engine_changes::{EngineChange, engine_changes};
use crate::error::{QueryError, SubmitError, TooFewEngines};
use crate::outstanding::{Broadcast, Engine, Event, Names, Outcome, Route, Work, part_id};
use crate::pickle;
use crate::query::{self, ControllerStatus, Purge, QueueStatus, ResultStatus};
use crate::records::{self, Find, Record};
use crate::reply::{self, ProcessResult};
use crate::result::{StoredResult, TaskHandle};
use crate::run::{EngineList, Shared};
use crate::slot::{End, Slot};
use crate::view::{BroadcastView, DirectView, LoadBalancedView};

/// A connection to a controller. Cheap to clone; the last clone, view or result that goes ends it.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    /// To the thread; when it is dropped, the thread ends.
    sender: Sender<Event>,
    shared: Arc<Shared>,
    names: Names,
    /// How many requests were named.
    named: AtomicU64,
    pub(crate) packer: Packer,
    query_timeout: Duration,
    /// Whether the task scheduler is a bare queue, which takes no options.
    pub(crate) is_pure: bool,
    /// What Remuda's controller says of itself; `None` from a stock one.
    pub(crate) controller: Option<ControllerInfo>,
}

impl Inner {
    pub(crate) fn new(
        sender: Sender<Event>,
        shared: Arc<Shared>,
        names: Names,
        packer: Packer,
        query_timeout: Duration,
        is_pure: bool,
    ) -> Self {
        let named = AtomicU64::new(0);
        Self { sender, shared, names, named, packer, query_timeout, is_pure, controller: None }
    }
}

/// Which engines are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// All that are registered.
    All,
    /// These.
    Engines(Vec<EngineId>),
}

impl<I: IntoIterator<Item = EngineId>> From<I> for Targets {
    fn from(ids: I) -> Self {
        Self::Engines(ids.into_iter().collect())
    }
}

impl Client {
    /// What the controller says of itself; `None` if it is a stock one.
    pub fn controller(&self) -> Option<&ControllerInfo> {
        self.inner.controller.as_ref()
    }

    /// Whether the controller answers: false some ten seconds after it has stopped to, true once it does again.
    pub fn is_answering(&self) -> bool {
        self.inner.shared.is_answering()
    }

    /// How many requests have not come to their end, the output of tasks included.
    pub fn outstanding(&self) -> usize {
        self.inner.shared.outstanding()
    }

    /// The ids of the engines that are registered now, ascending.
    pub fn engine_ids(&self) -> Vec<EngineId> {
        self.engine_list().keys().copied().collect()
    }

    /// The engines that are registered now, by ascending id.
    pub fn engines(&self) -> Vec<Engine> {
        let list = self.engine_list();
        list.iter().map(|(id, uuid)| Engine { id: Some(*id), uuid: uuid.clone() }).collect()
    }

    /// How the list of engines changes: first all that are there as joined, then who joins and leaves, for as long as the client
    /// is connected. Who comes and goes between two looks at the stream may be left out.
    pub fn engine_changes(&self) -> impl Stream<Item = EngineChange> + Send + use<> {
        engine_changes(self.inner.shared.engines())
    }

    /// Waits until `wanted` engines are registered, and gives the ids of all that are.
    ///
    /// # Errors
    /// When too few came in that time; the message says how many.
    pub async fn wait_for_engines(&self, wanted: usize, timeout: Duration) -> Result<Vec<EngineId>, TooFewEngines> {
        let mut list = self.inner.shared.engines();
        let enough = list.wait_for(|engines| engines.len() >= wanted);
        match tokio::time::timeout(timeout, enough).await {
            Ok(Ok(engines)) => Ok(engines.keys().copied().collect()),
            _ => Err(TooFewEngines { wanted, found: self.engine_list().len(), waited: timeout }),
        }
    }

    /// A view by which tasks go wherever the task scheduler sends them.
    pub fn load_balanced_view(&self) -> LoadBalancedView {
        LoadBalancedView::new(self.clone())
    }

    /// A view by which every task goes to each of these engines.
    pub fn direct_view(&self, targets: impl Into<Targets>) -> DirectView {
        DirectView::new(self.clone(), targets.into())
    }

    /// A view by which every task goes to each of these engines, in one message for all of them.
    pub fn broadcast_view(&self, targets: impl Into<Targets>) -> BroadcastView {
        BroadcastView::new(self.clone(), targets.into())
    }

    /// How much each engine has to do.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn queue_status(&self) -> Result<QueueStatus, QueryError> {
        Ok(self.status().await?.queues)
    }

    /// What the controller does: more words from Remuda's own, what any controller can say from a stock one.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn status(&self) -> Result<ControllerStatus, QueryError> {
        let content = json!({"targets": null, "verbose": false, "remuda": {}});
        query::queue_status(self.query(MsgType::QueueRequest, content).await?)
    }

    /// Which of these tasks are done, whoever submitted them.
    ///
    /// # Errors
    /// See [`QueryError`]. A controller that keeps no records knows only the tasks that are under way.
    pub async fn result_status(&self, msg_ids: &[MsgId]) -> Result<ResultStatus, QueryError> {
        let msg_type = MsgType::ResultRequest;
        let outcome = self.ask(msg_type.clone(), json!({"msg_ids": msg_ids, "status_only": true})).await?;
        query::read(self.inner.packer, &msg_type, &outcome)
    }

    /// All tasks on record, oldest first.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn history(&self) -> Result<Vec<MsgId>, QueryError> {
        #[derive(Deserialize)]
        struct History {
            history: Vec<MsgId>,
        }
        let msg_type = MsgType::HistoryRequest;
        let outcome = self.ask(msg_type.clone(), json!({})).await?;
        Ok(query::read::<History>(self.inner.packer, &msg_type, &outcome)?.history)
    }

    /// Task records that match a query, in the query language of ipyparallel's databases; `keys` are the columns, all but
    /// the buffers where it is `None`.
    ///
    /// # Errors
    /// [`QueryError::Refused`] for a query that the controller does not understand.
    pub async fn db_query(&self, query: Value, keys: Option<&[&str]>) -> Result<Vec<Value>, QueryError> {
        #[derive(Deserialize)]
        struct Records {
            #[serde(default)]
            records: Vec<Value>,
        }
        let msg_type = MsgType::DbRequest;
        let outcome = self.ask(msg_type.clone(), json!({"query": query, "keys": keys})).await?;
        Ok(query::read::<Records>(self.inner.packer, &msg_type, &outcome)?.records)
    }

    /// Task records, with what only Remuda can do: limits, orders, sizes. A stock controller takes no notice of these and
    /// gives all that the query finds.
    ///
    /// # Errors
    /// As [`Self::db_query`].
    pub async fn records(&self, find: &Find) -> Result<Vec<Record>, QueryError> {
        let msg_type = MsgType::DbRequest;
        let outcome = self.ask(msg_type.clone(), find.content()).await?;
        let content: Value = query::read(self.inner.packer, &msg_type, &outcome)?;
        let buffers = match &*outcome {
            Outcome::Reply(reply) => (0..).map_while(|index| reply.body.buffer(index)).collect(),
            _ => Vec::new(),
        };
        records::read(content, buffers).map_err(|reason| QueryError::Unreadable { msg_type, reason })
    }

    /// The result of a function that is on record, whoever submitted the task, and whenever: `T` is what the function gives. A
    /// Python function's result is read too, if it is a plain value or an array.
    ///
    /// ```no_run
    /// # async fn example(client: remuda_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// for msg_id in client.history().await? {
    ///     println!("{msg_id}: {:?}", client.get_result::<f64>(&msg_id).await);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_result<T: DeserializeOwned>(&self, msg_id: &MsgId) -> StoredResult<T> {
        StoredResult::new(self.clone(), msg_id.clone(), reply::function)
    }

    /// The same for a task that is a program.
    pub fn get_process_result(&self, msg_id: &MsgId) -> StoredResult<ProcessResult> {
        StoredResult::new(self.clone(), msg_id.clone(), reply::process)
    }

    /// Submits tasks again, by the controller; gives the new id of each. Their results are had by [`Self::get_result`].
    ///
    /// # Errors
    /// [`QueryError::Refused`] for a task that is not on record, or not done.
    pub async fn resubmit(&self, msg_ids: &[MsgId]) -> Result<Map<MsgId, MsgId>, QueryError> {
        #[derive(Deserialize)]
        struct Resubmitted {
            resubmitted: Map<MsgId, MsgId>,
        }
        let msg_type = MsgType::ResubmitRequest;
        let outcome = self.ask(msg_type.clone(), json!({"msg_ids": msg_ids})).await?;
        Ok(query::read::<Resubmitted>(self.inner.packer, &msg_type, &outcome)?.resubmitted)
    }

    /// Takes finished tasks off the record.
    ///
    /// # Errors
    /// [`QueryError::Refused`] for a task that is not on record, or not done.
    pub async fn purge(&self, what: Purge) -> Result<(), QueryError> {
        let content = match what {
            Purge::All => json!({"msg_ids": "all", "engine_ids": []}),
            Purge::Tasks(msg_ids) => json!({"msg_ids": msg_ids, "engine_ids": []}),
            Purge::Engines(engine_ids) => json!({"msg_ids": [], "engine_ids": engine_ids}),
        };
        self.query(MsgType::PurgeRequest, content).await.map(drop)
    }

    /// What happened to these tasks, and why they are where they are: each by its id, or by the beginning of one. In the
    /// order of the ids.
    ///
    /// # Errors
    /// A stock controller refuses it.
    pub async fn stories(&self, msg_ids: &[String]) -> Result<StoryReply, QueryError> {
        let msg_type = MsgType::StoryRequest;
        let outcome = self.ask(msg_type.clone(), json!(StoryRequest { msg_ids: msg_ids.to_vec() })).await?;
        query::read(self.inner.packer, &msg_type, &outcome)
    }

    /// Has engines finish what they have, direct requests too, and get no more tasks; with `shutdown`, each is shut down then,
    /// and never sooner. Tasks that only these can run wait.
    ///
    /// # Errors
    /// An engine that is not registered: then nothing is done. A stock controller refuses it.
    pub async fn drain(&self, engines: &[EngineId], shutdown: bool) -> Result<(), QueryError> {
        let request = DrainRequest { targets: engines.to_vec(), drain: true, shutdown };
        self.query(MsgType::DrainRequest, json!(request)).await.map(drop)
    }

    /// Has engines get tasks again, after a [`Self::drain`].
    ///
    /// # Errors
    /// An engine that is not registered: then nothing is done. One that was told to end already; the others get tasks again.
    pub async fn undrain(&self, engines: &[EngineId]) -> Result<(), QueryError> {
        let request = DrainRequest { targets: engines.to_vec(), drain: false, shutdown: false };
        self.query(MsgType::DrainRequest, json!(request)).await.map(drop)
    }

    /// The state of the controller as a whole, with the stories of so many tasks that have no reply; 10,000 at most.
    ///
    /// # Errors
    /// A stock controller refuses it.
    pub async fn dump(&self, tasks: usize) -> Result<Value, QueryError> {
        self.query(MsgType::DumpRequest, json!({"tasks": tasks})).await
    }

    /// Asks the hub anything, and gives the content of its answer.
    ///
    /// # Errors
    /// What the controller refuses, and no answer in time: see [`QueryError`].
    pub async fn query(&self, msg_type: MsgType, content: Value) -> Result<Value, QueryError> {
        let outcome = self.ask(msg_type.clone(), content).await?;
        query::read(self.inner.packer, &msg_type, &outcome)
    }

    /// Tells engines not to run these tasks. One that runs already goes on.
    ///
    /// # Errors
    /// The first engine that does not confirm it. Engines that leave meanwhile are none.
    pub async fn abort(&self, msg_ids: &[MsgId], targets: impl Into<Targets>) -> Result<(), QueryError> {
        self.send_abort(msg_ids, targets.into(), None).await
    }

    /// Tells engines not to run these tasks, and native engines to stop those that run already: the program gets a signal,
    /// and is killed if it does not go; a function is told, and ends if it listens. A stock engine goes on to its end.
    ///
    /// # Errors
    /// The first engine that does not confirm it. Engines that leave meanwhile are none.
    pub async fn stop(&self, msg_ids: &[MsgId], targets: impl Into<Targets>) -> Result<(), QueryError> {
        self.send_abort(msg_ids, targets.into(), Some(AbortOptions { stop: true })).await
    }

    async fn send_abort(
        &self,
        msg_ids: &[MsgId],
        targets: Targets,
        remuda: Option<AbortOptions>,
    ) -> Result<(), QueryError> {
        // An empty list means something else: all that is queued.
        if msg_ids.is_empty() {
            return Ok(());
        }
        let content = json!(AbortRequest { msg_ids: msg_ids.to_vec(), remuda });
        self.tell(&targets, MsgType::AbortRequest, &content).await
    }

    /// Sends a signal to engines, as their nannies do it: `SIGINT` (2) interrupts what a stock engine runs.
    ///
    /// # Errors
    /// The first engine that does not confirm it. A stock engine without a nanny never does.
    pub async fn signal(&self, signal: i32, targets: impl Into<Targets>) -> Result<(), QueryError> {
        self.tell(&targets.into(), MsgType::SignalRequest, &json!({"sig": signal})).await
    }

    /// Shuts engines down, and then, with `hub`, the controller. This and all other clients of the controller are
    /// disconnected by that.
    ///
    /// # Errors
    /// The first engine that does not confirm it; then the controller is not shut down.
    pub async fn shutdown(&self, targets: impl Into<Targets>, hub: bool) -> Result<(), QueryError> {
        self.tell(&targets.into(), MsgType::ShutdownRequest, &json!(Shutdown::default())).await?;
        if !hub {
            return Ok(());
        }
        match self.query(MsgType::ShutdownRequest, json!({})).await {
            // The notification of the shutdown may overtake the reply.
            Ok(_) | Err(QueryError::Shutdown | QueryError::Disconnected) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Tells each engine, and waits for all.
    async fn tell(&self, targets: &Targets, msg_type: MsgType, content: &Value) -> Result<(), QueryError> {
        let told = self.uuids(targets).into_iter().map(|engine| self.tell_one(engine, &msg_type, content));
        join_all(told).await.into_iter().collect()
    }

    /// Tells one engine, and gives what came of it.
    pub(crate) async fn tell_for_reply(
        &self,
        engine: EngineUuid,
        msg_type: &MsgType,
        content: &Value,
    ) -> Result<Arc<Outcome>, QueryError> {
        let timeout = Some(self.inner.query_timeout);
        let outcome = self.request(|msg_id| Event::Control {
            msg_id,
            engine,
            msg_type: msg_type.clone(),
            content: content.clone(),
            timeout,
        });
        outcome.await
    }

    async fn tell_one(&self, engine: EngineUuid, msg_type: &MsgType, content: &Value) -> Result<(), QueryError> {
        let outcome = self.tell_for_reply(engine, msg_type, content).await?;
        match query::read::<Value>(self.inner.packer, msg_type, &outcome) {
            // Whatever it was told, it will not do it any more.
            Ok(_) | Err(QueryError::EngineLost { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn ask(&self, msg_type: MsgType, content: Value) -> Result<Arc<Outcome>, QueryError> {
        self.ask_within(msg_type, content, self.inner.query_timeout).await
    }

    pub(crate) async fn ask_within(
        &self,
        msg_type: MsgType,
        content: Value,
        timeout: Duration,
    ) -> Result<Arc<Outcome>, QueryError> {
        let timeout = Some(timeout);
        self.request(|msg_id| Event::Query { msg_id, msg_type, content, timeout }).await
    }

    async fn request(&self, event: impl FnOnce(MsgId) -> Event) -> Result<Arc<Outcome>, QueryError> {
        let (_, slot) = self.send(false, event).ok_or(QueryError::Disconnected)?;
        match slot.ended().await {
            End::Outcome(outcome) => Ok(outcome),
            End::Disconnected => Err(QueryError::Disconnected),
        }
    }

    /// Names a request, makes a place for its answer, and hands it to the thread.
    fn send(&self, has_output: bool, event: impl FnOnce(MsgId) -> Event) -> Option<(MsgId, Arc<Slot>)> {
        let msg_id = self.next_msg_id();
        let slot = self.inner.shared.expect(&msg_id, has_output)?;
        self.inner.sender.send(event(msg_id.clone()));
        Some((msg_id, slot))
    }

    fn next_msg_id(&self) -> MsgId {
        self.inner.names.msg_id(self.inner.named.fetch_add(1, Ordering::Relaxed))
    }

    /// Submits a task.
    pub(crate) fn submit(&self, route: Route, work: Work) -> Result<TaskHandle, SubmitError> {
        let engine = match &route {
            Route::Direct { engine, .. } => Some(engine.clone()),
            Route::Balanced(_) => None,
        };
        let has_output = !route.is_quiet();
        let sent = self.send(has_output, |msg_id| Event::Submit { msg_id, route, work });
        let (msg_id, slot) = sent.ok_or(SubmitError::Disconnected)?;
        Ok(TaskHandle { client: self.clone(), msg_id, slot, engine })
    }

    /// Submits one task to several engines; each one's part, in their order.
    pub(crate) fn broadcast(&self, broadcast: Broadcast, work: Work) -> Result<Vec<TaskHandle>, SubmitError> {
        let msg_id = self.next_msg_id();
        let expect = |(uuid, _): &(EngineUuid, EngineId)| {
            let part = part_id(&msg_id, uuid);
            let slot = self.inner.shared.expect(&part, true).ok_or(SubmitError::Disconnected)?;
            Ok(TaskHandle { client: self.clone(), msg_id: part, slot, engine: Some(uuid.clone()) })
        };
        let tasks = broadcast.targets.iter().map(expect).collect::<Result<_, _>>()?;
        self.inner.sender.send(Event::Broadcast { msg_id, broadcast, work });
        Ok(tasks)
    }

    /// A native task with its argument and what stands beside that, as it is sent.
    pub(crate) fn native_work(&self, task: NativeTask, beside: Vec<Bytes>, argument: Option<Bytes>) -> Work {
        let content = ApplyContent { remuda: Some(task) };
        // A stock scheduler knows nothing of native engines, and may send the task to a Python one first. The first buffer
        // makes that one pass it on; our own scheduler needs no such help. A native engine reads the last.
        let buffers = if self.first_buffer() == 1 {
            let pass_on = Bytes::from_static(pickle::NOT_FOR_PYTHON);
            [pass_on].into_iter().chain(beside).chain([argument.unwrap_or_default()]).collect()
        } else {
            beside.into_iter().chain(argument).collect()
        };
        Work::Apply { content, buffers }
    }

    /// The number of the first buffer of a native task that can stand beside its argument.
    pub(crate) fn first_buffer(&self) -> usize {
        usize::from(self.inner.controller.is_none())
    }

    pub(crate) fn engine_list(&self) -> EngineList {
        EngineList::clone(&self.inner.shared.engines().borrow())
    }

    /// The uuid of an engine.
    pub(crate) fn uuid(&self, id: EngineId) -> Result<EngineUuid, SubmitError> {
        self.engine_list().get(&id).cloned().ok_or(SubmitError::NoSuchEngine { id: id.0 })
    }

    /// The uuids of those targets that are registered.
    fn uuids(&self, targets: &Targets) -> Vec<EngineUuid> {
        let list = self.engine_list();
        match targets {
            Targets::All => list.values().cloned().collect(),
            Targets::Engines(ids) => ids.iter().filter_map(|id| list.get(id).cloned()).collect(),
        }
    }

    /// Tells the engine of a direct task, or every engine that may get a balanced one, not to run it.
    pub(crate) async fn abort_task(&self, task: &TaskHandle, stop: bool) -> Result<(), QueryError> {
        let content =
            json!(AbortRequest { msg_ids: vec![task.msg_id.clone()], remuda: stop.then_some(AbortOptions { stop }) });
        match &task.engine {
            Some(engine) => self.tell_one(engine.clone(), &MsgType::AbortRequest, &content).await,
            None => self.tell(&Targets::All, MsgType::AbortRequest, &content).await,
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("engines", &self.engine_list().len())
            .field("outstanding", &self.outstanding())
            .finish_non_exhaustive()
    }
}
