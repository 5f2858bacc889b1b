//! Where the store is: this host's own file, or one that hosts share.

use netloom_core::{ClientIdentity, Login, RemoteStoreConfig, StoreTransport, StoreUrl, TlsFiles};
use std::path::{Path, PathBuf};

use super::{ConfigError, Layer};

/// Where pools and ranges of addresses are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoreSetting {
    /// In a file of this host.
    File(PathBuf),
    /// In a store that hosts share.
    Shared(Box<RemoteStoreConfig>),
}

impl StoreSetting {
    /// The store's address, without secrets.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::File(path) => StoreUrl::File(path.clone()).to_string(),
            Self::Shared(config) => config.url.to_string(),
        }
    }

    pub(super) fn resolve(layer: &Layer, state_dir: &Path) -> Result<Self, ConfigError> {
        let url = match &layer.store {
            None => StoreUrl::File(state_dir.join(FILE)),
            Some(text) => text
                .parse()
                .map_err(|e: netloom_core::InvalidStoreUrl| bad("store", e.to_string()))?,
        };
        match url {
            StoreUrl::File(path) => {
                refuse_what_only_shared_stores_have(layer)?;
                Ok(Self::File(path))
            }
            StoreUrl::Remote(url) => {
                let mut config = RemoteStoreConfig::new(url);
                config.tls = tls(layer)?;
                config.login = login(layer)?;
                let named = config.tls != TlsFiles::default();
                if named && config.url.transport == StoreTransport::Plain {
                    let scheme = config.url.kind.scheme();
                    return Err(bad(
                        "store",
                        format!("files for TLS are named, but the address is not {scheme}+tls://"),
                    ));
                }
                Ok(Self::Shared(Box::new(config)))
            }
        }
    }

    /// The settings that give this again.
    pub(super) fn write(&self, layer: &mut Layer) {
        layer.store = Some(self.url());
        let Self::Shared(config) = self else {
            return;
        };
        layer.store_ca.clone_from(&config.tls.ca);
        if let Some(ClientIdentity { cert, key }) = &config.tls.identity {
            layer.store_cert = Some(cert.clone());
            layer.store_key = Some(key.clone());
        }
        match &config.login {
            Login::Nobody => {}
            Login::Password {
                user,
                password_file,
            } => {
                layer.store_user = Some(user.clone());
                layer.store_password_file = Some(password_file.clone());
            }
            Login::Token { token_file } => layer.store_token_file = Some(token_file.clone()),
        }
    }
}

fn tls(layer: &Layer) -> Result<TlsFiles, ConfigError> {
    let identity = match (&layer.store_cert, &layer.store_key) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some(ClientIdentity {
            cert: cert.clone(),
            key: key.clone(),
        }),
        (Some(_), None) => return Err(bad("store_cert", "it needs store_key beside it")),
        (None, Some(_)) => return Err(bad("store_key", "it needs store_cert beside it")),
    };
    Ok(TlsFiles {
        ca: layer.store_ca.clone(),
        identity,
    })
}

fn login(layer: &Layer) -> Result<Login, ConfigError> {
    match (
        &layer.store_user,
        &layer.store_password_file,
        &layer.store_token_file,
    ) {
        (None, None, None) => Ok(Login::Nobody),
        (Some(user), Some(file), None) => Ok(Login::Password {
            user: user.clone(),
            password_file: file.clone(),
        }),
        (None, None, Some(file)) => Ok(Login::Token {
            token_file: file.clone(),
        }),
        (Some(_), None, None) => Err(bad("store_user", "it needs store_password_file beside it")),
        (None, Some(_), None) => Err(bad("store_password_file", "it needs store_user beside it")),
        _ => Err(bad(
            "store_token_file",
            "a user with a password is named, too; name one of them",
        )),
    }
}

fn refuse_what_only_shared_stores_have(layer: &Layer) -> Result<(), ConfigError> {
    let given = [
        ("store_ca", layer.store_ca.is_some()),
        ("store_cert", layer.store_cert.is_some()),
        ("store_key", layer.store_key.is_some()),
        ("store_user", layer.store_user.is_some()),
        ("store_password_file", layer.store_password_file.is_some()),
        ("store_token_file", layer.store_token_file.is_some()),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((key, _)) => Err(bad(
            key,
            "the store is a file, which has nothing of the kind",
        )),
        None => Ok(()),
    }
}

fn bad(key: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError::value(key, reason)
}

/// The embedded store's file in the state directory.
pub(crate) const FILE: &str = "store.redb";
