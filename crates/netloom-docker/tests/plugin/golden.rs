//! Dialogues on file: what goes in, what comes out, and what the parts behind the edge are asked.
//!
//! `UPDATE_GOLDEN=1 cargo test -p netloom-docker golden` writes answers and effects anew; read the
//! difference before it is kept.

use super::Plugin;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A file of `tests/golden`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dialogue {
    about: String,
    pub(crate) steps: Vec<Step>,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    pub(crate) call: String,
    /// Nothing means an empty body.
    pub(crate) request: Option<Value>,
    #[serde(default)]
    status: u16,
    #[serde(default)]
    answer: Value,
    /// What the controller and the IPAM were asked.
    #[serde(default)]
    effects: Vec<String>,
}

impl Step {
    pub(crate) fn body(&self) -> String {
        self.request
            .as_ref()
            .map_or(String::new(), |r| format!("{r}\n"))
    }
}

/// All dialogues, by file name.
pub(crate) fn dialogues() -> Vec<(PathBuf, Dialogue)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "tests/golden has no files");
    paths
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let dialogue =
                serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            (path, dialogue)
        })
        .collect()
}

#[tokio::test]
async fn dialogues_go_as_on_file() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    for (path, mut dialogue) in dialogues() {
        let plugin = Plugin::new();
        for (at, step) in dialogue.steps.iter_mut().enumerate() {
            let (status, answer) = plugin.send(&step.call, step.body()).await;
            let actual = Step {
                status: status.as_u16(),
                answer,
                effects: plugin.journal.take(),
                ..step.clone()
            };
            if update {
                *step = actual;
            } else {
                assert_eq!(actual, *step, "{} step {at}", path.display());
            }
        }
        if update {
            let text = serde_json::to_string_pretty(&dialogue).unwrap();
            std::fs::write(&path, text + "\n").unwrap();
        }
    }
}

#[tokio::test]
async fn a_repeated_call_has_the_same_answer_and_the_same_effects() {
    for (path, dialogue) in dialogues() {
        let plugin = Plugin::new();
        for (at, step) in dialogue.steps.iter().enumerate() {
            let first = plugin.send(&step.call, step.body()).await;
            let asked = plugin.journal.take();
            // A pool, and an address that no value names, are another one for every request.
            if step.call.starts_with("IpamDriver.Request") {
                continue;
            }
            let second = plugin.send(&step.call, step.body()).await;
            assert_eq!(first, second, "{} step {at}", path.display());
            assert_eq!(asked, plugin.journal.take(), "{} step {at}", path.display());
        }
    }
}
