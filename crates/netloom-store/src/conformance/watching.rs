//! Watches say that something may have changed, and never keep silent when it did.

use super::{Subject, Verdict, broke, expect, key};
use netloom_core::store::{Key, Operation, Watch};

async fn watch(on: &Subject, prefix: &Key) -> Result<Box<dyn Watch>, String> {
    let watch = on.store.watch(prefix).await;
    watch.map_err(|error| format!("a watch was refused: {error:?}"))
}

/// Waits for the watch to wake.
async fn wakes(on: &Subject, watch: &mut Box<dyn Watch>, after: &str) -> Verdict {
    match tokio::time::timeout(on.watch_time, watch.changed()).await {
        Ok(woken) => woken.map_err(|error| broke(&error)),
        Err(_) => Err(format!(
            "{:?} after {after}, the watch keeps silent",
            on.watch_time
        )),
    }
}

/// A watch for each change, so that an echo of an earlier one cannot pass for it.
pub(super) async fn a_watch_tells_of_every_kind_of_change(on: Subject) -> Verdict {
    let (directory, at) = (key("dir")?, key("dir/a")?);
    let mut first = watch(&on, &directory).await?;
    let version = on.write(Operation::Create(at.clone(), vec![1])).await?;
    wakes(&on, &mut first, "a create").await?;
    let mut second = watch(&on, &directory).await?;
    let version = on
        .write(Operation::Update(at.clone(), vec![2], version))
        .await?;
    wakes(&on, &mut second, "an update").await?;
    let mut third = watch(&on, &directory).await?;
    on.commit([Operation::Delete(at, version)]).await?;
    wakes(&on, &mut third, "a delete").await?;
    // The first two have slept through changes, and must say so.
    wakes(&on, &mut first, "two changes that it slept through").await?;
    wakes(&on, &mut second, "a delete that it slept through").await
}

pub(super) async fn a_watch_hears_of_deep_keys(on: Subject) -> Verdict {
    let mut outer = watch(&on, &key("dir")?).await?;
    let mut inner = watch(&on, &key("dir/sub")?).await?;
    // Several keys in one transaction, the one below not the first.
    on.commit([
        Operation::Create(key("other/a")?, vec![]),
        Operation::Create(key("dir/sub/deep/a")?, vec![]),
    ])
    .await?;
    wakes(&on, &mut outer, "a change far below").await?;
    wakes(&on, &mut inner, "a change below").await
}

/// What every user of a watch does: open it, list, and list again after every wake. However the
/// writer and the reader interleave, the reader ends with the last state.
pub(super) async fn listing_after_every_wake_converges(on: Subject) -> Verdict {
    const CHANGES: u64 = 200;
    let (directory, at) = (key("dir")?, key("dir/a")?);
    let mut watch = watch(&on, &directory).await?;
    let writer = {
        let (on, at) = (on.clone(), at.clone());
        tokio::spawn(async move {
            let mut version = on.write(Operation::Create(at.clone(), vec![])).await?;
            for change in 1..=CHANGES {
                let value = change.to_be_bytes().to_vec();
                version = on
                    .write(Operation::Update(at.clone(), value, version))
                    .await?;
            }
            Verdict::Ok(())
        })
    };
    loop {
        let listed = on.list(&directory).await?;
        let last = CHANGES.to_be_bytes();
        if listed.iter().any(|(_, row)| row.value == last) {
            break;
        }
        wakes(&on, &mut watch, "changes that it did not list").await?;
    }
    writer.await.map_err(|error| error.to_string())?
}

/// A change that comes after the watch was opened and before the first list must wake the watch:
/// the list may have missed it.
pub(super) async fn a_change_between_watch_and_list_is_told(on: Subject) -> Verdict {
    let directory = key("dir")?;
    for round in 0..50 {
        let mut watch = watch(&on, &directory).await?;
        let before = on.list(&directory).await?.len();
        let at = key(&format!("dir/{round:02}"))?;
        let writer = {
            let on = on.clone();
            tokio::spawn(async move { on.write(Operation::Create(at, vec![])).await })
        };
        wakes(&on, &mut watch, "a create").await?;
        // A wake without a cause is allowed, so it may take several.
        loop {
            let after = on.list(&directory).await?.len();
            if after > before {
                break;
            }
            wakes(&on, &mut watch, "a create that the list does not show").await?;
        }
        writer.await.map_err(|error| error.to_string())??;
        let after = on.list(&directory).await?.len();
        expect(after == before + 1, || {
            format!("{before} keys became {after}")
        })?;
    }
    Ok(())
}
