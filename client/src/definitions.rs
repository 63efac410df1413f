//! Process definitions, which the controller keeps: [`Client::definitions`].

use bytes::Bytes;
use remuda_process::{Definition, Problems, ProcessType};
use remuda_proto::message::definition::{DefinitionList, DefinitionReply, DefinitionRequest, refusal};
use remuda_proto::message::native::ProcessTask;
use remuda_proto::{MsgType, RemoteError};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

pub use remuda_proto::message::definition::{DefinitionRecord, Which};
pub use remuda_proto::message::restart::SERVICE_LABEL;

use crate::client::Client;
use crate::error::{QueryError, SubmitError};
use crate::reply::ProcessResult;
use crate::result::AsyncResult;
use crate::view::TaskOptions;

/// What can be done with the definitions of a controller. Cheap to clone.
///
/// A definition is named by its id or by its name, as a number or as text: `definitions.get(3)`, `definitions.get("tr")`.
#[derive(Clone, Debug)]
pub struct Definitions {
    client: Client,
}

/// Why a request on definitions came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DefinitionError {
    /// The definition is wrong.
    #[error("the process definition is wrong: {reasons}")]
    Wrong {
        /// All that is wrong with it.
        reasons: String,
    },
    /// There is no such definition.
    #[error("there is no process definition `{which}`")]
    NotFound {
        /// What was asked for.
        which: Which,
    },
    /// The name is that of another definition.
    #[error("{reason}")]
    NameTaken {
        /// Which one.
        reason: String,
    },
    /// The definition is not any more what it was expected to be.
    #[error("{reason}")]
    Changed {
        /// Which one.
        reason: String,
    },
    /// There is no room for another one.
    #[error("{reason}")]
    Full {
        /// The limit.
        reason: String,
    },
    /// The definition is that of a service, which has no result.
    #[error("process definition `{which}` is a service: it has no result, and cannot be run as a task")]
    Service {
        /// Which one.
        which: Which,
    },
    /// The definition is that of a program which comes to an end.
    #[error("process definition `{which}` is no service: its `process_type` is `single`")]
    NoService {
        /// Which one.
        which: Which,
    },
    /// The controller keeps a definition that this client does not understand.
    #[error("process definition `{which}` is not understood by this client")]
    Unreadable {
        /// Which one.
        which: Which,
        /// Why.
        source: Problems,
    },
    /// It is a stock controller, or an older one.
    #[error("this controller keeps no process definitions: only Remuda's does, from 0.1 on")]
    Unsupported,
    /// There is no answer, or none that can be understood.
    #[error(transparent)]
    Query(QueryError),
    /// The task was not submitted.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

impl Client {
    /// The process definitions that the controller keeps.
    pub fn definitions(&self) -> Definitions {
        Definitions { client: self.clone() }
    }
}

impl Definitions {
    /// Keeps another definition; it is there for good when this returns, where the controller keeps anything for good.
    ///
    /// # Errors
    /// [`DefinitionError::Wrong`] with all that is wrong with it, [`DefinitionError::NameTaken`], [`DefinitionError::Full`].
    pub async fn create(&self, definition: Map<String, Value>) -> Result<DefinitionRecord, DefinitionError> {
        self.one(&DefinitionRequest::Create { definition }).await
    }

    /// One definition.
    ///
    /// # Errors
    /// [`DefinitionError::NotFound`].
    pub async fn get(&self, which: impl Into<Which>) -> Result<DefinitionRecord, DefinitionError> {
        self.one(&DefinitionRequest::Get { which: which.into() }).await
    }

    /// Definitions by ascending id, `limit` of them and 1,000 at most, without the first `offset`; and how many there are.
    ///
    /// # Errors
    /// When the controller keeps no definitions, or does not answer.
    pub async fn list(&self, limit: u64, offset: u64) -> Result<DefinitionList, DefinitionError> {
        self.ask(&DefinitionRequest::List { limit: Some(limit), offset }).await
    }

    /// Puts a definition in the place of one.
    ///
    /// # Errors
    /// As [`Self::create`], and [`DefinitionError::NotFound`].
    pub async fn update(
        &self,
        which: impl Into<Which>,
        definition: Map<String, Value>,
    ) -> Result<DefinitionRecord, DefinitionError> {
        self.one(&DefinitionRequest::Update { which: which.into(), definition, expected: None }).await
    }

    /// Puts a definition in the place of one that is as it was when it was looked at.
    ///
    /// # Errors
    /// [`DefinitionError::Changed`] if it is not; then nothing has changed.
    pub async fn replace(
        &self,
        old: DefinitionRecord,
        definition: Map<String, Value>,
    ) -> Result<DefinitionRecord, DefinitionError> {
        let expected = Some(old.definition);
        self.one(&DefinitionRequest::Update { which: Which::Id(old.id), definition, expected }).await
    }

    /// Forgets a definition, and tells it for the last time.
    ///
    /// # Errors
    /// [`DefinitionError::NotFound`].
    pub async fn delete(&self, which: impl Into<Which>) -> Result<DefinitionRecord, DefinitionError> {
        self.one(&DefinitionRequest::Delete { which: which.into() }).await
    }

    /// Runs the program of a definition once, with `input` to read, wherever the task scheduler sends it. What a program
    /// gives is [`ProcessResult::result`].
    ///
    /// # Errors
    /// [`DefinitionError::Service`] for a service. A program that fails is none: its result says so.
    pub async fn run(
        &self,
        which: impl Into<Which>,
        input: Option<Bytes>,
    ) -> Result<AsyncResult<ProcessResult>, DefinitionError> {
        let which = which.into();
        let record = self.get(which.clone()).await?;
        self.run_record(&record, input)
    }

    /// Runs the program of a definition that was looked at, as [`Self::run`] does.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_record(
        &self,
        record: &DefinitionRecord,
        input: Option<Bytes>,
    ) -> Result<AsyncResult<ProcessResult>, DefinitionError> {
        let (process, options) = task(record)?;
        Ok(self.client.load_balanced_view().with_options(options).process(process, input)?)
    }

    /// Starts a service, with `input` to read each time that it is started. The task scheduler keeps it running as its
    /// `restart` says, whether this client stays or not; it ends with [`TaskHandle::stop`](crate::TaskHandle::stop), or as `restart` says. The result is
    /// that of the last time it ran, with the last KiB that it wrote; all else is in its log ([`Client::program_output`]).
    /// One that runs already is started beside it.
    ///
    /// # Errors
    /// [`DefinitionError::NoService`] for a program that comes to an end.
    pub async fn start(
        &self,
        which: impl Into<Which>,
        input: Option<Bytes>,
    ) -> Result<AsyncResult<ProcessResult>, DefinitionError> {
        let record = self.get(which.into()).await?;
        self.start_record(&record, input)
    }

    /// Starts a service whose definition was looked at, as [`Self::start`] does.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_record(
        &self,
        record: &DefinitionRecord,
        input: Option<Bytes>,
    ) -> Result<AsyncResult<ProcessResult>, DefinitionError> {
        let (process, options) = service(record)?;
        Ok(self.client.load_balanced_view().with_options(options).process(process, input)?)
    }

    async fn one(&self, request: &DefinitionRequest) -> Result<DefinitionRecord, DefinitionError> {
        Ok(self.ask::<DefinitionReply>(request).await?.definition)
    }

    async fn ask<T: DeserializeOwned>(&self, request: &DefinitionRequest) -> Result<T, DefinitionError> {
        if self.client.controller().is_none() {
            return Err(DefinitionError::Unsupported);
        }
        let msg_type = MsgType::ProcessDefinitionRequest;
        let content = self.client.query(msg_type.clone(), json!(request)).await.map_err(|error| match error {
            QueryError::Refused { source, .. } => refused(request, source),
            other => DefinitionError::Query(other),
        })?;
        serde_json::from_value(content)
            .map_err(|error| DefinitionError::Query(QueryError::Unreadable { msg_type, reason: error.to_string() }))
    }
}

/// The program of a definition, and the options of the task that runs it; its label is the definition's name, or its id.
///
/// # Errors
/// When the definition is that of a service, or not understood.
pub fn task(record: &DefinitionRecord) -> Result<(ProcessTask, TaskOptions), DefinitionError> {
    let which = called(record);
    let definition = read(record)?;
    if definition.process_type() == ProcessType::Service {
        return Err(DefinitionError::Service { which });
    }
    Ok(submission(&definition, which.to_string()))
}

/// The program of a service, and the options of the task that keeps it running; its label is [`SERVICE_LABEL`] and the
/// definition's name, or its id.
///
/// # Errors
/// When the definition is not that of a service, or not understood.
pub fn service(record: &DefinitionRecord) -> Result<(ProcessTask, TaskOptions), DefinitionError> {
    let which = called(record);
    let definition = read(record)?;
    if definition.process_type() != ProcessType::Service {
        return Err(DefinitionError::NoService { which });
    }
    Ok(submission(&definition, format!("{SERVICE_LABEL}{which}")))
}

fn called(record: &DefinitionRecord) -> Which {
    record.name().map_or(Which::Id(record.id), |name| Which::Name(name.to_owned()))
}

fn read(record: &DefinitionRecord) -> Result<Definition, DefinitionError> {
    let read = Definition::read(&Value::Object(record.definition.clone()));
    read.map_err(|source| DefinitionError::Unreadable { which: called(record), source })
}

fn submission(definition: &Definition, label: String) -> (ProcessTask, TaskOptions) {
    let task = definition.task();
    let options = TaskOptions {
        label: Some(Value::from(label)),
        run_timeout: task.run_timeout,
        needs: task.needs,
        retries: task.retries,
        priority: task.priority,
        restart: task.restart,
        ..TaskOptions::default()
    };
    (task.process, options)
}

/// What a controller says no with.
fn refused(request: &DefinitionRequest, source: Box<RemoteError>) -> DefinitionError {
    let reason = source.evalue.clone();
    match (&*source.ename, request) {
        (refusal::WRONG, _) => DefinitionError::Wrong { reasons: reason },
        (refusal::NOT_FOUND, _) if reason.contains("Bad Message Type") => DefinitionError::Unsupported,
        (
            refusal::NOT_FOUND,
            DefinitionRequest::Get { which }
            | DefinitionRequest::Update { which, .. }
            | DefinitionRequest::Delete { which },
        ) => DefinitionError::NotFound { which: which.clone() },
        (refusal::NAME_TAKEN, _) => DefinitionError::NameTaken { reason },
        (refusal::CHANGED, _) => DefinitionError::Changed { reason },
        (refusal::FULL, _) => DefinitionError::Full { reason },
        _ => DefinitionError::Query(QueryError::Refused { msg_type: MsgType::ProcessDefinitionRequest, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_no_task_and_a_task_no_service() {
        let record = |definition: Value| -> DefinitionRecord {
            let record = json!({"id": 3, "definition": definition, "created": "2026-11-22T10:00:00Z", "updated": "2026-11-22T10:00:00Z"});
            serde_json::from_value(record).unwrap()
        };
        let web = record(json!({"name": "web", "exec": "x", "process_type": "service"}));
        let (process, options) = service(&web).unwrap();
        assert_eq!(options.label, Some(json!("service:web")));
        assert!(options.restart.is_some() && process.log_bytes.is_some());
        assert!(matches!(task(&web), Err(DefinitionError::Service { .. })));
        let job = record(json!({"exec": "x"}));
        assert_eq!(task(&job).unwrap().1.label, Some(json!("3")));
        assert!(matches!(service(&job), Err(DefinitionError::NoService { .. })));
    }

    #[test]
    fn what_a_controller_says_no_with_is_told_apart() {
        let get = DefinitionRequest::Get { which: "tr".into() };
        let said = |ename: &str, evalue: &str| refused(&get, Box::new(RemoteError::new(ename, evalue)));
        assert!(matches!(said("KeyError", "\"Bad Message Type: 'x'\""), DefinitionError::Unsupported));
        assert!(matches!(said("KeyError", "there is none"), DefinitionError::NotFound { .. }));
        assert!(matches!(said("NameTaken", "by 3"), DefinitionError::NameTaken { .. }));
        assert!(matches!(said("OperationalError", "disk"), DefinitionError::Query(QueryError::Refused { .. })));
        assert_eq!(
            said("ValueError", "`exec` is missing").to_string(),
            "the process definition is wrong: `exec` is missing"
        );
    }
}
