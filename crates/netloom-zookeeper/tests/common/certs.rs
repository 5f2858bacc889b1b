//! Certificates for one test.
#![allow(clippy::unwrap_used, reason = "a test may stop at any error")]

use netloom_core::{ClientIdentity, TlsFiles};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use std::path::{Path, PathBuf};

type Authority = CertifiedIssuer<'static, KeyPair>;

/// An authority, a server's certificate and a client's.
pub(crate) struct Certs {
    ca: PathBuf,
    server: PathBuf,
    client: PathBuf,
}

impl Certs {
    pub(crate) fn write(dir: &Path) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params, key).unwrap();
        let ca = dir.join("ca.pem");
        std::fs::write(&ca, authority.pem()).unwrap();
        Self {
            ca,
            server: issue(dir, &authority, "server"),
            client: issue(dir, &authority, "client"),
        }
    }

    /// What a client needs.
    pub(crate) fn files(&self) -> TlsFiles {
        TlsFiles {
            ca: Some(self.ca.clone()),
            identity: Some(ClientIdentity {
                cert: self.client.clone(),
                key: self.client.clone(),
            }),
        }
    }

    /// What a server needs that demands a certificate of its clients.
    pub(crate) fn server_lines(&self) -> Vec<String> {
        vec![
            "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory".to_owned(),
            format!("ssl.keyStore.location={}", self.server.display()),
            "ssl.keyStore.type=PEM".to_owned(),
            format!("ssl.trustStore.location={}", self.ca.display()),
            "ssl.trustStore.type=PEM".to_owned(),
            "ssl.clientAuth=need".to_owned(),
        ]
    }
}

/// Key and certificate in one file.
fn issue(dir: &Path, authority: &Authority, name: &str) -> PathBuf {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).unwrap();
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, authority).unwrap();
    let path = dir.join(format!("{name}.pem"));
    std::fs::write(&path, format!("{}{}", key.serialize_pem(), cert.pem())).unwrap();
    path
}
