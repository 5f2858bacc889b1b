//! Carries bytes from one side to the other, or does not.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

use super::Mode;
use super::state::{Now, Shared};

/// Of the pieces in which trickling bytes come.
const TRICKLE_STEP: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    ToServer,
    ToClient,
}

/// One client's way to the server.
struct Connection {
    shared: Arc<Shared>,
    /// Whether bytes of it were dropped.
    gappy: AtomicBool,
    /// Whether the server's next bytes end it.
    cut_at_answer: AtomicBool,
}

/// Takes connections until it is aborted.
pub(super) async fn accept(listener: TcpListener, target: SocketAddr, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        shared.count(|f| &mut f.connections);
        tokio::spawn(serve(client, target, Arc::clone(&shared)));
    }
}

async fn serve(client: TcpStream, target: SocketAddr, shared: Arc<Shared>) {
    let mut seen = shared.watch();
    let born = *seen.borrow_and_update();
    // A connection is made at the server when it is made here, but for a mode that holds it back.
    let server = async {
        if born.mode == Mode::Stall {
            other_mode(&shared, born).await?;
        }
        TcpStream::connect(target).await
    };
    let server = tokio::select! {
        server = server => server,
        () = ended(&shared, &mut seen, born, None) => Err(io::ErrorKind::ConnectionReset.into()),
    };
    let Ok(server) = server else {
        return reset_when_dropped(&client);
    };
    let connection = Connection {
        shared: Arc::clone(&shared),
        gappy: AtomicBool::new(false),
        cut_at_answer: AtomicBool::new(false),
    };
    let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
    reset_when_dropped(&client);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        _ = async { tokio::try_join!(
            connection.carry(Way::ToServer, from_client, to_server),
            connection.carry(Way::ToClient, from_server, to_client),
        ) } => {}
        () = ended(&shared, &mut seen, born, Some(&connection.gappy)) => {}
    }
}

/// Ends when a connection that began at `born` has to.
async fn ended(
    shared: &Shared,
    seen: &mut watch::Receiver<Now>,
    born: Now,
    gappy: Option<&AtomicBool>,
) {
    loop {
        let now = *seen.borrow_and_update();
        if now.mode == Mode::Refuse {
            // Before the connection's end, so that whoever sees that finds it counted.
            shared.count(|f| &mut f.refused);
            return;
        }
        let gappy = gappy.is_some_and(|gappy| gappy.load(Ordering::SeqCst));
        let stays = matches!(now.mode, Mode::HalfOpen | Mode::BlackHole);
        if now.ends != born.ends || (gappy && !stays) {
            return;
        }
        if seen.changed().await.is_err() {
            return;
        }
    }
}

/// Waits for another mode than the one of `seen`.
async fn other_mode(shared: &Shared, seen: Now) -> io::Result<()> {
    let mut watch = shared.watch();
    let changed = watch.wait_for(|now| now.change != seen.change).await;
    changed.map_err(|_| io::ErrorKind::ConnectionReset)?;
    Ok(())
}

impl Connection {
    /// Carries one way until its end, which it passes on.
    async fn carry(
        &self,
        way: Way,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
    ) -> io::Result<()> {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let n = from.read(&mut buffer).await?;
            let Some(bytes) = buffer.get(..n).filter(|bytes| !bytes.is_empty()) else {
                return to.shutdown().await;
            };
            self.piece(way, bytes, &mut to).await?;
        }
    }

    async fn piece(&self, way: Way, bytes: &[u8], to: &mut OwnedWriteHalf) -> io::Result<()> {
        if way == Way::ToClient && self.cut_at_answer.load(Ordering::SeqCst) {
            self.shared.count(|f| &mut f.cut_after);
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        loop {
            let now = self.shared.now();
            return match (now.mode, way) {
                (Mode::Stall, _) => {
                    self.shared.count(|f| &mut f.stalled);
                    other_mode(&self.shared, now).await?;
                    continue;
                }
                (Mode::Delay { least, jitter }, _) => {
                    self.shared.count(|f| &mut f.delayed);
                    sleep(least + self.shared.jitter(jitter)).await;
                    to.write_all(bytes).await
                }
                (Mode::Trickle(rate), _) => {
                    self.shared.count(|f| &mut f.trickled);
                    trickle(rate, bytes, to).await
                }
                (Mode::CutBefore, Way::ToServer) if self.shared.takes_cut(now) => {
                    self.shared.count(|f| &mut f.cut_before);
                    Err(io::ErrorKind::ConnectionReset.into())
                }
                (Mode::CutAfter, Way::ToServer) if self.shared.takes_cut(now) => {
                    self.cut_at_answer.store(true, Ordering::SeqCst);
                    to.write_all(bytes).await
                }
                (Mode::HalfOpen | Mode::BlackHole, Way::ToClient) => {
                    self.shared.count(|f| &mut f.unanswered);
                    self.lose(now)
                }
                (Mode::BlackHole, Way::ToServer) => {
                    self.shared.count(|f| &mut f.swallowed);
                    self.lose(now)
                }
                _ => to.write_all(bytes).await,
            };
        }
    }

    /// Drops a piece. The connection ends with the next mode, which may be there already.
    fn lose(&self, seen: Now) -> io::Result<()> {
        self.gappy.store(true, Ordering::SeqCst);
        if self.shared.now().change != seen.change {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

async fn trickle(rate: u32, bytes: &[u8], to: &mut OwnedWriteHalf) -> io::Result<()> {
    // Fifty steps make a second.
    let step = usize::try_from(rate / 50).unwrap_or(1).max(1);
    let pause = match rate {
        50.. => TRICKLE_STEP,
        slow => Duration::from_secs(1) / slow.max(1),
    };
    // What fits in one step is not slowed, or a hundred small words would take seconds at any rate.
    let (first, rest) = bytes.split_at(bytes.len().min(step));
    to.write_all(first).await?;
    for part in rest.chunks(step) {
        sleep(pause).await;
        to.write_all(part).await?;
    }
    Ok(())
}

/// A reset instead of an orderly end, as from a server that crashed.
fn reset_when_dropped(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}
