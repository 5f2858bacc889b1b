//! Docker's option names, in netloom's words.
//!
//! What a user typed is never dropped in silence where it could have been a wall: unknown words of
//! Docker's bridge and of ours are refused, words of other programs are logged.

use crate::failure::Failure;
use netloom_core::Options;
use serde_json::{Map, Value};
use tracing::{debug, warn};

const OURS: &str = "netloom.";

/// What becomes of one of Docker's options.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// The value is handed on under this name.
    Text(&'static str),
    /// As `Text`, with Go's spellings of true and false made one.
    Flag(&'static str),
    /// Docker has acted on it already.
    Dockers,
    /// True only where Docker itself says so by a flag of its own, which this names.
    UseFlag(&'static str),
}

/// Docker's bridge options, see Docker's documentation of the bridge driver.
const NETWORK_RULES: &[(&str, Rule)] = &[
    (
        "com.docker.network.bridge.name",
        Rule::Text("netloom.bridge.name"),
    ),
    (
        "com.docker.network.bridge.enable_ip_masquerade",
        Rule::Flag("netloom.masquerade"),
    ),
    (
        "com.docker.network.bridge.enable_icc",
        Rule::Flag("netloom.icc"),
    ),
    (
        "com.docker.network.bridge.host_binding_ipv4",
        Rule::Text("netloom.host_binding"),
    ),
    (
        "com.docker.network.bridge.host_binding_ipv6",
        Rule::Text("netloom.host_binding_ipv6"),
    ),
    (
        "com.docker.network.bridge.inhibit_ipv4",
        Rule::Flag("netloom.inhibit_gateway"),
    ),
    (
        "com.docker.network.bridge.gateway_mode_ipv4",
        Rule::Text("netloom.gateway_mode_ipv4"),
    ),
    (
        "com.docker.network.bridge.gateway_mode_ipv6",
        Rule::Text("netloom.gateway_mode_ipv6"),
    ),
    (
        "com.docker.network.bridge.trusted_host_interfaces",
        Rule::Text("netloom.trusted_interfaces"),
    ),
    // It marks docker0, and people copy it from `docker network inspect bridge`.
    ("com.docker.network.bridge.default_bridge", Rule::Dockers),
    ("com.docker.network.driver.mtu", Rule::Text("netloom.mtu")),
    (
        "com.docker.network.host_ipv4",
        Rule::Text("netloom.snat_ipv4"),
    ),
    (
        "com.docker.network.host_ipv6",
        Rule::Text("netloom.snat_ipv6"),
    ),
    (
        "com.docker.network.container_iface_prefix",
        Rule::Text("netloom.ifname_prefix"),
    ),
    ("com.docker.network.enable_ipv4", Rule::Dockers),
    ("com.docker.network.enable_ipv6", Rule::Dockers),
    ("com.docker.network.internal", Rule::UseFlag("--internal")),
    // Docker 29 sends the announcements itself.
    ("com.docker.network.advertise_addr_nmsgs", Rule::Dockers),
    ("com.docker.network.advertise_addr_ms", Rule::Dockers),
];

/// Options of an endpoint that reach a driver. Docker applies the sysctls itself, to interfaces that
/// it moves; the driver has to know, so that it leaves the moving to Docker.
const ENDPOINT_RULES: &[(&str, &str)] = &[
    ("com.docker.network.endpoint.ifname", "netloom.ifname"),
    ("com.docker.network.endpoint.sysctls", "netloom.sysctls"),
];

/// Prefixes of Docker's words for bridges; an unknown one is a misspelling, or newer than this.
const DRIVER_WORDS: [&str; 2] = ["com.docker.network.bridge.", "com.docker.network.driver."];

/// The options of a network (`-o k=v`).
pub(super) fn network_options(generic: &Map<String, Value>) -> Result<Options, Failure> {
    let mut options = Options::new();
    for (key, value) in generic {
        let text = text_of(key, value)?;
        match rule(key) {
            Some(Rule::Text(name)) => put(&mut options, name, text)?,
            Some(Rule::Flag(name)) => put(&mut options, name, flag(key, &text)?.to_string())?,
            Some(Rule::Dockers) => debug!(key, "an option that Docker acts on itself"),
            Some(Rule::UseFlag(instead)) => {
                if flag(key, &text)? {
                    return Err(Failure::refused(format!(
                        "the option {key} has no effect here; use `docker network create {instead}`"
                    )));
                }
            }
            None if key.starts_with(OURS) => put(&mut options, key, text)?,
            None => foreign(key)?,
        }
    }
    Ok(options)
}

/// The options of one endpoint (`--driver-opt k=v`), which stand among Docker's own.
pub(super) fn endpoint_options(all: &Map<String, Value>) -> Result<Options, Failure> {
    let mut options = Options::new();
    for (key, value) in all {
        if let Some((_, name)) = ENDPOINT_RULES.iter().find(|(docker, _)| docker == key) {
            let text = text_of(key, value)?;
            // Docker may write the key for every endpoint and leave it empty.
            if !text.is_empty() {
                put(&mut options, name, text)?;
            }
        } else if key.starts_with(OURS) {
            put(&mut options, key, text_of(key, value)?)?;
        } else if looks_like_ours(key) {
            return Err(misspelt(key));
        } else if !key.starts_with("com.docker.network.") {
            warn!(key = %short(key), "an endpoint option of another program is ignored");
        }
    }
    Ok(options)
}

/// The options of an address pool (`--ipam-opt k=v`); `known` are all that there are.
pub(super) fn ipam_options<'a>(
    all: impl IntoIterator<Item = (&'a String, &'a String)>,
    known: &[&str],
) -> Result<Options, Failure> {
    let mut options = Options::new();
    for (key, value) in all {
        if known.contains(&key.as_str()) {
            put(&mut options, key, value.clone())?;
        } else if key.starts_with(OURS) {
            return Err(Failure::refused(format!(
                "there is no IPAM option {:?}; there are {}",
                short(key),
                known.join(", ")
            )));
        } else if looks_like_ours(key) {
            return Err(misspelt(key));
        } else {
            warn!(key = %short(key), "an IPAM option of another program is ignored");
        }
    }
    Ok(options)
}

/// Sets an option; two spellings of one option must agree.
pub(super) fn put(options: &mut Options, name: &str, value: String) -> Result<(), Failure> {
    match options.insert(name.to_owned(), value) {
        Some(before) if options.get(name) != Some(&before) => Err(Failure::refused(format!(
            "the option {name} is given twice with different values ({:?} and {:?}), once by \
             another name of it; keep one",
            before,
            options.get(name).map_or("", String::as_str)
        ))),
        _ => Ok(()),
    }
}

/// True and false as Go's `strconv.ParseBool` reads them, which Docker uses for its options.
pub(super) fn flag(key: &str, text: &str) -> Result<bool, Failure> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Failure::refused(format!(
            "the option {key} is {text:?}, but must be true or false"
        ))),
    }
}

/// A text, also where a client of the API wrote a bare number or truth value.
fn text_of(key: &str, value: &Value) -> Result<String, Failure> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Null => Ok(String::new()),
        Value::Array(_) | Value::Object(_) => Err(Failure::refused(format!(
            "the option {:?} must be a text",
            short(key)
        ))),
    }
}

fn rule(key: &str) -> Option<Rule> {
    NETWORK_RULES
        .iter()
        .find(|(name, _)| *name == key)
        .map(|(_, rule)| *rule)
}

fn foreign(key: &str) -> Result<(), Failure> {
    if looks_like_ours(key) {
        return Err(misspelt(key));
    }
    if DRIVER_WORDS.iter().any(|words| key.starts_with(words)) {
        return Err(Failure::refused(format!(
            "the option {:?} is not known to netloom; check its spelling, or leave it out",
            short(key)
        )));
    }
    warn!(key = %short(key), "a network option of another program is ignored");
    Ok(())
}

/// Ours but for case or a missing dot. What is right up to the dot is the driver's to judge.
fn looks_like_ours(key: &str) -> bool {
    let head: String = key.chars().take(7).collect();
    head.eq_ignore_ascii_case("netloom") && !key.starts_with(OURS)
}

fn misspelt(key: &str) -> Failure {
    Failure::refused(format!(
        "the option {:?} is not known; netloom's options are written netloom.name, in lower case",
        short(key)
    ))
}

/// Hostile keys neither fill the log nor the answer.
fn short(key: &str) -> String {
    key.chars().take(80).collect()
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "helpers take literals")]
mod tests {
    use super::*;
    use serde_json::json;

    fn network(generic: Value) -> Result<Options, Failure> {
        network_options(generic.as_object().unwrap())
    }

    #[test]
    fn every_option_of_dockers_bridge_has_a_name_of_ours() {
        let names = network(json!({
            "com.docker.network.bridge.name": "br7",
            "com.docker.network.bridge.enable_ip_masquerade": "F",
            "com.docker.network.bridge.enable_icc": "TRUE",
            "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1",
            "com.docker.network.bridge.inhibit_ipv4": "1",
            "com.docker.network.bridge.gateway_mode_ipv4": "routed",
            "com.docker.network.bridge.gateway_mode_ipv6": "isolated",
            "com.docker.network.bridge.trusted_host_interfaces": "eth0:eth1",
            "com.docker.network.driver.mtu": "1400",
            "com.docker.network.host_ipv4": "192.0.2.1",
            "com.docker.network.host_ipv6": "2001:db8::1",
            "com.docker.network.container_iface_prefix": "lan",
        }))
        .unwrap();
        let text = |name: &str| names.get(name).map(String::as_str);
        assert_eq!(text("netloom.bridge.name"), Some("br7"));
        assert_eq!(text("netloom.masquerade"), Some("false"));
        assert_eq!(text("netloom.icc"), Some("true"));
        assert_eq!(text("netloom.host_binding"), Some("127.0.0.1"));
        assert_eq!(text("netloom.inhibit_gateway"), Some("true"));
        assert_eq!(text("netloom.gateway_mode_ipv4"), Some("routed"));
        assert_eq!(text("netloom.gateway_mode_ipv6"), Some("isolated"));
        assert_eq!(text("netloom.trusted_interfaces"), Some("eth0:eth1"));
        assert_eq!(text("netloom.mtu"), Some("1400"));
        assert_eq!(text("netloom.snat_ipv4"), Some("192.0.2.1"));
        assert_eq!(text("netloom.snat_ipv6"), Some("2001:db8::1"));
        assert_eq!(text("netloom.ifname_prefix"), Some("lan"));
        assert_eq!(names.len(), 12);
    }

    #[test]
    fn a_misspelt_wall_is_not_left_out_in_silence() {
        for key in [
            "com.docker.network.bridge.enable_iccc",
            "com.docker.network.driver.mtuu",
            "Netloom.icc",
            "netloom_icc",
            "NETLOOM",
        ] {
            assert!(
                network(json!({ key: "false" })).is_err(),
                "{key} was dropped"
            );
        }
        assert!(network(json!({ "com.docker.network.internal": "true" })).is_err());
        assert!(network(json!({ "com.docker.network.bridge.enable_icc": "no" })).is_err());
    }

    #[test]
    fn words_of_other_programs_are_ignored() {
        let generic = json!({ "org.example.colour": "blue", "com.example.x": "y" });
        assert!(network(generic).unwrap().is_empty());
    }

    #[test]
    fn two_names_of_one_option_must_agree() {
        let key = "com.docker.network.bridge.enable_icc";
        assert!(network(json!({ key: "1", "netloom.icc": "true" })).is_ok());
        assert!(network(json!({ key: "0", "netloom.icc": "true" })).is_err());
    }

    #[test]
    fn an_endpoints_options_stand_among_dockers() {
        let all = json!({
            "com.docker.network.endpoint.exposedports": [],
            "com.docker.network.endpoint.ifname": "lan0",
            "com.docker.network.endpoint.sysctls": "",
            "netloom.weight": "7",
            "other": {"odd": 1},
        });
        let options = endpoint_options(all.as_object().unwrap()).unwrap();
        assert_eq!(options.get("netloom.ifname").unwrap(), "lan0");
        assert_eq!(options.get("netloom.weight").unwrap(), "7");
        assert_eq!(options.len(), 2);
    }
}
