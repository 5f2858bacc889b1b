//! The page of proofs, from results as they are.

use std::fmt::Write;

use serde_json::Value;

/// What there is to tell.
pub(super) struct Page {
    pub(super) model: Option<Value>,
    pub(super) sim: Option<Value>,
    pub(super) planted: Option<Value>,
    pub(super) planted_histories: Option<Value>,
    /// One report a store.
    pub(super) histories: Vec<Value>,
}

const HEAD: &str = "# Proofs

Written by `cargo xtask prove` from the results in `benches/netloom-proof/results`; nothing here is
written by hand. What is proved, and what cannot be: [address-protocol.md](address-protocol.md).
";

impl Page {
    /// The whole page.
    pub(super) fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        self.model(&mut text);
        self.sim(&mut text);
        self.planted(&mut text);
        self.histories(&mut text);
        self.planted_histories(&mut text);
        self.all_planted(&mut text);
        text
    }

    fn model(&self, text: &mut String) {
        line(text, "\n## Model: every interleaving of small worlds\n");
        let Some(model) = &self.model else {
            return line(text, NOT_RUN);
        };
        line(
            text,
            "| walk | states | steps | depth | seconds | verdict |",
        );
        line(text, "|---|---:|---:|---:|---:|---|");
        for walk in list(model, "walks") {
            let verdict = match (of(walk, "complete"), list(walk, "violations").len()) {
                ("true", 0) if list(walk, "never_met").is_empty() => "holds".to_owned(),
                ("true", _) => format!("broken: {}", broken(walk)),
                _ => "not walked to its end".to_owned(),
            };
            walk_row(
                text,
                walk,
                of(walk.get("plan").unwrap_or(&Value::Null), "name"),
                &verdict,
            );
        }
        line(
            text,
            "\nBugs planted into the model; each must hand out an address twice, or lose it:\n",
        );
        line(
            text,
            "| bug | states | steps | depth | seconds | found by |",
        );
        line(text, "|---|---:|---:|---:|---:|---|");
        for walk in list(model, "planted") {
            let bug = walk.pointer("/plan/planted").unwrap_or(&Value::Null);
            walk_row(text, walk, &word(bug), &broken(walk));
        }
        line(
            text,
            "\nWhat cannot be promised; each must be found to fail:\n",
        );
        line(
            text,
            "| promise | states | steps | depth | seconds | fails by |",
        );
        line(text, "|---|---:|---:|---:|---:|---|");
        for walk in list(model, "cannot_be_promised") {
            let name = walk.pointer("/plan/name").unwrap_or(&Value::Null);
            walk_row(text, walk, &word(name), &broken(walk));
        }
    }

    fn sim(&self, text: &mut String) {
        line(
            text,
            "\n## Simulation: the real code in a simulated world\n",
        );
        let Some(sim) = &self.sim else {
            return line(text, NOT_RUN);
        };
        line(text, "| | |\n|---|---:|");
        for (what, key) in [
            ("first seed", "first"),
            ("seeds", "seeds"),
            ("calls", "operations"),
            ("of these, refused", "refused"),
            ("fewest calls of a seed", "fewest_operations"),
            ("fewest faults of a seed", "fewest_faults"),
            ("reads of the store", "reads"),
            ("commits of the store", "commits"),
            ("commits whose outcome nobody was told", "unknown"),
            (
                "runs in which something was lost that is not promised, and was noticed",
                "unpromised",
            ),
            ("seconds", "seconds"),
        ] {
            line(text, &format!("| {what} | {} |", number(sim.get(key))));
        }
        line(text, "");
        counts(text, "kind of run", sim.get("kinds"));
        counts(text, "fault", sim.get("faults"));
        match sim.get("broken").and_then(Value::as_object) {
            Some(broken) if broken.is_empty() => line(text, "Every promise held in every run."),
            _ => counts(text, "**broken** promise", sim.get("broken")),
        }
    }

    fn planted(&self, text: &mut String) {
        line(text, "\n## Bugs planted into the simulation\n");
        let Some(Value::Array(bugs)) = &self.planted else {
            return line(text, NOT_RUN);
        };
        let all_found = bugs.iter().filter(|bug| is_found(bug)).count();
        line(text, &format!("{all_found} of {} found.\n", bugs.len()));
        line(
            text,
            "| bug | found | seeds until then | seconds | by the promise |",
        );
        line(text, "|---|---|---:|---:|---|");
        for bug in bugs {
            let promises: Vec<String> = list(bug, "promises").iter().map(word).collect();
            line(
                text,
                &format!(
                    "| {} | {} | {} | {} | {} |",
                    of(bug, "bug"),
                    found(bug),
                    number(bug.get("seeds")),
                    number(bug.get("seconds")),
                    promises.join(", ")
                ),
            );
        }
    }

    fn planted_histories(&self, text: &mut String) {
        line(
            text,
            "\n## Bugs planted between hosts and their stores and disks\n",
        );
        let Some(Value::Array(bugs)) = &self.planted_histories else {
            return line(text, NOT_RUN);
        };
        line(
            text,
            "| bug | found | calls until then | seconds | how it showed |",
        );
        line(text, "|---|---|---:|---:|---|");
        for bug in bugs {
            let by: Vec<String> = list(bug, "by").iter().map(word).collect();
            let (calls, seconds) = (number(bug.get("operations")), number(bug.get("seconds")));
            let row = [of(bug, "bug"), found(bug), &calls, &seconds, &by.join("; ")];
            line(text, &format!("| {} |", row.join(" | ")));
        }
    }

    fn all_planted(&self, text: &mut String) {
        line(
            text,
            "\n## All planted bugs, by the layer that is to find them\n",
        );
        line(text, "| layer | planted | found |\n|---|---:|---:|");
        let model = self.model.as_ref().map(|model| list(model, "planted"));
        let model = model.map(|bugs| {
            let broken = |walk: &&Value| !list(walk, "violations").is_empty();
            (bugs.len(), bugs.iter().filter(broken).count())
        });
        let of_list = |bugs: &Option<Value>| {
            let bugs = bugs.as_ref().and_then(Value::as_array)?;
            Some((bugs.len(), bugs.iter().filter(|bug| is_found(bug)).count()))
        };
        let layers = [
            ("model", model),
            ("simulation", of_list(&self.planted)),
            ("histories", of_list(&self.planted_histories)),
        ];
        let mut all = (0, 0);
        for (layer, counts) in layers {
            match counts {
                None => line(text, &format!("| {layer} | not run | |")),
                Some((planted, found)) => {
                    all = (all.0 + planted, all.1 + found);
                    line(text, &format!("| {layer} | {planted} | {found} |"));
                }
            }
        }
        line(text, &format!("| all | {} | {} |", all.0, all.1));
    }

    fn histories(&self, text: &mut String) {
        line(
            text,
            "\n## Histories: real hosts on real stores, under faults\n",
        );
        if self.histories.is_empty() {
            return line(text, NOT_RUN);
        }
        let stores: Vec<&str> = self.histories.iter().map(|run| of(run, "store")).collect();
        line(text, &format!("| | {} |", stores.join(" | ")));
        line(text, &format!("|---|{}", "---:|".repeat(stores.len())));
        for (what, pointer) in ROWS {
            let cells = self.histories.iter().map(|run| cell(run.pointer(pointer)));
            let cells: Vec<String> = cells.collect();
            line(text, &format!("| {what} | {} |", cells.join(" | ")));
        }
        line(text, "");
        for run in &self.histories {
            counts(
                text,
                &format!("fault on {}", of(run, "store")),
                run.get("faults"),
            );
            let what = format!("what the ways did, {}", of(run, "store"));
            counts(text, &what, run.get("ways"));
            for wrong in list(run, "wrong") {
                line(text, &format!("- wrong: {}", word(wrong)));
            }
        }
    }
}

const NOT_RUN: &str = "Not run.";

/// The rows of the stores' table, and where in a report they are.
const ROWS: [(&str, &str); 33] = [
    ("passed", "/passed"),
    ("as long as wanted", "/goals_reached"),
    ("seed", "/seed"),
    ("servers", "/servers"),
    ("hosts", "/hosts"),
    ("callers of each", "/callers"),
    ("pools", "/pools"),
    ("addresses in each", "/pool_size"),
    ("seconds of load", "/seconds"),
    ("calls answered", "/operations"),
    ("a second", "/rate"),
    ("least to pass, a second", "/rate_least"),
    ("taken", "/calls/taken"),
    ("taken by value", "/calls/taken_by_value"),
    ("released", "/calls/released"),
    ("refused: full", "/calls/full"),
    ("refused: in use", "/calls/in_use"),
    ("not served: store or holder away", "/calls/away"),
    ("cut short by a death", "/calls/cut_short"),
    ("of these, found done: takes", "/calls/found"),
    ("of these, found done: releases", "/calls/gone"),
    ("processes of hosts", "/calls/lives"),
    ("record commits", "/calls/commits"),
    (
        "commits with a conflict or no answer",
        "/calls/commits_lost",
    ),
    ("changes of hands", "/hands_changed"),
    ("addresses checked", "/linear/addresses"),
    ("linearizable", "/linear/linearizable"),
    ("not linearizable", "/linear/violations"),
    ("verdict unknown", "/linear/unknown"),
    (
        "compared: runs, ranges, journalled, held",
        "/duplicates/compared",
    ),
    ("disagreements of the three sides", "/duplicates/found"),
    ("wrong otherwise", "/wrong"),
    ("releases without a clear answer", "/calls/unclear"),
];

fn is_found(bug: &Value) -> bool {
    of(bug, "found") == "true"
}

fn found(bug: &Value) -> &'static str {
    if is_found(bug) { "yes" } else { "**no**" }
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a text takes every line");
}

fn walk_row(text: &mut String, walk: &Value, name: &str, verdict: &str) {
    let numbers: Vec<String> = ["states", "steps", "depth", "seconds"]
        .iter()
        .map(|key| number(walk.get(key)))
        .collect();
    line(
        text,
        &format!("| {name} | {} | {verdict} |", numbers.join(" | ")),
    );
}

/// The properties that a walk found broken.
fn broken(walk: &Value) -> String {
    let found = list(walk, "violations").iter();
    let names: Vec<&str> = found.map(|violation| of(violation, "property")).collect();
    names.join(", ")
}

fn counts(text: &mut String, what: &str, counts: Option<&Value>) {
    let Some(counts) = counts.and_then(Value::as_object) else {
        return;
    };
    if counts.is_empty() {
        return;
    }
    line(text, &format!("| {what} | times |\n|---|---:|"));
    for (name, count) in counts {
        let name = name.replace('_', " ");
        line(text, &format!("| {name} | {} |", number(Some(count))));
    }
    line(text, "");
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// A field that is a word or a truth.
fn of<'a>(value: &'a Value, key: &str) -> &'a str {
    match value.get(key) {
        Some(Value::String(text)) => text,
        Some(Value::Bool(true)) => "true",
        Some(Value::Bool(false)) => "false",
        _ => "",
    }
}

fn word(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// A cell of the stores' table: of four numbers each, of a list its length.
fn cell(value: Option<&Value>) -> String {
    match value {
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Bool(false)) => "**no**".to_owned(),
        Some(Value::Array(all)) if all.len() == 4 && all.iter().all(Value::is_u64) => {
            let all: Vec<String> = all.iter().map(|one| number(Some(one))).collect();
            all.join(" / ")
        }
        Some(Value::Array(all)) => all.len().to_string(),
        other => number(other),
    }
}

/// A number as people read it.
fn number(value: Option<&Value>) -> String {
    let Some(whole) = value.and_then(Value::as_u64) else {
        let real = value.and_then(Value::as_f64);
        return real.map_or_else(|| "–".to_owned(), |real| format!("{real:.1}"));
    };
    let digits = whole.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_page_says_what_failed_and_what_did_not_run() {
        let page = Page {
            model: None,
            sim: Some(json!({"seeds": 1_234_567, "broken": {"no_leak": 2}})),
            planted: Some(json!([{"bug": "x", "found": false, "seeds": 9, "promises": []}])),
            planted_histories: Some(json!([
                {"bug": "y", "found": true, "by": ["the three sides disagree"]},
            ])),
            histories: vec![json!({
                "store": "etcd", "passed": false, "operations": 1000,
                "faults": {"host_killed": 3}, "linear": {"unknown": ["10.0.0.1"]},
            })],
        };
        let text = page.text();
        assert!(text.contains(NOT_RUN), "{text}");
        assert!(text.contains("| seeds | 1,234,567 |"), "{text}");
        assert!(text.contains("**broken** promise"), "{text}");
        assert!(text.contains("0 of 1 found."), "{text}");
        assert!(text.contains("| simulation | 1 | 0 |"), "{text}");
        assert!(text.contains("| all | 2 | 1 |"), "{text}");
        assert!(text.contains("| passed | **no** |"), "{text}");
        assert!(text.contains("| host killed | 3 |"), "{text}");
        assert!(text.contains("| verdict unknown | 1 |"), "{text}");
    }

    #[test]
    fn numbers_are_grouped() {
        for (number_, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345_678, "12,345,678"),
        ] {
            assert_eq!(number(Some(&json!(number_))), text);
        }
        assert_eq!(number(None), "–");
    }
}
