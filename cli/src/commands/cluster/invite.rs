//! `remuda cluster invite`: a command that starts an engine of a cluster on another machine, or connects a client there.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use remuda_cluster::invitation::for_others;
use remuda_net::address;
use remuda_net::connection_file::{self, FileError};
use remuda_net::profile::variable;
use remuda_proto::invitation::{self, Invited};

use crate::args::cluster::InviteArgs;
use crate::failure::{Failure, Outcome};

/// How long a controller may take to let itself be connected to.
const PROBE: Duration = Duration::from_secs(2);

pub(super) fn run(args: &InviteArgs) -> Outcome {
    let profile = args.place.profile();
    let (variable, word, program) = if args.client {
        (
            variable::CLIENT,
            word(args, connection_file::read_client(&profile.client_file()))?,
            "remuda status".to_owned(),
        )
    } else {
        let word = word(args, connection_file::read_engine(&profile.engine_file()))?;
        (variable::CONNECT, word, engines(args.n.map(Into::into)))
    };
    writeln!(std::io::stdout().lock(), "{}", if args.word { word } else { command(variable, &word, &program) })?;
    Ok(ExitCode::SUCCESS)
}

/// The invitation to the controller of a connection file.
fn word<C: Invited>(args: &InviteArgs, file: Result<C, FileError>) -> Result<String, Failure> {
    let start = format!("remuda cluster start --ip='*'{}", args.place.options());
    let connection = file.map_err(|error| {
        Failure::new(error).hint(format!("start a cluster with `{start}`, or name another profile"))
    })?;
    let common = connection.common();
    let interface = address::connect_interface(common);
    if address::listens(&interface, common.registration, PROBE) == Some(false) {
        let what = format!("no controller listens at `{interface}:{}`", common.registration);
        return Err(Failure::new(anyhow::anyhow!(what)).hint(format!("start a cluster with `{start}`")));
    }
    let told = for_others(connection, args.location.as_deref(), address::host_name().as_deref());
    let told = told.map_err(|error| {
        let hint = format!(
            "start the controller with `--ip='*'` (`{start}`); or, where it is reached in another way, say how with `--location HOST`"
        );
        Failure::new(error).hint(hint)
    })?;
    Ok(invitation::to_word(&told))
}

/// What starts so many engines.
fn engines(count: Option<u32>) -> String {
    count.map_or_else(|| "remuda engine".to_owned(), |count| format!("remuda nanny -n {count}"))
}

/// The word is in the environment, which other users of a machine do not see, as they do arguments.
fn command(variable: &str, word: &str, program: &str) -> String {
    format!("{variable}={word} {program}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_has_the_word_where_other_users_do_not_see_it() {
        let line = |program: &str| command(variable::CONNECT, "remuda:x", program);
        assert_eq!(line(&engines(None)), "REMUDA_CONNECT=remuda:x remuda engine");
        assert_eq!(line(&engines(Some(8))), "REMUDA_CONNECT=remuda:x remuda nanny -n 8");
    }
}
