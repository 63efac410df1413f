//! The network, by the rules of `ZeroMQ`.
//!
//! Whole messages, in order on each connection, never twice. They are lost when a peer is gone, when a ROUTER knows no
//! such identity (yet, or any more), and when a PUB's subscriber is late.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use remuda_proto::{Body, Identity, Idents, Instant};

use crate::dice::Dice;
use crate::parameters::Latency;

/// Something with sockets outside the controller. The number counts from 0 and is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// An engine.
    Engine(u32),
    /// The process that watches over an engine.
    Nanny(u32),
    /// A client.
    Client(u32),
}

/// A socket of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// Registration and queries.
    Query,
    /// Notifications, a PUB.
    Notification,
    /// Tasks.
    Task,
    /// Direct requests.
    Mux,
    /// Control requests.
    Control,
    /// Requests to several engines at once.
    Broadcast,
    /// Output of engines.
    Output,
    /// Pings, a PUB.
    Ping,
    /// Pongs.
    Pong,
}

impl Channel {
    /// The channels that an engine connects once it is registered.
    pub const OF_ENGINES: [Self; 7] =
        [Self::Task, Self::Mux, Self::Control, Self::Broadcast, Self::Output, Self::Ping, Self::Pong];
    /// The channels of a client.
    pub const OF_CLIENTS: [Self; 7] =
        [Self::Query, Self::Notification, Self::Task, Self::Mux, Self::Control, Self::Broadcast, Self::Output];
    /// The channels that bring an engine's heart its pings and take its answers.
    pub const OF_HEARTS: [Self; 2] = [Self::Ping, Self::Pong];
}

/// What a message carries.
#[derive(Clone, Debug)]
pub enum Payload {
    /// A message, with what routing frames are left of it.
    Message(Idents, Body),
    /// One frame without form: pings and pongs.
    Raw(Vec<u8>),
}

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// To the controller.
    In,
    /// To the peer.
    Out,
}

/// A connection between a peer and one socket of the controller.
#[derive(Clone, Debug)]
struct Connection {
    /// When the controller's socket knows the peer. What it sends before is lost; what the peer sends before waits.
    up_at: Instant,
    /// When the last message in each direction arrives: none overtakes another.
    last: [Instant; 2],
    /// What would arrive at or after these times is lost: to the controller, to the peer.
    cut_at: [Option<Instant>; 2],
    /// When it last broke and was made again: what was on its way then is lost, to the controller and to the peer.
    broke_at: [Option<Instant>; 2],
    /// What the controller sends before it is up waits, since it knows the peer (`net/src/outbox.rs`).
    waits: bool,
    /// Added to each delay of what goes to the peer.
    lag: Duration,
}

/// All connections.
#[derive(Debug)]
pub struct Network {
    connections: BTreeMap<(Peer, Channel), Connection>,
    /// The keys of `connections`, by channel.
    peers: BTreeMap<Channel, BTreeSet<Peer>>,
    latency: Latency,
    dice: Dice,
    /// Before this the controller is not there.
    back_at: Instant,
    /// How many messages were lost.
    pub lost: u64,
}

impl Network {
    /// No connections yet.
    pub fn new(latency: Latency, dice: Dice) -> Self {
        Self { connections: BTreeMap::new(), peers: BTreeMap::new(), latency, dice, back_at: Instant(0), lost: 0 }
    }

    /// A peer connects to a socket; it takes a moment until the socket knows of it. Returns when that is.
    pub fn connect(&mut self, now: Instant, peer: Peer, channel: Channel) -> Instant {
        let up_at = now.max(self.back_at) + self.delay() + self.delay();
        let connection = Connection {
            up_at,
            last: [up_at; 2],
            cut_at: [None; 2],
            broke_at: [None; 2],
            waits: false,
            lag: Duration::ZERO,
        };
        self.connections.insert((peer, channel), connection);
        self.peers.entry(channel).or_default().insert(peer);
        up_at
    }

    /// A connection breaks, and the peer connects again under the same identity: what was on its way either way is lost,
    /// and what the controller sends until it is up. Returns when that is; `None`: there is no such connection.
    pub fn reconnect(&mut self, now: Instant, peer: Peer, channel: Channel) -> Option<Instant> {
        let after = self.delay() + self.delay();
        let connection = self.connections.get_mut(&(peer, channel))?;
        if connection.cut_at != [None; 2] {
            return None;
        }
        let up_at = now.max(connection.up_at).max(self.back_at) + after;
        (connection.up_at, connection.broke_at) = (up_at, [Some(now); 2]);
        connection.last = connection.last.map(|last| last.max(up_at));
        Some(up_at)
    }

    /// The controller is killed, and another one is there at `back_at`. What was on its way to it is lost; what it sent is
    /// with the system, and reaches clients. Of engines, some lose that too.
    pub fn controller_dies(&mut self, now: Instant, back_at: Instant) {
        self.back_at = back_at;
        let keys: Vec<_> = self.connections.keys().copied().collect();
        for key in keys {
            let after = self.delay() + self.delay();
            let loses = !matches!(key.0, Peer::Client(_)) && self.dice.percent(50);
            let Some(connection) = self.connections.get_mut(&key) else { continue };
            connection.up_at = connection.up_at.max(back_at) + after;
            connection.broke_at = [Some(now), if loses { Some(now) } else { connection.broke_at[1] }];
            connection.last[0] = connection.last[0].max(connection.up_at);
            connection.waits = !matches!(key.1, Channel::Notification | Channel::Output | Channel::Ping);
        }
    }

    /// When the controller's socket knows a peer, if it is to.
    pub fn up_at(&self, peer: Peer, channel: Channel) -> Option<Instant> {
        self.connections.get(&(peer, channel)).map(|connection| connection.up_at)
    }

    /// When a message that is sent now arrives; `None`: it is lost at once.
    pub fn send(&mut self, now: Instant, peer: Peer, channel: Channel, way: Way) -> Option<Instant> {
        let delay = self.delay();
        let arrival = self.connections.get_mut(&(peer, channel)).and_then(|connection| {
            let (sent, side) = match way {
                Way::In => (now.max(connection.up_at), 0),
                // A ROUTER or PUB forgets at the time of the cut; before it is up it knows nothing.
                Way::Out if connection.cut_at[1].is_some_and(|cut| cut <= now) => return None,
                Way::Out if now < connection.up_at && connection.waits => (connection.up_at, 1),
                Way::Out if now < connection.up_at => return None,
                Way::Out => (now + connection.lag, 1),
            };
            let arrival = (sent + delay).max(connection.last[side]);
            connection.last[side] = arrival;
            Some(arrival)
        });
        self.lost += u64::from(arrival.is_none());
        arrival
    }

    /// Whether what was sent then, and was to arrive now, does arrive.
    pub fn arrives(&mut self, now: Instant, sent: Instant, peer: Peer, channel: Channel, way: Way) -> bool {
        let arrives = self.connections.get(&(peer, channel)).is_none_or(|connection| {
            // What is sent at the moment of the break goes to the new connection, or nowhere.
            let broke = connection.broke_at[way as usize].is_some_and(|broke| sent < broke && broke <= now);
            !broke && connection.cut_at[way as usize].is_none_or(|cut| now < cut)
        });
        self.lost += u64::from(!arrives);
        arrives
    }

    /// A peer is killed: of what it has sent, a tail is lost with it. Nothing reaches it any more.
    pub fn kill(&mut self, now: Instant, peer: Peer) {
        let delay = self.delay();
        let inward = now + self.dice.duration(Duration::ZERO, delay);
        self.cut(peer, [inward, now]);
    }

    /// A peer ends well: what it has sent arrives.
    pub fn close(&mut self, now: Instant, peer: Peer) {
        self.cut(peer, [Instant(u64::MAX), now]);
    }

    fn cut(&mut self, peer: Peer, at: [Instant; 2]) {
        let of_peer = (peer, Channel::Query)..=(peer, Channel::Pong);
        for (_, connection) in self.connections.range_mut(of_peer) {
            connection.cut_at = at.map(Some);
        }
    }

    /// From now on, messages take the time that they mostly take.
    pub fn calm(&mut self) {
        self.latency.spike_percent = 0;
        self.connections.values_mut().for_each(|connection| connection.lag = Duration::ZERO);
    }

    /// From now on, what goes to this peer on this channel takes this much longer.
    pub fn lag(&mut self, peer: Peer, channel: Channel, lag: Duration) {
        if let Some(connection) = self.connections.get_mut(&(peer, channel)) {
            connection.lag = lag;
        }
    }

    /// The peers that a PUB has on this channel.
    pub fn peers(&self, channel: Channel) -> Vec<Peer> {
        self.peers.get(&channel).into_iter().flatten().copied().collect()
    }

    fn delay(&mut self) -> Duration {
        let Latency { low, high, spike_percent, spike } = self.latency;
        let delay = self.dice.duration(low, high);
        if self.dice.percent(spike_percent) { delay + self.dice.duration(Duration::ZERO, spike) } else { delay }
    }
}

/// The identity by which a ROUTER knows a client: five bytes that mean something only there.
pub fn client_identity(client: u32, channel: Channel) -> Identity {
    let [_, high, middle, low] = client.to_be_bytes();
    Identity::from(&[0, 0x80 | channel as u8, high, middle, low][..])
}

/// The client that a ROUTER knows by this identity.
pub fn client_of(identity: &Identity, channel: Channel) -> Option<u32> {
    match identity.as_bytes() {
        [0, on, high, middle, low] if *on == 0x80 | channel as u8 => {
            Some(u32::from_be_bytes([0, *high, *middle, *low]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Peer = Peer::Engine(0);

    fn network() -> Network {
        let latency = Latency {
            low: Duration::from_micros(10),
            high: Duration::from_millis(10),
            spike_percent: 5,
            spike: Duration::from_millis(50),
        };
        Network::new(latency, Dice::new(1, "network"))
    }

    #[test]
    fn messages_on_a_connection_arrive_in_order() {
        let mut network = network();
        network.connect(Instant(0), PEER, Channel::Task);
        let mut last = Instant(0);
        for at in 0..500 {
            let arrival = network.send(Instant(at * 1000), PEER, Channel::Task, Way::In).unwrap();
            assert!(arrival >= last);
            last = arrival;
        }
    }

    #[test]
    fn a_router_does_not_know_who_has_not_connected_yet_or_has_gone() {
        let mut network = network();
        assert_eq!(network.send(Instant(0), PEER, Channel::Task, Way::Out), None);
        network.connect(Instant(0), PEER, Channel::Task);
        assert_eq!(network.send(Instant(0), PEER, Channel::Task, Way::Out), None);
        assert!(network.send(Instant(0), PEER, Channel::Task, Way::In).is_some(), "what a peer sends waits");
        let later = Instant(1_000_000_000);
        assert!(network.send(later, PEER, Channel::Task, Way::Out).is_some());
        network.close(later, PEER);
        assert_eq!(network.send(later, PEER, Channel::Task, Way::Out), None);
        assert!(!network.arrives(later, later, PEER, Channel::Task, Way::Out));
        assert!(
            network.arrives(later, later, PEER, Channel::Task, Way::In),
            "what was sent before a clean end arrives"
        );
    }

    #[test]
    fn a_killed_peer_takes_the_tail_of_what_it_sent_with_it() {
        let mut network = network();
        network.connect(Instant(0), PEER, Channel::Task);
        network.kill(Instant(1_000_000_000), PEER);
        assert!(!network.arrives(Instant(2_000_000_000), Instant(0), PEER, Channel::Task, Way::In));
        assert!(network.arrives(Instant(999_999_999), Instant(0), PEER, Channel::Task, Way::In));
    }

    #[test]
    fn a_connection_that_broke_loses_what_was_on_its_way_and_nothing_that_the_peer_sends_afterwards() {
        let mut network = network();
        network.connect(Instant(0), PEER, Channel::Task);
        let now = Instant(1_000_000_000);
        let before = network.send(now, PEER, Channel::Task, Way::Out).unwrap();
        let broke = Instant(now.0 + 1);
        let up_at = network.reconnect(broke, PEER, Channel::Task).unwrap();
        assert!(!network.arrives(before, now, PEER, Channel::Task, Way::Out));
        assert_eq!(network.send(broke, PEER, Channel::Task, Way::Out), None);
        let waits = network.send(broke, PEER, Channel::Task, Way::In).unwrap();
        assert!(waits >= up_at && network.arrives(waits, broke, PEER, Channel::Task, Way::In));
        assert!(network.send(up_at, PEER, Channel::Task, Way::Out).is_some());
        network.close(up_at, PEER);
        assert_eq!(network.reconnect(up_at, PEER, Channel::Task), None, "it is gone");
    }

    #[test]
    fn an_identity_means_something_only_on_its_own_router() {
        let identity = client_identity(300, Channel::Mux);
        assert_eq!(client_of(&identity, Channel::Mux), Some(300));
        assert_eq!(client_of(&identity, Channel::Task), None);
        assert_eq!(identity.as_bytes().len(), 5);
    }
}
