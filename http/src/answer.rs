//! What goes wrong, as HTTP has it: one table of status codes.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use remuda_client::{DefinitionError, QueryError, SubmitError, TaskError};
use remuda_process::Problems;
use serde_json::{Value, json};

/// An answer that is not what was asked for.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// A status, and what it is about.
    Plain(StatusCode, String),
    /// A definition that is wrong.
    Wrong(Problems),
    /// A definition that is wrong in one key, with a status of its own.
    Key(StatusCode, &'static str, String),
    /// No token, or a wrong one.
    Unknown,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self::Plain(status, text.into())
    }

    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let about = |key: &str, reasons: Value| json!({"process_definition": {key: reasons}});
        match self {
            Self::Plain(status, text) => {
                let mut response = json_response(status, &json!({"error": text}));
                if status == StatusCode::SERVICE_UNAVAILABLE {
                    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
                }
                response
            }
            Self::Wrong(problems) => {
                json_response(StatusCode::BAD_REQUEST, &json!({"process_definition": problems.by_key()}))
            }
            Self::Key(status, key, reason) => json_response(status, &about(key, json!([reason]))),
            Self::Unknown => {
                let text = "give the token: `Authorization: Bearer TOKEN`, or as the password of any user";
                let mut response = json_response(StatusCode::UNAUTHORIZED, &json!({"error": text}));
                let schemes = response.headers_mut();
                schemes.append(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"remuda\""));
                schemes.append(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"remuda\", charset=\"UTF-8\""));
                response
            }
        }
    }
}

impl From<DefinitionError> for Refusal {
    fn from(error: DefinitionError) -> Self {
        let text = error.to_string();
        match error {
            DefinitionError::NotFound { .. } => Self::Plain(StatusCode::NOT_FOUND, text),
            DefinitionError::Wrong { reasons } => Self::Plain(StatusCode::BAD_REQUEST, reasons),
            DefinitionError::NameTaken { reason } => Self::Key(StatusCode::CONFLICT, "name", reason),
            DefinitionError::Changed { .. } | DefinitionError::Service { .. } => {
                Self::Plain(StatusCode::CONFLICT, text)
            }
            DefinitionError::Full { .. } => Self::Plain(StatusCode::INSUFFICIENT_STORAGE, text),
            DefinitionError::Query(error) => error.into(),
            DefinitionError::Submit(SubmitError::PureScheme) => Self::Plain(StatusCode::CONFLICT, text),
            DefinitionError::Submit(SubmitError::Disconnected) => Self::Plain(StatusCode::SERVICE_UNAVAILABLE, text),
            _ => Self::Plain(StatusCode::INTERNAL_SERVER_ERROR, text),
        }
    }
}

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Self {
        let status = match &error {
            QueryError::NoAnswer { .. } => StatusCode::GATEWAY_TIMEOUT,
            QueryError::Shutdown | QueryError::Disconnected => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::Plain(status, chain(&error))
    }
}

/// How a task ended that gave no result of a program.
pub(crate) fn status_of(error: &TaskError) -> StatusCode {
    match error {
        TaskError::NotSubmitted(_) | TaskError::Shutdown { .. } | TaskError::Disconnected => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        TaskError::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

pub(crate) fn json_response(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(format!("{value}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
