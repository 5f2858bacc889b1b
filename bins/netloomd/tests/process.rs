//! The daemon as a process: what it says before it touches the kernel.
#![allow(
    clippy::unwrap_used,
    reason = "the allowance for tests does not reach their helpers"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "a test of a program starts the program"
)]

use std::path::Path;
use std::process::{Command, Output};

/// Runs netloomd, with nothing of this machine's settings.
fn netloomd(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_netloomd"))
        .env_clear()
        .env("NETLOOM_STATE_DIR", dir.join("state"))
        .env("NETLOOM_RUN_DIR", dir.join("run"))
        .env("NETLOOM_PLUGIN_SOCKET", dir.join("plugins/nl2.sock"))
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_settings_in_force_are_printed_and_can_be_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = netloomd(dir.path(), &["--print-config", "--deadline-ms", "4321"]);
    assert!(first.status.success(), "{}", text(&first.stderr));
    let printed = text(&first.stdout);
    assert!(printed.contains("deadline_ms = 4321"), "{printed}");
    assert!(printed.contains("nl2.sock"), "{printed}");
    let file = dir.path().join("netloom.toml");
    std::fs::write(&file, &printed).unwrap();
    let again = netloomd(
        dir.path(),
        &["--print-config", "--config", file.to_str().unwrap()],
    );
    assert_eq!(text(&again.stdout), printed);
}

#[test]
fn an_unknown_key_ends_the_start_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("netloom.toml");
    std::fs::write(&file, "\n\nfoo = 1\n").unwrap();
    let output = netloomd(dir.path(), &["--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains("line 3") && error.contains("foo"), "{error}");
}

#[test]
fn a_second_daemon_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let lock = std::fs::File::create(state.join("lock")).unwrap();
    lock.lock().unwrap();
    std::fs::write(state.join("lock"), "4711\n").unwrap();
    let output = netloomd(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains("in use by process 4711"), "{error}");
    assert!(
        !dir.path().join("plugins/nl2.sock").exists(),
        "a daemon that does not start leaves a socket that dockerd would wait for"
    );
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(netloomd(dir.path(), &["--nope"]).status.code(), Some(2));
}
