//! Which ports the controller's sockets take.

use std::collections::VecDeque;

use remuda_net::{Context, Kind, NetError, Socket};
use remuda_proto::connection::{ClientConnection, EngineConnection};

/// Binds sockets at the ports of a list, in order, and at free ones when it runs out (`controller/app.py: next_port`).
pub(crate) struct Binder<'a> {
    context: &'a Context,
    interface: String,
    /// Ports still to be taken.
    ports: VecDeque<u16>,
    /// For transports without ports: numbers that stand in their place.
    stand_in: Option<u16>,
}

impl<'a> Binder<'a> {
    pub(crate) fn new(context: &'a Context, transport: &str, ip: &str, ports: impl IntoIterator<Item = u16>) -> Self {
        Self {
            context,
            interface: format!("{transport}://{ip}"),
            ports: ports.into_iter().collect(),
            stand_in: (transport != "tcp").then_some(1),
        }
    }

    pub(crate) fn interface(&self) -> &str {
        &self.interface
    }

    /// A bound socket and its port.
    pub(crate) fn bind(&mut self, kind: Kind, identity: Option<&str>) -> Result<(Socket, u16), NetError> {
        let asked = match self.ports.pop_front() {
            Some(port) => port,
            None => self.stand_in.map_or(0, |next| {
                self.stand_in = Some(next + 1);
                next
            }),
        };
        let mut builder = Socket::builder(self.context, kind)?;
        if let Some(identity) = identity {
            builder = builder.identity(identity.as_bytes())?;
        }
        let socket = builder.bind(&remuda_net::address::url(&self.interface, asked))?;
        let port = if asked == 0 { socket.port().unwrap_or_default() } else { asked };
        Ok((socket, port))
    }
}

/// The ports of a pair of connection files, in the order in which [`Binder`] is asked for them.
pub(crate) fn of_files(client: &ClientConnection, engine: &EngineConnection) -> Vec<u16> {
    let mut ports = vec![
        engine.common.registration,
        engine.control,
        engine.mux,
        engine.task,
        engine.iopub,
        engine.hb_ping,
        engine.hb_pong,
    ];
    ports.extend(&engine.broadcast);
    ports.extend([client.control, client.mux, client.task, client.iopub, client.notification, client.broadcast]);
    ports
}
