//! System packages and root folders that demo and tests need.

use std::io::{IsTerminal, Write, stdin, stdout};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use netloom_lab::Version;
use netloom_lab::servers::{Tool, Tools};

use crate::{Consent, repo, term};

/// A package by name, a program of it, and what it is for.
const PACKAGES: [(&str, &str, &str); 9] = [
    (
        "mmdebstrap",
        "mmdebstrap",
        "makes the root folders of test hosts from Debian packages",
    ),
    (
        "debian-archive-keyring",
        "",
        "checks the signatures of those packages",
    ),
    ("iproute2", "ip", "lays wires between test hosts"),
    ("iputils-ping", "ping", "sends pings between test hosts"),
    ("util-linux", "nsenter", "makes and enters namespaces"),
    ("procps", "sysctl", "reads kernel settings in tests"),
    ("nftables", "nft", "shows the firewall's tables in tests"),
    (
        "iptables",
        "iptables",
        "shows the firewall's tables in tests",
    ),
    (
        "strace",
        "strace",
        "proves that the daemon starts no program",
    ),
];

/// The stores that hosts share, for tests.
const STORES: [(&str, &str, &str); 5] = [
    ("etcd-server", "etcd", "a store that hosts share"),
    ("zookeeper", "", "a store that hosts share"),
    ("default-jre-headless", "java", "runs ZooKeeper"),
    (
        "iproute2",
        "ip",
        "gives stores and hosts a network of their own",
    ),
    ("nftables", "nft", "drops packets between them"),
];

/// Installs with services held back: `policy-rc.d` answering 101 means "do not start" (Debian
/// Policy, invoke-rc.d). One that was there before is put back, also after a failure or Ctrl-C.
const INSTALL: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
saved=$policy.before-netloom
restore() {
    rm -f "$policy"
    if [ -e "$saved" ] || [ -L "$saved" ]; then mv "$saved" "$policy"; fi
}
if [ -e "$saved" ] || [ -L "$saved" ]; then
    echo "an earlier installation was cut off; putting $policy back first" >&2
    restore
fi
if [ -e "$policy" ] || [ -L "$policy" ]; then mv "$policy" "$saved"; fi
trap restore EXIT
trap 'exit 130' INT TERM HUP
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq || echo "apt-get update failed; trying with the lists that are there" >&2
apt-get install -y -qq --no-install-recommends "$@" >/dev/null
"#;

/// Installs what is missing and makes the trees of `versions`.
///
/// # Errors
/// When the person says no, a package cannot be installed or a tree cannot be made.
pub(crate) fn run(consent: &Consent, versions: &[Version]) -> Result<()> {
    install_missing(consent, &PACKAGES)?;
    make_trees(versions)
}

/// Installs the servers of stores that hosts share, and fetches those that this Debian lacks.
///
/// # Errors
/// When the person says no, or a package cannot be had.
pub(crate) fn stores(consent: &Consent) -> Result<()> {
    install_missing(consent, &STORES)?;
    let tools = Tools::of_repository();
    for tool in Tool::ALL {
        if tools.find(tool).is_none() {
            tools.ensure(tool)?;
            term::good(&format!("{} is ready", tool.name()));
        }
    }
    Ok(())
}

fn install_missing(consent: &Consent, wanted: &[(&str, &str, &str)]) -> Result<()> {
    let missing: Vec<_> = wanted
        .iter()
        .filter(|(package, program, _)| !is_installed(package, program))
        .collect();
    if !missing.is_empty() {
        term::heading("Setup");
        term::say("These system packages are missing:");
        for (package, _, purpose) in &missing {
            term::say(&format!("  {package:24} {purpose}"));
        }
        term::say("They are installed without their services being started; the network of");
        term::say("this machine stays as it is.");
        ask(consent)?;
        let names: Vec<&str> = missing.iter().map(|(package, ..)| *package).collect();
        install(&names)?;
        term::good(&format!("installed {}", names.join(", ")));
    }
    Ok(())
}

fn make_trees(versions: &[Version]) -> Result<()> {
    let trees = repo::trees();
    // Compose is lent to Debian 12 from the next release's tree.
    let mut wanted = versions.to_vec();
    if wanted.contains(&Version::Bookworm) {
        wanted.push(Version::Trixie);
    }
    wanted.retain(|v| !trees.is_made(*v));
    wanted.sort_unstable();
    wanted.dedup();
    if wanted.is_empty() {
        return Ok(());
    }
    if !repo::is_root() {
        let done = repo::again_as_root(&["setup".to_owned(), "--yes".to_owned()])?;
        return if done {
            Ok(())
        } else {
            bail!("the test hosts' root folders were not made")
        };
    }
    term::heading("Root folders of the test hosts");
    for version in wanted {
        trees.ensure(version, term::say)?;
        term::good(&format!("Debian {} is ready", version.suite()));
    }
    Ok(())
}

fn is_installed(package: &str, program: &str) -> bool {
    let status = Command::new("dpkg-query")
        .args(["-W", "-f=${Status}", package])
        .stderr(Stdio::null())
        .output();
    match status {
        Ok(output) => output.stdout.ends_with(b"ok installed"),
        // Not a Debian: what matters is whether the program is there.
        Err(_) => in_path(program),
    }
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    program.is_empty() || std::env::split_paths(&path).any(|dir| dir.join(program).exists())
}

fn ask(consent: &Consent) -> Result<()> {
    if consent.yes || std::env::var("CI").is_ok_and(|v| v == "true" || v == "1") {
        return Ok(());
    }
    if !stdin().is_terminal() {
        bail!("there is nobody to ask; say `--yes` to have them installed");
    }
    print!("  Install them now? [y/N] ");
    stdout().flush()?;
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => bail!("not installed; nothing was changed"),
    }
}

fn install(packages: &[&str]) -> Result<()> {
    let mut command = if repo::is_root() {
        Command::new("sh")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("sh");
        sudo
    };
    command.args(["-c", INSTALL, "install"]).args(packages);
    repo::run(&mut command).with_context(|| format!("could not install {}", packages.join(" ")))
}
