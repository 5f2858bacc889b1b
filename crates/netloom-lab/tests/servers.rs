//! The stores' servers start, are troubled, and leave nothing behind.
#![allow(
    clippy::disallowed_methods,
    reason = "what runs is found in the process list"
)]

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use netloom_core::store::Key;
use netloom_core::{Login, StoreKind, StoreTransport};
use netloom_lab::servers::{EtcdVersion, Shape, StoreOptions, StoreServer};
use netloom_lab::until;

/// The processes of a server, by their numbers: all must be gone.
fn pids(server: &StoreServer) -> Vec<u32> {
    (0..server.members())
        .map(|member| server.pid(member).expect("it runs"))
        .collect()
}

fn runs(pid: u32) -> bool {
    PathBuf::from(format!("/proc/{pid}/exe"))
        .read_link()
        .is_ok()
}

fn connects(server: &StoreServer) -> bool {
    let mut endpoints = server.endpoints().into_iter();
    endpoints.all(|endpoint| TcpStream::connect(endpoint).is_ok())
}

fn starts_and_leaves_nothing(options: &StoreOptions) {
    let server = StoreServer::with(options).expect("it starts");
    assert!(connects(&server));
    assert_eq!(server.leader().expect("it leads itself"), 0);
    let pids = pids(&server);
    let logs = server.url().tls.ca;
    drop(server);
    // Their sockets went with them; their ports may be another server's by now.
    assert!(!pids.into_iter().any(runs));
    assert!(!logs.is_some_and(|path| path.exists()));
}

#[test]
fn one_etcd_starts_and_leaves_nothing() {
    starts_and_leaves_nothing(&StoreOptions::new(StoreKind::Etcd, Shape::Single));
}

#[test]
fn one_etcd_of_the_next_line_starts_with_tls_and_login() {
    let options = StoreOptions::new(StoreKind::Etcd, Shape::Single);
    starts_and_leaves_nothing(&options.etcd(EtcdVersion::Sid35).tls().login());
}

#[test]
fn one_etcd_starts_with_tls_login_and_a_quota() {
    let options = StoreOptions::new(StoreKind::Etcd, Shape::Single);
    starts_and_leaves_nothing(&options.tls().login().quota(16 << 20));
}

#[test]
fn one_consul_starts_and_leaves_nothing() {
    starts_and_leaves_nothing(&StoreOptions::new(StoreKind::Consul, Shape::Single));
}

#[test]
fn one_consul_starts_with_tls_and_login() {
    starts_and_leaves_nothing(
        &StoreOptions::new(StoreKind::Consul, Shape::Single)
            .tls()
            .login(),
    );
}

#[test]
fn one_zookeeper_starts_and_leaves_nothing() {
    starts_and_leaves_nothing(&StoreOptions::new(StoreKind::ZooKeeper, Shape::Single));
}

#[test]
fn one_zookeeper_starts_with_tls_and_login() {
    starts_and_leaves_nothing(
        &StoreOptions::new(StoreKind::ZooKeeper, Shape::Single)
            .tls()
            .login(),
    );
}

#[test]
fn three_etcds_elect_another_leader_and_take_a_member_back() {
    elect_another_leader_and_take_a_member_back(StoreKind::Etcd);
}

#[test]
fn three_consuls_elect_another_leader_and_take_a_member_back() {
    elect_another_leader_and_take_a_member_back(StoreKind::Consul);
}

#[test]
fn three_zookeepers_elect_another_leader_and_take_a_member_back() {
    elect_another_leader_and_take_a_member_back(StoreKind::ZooKeeper);
}

fn elect_another_leader_and_take_a_member_back(kind: StoreKind) {
    let mut server = StoreServer::start(kind, Shape::Three).expect("they start");
    let first = server.leader().expect("one leads");
    server.kill(first).expect("it runs");
    let second = server.leader().expect("another leads");
    assert_ne!(first, second);
    server.restart(first).expect("it comes back");
    server.pause(second).expect("it runs");
    assert_ne!(server.leader().expect("a third leads"), second);
    server.resume(second).expect("it is frozen");
    server.await_answer(second).expect("it follows");
}

#[test]
fn what_stopped_servers_kept_is_copied_put_back_and_removed() {
    let options = StoreOptions::new(StoreKind::Etcd, Shape::Single).login();
    let mut server = StoreServer::with(&options).expect("it starts");
    assert!(server.snapshot_data().is_err(), "a server runs");
    server.stop_all().expect("it runs");
    server.snapshot_data().expect("it is stopped");
    server.wipe().expect("it is stopped");
    server.restore_data().expect("there is a copy");
    server.start_all().expect("it starts on the copy");
    server.wipe().expect("it runs");
    server.start_all().expect("it starts empty, with a login");
}

#[test]
fn a_client_learns_how_to_get_in() {
    let options = StoreOptions::new(StoreKind::Consul, Shape::Single);
    let server = StoreServer::with(&options.tls().login()).expect("it starts");
    let config = server.url();
    assert_eq!(config.url.kind, StoreKind::Consul);
    assert_eq!(config.url.transport, StoreTransport::Tls);
    assert_eq!(config.url.prefix, Key::new("netloom").expect("a key"));
    let identity = config.tls.identity.expect("a certificate is wanted");
    let Login::Token { token_file } = config.login else {
        panic!("a token is wanted")
    };
    for file in [
        &config.tls.ca.expect("an authority"),
        &identity.cert,
        &identity.key,
        &token_file,
    ] {
        let text = fs::read_to_string(file).expect("it is there");
        assert!(!text.trim().is_empty());
    }
}

/// Runs as a program of its own when its name is asked for; see the test below.
#[test]
#[ignore = "hangs until it is killed; the next test runs it"]
fn holds_a_server_until_killed() {
    let server = StoreServer::start(StoreKind::Etcd, Shape::Single).expect("it starts");
    let pid = server.pid(0).expect("it runs");
    let file = std::env::var("NETLOOM_LAB_PID_FILE").expect("the next test sets it");
    fs::write(format!("{file}.new"), pid.to_string()).expect("a file");
    fs::rename(format!("{file}.new"), file).expect("a file");
    loop {
        std::thread::park();
    }
}

#[test]
fn servers_end_with_a_test_that_is_killed() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("pid");
    let this = std::env::current_exe().expect("a test program");
    let mut child = std::process::Command::new(this)
        .args([
            "--exact",
            "holds_a_server_until_killed",
            "--include-ignored",
        ])
        .env("NETLOOM_LAB_PID_FILE", &file)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    let started = until("the server", 90, || Path::new(&file).exists());
    child.kill().expect("it hangs");
    child.wait().expect("it is ours");
    started.expect("the server starts");
    let pid = fs::read_to_string(&file).expect("it is there");
    let pid: u32 = pid.parse().expect("a number");
    until("its end", 10, || !runs(pid)).expect("the kernel ends it");
}
