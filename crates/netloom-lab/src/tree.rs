//! Root file systems of Debian releases, made once from packages and kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};

use crate::command::run;

/// A release of Debian, which stands for the Docker that it ships.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// Debian 12: Docker 20.10.24.
    Bookworm,
    /// Debian 13: Docker 26.1.5.
    Trixie,
    /// Debian unstable: Docker 28 or newer.
    Sid,
}

impl Version {
    /// All releases, oldest first.
    pub const ALL: [Self; 3] = [Self::Bookworm, Self::Trixie, Self::Sid];

    /// The name of the release, as Debian's mirrors write it.
    #[must_use]
    pub const fn suite(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        }
    }

    /// Packages of the release: dockerd and what a Docker host has at hand.
    fn packages(self) -> String {
        let common = "docker.io,iptables,nftables,iproute2,iputils-ping,busybox-static,procps,\
                      ca-certificates,conntrack,strace,mount";
        match self {
            // Its only compose is the Python one; the newer release's binary is lent to it.
            Self::Bookworm => common.to_owned(),
            Self::Trixie | Self::Sid => format!("{common},docker-cli,docker-compose"),
        }
    }
}

impl FromStr for Version {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|v| v.suite() == text)
            .with_context(|| format!("`{text}` is none of bookworm, trixie, sid"))
    }
}

/// The folder that keeps the trees between runs.
#[derive(Debug, Clone)]
pub struct Trees {
    dir: PathBuf,
}

/// Where a tree comes from, unless `NETLOOM_LAB_MIRROR` names a nearer mirror.
const MIRROR: &str = "http://deb.debian.org/debian";

/// The mirror that packages come from.
pub(crate) fn mirror() -> String {
    std::env::var("NETLOOM_LAB_MIRROR").unwrap_or_else(|_| MIRROR.to_owned())
}

/// Written last into a finished tree; a tree made from another list of packages is made anew.
const RECIPE: &str = "etc/netloom-lab-recipe";

impl Trees {
    /// Trees below `dir`, which is made when needed.
    #[must_use]
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The tree of `version`, which is there after [`Trees::ensure`].
    #[must_use]
    pub fn path(&self, version: Version) -> PathBuf {
        self.dir.join(version.suite())
    }

    /// The compose plugin lent to releases that have none, if its tree is there.
    #[must_use]
    pub fn lent_compose(&self) -> Option<PathBuf> {
        let plugin = "usr/libexec/docker/cli-plugins/docker-compose";
        Some(self.path(Version::Trixie).join(plugin)).filter(|p| p.exists())
    }

    /// Whether the tree of `version` is there and made from today's list of packages.
    #[must_use]
    pub fn is_made(&self, version: Version) -> bool {
        fs::read_to_string(self.path(version).join(RECIPE))
            .is_ok_and(|recipe| recipe == version.packages())
    }

    /// Makes the tree of `version` if it is not there; takes about 20 s and 460 MB.
    ///
    /// # Errors
    /// When mmdebstrap fails: a mirror that cannot be reached is loud, never a skipped test.
    pub fn ensure(&self, version: Version, mut say: impl FnMut(&str)) -> Result<PathBuf> {
        fs::create_dir_all(&self.dir)?;
        let lock = fs::File::create(self.dir.join("lock"))?;
        let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| e)?;
        let tree = self.path(version);
        if self.is_made(version) {
            return Ok(tree);
        }
        say(&format!(
            "making the Debian {} tree in {} (about 20 s)",
            version.suite(),
            tree.display()
        ));
        let unfinished = self.dir.join(format!("{}.unfinished", version.suite()));
        for old in [&unfinished, &tree] {
            if old.exists() {
                fs::remove_dir_all(old)?;
            }
        }
        self.debootstrap(version, &unfinished)?;
        fs::write(unfinished.join(RECIPE), version.packages())?;
        fs::rename(&unfinished, &tree)?;
        Ok(tree)
    }

    fn debootstrap(&self, version: Version, target: &Path) -> Result<()> {
        let mirror = mirror();
        let mut command = Command::new("mmdebstrap");
        command
            .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
            .arg("--aptopt=Acquire::Retries \"3\"")
            .arg("--variant=apt")
            .arg(format!("--include={}", version.packages()))
            .arg(version.suite())
            .arg(target)
            .arg(&mirror);
        let keyring = Path::new("/usr/share/keyrings/debian-archive-keyring.gpg");
        if keyring.exists() {
            command.arg(format!("--keyring={}", keyring.display()));
        }
        let shown = format!("mmdebstrap {} from {mirror}", version.suite());
        let done = run(command, &shown)?;
        if done.code != 0 {
            let tail: Vec<&str> = done.stderr.lines().rev().take(8).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            bail!(
                "the {} tree could not be made: {}",
                version.suite(),
                tail.join("\n")
            );
        }
        ensure!(
            target.join("usr/sbin/dockerd").exists(),
            "the {} tree was made without dockerd",
            version.suite()
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_named_by_its_release() {
        for version in Version::ALL {
            assert_eq!(
                version.suite().parse::<Version>().expect("a known name"),
                version
            );
        }
        assert!("jessie".parse::<Version>().is_err());
    }

    #[test]
    fn a_tree_from_another_list_of_packages_does_not_count_as_made() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let trees = Trees::at(dir.path());
        assert!(!trees.is_made(Version::Sid));
        let recipe = trees.path(Version::Sid).join(RECIPE);
        fs::create_dir_all(recipe.parent().expect("it has one")).expect("folder");
        fs::write(&recipe, "docker.io").expect("file");
        assert!(!trees.is_made(Version::Sid));
        fs::write(&recipe, Version::Sid.packages()).expect("file");
        assert!(trees.is_made(Version::Sid));
    }
}
