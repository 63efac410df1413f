//! What a task asks of the engine that is to run it, and what the task scheduler is asked beyond stock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::de::{Error as _, IgnoredAny};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::restart::Restart;

/// An amount of cores, or of something else that an engine has: a number above 0, in thousandths, at most 4,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Amount(u32);

/// The name of the resource that every engine has: how many tasks of one core each it runs at once.
pub const CPUS: &str = "cpus";
/// The key that names labels; no resource can be named so.
pub const LABEL: &str = "label";

/// Something that was asked for and makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NeedsError {
    /// Not `NAME=VALUE`.
    #[error("`{0}` is not `NAME=VALUE`: write `cpus=2`, `gpu=1` or `label=big`")]
    NoValue(String),
    /// A name that no resource can have.
    #[error("`{0}` is no name of a resource: use letters, digits, `_`, `-` and `.`, and begin with a letter")]
    Name(String),
    /// An amount that is none.
    #[error("`{name}` is `{value}`: give a number above 0 and up to 4000000, with at most three decimals")]
    Amount {
        /// The resource.
        name: String,
        /// What was given.
        value: String,
    },
    /// A label that is none.
    #[error("`label` is `{0}`: give a word, or a list of words")]
    Label(String),
    /// The same resource twice.
    #[error("`{0}` is given twice")]
    Twice(String),
}

impl Amount {
    /// One.
    pub const ONE: Self = Self(1000);
    /// The largest.
    pub const MAX: u32 = 4_000_000;

    /// A whole number; `None` if it is 0 or above [`Self::MAX`].
    pub fn whole(number: u32) -> Option<Self> {
        (1..=Self::MAX).contains(&number).then(|| Self(number * 1000))
    }

    /// In thousandths.
    pub fn milli(self) -> u32 {
        self.0
    }

    fn from_f64(number: f64) -> Option<Self> {
        let milli = (number * 1000.0).round();
        let exact = (number * 1000.0 - milli).abs() < 1e-6;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range by the test before")]
        let amount = |milli: f64| Self(milli as u32);
        (exact && milli >= 1.0 && milli <= f64::from(Self::MAX) * 1000.0).then(|| amount(milli))
    }

    /// Reads the amount of a resource.
    ///
    /// # Errors
    /// When it is not a number above 0, or has more than three decimals.
    pub fn parse(name: &str, value: &str) -> Result<Self, NeedsError> {
        let wrong = || NeedsError::Amount { name: name.to_owned(), value: value.to_owned() };
        value.parse().ok().and_then(Self::from_f64).ok_or_else(wrong)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / 1000.0)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(1000) {
            serializer.serialize_u32(self.0 / 1000)
        } else {
            serializer.serialize_f64(f64::from(self.0) / 1000.0)
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        Self::from_f64(number).ok_or_else(|| D::Error::custom(format!("{number} is no amount above 0")))
    }
}

/// What an engine has, or what a task asks of it, beside cores: by name.
pub type Resources = BTreeMap<Arc<str>, Amount>;

/// What a task asks of the engine that is to run it.
///
/// In JSON: `{"cpus": 2, "gpu": 1, "label": ["big"]}`; a single label may stand without a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Needs {
    /// How many of its cores (slots) the task takes while it runs; `None`: one.
    cpus: Option<Amount>,
    /// What else it takes while it runs.
    resources: Resources,
    /// Labels that the engine must have.
    labels: BTreeSet<Arc<str>>,
}

impl Needs {
    /// What every task needs: one core.
    pub fn plain() -> Self {
        Self::default()
    }

    /// Whether it asks for no more than every task does.
    pub fn is_plain(&self) -> bool {
        self.cpus.is_none() && self.resources.is_empty() && self.labels.is_empty()
    }

    /// Whether it takes more or less than one core, or something else.
    pub fn takes_other_than_one_core(&self) -> bool {
        self.cpus.is_some() || !self.resources.is_empty()
    }

    /// How many cores it takes.
    pub fn cpus(&self) -> Amount {
        self.cpus.unwrap_or(Amount::ONE)
    }

    /// What else it takes.
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    /// Labels that the engine must have.
    pub fn labels(&self) -> &BTreeSet<Arc<str>> {
        &self.labels
    }

    /// Asks for cores.
    #[must_use]
    pub fn with_cpus(mut self, cpus: Amount) -> Self {
        self.cpus = (cpus != Amount::ONE).then_some(cpus);
        self
    }

    /// Asks for a resource.
    ///
    /// # Errors
    /// When no resource can have this name.
    pub fn with_resource(mut self, name: &str, amount: Amount) -> Result<Self, NeedsError> {
        check_name(name)?;
        self.resources.insert(name.into(), amount);
        Ok(self)
    }

    /// Asks for a label.
    #[must_use]
    pub fn with_label(mut self, label: &str) -> Self {
        self.labels.insert(label.into());
        self
    }

    /// Adds `NAME=VALUE`.
    fn add(self, name: &str, value: &str) -> Result<Self, NeedsError> {
        match name {
            LABEL if value.is_empty() => Err(NeedsError::Label(value.to_owned())),
            LABEL => Ok(self.with_label(value)),
            CPUS if self.cpus.is_some() => Err(NeedsError::Twice(name.to_owned())),
            CPUS => Ok(self.with_cpus(Amount::parse(name, value)?)),
            _ if self.resources.contains_key(name) => Err(NeedsError::Twice(name.to_owned())),
            _ => self.with_resource(name, Amount::parse(name, value)?),
        }
    }
}

/// Whether a resource can have this name: letters, digits, `_`, `-` and `.`, beginning with a letter, and neither `cpus`
/// nor `label`.
///
/// # Errors
/// Names the name.
pub fn check_name(name: &str) -> Result<(), NeedsError> {
    let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    let good = letters && name.starts_with(|first: char| first.is_ascii_alphabetic()) && name != CPUS && name != LABEL;
    good.then_some(()).ok_or_else(|| NeedsError::Name(name.to_owned()))
}

impl FromStr for Needs {
    type Err = NeedsError;

    /// Reads `cpus=2,gpu=1,label=big`.
    fn from_str(text: &str) -> Result<Self, NeedsError> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).try_fold(Self::default(), |needs, part| {
            let (name, value) = part.split_once('=').ok_or_else(|| NeedsError::NoValue(part.to_owned()))?;
            needs.add(name.trim(), value.trim())
        })
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpus = self.cpus.map(|cpus| format!("cpus={cpus}"));
        let resources = self.resources.iter().map(|(name, amount)| format!("{name}={amount}"));
        let labels = self.labels.iter().map(|label| format!("label={label}"));
        let all: Vec<String> = cpus.into_iter().chain(resources).chain(labels).collect();
        f.write_str(&all.join(","))
    }
}

impl Serialize for Needs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(cpus) = self.cpus {
            map.serialize_entry(CPUS, &cpus)?;
        }
        for (name, amount) in &self.resources {
            map.serialize_entry(&**name, amount)?;
        }
        if !self.labels.is_empty() {
            let labels: Vec<&str> = self.labels.iter().map(|label| &**label).collect();
            map.serialize_entry(LABEL, &labels)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Needs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut needs = Self::default();
        for (name, value) in BTreeMap::<String, Value>::deserialize(deserializer)? {
            let words: Vec<&Value> = match &value {
                Value::Array(list) if name == LABEL => list.iter().collect(),
                one => vec![one],
            };
            for word in words {
                let text = match word {
                    Value::String(text) if name == LABEL => text.clone(),
                    other if name == LABEL => return Err(D::Error::custom(NeedsError::Label(other.to_string()))),
                    other => other.to_string(),
                };
                needs = needs.add(&name, &text).map_err(D::Error::custom)?;
            }
        }
        Ok(needs)
    }
}

/// What a request's metadata asks for under `remuda`. All keys are optional; a key that is not known is an error, since
/// it would be asked for in vain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extras {
    /// How long the task may run, in seconds; then it is stopped. The time in queues does not count.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "positive")]
    run_timeout: Option<f64>,
    /// Of tasks that the same engine may run, those of higher priority come first, whatever their order.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: i32,
    /// What it asks of its engine.
    #[serde(default, skip_serializing_if = "Needs::is_plain")]
    pub needs: Needs,
    /// Whether it fails at once if no engine that is there could ever run it; else it waits for one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub fail_unplaceable: bool,
    /// Which attempt this is, from 2 on: the task scheduler says so when it tries a task again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Whether nobody waits for word of its begin and its end among the output: a native engine then publishes no `status`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub quiet: bool,
    /// A mark that makes a message differ from an earlier one; it says nothing.
    #[serde(default, skip_serializing)]
    sent_again: IgnoredAny,
    /// Whether a further try after a failure may be on an engine that failed at it before.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retry_anywhere: bool,
    /// What makes a service of it: it is started again when it ends, and moved when its engine dies. `retries` of the
    /// metadata have no meaning then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let seconds = Option::<f64>::deserialize(deserializer)?;
    match seconds.filter(|seconds| seconds.is_nan() || *seconds <= 0.0) {
        None => Ok(seconds),
        Some(seconds) => {
            Err(D::Error::custom(format!("`run_timeout` is {seconds}: give seconds, more than 0, or null for none")))
        }
    }
}

impl Extras {
    /// How long the task may run; `None`: as long as it likes.
    pub fn run_timeout(&self) -> Option<Duration> {
        self.run_timeout.map(|limit| Duration::try_from_secs_f64(limit).unwrap_or(Duration::MAX))
    }

    /// Sets [`Self::run_timeout`]; zero counts as the shortest time there is.
    pub fn set_run_timeout(&mut self, limit: Option<Duration>) {
        self.run_timeout = limit.map(|limit| limit.max(Duration::from_nanos(1)).as_secs_f64());
    }

    /// Names the first key of a map of extras whose value makes no sense, with the reason; `None` if each does by itself.
    pub fn explain(extras: &serde_json::Map<String, Value>) -> Option<String> {
        extras.iter().find_map(|(key, value)| {
            let one = serde_json::Map::from_iter([(key.clone(), value.clone())]);
            let error = serde_json::from_value::<Self>(Value::Object(one)).err()?;
            Some(format!("`{key}`: {error}"))
        })
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt.unwrap_or(1)
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_read_as_they_are_shown() {
        for text in ["cpus=2,gpu=1,label=a,label=b", "cpus=0.5", "memory=1.5", "label=x", ""] {
            let needs: Needs = text.parse().unwrap();
            assert_eq!(needs.to_string(), text);
            let json = serde_json::to_string(&needs).unwrap();
            assert_eq!(serde_json::from_str::<Needs>(&json).unwrap(), needs, "{json}");
        }
        assert!("cpus=1".parse::<Needs>().unwrap().is_plain());
        let json = r#"{"cpus": 2, "gpu": 1, "label": "big"}"#;
        assert_eq!(serde_json::from_str::<Needs>(json).unwrap().to_string(), "cpus=2,gpu=1,label=big");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, named) in [
            ("cpus", "`cpus`"),
            ("cpus=0", "`cpus` is `0`"),
            ("cpus=-1", "`cpus` is `-1`"),
            ("cpus=nan", "`cpus` is `nan`"),
            ("cpus=1e9", "`cpus` is `1e9`"),
            ("gpu=0.0001", "`gpu` is `0.0001`"),
            ("gpu=1,gpu=2", "`gpu` is given twice"),
            ("cpus=2,cpus=2", "`cpus` is given twice"),
            ("2x=1", "`2x`"),
            ("label=", "`label`"),
        ] {
            let error = text.parse::<Needs>().unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
        for (json, named) in [
            (r#"{"cpus": "2"}"#, "cpus"),
            (r#"{"cpus": [2]}"#, "cpus"),
            (r#"{"label": 3}"#, "label"),
            (r#"{"gpu": 0}"#, "gpu"),
        ] {
            let error = serde_json::from_str::<Needs>(json).unwrap_err().to_string();
            assert!(error.contains(named), "{json}: {error}");
        }
    }

    #[test]
    fn extras_that_are_not_known_or_make_no_sense_are_errors() {
        for (json, named) in [
            (r#"{"prioritty": 3}"#, "prioritty"),
            (r#"{"run_timeout": 0}"#, "run_timeout"),
            (r#"{"run_timeout": -1}"#, "run_timeout"),
        ] {
            let error = serde_json::from_str::<Extras>(json).unwrap_err().to_string();
            assert!(error.contains(named), "{json}: {error}");
        }
        assert!(serde_json::from_str::<Extras>(r#"{"run_timeout": null}"#).unwrap().is_empty());
        let mut extras = Extras { priority: -2, ..Extras::default() };
        extras.set_run_timeout(Some(Duration::from_millis(1500)));
        assert_eq!(serde_json::to_string(&extras).unwrap(), r#"{"run_timeout":1.5,"priority":-2}"#);
    }
}
