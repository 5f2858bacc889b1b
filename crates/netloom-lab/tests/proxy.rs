//! What each mode of the proxy does, before a server that answers every byte with itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use netloom_lab::proxy::{Mode, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Answers with what it got, and counts that.
struct Echo {
    address: SocketAddr,
    got: Arc<AtomicUsize>,
}

async fn echo() -> Echo {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let got = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&got);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut buffer = [0; 1024];
                while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                    count.fetch_add(n, Ordering::SeqCst);
                    let heard = buffer.get(..n).unwrap_or_default();
                    if stream.write_all(heard).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Echo { address, got }
}

async fn both() -> (Echo, Proxy) {
    let echo = echo().await;
    let proxy = Proxy::start(echo.address, 7).await.expect("a port");
    (echo, proxy)
}

async fn client(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address())
        .await
        .expect("it listens")
}

/// Says five bytes and wants them back.
async fn is_answered(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 5];
    stream.write_all(b"hello").await.is_ok()
        && stream.read_exact(&mut answer).await.is_ok()
        && &answer == b"hello"
}

async fn ends(stream: &mut TcpStream) {
    let read = stream.read(&mut [0; 16]).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

/// Looks again whenever others had their turn.
async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn bytes_pass_at_any_speed_and_ends_are_passed_on() {
    let (_echo, proxy) = both().await;
    let mut stream = client(&proxy).await;
    assert!(is_answered(&mut stream).await);
    let jitter = Duration::from_millis(3);
    let least = Duration::from_millis(1);
    proxy.set(Mode::Delay { least, jitter });
    assert!(is_answered(&mut stream).await);
    proxy.set(Mode::Trickle(500));
    assert!(is_answered(&mut stream).await);
    proxy.set(Mode::Pass);
    stream.write_all(b"last").await.expect("it is there");
    stream.shutdown().await.expect("it is there");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("an orderly end");
    assert_eq!(rest, b"last");
    let faults = proxy.faults();
    assert!(faults.delayed >= 2 && faults.trickled >= 2, "{faults:?}");
    assert_eq!(faults.connections, 1);
}

#[tokio::test]
async fn a_cut_before_loses_what_was_said_and_a_cut_after_does_not() {
    let (echo, proxy) = both().await;
    proxy.once(Mode::CutBefore);
    assert!(!is_answered(&mut client(&proxy).await).await);
    assert_eq!(echo.got.load(Ordering::SeqCst), 0);
    assert_eq!(proxy.mode(), Mode::Pass);

    proxy.once(Mode::CutAfter);
    assert!(!is_answered(&mut client(&proxy).await).await);
    assert_eq!(echo.got.load(Ordering::SeqCst), 5);
    assert!(is_answered(&mut client(&proxy).await).await);

    proxy.set(Mode::CutAfter);
    for _ in 0..2 {
        assert!(!is_answered(&mut client(&proxy).await).await);
    }
    let faults = proxy.faults();
    assert_eq!((faults.cut_before, faults.cut_after), (1, 3));
    assert_eq!(echo.got.load(Ordering::SeqCst), 20);
}

#[tokio::test]
async fn half_open_and_black_hole_are_silent_until_the_next_mode_ends_them() {
    let (echo, proxy) = both().await;
    let mut stream = client(&proxy).await;
    assert!(is_answered(&mut stream).await);

    proxy.set(Mode::HalfOpen);
    stream.write_all(b"hello").await.expect("it is there");
    until(|| proxy.faults().unanswered == 1).await;
    assert_eq!(echo.got.load(Ordering::SeqCst), 10);

    let mut other = client(&proxy).await;
    proxy.set(Mode::BlackHole);
    other.write_all(b"hello").await.expect("it is there");
    until(|| proxy.faults().swallowed == 1).await;
    assert_eq!(echo.got.load(Ordering::SeqCst), 10);

    proxy.set(Mode::Pass);
    ends(&mut stream).await;
    ends(&mut other).await;
    assert!(is_answered(&mut client(&proxy).await).await);
}

#[tokio::test]
async fn a_stall_holds_everything_back_and_loses_nothing() {
    let (echo, proxy) = both().await;
    let mut stream = client(&proxy).await;
    assert!(is_answered(&mut stream).await);
    proxy.set(Mode::Stall);
    stream.write_all(b"hello").await.expect("it is there");
    until(|| proxy.faults().stalled == 1).await;
    assert_eq!(echo.got.load(Ordering::SeqCst), 5);
    let mut late = client(&proxy).await;
    proxy.set(Mode::Pass);
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.expect("it goes on");
    assert_eq!(&answer, b"hello");
    assert!(is_answered(&mut late).await);
}

#[tokio::test]
async fn refusals_end_what_is_there_and_what_comes() {
    let (_echo, proxy) = both().await;
    let mut stream = client(&proxy).await;
    assert!(is_answered(&mut stream).await);
    proxy.set(Mode::Refuse);
    ends(&mut stream).await;
    let reset = async {
        let mut stream = TcpStream::connect(proxy.address()).await?;
        stream.read_exact(&mut [0]).await
    };
    assert!(reset.await.is_err());
    assert_eq!(proxy.faults().refused, 2);
    proxy.set(Mode::Pass);
    let mut stream = client(&proxy).await;
    assert!(is_answered(&mut stream).await);
    proxy.cut();
    ends(&mut stream).await;
    let mut stream = client(&proxy).await;
    assert!(is_answered(&mut stream).await);
    drop(proxy);
    ends(&mut stream).await;
}
