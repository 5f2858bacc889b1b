//! Call sequences of real Docker daemons, sent to the server again; and the proxy that records them.

use super::Plugin;
use super::golden::dialogues;
use super::socket::{post, serve};
use netloom_docker::recording::{Recording, RecordingHeader, RecordingProxy, replay};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::net::UnixListener;

/// Minutes in memory.
#[derive(Debug, Clone, Default)]
struct Minutes(Arc<Mutex<Vec<u8>>>);

impl Write for Minutes {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Sends the dialogue of a container's life through a proxy.
async fn record() -> Recording {
    let plugin = Plugin::new();
    let dir = tempfile::tempdir().unwrap();
    let behind = serve(&plugin, &dir.path().join("behind.sock"));
    let front = dir.path().join("front.sock");
    let minutes = Minutes::default();
    let header = RecordingHeader::new("none", "2026-11-20", "a container's life");
    let proxy = RecordingProxy::new(
        UnixListener::bind(&front).unwrap(),
        &dir.path().join("behind.sock"),
        &header,
        minutes.clone(),
    );
    let proxy = tokio::spawn(proxy.unwrap().run());
    let life = |(path, _): &(std::path::PathBuf, _)| path.ends_with("02-container-life.json");
    let (_, dialogue) = dialogues().into_iter().find(life).unwrap();
    for step in &dialogue.steps {
        let answer = post(&front, &step.call, &step.body()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    proxy.abort();
    behind.abort();
    let text = minutes.0.lock().unwrap().clone();
    let recording = Recording::parse(std::str::from_utf8(&text).unwrap()).unwrap();
    assert_eq!(recording.exchanges.len(), dialogue.steps.len());
    recording
}

#[tokio::test]
async fn what_the_proxy_records_can_be_replayed() {
    let recording = record().await;
    assert_eq!(replay(&Plugin::new().router(), &recording).await, Ok(()));
    let again = record().await;
    assert_eq!(recording.differences(&again), Vec::<String>::new());
}

#[tokio::test]
async fn a_replay_that_ends_otherwise_is_found() {
    let mut recording = record().await;
    // Without its first calls, the rest has no pool and no network to speak of.
    recording.exchanges.drain(0..3);
    let mismatches = replay(&Plugin::new().router(), &recording)
        .await
        .unwrap_err();
    assert_eq!(mismatches[0].at, 0);
    assert_eq!(mismatches[0].path, "/IpamDriver.RequestAddress");
}

#[tokio::test]
async fn a_plugin_that_is_away_is_an_error_in_both_keys() {
    let dir = tempfile::tempdir().unwrap();
    let front = dir.path().join("front.sock");
    let header = RecordingHeader::new("none", "2026-11-20", "nobody there");
    let listener = UnixListener::bind(&front).unwrap();
    let nobody = dir.path().join("nobody.sock");
    let proxy = RecordingProxy::new(listener, &nobody, &header, std::io::sink()).unwrap();
    let proxy = tokio::spawn(proxy.run());
    let answer = post(&front, "Plugin.Activate", "").await;
    proxy.abort();
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(answer.contains("\"Err\":\"the socket"), "{answer}");
}

/// `cargo xtask record` makes them.
#[tokio::test]
async fn recordings_of_real_daemons_end_as_they_did() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "jsonl") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let recording = Recording::parse(&text).unwrap();
        assert!(!recording.exchanges.is_empty(), "{}", path.display());
        let result = replay(&Plugin::new().router(), &recording).await;
        assert_eq!(result, Ok(()), "{}", path.display());
        count += 1;
    }
    assert!(
        count > 0,
        "no recordings of real daemons; run `cargo xtask record`"
    );
}
