//! How to get in: from the operator's words to a client.

use crate::error::Trouble;
use netloom_core::{ClientIdentity, Login, RemoteStoreConfig, StoreTransport, TlsFiles};
use std::path::Path;
use std::time::Duration;
use zookeeper_client::{
    Acls, Client, Error, SaslOptions, TlsCa, TlsCerts, TlsDynamicCerts, TlsIdentity, TlsOptions,
};

/// How long a session outlives its connection. Only liveness hangs on it, and 10 s lie within the
/// bounds (2 to 20 ticks of 2 s) that servers set by default.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// The system's certificates, where Debian and its relatives keep them, and where Red Hat's do.
const SYSTEM_ROOTS: [&str; 2] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];

/// A client, and what is needed to give it new certificates.
pub(crate) struct Connected {
    /// The client.
    pub(crate) client: Client,
    /// The certificates that its next connections use.
    pub(crate) certs: Option<TlsDynamicCerts>,
}

/// Opens a session, with files read just now.
pub(crate) async fn connect(config: &RemoteStoreConfig) -> Result<Connected, Trouble> {
    let mut connector = Client::connector()
        .with_session_timeout(SESSION_TIMEOUT)
        // A frozen server is left in time for the operation that meets it to be tried elsewhere.
        .with_connection_timeout(config.timeout.mul_f64(2.0 / 3.0));
    if let Login::Password {
        user,
        password_file,
    } = &config.login
    {
        let password = read(password_file).await?;
        let password = password.trim_end_matches(['\r', '\n']).to_owned();
        connector = connector.with_sasl(SaslOptions::digest_md5(user.clone(), password));
    }
    let servers: Vec<_> = config
        .url
        .endpoints
        .iter()
        .map(ToString::to_string)
        .collect();
    let servers = servers.join(",");
    let (client, certs) = match config.url.transport {
        StoreTransport::Plain => (connector.connect(&servers).await, None),
        StoreTransport::Tls => {
            let certs = TlsDynamicCerts::new(certificates(&config.tls).await?);
            let options = TlsOptions::new().with_certs(certs.clone());
            let client = connector.with_tls(options).secure_connect(&servers).await;
            (client, Some(certs))
        }
    };
    match client {
        Ok(client) => Ok(Connected { client, certs }),
        Err(Error::AuthFailed) => Err(Trouble::Denied(
            "the server refused the name or the password".to_owned(),
        )),
        Err(error) => Err(Trouble::Unavailable(format!("no session: {error}"))),
    }
}

/// Checks what can be checked without a server.
pub(crate) fn check(config: &RemoteStoreConfig) -> Result<(), Trouble> {
    match &config.login {
        Login::Nobody | Login::Password { .. } => Ok(()),
        Login::Token { .. } => Err(Trouble::Denied(
            "ZooKeeper knows no tokens; log in with a user and a password".to_owned(),
        )),
    }
}

/// Who may do what with the nodes that are made: whoever logged in, or else everybody.
pub(crate) fn acls(config: &RemoteStoreConfig) -> Acls<'static> {
    match config.login {
        Login::Nobody | Login::Token { .. } => Acls::anyone_all(),
        Login::Password { .. } => Acls::creator_all(),
    }
}

/// What TLS trusts and shows.
pub(crate) async fn certificates(files: &TlsFiles) -> Result<TlsCerts, Trouble> {
    let roots = match &files.ca {
        Some(path) => read(path).await?,
        None => system_roots().await?,
    };
    let ca = TlsCa::from_pem(&roots).map_err(|error| unusable(&error))?;
    let mut certs = TlsCerts::builder().with_ca(ca);
    if let Some(ClientIdentity { cert, key }) = &files.identity {
        let (cert, key) = (read(cert).await?, read(key).await?);
        let identity = TlsIdentity::from_pem(&cert, &key).map_err(|error| unusable(&error))?;
        certs = certs.with_identity(identity);
    }
    certs.build().map_err(|error| unusable(&error))
}

async fn system_roots() -> Result<String, Trouble> {
    for path in SYSTEM_ROOTS {
        if let Ok(roots) = tokio::fs::read_to_string(path).await {
            return Ok(roots);
        }
    }
    Err(Trouble::Unavailable(
        "this system has no file of root certificates; name one".to_owned(),
    ))
}

async fn read(path: &Path) -> Result<String, Trouble> {
    let text = tokio::fs::read_to_string(path).await;
    text.map_err(|error| Trouble::Unavailable(format!("{}: {error}", path.display())))
}

fn unusable(error: &Error) -> Trouble {
    Trouble::Unavailable(format!("the certificates cannot be used: {error}"))
}
