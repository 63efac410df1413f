//! `history_request`: the ids of all requests on record. An error comes as a `history_reply`.

use serde_json::json;

use super::{Answer, store_error};
use crate::hub::Hub;

pub(super) fn answer(hub: &mut Hub) -> Answer {
    match hub.store.history() {
        Ok(history) => Answer::new(json!({"status": "ok", "history": history})),
        Err(error) => Answer::error(&store_error(&error)),
    }
}
