//! `process_definition_request`: the process definitions that the store keeps beside the task records. Only Remuda's
//! controllers have them; errors come as a `hub_error`.

use remuda_process::Definition;
use remuda_proto::message::definition::{DefinitionList, DefinitionReply, DefinitionRequest, MAX_LISTED, refusal};
use remuda_proto::{Date, RemoteError};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answer, Awaited, Dealt, Query, type_error};
use crate::store::{Ask, DefinitionAnswer, DefinitionAsk, DefinitionRefusal, Given, MAX_DEFINITION_BYTES};

/// What of the definitions is asked for.
pub(super) fn ask(query: &Query, date: Date) -> Result<Dealt, RemoteError> {
    let request = DefinitionRequest::deserialize(Value::Object(query.content.clone()))
        .map_err(|error| type_error(format!("the {} is not understood: {error}", query.msg_type)))?;
    let ask = match request {
        DefinitionRequest::Create { definition } => DefinitionAsk::Create { given: given(definition)?, date },
        DefinitionRequest::Get { which } => DefinitionAsk::Get(which),
        DefinitionRequest::List { limit, offset } => {
            DefinitionAsk::List { limit: limit.unwrap_or(MAX_LISTED).min(MAX_LISTED), offset }
        }
        DefinitionRequest::Update { which, definition, expected } => {
            DefinitionAsk::Update { which, given: given(definition)?, expected, date }
        }
        DefinitionRequest::Delete { which } => DefinitionAsk::Delete(which),
    };
    Ok(Dealt::Asks(Ask::Definitions(ask), Awaited::Definitions))
}

/// A definition that makes sense, and is not too large.
fn given(definition: Map<String, Value>) -> Result<Given, RemoteError> {
    let value = Value::Object(definition);
    let text = value.to_string();
    if text.len() > MAX_DEFINITION_BYTES {
        let reason = format!("the definition has {} bytes, and may have {MAX_DEFINITION_BYTES}", text.len());
        return Err(RemoteError::new(refusal::WRONG, reason));
    }
    let read = Definition::read(&value).map_err(|problems| RemoteError::new(refusal::WRONG, problems.to_string()))?;
    let name = read.name().map(str::to_owned);
    let Value::Object(definition) = value else { panic!("a map has become {value}") };
    Ok(Given { name, definition, text })
}

/// Answers, once the store has.
pub(super) fn answer(answer: DefinitionAnswer) -> Result<Answer, RemoteError> {
    let content = match answer {
        DefinitionAnswer::One(definition) => json!(DefinitionReply { definition }),
        DefinitionAnswer::List { definitions, total } => json!(DefinitionList { definitions, total }),
        DefinitionAnswer::Refused(refused) => {
            let name = match &refused {
                DefinitionRefusal::NotFound(_) => refusal::NOT_FOUND,
                DefinitionRefusal::NameTaken { .. } => refusal::NAME_TAKEN,
                DefinitionRefusal::Changed(_) => refusal::CHANGED,
                DefinitionRefusal::Full => refusal::FULL,
            };
            return Err(RemoteError::new(name, refused.to_string()));
        }
    };
    let mut content = content;
    content["status"] = json!("ok");
    Ok(Answer::new(content))
}
