//! Files that harm dockerd.

use netloom_core::{Finding, FindingKind};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::{answers, by_hand};

/// Sockets in Docker's plugin directory (and one level below, where managed plugins have theirs)
/// that nobody listens on.
pub(super) async fn stale_sockets(dir: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in sockets(dir) {
        if !answers(&path).await {
            findings.push(by_hand(
                FindingKind::StaleSocket,
                path.display().to_string(),
                "nobody listens on this plugin socket: dockerd waits for it, 15 s per call, even \
                 in unrelated volume commands",
                format!("start its plugin, or `rm {}`", path.display()),
            ));
        }
    }
    findings
}

fn sockets(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![(dir.to_owned(), 0)];
    while let Some((dir, depth)) = dirs.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_socket() => found.push(entry.path()),
                Ok(kind) if kind.is_dir() && depth == 0 => dirs.push((entry.path(), 1)),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[tokio::test]
    async fn only_sockets_without_a_listener_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let live = UnixListener::bind(dir.path().join("live.sock")).unwrap();
        drop(UnixListener::bind(dir.path().join("dead.sock")).unwrap());
        std::fs::create_dir(dir.path().join("managed")).unwrap();
        drop(UnixListener::bind(dir.path().join("managed/x.sock")).unwrap());
        std::fs::write(dir.path().join("n.spec"), "unix:///x").unwrap();
        let found = stale_sockets(dir.path()).await;
        let names: Vec<_> = found
            .iter()
            .map(|f| f.subject.rsplit('/').next().unwrap())
            .collect();
        assert_eq!(names, ["dead.sock", "x.sock"]);
        assert!(stale_sockets(Path::new("/nonexistent")).await.is_empty());
        drop(live);
    }
}
