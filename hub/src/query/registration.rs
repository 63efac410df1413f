//! `registration_request` and `unregistration_request` of engines.

use remuda_proto::message::MsgType;
use remuda_proto::message::content::{Again, OkStatus, RegistrationOptions, RegistrationReply};
use remuda_proto::message::native::Announcement;
use remuda_proto::{EngineId, EngineUuid, Now, Refusal, RemoteError};
use serde_json::Value;

use super::{Query, engine_id, key_error, send_error, type_error};
use crate::engine_state::Grant;
use crate::hub::{Effect, Hub, refuse};
use crate::registry::RegistrationError;
use crate::repr;

/// What an engine asks for.
struct Request {
    uuid: EngineUuid,
    id: Option<EngineId>,
    announcement: Option<Announcement>,
    again: Option<Again>,
}

/// Why a registration is answered with an error.
enum Denied {
    /// It makes no sense to a stock hub either: a `hub_error`.
    Query(RemoteError),
    /// It could not be granted: a `registration_reply`.
    Registration(RemoteError),
}

/// Begins a registration. The reply has no parent, as from stock; its content is an error if it is refused.
pub(super) fn register(hub: &mut Hub, now: Now, query: &Query, out: &mut Vec<Effect>) {
    if !query.content.contains_key("uuid") {
        // Stock logs it and does not answer.
        let refusal = Refusal::Unpack("a registration without `uuid`".to_owned());
        return refuse(out, query.from.first().cloned(), refusal);
    }
    let stalls_at = now.instant + hub.config.registration_timeout;
    let request = read(query);
    match &request {
        Ok(Request { again: Some(Again::Resume), uuid, .. }) => return resume(hub, now, query, uuid, out),
        Ok(Request { again: Some(Again::Anew), uuid, .. }) => leave(hub, now, uuid, out),
        _ => {}
    }
    let begun = request.and_then(|request| {
        let Request { uuid, id, announcement, again: _ } = request;
        hub.registry
            .begin(&uuid, id, announcement.clone(), now.instant, stalls_at)
            .map(|id| Grant { id, uuid, announcement })
            .map_err(|error| Denied::Registration(to_remote(&error)))
    });
    let mut granted = None;
    let body = match begun {
        Ok(grant) => {
            let content = reply(hub, grant.id);
            granted = Some(grant.uuid.clone());
            out.push(Effect::KeepGrant(grant));
            hub.message(now, MsgType::RegistrationReply, None, &content)
        }
        Err(Denied::Registration(error)) => hub.message(now, MsgType::RegistrationReply, None, &error.content()),
        Err(Denied::Query(error)) => return send_error(hub, now, query, &error, out),
    };
    out.push(Effect::Reply { to: query.from.clone(), body });
    out.extend(granted.map(Effect::ExpectHeart));
}

fn reply(hub: &Hub, id: EngineId) -> RegistrationReply {
    RegistrationReply {
        id,
        status: OkStatus::Ok,
        hb_period: hub.config.heart_period_ms,
        connection_info: hub.config.engine_connection.clone(),
    }
}

/// Tells an engine whether it is registered, or about to be.
fn resume(hub: &mut Hub, now: Now, query: &Query, uuid: &EngineUuid, out: &mut Vec<Effect>) {
    let body = if let Some(id) = hub.registry.id_of(uuid) {
        let content = reply(hub, id);
        hub.message(now, MsgType::RegistrationReply, None, &content)
    } else {
        let error = key_error(&format!("uuid {} is not registered", repr::text(uuid.as_str())));
        hub.message(now, MsgType::RegistrationReply, None, &error.content())
    };
    out.push(Effect::Reply { to: query.from.clone(), body });
}

/// Removes the engine of this uuid, or its registration that is pending.
fn leave(hub: &mut Hub, now: Now, uuid: &EngineUuid, out: &mut Vec<Effect>) {
    if let Some(id) = hub.registry.by_uuid(uuid.as_str()).map(|engine| engine.id) {
        hub.unregister(now, &[id], false, out);
    } else if hub.registry.cancel_uuid(uuid) {
        out.push(Effect::ForgetHeart(uuid.clone()));
    }
}

/// Removes an engine, or a registration that is pending. There is no reply in any case.
pub(super) fn unregister(hub: &mut Hub, now: Now, query: Query, out: &mut Vec<Effect>) {
    let uuid = query.content.get("remuda").and_then(|more| more.get("uuid")).and_then(Value::as_str);
    match query.content.get("id") {
        // From the nanny of an engine that is gone.
        Some(Value::Null) if uuid.is_some() => {
            leave(hub, now, &EngineUuid::from(uuid.unwrap_or_default()), out);
        }
        // From an engine that never got an id.
        Some(Value::Null) => {}
        Some(value) => {
            // An id that no engine can have is one that no engine has.
            let Some(id) = engine_id(value) else { return };
            if hub.registry.engine(id).is_some() {
                hub.unregister(now, &[id], false, out);
            } else if let Some(uuid) = hub.registry.cancel(id) {
                out.push(Effect::ForgetHeart(uuid));
            }
        }
        None => {
            let refusal = Refusal::Unpack("an unregistration without `id`".to_owned());
            refuse(out, query.from.into_iter().next(), refusal);
        }
    }
}

fn read(query: &Query) -> Result<Request, Denied> {
    let of = |key: &str| query.content.get(key).unwrap_or(&Value::Null);
    let denied = |key: &str, what: &str| {
        Denied::Query(type_error(format!("`{key}` of a registration is not {what}: {}", repr::value(of(key)))))
    };
    let uuid = of("uuid").as_str().ok_or_else(|| denied("uuid", "a text"))?;
    let id = match of("id") {
        Value::Null => None,
        id => Some(engine_id(id).ok_or_else(|| denied("id", "an engine id"))?),
    };
    let options = match of("remuda") {
        Value::Null => None,
        options => Some(serde_json::from_value::<RegistrationOptions>(options.clone()).map_err(|error| {
            let text = format!("`remuda` of a registration is not understood: {error}");
            Denied::Registration(RemoteError::new("ValueError", text))
        })?),
    };
    let (announcement, again) = options.map(|options| (options.announcement, options.again)).unzip();
    Ok(Request { uuid: EngineUuid::from(uuid), id, announcement, again: again.flatten() })
}

fn to_remote(error: &RegistrationError) -> RemoteError {
    let text = error.to_string();
    match error {
        RegistrationError::InUse(_) => key_error(&text),
        RegistrationError::NoIdentity => RemoteError::new("ValueError", text),
        RegistrationError::Full(_) | RegistrationError::NoId => RemoteError::new("RuntimeError", text),
    }
}
