//! Where servers run: folders and ports that nobody else has.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

const PREFIX: &str = "netloom-servers-";

static NEXT: AtomicU32 = AtomicU32::new(1);

/// Ports of this process that are given out.
static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A folder that goes with its value; one of a killed process goes with whoever comes next.
#[derive(Debug)]
pub(super) struct RunDir(PathBuf);

impl RunDir {
    pub(super) fn new() -> Result<Self> {
        let base = std::env::temp_dir();
        sweep(&base);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("{PREFIX}{}-{serial}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("could not make {}", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes folders of processes that are no more. Those of other people stay: the system refuses.
fn sweep(base: &Path) {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split_once('-'))
            .and_then(|(owner, _)| owner.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Ports that are free now, below those that the kernel gives to clients: a server that was stopped
/// finds its own again.
pub(super) fn free_ports(count: usize) -> Result<Vec<u16>> {
    let mut taken = TAKEN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_whitespace().next();
    let end: u16 = first.and_then(|f| f.parse().ok()).unwrap_or(32768);
    let end = end.max(20_000);
    // Processes start at different places, so that they seldom try the same port at once.
    let start = u16::try_from(std::process::id().wrapping_mul(97) % 6000)? + 11_000;
    let mut found = Vec::new();
    for port in (start..end).chain(10_000..start) {
        if found.len() == count {
            return Ok(found);
        }
        if !taken.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            taken.insert(port);
            found.push(port);
        }
    }
    bail!("no {count} ports are free")
}

/// Others may have them.
pub(super) fn give_back(ports: impl IntoIterator<Item = u16>) {
    let mut taken = TAKEN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    for port in ports {
        taken.remove(&port);
    }
}

/// An address as it stands in URLs and in settings of the form `ADDRESS:PORT`.
pub(super) fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// Copies a folder with everything in it.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else if entry.file_type()?.is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
