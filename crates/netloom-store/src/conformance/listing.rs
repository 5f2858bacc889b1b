//! Directories.

use super::{Subject, Verdict, expect, key};
use netloom_core::store::Operation;

/// Keys around a directory `a/b`: its children, its siblings with the same start, itself.
const AROUND: [&str; 14] = [
    "a", "a-b/c", "a.b/c", "a/a", "a/b", "a/b-", "a/b-/c", "a/b.c", "a/b/c", "a/b/c/d", "a/b/z",
    "a/b0", "a/bc/d", "b/c",
];

pub(super) async fn a_list_is_ordered_and_stays_below_its_prefix(on: Subject) -> Verdict {
    // Created in an order that is not the sorted one.
    for text in AROUND
        .iter()
        .rev()
        .step_by(2)
        .chain(AROUND.iter().rev().skip(1).step_by(2))
    {
        on.write(Operation::Create(key(text)?, text.as_bytes().to_vec()))
            .await?;
    }
    for (prefix, wanted) in [
        ("a/b", &["a/b/c", "a/b/c/d", "a/b/z"][..]),
        (
            "a",
            &[
                "a/a", "a/b", "a/b-", "a/b-/c", "a/b.c", "a/b/c", "a/b/c/d", "a/b/z", "a/b0",
                "a/bc/d",
            ],
        ),
        ("a/b/c", &["a/b/c/d"]),
        ("a/bc", &["a/bc/d"]),
        ("b", &["b/c"]),
        ("a/b/z", &[]),
        ("c", &[]),
    ] {
        let listed = on.list(&key(prefix)?).await?;
        let listed: Vec<_> = listed.iter().map(|(key, _)| key.as_str()).collect();
        expect(listed == wanted, || {
            format!("below {prefix:?} it listed {listed:?}")
        })?;
    }
    Ok(())
}

pub(super) async fn a_list_shows_values_and_versions(on: Subject) -> Verdict {
    let at = key("dir/a")?;
    let directory = key("dir")?;
    let first = on
        .write(Operation::Create(at.clone(), b"1".to_vec()))
        .await?;
    let second = on
        .write(Operation::Update(at.clone(), b"2".to_vec(), first))
        .await?;
    let listed = on.list(&directory).await?;
    let row = on.row(&at).await?;
    expect(listed == [(at.clone(), row)], || {
        format!("a list shows {listed:?}, which a get does not")
    })?;
    // The version from a list is as good as the one from a get.
    let version = listed.into_iter().next().map(|(_, row)| row.version);
    let version = version.ok_or("it listed nothing")?;
    expect(version == second, || {
        "a list shows an old version".to_owned()
    })?;
    on.commit([Operation::Delete(at, version)]).await?;
    let listed = on.list(&directory).await?;
    expect(listed.is_empty(), || {
        format!("after the delete it lists {listed:?}")
    })
}

/// More keys than a page of any backend's answers holds.
pub(super) async fn a_list_of_many_keys_is_whole(on: Subject) -> Verdict {
    const KEYS: usize = 1000;
    let mut names = Vec::new();
    for first in (0..KEYS).step_by(10) {
        let mut creates = Vec::new();
        for n in first..first + 10 {
            let at = key(&format!("dir/{n:04}"))?;
            names.push(at.clone());
            creates.push(Operation::Create(at, n.to_string().into_bytes()));
        }
        on.commit(creates).await?;
    }
    let listed = on.list(&key("dir")?).await?;
    let listed: Vec<_> = listed.into_iter().map(|(key, _)| key).collect();
    expect(listed == names, || {
        format!(
            "of {KEYS} keys it lists {}, or in another order",
            listed.len()
        )
    })
}
