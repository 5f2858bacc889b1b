//! Random operations against a map that does the same.

use super::{Subject, Verdict, expect, key};
use crate::random::Random;
use netloom_core::store::{CommitError, Conflict, Key, Operation, Version};
use std::collections::BTreeMap;

/// Enough that every pair of operations meets on the few keys many times.
const STEPS: usize = 1500;
/// Few keys, so that they are created, deleted and created again all the time.
const KEYS: [&str; 8] = ["a", "a/a", "a/b", "a/b/a", "a/b-", "b/a", "b/b", "b/b/b"];
/// Versions of each key that a late caller may still hold.
const OLD_VERSIONS: usize = 6;

/// What the store must hold, and what callers may remember of it.
#[derive(Default)]
struct Model {
    rows: BTreeMap<Key, (Vec<u8>, Version)>,
    remembered: BTreeMap<Key, Vec<Version>>,
}

impl Model {
    fn expected(&self, operation: &Operation) -> Option<Conflict> {
        let now = self.rows.get(operation.key()).map(|(_, version)| version);
        match (operation, now) {
            (Operation::CheckAbsent(_) | Operation::Create(..), Some(_)) => Some(Conflict::Exists),
            (Operation::CheckAbsent(_) | Operation::Create(..), None) => None,
            (_, None) => Some(Conflict::Absent),
            (
                Operation::CheckVersion(_, wanted)
                | Operation::Update(_, _, wanted)
                | Operation::Delete(_, wanted),
                Some(now),
            ) => (wanted != now).then_some(Conflict::VersionDiffers),
        }
    }

    fn remember(&mut self, at: &Key, version: &Version) -> Verdict {
        let remembered = self.remembered.entry(at.clone()).or_default();
        expect(!remembered.contains(version), || {
            format!("{at} got the version {version:?} a second time")
        })?;
        remembered.push(version.clone());
        if remembered.len() > OLD_VERSIONS {
            remembered.remove(0);
        }
        Ok(())
    }

    fn apply(&mut self, operations: &[Operation], versions: &[(Key, Version)]) -> Verdict {
        let mut told = versions.iter();
        for operation in operations {
            match operation {
                Operation::CheckAbsent(_) | Operation::CheckVersion(..) => {}
                Operation::Delete(at, _) => {
                    self.rows.remove(at);
                }
                Operation::Create(at, value) | Operation::Update(at, value, _) => {
                    let (_, version) = told
                        .next()
                        .filter(|(told, _)| told == at)
                        .ok_or_else(|| format!("no version was told for {at}"))?;
                    self.remember(at, version)?;
                    let row = (value.clone(), version.clone());
                    self.rows.insert(at.clone(), row);
                }
            }
        }
        expect(told.next().is_none(), || {
            "too many versions were told".into()
        })
    }

    /// Mostly what can happen, often what cannot.
    fn draw(&self, random: &mut Random, at: Key) -> Operation {
        let remembered = self.remembered.get(&at);
        let now = self.rows.get(&at).map(|(_, version)| version.clone());
        let old = remembered.and_then(|versions| random.pick(versions).cloned());
        let version = match random.below(3) {
            0 => old.or(now),
            _ => now.or(old),
        };
        let value = vec![random.next().to_le_bytes()[0]; random.below(40)];
        match (random.below(8), version) {
            (0, _) => Operation::CheckAbsent(at),
            (1, Some(version)) => Operation::CheckVersion(at, version),
            (2 | 3, Some(version)) => Operation::Delete(at, version),
            (4..=6, Some(version)) => Operation::Update(at, value, version),
            (_, _) => Operation::Create(at, value),
        }
    }
}

pub(super) async fn random_operations_agree_with_a_map(on: Subject) -> Verdict {
    let seed = on.seed;
    let agreed = run(&on).await;
    agreed.map_err(|what| format!("with the seed {seed}: {what}"))
}

async fn run(on: &Subject) -> Verdict {
    let mut random = Random::new(on.seed);
    let mut model = Model::default();
    let keys: Vec<Key> = KEYS.into_iter().map(key).collect::<Result<_, _>>()?;
    for step in 0..STEPS {
        let mut operations: Vec<Operation> = Vec::new();
        for _ in 0..=random.below(3) {
            let Some(at) = random.pick(&keys) else {
                continue;
            };
            if operations.iter().all(|operation| operation.key() != at) {
                operations.push(model.draw(&mut random, at.clone()));
            }
        }
        step_agrees(on, &mut model, &operations)
            .await
            .map_err(|what| format!("step {step}, {operations:?}: {what}"))?;
        if step % 10 == 0 {
            content_agrees(on, &model, &keys)
                .await
                .map_err(|what| format!("after step {step}: {what}"))?;
        }
    }
    content_agrees(on, &model, &keys).await
}

async fn step_agrees(on: &Subject, model: &mut Model, operations: &[Operation]) -> Verdict {
    let conflicts: Vec<_> = operations
        .iter()
        .filter_map(|op| Some((op.key().clone(), model.expected(op)?)))
        .collect();
    match on.try_commit(operations.iter().cloned()).await {
        Ok(committed) => {
            expect(conflicts.is_empty(), || {
                format!("it happened, in spite of {conflicts:?}")
            })?;
            model.apply(operations, &committed.versions)
        }
        // Any of the keys that differ may be named, with its own difference.
        Err(CommitError::Conflict { key, conflict }) => {
            expect(conflicts.contains(&(key.clone(), conflict)), || {
                format!("it named {conflict:?} on {key}, expected one of {conflicts:?}")
            })
        }
        Err(other) => Err(format!("it gave {other:?}")),
    }
}

async fn content_agrees(on: &Subject, model: &Model, keys: &[Key]) -> Verdict {
    for at in keys {
        let row = on.get(at).await?.map(|row| (row.value, row.version));
        expect(row.as_ref() == model.rows.get(at), || {
            format!("{at} holds {row:?}, expected {:?}", model.rows.get(at))
        })?;
        let listed = on.list(at).await?.into_iter().map(|(key, _)| key);
        let below = model.rows.keys().filter(|key| key.is_below(at)).cloned();
        let (listed, below): (Vec<_>, Vec<_>) = (listed.collect(), below.collect());
        expect(listed == below, || {
            format!("below {at} it lists {listed:?}, expected {below:?}")
        })?;
    }
    Ok(())
}
