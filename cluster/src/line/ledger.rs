//! What one end has said and heard over all connections: nothing is lost with a connection, and nothing is heard twice.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::seal::Distrust;

/// What one line carries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Parcel<T> {
    /// The number of the last item that came from the other end.
    heard: u64,
    /// An item and its number, from 1; none: the line only says that this end is there.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    item: Option<(u64, T)>,
}

fn none<T>() -> Option<T> {
    None
}

/// One end's items of type `Out`, and the number of those that came.
#[derive(Debug)]
pub(super) struct Ledger<Out> {
    /// The number of the last item that was put in.
    last: u64,
    /// The last of them, which the other end may not have: those with the numbers up to `last`.
    kept: VecDeque<Out>,
    /// How many of the kept were sent on this connection.
    sent: usize,
    heard: u64,
}

impl<Out> Default for Ledger<Out> {
    fn default() -> Self {
        Self { last: 0, kept: VecDeque::new(), sent: 0, heard: 0 }
    }
}

impl<Out: Serialize + Clone> Ledger<Out> {
    /// Something to say.
    pub(super) fn put(&mut self, item: Out) {
        self.last += 1;
        self.kept.push_back(item);
    }

    /// The number of the last item that came.
    pub(super) fn heard(&self) -> u64 {
        self.heard
    }

    /// Whether the other end has all.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// There is a connection to an end that has heard as much.
    pub(super) fn begin(&mut self, heard: u64) -> Result<(), Distrust> {
        self.sent = 0;
        self.has_heard(heard)
    }

    /// What is to be sent now, as JSON.
    pub(super) fn unsent(&mut self) -> Vec<String> {
        let first = self.last - self.kept.len() as u64 + 1;
        let heard = self.heard;
        let rest = (first + self.sent as u64..).zip(self.kept.iter().skip(self.sent));
        let lines =
            rest.map(|numbered| text(&Parcel { heard, item: Some((numbered.0, numbered.1.clone())) })).collect();
        self.sent = self.kept.len();
        lines
    }

    /// A line without an item, as JSON.
    pub(super) fn beat(&self) -> String {
        text(&Parcel::<Out> { heard: self.heard, item: None })
    }

    /// Takes in what came: an item that is new, if there is one.
    pub(super) fn take<In: for<'de> Deserialize<'de>>(&mut self, json: &str) -> Result<Option<In>, Distrust> {
        let parcel: Parcel<In> = serde_json::from_str(json).map_err(|_| Distrust::Garbage)?;
        self.has_heard(parcel.heard)?;
        let Some((number, item)) = parcel.item else { return Ok(None) };
        if number > self.heard + 1 {
            return Err(Distrust::Order);
        }
        let is_new = number == self.heard + 1;
        self.heard += u64::from(is_new);
        Ok(is_new.then_some(item))
    }

    /// The other end has all up to this one.
    fn has_heard(&mut self, heard: u64) -> Result<(), Distrust> {
        if heard > self.last {
            return Err(Distrust::Order);
        }
        while self.last - (self.kept.len() as u64) < heard {
            self.kept.pop_front();
            self.sent = self.sent.saturating_sub(1);
        }
        Ok(())
    }
}

fn text<T: Serialize>(parcel: &Parcel<T>) -> String {
    serde_json::to_string(parcel).expect("plain data can be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    type Both = (Ledger<u32>, Ledger<String>);

    fn connected((one, other): &mut Both) {
        let heard = (one.heard(), other.heard());
        one.begin(heard.1).unwrap();
        other.begin(heard.0).unwrap();
    }

    /// What arrives of what `one` has to send, if only the first lines do.
    fn arrive((one, other): &mut Both, lines: usize) -> Vec<u32> {
        one.unsent().iter().take(lines).filter_map(|line| other.take::<u32>(line).unwrap()).collect()
    }

    #[test]
    fn nothing_is_lost_with_a_connection_and_nothing_comes_twice() {
        let mut both = Both::default();
        connected(&mut both);
        both.0.put(1);
        both.0.put(2);
        assert_eq!(arrive(&mut both, 1), [1], "the second is lost with the connection");
        both.0.put(3);
        connected(&mut both);
        assert_eq!(arrive(&mut both, 9), [2, 3]);
        assert!(arrive(&mut both, 9).is_empty(), "they are said once");
        assert!(!both.0.is_empty(), "that they came is not known yet");
        let beat = both.1.beat();
        assert_eq!(both.0.take::<String>(&beat), Ok(None));
        assert!(both.0.is_empty());
    }

    #[test]
    fn an_item_whose_word_of_arrival_was_lost_is_not_taken_again() {
        let mut both = Both::default();
        connected(&mut both);
        both.0.put(1);
        let lines = both.0.unsent();
        assert_eq!(both.1.take(&lines[0]), Ok(Some(1)));
        assert_eq!(both.1.take::<u32>(&lines[0]), Ok(None));
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        let mut both = Both::default();
        assert_eq!(both.0.begin(1), Err(Distrust::Order), "nothing was said");
        assert_eq!(both.0.take::<u32>(r#"{"heard":0,"item":[2,5]}"#), Err(Distrust::Order), "one is missing");
        assert_eq!(both.0.take::<u32>("{}"), Err(Distrust::Garbage));
    }
}
