//! The shape of every part of the cluster that decides something.

use crate::time::{Instant, Now};

/// A part of the cluster with no socket, clock, thread or randomness of its own.
///
/// A driver gives it events and performs its effects, in order; it takes no decision itself. The same machine runs in
/// the simulator, on a virtual clock.
pub trait Machine {
    /// All that can happen to it.
    type Event;
    /// All that it can ask for.
    type Effect;

    /// Applies one event and appends the effects it calls for, in the order to perform them.
    fn handle(&mut self, now: Now, event: Self::Event, out: &mut Vec<Self::Effect>);

    /// When it next wants [`on_deadline`](Self::on_deadline), if ever.
    fn deadline(&self) -> Option<Instant>;

    /// Acts on every deadline at or before `now`; a call too many does nothing.
    fn on_deadline(&mut self, now: Now, out: &mut Vec<Self::Effect>);

    /// Panics if the state contradicts itself. Slow: for tests and the simulator.
    fn check(&self) {}
}
