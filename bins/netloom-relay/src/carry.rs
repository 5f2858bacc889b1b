//! Carries connections and datagrams from loopback to a container.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// A container is one bridge away; a longer wait only hides that it does not listen.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// After this time without a datagram a client of UDP is forgotten, as connection tracking does
/// with streams (`nf_conntrack_udp_timeout_stream` is 120 s).
const UDP_IDLE: Duration = Duration::from_secs(120);
/// Clients of one UDP port at once; each takes a descriptor.
const UDP_CLIENTS_MAX: usize = 1024;
/// The largest datagram (RFC 768, the length field).
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// How long to wait when the process has no descriptor left for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves a TCP port until it is aborted, which ends its connections as well.
pub(crate) async fn tcp(listener: TcpListener, target: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, target));
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries one connection both ways, each half closed by itself.
async fn connection(mut client: TcpStream, target: SocketAddr) {
    // What came from elsewhere should have been translated before it got here. It is not carried,
    // because the container would see the host as its source.
    let through_loopback = client.local_addr().is_ok_and(|own| own.ip().is_loopback());
    if !through_loopback {
        return;
    }
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(target)).await;
    let Ok(Ok(mut container)) = connected else {
        tracing::debug!(%target, "the container does not answer");
        return;
    };
    // Small writes are the rule on loopback; the bytes were already delayed once by their sender.
    let _ = (client.set_nodelay(true), container.set_nodelay(true));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut container).await {
        tracing::debug!(%target, %error, "a connection broke off");
    }
}

/// What is known of a client of a UDP port.
struct Session {
    socket: Arc<UdpSocket>,
    /// Set by every datagram of the client, cleared by every look of the answering side.
    active: Arc<AtomicBool>,
    answers: tokio::task::AbortHandle,
}

/// Serves a UDP port until it is aborted, which ends its sessions as well.
pub(crate) async fn udp(socket: UdpSocket, target: SocketAddr) {
    let socket = Arc::new(socket);
    let mut sessions: HashMap<SocketAddr, Session> = HashMap::new();
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                // An error is the echo of an answer to a client that is gone.
                let Ok((len, client)) = received else { continue };
                let Some(datagram) = buffer.get(..len) else { continue };
                if !client.ip().is_loopback() {
                    continue;
                }
                let session = match sessions.get(&client) {
                    Some(session) if !session.answers.is_finished() => session,
                    _ => {
                        sessions.retain(|_, session| !session.answers.is_finished());
                        if sessions.len() >= UDP_CLIENTS_MAX {
                            tracing::debug!(%target, "too many clients of one UDP port");
                            continue;
                        }
                        let Some(new) = open(&socket, client, target, &mut answers).await else {
                            continue;
                        };
                        sessions.entry(client).insert_entry(new).into_mut()
                    }
                };
                session.active.store(true, Ordering::Relaxed);
                // A container that does not listen answers with an error, which UDP does not tell.
                let _ = session.socket.send(datagram).await;
            }
            Some(_) = answers.join_next() => {}
        }
    }
}

async fn open(
    port: &Arc<UdpSocket>,
    client: SocketAddr,
    target: SocketAddr,
    answers: &mut JoinSet<()>,
) -> Option<Session> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = Arc::new(UdpSocket::bind(any).await.ok()?);
    socket.connect(target).await.ok()?;
    let active = Arc::new(AtomicBool::new(true));
    let handle = answers.spawn(answer(
        Arc::clone(port),
        client,
        Arc::clone(&socket),
        Arc::clone(&active),
    ));
    Some(Session {
        socket,
        active,
        answers: handle,
    })
}

/// Carries answers back until neither side has spoken for a while.
async fn answer(
    port: Arc<UdpSocket>,
    client: SocketAddr,
    container: Arc<UdpSocket>,
    active: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        match tokio::time::timeout(UDP_IDLE, container.recv(&mut buffer)).await {
            Ok(Ok(len)) => {
                if let Some(datagram) = buffer.get(..len) {
                    let _ = port.send_to(datagram, client).await;
                }
            }
            // Refused by the container: it may listen in a moment.
            Ok(Err(_)) => {}
            Err(_) if active.swap(false, Ordering::Relaxed) => {}
            Err(_) => return,
        }
    }
}
