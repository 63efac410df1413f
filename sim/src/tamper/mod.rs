//! Canaries: machines that are broken on purpose, to see that the checkers notice.
//!
//! The machine inside is the real one. It is told something else than what happened, or something else is done than what
//! it asks for.

mod broadcast;
mod heart;
mod hub;
mod task;

pub(crate) use broadcast::BroadcastCore;
pub(crate) use heart::HeartCore;
pub(crate) use hub::HubCore;
pub(crate) use task::TaskCore;

/// How a machine is broken: the task scheduler, if nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tampering {
    /// Now and then a reply is not sent.
    DropReply,
    /// Now and then a reply is sent twice.
    ReplyTwice,
    /// Now and then a reply goes to another client.
    OtherClient,
    /// Now and then a client gets the bytes of another reply.
    OtherReply,
    /// Now and then a byte of a reply is changed.
    BrokenReply,
    /// Late replies reach the client.
    LateReply,
    /// Now and then the reply of an engine is not noticed.
    LoseResult,
    /// An engine gets one task more than it may.
    MoreThanHwm,
    /// Now and then a task is sent to a second engine at the same time.
    SecondEngine,
    /// A task that is tried again goes to the engine that failed.
    SameEngine,
    /// `after` counts for nothing.
    NoAfter,
    /// `follow` counts for nothing.
    NoFollow,
    /// `targets` count for nothing.
    NoTargets,
    /// A task is tried once more than it may.
    OneMoreRetry,
    /// What a task needs counts for nothing.
    NoNeeds,
    /// What a task takes of its engine is forgotten.
    TakesNothing,
    /// Priorities count for nothing.
    NoPriority,
    /// Tasks wait for ever.
    NoTimeout,
    /// The newest tasks come first, now and then.
    OutOfOrder,
    /// Now and then the hub is not told of a reply.
    NoRecord,
    /// Now and then what the hub is told of a reply gets lost.
    LostRecord,
    /// Now and then the hub is told of another reply.
    WrongRecord,
    /// Now and then the network has a reply twice.
    NetworkTwice,
    /// Engines that leave keep their tasks for ever.
    NoGoodbye,
    /// The scheduler is not told that an engine gets no more tasks.
    NoDrain,
    /// Now and then a task that the hub repeats is answered under the id of the one that it repeats.
    OldId,
    /// Now and then a task that the hub repeats is repeated twice.
    RepeatTwice,
    /// Now and then the broadcast scheduler forgets the reply of an engine.
    BroadcastLost,
    /// Now and then the broadcast scheduler counts the reply of an engine twice: as its own, and for one that is missing.
    BroadcastCountedTwice,
    /// Now and then the broadcast scheduler leaves out one target.
    BroadcastToFewer,
    /// The broadcast scheduler puts coalesced replies together in the order in which they came.
    BroadcastOrder,
    /// The heart monitor measures silence by the clock, even if it was itself that stood still.
    DeadAfterPause,
    /// The hub forgets registrations that were pending when it stood still.
    ForgottenAfterPause,
    /// The task scheduler waits for the disk with nothing, though it should.
    SendsUnrecorded,
    /// The task scheduler takes over only every other task of an earlier controller.
    ForgetsTasks,
    /// Engines that come back are never asked what they have.
    AsksNothing,
}

impl Tampering {
    /// All of them.
    pub const ALL: [Self; 36] = [
        Self::DropReply,
        Self::ReplyTwice,
        Self::OtherClient,
        Self::OtherReply,
        Self::BrokenReply,
        Self::LateReply,
        Self::LoseResult,
        Self::MoreThanHwm,
        Self::SecondEngine,
        Self::SameEngine,
        Self::NoAfter,
        Self::NoFollow,
        Self::NoTargets,
        Self::OneMoreRetry,
        Self::NoNeeds,
        Self::TakesNothing,
        Self::NoPriority,
        Self::NoTimeout,
        Self::OutOfOrder,
        Self::NoRecord,
        Self::LostRecord,
        Self::WrongRecord,
        Self::NetworkTwice,
        Self::NoGoodbye,
        Self::NoDrain,
        Self::OldId,
        Self::RepeatTwice,
        Self::BroadcastLost,
        Self::BroadcastCountedTwice,
        Self::BroadcastToFewer,
        Self::BroadcastOrder,
        Self::DeadAfterPause,
        Self::ForgottenAfterPause,
        Self::SendsUnrecorded,
        Self::ForgetsTasks,
        Self::AsksNothing,
    ];

    /// Whether it shows only where records are to last. The others are looked for where nothing waits for the disk and no
    /// controller dies.
    pub(crate) fn is_of_records(self) -> bool {
        matches!(self, Self::SendsUnrecorded | Self::ForgetsTasks | Self::AsksNothing)
    }

    /// The checkers that have to notice. Another one that does proves nothing of these.
    pub fn checkers(self) -> &'static [&'static str] {
        match self {
            Self::DropReply => &["reply", "abort", "time", "settled"],
            Self::ReplyTwice | Self::OtherReply => &["one reply"],
            Self::OtherClient => &["reply"],
            Self::BrokenReply => &["signature"],
            Self::LateReply => &["one reply", "reply"],
            Self::LoseResult => &["reply", "idle"],
            Self::MoreThanHwm => &["hwm"],
            Self::SecondEngine => &["one engine"],
            Self::SameEngine => &["blacklist"],
            Self::NoAfter => &["after"],
            Self::NoFollow => &["follow"],
            Self::NoTargets => &["targets"],
            Self::OneMoreRetry => &["retries"],
            Self::NoNeeds => &["need"],
            Self::NoTimeout => &["time"],
            Self::OutOfOrder | Self::NoPriority => &["order"],
            Self::TakesNothing => &["hwm", "need"],
            Self::SendsUnrecorded => &["durable"],
            Self::ForgetsTasks | Self::AsksNothing => &["settled"],
            Self::NoRecord => &["record"],
            Self::LostRecord => &["settled", "queues"],
            Self::WrongRecord => &["records"],
            Self::NetworkTwice => &["client"],
            Self::NoGoodbye => &["settled", "time", "send"],
            Self::NoDrain => &["drain"],
            Self::OldId => &["record", "reply", "one reply"],
            Self::RepeatTwice => &["resubmit", "record"],
            Self::BroadcastLost => &["broadcast", "settled"],
            Self::BroadcastCountedTwice | Self::BroadcastToFewer | Self::BroadcastOrder => &["broadcast"],
            Self::DeadAfterPause => &["hearts"],
            Self::ForgottenAfterPause => &["registration"],
        }
    }
}

/// Every how many times a thing goes wrong that goes wrong now and then.
const ONE_IN: u64 = 7;
