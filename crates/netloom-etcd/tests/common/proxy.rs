//! A network between the store and its server that can be made bad.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Everything comes that much later.
    Delay(Duration),
    /// So many bytes each millisecond.
    Trickle(usize),
    /// Answers wait until the next mode.
    Stall,
    /// Requests arrive, answers do not.
    Swallow,
    /// Connections are made, and nothing arrives.
    BlackHole,
    /// The next bytes of a client end its connection, and do not arrive.
    CutBefore,
    /// Connections end at once.
    Refuse,
}

pub struct Proxy {
    pub port: u16,
    /// The mode, and a number that ends all connections when it grows.
    state: watch::Sender<(Mode, u64)>,
    connections: Arc<AtomicUsize>,
    target: Arc<AtomicU16>,
}

impl Proxy {
    pub async fn before(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (state, seen) = watch::channel((Mode::Pass, 0));
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let target = Arc::new(AtomicU16::new(target));
        let leads_to = target.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let seen = seen.clone();
                if seen.has_changed().is_err() {
                    return;
                }
                let target = leads_to.load(Ordering::Relaxed);
                tokio::spawn(serve(client, target, seen));
            }
        });
        Self {
            port,
            state,
            connections,
            target,
        }
    }

    /// Leads to another server from now on; connections end.
    pub fn lead_to(&self, target: u16) {
        self.target.store(target, Ordering::Relaxed);
        self.cut();
    }

    /// From now on. Connections that bytes were taken from end with the next mode: what follows
    /// would be garbage.
    pub fn set(&self, mode: Mode) {
        self.state.send_modify(|(now, ends)| {
            if matches!(now, Mode::Swallow | Mode::BlackHole) {
                *ends += 1;
            }
            *now = mode;
        });
    }

    /// Ends all connections.
    pub fn cut(&self) {
        self.state.send_modify(|(_, ends)| *ends += 1);
    }

    /// Connections that were ever made.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn serve(client: TcpStream, target: u16, state: watch::Receiver<(Mode, u64)>) {
    let (mode, born) = *state.borrow();
    if mode == Mode::Refuse {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else {
        return;
    };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut ends = state.clone();
    tokio::select! {
        () = carry(from_client, to_server, state.clone(), Way::Request) => {}
        () = carry(from_server, to_client, state.clone(), Way::Answer) => {}
        // Also when the proxy is dropped.
        _ = ends.wait_for(|(_, ends)| *ends > born) => {}
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Request,
    Answer,
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<(Mode, u64)>,
    way: Way,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if way == Way::Answer {
            let _ = state.wait_for(|(mode, _)| *mode != Mode::Stall).await;
        }
        let count = match from.read(&mut buffer).await {
            Ok(count) if count > 0 => count,
            _ => return,
        };
        let bytes = &buffer[..count];
        let (mode, _) = *state.borrow();
        let sent = match (mode, way) {
            (Mode::Pass | Mode::Stall | Mode::Refuse, _) | (Mode::Swallow, Way::Request) => {
                to.write_all(bytes).await
            }
            (Mode::CutBefore, Way::Answer) => to.write_all(bytes).await,
            (Mode::CutBefore, Way::Request) => return,
            (Mode::Swallow | Mode::BlackHole, _) => Ok(()),
            (Mode::Delay(time), _) => {
                tokio::time::sleep(time).await;
                to.write_all(bytes).await
            }
            (Mode::Trickle(size), _) => trickle(&mut to, bytes, size).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn trickle(to: &mut OwnedWriteHalf, bytes: &[u8], size: usize) -> std::io::Result<()> {
    let (first, rest) = bytes.split_at(bytes.len().min(size));
    to.write_all(first).await?;
    for part in rest.chunks(size) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        to.write_all(part).await?;
    }
    Ok(())
}
