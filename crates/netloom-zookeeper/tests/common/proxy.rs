//! A TCP proxy that does what networks do.
#![allow(clippy::unwrap_used, reason = "a test may stop at any error")]

use netloom_core::{RemoteStoreConfig, StoreEndpoint};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// A ping has 12 bytes; every request of ours has more.
const PING_BYTES: usize = 12;

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They go on.
    Pass,
    /// They go on later.
    Delay(Duration),
    /// They go on a few at a time.
    Trickle(usize),
    /// The next request ends its connection, and is lost. Once.
    CutBefore,
    /// The next request goes on, and its answer ends the connection and is lost. Once.
    CutAfter,
    /// They vanish.
    BlackHole,
}

#[derive(Debug)]
struct Shared {
    mode: Mutex<Mode>,
    cuts: AtomicU32,
}

/// A proxy in front of one server.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    listener: tokio::task::AbortHandle,
}

/// What both directions of a connection know.
#[derive(Debug, Default)]
struct Connection {
    cut: Notify,
    answer_is_lost: std::sync::atomic::AtomicBool,
}

impl Proxy {
    pub(crate) async fn start(server: &StoreEndpoint) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            mode: Mutex::new(Mode::Pass),
            cuts: AtomicU32::new(0),
        });
        let target = (server.host.clone(), server.port);
        let accepting = {
            let shared = shared.clone();
            tokio::spawn(async move {
                loop {
                    let (client, _) = listener.accept().await.unwrap();
                    let target = (target.0.clone(), target.1);
                    tokio::spawn(carry(client, target, shared.clone()));
                }
            })
        };
        Self {
            port,
            shared,
            listener: accepting.abort_handle(),
        }
    }

    /// The configuration with the proxy in the server's place.
    pub(crate) fn config(&self, config: &RemoteStoreConfig) -> RemoteStoreConfig {
        let mut config = config.clone();
        config.url.endpoints = vec![StoreEndpoint {
            host: "127.0.0.1".to_owned(),
            port: self.port,
        }];
        config
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    /// How many connections were cut.
    pub(crate) fn cuts(&self) -> u32 {
        self.shared.cuts.load(Ordering::Acquire)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn carry(client: TcpStream, target: (String, u16), shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let connection = Arc::new(Connection::default());
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = requests(from_client, to_server, &shared, &connection) => {}
        () = answers(from_server, to_client, &shared, &connection) => {}
        () = connection.cut.notified() => {}
    }
}

impl Shared {
    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap()
    }

    /// The mode for this request; a cut is used up by it.
    fn take(&self, bytes: usize) -> Mode {
        let mut mode = self.mode.lock().unwrap();
        let now = *mode;
        if matches!(now, Mode::CutBefore | Mode::CutAfter) {
            if bytes <= PING_BYTES {
                return Mode::Pass;
            }
            *mode = Mode::Pass;
        }
        now
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    connection: &Connection,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..count];
        match shared.take(count) {
            Mode::CutBefore => {
                shared.cuts.fetch_add(1, Ordering::AcqRel);
                return;
            }
            Mode::CutAfter => {
                connection.answer_is_lost.store(true, Ordering::Release);
                if to.write_all(bytes).await.is_err() {
                    return;
                }
            }
            mode => {
                if !forward(&mut to, bytes, mode).await {
                    return;
                }
            }
        }
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    connection: &Connection,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if connection.answer_is_lost.load(Ordering::Acquire) {
            shared.cuts.fetch_add(1, Ordering::AcqRel);
            connection.cut.notify_one();
            return;
        }
        let mode = match shared.mode() {
            Mode::CutBefore | Mode::CutAfter => Mode::Pass,
            mode => mode,
        };
        if !forward(&mut to, &buffer[..count], mode).await {
            return;
        }
    }
}

async fn forward(to: &mut OwnedWriteHalf, bytes: &[u8], mode: Mode) -> bool {
    match mode {
        Mode::BlackHole => true,
        Mode::Trickle(few) => {
            for some in bytes.chunks(few) {
                if to.write_all(some).await.is_err() {
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            true
        }
        Mode::Delay(time) => {
            tokio::time::sleep(time).await;
            to.write_all(bytes).await.is_ok()
        }
        Mode::Pass | Mode::CutBefore | Mode::CutAfter => to.write_all(bytes).await.is_ok(),
    }
}
