//! What the embedded store makes of the file that it finds.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may stop at any error"
)]

use netloom_core::store::{Key, Operation, Store, Transaction};
use netloom_store::{EmbeddedStore, OpenError};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn at(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("store.redb")
}

async fn make(path: &Path) {
    let store = EmbeddedStore::open(path).unwrap();
    let create = Operation::Create(Key::new("a").unwrap(), b"x".to_vec());
    store.commit(Transaction::new([create])).await.unwrap();
}

#[tokio::test]
async fn two_stores_have_two_identities_and_one_keeps_its_own() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut identities = Vec::new();
    for dir in [&dirs[0], &dirs[1], &dirs[0]] {
        let store = EmbeddedStore::open(at(dir)).unwrap();
        identities.push(store.identity().await.unwrap());
    }
    assert_ne!(identities[0], identities[1]);
    assert_eq!(identities[0], identities[2]);
}

#[test]
fn a_second_opener_is_told_that_the_store_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let first = EmbeddedStore::open(at(&dir)).unwrap();
    let second = EmbeddedStore::open(at(&dir)).unwrap_err();
    assert!(matches!(second, OpenError::InUse { .. }), "{second:?}");
    assert!(second.to_string().contains("in use by another process"));
    drop(first);
    EmbeddedStore::open(at(&dir)).unwrap();
}

#[test]
fn the_file_is_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(EmbeddedStore::open(at(&dir)).unwrap());
    let mode = at(&dir).metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

fn write_schema(path: &Path, schema: u32) {
    let database = redb::Database::open(path).unwrap();
    let write = database.begin_write().unwrap();
    let table = redb::TableDefinition::<&str, &[u8]>::new("meta");
    let mut meta = write.open_table(table).unwrap();
    let bytes = schema.to_be_bytes();
    meta.insert("schema", bytes.as_slice()).unwrap();
    drop(meta);
    write.commit().unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused_by_name_and_its_content_stays() {
    let dir = tempfile::tempdir().unwrap();
    make(&at(&dir)).await;
    write_schema(&at(&dir), 7);
    for _ in 0..2 {
        let refused = EmbeddedStore::open(at(&dir)).unwrap_err();
        assert!(
            matches!(refused, OpenError::NewerSchema { found: 7, .. }),
            "{refused:?}"
        );
        assert!(
            refused
                .to_string()
                .contains("install the release that wrote it")
        );
    }
    write_schema(&at(&dir), 1);
    let store = EmbeddedStore::open(at(&dir)).unwrap();
    let row = store.get(&Key::new("a").unwrap()).await.unwrap();
    assert_eq!(row.unwrap().value, b"x");
}

#[tokio::test]
async fn a_file_whose_making_was_cut_short_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    drop(EmbeddedStore::open(at(&dir)).unwrap());
    let whole = std::fs::read(at(&dir)).unwrap();
    let mut header_only = vec![0; whole.len()];
    header_only[9..4096].copy_from_slice(&whole[9..4096]);
    for unfinished in [vec![], vec![0; 5], vec![0; whole.len()], header_only] {
        std::fs::write(at(&dir), unfinished).unwrap();
        make(&at(&dir)).await;
    }
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    make(&at(&dir)).await;
    let mut headless = std::fs::read(at(&dir)).unwrap();
    headless[..64].fill(0);
    for damaged in [b"this is a text file\n".repeat(500), headless] {
        std::fs::write(at(&dir), &damaged).unwrap();
        let refused = EmbeddedStore::open(at(&dir)).unwrap_err();
        assert!(matches!(refused, OpenError::Damaged { .. }), "{refused:?}");
        assert!(
            std::fs::read(at(&dir)).unwrap() == damaged,
            "the file was changed"
        );
    }
}

#[test]
fn a_directory_that_is_missing_is_named() {
    let refused = EmbeddedStore::open("/nonexistent/netloom/store.redb").unwrap_err();
    assert!(matches!(refused, OpenError::Io { .. }), "{refused:?}");
    assert!(
        refused
            .to_string()
            .contains("/nonexistent/netloom/store.redb")
    );
}

/// A small generator: the bits to flip, made again from the printed seed (xorshift, Marsaglia 2003).
fn below(state: &mut u64, bound: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state % u64::try_from(bound).unwrap()).unwrap()
}

/// Bits that the disk lost: the store refuses the file, or says that it is damaged, or (where the
/// bits meant nothing) works as before. It never shows another value, and never panics.
#[tokio::test]
async fn flipped_bits_are_never_read_as_values() {
    const ROWS: usize = 200;
    const DAMAGES: usize = 250;
    let dir = tempfile::tempdir().unwrap();
    let value = |n: usize| n.to_string().repeat(40).into_bytes();
    let key = |n: usize| Key::new(format!("dir/{n:04}")).unwrap();
    let store = EmbeddedStore::open(at(&dir)).unwrap();
    for first in (0..ROWS).step_by(10) {
        let create = |n| Operation::Create(key(n), value(n));
        let creates = (first..first + 10).map(create);
        store.commit(Transaction::new(creates)).await.unwrap();
    }
    drop(store);
    let whole = std::fs::read(at(&dir)).unwrap();
    let (mut refused, mut unharmed) = (0, 0);
    for seed in 1..=DAMAGES as u64 {
        let mut state = seed * 0x9e37_79b9;
        let mut damaged = whole.clone();
        for _ in 0..=below(&mut state, 10) {
            let header = below(&mut state, 4) == 0;
            let place = below(&mut state, if header { 512 } else { whole.len() });
            damaged[place] ^= 1 << below(&mut state, 8);
        }
        std::fs::write(at(&dir), &damaged).unwrap();
        let store = match EmbeddedStore::open(at(&dir)) {
            Ok(store) => store,
            Err(OpenError::Damaged { .. } | OpenError::NewerSchema { .. }) => {
                refused += 1;
                continue;
            }
            Err(other) => panic!("seed {seed}: {other:?}"),
        };
        if let Ok(rows) = store.list(&Key::new("dir").unwrap()).await {
            assert_eq!(rows.len(), ROWS, "seed {seed}: rows are missing");
            for (n, (_, row)) in rows.iter().enumerate() {
                assert!(row.value == value(n), "seed {seed}: another value");
            }
            unharmed += 1;
        }
        // Whatever this says, it says it; the store must not fall over what it meets.
        let create = Operation::Create(key(ROWS), vec![]);
        let _ = store.commit(Transaction::new([create])).await;
    }
    // The rest hit pages that hold nothing.
    assert!(
        refused > DAMAGES / 4,
        "only {refused} of {DAMAGES} were noticed at the opening"
    );
    assert!(unharmed > 0, "the check refuses everything");
}
