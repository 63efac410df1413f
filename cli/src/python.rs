//! Finding a Python that has ipyparallel, for engines that run Python.

use std::env;
use std::ffi::OsString;
use std::process::{Command, Stdio};

use crate::failure::Failure;

/// The variable that names the Python to use.
const VARIABLE: &str = "REMUDA_PYTHON";

/// The Python that is named, or by the variable, or else the first of `python3` and `python` that has ipyparallel.
///
/// # Errors
/// Where none has it.
pub(crate) fn find(named: Option<&str>) -> Result<OsString, Failure> {
    let from_environment = env::var_os(VARIABLE).filter(|python| !python.is_empty());
    let candidates: Vec<OsString> = match (named, from_environment) {
        (Some(python), _) => vec![python.into()],
        (None, Some(python)) => vec![python],
        (None, None) => vec!["python3".into(), "python".into()],
    };
    if let Some(python) = candidates.iter().find(|python| has_ipyparallel(python)) {
        return Ok(python.clone());
    }
    let names: Vec<String> = candidates.iter().map(|python| format!("`{}`", python.to_string_lossy())).collect();
    Err(Failure::new(anyhow::anyhow!("no Python with ipyparallel: {} has none", names.join(" nor "))).hint(format!(
        "install it (`pip install ipyparallel`), or name another Python in `{VARIABLE}`; for programs and Rust functions, \
         which need no Python, use `remuda engine` or `--engines native`"
    )))
}

fn has_ipyparallel(python: &OsString) -> bool {
    // Found, not imported: an import takes half a second.
    let look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('ipyparallel') is None)";
    let status = Command::new(python)
        .args(["-c", look])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// The program and first arguments of a stock engine.
pub(crate) fn engine_command(named: Option<&str>) -> Result<Vec<OsString>, Failure> {
    Ok(vec![find(named)?, "-m".into(), "ipyparallel.engine".into()])
}
