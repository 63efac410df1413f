//! Definitions as HTTP shows them, in the form of the registry that they come from.

use remuda_client::definitions::DefinitionRecord;
use serde_json::{Map, Value, json};

/// Where the definitions are.
pub(crate) const DEFINITIONS: &str = "/api/process_definition/";
/// How many a list has, unless it is asked for more.
const USUAL: u64 = 20;
/// How many it has at most.
const MOST: u64 = 1_000;

/// Where a definition is.
pub(crate) fn uri(id: u64) -> String {
    format!("{DEFINITIONS}{id}/")
}

/// A definition.
pub(crate) fn object(record: &DefinitionRecord) -> Value {
    json!({"id": record.id, "resource_uri": uri(record.id), "definition": record.definition})
}

/// Which part of the list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) limit: u64,
    pub(crate) offset: u64,
}

impl Page {
    /// What was asked for; a limit of 0 is as many as there are, within what a list may have.
    ///
    /// # Errors
    /// Says what is no number.
    pub(crate) fn read(limit: Option<&str>, offset: Option<&str>) -> Result<Self, String> {
        let number = |key: &str, text: Option<&str>, usual: u64| match text {
            None => Ok(usual),
            Some(text) => text.parse().map_err(|_| format!("`{key}` is `{text}`: give a whole number, 0 or more")),
        };
        let limit = match number("limit", limit, USUAL)? {
            0 => MOST,
            limit => limit.min(MOST),
        };
        Ok(Self { limit, offset: number("offset", offset, 0)? })
    }

    /// The list, of so many in all.
    pub(crate) fn list(self, records: &[DefinitionRecord], total: u64) -> Value {
        let Self { limit, offset } = self;
        let at = |offset: u64| format!("{DEFINITIONS}?limit={limit}&offset={offset}");
        let next = offset.checked_add(limit).filter(|next| *next < total).map(at);
        let previous = (offset > 0).then(|| at(offset.min(total).saturating_sub(limit)));
        let objects: Vec<Value> = records.iter().map(object).collect();
        json!({
            "meta": {"limit": limit, "offset": offset, "next": next, "previous": previous, "total_count": total},
            "objects": objects,
        })
    }
}

/// The definition in the body of a request: it itself, or an object as it was shown.
///
/// # Errors
/// Names a key that is neither here nor there.
pub(crate) fn definition(mut body: Map<String, Value>) -> Result<Map<String, Value>, String> {
    if !body.contains_key("definition") {
        return Ok(body);
    }
    let known = ["definition", "id", "resource_uri"];
    if let Some(other) = body.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(format!("`{other}` stands beside `definition`: put it into that"));
    }
    match body.shift_remove("definition") {
        Some(Value::Object(definition)) => Ok(definition),
        _ => Err("`definition` is no map".to_owned()),
    }
}

/// Single keys of a definition changed; null takes one away.
pub(crate) fn changed(definition: &Map<String, Value>, changes: &Map<String, Value>) -> Map<String, Value> {
    let mut changed = definition.clone();
    for (key, value) in changes {
        if value.is_null() {
            changed.shift_remove(key);
        } else {
            changed.insert(key.clone(), value.clone());
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        let Value::Object(map) = value else { panic!("{value}") };
        map
    }

    #[test]
    fn a_page_knows_its_neighbours() {
        for (limit, offset, total, next, previous) in [
            (None, None, 3, None, None),
            (Some("2"), None, 3, Some(2), None),
            (Some("2"), Some("2"), 3, None, Some(0)),
            (Some("2"), Some("1"), 9, Some(3), Some(0)),
            (Some("2"), Some("50"), 9, None, Some(7)),
            (Some("5"), Some("18446744073709551615"), 9, None, Some(4)),
        ] {
            let page = Page::read(limit, offset).unwrap();
            let meta = page.list(&[], total)["meta"].clone();
            let at = |offset: Option<u64>| {
                offset.map(|offset| format!("/api/process_definition/?limit={}&offset={offset}", page.limit))
            };
            assert_eq!((&meta["next"], &meta["previous"]), (&json!(at(next)), &json!(at(previous))), "{meta}");
        }
        assert_eq!(Page::read(Some("0"), None).unwrap().limit, 1_000);
        assert_eq!(Page::read(Some("5000"), None).unwrap().limit, 1_000);
        assert!(Page::read(Some("-1"), None).unwrap_err().contains("`limit` is `-1`"));
        assert!(Page::read(None, Some("x")).unwrap_err().contains("`offset` is `x`"));
    }

    #[test]
    fn a_definition_stands_alone_or_as_it_was_shown() {
        let plain = map(json!({"exec": "tr"}));
        assert_eq!(definition(plain.clone()).unwrap(), plain);
        let shown = json!({"id": 1, "resource_uri": "/x/", "definition": plain});
        assert_eq!(definition(map(shown)).unwrap(), plain);
        assert!(definition(map(json!({"definition": {}, "exec": "tr"}))).unwrap_err().contains("`exec`"));
        assert!(definition(map(json!({"definition": 5}))).is_err());
    }

    #[test]
    fn single_keys_are_changed_and_null_takes_one_away() {
        let changes = map(json!({"timeout": null, "argv": ["b"], "cwd": "/"}));
        let before = map(json!({"exec": "tr", "argv": ["a"], "timeout": 5}));
        assert_eq!(changed(&before, &changes), map(json!({"exec": "tr", "argv": ["b"], "cwd": "/"})));
    }
}
