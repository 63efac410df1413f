//! Process definitions as they travel: `process_definition_request` and its reply, which only Remuda knows.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::time::Date;

/// What is to be done with the definitions that a controller keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum DefinitionRequest {
    /// Keep a new one; answered by a [`DefinitionReply`].
    Create {
        /// What it says.
        definition: Map<String, Value>,
    },
    /// Tell one; answered by a [`DefinitionReply`].
    Get {
        /// Which.
        which: Which,
    },
    /// Tell them by ascending id; answered by a [`DefinitionList`].
    List {
        /// No more than so many, and never more than [`MAX_LISTED`].
        #[serde(default)]
        limit: Option<u64>,
        /// So many are left out at the beginning.
        #[serde(default)]
        offset: u64,
    },
    /// Put another in the place of one; answered by a [`DefinitionReply`].
    Update {
        /// Which.
        which: Which,
        /// What it says from now on.
        definition: Map<String, Value>,
        /// Only if this is what it says until now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expected: Option<Map<String, Value>>,
    },
    /// Forget one; answered by a [`DefinitionReply`] that tells it for the last time.
    Delete {
        /// Which.
        which: Which,
    },
}

/// Most definitions in one list.
pub const MAX_LISTED: u64 = 1_000;

/// Names of the errors in which a request on definitions may end.
pub mod refusal {
    /// The definition is wrong; the text has all that is wrong with it.
    pub const WRONG: &str = "ValueError";
    /// There is no such definition.
    pub const NOT_FOUND: &str = "KeyError";
    /// Another definition has the name.
    pub const NAME_TAKEN: &str = "NameTaken";
    /// The definition is not what was expected.
    pub const CHANGED: &str = "DefinitionChanged";
    /// There is no room for another.
    pub const FULL: &str = "TooManyDefinitions";
}

/// Names a definition. In JSON a number is an id and text a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Which {
    /// By its id.
    Id(u64),
    /// By its name.
    Name(String),
}

impl FromStr for Which {
    type Err = Infallible;

    /// Digits alone are an id: no name is made of them.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Id))
    }
}

impl From<u64> for Which {
    fn from(id: u64) -> Self {
        Self::Id(id)
    }
}

impl From<&str> for Which {
    fn from(text: &str) -> Self {
        text.parse().unwrap_or_else(|never: Infallible| match never {})
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A definition that a controller keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DefinitionRecord {
    /// Its id; no other ever has it.
    pub id: u64,
    /// What it says, as it was given.
    pub definition: Map<String, Value>,
    /// When it was first given.
    pub created: Date,
    /// When it was last changed.
    pub updated: Date,
}

impl DefinitionRecord {
    /// Its name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.definition.get("name").and_then(Value::as_str)
    }
}

/// The content of the reply to a request on one definition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DefinitionReply {
    /// The definition.
    pub definition: DefinitionRecord,
}

/// The content of the reply to a request for several.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DefinitionList {
    /// The definitions, by ascending id.
    pub definitions: Vec<DefinitionRecord>,
    /// How many there are in all.
    pub total: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_request_is_written_as_documented() {
        let update = DefinitionRequest::Update { which: "tr".into(), definition: Map::new(), expected: None };
        assert_eq!(
            serde_json::to_value(&update).unwrap(),
            json!({"action": "update", "which": "tr", "definition": {}})
        );
        let list: DefinitionRequest = serde_json::from_value(json!({"action": "list"})).unwrap();
        assert_eq!(list, DefinitionRequest::List { limit: None, offset: 0 });
        let wrong = serde_json::from_value::<DefinitionRequest>(json!({"action": "drop", "which": 1}));
        assert!(wrong.unwrap_err().to_string().contains("`create`"));
    }

    #[test]
    fn digits_are_an_id_and_all_else_is_a_name() {
        assert_eq!((Which::from("7"), Which::from("7z")), (Which::Id(7), Which::Name("7z".into())));
        assert_eq!(serde_json::from_value::<Which>(json!("7")).unwrap(), Which::Name("7".into()));
    }
}
