//! Example programs: an engine with functions of its own, and a client. See `src/bin`.
