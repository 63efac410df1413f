//! How a controller is set up, for people who look for what is wrong. Keys are no part of it.

use remuda_hub::{Limits, MAX_LIVE_TASKS, StoreKind, heart, store::SqliteConfig};
use remuda_net::Unsent;
use remuda_scheduler::task::TaskConfig;
use serde_json::{Value, json};

use crate::controller::ControllerConfig;

/// Every setting, with what follows from its default, and every limit; `max_engines` is what the limit on engines comes to.
pub(crate) fn in_effect(config: &ControllerConfig, max_engines: usize) -> Value {
    // Taken apart whole, so that a new setting is not forgotten here.
    let ControllerConfig {
        profile,
        client_file,
        engine_file,
        engine_interface,
        client_interface,
        location,
        ssh,
        engine_ssh,
        ports: _,
        broadcast_depth,
        key,
        curve,
        packer,
        heart: heart::Config { period, max_misses },
        registration_timeout,
        task:
            TaskConfig {
                scheme,
                hwm,
                grace,
                reattach,
                priority_age,
                max_pending_tasks,
                max_pending_bytes,
                max_finished_ids,
                max_message_bytes,
                // That of the records.
                durability: _,
                seed: _,
            },
        max_engines: _,
        unsent: Unsent { max_bytes: max_unread_bytes, keep },
        max_hub_lag,
        max_store_lag,
        max_store_lag_bytes,
        store,
        restore,
        reuse,
    } = config;
    let records = match store {
        StoreKind::Memory(Limits { records, size_bytes, cull_fraction }) => json!({
            "kind": "memory", "max_records": records, "max_bytes": size_bytes, "cull_fraction": cull_fraction,
        }),
        StoreKind::Sqlite(SqliteConfig { path, table, durability, keep }) => json!({
            "kind": "sqlite", "path": path, "table": table, "durability": durability.name(),
            "keep_s": keep.age.map(|age| age.as_secs_f64()), "keep_records": keep.records, "keep_bytes": keep.bytes,
        }),
        _ => json!({"kind": "none"}),
    };
    let default_timeout = remuda_hub::Config::with_heart_period(*period).registration_timeout;
    json!({
        "profile_dir": profile.dir(),
        "client_file": client_file,
        "engine_file": engine_file,
        "engine_interface": engine_interface.to_string(),
        "client_interface": client_interface.to_string(),
        "location": location,
        "ssh": ssh,
        "engine_ssh": engine_ssh,
        "broadcast_depth": broadcast_depth,
        "signed": key.as_ref().map_or_else(|| curve.is_none(), |key| !key.is_empty()),
        "encrypted": curve.is_some(),
        "packer": packer.name(),
        "ping_ms": u64::try_from(period.as_millis()).unwrap_or(u64::MAX),
        "max_heart_misses": max_misses,
        "registration_timeout_s": registration_timeout.unwrap_or(default_timeout).as_secs_f64(),
        "scheme": scheme.to_string(),
        "hwm": hwm,
        "grace_s": grace.as_secs_f64(),
        "reattach_s": reattach.as_secs_f64(),
        "priority_age_s": priority_age.as_secs_f64(),
        "records": records,
        "restore": restore,
        "reuse": reuse,
        "limits": {
            "max_pending_tasks": max_pending_tasks,
            "max_pending_bytes": max_pending_bytes,
            "max_finished_ids": max_finished_ids,
            "max_tracked_tasks": MAX_LIVE_TASKS,
            "max_engines": max_engines,
            "max_hub_lag": max_hub_lag,
            "max_store_lag": max_store_lag,
            "max_store_lag_bytes": max_store_lag_bytes,
            "max_message_bytes": max_message_bytes,
            "max_unread_bytes": max_unread_bytes,
            "reconnect_timeout_s": keep.as_secs_f64(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use remuda_net::Profile;

    #[test]
    fn what_is_in_effect_says_whether_there_is_a_key_and_not_which() {
        let mut config = ControllerConfig::new(Profile::at("/nowhere/profile", ""));
        for (key, signed) in [(None, true), (Some("secret-key"), true), (Some(""), false)] {
            config.key = key.map(str::to_owned);
            let value = in_effect(&config, 1);
            assert_eq!(value["signed"], signed);
            assert!(!value.to_string().contains("secret-key"));
        }
    }
}
