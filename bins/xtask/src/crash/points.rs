//! The named steps at which a daemon can be killed, read from the source.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::repo;

/// Points that no life in the lab passes, each with the reason. Every other one that is not
/// reached fails the test.
pub(super) const EXCUSED: &[(&str, &str)] = &[
    ("ipam.range.after_offer", SHARED),
    ("ipam.range.after_renewal", SHARED),
    ("ipam.range.before_offer", SHARED),
    ("ipam.range.before_renewal", SHARED),
    ("ipam.range.leaving", SHARED),
    ("ipam.range.returning", SHARED),
];

/// The lab's machine is a host by itself.
const SHARED: &str = "only hosts that share a store pass it; netloom-ipam's crash test has such hosts, and dies there";

/// Every literal of `crash_point!` in the programs and their crates.
///
/// # Errors
/// When the source cannot be read.
pub(super) fn all() -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for top in ["crates", "bins"] {
        let top = repo::root().join(top);
        for entry in fs::read_dir(&top)
            .with_context(|| top.display().to_string())?
            .flatten()
        {
            collect(&entry.path().join("src"), &mut names)?;
        }
    }
    ensure!(!names.is_empty(), "the source names no crash points");
    Ok(names)
}

fn collect(dir: &Path, names: &mut BTreeSet<String>) -> Result<()> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, names)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            names.extend(in_source(&fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

/// The names in one file; those in comments are examples.
fn in_source(text: &str) -> Vec<String> {
    // Put together here, so that this file does not find itself.
    let call = ["crash_point", "!(\""].concat();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .filter_map(|line| line.split_once(&call)?.1.split_once('"'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_comments_are_no_points() {
        let call = ["crash_point", "!(\""].concat();
        let text = format!("    core::{call}a.b\");\n    /// {call}c\");\n");
        assert_eq!(in_source(&text), ["a.b"]);
    }

    #[test]
    fn only_points_that_exist_are_excused() {
        let all = all().expect("the source is there");
        for (name, reason) in EXCUSED {
            assert!(all.contains(*name), "{name} is no point any more");
            assert!(reason.len() > 20, "{name}: say why");
        }
    }
}
