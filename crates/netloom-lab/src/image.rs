//! The one image of the lab: Debian's static busybox, imported without any registry.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::run;

/// The name of the image inside every [`crate::DockerHost`]; a container of it idles.
pub const IMAGE: &str = "lab";

/// A tar file with the image's root folder, made once from `tree` and kept beside it.
pub(crate) fn tarball(tree: &Path) -> Result<PathBuf> {
    let tar = tree.with_extension("image.tar");
    if tar.exists() {
        return Ok(tar);
    }
    let busybox = tree.join("bin/busybox");
    let root = tempfile::tempdir()?;
    let bin = root.path().join("bin");
    for dir in ["bin", "etc", "tmp", "www", "root"] {
        fs::create_dir(root.path().join(dir))?;
    }
    fs::copy(&busybox, bin.join("busybox"))
        .with_context(|| format!("no busybox at {}", busybox.display()))?;
    let mut list = Command::new(&busybox);
    list.arg("--list");
    for applet in run(list, "busybox --list")?
        .ok()?
        .lines()
        .filter(|a| *a != "busybox")
    {
        symlink("busybox", bin.join(applet))?;
    }
    fs::write(root.path().join("www/index.html"), "hello from the lab\n")?;
    let unfinished = tar.with_extension("unfinished");
    let mut pack = Command::new("tar");
    pack.arg("-C")
        .arg(root.path())
        .arg("--owner=0")
        .arg("--group=0")
        .arg("-cf")
        .arg(&unfinished)
        .arg(".");
    run(pack, "tar of the lab's image")?.ok()?;
    fs::rename(&unfinished, &tar)?;
    Ok(tar)
}
