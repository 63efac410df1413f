//! `shutdown_request`: the controller ends a second after it answered, so that everybody hears of it.

use remuda_proto::Now;
use remuda_proto::message::MsgType;
use serde_json::json;

use super::{Answer, Query};
use crate::hub::{Effect, Hub, SHUTDOWN_DELAY};

pub(super) fn answer(hub: &mut Hub, now: Now, query: &Query, out: &mut Vec<Effect>) {
    super::send(hub, now, query, MsgType::ShutdownReply, &Answer::ok(), out);
    let parent = Some(query.body.header());
    out.push(Effect::Notify(hub.message(now, MsgType::ShutdownNotification, parent, &json!({"status": "ok"}))));
    hub.exit_at.get_or_insert(now.instant + SHUTDOWN_DELAY);
}
