//! Servers that let only some in.
#![allow(clippy::unwrap_used, reason = "a test may stop at any error")]

mod common;

use common::{create, key, open, suite, until};
use netloom_core::store::{CommitError, Operation, Store, StoreError, Transaction};
use netloom_core::{ClientIdentity, Login, RemoteStoreConfig, StoreKind};
use netloom_lab::proxy::Proxy;
use netloom_lab::servers::{Shape, StoreOptions, StoreServer};
use std::path::Path;
use zookeeper_client::{Acl, Acls, Client, CreateMode, Permission, SaslOptions};

fn users_only() -> StoreOptions {
    StoreOptions::new(StoreKind::ZooKeeper, Shape::Single).login()
}

/// Who the configuration says one is, and the file with the password.
fn login(config: &RemoteStoreConfig) -> (&str, &Path) {
    match &config.login {
        Login::Password {
            user,
            password_file,
        } => (user, password_file),
        other => panic!("{other:?}"),
    }
}

fn with_password_in(config: &RemoteStoreConfig, file: &Path) -> RemoteStoreConfig {
    let mut config = config.clone();
    let user = login(&config).0.to_owned();
    let password_file = file.to_owned();
    config.login = Login::Password {
        user,
        password_file,
    };
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_with_certificates_and_passwords_keeps_the_contract() {
    let options = users_only().tls();
    let server = StoreServer::with(&options).unwrap();
    let stranger = StoreServer::with(&options).unwrap();
    let config = server.url();
    let violations = suite(config.clone(), "tls").run().await;
    assert!(violations.is_empty(), "{violations:#?}");

    // Without a certificate of its own nobody comes in, nor to a server that is not trusted.
    let mut no_identity = config.clone();
    no_identity.tls.identity = None;
    let mut no_trust = config;
    no_trust.tls.ca = stranger.url().tls.ca;
    for config in [no_identity, no_trust] {
        let read = open(&config).await.get(&key("a")).await;
        assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_denied_until_the_file_holds_the_right_one() {
    let server = StoreServer::with(&users_only()).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "wrong\n").unwrap();
    let store = open(&with_password_in(&server.url(), file.path())).await;
    let read = store.get(&key("a")).await;
    assert!(matches!(read, Err(StoreError::Denied(_))), "{read:?}");
    let change = Transaction::new([Operation::Create(key("a"), vec![])]);
    let change = store.commit(change).await;
    assert!(matches!(change, Err(CommitError::Denied(_))), "{change:?}");
    std::fs::copy(login(&server.url()).1, file.path()).unwrap();
    until("the new password is used", || async {
        store.get(&key("a")).await.is_ok()
    })
    .await;
}

/// What was made by somebody who logged in is theirs alone, and what is somebody else's is denied.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_belong_to_the_user_that_made_them() {
    let server = StoreServer::with(&users_only()).unwrap();
    let config = server.url();
    let store = open(&config).await;
    create(&store, &key("netloom/a"), b"x").await;
    let (user, file) = login(&config);
    let password = std::fs::read_to_string(file).unwrap();
    let sasl = SaslOptions::digest_md5(user.to_owned(), password.trim_end().to_owned());
    let connector = Client::connector().with_sasl(sasl);
    let client = connector
        .connect(&config.url.endpoints[0].to_string())
        .await
        .unwrap();
    for path in ["/netloom", "/netloom/a", "/netloom/@store"] {
        let (acl, _) = client.get_acl(path).await.unwrap();
        assert_eq!(
            acl,
            [Acl::new(
                Permission::ALL,
                zookeeper_client::AuthId::new("sasl", user)
            )]
        );
    }

    let stranger = [Acl::new_const(Permission::ALL, "ip", "192.0.2.1")];
    let options = CreateMode::Persistent.with_acls(Acls::new(&stranger));
    client.create("/netloom/b", b"", &options).await.unwrap();
    let read = store.get(&key("netloom/b")).await;
    assert!(matches!(read, Err(StoreError::Denied(_))), "{read:?}");
    for at in ["netloom/b", "netloom/b/c"] {
        let change = Transaction::new([Operation::Create(key(at), vec![])]);
        let change = store.commit(change).await;
        assert!(
            matches!(change, Err(CommitError::Denied(_))),
            "{at}: {change:?}"
        );
    }
}

/// Certificates are read anew for every session, and again and again while one lasts.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_without_a_restart() {
    let options = StoreOptions::new(StoreKind::ZooKeeper, Shape::Single).tls();
    let server = StoreServer::with(&options).unwrap();
    let stranger = StoreServer::with(&options).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (cert, key_file) = (dir.path().join("cert"), dir.path().join("key"));
    let copy = |from: &StoreServer| {
        let identity = from.url().tls.identity.unwrap();
        std::fs::copy(identity.cert, &cert).unwrap();
        std::fs::copy(identity.key, &key_file).unwrap();
    };
    let proxy = Proxy::start(server.endpoints().pop().unwrap(), 1)
        .await
        .unwrap();
    let mut config = server.url_by(&[proxy.address()]);
    config.tls.identity = Some(ClientIdentity {
        cert: cert.clone(),
        key: key_file.clone(),
    });
    copy(&stranger);
    let store = open(&config).await;
    let read = store.get(&key("a")).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    copy(&server);
    until("the right certificate is used", || async {
        store.get(&key("a")).await.is_ok()
    })
    .await;

    // A session that runs, and loses its connection.
    copy(&stranger);
    until("the wrong certificate is used", || async {
        proxy.cut();
        store.get(&key("a")).await.is_err()
    })
    .await;
    copy(&server);
    until("the right certificate is used", || async {
        store.get(&key("a")).await.is_ok()
    })
    .await;
}
