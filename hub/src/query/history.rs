//! `history_request`: the ids of all requests on record. An error comes as a `history_reply`.

use serde_json::json;

use super::{Answer, no_data};
use crate::hub::Hub;

pub(super) fn answer(hub: &Hub) -> Answer {
    match hub.store.history(hub.session.packer()) {
        Ok(history) => Answer::new(json!({"status": "ok", "history": history})),
        Err(_) => Answer::error(&no_data()),
    }
}
