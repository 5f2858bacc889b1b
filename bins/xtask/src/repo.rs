//! Where things are in this repository, and how its programs are built.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use netloom_lab::{HostOptions, Trees, Version};

/// Programs that a machine of the lab needs.
pub(crate) const PROGRAMS: [&str; 4] = ["netloomd", "netloom", "netloom-holder", "netloom-relay"];

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    // Two folders above this crate, wherever the clone lies: cargo tells at run time too, and a program that was
    // built in another clone, with a target folder that came from there, knows that one.
    let crate_dir = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let here = crate_dir.join("../..");
    here.canonicalize().unwrap_or(here)
}

/// A `cargo` command at the root of the repository.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a command whose words go to the terminal.
///
/// # Errors
/// When it cannot be started or fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("could not start {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

/// The trees of Debian releases, kept in a folder that git ignores.
pub(crate) fn trees() -> Trees {
    Trees::at(root().join(".cache/trees"))
}

/// Builds Netloom's programs beside this one and gives their folder.
///
/// # Errors
/// When they do not build.
pub(crate) fn build_programs() -> Result<PathBuf> {
    build_with(&[])
}

/// As [`build_programs`], with more words for cargo.
///
/// # Errors
/// When they do not build.
pub(crate) fn build_with(words: &[&str]) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--quiet"]).args(words);
    for program in PROGRAMS {
        build.args(["-p", program]);
    }
    run(&mut build)?;
    programs()
}

/// Builds Netloom's programs and this one for speed and gives their folder.
///
/// # Errors
/// When they do not build.
pub(crate) fn build_release_programs() -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--quiet", "--release", "-p", "xtask"]);
    for program in PROGRAMS {
        build.args(["-p", program]);
    }
    run(&mut build)?;
    // Programs lie in `target/PROFILE`; this one may be of another profile.
    let this = std::env::current_exe()?;
    let target = this
        .parent()
        .and_then(Path::parent)
        .context("a program lies in target/PROFILE")?;
    Ok(target.join("release"))
}

/// The folder of the built programs: the one that this program lies in.
///
/// # Errors
/// When one of them is missing there.
pub(crate) fn programs() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let dir = this.parent().context("a program lies in a folder")?;
    for program in PROGRAMS {
        if !dir.join(program).exists() {
            bail!(
                "{program} is not built in {}; run `cargo build`",
                dir.display()
            );
        }
    }
    Ok(dir.to_owned())
}

/// Options of a machine of `version` with the programs of this build.
///
/// # Errors
/// When they are not built.
pub(crate) fn host_options(version: Version) -> Result<HostOptions> {
    Ok(HostOptions::new(version, &trees(), programs()?))
}

/// Whether this process may make namespaces.
pub(crate) fn is_root() -> bool {
    // The owner of our own process entry is our effective user.
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

/// Runs this program again with other words, as root by sudo.
///
/// # Errors
/// When sudo cannot be started.
pub(crate) fn again_as_root(words: &[String]) -> Result<bool> {
    let mut sudo = Command::new("sudo");
    sudo.arg("--preserve-env=PATH,CI,NO_COLOR,CARGO,CARGO_TARGET_DIR,NETLOOM_LAB_DIR")
        .arg("--preserve-env=NETLOOM_LAB_MIRROR,HOME,RUSTUP_HOME,CARGO_HOME,TERM")
        .arg(std::env::current_exe()?)
        .args(words);
    let status = sudo
        .status()
        .context("root is needed for namespaces, and there is no `sudo`")?;
    Ok(status.success())
}
