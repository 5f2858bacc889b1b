//! The relay over loopback, in a network namespace of its own.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "helpers of tests fail their test"
)]

use netloom_drivers::relay::{Refusal, Reservation};
use netloom_drivers::{KeeperError, PortKeeper, RelayClient};
use netloom_linux::{Kernel, KernelStep, LinuxKernel};
use netloom_relay::{Relay, RelayError};
use netloom_types::{LinkName, Protocol};
use std::net::SocketAddr;
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixStream};
use tokio::task::JoinHandle;

/// Runs `test` in a namespace with these addresses: the container's, and one of the host.
fn in_own_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: this test makes a network namespace and needs root");
        return;
    }
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let kernel = LinuxKernel::open().unwrap();
        let lo = LinkName::new("lo").unwrap();
        kernel
            .apply(&KernelStep::SetUp { link: lo.clone() })
            .unwrap();
        for address in ["10.9.0.2/32", "fd00:9::2/128", "198.51.100.1/32"] {
            let address = address.parse().unwrap();
            let link = lo.clone();
            kernel
                .apply(&KernelStep::AddAddress { link, address })
                .unwrap();
        }
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

async fn start(run_dir: &Path) -> (RelayClient, JoinHandle<()>) {
    let relay = Relay::open(run_dir).await.unwrap();
    let task = tokio::spawn(async move {
        relay.serve().await.unwrap();
    });
    (RelayClient::new(run_dir.join("relay.sock")), task)
}

fn port(protocol: Protocol, host: &str, target: &str, owner: &str) -> Reservation {
    Reservation {
        protocol,
        host: host.parse().unwrap(),
        target: target.parse().unwrap(),
        owner: owner.into(),
    }
}

fn tcp(host: &str) -> Reservation {
    port(Protocol::Tcp, host, "10.9.0.2:80", "e1")
}

/// Answers each connection with what it sent, once it has half closed.
async fn echo_after_half_close(address: &str) {
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            stream.write_all(&all).await.unwrap();
        }
    });
}

async fn exchange(to: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(b"hello").await?;
    stream.shutdown().await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

#[test]
fn connections_of_both_families_are_carried_with_half_close() {
    in_own_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let (client, _relay) = start(dir.path()).await;
        echo_after_half_close("10.9.0.2:80").await;
        echo_after_half_close("[fd00:9::2]:80").await;
        let v6 = port(Protocol::Tcp, "[::]:8080", "[fd00:9::2]:80", "e1");
        client.reserve(&[tcp("0.0.0.0:8080"), v6]).await.unwrap();
        assert_eq!(exchange("127.0.0.1:8080").await.unwrap(), "hello");
        assert_eq!(exchange("127.1.2.3:8080").await.unwrap(), "hello");
        assert_eq!(exchange("[::1]:8080").await.unwrap(), "hello");
    });
}

#[test]
fn what_did_not_come_through_loopback_is_not_carried() {
    in_own_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let (client, _relay) = start(dir.path()).await;
        echo_after_half_close("10.9.0.2:80").await;
        client.reserve(&[tcp("0.0.0.0:8080")]).await.unwrap();
        let carried = exchange("198.51.100.1:8080").await;
        assert!(carried.is_err() || carried.unwrap().is_empty());
    });
}

#[test]
fn datagrams_are_carried_per_client() {
    in_own_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let (client, _relay) = start(dir.path()).await;
        let server = UdpSocket::bind("10.9.0.2:53").await.unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 64];
            while let Ok((len, from)) = server.recv_from(&mut buffer).await {
                server.send_to(&buffer[..len], from).await.unwrap();
            }
        });
        let udp = port(Protocol::Udp, "0.0.0.0:5300", "10.9.0.2:53", "e1");
        client.reserve(&[udp]).await.unwrap();
        let to: SocketAddr = "127.0.0.1:5300".parse().unwrap();
        let one = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let two = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        one.send_to(b"one", to).await.unwrap();
        two.send_to(b"two", to).await.unwrap();
        let mut buffer = [0; 64];
        let (len, from) = one.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..len], from), (&b"one"[..], to));
        let (len, _) = two.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..len], b"two");
    });
}

#[test]
fn a_reserved_port_is_nobody_elses_until_it_is_released() {
    in_own_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let (client, _relay) = start(dir.path()).await;
        let ports = [
            tcp("0.0.0.0:8080"),
            port(Protocol::Udp, "127.0.0.1:53", "10.9.0.2:53", "e1"),
            port(Protocol::Sctp, "0.0.0.0:7", "10.9.0.2:7", "e1"),
        ];
        client.reserve(&ports).await.unwrap();
        client.reserve(&ports).await.unwrap();
        assert!(client.missing(&ports).await.unwrap().is_empty());
        assert!(TcpListener::bind("0.0.0.0:8080").await.is_err());
        assert!(UdpSocket::bind("127.0.0.1:53").await.is_err());
        client.release(&ports).await.unwrap();
        client.release(&ports).await.unwrap();
        TcpListener::bind("0.0.0.0:8080").await.unwrap();
        UdpSocket::bind("127.0.0.1:53").await.unwrap();
        assert_eq!(client.missing(&ports).await.unwrap(), ports);
    });
}

#[test]
fn all_ports_are_reserved_or_none_and_the_refusal_names_the_one() {
    in_own_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let (client, _relay) = start(dir.path()).await;
        let _stranger = TcpListener::bind("127.0.0.1:8081").await.unwrap();
        let wanted = [tcp("0.0.0.0:8080"), tcp("0.0.0.0:8081")];
        match client.reserve(&wanted).await.unwrap_err() {
            KeeperError::Refused { index, refusal, .. } => {
                assert_eq!((index, refusal), (1, Refusal::InUse));
            }
            other => panic!("{other}"),
        }
        TcpListener::bind("0.0.0.0:8080").await.unwrap();
        client.reserve(&wanted[..1]).await.unwrap();
        let other = port(Protocol::Tcp, "127.0.0.1:8080", "10.9.0.2:80", "e2");
        let error = client.reserve(&[other]).await.unwrap_err();
        assert!(error.to_string().contains("endpoint e1"), "{error}");
        let nowhere = client.reserve(&[tcp("203.0.113.7:80")]).await.unwrap_err();
        assert!(matches!(
            nowhere,
            KeeperError::Refused {
                refusal: Refusal::NoSuchAddress,
                ..
            }
        ));
    });
}

#[test]
fn a_restarted_relay_holds_what_it_held_and_a_synced_one_what_it_is_told() {
    in_own_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let (client, relay) = start(dir.path()).await;
        let ports = [tcp("0.0.0.0:8080"), tcp("0.0.0.0:8081")];
        client.reserve(&ports).await.unwrap();
        assert!(matches!(
            Relay::open(dir.path()).await,
            Err(RelayError::AlreadyRunning(_))
        ));
        relay.abort();
        assert!(relay.await.unwrap_err().is_cancelled());
        let silent = client.missing(&ports).await.unwrap_err();
        assert!(
            matches!(silent, KeeperError::Unavailable { .. }),
            "{silent}"
        );

        let (client, _relay) = start(dir.path()).await;
        assert!(client.missing(&ports).await.unwrap().is_empty());
        assert!(TcpListener::bind("0.0.0.0:8080").await.is_err());

        let stranger = TcpListener::bind("0.0.0.0:8082").await.unwrap();
        let told = [tcp("0.0.0.0:8081"), tcp("0.0.0.0:8082")];
        assert_eq!(client.sync(&told).await.unwrap(), [tcp("0.0.0.0:8082")]);
        TcpListener::bind("0.0.0.0:8080").await.unwrap();
        drop(stranger);
        assert!(client.sync(&told).await.unwrap().is_empty());
    });
}

#[test]
fn hostile_requests_are_answered_and_a_list_of_a_newer_release_is_left_alone() {
    in_own_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let (client, relay) = start(dir.path()).await;
        for hostile in ["\n", "{}\n", "{\"op\":\"sync\"}\n", "no end", "\u{0}\n"] {
            let mut stream = UnixStream::connect(dir.path().join("relay.sock"))
                .await
                .unwrap();
            stream.write_all(hostile.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.contains("\"bad\""), "{hostile:?}: {answer}");
        }
        client.reserve(&[tcp("0.0.0.0:8080")]).await.unwrap();
        relay.abort();
        assert!(relay.await.unwrap_err().is_cancelled());
        std::fs::write(dir.path().join("relay.json"), r#"{"schema":9,"ports":[]}"#).unwrap();
        let error = Relay::open(dir.path()).await.unwrap_err();
        assert!(error.to_string().contains("schema 9"), "{error}");
    });
}

#[test]
fn the_control_socket_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    in_own_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let (_client, _relay) = start(dir.path()).await;
        let socket = std::fs::metadata(dir.path().join("relay.sock")).unwrap();
        assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    });
}
