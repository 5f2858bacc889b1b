//! Serves a router on a socket until the daemon stops; answers that are under way are finished.

use axum::Router;
use axum::serve::ListenerExt;
use std::io;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};

use crate::api::PeerInfo;
use crate::background::Stop;

/// After the word to stop, answers under way get this long: one deadline of a plugin call.
pub(crate) const DRAIN: Duration = Duration::from_secs(10);

/// Waits for the word to stop.
pub(crate) async fn stopped(mut stop: Stop) {
    // A sender that is gone has ended: that is a stop, too.
    let _ = stop.wait_for(|stop| *stop).await;
}

pub(crate) async fn plugin(listener: UnixListener, router: Router, stop: Stop) -> io::Result<()> {
    axum::serve(listener, router)
        .with_graceful_shutdown(stopped(stop))
        .await
}

pub(crate) async fn api(listener: UnixListener, router: Router, stop: Stop) -> io::Result<()> {
    let service = router.into_make_service_with_connect_info::<PeerInfo>();
    axum::serve(listener, service)
        .with_graceful_shutdown(stopped(stop))
        .await
}

pub(crate) async fn metrics(listener: TcpListener, router: Router, stop: Stop) -> io::Result<()> {
    // Scrapers keep connections for long: small answers must not wait for more to send.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a metrics connection keeps its delay");
        }
    });
    axum::serve(listener, router)
        .with_graceful_shutdown(stopped(stop))
        .await
}
