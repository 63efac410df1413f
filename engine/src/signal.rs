//! Names and numbers of signals, without asking the operating system.

/// Most signals are numbered alike everywhere; these differ between Linux and the others.
const fn number(linux: i32, other: i32) -> i32 {
    if cfg!(target_os = "linux") { linux } else { other }
}

/// SIGINT.
pub(crate) const INT: i32 = 2;
/// SIGKILL.
pub(crate) const KILL: i32 = 9;
/// SIGTERM.
pub(crate) const TERM: i32 = 15;

const NAMES: &[(&str, i32)] = &[
    ("SIGHUP", 1),
    ("SIGINT", INT),
    ("SIGQUIT", 3),
    ("SIGILL", 4),
    ("SIGTRAP", 5),
    ("SIGABRT", 6),
    ("SIGBUS", number(7, 10)),
    ("SIGFPE", 8),
    ("SIGKILL", KILL),
    ("SIGUSR1", number(10, 30)),
    ("SIGSEGV", 11),
    ("SIGUSR2", number(12, 31)),
    ("SIGPIPE", 13),
    ("SIGALRM", 14),
    ("SIGTERM", TERM),
    ("SIGCHLD", number(17, 20)),
    ("SIGCONT", number(18, 19)),
    ("SIGSTOP", number(19, 17)),
    ("SIGTSTP", number(20, 18)),
    ("SIGTTIN", 21),
    ("SIGTTOU", 22),
    ("SIGXCPU", 24),
    ("SIGXFSZ", 25),
    ("SIGVTALRM", 26),
    ("SIGPROF", 27),
    ("SIGWINCH", 28),
    ("SIGSYS", number(31, 12)),
];

/// `signal 9 (SIGKILL)`, or only the number of one without a name.
pub(crate) fn describe(signal: i32) -> String {
    match NAMES.iter().find(|(_, number)| *number == signal) {
        Some((name, _)) => format!("signal {signal} ({name})"),
        None => format!("signal {signal}"),
    }
}

/// The signal that a request names, by number or name (`engine/nanny.py: _handle_control`).
pub(crate) fn parse(sig: &serde_json::Value) -> Option<i32> {
    if let Some(wanted) = sig.as_i64() {
        return NAMES.iter().map(|(_, number)| *number).find(|number| i64::from(*number) == wanted);
    }
    let text = sig.as_str()?;
    NAMES.iter().find(|(name, _)| *name == text).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_signal_is_known_by_name_and_by_number() {
        assert_eq!(parse(&json!("SIGINT")), Some(2));
        assert_eq!(parse(&json!(15)), Some(15));
        for wrong in [json!(0), json!(-9), json!(40), json!("INT"), json!(null), json!(2.5), json!(true)] {
            assert_eq!(parse(&wrong), None, "{wrong}");
        }
        assert_eq!(describe(9), "signal 9 (SIGKILL)");
        assert_eq!(describe(40), "signal 40");
    }
}
