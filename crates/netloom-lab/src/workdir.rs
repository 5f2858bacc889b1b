//! One folder per machine, removed with it, also by whoever comes after a killed run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

/// Machines of this process whose first process still runs; what Ctrl-C has to end.
static RUNNING: Mutex<BTreeMap<String, Child>> = Mutex::new(BTreeMap::new());

static NEXT: AtomicU32 = AtomicU32::new(1);

/// The disk of one machine: a folder and a name that no other machine has.
#[derive(Debug)]
pub(crate) struct WorkDir {
    name: String,
    path: PathBuf,
    // Held as long as the folder is in use; the kernel drops it when this process dies.
    _lock: Flock<fs::File>,
}

/// Where the folders lie; on a disk, since a container store on a tmpfs would hide what syncs cost.
fn base() -> PathBuf {
    std::env::var_os("NETLOOM_LAB_DIR")
        .map_or_else(|| PathBuf::from("/var/tmp/netloom-lab"), PathBuf::from)
}

impl WorkDir {
    pub(crate) fn new() -> Result<Self> {
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("netloom-lab-{}-{serial}", std::process::id());
        let path = base().join(&name);
        if path.exists() {
            remove(&name, &path);
        }
        fs::create_dir_all(&path)
            .with_context(|| format!("could not make {}; set NETLOOM_LAB_DIR", path.display()))?;
        let file = fs::File::create(path.join("lock"))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e)?;
        Ok(Self {
            name,
            path,
            _lock: lock,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        remove(&self.name, &self.path);
    }
}

/// Remembers the process that stands for machine `name`.
pub(crate) fn remember(name: &str, child: Child) {
    running().insert(name.to_owned(), child);
}

/// Ends machine `name`: its first process, and with it, by the kernel, everything inside.
pub(crate) fn end(name: &str) {
    let child = running().remove(name);
    if let Some(mut child) = child {
        // The end of its standard input is the machine's power button; the kill is for a machine
        // that did not get as far as reading it.
        drop(child.stdin.take());
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn running() -> std::sync::MutexGuard<'static, BTreeMap<String, Child>> {
    RUNNING
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Ends every machine of this process and removes its folder; for Ctrl-C, where no `Drop` runs.
pub fn remove_all_of_this_process() {
    let names: Vec<String> = running().keys().cloned().collect();
    for name in names {
        end(&name);
        remove(&name, &base().join(&name));
    }
}

/// Removes the folders and control groups of runs that were killed before they could.
pub fn sweep_abandoned() {
    let Ok(entries) = fs::read_dir(base()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(file) = fs::File::open(entry.path().join("lock")) else {
            continue;
        };
        if let Ok(_lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            remove(&name, &entry.path());
        }
    }
}

/// Removes folder and control groups; a second call finds nothing and is content.
fn remove(name: &str, path: &Path) {
    // The first control-group file system may hold several hierarchies below it (version 1).
    let groups = Path::new("/sys/fs/cgroup");
    remove_groups(&groups.join(name));
    if let Ok(controllers) = fs::read_dir(groups) {
        for controller in controllers.flatten() {
            remove_groups(&controller.path().join(name));
        }
    }
    let _ = fs::remove_dir_all(path);
}

/// Control groups are removed from the leaves up, by `rmdir` alone.
fn remove_groups(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}
