//! A process that uses the embedded store is killed: at random moments, and at every named step.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop at any error, and starts the processes that it kills"
)]

use netloom_core::store::{Key, Operation, Store, Transaction, Version};
use netloom_store::EmbeddedStore;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

/// Tasks of a child that write at once, so that transactions share batches.
const WRITERS: u64 = 6;
const CHILD_PATH: &str = "NETLOOM_TEST_STORE";

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn counter(writer: u64) -> Key {
    key(&format!("counters/{writer}"))
}

fn twin(writer: u64) -> Key {
    key(&format!("twins/{writer}"))
}

fn passing(writer: u64, number: u64) -> Key {
    key(&format!("passing/{writer}/{number}"))
}

/// What the parent starts and kills: writes for ever, and prints each acknowledged number.
#[test]
#[ignore = "the process that the other tests kill"]
fn the_child_that_is_killed() {
    let Some(path) = std::env::var_os(CHILD_PATH) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Arc::new(EmbeddedStore::open(path).unwrap());
        let write = |writer| write_for_ever(Arc::clone(&store), writer);
        let tasks: Vec<_> = (0..WRITERS)
            .map(|writer| tokio::spawn(write(writer)))
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// Each step writes the number under two keys, creates a key, and deletes the one before it.
async fn write_for_ever(store: Arc<EmbeddedStore>, writer: u64) {
    let mut number = number_in(&store, &counter(writer)).await;
    loop {
        number += 1;
        let value = number.to_be_bytes().to_vec();
        let mut operations = vec![Operation::Create(passing(writer, number), value.clone())];
        for key in [counter(writer), twin(writer)] {
            operations.push(match version_of(&store, &key).await {
                None => Operation::Create(key, value.clone()),
                Some(version) => Operation::Update(key, value.clone(), version),
            });
        }
        let before = passing(writer, number - 1);
        if let Some(version) = version_of(&store, &before).await {
            operations.push(Operation::Delete(before, version));
        }
        store.commit(Transaction::new(operations)).await.unwrap();
        // One write, so that a line is there wholly or not at all.
        let line = format!("ack {writer} {number}\n");
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    }
}

async fn version_of(store: &EmbeddedStore, key: &Key) -> Option<Version> {
    store.get(key).await.unwrap().map(|row| row.version)
}

async fn number_in(store: &EmbeddedStore, key: &Key) -> u64 {
    let row = store.get(key).await.unwrap();
    row.map_or(0, |row| u64::from_be_bytes(row.value.try_into().unwrap()))
}

fn start(path: &Path, environment: &[(&str, &str)]) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "the_child_that_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(CHILD_PATH, path)
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

/// The last acknowledged number of each writer.
type Acknowledged = BTreeMap<u64, u64>;

/// Reads acknowledgements, at most `limit`; returns how many came.
fn read_acknowledged(
    output: &mut BufReader<ChildStdout>,
    acknowledged: &mut Acknowledged,
    limit: usize,
) -> usize {
    let mut came = 0;
    for line in output.lines() {
        let Ok(line) = line else { break };
        // The test harness prints lines of its own.
        let Some(numbers) = line.strip_prefix("ack ") else {
            continue;
        };
        let (writer, number) = numbers.split_once(' ').unwrap();
        acknowledged.insert(writer.parse().unwrap(), number.parse().unwrap());
        came += 1;
        if came == limit {
            break;
        }
    }
    came
}

/// Opens the store as the next process would, and compares it with what was acknowledged.
fn check(path: &Path, acknowledged: &mut Acknowledged, when: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = EmbeddedStore::open(path).unwrap_or_else(|error| panic!("{when}: {error}"));
        let mut sum = 0;
        for writer in 0..WRITERS {
            let last = acknowledged.get(&writer).copied().unwrap_or(0);
            let number = number_in(&store, &counter(writer)).await;
            assert!(
                (last..=last + 1).contains(&number),
                "{when}: writer {writer} was told {last}, and {number} is there"
            );
            let other = number_in(&store, &twin(writer)).await;
            assert_eq!(
                number, other,
                "{when}: half a transaction of writer {writer}"
            );
            let rows = store
                .list(&key(&format!("passing/{writer}")))
                .await
                .unwrap();
            let rows: Vec<_> = rows.into_iter().map(|(key, _)| key).collect();
            let wanted: Vec<_> = (number > 0)
                .then(|| passing(writer, number))
                .into_iter()
                .collect();
            assert_eq!(
                rows, wanted,
                "{when}: a lost delete or create of writer {writer}"
            );
            acknowledged.insert(writer, number);
            sum += number;
        }
        let mark = store.sighting().unwrap().mark;
        assert_eq!(mark, sum, "{when}: the mark does not count the changes");
    });
}

#[test]
fn a_process_killed_at_random_moments_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let mut acknowledged = Acknowledged::new();
    // Odd steps, so that the kill meets other moments of the batches every time.
    for round in 0..25 {
        let (mut child, mut output) = start(&path, &[]);
        let came = read_acknowledged(&mut output, &mut acknowledged, 1 + round * 37);
        assert_eq!(
            came,
            1 + round * 37,
            "round {round}: the child ended by itself"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        read_acknowledged(&mut output, &mut acknowledged, usize::MAX);
        check(&path, &mut acknowledged, &format!("after kill {round}"));
    }
}

/// The names of all steps, from the source.
fn crash_points() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let source = std::fs::read_to_string(path).unwrap();
            let named = source.split("crash_point!(\"").skip(1);
            names.extend(named.map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
    }
    names
}

#[test]
fn a_process_killed_at_any_named_step_loses_nothing_acknowledged() {
    let names = crash_points();
    assert!(names.len() >= 6, "{names:?}");
    for name in &names {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let log = dir.path().join("log");
        let mut acknowledged = Acknowledged::new();
        // The first time it is passed, then later, then in the recovery from that.
        for place in [name.clone(), format!("{name}:3"), format!("{name}:20")] {
            let log_text = log.to_str().unwrap();
            let environment = [
                ("NETLOOM_CRASH_POINT", &*place),
                ("NETLOOM_CRASH_LOG", log_text),
            ];
            let (mut child, mut output) = start(&path, &environment);
            // Steps of the opening are passed once: such a child writes until it is killed.
            read_acknowledged(&mut output, &mut acknowledged, 200);
            child.kill().unwrap();
            child.wait().unwrap();
            read_acknowledged(&mut output, &mut acknowledged, usize::MAX);
            check(
                &path,
                &mut acknowledged,
                &format!("after a crash at {place}"),
            );
        }
        let reached = std::fs::read_to_string(log).unwrap();
        assert!(
            reached.lines().any(|line| line == name),
            "{name} was never reached"
        );
    }
}

#[test]
fn another_process_is_told_that_the_store_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let (mut child, mut output) = start(&path, &[]);
    assert_eq!(
        read_acknowledged(&mut output, &mut Acknowledged::new(), 1),
        1
    );
    let refused = EmbeddedStore::open(&path).unwrap_err();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        matches!(refused, netloom_store::OpenError::InUse { .. }),
        "{refused:?}"
    );
}
