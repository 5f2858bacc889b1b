//! The house rules that no compiler knows, held against the files of the repository.

mod floors;
mod text;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::suite::Tally;
use crate::{repo, term};

/// A file of the repository: its path below the root, and its text.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    path: String,
    text: String,
}

/// A rule with a name, and what it finds wrong.
struct Rule {
    name: &'static str,
    check: fn(&[Source]) -> Vec<String>,
}

const RULES: [Rule; 7] = [
    Rule {
        name: "every crate refuses unsafe code",
        check: text::unsafe_is_refused,
    },
    Rule {
        name: "no source file is longer than 700 lines",
        check: text::files_are_short,
    },
    Rule {
        name: "no debug output in a library",
        check: text::libraries_are_silent,
    },
    Rule {
        name: "nothing is left for later",
        check: text::nothing_is_left_for_later,
    },
    Rule {
        name: "one first-level heading per document",
        check: text::one_heading,
    },
    Rule {
        name: "no path of a developer's machine",
        check: text::no_machine_paths,
    },
    Rule {
        name: "versions stand in one table",
        check: text::versions_stand_in_one_table,
    },
];

/// Runs every rule, prints what they find, counts one per rule.
///
/// # Errors
/// When the repository cannot be read.
pub(crate) fn suite() -> Result<Tally> {
    term::heading("tidy");
    let sources = read_all(&repo::root())?;
    let mut tally = Tally::default();
    let mut report = |name: &str, found: &[String]| {
        tally.add(found.is_empty().into());
        if found.is_empty() {
            term::good(name);
        } else {
            term::failure(name);
            for line in found {
                println!("      {line}");
            }
        }
    };
    for rule in &RULES {
        report(rule.name, &(rule.check)(&sources));
    }
    report(
        "crates import only from lower floors",
        &floors::violations(&floors::metadata()?),
    );
    Ok(tally)
}

/// Reads every text file of the repository that the rules look at.
fn read_all(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = folder.join(&name);
            let kind = entry.file_type()?;
            if kind.is_dir() && !matches!(name.as_str(), "target" | ".git" | ".cache" | "corpus") {
                folders.push(path);
            } else if kind.is_file() && is_looked_at(&name) {
                let text = fs::read_to_string(root.join(&path))?;
                sources.push(Source {
                    path: path.to_string_lossy().into_owned(),
                    text,
                });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn is_looked_at(name: &str) -> bool {
    let ends = [
        ".rs", ".md", ".toml", ".sh", ".service", ".socket", ".yaml", ".yml",
    ];
    ends.iter().any(|end| name.ends_with(end)) || name == "run"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_keeps_its_rules() {
        let sources = read_all(&repo::root()).expect("the repository is readable");
        let found: Vec<String> = RULES
            .iter()
            .flat_map(|rule| (rule.check)(&sources))
            .collect();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}
