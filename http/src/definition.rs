//! The definitions: list, create, show, replace, change, delete.

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use remuda_client::DefinitionError;
use remuda_client::definitions::{DefinitionRecord, Which};
use remuda_process::Definition;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::answer::{Refusal, json_response};
use crate::server::{Shared, discard, read_body};
use crate::view::{self, Page};

/// Most bytes of a request that holds a definition: more than one may have.
const MAX_BYTES: usize = 256 << 10;
/// How often a change of single keys is tried anew because somebody else changed the definition meanwhile.
const TRIES: usize = 5;

/// What a list is asked for with.
#[derive(Deserialize)]
pub(crate) struct Asked {
    limit: Option<String>,
    offset: Option<String>,
}

pub(crate) async fn list(State(shared): State<Shared>, Query(asked): Query<Asked>) -> Result<Response, Refusal> {
    let page = Page::read(asked.limit.as_deref(), asked.offset.as_deref()).map_err(Refusal::bad)?;
    let list = shared.definitions().list(page.limit, page.offset).await?;
    Ok(json_response(StatusCode::OK, &page.list(&list.definitions, list.total)))
}

pub(crate) async fn create(State(shared): State<Shared>, request: Request) -> Result<Response, Refusal> {
    let definition = checked(view::definition(read(request).await?).map_err(Refusal::bad)?)?;
    let record = shared.definitions().create(definition).await?;
    let mut response = shown(StatusCode::CREATED, &record);
    if let Ok(uri) = HeaderValue::try_from(view::uri(record.id)) {
        response.headers_mut().insert(LOCATION, uri);
    }
    Ok(response)
}

pub(crate) async fn show(State(shared): State<Shared>, Path(which): Path<String>) -> Result<Response, Refusal> {
    Ok(shown(StatusCode::OK, &shared.definitions().get(&*which).await?))
}

pub(crate) async fn replace(
    State(shared): State<Shared>,
    Path(which): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let definition = checked(view::definition(read(request).await?).map_err(Refusal::bad)?)?;
    Ok(shown(StatusCode::OK, &shared.definitions().update(&*which, definition).await?))
}

pub(crate) async fn change(
    State(shared): State<Shared>,
    Path(which): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let changes = view::definition(read(request).await?).map_err(Refusal::bad)?;
    let mut which = Which::from(&*which);
    for _ in 1..TRIES {
        let before = shared.definitions().get(which).await?;
        which = Which::Id(before.id);
        let definition = checked(view::changed(&before.definition, &changes))?;
        match shared.definitions().replace(before, definition).await {
            Err(DefinitionError::Changed { .. }) => {}
            done => return Ok(shown(StatusCode::OK, &done?)),
        }
    }
    Err(Refusal::new(StatusCode::CONFLICT, "others change the definition again and again: try it later"))
}

pub(crate) async fn delete(State(shared): State<Shared>, Path(which): Path<String>) -> Result<Response, Refusal> {
    shared.definitions().delete(&*which).await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

fn shown(status: StatusCode, record: &DefinitionRecord) -> Response {
    json_response(status, &view::object(record))
}

/// A definition that makes sense.
fn checked(definition: Map<String, Value>) -> Result<Map<String, Value>, Refusal> {
    let value = Value::Object(definition);
    Definition::read(&value).map_err(Refusal::Wrong)?;
    let Value::Object(definition) = value else { panic!("a map has become {value}") };
    Ok(definition)
}

/// The map in the body of a request.
async fn read(request: Request) -> Result<Map<String, Value>, Refusal> {
    if let Err(refusal) = check_type(request.headers()) {
        discard(request).await;
        return Err(refusal);
    }
    let bytes = read_body(request, MAX_BYTES).await?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Refusal::bad("the body is no map: give a definition, or `{\"definition\": {...}}`")),
        Err(error) => Err(Refusal::bad(format!("the body is no JSON: {error}"))),
    }
}

/// Whether the body is said to be JSON, if anything is said of it.
fn check_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(given) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let text = given.to_str().unwrap_or_default();
    let kind = text.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let reason = format!("the content type is `{text}`: send JSON, with `Content-Type: application/json`");
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason))
}
