//! One key at a time.

use super::{Subject, Verdict, broke, expect, key};
use crate::random::Random;
use netloom_core::store::{Conflict, Key, Operation, VALUE_BYTES_MAX, Version};

pub(super) async fn identity_stays(on: Subject) -> Verdict {
    let before = on.store.identity().await.map_err(|error| broke(&error))?;
    on.write(Operation::Create(key("a")?, vec![])).await?;
    let after = on.store.identity().await.map_err(|error| broke(&error))?;
    expect(before == after, || {
        format!("it was {before:?}, then {after:?}")
    })
}

pub(super) async fn a_created_value_is_read_back(on: Subject) -> Verdict {
    let at = key("a/b")?;
    let before = on.get(&at).await?;
    expect(before.is_none(), || {
        format!("a fresh store holds {before:?}")
    })?;
    let version = on
        .write(Operation::Create(at.clone(), b"one".to_vec()))
        .await?;
    let row = on.row(&at).await?;
    expect(row.value == b"one" && row.version == version, || {
        format!("wrote \"one\" as {version:?}, read {row:?}")
    })
}

pub(super) async fn creating_twice_is_refused_as_existing(on: Subject) -> Verdict {
    let at = key("a")?;
    let version = on
        .write(Operation::Create(at.clone(), b"one".to_vec()))
        .await?;
    let again = Operation::Create(at.clone(), b"two".to_vec());
    on.conflicts([again], &at, Conflict::Exists).await?;
    // The very same value is no excuse either: the second creator must not think it was first.
    let same = Operation::Create(at.clone(), b"one".to_vec());
    on.conflicts([same], &at, Conflict::Exists).await?;
    let row = on.row(&at).await?;
    expect(row.value == b"one" && row.version == version, || {
        format!("a refused create left {row:?}")
    })
}

pub(super) async fn updating_demands_the_version(on: Subject) -> Verdict {
    let at = key("a")?;
    let first = on
        .write(Operation::Create(at.clone(), b"1".to_vec()))
        .await?;
    let update = |value: &[u8], version: &Version| {
        Operation::Update(at.clone(), value.to_vec(), version.clone())
    };
    let second = on.write(update(b"2", &first)).await?;
    on.conflicts([update(b"3", &first)], &at, Conflict::VersionDiffers)
        .await?;
    let row = on.row(&at).await?;
    expect(row.value == b"2" && row.version == second, || {
        format!("a refused update left {row:?}")
    })?;
    let absent = key("b")?;
    let update = Operation::Update(absent.clone(), vec![], first);
    on.conflicts([update], &absent, Conflict::Absent).await?;
    let row = on.get(&absent).await?;
    expect(row.is_none(), || {
        format!("a refused update created {row:?}")
    })
}

pub(super) async fn deleting_demands_the_version(on: Subject) -> Verdict {
    let at = key("a")?;
    let first = on
        .write(Operation::Create(at.clone(), b"1".to_vec()))
        .await?;
    let update = Operation::Update(at.clone(), b"2".to_vec(), first.clone());
    let second = on.write(update).await?;
    let stale = Operation::Delete(at.clone(), first);
    on.conflicts([stale], &at, Conflict::VersionDiffers).await?;
    on.row(&at).await?;
    let deleted = on
        .commit([Operation::Delete(at.clone(), second.clone())])
        .await?;
    expect(deleted.versions.is_empty(), || {
        format!("a delete returned the versions {:?}", deleted.versions)
    })?;
    let row = on.get(&at).await?;
    expect(row.is_none(), || {
        format!("a deleted key still holds {row:?}")
    })?;
    let again = Operation::Delete(at.clone(), second.clone());
    on.conflicts([again], &at, Conflict::Absent).await?;
    let check = Operation::CheckVersion(at.clone(), second);
    on.conflicts([check], &at, Conflict::Absent).await
}

/// A key that is deleted and created again must not look like the one that somebody read before:
/// a counter per key that starts again would let a late writer overwrite a stranger's record.
pub(super) async fn an_old_version_never_comes_back(on: Subject) -> Verdict {
    let at = key("a")?;
    let mut seen: Vec<Version> = Vec::new();
    for round in 0..4 {
        let mut current = on
            .write(Operation::Create(at.clone(), b"same".to_vec()))
            .await?;
        // As many updates as rounds, so that counters of any start would meet.
        for _ in 0..=round {
            for old in &seen {
                let old = || old.clone();
                for late in [
                    Operation::Update(at.clone(), b"late".to_vec(), old()),
                    Operation::Delete(at.clone(), old()),
                    Operation::CheckVersion(at.clone(), old()),
                ] {
                    on.conflicts([late], &at, Conflict::VersionDiffers).await?;
                }
            }
            expect(!seen.contains(&current), || {
                format!("the version {current:?} was given out twice")
            })?;
            seen.push(current.clone());
            let update = Operation::Update(at.clone(), b"same".to_vec(), current);
            current = on.write(update).await?;
        }
        seen.push(current.clone());
        on.commit([Operation::Delete(at.clone(), current)]).await?;
    }
    Ok(())
}

pub(super) async fn every_change_makes_a_new_version(on: Subject) -> Verdict {
    let at = key("a")?;
    let mut current = on.write(Operation::Create(at.clone(), vec![0])).await?;
    let mut seen = vec![current.clone()];
    for _ in 0..20 {
        // Writing the same bytes is a change too: it says that somebody was here.
        let update = Operation::Update(at.clone(), vec![0], current);
        current = on.write(update).await?;
        expect(!seen.contains(&current), || {
            format!("the version {current:?} was given out twice")
        })?;
        let row = on.row(&at).await?;
        expect(row.version == current, || {
            format!("the commit said {current:?}, the read {:?}", row.version)
        })?;
        seen.push(current.clone());
    }
    Ok(())
}

pub(super) async fn values_are_bytes_of_any_kind_and_size(on: Subject) -> Verdict {
    let mut random = Random::new(on.seed);
    let sizes = [0, 1, 255, 4096, 65_535, VALUE_BYTES_MAX];
    for (n, size) in sizes.into_iter().enumerate() {
        let at = key(&format!("values/{n}"))?;
        let value: Vec<u8> = (0..size).map(|_| random.next().to_le_bytes()[0]).collect();
        on.write(Operation::Create(at.clone(), value.clone()))
            .await?;
        let row = on.row(&at).await?;
        expect(row.value == value, || {
            let kept = row.value.len();
            format!("wrote {size} bytes, read {kept} bytes, not the same ones")
        })?;
    }
    let empty = key("values/0")?;
    let again = Operation::Create(empty.clone(), vec![]);
    on.conflicts([again], &empty, Conflict::Exists).await
}

pub(super) async fn keys_of_every_legal_form_are_kept_apart(on: Subject) -> Verdict {
    for hostile in [
        "", "/", "a/", "/a", "a//b", ".", "a/..", "A", "a\n", "a\0b", "a*", "é",
    ] {
        expect(Key::new(hostile).is_err(), || {
            format!("{hostile:?} is a key")
        })?;
    }
    let longest = "x".repeat(on.limits.key_bytes);
    let legal = [
        "a",
        "a-",
        "a-b",
        "a.",
        "a.b",
        "a/b",
        "a/b/c",
        "a0",
        "a_",
        "-",
        "...",
        "..a",
        "_",
        "0",
        "00",
        "deep/er/and/deep/er/and/deep/er",
        &longest,
    ];
    for text in legal {
        on.write(Operation::Create(key(text)?, text.as_bytes().to_vec()))
            .await?;
    }
    for text in legal {
        let row = on.row(&key(text)?).await?;
        expect(row.value == text.as_bytes(), || {
            format!("{text:?} holds {:?}", String::from_utf8_lossy(&row.value))
        })?;
    }
    Ok(())
}

pub(super) async fn a_commit_is_seen_by_every_later_read(on: Subject) -> Verdict {
    let at = key("dir/a")?;
    let directory = key("dir")?;
    let mut version = on.write(Operation::Create(at.clone(), vec![0])).await?;
    for round in 1..100_u8 {
        let update = Operation::Update(at.clone(), vec![round], version);
        version = on.write(update).await?;
        let readers = [on.clone(), on.clone(), on.clone()].map(|on| {
            let (at, directory) = (at.clone(), directory.clone());
            tokio::spawn(async move {
                let got = on.row(&at).await?.value;
                let listed = on.list(&directory).await?;
                let listed = listed.into_iter().next().map(|(_, row)| row.value);
                expect(got == [round] && listed == Some(vec![round]), || {
                    format!("after commit {round}: get says {got:?}, list {listed:?}")
                })
            })
        });
        for reader in readers {
            reader.await.map_err(|error| error.to_string())??;
        }
    }
    Ok(())
}
