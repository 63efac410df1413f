//! Process definitions, which a store keeps beside the task records: what may be asked, what is answered, and how they are
//! kept in memory.

use std::collections::BTreeMap;

use remuda_proto::Date;
use remuda_proto::message::definition::{DefinitionRecord, Which};
use serde_json::{Map, Value};

/// Most definitions that are kept.
pub const MAX_DEFINITIONS: u64 = 10_000;
/// Most bytes of one, as JSON.
pub const MAX_DEFINITION_BYTES: usize = 64 << 10;
/// Most bytes of all.
pub const MAX_DEFINITIONS_BYTES: u64 = 64 << 20;

/// A question about definitions, or a change of them. A change lasts once it is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum DefinitionAsk {
    /// Keep another one.
    Create {
        /// What it says.
        given: Given,
        /// When.
        date: Date,
    },
    /// Tell one.
    Get(Which),
    /// Tell so many, by ascending id.
    List {
        /// How many at most.
        limit: u64,
        /// How many are left out before them.
        offset: u64,
    },
    /// Put another in its place.
    Update {
        /// Which.
        which: Which,
        /// What it says from now on.
        given: Given,
        /// Only if this is what it says until now.
        expected: Option<Map<String, Value>>,
        /// When.
        date: Date,
    },
    /// Forget one.
    Delete(Which),
}

/// A definition as it was given; it makes sense.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// Its name.
    pub name: Option<String>,
    /// What it says.
    pub definition: Map<String, Value>,
    /// The same as text.
    pub text: String,
}

/// What a question about definitions comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum DefinitionAnswer {
    /// The one that was asked for, created, changed or deleted.
    One(DefinitionRecord),
    /// Several.
    List {
        /// They themselves.
        definitions: Vec<DefinitionRecord>,
        /// How many there are in all.
        total: u64,
    },
    /// It cannot be done, and nothing has changed.
    Refused(DefinitionRefusal),
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DefinitionRefusal {
    /// There is none.
    #[error("there is no process definition `{0}`")]
    NotFound(Which),
    /// The name is another's.
    #[error("the name `{name}` is that of process definition {id}: take another, or change that one")]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        id: u64,
    },
    /// It is not what was expected.
    #[error("process definition {0} was changed meanwhile: look at it again")]
    Changed(u64),
    /// There is no room.
    #[error(
        "there is no room for more process definitions ({MAX_DEFINITIONS}, or {} MiB in all): delete some",
        MAX_DEFINITIONS_BYTES >> 20
    )]
    Full,
}

/// Definitions in memory; they go with it.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    /// By id. No two have the same name. At most [`MAX_DEFINITIONS`].
    kept: BTreeMap<u64, (Given, Date, Date)>,
    /// What they take, in bytes: at most [`MAX_DEFINITIONS_BYTES`].
    size_bytes: u64,
    /// The id that was given last; no id is given twice.
    last: u64,
}

impl Shelf {
    /// Does what is asked.
    pub(super) fn answer(&mut self, ask: &DefinitionAsk) -> DefinitionAnswer {
        self.try_answer(ask).unwrap_or_else(DefinitionAnswer::Refused)
    }

    fn try_answer(&mut self, ask: &DefinitionAsk) -> Result<DefinitionAnswer, DefinitionRefusal> {
        match ask {
            DefinitionAsk::Create { given, date } => {
                self.check_name(given, None)?;
                check_room(self.kept.len() as u64 + 1, self.size_bytes + given.size())?;
                self.last += 1;
                self.size_bytes += given.size();
                self.kept.insert(self.last, (given.clone(), *date, *date));
                Ok(self.one(self.last))
            }
            DefinitionAsk::Get(which) => self.find(which).map(|id| self.one(id)),
            DefinitionAsk::List { limit, offset } => {
                let clip = |number: &u64| usize::try_from(*number).unwrap_or(usize::MAX);
                let page = self.kept.keys().skip(clip(offset)).take(clip(limit));
                Ok(DefinitionAnswer::List {
                    definitions: page.map(|id| self.record(*id)).collect(),
                    total: self.kept.len() as u64,
                })
            }
            DefinitionAsk::Update { which, given, expected, date } => {
                let id = self.find(which)?;
                self.check_name(given, Some(id))?;
                let (old, created, _) = &self.kept[&id];
                check_expected(id, &old.definition, expected.as_ref())?;
                let size_bytes = self.size_bytes - old.size() + given.size();
                check_room(self.kept.len() as u64, size_bytes)?;
                let created = *created;
                self.size_bytes = size_bytes;
                self.kept.insert(id, (given.clone(), created, *date));
                Ok(self.one(id))
            }
            DefinitionAsk::Delete(which) => {
                let id = self.find(which)?;
                let last = self.one(id);
                if let Some((given, _, _)) = self.kept.remove(&id) {
                    self.size_bytes -= given.size();
                }
                Ok(last)
            }
        }
    }

    fn find(&self, which: &Which) -> Result<u64, DefinitionRefusal> {
        let found = match which {
            Which::Id(id) => self.kept.contains_key(id).then_some(*id),
            Which::Name(name) => self.by_name(name),
        };
        found.ok_or_else(|| DefinitionRefusal::NotFound(which.clone()))
    }

    fn by_name(&self, name: &str) -> Option<u64> {
        self.kept.iter().find(|(_, (given, _, _))| given.name.as_deref() == Some(name)).map(|(id, _)| *id)
    }

    fn check_name(&self, given: &Given, own: Option<u64>) -> Result<(), DefinitionRefusal> {
        match given.name.as_ref().and_then(|name| Some((name, self.by_name(name)?))) {
            Some((name, id)) if Some(id) != own => Err(DefinitionRefusal::NameTaken { name: name.clone(), id }),
            _ => Ok(()),
        }
    }

    fn record(&self, id: u64) -> DefinitionRecord {
        let (given, created, updated) = &self.kept[&id];
        DefinitionRecord { id, definition: given.definition.clone(), created: *created, updated: *updated }
    }

    fn one(&self, id: u64) -> DefinitionAnswer {
        DefinitionAnswer::One(self.record(id))
    }

    /// Panics if the state contradicts itself.
    pub(super) fn check(&self) {
        assert!(self.kept.keys().all(|id| *id <= self.last), "an id above {}", self.last);
        assert_eq!(self.size_bytes, self.kept.values().map(|(given, _, _)| given.size()).sum::<u64>());
        assert!(self.kept.len() as u64 <= MAX_DEFINITIONS && self.size_bytes <= MAX_DEFINITIONS_BYTES);
    }
}

impl Given {
    /// What it takes, in bytes.
    pub(super) fn size(&self) -> u64 {
        self.text.len() as u64
    }
}

/// Whether so many definitions of that size may be kept.
pub(super) fn check_room(count: u64, size_bytes: u64) -> Result<(), DefinitionRefusal> {
    let fits = count <= MAX_DEFINITIONS && size_bytes <= MAX_DEFINITIONS_BYTES;
    fits.then_some(()).ok_or(DefinitionRefusal::Full)
}

/// Whether a definition is what somebody expects who changes it.
pub(super) fn check_expected(
    id: u64,
    definition: &Map<String, Value>,
    expected: Option<&Map<String, Value>>,
) -> Result<(), DefinitionRefusal> {
    let as_expected = expected.is_none_or(|expected| expected == definition);
    as_expected.then_some(()).ok_or(DefinitionRefusal::Changed(id))
}
