//! What a task waits for, or where it has to run.

use std::fmt;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Set;
use crate::id::MsgId;

/// A set of tasks and what has to become of them (`controller/dependency.py: Dependency`).
///
/// Used for `after` (not before they finished) and `follow` (only where they ran).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The tasks, without duplicates. Empty: nothing to wait for.
    pub ids: Set<MsgId>,
    /// Whether all of them count, or any one.
    pub all: bool,
    /// Whether a task that succeeded counts.
    pub success: bool,
    /// Whether a task that failed counts.
    pub failure: bool,
}

/// How one finished task bears on a dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bearing {
    /// It counts towards it.
    For,
    /// It can no longer count towards it.
    Against,
}

impl Dependency {
    /// All of `ids` have to succeed: what a plain list on the wire means.
    pub fn all_succeed(ids: impl IntoIterator<Item = MsgId>) -> Self {
        Self { ids: ids.into_iter().collect(), all: true, success: true, failure: false }
    }

    /// No dependency at all.
    pub fn none() -> Self {
        Self::all_succeed([])
    }

    /// Whether there is anything to wait for.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether a task that ended this way counts.
    pub fn bearing(&self, succeeded: bool) -> Bearing {
        if (succeeded && self.success) || (!succeeded && self.failure) { Bearing::For } else { Bearing::Against }
    }

    /// Whether it is met when `count_for` of its tasks count towards it.
    pub fn is_met(&self, count_for: usize) -> bool {
        self.is_empty() || if self.all { count_for == self.ids.len() } else { count_for > 0 }
    }

    /// Whether it can never be met when `count_against` of its tasks can no longer count.
    pub fn is_unreachable(&self, count_against: usize) -> bool {
        !self.is_empty() && if self.all { count_against > 0 } else { count_against == self.ids.len() }
    }
}

impl Default for Dependency {
    fn default() -> Self {
        Self::none()
    }
}

impl Serialize for Dependency {
    /// A plain list where that says it all, else the map that Python's `Dependency.as_dict` makes.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.all && self.success && !self.failure {
            return serializer.collect_seq(&self.ids);
        }
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("all", &self.all)?;
        map.serialize_entry("success", &self.success)?;
        map.serialize_entry("failure", &self.failure)?;
        map.serialize_entry("dependencies", &self.ids)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Dependency {
    /// Reads a list of ids, one id, the map form, or null.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DependencyVisitor)
    }
}

struct DependencyVisitor;

impl<'de> Visitor<'de> for DependencyVisitor {
    type Value = Dependency;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of msg_ids, or a map with `dependencies`, `all`, `success` and `failure`")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Dependency, E> {
        Ok(Dependency::none())
    }

    fn visit_str<E: de::Error>(self, id: &str) -> Result<Dependency, E> {
        Ok(Dependency::all_succeed([MsgId::from(id)]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Dependency, A::Error> {
        let mut ids = Set::default();
        while let Some(id) = seq.next_element::<MsgId>()? {
            ids.insert(id);
        }
        Ok(Dependency { ids, ..Dependency::none() })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Dependency, A::Error> {
        let mut dependency = Dependency::none();
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match &*key {
                "dependencies" => dependency.ids = map.next_value::<Vec<MsgId>>()?.into_iter().collect(),
                "all" => dependency.all = map.next_value()?,
                "success" => dependency.success = map.next_value()?,
                "failure" => dependency.failure = map.next_value()?,
                _ => drop(map.next_value::<de::IgnoredAny>()?),
            }
        }
        if !dependency.success && !dependency.failure {
            return Err(de::Error::custom("a dependency must count success, failure, or both"));
        }
        Ok(dependency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Dependency, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn every_form_on_the_wire_is_read() {
        assert_eq!(read("[]").unwrap(), Dependency::none());
        assert_eq!(read("null").unwrap(), Dependency::none());
        assert_eq!(read(r#""a""#).unwrap(), Dependency::all_succeed([MsgId::from("a")]));
        assert_eq!(read(r#"["a", "b", "a"]"#).unwrap().ids.len(), 2);
        let any = read(r#"{"all": false, "success": true, "failure": true, "dependencies": ["a"]}"#).unwrap();
        assert!(!any.all && any.failure);
        assert_eq!(read(&serde_json::to_string(&any).unwrap()).unwrap(), any);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in ["5", "[1]", r#"{"dependencies": "a"}"#, r#"{"dependencies": ["a"], "success": false}"#] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn met_and_unreachable_follow_the_original() {
        let mut dependency = Dependency::all_succeed([MsgId::from("a"), MsgId::from("b")]);
        assert_eq!(dependency.bearing(true), Bearing::For);
        assert_eq!(dependency.bearing(false), Bearing::Against);
        assert!(!dependency.is_met(1) && dependency.is_met(2) && dependency.is_unreachable(1));
        dependency.all = false;
        assert!(dependency.is_met(1) && !dependency.is_unreachable(1) && dependency.is_unreachable(2));
        assert!(Dependency::none().is_met(0) && !Dependency::none().is_unreachable(0));
    }
}
