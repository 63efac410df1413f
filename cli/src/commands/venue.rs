//! The cluster on which `map` and `run` run programs.

use std::io;
use std::time::Duration;

use remuda_client::{Client, ConnectError};
use remuda_cluster::LocalCluster;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::cluster::door;
use super::embedded;
use crate::args::VenueArgs;
use crate::connect::of_client;
use crate::failure::Failure;

/// Most that clients of ours keep of what a task says: enough to know that there is something. What programs write is read
/// from their engines.
pub(crate) const OUTPUT_LIMIT_BYTES: usize = 1024 * 1024;

/// SIGINT and SIGTERM.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The number of the next signal.
    pub(crate) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
        }
    }
}

/// Where the programs run.
pub(crate) struct Venue {
    pub(crate) client: Client,
    /// The cluster that was started for this command alone, if there was none.
    embedded: Option<(LocalCluster, tempfile::TempDir)>,
    /// How many programs its engines run at once; `None` if the controller does not say.
    pub(crate) slots: Option<usize>,
}

impl Venue {
    /// The profile's running cluster, or else one that is started for this command, with so many slots, if `may_start`
    /// agrees.
    pub(crate) async fn find(
        args: &VenueArgs,
        slots: usize,
        may_start: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<Self, Failure> {
        if !args.embedded
            && let Some((client, slots)) = running(args).await?
        {
            return Ok(Self { client, embedded: None, slots });
        }
        may_start()?;
        let (client, cluster, folder) = embedded::start(slots).await?;
        Ok(Self { client, embedded: Some((cluster, folder)), slots: Some(slots) })
    }

    /// Whether it was started for this command alone.
    pub(crate) fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    pub(crate) fn end(self) {
        drop(self.client);
        if let Some((cluster, _folder)) = self.embedded {
            cluster.stop();
        }
    }
}

/// A client of the profile's running cluster, and how many programs it runs at once; `None` if there is no cluster.
async fn running(args: &VenueArgs) -> Result<Option<(Client, Option<usize>)>, Failure> {
    let profile = args.place.profile();
    let (options, is_said) = of_client(&args.reach, &args.place);
    // A place that was named must be right; the default one may well have no cluster.
    let named = is_said || !args.place.options().is_empty();
    let path = options.path();
    let options = options.timeout(Duration::from_secs_f64(args.connect_timeout)).output_limit_bytes(OUTPUT_LIMIT_BYTES);
    let client = match Client::connect(options).await {
        Ok(client) => client,
        Err(ConnectError::NoFile { .. } | ConnectError::Stale { .. }) if !named => return Ok(None),
        Err(error) => {
            return Err(Failure::new(error).hint("use `--embedded` to start a cluster just for this command"));
        }
    };
    let status = client.status().await?;
    let programs = status.remuda.as_ref().map(|remuda| {
        let engines = remuda.engines.values().filter(|engine| engine.process);
        engines.map(|engine| engine.slots.max(1) as usize).sum()
    });
    // One that grows has as many as it may, as soon as there is work for them.
    let growth = if is_said { None } else { door::growth(&profile) }.filter(|growth| growth.native);
    let programs = growth.map_or(programs, |growth| programs.map(|programs: usize| programs.max(growth.max as usize)));
    if let Some(remuda) = &status.remuda
        && programs == Some(0)
    {
        let cluster = path.map_or_else(|| "the invitation".to_owned(), |path| format!("`{}`", path.display()));
        let how = if is_said {
            "add one with the line that `remuda cluster invite` prints where its controller runs".to_owned()
        } else {
            format!("add one with `remuda engine{}`", args.place.options())
        };
        return Err(Failure::new(anyhow::anyhow!(
            "the cluster of {cluster} has no engine that runs programs ({} engines in all)",
            remuda.engines.len()
        ))
        .hint(format!("{how}, or use `--embedded` to start a cluster just for this command")));
    }
    Ok(Some((client, programs)))
}
