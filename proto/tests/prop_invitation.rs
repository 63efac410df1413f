//! Invitations: what is written is read back, and nothing else is read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use remuda_proto::EngineConnection;
use remuda_proto::invitation::{InvitationError, PREFIX, to_word};
use serde_json::json;

fn from_word(word: &str) -> Result<EngineConnection, InvitationError> {
    remuda_proto::invitation::from_word(word)
}

prop_compose! {
    fn connection()(
        ports in prop::collection::vec(any::<u16>(), 7),
        broadcast in prop::collection::vec(any::<u16>(), 0..20),
        (ip, key, location, ssh) in ("[0-9a-z.*:]{0,20}", ".{0,40}", ".{0,20}", ".{0,20}"),
        curve in proptest::option::of("[ -~]{40}"),
        pack in prop::sample::select(vec!["json", "msgpack"]),
    ) -> EngineConnection {
        serde_json::from_value(json!({
            "interface": format!("tcp://{ip}"), "location": location, "ssh": ssh, "key": key, "pack": pack, "unpack": pack,
            "curve_serverkey": curve, "registration": ports[0], "control": ports[1], "mux": ports[2], "task": ports[3],
            "iopub": ports[4], "hb_ping": ports[5], "hb_pong": ports[6], "broadcast": broadcast,
        })).unwrap()
    }
}

proptest! {
    #[test]
    fn a_connection_comes_back_as_it_was(connection in connection()) {
        let word = to_word(&connection);
        prop_assert_eq!(from_word(&word).unwrap(), connection);
        // A shell takes it for one word, and does nothing with it.
        let letters = word.strip_prefix(PREFIX).unwrap();
        prop_assert!(letters.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    }

    #[test]
    fn a_word_that_lost_something_is_none(connection in connection(), at in any::<prop::sample::Index>()) {
        let word = to_word(&connection);
        let at = at.index(word.len());
        prop_assert!(from_word(&word[..at]).is_err());
        prop_assert!(from_word(&word[at + 1..]).is_err());
        prop_assert!(from_word(&[&word[..at], &word[at + 1..]].concat()).is_err());
    }

    #[test]
    fn a_word_in_which_a_letter_was_changed_is_none(
        connection in connection(), at in any::<prop::sample::Index>(), letter in "[A-Za-z0-9_:./ -]"
    ) {
        let word = to_word(&connection);
        let at = at.index(word.len());
        prop_assume!(word[at..=at] != letter);
        prop_assert!(from_word(&[&word[..at], &letter, &word[at + 1..]].concat()).is_err());
    }

    #[test]
    fn whatever_it_is_nothing_panics(text in ".{0,200}") {
        prop_assert!(from_word(&text).is_err());
        let word = format!("{PREFIX}{text}");
        prop_assert!(from_word(&word).is_err());
    }
}
