//! New connections, with TLS where it is asked for.

use super::BoxError;
use super::pool::Idle;
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use netloom_core::{ClientIdentity, StoreEndpoint, StoreTransport, TlsFiles};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How connections are made.
#[derive(Debug)]
pub(crate) struct Dialer {
    transport: StoreTransport,
    files: TlsFiles,
}

impl Dialer {
    pub(crate) fn new(transport: StoreTransport, files: TlsFiles) -> Self {
        Self { transport, files }
    }

    /// Whether the files are there and say what they should.
    pub(crate) async fn check(&self) -> Result<(), BoxError> {
        if self.transport == StoreTransport::Tls {
            self.tls().await?;
        }
        Ok(())
    }

    /// Connects. Certificates are read anew each time, so that they are changed without a restart.
    pub(crate) async fn dial(&self, to: &StoreEndpoint) -> Result<Idle, BoxError> {
        let stream = TcpStream::connect((to.host.as_str(), to.port)).await?;
        stream.set_nodelay(true)?;
        match self.transport {
            StoreTransport::Plain => greet(stream).await,
            StoreTransport::Tls => {
                let name = ServerName::try_from(to.host.clone())?;
                let connector = TlsConnector::from(self.tls().await?);
                greet(connector.connect(name, stream).await?).await
            }
        }
    }

    async fn tls(&self) -> Result<Arc<ClientConfig>, BoxError> {
        let files = self.files.clone();
        // The system's roots are a file of some hundred certificates.
        tokio::task::spawn_blocking(move || config(&files)).await?
    }
}

async fn greet<S>(stream: S) -> Result<Idle, BoxError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await?;
    // An error of the connection shows in the request or the body as well.
    let mover = tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(Idle::new(sender, mover))
}

fn config(files: &TlsFiles) -> Result<Arc<ClientConfig>, BoxError> {
    // Named, not the process's default: there are two, and which one is set is not ours to say.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(files.ca.as_deref())?);
    let config = match &files.identity {
        None => builder.with_no_client_auth(),
        Some(ClientIdentity { cert, key }) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unfit(key, &error))?;
            builder.with_client_auth_cert(certificates(cert)?, key)?
        }
    };
    Ok(Arc::new(config))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, BoxError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(ca) => {
            for certificate in certificates(ca)? {
                roots.add(certificate)?;
            }
        }
        None => {
            // One odd certificate among the system's does not make the others bad.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err("no certificate is there to trust".into());
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, BoxError> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| unfit(file, &error))
}

fn unfit(file: &Path, error: &dyn std::error::Error) -> BoxError {
    format!("{}: {error}", file.display()).into()
}
