//! `connection_request`: the engines that are registered.

use serde_json::{Map, Value, json};

use super::{Answer, Query};
use crate::hub::Hub;

pub(super) fn answer(hub: &Hub, query: &Query) -> Answer {
    let engines: Map<String, Value> =
        hub.registry.engines().map(|engine| (engine.id.to_string(), json!(engine.uuid))).collect();
    let mut content = json!({"status": "ok", "engines": engines});
    if query.wants_remuda() {
        content["remuda"] = json!(hub.config.controller);
    }
    Answer::new(content)
}
