//! When to stop before all is done: `--halt`, in the words of GNU parallel.

use std::str::FromStr;

/// When to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Halt {
    /// When all is done.
    #[default]
    Never,
    /// Before that, when enough of the jobs have ended in a certain way.
    When {
        /// Whether those that run may end.
        soon: bool,
        /// Which jobs count.
        what: What,
        /// How many of them.
        enough: Enough,
    },
}

/// Which jobs count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Those that failed.
    Fail,
    /// Those that did not.
    Success,
    /// All.
    Done,
}

/// How many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Enough {
    /// This many.
    Count(u64),
    /// This part of those that have ended, in per cent; looked at from the third on, as GNU parallel does.
    Percent(f64),
}

/// With fewer jobs done, a percentage says nothing.
const LEAST_FOR_PERCENT: u64 = 3;

impl FromStr for Halt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is none of: never, now,fail=1, soon,fail=1, now,success=1, soon,done=10, soon,fail=30%")
        };
        if text == "never" {
            return Ok(Self::Never);
        }
        let (when, rest) = text.split_once(',').ok_or_else(wrong)?;
        let (what, enough) = rest.split_once('=').ok_or_else(wrong)?;
        let soon = match when {
            "soon" => true,
            "now" => false,
            _ => return Err(wrong()),
        };
        let what = match what {
            "fail" => What::Fail,
            "success" => What::Success,
            "done" => What::Done,
            _ => return Err(wrong()),
        };
        let enough = match enough.strip_suffix('%') {
            Some(percent) => match percent.parse() {
                Ok(percent) if (0.0..=100.0).contains(&percent) => Enough::Percent(percent),
                _ => return Err(wrong()),
            },
            None => match enough.parse() {
                Ok(count) if count > 0 => Enough::Count(count),
                _ => return Err(wrong()),
            },
        };
        Ok(Self::When { soon, what, enough })
    }
}

/// Jobs that have ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) done: u64,
    pub(crate) failed: u64,
}

impl Halt {
    /// Whether enough jobs have ended: then, whether those that run may end.
    pub(crate) fn is_reached(self, tally: Tally) -> Option<bool> {
        let Self::When { soon, what, enough } = self else { return None };
        let count = match what {
            What::Fail => tally.failed,
            What::Success => tally.done - tally.failed,
            What::Done => tally.done,
        };
        let reached = match enough {
            Enough::Count(least) => count >= least,
            Enough::Percent(percent) => {
                tally.done >= LEAST_FOR_PERCENT && count as f64 * 100.0 >= percent * tally.done as f64 && count > 0
            }
        };
        reached.then_some(soon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stops_when_enough_have_ended_so() {
        let halt = |text: &str, done, failed| text.parse::<Halt>().unwrap().is_reached(Tally { done, failed });
        assert_eq!(halt("never", 9, 9), None);
        assert_eq!(halt("now,fail=2", 5, 1), None);
        assert_eq!(halt("now,fail=2", 5, 2), Some(false));
        assert_eq!(halt("soon,success=1", 3, 3), None);
        assert_eq!(halt("soon,success=1", 3, 2), Some(true));
        assert_eq!(halt("soon,done=4", 4, 0), Some(true));
        assert_eq!(halt("now,fail=30%", 2, 2), None, "too few to tell");
        assert_eq!(halt("now,fail=30%", 10, 2), None);
        assert_eq!(halt("now,fail=30%", 10, 3), Some(false));
        assert_eq!(halt("now,fail=0%", 10, 0), None, "nothing has failed");
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_does() {
        for text in ["", "now", "later,fail=1", "now,fail", "now,fail=0", "now,fail=x", "now,fall=1", "now,fail=101%"] {
            let error = text.parse::<Halt>().unwrap_err();
            assert!(error.contains(&format!("`{text}`")) && error.contains("now,fail=1"), "{error}");
        }
    }
}
