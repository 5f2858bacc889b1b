//! What the parent asks a worker process to do, and what the worker answers.

use anyhow::Context;
use netloom_core::store::Store;
use netloom_core::{RemoteStoreConfig, StoreUrl};
use netloom_store::EmbeddedStore;
use netloom_stores::SharedStore;
use netloom_types::Subnet;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// One worker's part of a row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) work: Work,
    /// Which of the hosts this one is.
    pub(super) host: usize,
    pub(super) hosts: usize,
    /// Requests under way at once in this process.
    pub(super) callers: usize,
    pub(super) turn_ms: u64,
    pub(super) store: Place,
    /// This process's own, on the disk that is measured.
    pub(super) directory: PathBuf,
}

/// What is done again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Work {
    /// Overwrites prepared blocks, each with a sync.
    RawWrite,
    /// Compare-and-swap of a key that nobody else touches.
    CasOwnKey,
    /// Read and compare-and-swap of the one key that all touch.
    CasSharedKey,
    /// Creates one key an address, from a random start.
    KeyPerAddress,
    /// The design of old: the whole bitmap of a pool in one key.
    Whole {
        pattern: Pattern,
        /// Also builds the text for the debug log that the old code built on every call.
        text: bool,
    },
    /// `AddressManager`.
    Netloom { pattern: Pattern },
    /// Serves the plugin protocol with `AddressManager` behind it, until its input ends.
    PluginNetloom,
    /// Serves the plugin protocol with a handler that does nothing.
    PluginNothing,
}

/// What is asked of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Pattern {
    /// Allocations in an empty /12.
    Fresh,
    /// Releases of a random address and allocations, in a /16 of which a random half is in use.
    Half,
    /// Allocation and release at once, in an empty /24.
    Churn,
}

impl Pattern {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh-12",
            Self::Half => "half-16",
            Self::Churn => "churn-24",
        }
    }

    pub(super) fn subnet(self) -> Subnet {
        let text = match self {
            Self::Fresh => "10.16.0.0/12",
            Self::Half => "10.9.0.0/16",
            Self::Churn => "10.9.1.0/24",
        };
        text.parse().expect("the texts above are subnets")
    }

    pub(super) fn host_bits(self) -> u32 {
        match self {
            Self::Fresh => 20,
            Self::Half => 16,
            Self::Churn => 8,
        }
    }
}

/// Where the store is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Place {
    /// At this address, with a prefix of the row's own.
    Shared(String),
    /// In the worker's own directory.
    File,
}

impl Place {
    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Shared(_))
    }

    pub(super) fn open(&self, directory: &std::path::Path) -> anyhow::Result<Arc<dyn Store>> {
        match self {
            Self::File => Ok(Arc::new(EmbeddedStore::open(directory.join("store.redb"))?)),
            Self::Shared(text) => match text.parse()? {
                StoreUrl::Remote(url) => {
                    Ok(Arc::new(SharedStore::new(RemoteStoreConfig::new(url))))
                }
                StoreUrl::File(_) => anyhow::bail!("{text} is not a shared store"),
            },
        }
    }
}

/// What a worker saw in its turn.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) operations: u64,
    pub(super) seconds: f64,
    pub(super) laps: super::histogram::Histogram,
    pub(super) store_reads: u64,
    pub(super) store_writes: u64,
    /// Processor time of this process.
    pub(super) cpu_us: f64,
}

/// One line of JSON, from either side.
pub(super) fn read_line<T: serde::de::DeserializeOwned>(
    from: &mut impl std::io::BufRead,
) -> anyhow::Result<T> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    anyhow::ensure!(!line.is_empty(), "the other side has ended");
    serde_json::from_str(&line).with_context(|| format!("not understood: {line}"))
}

pub(super) fn write_line<T: Serialize>(
    to: &mut impl std::io::Write,
    what: &T,
) -> anyhow::Result<()> {
    writeln!(to, "{}", serde_json::to_string(what)?)?;
    Ok(to.flush()?)
}

/// The same draws for the same seed.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// splitmix64.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % end).unwrap_or(0)
    }
}
