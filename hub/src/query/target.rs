//! The `targets` of a query (`controller/hub.py: Hub._validate_targets`).

use remuda_proto::RemoteError;
use serde_json::Value;

use super::{Query, engine_id, index_error, type_error};
use crate::hub::Hub;
use crate::registry::Engine;
use crate::repr;

/// The engines that a query is about: null for all, an id, a uuid, or a list of these.
///
/// Only registered engines count; stock goes on listing those that left.
pub(super) fn engines<'a>(hub: &'a Hub, query: &Query) -> Result<Vec<&'a Engine>, RemoteError> {
    let targets = match query.required("targets")? {
        Value::Null => return Ok(hub.registry.engines().collect()),
        Value::Array(targets) => &targets[..],
        one @ (Value::Number(_) | Value::String(_)) => std::slice::from_ref(one),
        other => return Err(type_error(format!("`targets` is neither an engine nor a list: {}", repr::value(other)))),
    };
    let find = |target: &Value| match target {
        Value::String(uuid) => hub.registry.by_uuid(uuid),
        other => hub.registry.engine(engine_id(other)?),
    };
    let found: Vec<_> = targets.iter().map(|target| find(target).ok_or(target)).collect();
    let unknown: Vec<_> = found.iter().filter_map(|found| found.err()).collect();
    if !unknown.is_empty() {
        return Err(index_error(format!("No Such Engine: {}", repr::list(unknown))));
    }
    if targets.is_empty() {
        return Err(index_error("No Engines Registered".to_owned()));
    }
    Ok(found.into_iter().flatten().collect())
}
