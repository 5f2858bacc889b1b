//! `cargo xtask lint`: format, clippy, the house rules.

use anyhow::Result;

use crate::{repo, term, tidy};

/// Runs the three; `false` where one of them found something.
pub(crate) fn run() -> Result<bool> {
    let mut good = true;
    let steps: [(&str, &[&str]); 2] = [
        ("format", &["fmt", "--all", "--check"]),
        (
            "clippy",
            &[
                "clippy",
                "--workspace",
                "--all-targets",
                "--quiet",
                "--",
                "-D",
                "warnings",
            ],
        ),
    ];
    for (name, words) in steps {
        term::heading(name);
        let status = repo::cargo().args(words).status()?;
        if status.success() {
            term::good(&format!("cargo {}", words.join(" ")));
        } else {
            term::failure(&format!("cargo {}", words.join(" ")));
            good = false;
        }
    }
    let tally = tidy::suite()?;
    Ok(good && tally.failed == 0)
}
