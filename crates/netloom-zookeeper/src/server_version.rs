//! Warnings about servers that are known to lose what they acknowledged.

use netloom_core::RemoteStoreConfig;
use netloom_core::{StoreEndpoint, StoreTransport, StoreUrl};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// For one server's answer. A warning that comes late is no harm, so nobody waits for it.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Far more than the answer to `srvr` has.
const ANSWER_BYTES_MAX: u64 = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ServerVersion(u32, u32, u32);

/// Asks every server for its version and warns of those that should be replaced. Only servers that
/// are spoken to in the clear, and that allow the command `srvr` (as they do by default), say it.
pub(crate) async fn warn_of_known_bugs(config: RemoteStoreConfig) {
    if config.url.transport == StoreTransport::Tls {
        return;
    }
    for server in &config.url.endpoints {
        let answer = tokio::time::timeout(TIMEOUT, ask(server)).await;
        let Ok(Ok(answer)) = answer else { continue };
        let Some(version) = parse(&answer) else {
            continue;
        };
        if let Some(bug) = known_bug(version) {
            let ServerVersion(major, minor, patch) = version;
            let store = StoreUrl::Remote(config.url.clone());
            tracing::warn!(
                %store, %server, version = %format!("{major}.{minor}.{patch}"),
                "this ZooKeeper may lose acknowledged changes ({bug}); 3.8.4, 3.9.2 and 3.9.4 do not"
            );
        }
    }
}

async fn ask(server: &StoreEndpoint) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((server.host.as_str(), server.port)).await?;
    stream.write_all(b"srvr").await?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Reads `Zookeeper version: 3.8.0-1, built on ...`.
fn parse(answer: &str) -> Option<ServerVersion> {
    let rest = answer.strip_prefix("Zookeeper version: ")?;
    let end = rest.find(|c: char| c != '.' && !c.is_ascii_digit());
    let mut numbers = rest.get(..end.unwrap_or(rest.len()))?.split('.');
    let mut next = || numbers.next()?.parse().ok();
    Some(ServerVersion(next()?, next()?, next()?))
}

fn known_bug(version: ServerVersion) -> Option<&'static str> {
    // A follower that restarts while it catches up with a new leader loses what it said it had.
    let catching_up = version < ServerVersion(3, 8, 4)
        || (ServerVersion(3, 9, 0)..ServerVersion(3, 9, 2)).contains(&version);
    // The cure of another bug left holes in what a follower passes on.
    let holes = version == ServerVersion(3, 9, 3);
    match (catching_up, holes) {
        (true, _) => Some("ZOOKEEPER-4785"),
        (_, true) => Some("ZOOKEEPER-4925"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_lose_changes_are_named() {
        let of = |text: &str| parse(text).map(known_bug);
        let debian = "Zookeeper version: 3.8.0-${mvngit.commit.id}, built on 2024\nLatency";
        assert_eq!(of(debian), Some(Some("ZOOKEEPER-4785")));
        assert_eq!(
            of("Zookeeper version: 3.9.3-x"),
            Some(Some("ZOOKEEPER-4925"))
        );
        for fine in ["3.8.4", "3.8.5", "3.9.2", "3.9.4", "4.0.0"] {
            assert_eq!(of(&format!("Zookeeper version: {fine}")), Some(None));
        }
    }

    #[test]
    fn an_answer_that_is_no_version_warns_of_nothing() {
        for odd in [
            "",
            "srvr is not executed",
            "Zookeeper version: ",
            "Zookeeper version: 3.8",
            "Zookeeper version: 3..1",
        ] {
            assert_eq!(parse(odd), None, "{odd:?}");
        }
    }
}
