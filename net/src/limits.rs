//! Limits of the process.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit on open files to the hard one, and returns it: each peer takes several.
pub fn raise_open_files() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft }
}

/// The limit on open files as it is, in force.
pub fn open_files() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)
}

/// The limit to which that can be raised without more rights; 0 if it cannot be told.
pub fn most_open_files() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_limit_is_raised_once_and_for_all() {
        let limit = super::raise_open_files();
        assert!(limit > 0);
        assert_eq!(super::raise_open_files(), limit);
    }
}
