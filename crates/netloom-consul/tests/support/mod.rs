//! A server of a few lines that answers what a test wants, and remembers what it was asked.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code outside of test functions"
)]

pub(crate) mod counters;
pub(crate) mod servers;

use netloom_consul::ConsulStore;
use netloom_core::store::{Key, Operation, Transaction, Version};
use netloom_core::{Login, RemoteStoreConfig, StoreUrl};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request that arrived whole.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Method and path.
    pub(crate) line: String,
    /// Everything between the first line and the body, in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

/// What becomes of it.
pub(crate) enum Reply {
    /// These bytes; the connection stays.
    Bytes(String),
    /// These bytes, and the connection's end, which no header announces.
    BytesAndClose(String),
    /// The connection's end.
    Close,
    /// Nothing, ever.
    Silence,
    /// A head, and then a body without end.
    Endless,
}

/// The server.
pub(crate) struct Fake {
    pub(crate) address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    /// Starts one; `script` gets each request and its number.
    pub(crate) async fn start<F>(script: F) -> Self
    where
        F: Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (script, log) = (Arc::new(script), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&log)));
            }
        });
        Self {
            address,
            seen,
            task,
        }
    }

    /// What it was asked, in order.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The first lines of what it was asked.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }

    /// A store on it.
    pub(crate) async fn store(&self) -> ConsulStore {
        open(&config(&[&self.address])).await
    }
}

async fn serve<F>(mut stream: TcpStream, script: Arc<F>, log: Arc<Mutex<Vec<Seen>>>)
where
    F: Fn(&Seen, usize) -> Reply,
{
    let mut bytes = Vec::new();
    while let Some(seen) = request(&mut stream, &mut bytes).await {
        let number = {
            let mut log = log.lock().unwrap();
            log.push(seen.clone());
            log.len() - 1
        };
        match script(&seen, number) {
            Reply::Bytes(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
            Reply::BytesAndClose(answer) => {
                stream.write_all(answer.as_bytes()).await.unwrap();
                return;
            }
            Reply::Close => return,
            Reply::Silence => std::future::pending().await,
            Reply::Endless => {
                let head =
                    "HTTP/1.1 200 OK\r\nX-Consul-Index: 5\r\nContent-Length: 99999999999\r\n\r\n";
                stream.write_all(head.as_bytes()).await.unwrap();
                // Until the reader has had enough.
                while stream.write_all(&[b'['; 65536]).await.is_ok() {}
                return;
            }
        }
    }
}

async fn request(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Seen> {
    loop {
        let text = String::from_utf8_lossy(bytes).into_owned();
        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
            let (line, head) = head.split_once("\r\n").unwrap();
            let head = head.to_lowercase();
            let length: usize = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if rest.len() >= length {
                let body = rest[..length].to_owned();
                let whole = text.len() - rest.len() + length;
                bytes.drain(..whole);
                let line = line.trim_end_matches(" HTTP/1.1").to_owned();
                return Some(Seen { line, head, body });
            }
        }
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// An answer with this status, index and body; without the index for 0.
pub(crate) fn answer(status: u16, index: u64, body: &str) -> String {
    let index = match index {
        0 => String::new(),
        index => format!("X-Consul-Index: {index}\r\n"),
    };
    let length = body.len();
    format!("HTTP/1.1 {status} Odd\r\n{index}Content-Length: {length}\r\n\r\n{body}")
}

/// The same, as a reply.
pub(crate) fn says(status: u16, body: &str) -> Reply {
    Reply::Bytes(answer(status, 5, body))
}

/// A row of Consul's, as JSON.
pub(crate) fn row(key: &str, value: &str, index: u64, flags: u64) -> String {
    format!(
        r#"{{"LockIndex":0,"Key":"{key}","Flags":{flags},"Value":{value},"CreateIndex":1,"ModifyIndex":{index}}}"#
    )
}

/// What a real server answers to a transaction that it committed at `index`.
pub(crate) fn committed(seen: &Seen, index: u64) -> Reply {
    let operations: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
    let rows: Vec<String> = operations
        .as_array()
        .unwrap()
        .iter()
        .map(|operation| &operation["KV"])
        .filter(|words| words["Verb"] == "cas")
        .map(|words| {
            let key = words["Key"].as_str().unwrap();
            let row = row(key, "null", index, words["Flags"].as_u64().unwrap());
            format!(r#"{{"KV":{row}}}"#)
        })
        .collect();
    let body = format!(r#"{{"Results":[{}],"Errors":null}}"#, rows.join(","));
    Reply::Bytes(answer(200, 0, &body))
}

/// How to get into servers at these addresses.
pub(crate) fn config(addresses: &[&str]) -> RemoteStoreConfig {
    let StoreUrl::Remote(url) = format!("consul://{}", addresses.join(",")).parse().unwrap() else {
        unreachable!("it names no file")
    };
    RemoteStoreConfig::new(url)
}

/// The same, with the token in a file.
pub(crate) fn config_with_token(address: &str, token_file: &std::path::Path) -> RemoteStoreConfig {
    RemoteStoreConfig {
        login: Login::Token {
            token_file: token_file.to_owned(),
        },
        ..config(&[address])
    }
}

pub(crate) async fn open(config: &RemoteStoreConfig) -> ConsulStore {
    ConsulStore::open(config).await.unwrap()
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

pub(crate) fn create(text: &str) -> Transaction {
    Transaction::new([Operation::Create(key(text), b"value".to_vec())])
}

/// Asks again and again until it is so. The time is only there to end a hang.
pub(crate) async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let asking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let asked = tokio::time::timeout(Duration::from_secs(60), asking).await;
    assert!(asked.is_ok(), "never: {what}");
}

/// A version as the backend makes them.
pub(crate) fn version(index: u64, flags: u64) -> Version {
    Version::from_bytes([index.to_be_bytes(), flags.to_be_bytes()].concat())
}
