//! Servers that let only some in.
#![allow(clippy::unwrap_used, reason = "a test may stop at any error")]

mod common;

use common::{Certs, Options, Single, create, key, open, suite, until};
use netloom_core::store::{CommitError, Operation, Store, StoreError, Transaction};
use netloom_core::{Login, RemoteStoreConfig, TlsFiles};
use std::path::Path;

/// Users and passwords as a server with SASL wants them.
fn with_users(dir: &Path) -> Options {
    let jaas = dir.join("jaas.conf");
    let users = "user_alice=\"secret\" user_eve=\"other\"";
    let module = "org.apache.zookeeper.server.auth.DigestLoginModule";
    let text = format!("Server {{ {module} required {users}; }};\n");
    std::fs::write(&jaas, text).unwrap();
    Options {
        lines: vec![
            "authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider".to_owned(),
            "sessionRequireClientSASLAuth=true".to_owned(),
        ],
        java: vec![format!(
            "-Djava.security.auth.login.config={}",
            jaas.display()
        )],
        tls: false,
    }
}

fn login(config: &RemoteStoreConfig, dir: &Path, user: &str, password: &str) -> RemoteStoreConfig {
    let password_file = dir.join(format!("{user}.{password}"));
    std::fs::write(&password_file, format!("{password}\n")).unwrap();
    let mut config = config.clone();
    let user = user.to_owned();
    config.login = Login::Password {
        user,
        password_file,
    };
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_with_certificates_and_passwords_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certs::write(dir.path());
    let mut options = with_users(dir.path());
    options.lines.extend(certs.server_lines());
    options.tls = true;
    let server = Single::with(options).await;
    let mut config = login(&server.config(), dir.path(), "alice", "secret");
    config.tls = certs.files();
    let violations = suite(config.clone(), "tls").run().await;
    assert!(violations.is_empty(), "{violations:#?}");

    // Without a certificate of its own nobody comes in, nor to a server that is not trusted.
    let stranger = tempfile::tempdir().unwrap();
    let mut no_identity = config.clone();
    no_identity.tls.identity = None;
    let mut no_trust = config;
    no_trust.tls = TlsFiles {
        ca: Certs::write(stranger.path()).files().ca,
        ..certs.files()
    };
    for config in [no_identity, no_trust] {
        let read = open(&config).await.get(&key("a")).await;
        assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_denied_until_the_file_holds_the_right_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = Single::with(with_users(dir.path())).await;
    let config = login(&server.config(), dir.path(), "alice", "wrong");
    let store = open(&config).await;
    let read = store.get(&key("a")).await;
    assert!(matches!(read, Err(StoreError::Denied(_))), "{read:?}");
    let change = Transaction::new([Operation::Create(key("a"), vec![])]);
    let change = store.commit(change).await;
    assert!(matches!(change, Err(CommitError::Denied(_))), "{change:?}");
    std::fs::write(dir.path().join("alice.wrong"), "secret\n").unwrap();
    until("the new password is used", || async {
        store.get(&key("a")).await.is_ok()
    })
    .await;
}

/// What one user made, another one cannot read or change.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_belong_to_the_user_that_made_them() {
    let dir = tempfile::tempdir().unwrap();
    let server = Single::with(with_users(dir.path())).await;
    let alice = open(&login(&server.config(), dir.path(), "alice", "secret")).await;
    let at = key("netloom/a");
    let version = create(&alice, &at, b"x").await;
    let eve = open(&login(&server.config(), dir.path(), "eve", "other")).await;
    let read = eve.get(&at).await;
    assert!(matches!(read, Err(StoreError::Denied(_))), "{read:?}");
    for change in [
        Operation::Update(at.clone(), b"y".to_vec(), version.clone()),
        Operation::Delete(at.clone(), version),
        Operation::Create(key("netloom/b"), vec![]),
    ] {
        let change = eve.commit(Transaction::new([change])).await;
        assert!(matches!(change, Err(CommitError::Denied(_))), "{change:?}");
    }
    assert_eq!(alice.get(&at).await.unwrap().unwrap().value, b"x");
}
