//! One connection to one member, made by us and never again by a library.

use crate::failure::{ConnectionGone, Failure};
use etcd_client::{Channel, Client, ConnectOptions};
use hyper_util::rt::TokioIo;
use netloom_core::{Login, RemoteStoreConfig, StoreEndpoint, StoreTransport};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

/// A member that no longer answers is noticed by pings: etcd hangs up on clients that ping more
/// often than every 5 seconds (`--grpc-keepalive-min-time`).
const PING_INTERVAL: Duration = Duration::from_secs(6);
/// How long a ping may stay unanswered.
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// A password, a certificate or a key that is larger is none.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A connection and whom it leads to.
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) endpoint: StoreEndpoint,
    /// What the files looked like before they were read for this connection.
    pub(crate) files: Fingerprint,
}

/// Connects to `endpoint` and logs in, with the files as they are now.
pub(crate) async fn connect(
    config: &RemoteStoreConfig,
    endpoint: &StoreEndpoint,
) -> Result<Connection, Failure> {
    let files = fingerprint(config).await;
    let target = target(config, endpoint).await?;
    let login = login(&config.login).await?;
    let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port))
        .await
        .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
        .map_err(|error| not_sent(format!("{endpoint}: {error}")))?;
    let once = Mutex::new(Some(TokioIo::new(stream)));
    // The channel asks its connector again when the connection has ended. It gets none: only so is
    // it certain which requests were never sent, and are files read anew for every connection.
    let connector = tower::service_fn(move |_| {
        let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move { stream.ok_or(ConnectionGone) }
    });
    let channel = target
        .connect_with_connector(connector)
        .await
        .map_err(|error| not_sent(format!("{endpoint}: {}", chain(&error))))?;
    let client = log_in(Channel::Tonic(channel), login).await?;
    Ok(Connection {
        client,
        endpoint: endpoint.clone(),
        files,
    })
}

/// A server that knows no users at all is told none: then access is open, and it is the server's
/// operator who left it so.
async fn log_in(channel: Channel, login: Option<(String, String)>) -> Result<Client, Failure> {
    // A member that has lost its leader says so instead of waiting, and ends its watches. The
    // library's own way to renew a token sends requests again by itself, and stays off.
    let options = || ConnectOptions::new().with_require_leader(true);
    let with_login = match login {
        Some((user, password)) => options().with_user(user, password),
        None => options(),
    };
    match Client::from_channel(channel.clone(), Some(with_login)).await {
        Err(etcd_client::Error::GRpcStatus(status))
            if status
                .message()
                .starts_with("etcdserver: authentication is not enabled") =>
        {
            Ok(Client::from_channel(channel, Some(options())).await?)
        }
        other => other.map_err(|error| Failure::from(error).before_the_request()),
    }
}

async fn target(config: &RemoteStoreConfig, endpoint: &StoreEndpoint) -> Result<Endpoint, Failure> {
    let scheme = match config.url.transport {
        StoreTransport::Plain => "http",
        StoreTransport::Tls => "https",
    };
    let invalid = |error: tonic::transport::Error| not_sent(format!("{endpoint}: {error:?}"));
    let target = Endpoint::from_shared(format!("{scheme}://{endpoint}"))
        .map_err(invalid)?
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        // Without a request or a watch under way, etcd allows a ping every two hours only.
        .keep_alive_while_idle(false);
    match config.url.transport {
        StoreTransport::Plain => Ok(target),
        StoreTransport::Tls => target.tls_config(tls(config).await?).map_err(invalid),
    }
}

async fn tls(config: &RemoteStoreConfig) -> Result<ClientTlsConfig, Failure> {
    let tls = ClientTlsConfig::new();
    let tls = match &config.tls.ca {
        Some(ca) => tls.ca_certificate(Certificate::from_pem(read(ca).await?)),
        None => tls.with_native_roots(),
    };
    match &config.tls.identity {
        None => Ok(tls),
        Some(identity) => {
            let (cert, key) = (read(&identity.cert).await?, read(&identity.key).await?);
            Ok(tls.identity(Identity::from_pem(cert, key)))
        }
    }
}

async fn login(login: &Login) -> Result<Option<(String, String)>, Failure> {
    match login {
        Login::Nobody => Ok(None),
        Login::Token { .. } => Err(Failure::Denied(
            "etcd knows no tokens: configure a user and the file of its password".into(),
        )),
        Login::Password {
            user,
            password_file,
        } => {
            let password = String::from_utf8(read(password_file).await?)
                .map_err(|_| not_sent(format!("{}: not UTF-8", password_file.display())))?;
            let password = password.trim_end_matches(['\r', '\n']).to_owned();
            Ok(Some((user.clone(), password)))
        }
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let wrong = |error: &dyn core::fmt::Display| not_sent(format!("{}: {error}", path.display()));
    let meta = tokio::fs::metadata(path).await.map_err(|e| wrong(&e))?;
    if !meta.is_file() || meta.len() > FILE_BYTES_MAX {
        return Err(wrong(&"not a file of up to 1 MiB"));
    }
    tokio::fs::read(path).await.map_err(|e| wrong(&e))
}

fn not_sent(why: String) -> Failure {
    Failure::NotSent(why.into())
}

/// The causes of an error in one line; the transport's own word is only "transport error".
fn chain(error: &dyn core::error::Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        words = format!("{words}: {error}");
        next = error.source();
    }
    words
}

/// When each file was last changed, its size, and which file it is.
pub(crate) type Fingerprint = Vec<Option<(SystemTime, u64, u64)>>;

/// The files that say who we are and whom we trust.
pub(crate) fn files(config: &RemoteStoreConfig) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = config.tls.ca.iter().cloned().collect();
    if let Some(identity) = &config.tls.identity {
        files.extend([identity.cert.clone(), identity.key.clone()]);
    }
    if let Login::Password { password_file, .. } = &config.login {
        files.push(password_file.clone());
    }
    files
}

/// What the files look like now.
pub(crate) async fn fingerprint(config: &RemoteStoreConfig) -> Fingerprint {
    let mut prints = Vec::new();
    for file in files(config) {
        let meta = tokio::fs::metadata(&file).await;
        let print = meta.and_then(|meta| Ok((meta.modified()?, meta.len(), meta.ino())));
        prints.push(print.ok());
    }
    prints
}
