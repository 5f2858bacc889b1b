use super::*;
use clap::{Args, Command};

fn from_file(text: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("netloom.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(Layer::default(), Some(&path))
}

#[test]
fn flag_variable_and_key_are_the_same_word() {
    let command = Layer::augment_args(Command::new("x"));
    let mut keys = Vec::new();
    for arg in command.get_arguments() {
        let id = arg.get_id().to_string();
        assert_eq!(arg.get_long().unwrap().replace('-', "_"), id);
        let env = arg.get_env().unwrap().to_str().unwrap();
        assert_eq!(env, format!("NETLOOM_{}", id.to_uppercase()));
        keys.push(id);
    }
    // The example file names every key, commented out, and nothing else.
    let example = include_str!("../../../../packaging/netloom.toml");
    for key in &keys {
        let line = format!("#{key} = ");
        assert!(example.contains(&line), "the example lacks {key}");
    }
    let named = example
        .lines()
        .filter(|l| l.starts_with('#') && !l.starts_with("# ") && *l != "#");
    assert_eq!(named.count(), keys.len());
}

/// Keys whose default is none, or differs from host to host.
const EXAMPLES: [&str; 5] = [
    "api_group",
    "store_",
    "metrics_listen",
    "default_pools",
    "first_interface_number",
];

#[test]
fn the_example_shows_the_defaults() {
    let example = include_str!("../../../../packaging/netloom.toml");
    assert_eq!(from_file(example).unwrap(), from_file("").unwrap());
    let shown: String = example
        .lines()
        .filter_map(|l| l.strip_prefix('#').filter(|rest| !rest.starts_with(' ')))
        .filter(|l| !EXAMPLES.iter().any(|key| l.starts_with(key)))
        .fold(String::new(), |all, l| all + l + "\n");
    assert_eq!(from_file(&shown).unwrap(), from_file("").unwrap());
}

#[test]
fn flags_win_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("netloom.toml");
    std::fs::write(&path, "deadline_ms = 500\nlog = \"warn\"\n").unwrap();
    let flags = Layer {
        log: Some("debug".into()),
        ..Layer::default()
    };
    let config = Config::load(flags, Some(&path)).unwrap();
    assert_eq!(config.log, "debug");
    assert_eq!(config.deadline, Duration::from_millis(500));
}

#[test]
fn an_unknown_key_is_named_with_its_file_and_line() {
    let error = from_file("log = \"info\"\nstatedir = \"/x\"\n").unwrap_err();
    let text = error.to_string();
    assert!(text.contains("netloom.toml"), "{text}");
    assert!(text.contains("line 2"), "{text}");
    assert!(text.contains("statedir"), "{text}");
}

#[test]
fn values_that_cannot_work_are_refused() {
    for bad in [
        "metrics_listen = \"0.0.0.0:9000\"",
        "metrics_listen = \"localhost\"",
        "deadline_ms = 5",
        "audit_interval_s = 0",
        "default_pools = [\"10.0.0.0/8\"]",
        "default_pools = [\"10.0.0.0/16:8\"]",
        "default_pools = [\"10.0.0.1/8:24\"]",
        "relay = \"maybe\"",
        "store = \"redis://h\"",
        "store_ca = \"/ca.pem\"",
        "store = \"etcd://h\"\nstore_ca = \"/ca.pem\"",
        "store = \"etcd+tls://h\"\nstore_cert = \"/c.pem\"",
        "store = \"etcd://h\"\nstore_user = \"u\"",
        "store = \"etcd://h\"\nstore_user = \"u\"\nstore_password_file = \"/p\"\nstore_token_file = \"/t\"",
    ] {
        assert!(from_file(bad).is_err(), "{bad} was accepted");
    }
    assert!(from_file("metrics_listen = \"[::1]:9000\"").is_ok());
}

#[test]
fn a_named_file_must_exist() {
    let error = Config::load(Layer::default(), Some(Path::new("/nonexistent/x.toml")));
    assert!(matches!(error, Err(ConfigError::Read { .. })));
}

#[test]
fn what_is_printed_gives_the_same_settings() {
    for text in [
        "relay = \"off\"\ndefault_pools = [\"fd00::/48:64\"]",
        "store = \"etcd+tls://a,b/x\"\nstore_ca = \"/ca\"\nstore_cert = \"/c\"\nstore_key = \"/k\"",
        "store = \"zk://a\"\nstore_user = \"u\"\nstore_password_file = \"/p\"",
        "store = \"consul://a\"\nstore_token_file = \"/t\"",
    ] {
        let config = from_file(text).unwrap();
        assert_eq!(from_file(&config.to_toml().unwrap()).unwrap(), config);
    }
}
