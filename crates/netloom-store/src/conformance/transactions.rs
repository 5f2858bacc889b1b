//! Several keys at once.

use super::{Subject, Verdict, expect, key};
use netloom_core::store::{
    CommitError, Conflict, Key, Operation, TRANSACTION_BYTES_MAX, TRANSACTION_OPS_MAX,
    VALUE_BYTES_MAX,
};

pub(super) async fn checks_alone_change_nothing(on: Subject) -> Verdict {
    let (at, absent) = (key("a")?, key("b")?);
    let version = on
        .write(Operation::Create(at.clone(), b"1".to_vec()))
        .await?;
    let checks = [
        Operation::CheckVersion(at.clone(), version.clone()),
        Operation::CheckAbsent(absent.clone()),
    ];
    let committed = on.commit(checks).await?;
    expect(committed.versions.is_empty(), || {
        format!("checks returned the versions {:?}", committed.versions)
    })?;
    let row = on.row(&at).await?;
    expect(row.version == version, || {
        "a check changed the version".to_owned()
    })?;
    let row = on.get(&absent).await?;
    expect(row.is_none(), || format!("a check created {row:?}"))
}

pub(super) async fn checks_guard_the_rest(on: Subject) -> Verdict {
    let (guard, target) = (key("guard")?, key("target")?);
    let create = || Operation::Create(target.clone(), vec![]);
    let first = on.write(Operation::Create(guard.clone(), vec![1])).await?;
    let absent = Operation::CheckAbsent(guard.clone());
    on.conflicts([absent, create()], &guard, Conflict::Exists)
        .await?;
    let update = Operation::Update(guard.clone(), vec![2], first.clone());
    let second = on.write(update).await?;
    let stale = || Operation::CheckVersion(guard.clone(), first.clone());
    on.conflicts([stale(), create()], &guard, Conflict::VersionDiffers)
        .await?;
    // The place of the check in the transaction does not matter.
    on.conflicts([create(), stale()], &guard, Conflict::VersionDiffers)
        .await?;
    let row = on.get(&target).await?;
    expect(row.is_none(), || format!("a guarded create made {row:?}"))?;
    let right = Operation::CheckVersion(guard.clone(), second);
    on.commit([create(), right]).await?;
    on.row(&target).await.map(|_| ())
}

fn numbered(n: usize) -> Result<Key, String> {
    key(&format!("many/{n:03}"))
}

/// A full transaction, each time with one operation that cannot happen, at each place.
pub(super) async fn all_operations_happen_or_none(on: Subject) -> Verdict {
    let count = on.limits.operations;
    let taken = key("taken")?;
    on.write(Operation::Create(taken.clone(), vec![])).await?;
    // A third is to be created, a third updated, a third deleted.
    let mut operations = Vec::new();
    for n in 0..count {
        let at = numbered(n)?;
        operations.push(match n % 3 {
            0 => Operation::Create(at, b"new".to_vec()),
            kind => {
                let old = on
                    .write(Operation::Create(at.clone(), b"old".to_vec()))
                    .await?;
                if kind == 1 {
                    Operation::Update(at, b"new".to_vec(), old)
                } else {
                    Operation::Delete(at, old)
                }
            }
        });
    }
    let before = on.list(&key("many")?).await?;
    for place in 0..count {
        let mut broken = operations.clone();
        if let Some(slot) = broken.get_mut(place) {
            *slot = Operation::Create(taken.clone(), vec![]);
        }
        on.conflicts(broken, &taken, Conflict::Exists).await?;
        let after = on.list(&key("many")?).await?;
        expect(after == before, || {
            format!("a transaction refused at operation {place} of {count} changed something")
        })?;
    }
    on.commit(operations).await?;
    for n in 0..count {
        let row = on.get(&numbered(n)?).await?;
        let value = row.map(|row| row.value);
        let wanted = (n % 3 != 2).then(|| b"new".to_vec());
        expect(value == wanted, || {
            format!("operation {n} of a committed transaction left {value:?}")
        })?;
    }
    Ok(())
}

pub(super) async fn versions_are_told_in_the_order_of_operations(on: Subject) -> Verdict {
    let gone = key("m")?;
    let gone_version = on.write(Operation::Create(gone.clone(), vec![])).await?;
    let updated = key("a")?;
    let version = on.write(Operation::Create(updated.clone(), vec![])).await?;
    let (last, middle) = (key("z")?, key("k")?);
    let committed = on
        .commit([
            Operation::Create(last.clone(), vec![1]),
            Operation::CheckAbsent(key("none")?),
            Operation::Update(updated.clone(), vec![2], version),
            Operation::Delete(gone, gone_version),
            Operation::Create(middle.clone(), vec![3]),
        ])
        .await?;
    let told: Vec<_> = committed.versions.iter().map(|(key, _)| key).collect();
    expect(told == [&last, &updated, &middle], || {
        format!("versions were told for {told:?}")
    })?;
    for (at, version) in committed.versions {
        let row = on.row(&at).await?;
        expect(row.version == version, || {
            format!("{at} was told as {version:?} and reads {:?}", row.version)
        })?;
    }
    Ok(())
}

pub(super) async fn limits_are_refused_before_anything_happens(on: Subject) -> Verdict {
    let creates = |count: usize, bytes: usize| -> Result<Vec<Operation>, String> {
        let create = |n| Ok(Operation::Create(numbered(n)?, vec![7; bytes]));
        (0..count).map(create).collect()
    };
    let many = creates(TRANSACTION_OPS_MAX + 1, 1)?;
    let large = creates(1, VALUE_BYTES_MAX + 1)?;
    let heavy = creates(5, TRANSACTION_BYTES_MAX / 5 + 1)?;
    for (what, operations) in [("many", many), ("large", large), ("heavy", heavy)] {
        let outcome = on.try_commit(operations).await;
        expect(matches!(outcome, Err(CommitError::TooLarge)), || {
            format!("a transaction with too {what} operations gave {outcome:?}")
        })?;
    }
    let outcome = on.try_commit([]).await;
    expect(matches!(outcome, Err(CommitError::Invalid(_))), || {
        format!("an empty transaction gave {outcome:?}")
    })?;
    let once = Operation::Create(numbered(0)?, vec![]);
    let outcome = on.try_commit([once.clone(), once]).await;
    expect(matches!(outcome, Err(CommitError::Invalid(_))), || {
        format!("a transaction that names a key twice gave {outcome:?}")
    })?;
    let left = on.list(&key("many")?).await?;
    expect(left.is_empty(), || "a refused transaction wrote".to_owned())
}

pub(super) async fn the_largest_transaction_is_accepted(on: Subject) -> Verdict {
    let count = on.limits.operations;
    // All keys at their longest, so that what a wrapper adds to keys fits too.
    let room = TRANSACTION_BYTES_MAX / TRANSACTION_OPS_MAX - netloom_core::store::KEY_BYTES_MAX;
    let mut operations = Vec::new();
    for n in 0..count {
        operations.push(Operation::Create(numbered(n)?, vec![0xa5; room]));
    }
    on.commit(operations).await?;
    let listed = on.list(&key("many")?).await?;
    let whole = listed.iter().all(|(_, row)| row.value == vec![0xa5; room]);
    expect(listed.len() == count && whole, || {
        format!(
            "of {count} values of {room} bytes, {} are there",
            listed.len()
        )
    })
}
