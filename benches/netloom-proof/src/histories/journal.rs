//! A host's journal, read by other eyes than the program's: from the bytes that docs/records.md draws.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use netloom_core::SystemClock;
use netloom_ipam::journal::{DirDisk, Fold, Journal, JournalOptions, Upkeep};

use crate::duplicates::{Range, Use, Way};

/// What the events of a journal add up to, pool by pool.
#[derive(Debug, Default)]
struct Books(BTreeMap<u32, Book>);

/// One pool of version 4, address by address.
#[derive(Debug)]
struct Book {
    base: Ipv4Addr,
    ranges: BTreeMap<u32, Way>,
    used: BTreeMap<u32, ()>,
}

impl Fold for Books {
    fn apply(&mut self, event: &[u8]) -> Result<(), String> {
        let mut bytes = Bytes(event);
        bytes
            .event(&mut self.0)
            .ok_or_else(|| format!("an event that cannot be read: {event:?}"))
    }

    /// Read once, and never written again.
    fn dump(&self, _: &mut dyn FnMut(&[u8])) {}
}

/// What a journal says: its ranges, and the addresses that are in use.
pub(super) fn read(directory: &Path, host: &str) -> anyhow::Result<(Vec<Range>, Vec<Use>)> {
    let disk = Arc::new(DirDisk::open(directory)?);
    let ids = Arc::new(SystemClock::new());
    // Large enough that nothing is folded by these eyes.
    let options = JournalOptions {
        upkeep: Upkeep::Inline,
        ..JournalOptions::default()
    };
    let (journal, books) = Journal::open::<Books>(disk, ids, options).context("the journal")?;
    drop(journal);
    let mut ranges = Vec::new();
    let mut used = Vec::new();
    for book in books.0.into_values() {
        ranges.extend(book.ranges(host));
        let uses = book.used.keys().map(|index| Use {
            address: book.address(*index),
            host: host.to_owned(),
        });
        used.extend(uses);
    }
    Ok((ranges, used))
}

impl Book {
    fn address(&self, index: u32) -> IpAddr {
        Ipv4Addr::from(u32::from(self.base).saturating_add(index)).into()
    }

    /// Neighbours of one kind are one range.
    fn ranges(&self, host: &str) -> Vec<Range> {
        let mut found: Vec<(u32, u32, Way)> = Vec::new();
        for (index, way) in &self.ranges {
            match found.last_mut() {
                Some((_, last, kind)) if *last + 1 == *index && kind == way => *last = *index,
                _ => found.push((*index, *index, *way)),
            }
        }
        let range = |(first, last, way)| Range {
            first: self.address(first),
            last: self.address(last),
            owner: host.to_owned(),
            way,
        };
        found.into_iter().map(range).collect()
    }
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn index(&mut self) -> Option<u32> {
        let [len] = self.take()?;
        let (head, rest) = self.0.split_at_checked(usize::from(len))?;
        self.0 = rest;
        let mut bytes = [0; 4];
        bytes.get_mut(..head.len())?.copy_from_slice(head);
        Some(u32::from_le_bytes(bytes))
    }

    fn event(&mut self, books: &mut BTreeMap<u32, Book>) -> Option<()> {
        let [kind] = self.take()?;
        let pool = u32::from_le_bytes(self.take()?);
        match kind {
            1 => {
                let [_space, family, _prefix] = self.take()?;
                let [.., a, b, c, d] = self.take::<16>()?;
                if family == 4 {
                    let book = Book {
                        base: Ipv4Addr::new(a, b, c, d),
                        ranges: BTreeMap::new(),
                        used: BTreeMap::new(),
                    };
                    books.insert(pool, book);
                }
            }
            2 => drop(books.remove(&pool)),
            3 => drop(books.get_mut(&pool)?.used.insert(self.index()?, ())),
            5 => drop(books.get_mut(&pool)?.used.remove(&self.index()?)),
            10..=13 => {
                let (first, last) = (self.index()?, self.index()?);
                let ranges = &mut books.get_mut(&pool)?.ranges;
                for index in first..=last {
                    match kind {
                        10 | 12 => drop(ranges.insert(index, Way::Settled)),
                        11 => drop(ranges.insert(index, Way::Underway)),
                        _ => drop(ranges.remove(&index)),
                    }
                }
            }
            _ => {}
        }
        Some(())
    }
}
