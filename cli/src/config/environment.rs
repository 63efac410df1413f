//! What the environment says (`apps/baseapp.py: init_config_from_env`, `controller/app.py`).

use remuda_net::profile::variable;

use super::{Given, Program};

/// The variables of the controller, and the options that they stand for. Profile and cluster id are looked up where the
/// profile is, in `remuda_net::profile`.
const CONTROLLER: [(&str, &str); 5] = [
    (variable::SESSION_KEY, "key"),
    (variable::ENABLE_CURVE, "enable-curve"),
    (variable::CURVE_SECRETKEY, "curve-secretkey"),
    (variable::CURVE_PUBLICKEY, "curve-publickey"),
    (variable::CONTROLLER_IP, "ip"),
];

/// The options that the environment gives.
pub(super) fn options(program: Program, variable: impl Fn(&str) -> Option<String>) -> Vec<Given> {
    let own: &[(&str, &str)] = if program == Program::Controller { &CONTROLLER } else { &[] };
    let mut given = Vec::new();
    for (name, option) in own {
        let Some(value) = variable(name).filter(|value| !value.is_empty()) else { continue };
        // Only a 1 switches CURVE on (`controller/app.py: _default_enable_curve`).
        let value = if *option == "enable-curve" { (value == "1").to_string() } else { value };
        given.push(Given { word: format!("--{option}={value}"), origin: format!("the variable `{name}`") });
    }
    if let Some(id) = variable(variable::CLUSTER_ID) {
        given.push(Given {
            word: format!("--cluster-id={id}"),
            origin: format!("the variable `{}`", variable::CLUSTER_ID),
        });
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_stand_for_options_and_only_a_1_switches_curve_on() {
        let words = |pairs: &[(&str, &str)]| {
            let find = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            options(Program::Controller, find).into_iter().map(|given| given.word).collect::<Vec<_>>()
        };
        assert_eq!(words(&[]), [""; 0]);
        assert_eq!(
            words(&[("IPP_SESSION_KEY", "k"), ("IPP_ENABLE_CURVE", "1"), ("IPP_CLUSTER_ID", "")]),
            ["--key=k", "--enable-curve=true", "--cluster-id="]
        );
        assert_eq!(words(&[("IPP_ENABLE_CURVE", "0"), ("IPP_SESSION_KEY", "")]), ["--enable-curve=false"]);
        assert_eq!(words(&[("IPP_CONTROLLER_IP", "10.0.0.1")]), ["--ip=10.0.0.1"]);
        assert!(options(Program::Engine, |_| Some("x".into())).iter().all(|given| given.word == "--cluster-id=x"));
    }
}
