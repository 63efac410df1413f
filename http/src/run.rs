//! Running a definition: the body goes in, the result comes out.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use remuda_client::definitions::{DefinitionRecord, task};
use remuda_client::{AsyncResult, ProcessResult, QueryError, TaskError};
use remuda_proto::message::content::EngineStatus;
use remuda_proto::message::native::{Capability, Need, Runs};
use remuda_proto::message::needs::Needs;
use serde_json::{Value, json};

use crate::answer::{Refusal, chain, json_response, status_of};
use crate::server::{Shared, discard, read_body};

const TASK_ID: HeaderName = HeaderName::from_static("x-remuda-task-id");
const EXIT_CODE: HeaderName = HeaderName::from_static("x-remuda-exit-code");
/// Most of what a program that failed said on stderr, in bytes from its end.
const STDERR_TAIL: usize = 4_096;

pub(crate) async fn run(
    State(shared): State<Shared>,
    Path(which): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let record = match runnable(&shared, &which).await {
        Ok(record) => record,
        Err(refusal) => {
            discard(request).await;
            return Err(refusal);
        }
    };
    let input = read_body(request, shared.max_input_bytes).await?;
    let task = Waited(Some(shared.definitions().run_record(&record, Some(input))?));
    let msg_id = task.msg_id();
    let mut response = match task.ended().await {
        Ok(result) => answer(&msg_id, result),
        Err(error) => json_response(status_of(&error), &json!({"task_id": msg_id, "error": chain(&error)})),
    };
    if let Ok(value) = HeaderValue::try_from(msg_id) {
        response.headers_mut().insert(TASK_ID, value);
    }
    Ok(response)
}

/// A definition that can be run as a task, and that somebody runs.
async fn runnable(shared: &Shared, which: &str) -> Result<DefinitionRecord, Refusal> {
    let record = shared.definitions().get(which).await?;
    let (_, options) = task(&record)?;
    if somebody_runs(shared, &options.needs).await? { Ok(record) } else { Err(nobody_runs(&record, &options.needs)) }
}

/// Whether an engine is there that can run such a program, now or when others have ended.
async fn somebody_runs(shared: &Shared, needs: &Needs) -> Result<bool, QueryError> {
    let need = Need::new(Runs::Process, needs);
    let status = shared.client.status().await?.remuda;
    Ok(status.is_none_or(|status| status.engines.values().any(|engine| capability(engine).serves(&need))))
}

fn capability(engine: &EngineStatus) -> Capability {
    Capability {
        process: engine.process,
        slots: engine.slots.max(1),
        resources: engine.resources.clone(),
        labels: engine.labels.iter().map(|label| (&**label).into()).collect(),
        ..Capability::stock()
    }
}

fn nobody_runs(record: &DefinitionRecord, needs: &Needs) -> Refusal {
    let needs = if needs.is_plain() { String::new() } else { format!(" and has `{needs}`") };
    let name = record.name().map_or_else(|| record.id.to_string(), str::to_owned);
    let text =
        format!("no engine is there that runs programs{needs}, as `{name}` needs it: start one with `remuda engine`");
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text)
}

/// What a program gave, or how it failed.
fn answer(msg_id: &str, result: ProcessResult) -> Response {
    let exit_code = result.outcome.exit_code;
    let dropped = result.result_dropped_bytes();
    let missing = (dropped > 0).then(|| format!("{dropped} bytes of the result went beyond the engine's limit"));
    let mut response = match result.checked() {
        Ok(result) if missing.is_none() => {
            let mut response = Response::new(Body::from(result.result().clone()));
            let kind = HeaderValue::from_static("application/octet-stream");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Ok(result) => failed(msg_id, &result, &missing.unwrap_or_default()),
        Err(failed_with) => failed(msg_id, &failed_with.0, &failed_with.to_string()),
    };
    if let Some(code) = exit_code {
        response.headers_mut().insert(EXIT_CODE, HeaderValue::from(code));
    }
    response
}

fn failed(msg_id: &str, result: &ProcessResult, error: &str) -> Response {
    let tail = &result.stderr[result.stderr.len().saturating_sub(STDERR_TAIL)..];
    let value: Value = json!({
        "task_id": msg_id, "exit_code": result.outcome.exit_code, "signal": result.outcome.signal,
        "stderr": String::from_utf8_lossy(tail), "error": error,
    });
    json_response(StatusCode::UNPROCESSABLE_ENTITY, &value)
}

/// A task that is stopped if nobody waits for it any more: whoever asked has gone.
struct Waited(Option<AsyncResult<ProcessResult>>);

impl Waited {
    fn msg_id(&self) -> String {
        self.0.as_ref().map(|task| task.msg_id().to_string()).unwrap_or_default()
    }

    async fn ended(mut self) -> Result<ProcessResult, TaskError> {
        let Some(task) = &self.0 else { return Err(TaskError::Disconnected) };
        let ended = task.get().await;
        self.0 = None;
        ended
    }
}

impl Drop for Waited {
    fn drop(&mut self) {
        let Some(task) = self.0.take() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = task.stop().await {
                    tracing::debug!(msg_id = %task.msg_id(), "cannot stop a task that nobody waits for: {error}");
                }
            });
        }
    }
}
