//! What keeps a controller from starting, all of it at once.

use std::path::Path;

use remuda_cluster::Interface;
use remuda_net::{address, connection_file};
use remuda_proto::{ClientConnection, EngineConnection};

use super::{curve, http, interface, key, packers, resolve, store};
use crate::args::controller::ControllerArgs;
use crate::failure::Failure;

/// All that keeps a controller with these arguments from starting, as far as it can be told before: what contradicts itself, files
/// that cannot be read, ports that are in use.
pub(in crate::commands) fn problems(args: &ControllerArgs) -> Vec<Failure> {
    let profile = args.place.profile();
    let ipc = Interface::ipc_of(&profile);
    let each = [
        packers(args),
        interface(args, &ipc, args.engine_transport, args.engine_ip.as_deref()).map(drop),
        interface(args, &ipc, args.client_transport, args.client_ip.as_deref()).map(drop),
        key(args).map(drop),
        curve(args).map(drop),
        store(args, &profile).map(drop),
    ];
    let mut problems: Vec<Failure> = Vec::new();
    for problem in each.into_iter().filter_map(Result::err) {
        // What is wrong for both sides is told once.
        if !problems.iter().any(|known| known.text() == problem.text()) {
            problems.push(problem);
        }
    }
    if let Ok(config) = resolve(args) {
        problems.extend(http(args, &config).err());
        let ours = ports_of(&config.client_file, &config.engine_file);
        for busy in remuda_cluster::busy_ports(&config) {
            let hint = if !busy.is_in_use() {
                "give others with `--port`, `--ports`, `--engine-ports` or `--client-ports`, or another `--ip`"
                    .to_owned()
            } else if ours.contains(&busy.port) {
                let options = args.place.options();
                format!(
                    "the controller of this profile seems to run already: `remuda doctor{options}` says whether it does"
                )
            } else {
                format!(
                    "`ss -ltnp 'sport = :{}'` says who has it: end that, or give another with `--port`, `--ports`, \
                     `--engine-ports` or `--client-ports`",
                    busy.port
                )
            };
            problems.push(Failure::new(anyhow::anyhow!("{busy}")).hint(hint));
        }
        if let Some(address) = args.http.filter(|address| address.socket().port() != 0)
            && let Err(error) = address::can_listen(address.socket())
        {
            let error = anyhow::Error::new(error).context(format!("cannot listen for HTTP at `{address}`"));
            problems.push(Failure::new(error).hint("give another port with `--http`; 0 takes a free one"));
        }
    }
    problems
}

/// The ports in a pair of connection files, as far as they are there.
pub(in crate::commands) fn ports_of(client: &Path, engine: &Path) -> Vec<u16> {
    let client = connection_file::read::<ClientConnection>(client).ok().map(|file| {
        let ClientConnection { common, control, mux, task, iopub, notification, broadcast, .. } = file;
        vec![common.registration, control, mux, task, iopub, notification, broadcast]
    });
    let engine = connection_file::read::<EngineConnection>(engine).ok().map(|file| {
        let EngineConnection { common, control, mux, task, iopub, hb_ping, hb_pong, broadcast } = file;
        [vec![common.registration, control, mux, task, iopub, hb_ping, hb_pong], broadcast].concat()
    });
    client.into_iter().chain(engine).flatten().collect()
}
