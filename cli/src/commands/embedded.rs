//! A cluster for one command: a controller and an engine as children, in a folder of its own.

use std::ffi::OsString;
use std::time::Duration;

use remuda_client::Client;
use remuda_cluster::{LocalCluster, Programs};
use remuda_net::Profile;
use tempfile::TempDir;

use crate::commands::cluster::{engines_ready, this_program};
use crate::failure::Failure;

/// Period of the heartbeat in milliseconds: an engine is there after the second beat, and nobody likes to wait.
const HEART_PERIOD_MS: u32 = 50;
/// As many missed beats as make 30 s: on a busy machine an engine may be late, and here its death is seen otherwise.
const HEART_MISSES: u32 = 600;
/// How many tasks are with the engine for each that runs: it starts one as soon as another ends, and need not wait for
/// the controller to hear of it.
const HWM: &str = "16";
/// How long the engine may take to be there.
const ENGINES_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts it, and connects to it once the engine is there, which runs so many programs at once.
pub(super) async fn start(slots: usize) -> Result<(Client, LocalCluster, TempDir), Failure> {
    let folder = tempfile::Builder::new().prefix("remuda-map-").tempdir()?;
    let profile = Profile::at(folder.path(), "");
    profile.create()?;
    let words = |words: &[&str]| -> Result<Vec<OsString>, Failure> {
        let parent = std::process::id().to_string();
        let all = [words, &["--parent", &parent, "--log-level", "warn"]].concat();
        Ok([this_program()?].into_iter().chain(all.into_iter().map(OsString::from)).collect())
    };
    let (period, misses) = (HEART_PERIOD_MS.to_string(), HEART_MISSES.to_string());
    let programs = Programs {
        controller: words(&["controller", "--ping", &period, "--max-heart-misses", &misses, "--hwm", HWM, "--nodb"])?,
        engine: words(&["engine", "--slots", &slots.to_string()])?,
    };
    let mut cluster = LocalCluster::start(&programs, &profile, 1, Duration::ZERO, false)?;
    let client = engines_ready(&mut cluster, 1, ENGINES_TIMEOUT).await?;
    Ok((client, cluster, folder))
}
