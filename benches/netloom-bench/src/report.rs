//! What every bench prints: flat JSON lines, and gates that pass or fail.

use serde::Serialize;
use std::io::Write;

/// One figure. All benches of the project use this form, one object a line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) bench: &'static str,
    #[serde(rename = "impl")]
    pub(crate) subject: &'static str,
    pub(crate) pattern: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pool: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) occupancy: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) threads: Option<usize>,
    pub(crate) metric: &'static str,
    pub(crate) value: f64,
}

/// A promise about a ratio of two rows of the same run, or about one row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gate {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) at_most: f64,
}

impl Gate {
    pub(crate) fn passes(&self) -> bool {
        self.value <= self.at_most
    }

    pub(crate) fn line(&self) -> String {
        let verdict = if self.passes() { "PASS" } else { "FAIL" };
        format!(
            "{verdict}  {:<58} {:>7.2}  (at most {:.2})",
            self.name, self.value, self.at_most
        )
    }
}

/// Prints one line; the only place of the benches that writes to standard output. Who stops reading
/// (`| head`) misses the rest, which is no failure of the run.
pub(crate) fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints rows as JSON, one a line.
pub(crate) fn print_json(rows: &[Row]) -> anyhow::Result<()> {
    for row in rows {
        print(&serde_json::to_string(row)?);
    }
    Ok(())
}
