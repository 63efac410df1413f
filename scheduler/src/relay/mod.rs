//! The relays: messages between clients and the engines that they name, and the engines' output to everyone.

use remuda_proto::message::native::Capability;
use remuda_proto::monitor::Monitor;
use remuda_proto::{Body, EngineId, EngineUuid, Frames, Identity, Idents, MsgId, Refusal};

/// Which channel a [`Relay`] serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// The direct queue. The hub is told of its requests and replies.
    Mux,
    /// Control: abort, clear, shutdown, signal. Not recorded.
    Control,
}

/// All that can happen to a relay.
#[derive(Clone, Debug)]
pub enum RelayEvent {
    /// A client sent a message.
    FromClient {
        /// The client, as the socket of clients names it.
        client: Identity,
        /// Its message, not yet verified. The first of its routing frames, which may be missing, names the engine.
        frames: Frames,
    },
    /// An engine sent a message.
    FromEngine {
        /// The engine, as the socket of engines names it.
        engine: Identity,
        /// Its message, not yet verified. The first of its routing frames names the client.
        frames: Frames,
    },
    /// An engine is there.
    Registered {
        /// The engine.
        uuid: EngineUuid,
        /// The number by which people know it.
        id: EngineId,
        /// What it can run. A relay does not care: the client has chosen.
        capability: Capability,
    },
    /// An engine is gone.
    Unregistered {
        /// The engine.
        uuid: EngineUuid,
    },
}

/// All that a relay can ask for.
#[derive(Clone, Debug)]
pub enum RelayEffect {
    /// Send a message to an engine: `[engine][idents..]` and the body as it came.
    ToEngine {
        /// The engine.
        engine: Identity,
        /// The client, then whatever else the client routed by.
        idents: Idents,
        /// The message.
        body: Body,
    },
    /// Send a message to a client: `[client][idents..]` and the body.
    ToClient {
        /// The client.
        client: Identity,
        /// The engine, then whatever else the engine routed by; nothing if the relay itself answers.
        idents: Idents,
        /// The message.
        body: Body,
    },
    /// Tell the hub. Only on the direct queue.
    Monitor(Monitor),
    /// A client asks an engine not to run these requests. Only on the control channel, once for each request relayed; never
    /// empty. For the task scheduler, which may still have them.
    Abort {
        /// The requests.
        msg_ids: Vec<MsgId>,
    },
    /// A message had no effect, or an error reply for an answer: log and count it.
    Refused {
        /// Who sent it.
        from: Identity,
        /// Why.
        refusal: Refusal,
    },
}
