//! Certificates that live as long as a server.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};

/// A certificate and its key, as PEM files.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
    /// Both in one file, key first, as ZooKeeper wants it.
    pub(super) both: PathBuf,
}

/// What a server with TLS and its clients need.
#[derive(Debug, Clone)]
pub(super) struct Certs {
    pub(super) ca: PathBuf,
    pub(super) server: Pair,
    pub(super) client: Pair,
}

type Ca = CertifiedIssuer<'static, KeyPair>;

impl Certs {
    /// Writes an authority's certificate, and those of a server at `listen` and of a client.
    pub(super) fn write(dir: &Path, listen: IpAddr) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "netloom lab");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let ca = dir.join("ca.pem");
        fs::write(&ca, authority.pem())?;
        Ok(Self {
            server: issue(dir, &authority, "server", listen)?,
            client: issue(dir, &authority, "client", listen)?,
            ca,
        })
    }
}

fn issue(dir: &Path, authority: &Ca, name: &str, listen: IpAddr) -> Result<Pair> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    if !names.contains(&listen.to_string()) {
        names.push(listen.to_string());
    }
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate()?;
    let cert = params.signed_by(&key, authority)?.pem();
    let key = key.serialize_pem();
    let pair = Pair {
        cert: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
        both: dir.join(format!("{name}-both.pem")),
    };
    fs::write(&pair.cert, &cert)?;
    fs::write(&pair.key, &key)?;
    fs::write(&pair.both, format!("{key}{cert}"))?;
    Ok(pair)
}
