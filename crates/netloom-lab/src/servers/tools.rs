//! Programs that the machine's own Debian release does not have, unpacked into a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};

use crate::command::run;
use crate::tree::mirror;

/// A server program from another release of Debian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// Consul 1.8, the last that Debian had.
    Consul,
    /// etcd of the 3.5 line.
    Etcd35,
}

impl Tool {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Consul, Self::Etcd35];

    /// Its folder's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Consul => "consul",
            Self::Etcd35 => "etcd-3.5",
        }
    }

    /// The package, the release that has it, and the program in it.
    const fn package(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Consul => ("consul", "bullseye", "usr/bin/consul"),
            Self::Etcd35 => ("etcd-server", "sid", "usr/bin/etcd"),
        }
    }
}

/// The folder that keeps them between runs.
#[derive(Debug, Clone)]
pub struct Tools {
    dir: PathBuf,
}

impl Tools {
    /// Tools below `dir`, which is made when needed.
    #[must_use]
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The tools of the repository that this crate was built in, beside the trees of its hosts.
    #[must_use]
    pub fn of_repository() -> Self {
        Self::at(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/tools"))
    }

    /// The program, if it is there.
    #[must_use]
    pub fn find(&self, tool: Tool) -> Option<PathBuf> {
        Some(self.dir.join(tool.name()).join(tool.package().2)).filter(|path| path.exists())
    }

    /// Fetches the program's package by apt, with settings of its own, and unpacks it. Nothing is
    /// installed, and root is not needed.
    ///
    /// # Errors
    /// When the package cannot be fetched or does not hold the program.
    pub fn ensure(&self, tool: Tool) -> Result<PathBuf> {
        fs::create_dir_all(&self.dir)?;
        let lock = fs::File::create(self.dir.join("lock"))?;
        let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| e)?;
        if let Some(path) = self.find(tool) {
            return Ok(path);
        }
        let work = self.dir.join(format!("{}.unfinished", tool.name()));
        remove(&work)?;
        let package = fetch(tool, &work)?;
        let unpacked = work.join("unpacked");
        let mut dpkg = Command::new("dpkg");
        dpkg.arg("-x").arg(package).arg(&unpacked);
        run(dpkg, "dpkg -x")?.ok()?;
        let (name, _, program) = tool.package();
        ensure!(unpacked.join(program).exists(), "{name} has no {program}");
        let place = self.dir.join(tool.name());
        remove(&place)?;
        fs::rename(&unpacked, &place)?;
        remove(&work)?;
        Ok(place.join(program))
    }
}

fn remove(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    Ok(())
}

/// The package's file in `work`. The machine's own list of releases is not touched.
fn fetch(tool: Tool, work: &Path) -> Result<PathBuf> {
    let (package, suite, _) = tool.package();
    for dir in ["lists/partial", "cache/archives/partial", "sources"] {
        fs::create_dir_all(work.join(dir))?;
    }
    let work = work.canonicalize()?;
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let mirror = mirror();
    fs::write(
        work.join("sources/netloom.sources"),
        format!(
            "Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\nSigned-By: {keyring}\n"
        ),
    )?;
    for words in [&["update"][..], &["download", package][..]] {
        let mut apt = Command::new("apt-get");
        for (option, dir) in [
            ("Dir::Etc::SourceParts", "sources"),
            ("Dir::State::Lists", "lists"),
            ("Dir::Cache", "cache"),
        ] {
            apt.arg(format!("-o{option}={}", work.join(dir).display()));
        }
        apt.args(["-oDir::Etc::SourceList=/dev/null"])
            .arg("-oDir::Etc::Preferences=/dev/null")
            .arg("-oDir::Etc::PreferencesParts=/dev/null")
            // An old release's lists are past their date, and stay as they are.
            .arg("-oAcquire::Check-Valid-Until=false")
            .arg("-oAcquire::Languages=none")
            .arg("-oAcquire::Retries=3")
            .arg("-oAPT::Update::Error-Mode=any")
            .arg("-oAPT::Sandbox::User=root")
            .arg("-qq")
            .args(words)
            .current_dir(&work);
        let shown = format!("apt-get {} from {mirror} {suite}", words.join(" "));
        run(apt, &shown)?.ok()?;
    }
    let packages = fs::read_dir(&work)?.flatten().map(|entry| entry.path());
    let mut packages = packages.filter(|path| path.extension().is_some_and(|e| e == "deb"));
    packages
        .next()
        .with_context(|| format!("apt fetched no file of {package}"))
}

/// A program of the machine's own packages.
pub(super) fn installed(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|path| path.exists());
    match found {
        Some(path) => Ok(path),
        None => bail!("{program} is not installed; run `cargo xtask setup`"),
    }
}

/// A program of the repository's tools.
pub(super) fn unpacked(tool: Tool) -> Result<PathBuf> {
    Tools::of_repository()
        .find(tool)
        .with_context(|| format!("{} is not there; run `cargo xtask setup`", tool.name()))
}
