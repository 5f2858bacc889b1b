//! Which crate may import which: the floors of docs/ARCHITECTURE.md.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::repo;

/// A crate imports only from floors below its own.
const FLOORS: [&[&str]; 5] = [
    &["netloom-types"],
    &["netloom-alloc", "netloom-core", "netloom-linux"],
    &[
        "netloom-store",
        "netloom-etcd",
        "netloom-consul",
        "netloom-zookeeper",
        "netloom-ipam",
        "netloom-drivers",
        "netloom-engine",
        "netloom-docker",
        "netloom-api",
    ],
    &["netloom-lab", "netloom-stores"],
    &[
        "netloomd",
        "netloom",
        "netloom-holder",
        "netloom-relay",
        "xtask",
        "netloom-bench",
        "netloom-proof",
    ],
];

/// What test suites may use wherever they stand: the stores' conformance suite and memory store, and
/// the lab's real servers.
const FOR_TESTS: [&str; 2] = ["netloom-store", "netloom-lab"];

/// What cargo knows of the workspace.
///
/// # Errors
/// When cargo fails.
pub(super) fn metadata() -> Result<Value> {
    let output = repo::cargo()
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .output()
        .context("could not start cargo")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo metadata: {text}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn floor_of(name: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&name))
}

/// Imports that go up, or sideways.
pub(super) fn violations(metadata: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for package in list(metadata, "packages") {
        let name = text(package, "name");
        let Some(floor) = floor_of(name) else {
            found.push(format!(
                "{name} stands on no floor; give it one in the list of floors"
            ));
            continue;
        };
        for dependency in list(package, "dependencies") {
            let (on, kind) = (text(dependency, "name"), text(dependency, "kind"));
            let is_fine = match floor_of(on) {
                // From outside the workspace.
                None => true,
                Some(below) if below < floor => true,
                Some(_) => kind == "dev" && FOR_TESTS.contains(&on),
            };
            if !is_fine {
                found.push(format!(
                    "{name} imports {on}, which does not lie on a lower floor"
                ));
            }
        }
    }
    found
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value
        .get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn import(from: &str, on: &str, kind: &Value) -> Value {
        json!({ "packages": [{ "name": from, "dependencies": [{ "name": on, "kind": kind }] }] })
    }

    #[test]
    fn an_import_from_a_lower_floor_is_fine() {
        assert!(violations(&import("netloom-ipam", "netloom-alloc", &Value::Null)).is_empty());
        assert!(violations(&import("netloom-types", "serde", &Value::Null)).is_empty());
    }

    #[test]
    fn an_import_upwards_or_sideways_is_found() {
        assert_eq!(
            violations(&import("netloom-core", "netloom-ipam", &Value::Null)).len(),
            1
        );
        assert_eq!(
            violations(&import("netloom-ipam", "netloom-drivers", &Value::Null)).len(),
            1
        );
        assert_eq!(
            violations(&import("netloom-ipam", "netloom-store", &Value::Null)).len(),
            1
        );
    }

    #[test]
    fn tests_may_use_the_memory_store() {
        assert!(violations(&import("netloom-ipam", "netloom-store", &json!("dev"))).is_empty());
        assert_eq!(
            violations(&import("netloom-ipam", "netloom-engine", &json!("dev"))).len(),
            1
        );
    }

    #[test]
    fn a_crate_without_a_floor_is_found() {
        let new = json!({ "packages": [{ "name": "netloom-new", "dependencies": [] }] });
        assert_eq!(violations(&new).len(), 1);
    }

    #[test]
    fn the_workspace_keeps_its_floors() {
        let found = violations(&metadata().expect("cargo metadata"));
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}
