//! The heart: it returns each ping as it came, on a thread that does nothing else.

use std::ops::ControlFlow;
use std::thread::JoinHandle;

use remuda_net::{Clock, Context, Driver, Input, Kind, Mailbox, NetError, Sender, Socket, drive, mailbox};
use remuda_proto::{Instant, Machine, Now};

use crate::machine::Event;

/// A beat, frame by frame: no message of a session, so neither framed nor signed (`controller/heartmonitor.py: Heart`).
type Beat = Vec<Vec<u8>>;

/// Sends back what comes.
struct Echo;

impl Machine for Echo {
    type Event = Beat;
    type Effect = Beat;

    fn handle(&mut self, _: Now, beat: Beat, out: &mut Vec<Beat>) {
        out.push(beat);
    }
    fn deadline(&self) -> Option<Instant> {
        None
    }
    fn on_deadline(&mut self, _: Now, _: &mut Vec<Beat>) {}
}

struct Outside {
    /// Pings in, pongs out.
    sockets: [Socket; 2],
    /// Told of each ping, after it was answered.
    engine: Sender<Event>,
}

const PING: usize = 0;
const PONG: usize = 1;

impl Driver for Outside {
    type Machine = Echo;

    fn sockets(&self) -> &[Socket] {
        &self.sockets
    }

    fn receive(&mut self, index: usize, _: Now) -> Input<Beat> {
        self.sockets[index].receive_raw().map_or(Input::None, Input::Event)
    }

    fn reads(&self, index: usize) -> bool {
        index == PING
    }

    fn perform(&mut self, beat: Beat) -> ControlFlow<()> {
        self.sockets[PONG].send_raw(&beat);
        self.engine.send(Event::Ping);
        ControlFlow::Continue(())
    }
}

/// A heart that beats until it is dropped.
pub(crate) struct Heart {
    /// Nothing is ever sent: when it goes, the thread ends.
    stop: Option<Sender<Beat>>,
    thread: Option<JoinHandle<()>>,
}

impl Heart {
    /// Starts to answer the pings of `ping_url` at `pong_url`.
    pub(crate) fn start(
        context: &Context,
        identity: &[u8],
        ping_url: &str,
        pong_url: &str,
        engine: Sender<Event>,
    ) -> Result<Self, NetError> {
        let pong = Socket::builder(context, Kind::Dealer)?.identity(identity)?.connect([pong_url])?;
        let ping = Socket::builder(context, Kind::Sub)?.connect([ping_url])?;
        let mut outside = Outside { sockets: [ping, pong], engine };
        let (stop, inbox): (_, Mailbox<Beat>) = mailbox()?;
        let thread = std::thread::Builder::new()
            .name("heart".to_owned())
            .spawn(move || drive(&mut Echo, &mut outside, &inbox, Clock::new()))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.stop = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the heart's thread panicked");
        }
    }
}
