//! `remuda cluster invite`: a command that starts an engine of a cluster on another machine.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use remuda_cluster::invitation;
use remuda_net::profile::variable;
use remuda_net::{address, connection_file};

use crate::args::cluster::InviteArgs;
use crate::failure::{Failure, Outcome};

/// How long a controller may take to let itself be connected to.
const PROBE: Duration = Duration::from_secs(2);

pub(super) fn run(args: &InviteArgs) -> Outcome {
    let options = args.place.options();
    let start = format!("remuda cluster start --ip='*'{options}");
    let file = args.place.profile().engine_file();
    let connection = connection_file::read_engine(&file).map_err(|error| {
        Failure::new(error).hint(format!("start a cluster with `{start}`, or name another profile"))
    })?;
    let interface = address::connect_interface(&connection.common);
    if address::listens(&interface, connection.common.registration, PROBE) == Some(false) {
        let what = format!("no controller listens at `{interface}:{}`", connection.common.registration);
        return Err(Failure::new(anyhow::anyhow!(what)).hint(format!("start a cluster with `{start}`")));
    }
    let told = invitation::for_others(connection, args.location.as_deref(), address::host_name().as_deref());
    let told = told.map_err(|error| {
        let hint = format!(
            "start the controller with `--ip='*'` (`{start}`); or, where it is reached in another way, say how with `--location HOST`"
        );
        Failure::new(error).hint(hint)
    })?;
    let word = invitation::to_word(&told);
    writeln!(std::io::stdout().lock(), "{}", if args.word { word } else { command(&word, args.n.map(Into::into)) })?;
    Ok(ExitCode::SUCCESS)
}

/// The word is in the environment, which other users of a machine do not see, as they do arguments.
fn command(word: &str, engines: Option<u32>) -> String {
    let program = engines.map_or_else(|| "remuda engine".to_owned(), |engines| format!("remuda nanny -n {engines}"));
    format!("{}={word} {program}", variable::CONNECT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_has_the_word_where_other_users_do_not_see_it() {
        assert_eq!(command("remuda:x", None), "REMUDA_CONNECT=remuda:x remuda engine");
        assert_eq!(command("remuda:x", Some(8)), "REMUDA_CONNECT=remuda:x remuda nanny -n 8");
    }
}
