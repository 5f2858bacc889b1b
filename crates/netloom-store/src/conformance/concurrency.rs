//! Many callers at once.

use super::{Subject, Verdict, expect, key};
use netloom_core::store::{CommitError, Conflict, Key, Operation, Versioned};

const CALLERS: usize = 12;
const ROUNDS: u64 = 20;

fn number(row: &Versioned) -> Result<u64, String> {
    let bytes = row.value.as_slice().try_into();
    let bytes = bytes.map_err(|_| format!("a counter holds {:?}", row.value))?;
    Ok(u64::from_be_bytes(bytes))
}

fn set(at: &Key, row: &Versioned, value: u64) -> Operation {
    Operation::Update(
        at.clone(),
        value.to_be_bytes().to_vec(),
        row.version.clone(),
    )
}

/// Whether the commit won; a conflict over a version means that another was first.
fn won<T>(outcome: Result<T, CommitError>) -> Result<bool, String> {
    match outcome {
        Ok(_) => Ok(true),
        Err(CommitError::Conflict {
            conflict: Conflict::VersionDiffers,
            ..
        }) => Ok(false),
        Err(other) => Err(format!("a racing commit gave {other:?}")),
    }
}

async fn all(tasks: Vec<tokio::task::JoinHandle<Verdict>>) -> Verdict {
    for task in tasks {
        task.await.map_err(|error| error.to_string())??;
    }
    Ok(())
}

pub(super) async fn counters_lose_no_increment(on: Subject) -> Verdict {
    let at = key("counter")?;
    let zero = 0_u64.to_be_bytes().to_vec();
    on.write(Operation::Create(at.clone(), zero)).await?;
    let tasks = (0..CALLERS).map(|_| {
        let (on, at) = (on.clone(), at.clone());
        tokio::spawn(async move {
            for _ in 0..ROUNDS {
                loop {
                    let row = on.row(&at).await?;
                    let next = number(&row)? + 1;
                    if won(on.try_commit([set(&at, &row, next)]).await)? {
                        break;
                    }
                }
            }
            Ok(())
        })
    });
    all(tasks.collect()).await?;
    let sum = number(&on.row(&at).await?)?;
    let wanted = ROUNDS * u64::try_from(CALLERS).unwrap_or(u64::MAX);
    expect(sum == wanted, || format!("{wanted} increments made {sum}"))
}

pub(super) async fn one_of_many_creators_wins(on: Subject) -> Verdict {
    for round in 0..ROUNDS {
        let at = key(&format!("race/{round}"))?;
        let mut tasks = Vec::new();
        for caller in 0..CALLERS {
            let (on, at) = (on.clone(), at.clone());
            tasks.push(tokio::spawn(async move {
                let value = caller.to_string().into_bytes();
                match on.try_commit([Operation::Create(at, value.clone())]).await {
                    Ok(_) => Ok(Some(value)),
                    Err(CommitError::Conflict {
                        conflict: Conflict::Exists,
                        ..
                    }) => Ok(None),
                    Err(other) => Err(format!("a racing create gave {other:?}")),
                }
            }));
        }
        let mut winners = Vec::new();
        for task in tasks {
            winners.extend(task.await.map_err(|error| error.to_string())??);
        }
        let row = on.row(&at).await?;
        expect(winners == [row.value], || {
            format!(
                "of {CALLERS} creators {} won, or not the one that is read",
                winners.len()
            )
        })?;
    }
    Ok(())
}

/// Two accounts: what leaves one arrives at the other in the same transaction, and a reader who
/// checks what it read never finds money made or lost.
pub(super) async fn moves_between_two_keys_keep_the_sum(on: Subject) -> Verdict {
    const SUM: u64 = 1000;
    // More than elsewhere: two of these must meet half-way for a fault to show.
    const MOVES: u64 = 5 * ROUNDS;
    let accounts = [key("accounts/a")?, key("accounts/b")?];
    let [first, second] = &accounts;
    on.commit([
        Operation::Create(first.clone(), SUM.to_be_bytes().to_vec()),
        Operation::Create(second.clone(), 0_u64.to_be_bytes().to_vec()),
    ])
    .await?;
    let tasks = (0..CALLERS).map(|caller| {
        let (on, accounts) = (on.clone(), accounts.clone());
        tokio::spawn(async move {
            let [mut from, mut to] = accounts;
            if caller % 2 == 1 {
                std::mem::swap(&mut from, &mut to);
            }
            for _ in 0..MOVES {
                let (source, target) = (on.row(&from).await?, on.row(&to).await?);
                let (left, right) = (number(&source)?, number(&target)?);
                let both = [
                    Operation::CheckVersion(from.clone(), source.version.clone()),
                    Operation::CheckVersion(to.clone(), target.version.clone()),
                ];
                if won(on.try_commit(both).await)? {
                    expect(left + right == SUM, || {
                        format!("{left} + {right} is not {SUM}")
                    })?;
                }
                let moved = left.min(7);
                let operations = [
                    set(&from, &source, left - moved),
                    set(&to, &target, right + moved),
                ];
                won(on.try_commit(operations).await)?;
            }
            Ok(())
        })
    });
    all(tasks.collect()).await?;
    let (left, right) = (
        number(&on.row(first).await?)?,
        number(&on.row(second).await?)?,
    );
    expect(left + right == SUM, || {
        format!("at the end {left} + {right} is not {SUM}")
    })
}
