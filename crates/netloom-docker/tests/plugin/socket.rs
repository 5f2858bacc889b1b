//! On a real socket, with the bytes of real dockerds.

use super::Plugin;
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// Serves a plugin on a socket.
pub(crate) fn serve(plugin: &Plugin, path: &Path) -> JoinHandle<std::io::Result<()>> {
    let listener = UnixListener::bind(path).unwrap();
    let router = plugin.router();
    tokio::spawn(async move { axum::serve(listener, router).await })
}

/// The whole answer to a plugin call.
pub(crate) async fn post(path: &Path, call: &str, body: &str) -> String {
    let request = format!(
        "POST /{call} HTTP/1.1\r\nHost: plugin.moby.localhost\r\nContent-Length: {}\r\n\
         Accept: application/vnd.docker.plugins.v1.2+json\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    send(path, &request).await
}

async fn send(path: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Docker 20.10 before .26 sends the escaped socket path as host; none sends a content type.
#[tokio::test]
async fn dockers_odd_headers_are_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("netloom.sock");
    let server = serve(&Plugin::new(), &path);
    for host in [
        "%2Frun%2Fdocker%2Fplugins%2Fnetloom.sock",
        "plugin.moby.localhost",
    ] {
        let request = format!(
            "POST /Plugin.Activate HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Go-http-client/1.1\r\n\
             Content-Length: 0\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n\
             Connection: close\r\n\r\n"
        );
        let answer = send(&path, &request).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.contains("content-type: application/vnd.docker.plugins.v1.2+json"),
            "{answer}"
        );
        assert!(answer.ends_with(r#"{"Implements":["NetworkDriver","IpamDriver"]}"#));
    }
    server.abort();
}

#[tokio::test]
async fn a_connection_that_breaks_inside_the_body_has_no_effect() {
    let plugin = Plugin::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("netloom.sock");
    let server = serve(&plugin, &path);
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let request = "POST /NetworkDriver.DeleteNetwork HTTP/1.1\r\nHost: x\r\n\
                   Content-Length: 100\r\n\r\n{\"NetworkID\":\"n1\"}";
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    server.abort();
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    assert_eq!(plugin.journal.take(), Vec::<String>::new());
}
