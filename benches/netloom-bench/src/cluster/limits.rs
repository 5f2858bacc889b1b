//! The floor: a raw write with a sync, and the least that a store can be asked for an address.

use super::job::Random;
use super::worker::{Caller, Step, begin};
use anyhow::Context;
use async_trait::async_trait;
use netloom_core::store::{CommitError, Key, Operation, Store, Transaction, Version};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Overwrites prepared blocks one after another, each with a sync.
#[derive(Debug)]
pub(super) struct RawWrite {
    file: File,
    next: u64,
}

impl RawWrite {
    pub(super) fn new(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path)?;
        for block in 0..BLOCKS {
            file.write_all_at(&[0; BLOCK], block * BLOCK as u64)?;
        }
        file.sync_all()?;
        Ok(Self { file, next: 0 })
    }
}

#[async_trait]
impl Caller for RawWrite {
    async fn step(&mut self) -> anyhow::Result<Step> {
        let begun = begin();
        self.next = (self.next + 1) % BLOCKS;
        self.file
            .write_all_at(&[7; BLOCK], self.next * BLOCK as u64)?;
        self.file.sync_data()?;
        Ok(Step::Took(begun.elapsed()))
    }
}

/// Compare-and-swap of an own key: one round trip and one commit of the store.
#[derive(Debug)]
pub(super) struct CasOwnKey {
    store: Arc<dyn Store>,
    key: Key,
    version: Version,
}

impl CasOwnKey {
    pub(super) async fn new(store: Arc<dyn Store>, name: &str) -> anyhow::Result<Self> {
        let key = Key::new(format!("limit/own/{name}"))?;
        let made = Transaction::new([Operation::Create(key.clone(), VALUE.to_vec())]);
        let version = version(store.commit(made).await?.versions)?;
        Ok(Self {
            store,
            key,
            version,
        })
    }
}

#[async_trait]
impl Caller for CasOwnKey {
    async fn step(&mut self) -> anyhow::Result<Step> {
        let begun = begin();
        let write = Operation::Update(self.key.clone(), VALUE.to_vec(), self.version.clone());
        let done = self.store.commit(Transaction::new([write])).await?;
        self.version = version(done.versions)?;
        Ok(Step::Took(begun.elapsed()))
    }
}

fn version(versions: Vec<(Key, Version)>) -> anyhow::Result<Version> {
    let first = versions.into_iter().next();
    Ok(first.context("a commit without versions")?.1)
}

/// Read and compare-and-swap of the one key that all want to change.
#[derive(Debug)]
pub(super) struct CasSharedKey {
    pub(super) store: Arc<dyn Store>,
}

/// Makes the key that all want to change.
pub(super) async fn prepare_shared(store: &dyn Store) -> anyhow::Result<()> {
    let made = Operation::Create(shared_key()?, VALUE.to_vec());
    store.commit(Transaction::new([made])).await?;
    Ok(())
}

#[async_trait]
impl Caller for CasSharedKey {
    async fn step(&mut self) -> anyhow::Result<Step> {
        let (begun, key) = (begin(), shared_key()?);
        loop {
            let row = self.store.get(&key).await?.context("the key is missing")?;
            let write = Operation::Update(key.clone(), VALUE.to_vec(), row.version);
            match self.store.commit(Transaction::new([write])).await {
                Ok(_) => return Ok(Step::Took(begun.elapsed())),
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn shared_key() -> anyhow::Result<Key> {
    Ok(Key::new("limit/shared")?)
}

/// One key an address of a /12, from a random one on until one is free.
#[derive(Debug)]
pub(super) struct KeyPerAddress {
    pub(super) store: Arc<dyn Store>,
    pub(super) random: Random,
}

#[async_trait]
impl Caller for KeyPerAddress {
    async fn step(&mut self) -> anyhow::Result<Step> {
        let begun = begin();
        let mut address = self.random.below(1 << 20);
        loop {
            // In directories of 1,024, which every store can hold.
            let key = Key::new(format!("limit/a/{:x}/{:x}", address >> 10, address & 1023))?;
            let made = Transaction::new([Operation::Create(key, VALUE.to_vec())]);
            match self.store.commit(made).await {
                Ok(_) => return Ok(Step::Took(begun.elapsed())),
                Err(CommitError::Conflict { .. }) => address = (address + 1) % (1 << 20),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// What a block device writes at least, as a rule.
const BLOCK: usize = 4096;
/// 8 MiB: as a segment of the journal.
const BLOCKS: u64 = 2048;
const VALUE: [u8; 48] = [5; 48];
