//! What a machine holds that Netloom or Docker may have left behind.

use std::collections::BTreeSet;
use std::fs;

use anyhow::Result;

use crate::host::DockerHost;

/// The kernel state and files of a machine at one moment, as readable lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// What is here and was not there in `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }

    /// Lines that contain `part`.
    #[must_use]
    pub fn matching(&self, part: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|line| line.contains(part))
            .cloned()
            .collect()
    }
}

impl DockerHost {
    /// Links, addresses, routes, netfilter rules and elements, namespaces and run files.
    ///
    /// # Errors
    /// When a listing fails.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let mut lines = BTreeSet::new();
        // Numbers that differ from link to link or age with time say nothing about leftovers.
        for line in self.shell("ip -o link show")?.ok()?.lines() {
            let name = line.split(": ").nth(1).unwrap_or(line);
            lines.insert(format!("link {}", name.split('@').next().unwrap_or(name)));
        }
        for family in ["-4", "-6"] {
            for line in self
                .shell(&format!("ip {family} rule; ip {family} route"))?
                .ok()?
                .lines()
            {
                lines.insert(format!("route {family} {}", line.trim()));
            }
        }
        for tool in ["iptables-save", "ip6tables-save"] {
            let saved = self.shell(&format!("{tool} 2>/dev/null"))?;
            for line in saved.stdout.lines().filter(|l| l.starts_with("-A")) {
                lines.insert(format!("{tool} {line}"));
            }
        }
        self.nft_elements(&mut lines)?;
        // Docker removes a dead sandbox's file in /run/docker/netns up to a minute later: not here.
        for dir in ["/run/docker/plugins", "/run/netns", "/run/netloom"] {
            for entry in fs::read_dir(self.path(dir)).into_iter().flatten().flatten() {
                lines.insert(format!(
                    "file {dir}/{}",
                    entry.file_name().to_string_lossy()
                ));
            }
        }
        Ok(Snapshot(lines))
    }

    /// Rules and elements of our table, one line each.
    fn nft_elements(&self, lines: &mut BTreeSet<String>) -> Result<()> {
        let table = self
            .shell("nft list table inet netloom 2>/dev/null")?
            .stdout;
        for line in table.lines() {
            let text = line
                .trim()
                .trim_start_matches("elements = {")
                .trim_end_matches('}');
            for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
                let part = part.split(" counter ").next().unwrap_or(part);
                lines.insert(format!("nft {part}"));
            }
        }
        Ok(())
    }
}
