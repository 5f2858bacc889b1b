//! What is measured: each set of numbers behind the same four verbs.

use fixedbitset::FixedBitSet;
use hibitset::{BitSet, BitSetLike};
use netloom_alloc::{AddressPool, AtomicBitmap, Bitmap};
use netloom_types::Subnet;
use roaring::RoaringBitmap;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// A set of numbers of which some are taken.
pub(crate) trait Subject {
    const NAME: &'static str;
    /// The numbers below `capacity`; those of `taken`, which is sorted, are taken.
    fn new(capacity: u32, taken: &[u32]) -> Self;
    fn allocate(&mut self) -> Option<u32>;
    fn allocate_at(&mut self, index: u32) -> bool;
    fn release(&mut self, index: u32);
    /// Release, then allocate any: overridden only by the limit, which has no choice to make.
    #[inline]
    fn pair(&mut self, index: u32) -> Option<u32> {
        self.release(index);
        self.allocate()
    }
}

/// What threads share.
pub(crate) trait Shared: Sync {
    const NAME: &'static str;
    fn new(capacity: u32, taken: &[u32]) -> Self;
    fn pair(&self, index: u32) -> Option<u32>;
}

impl Subject for Bitmap {
    const NAME: &'static str = "netloom-exclusive";

    fn new(capacity: u32, taken: &[u32]) -> Self {
        let mut map = Self::new(capacity as usize).expect("2^24 bits are few enough");
        for index in taken {
            map.allocate_at(*index as usize)
                .expect("each number is taken once");
        }
        map
    }

    #[inline]
    fn allocate(&mut self) -> Option<u32> {
        Self::allocate(self).map(narrow)
    }

    #[inline]
    fn allocate_at(&mut self, index: u32) -> bool {
        Self::allocate_at(self, index as usize).is_ok()
    }

    #[inline]
    fn release(&mut self, index: u32) {
        Self::release(self, index as usize).expect("only live numbers are released");
    }
}

impl Subject for AtomicBitmap {
    const NAME: &'static str = "netloom-atomic";

    fn new(capacity: u32, taken: &[u32]) -> Self {
        Self::from(&<Bitmap as Subject>::new(capacity, taken))
    }

    #[inline]
    fn allocate(&mut self) -> Option<u32> {
        Self::allocate(self).map(narrow)
    }

    #[inline]
    fn allocate_at(&mut self, index: u32) -> bool {
        Self::allocate_at(self, index as usize).is_ok()
    }

    #[inline]
    fn release(&mut self, index: u32) {
        Self::release(self, index as usize).expect("only live numbers are released");
    }
}

impl Shared for AtomicBitmap {
    const NAME: &'static str = "netloom-atomic";

    fn new(capacity: u32, taken: &[u32]) -> Self {
        <Self as Subject>::new(capacity, taken)
    }

    #[inline]
    fn pair(&self, index: u32) -> Option<u32> {
        self.release(index as usize)
            .expect("only live numbers are released");
        self.allocate().map(narrow)
    }
}

/// The pool of addresses in 10.0.0.0, with the network and broadcast addresses that it reserves by
/// itself.
pub(crate) struct Pool(AddressPool);

const BASE: u32 = 10 << 24;

impl Subject for Pool {
    const NAME: &'static str = "netloom-pool";

    fn new(capacity: u32, taken: &[u32]) -> Self {
        let host_bits = u8::try_from(capacity.trailing_zeros()).expect("a power of two");
        let subnet = Subnet::truncating(IpAddr::V4(Ipv4Addr::from_bits(BASE)), 32 - host_bits);
        let mut pool = AddressPool::new(subnet);
        for index in taken {
            // The first and the last are reserved already.
            let _ = pool.allocate_at(address(*index));
        }
        Self(pool)
    }

    #[inline]
    fn allocate(&mut self) -> Option<u32> {
        match self.0.allocate() {
            Ok(IpAddr::V4(ip)) => Some(ip.to_bits() - BASE),
            _ => None,
        }
    }

    #[inline]
    fn allocate_at(&mut self, index: u32) -> bool {
        self.0.allocate_at(address(index)).is_ok()
    }

    #[inline]
    fn release(&mut self, index: u32) {
        self.0
            .release(address(index))
            .expect("only live addresses are released");
    }
}

fn address(index: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(BASE + index))
}

/// Of the free numbers.
impl Subject for BitSet {
    const NAME: &'static str = "hibitset";

    fn new(capacity: u32, taken: &[u32]) -> Self {
        let mut set = Self::with_capacity(capacity);
        for_free(capacity, taken, |index| {
            set.add(index);
        });
        set
    }

    #[inline]
    fn allocate(&mut self) -> Option<u32> {
        let index = (&*self).iter().next()?;
        self.remove(index);
        Some(index)
    }

    #[inline]
    fn allocate_at(&mut self, index: u32) -> bool {
        self.remove(index)
    }

    #[inline]
    fn release(&mut self, index: u32) {
        self.add(index);
    }
}

/// Of the free numbers.
impl Subject for RoaringBitmap {
    const NAME: &'static str = "roaring";

    fn new(capacity: u32, taken: &[u32]) -> Self {
        let mut set = Self::new();
        for_free(capacity, taken, |index| {
            set.insert(index);
        });
        set
    }

    #[inline]
    fn allocate(&mut self) -> Option<u32> {
        let index = self.min()?;
        self.remove(index);
        Some(index)
    }

    #[inline]
    fn allocate_at(&mut self, index: u32) -> bool {
        self.remove(index)
    }

    #[inline]
    fn release(&mut self, index: u32) {
        self.insert(index);
    }
}

/// Of the taken numbers; the search scans words from the beginning.
impl Subject for FixedBitSet {
    const NAME: &'static str = "fixedbitset";

    fn new(capacity: u32, taken: &[u32]) -> Self {
        let mut set = Self::with_capacity(capacity as usize);
        taken.iter().for_each(|index| set.insert(*index as usize));
        set
    }

    #[inline]
    fn allocate(&mut self) -> Option<u32> {
        let index = self.zeroes().next()?;
        self.insert(index);
        Some(narrow(index))
    }

    #[inline]
    fn allocate_at(&mut self, index: u32) -> bool {
        !self.put(index as usize)
    }

    #[inline]
    fn release(&mut self, index: u32) {
        self.remove(index as usize);
    }
}

/// Of the free numbers.
impl Subject for BTreeSet<u32> {
    const NAME: &'static str = "btreeset";

    fn new(capacity: u32, taken: &[u32]) -> Self {
        let mut free = Vec::with_capacity(capacity as usize - taken.len());
        for_free(capacity, taken, |index| free.push(index));
        free.into_iter().collect()
    }

    #[inline]
    fn allocate(&mut self) -> Option<u32> {
        self.pop_first()
    }

    #[inline]
    fn allocate_at(&mut self, index: u32) -> bool {
        self.remove(&index)
    }

    #[inline]
    fn release(&mut self, index: u32) {
        self.insert(index);
    }
}

/// The exclusive form behind a lock that is taken once for each operation.
pub(crate) struct Mutexed(Mutex<Bitmap>);

impl Mutexed {
    fn with<T>(&self, body: impl FnOnce(&mut Bitmap) -> T) -> T {
        body(&mut self.0.lock().expect("no holder panics"))
    }
}

impl Subject for Mutexed {
    const NAME: &'static str = "mutex-exclusive";

    fn new(capacity: u32, taken: &[u32]) -> Self {
        Self(Mutex::new(<Bitmap as Subject>::new(capacity, taken)))
    }

    #[inline]
    fn allocate(&mut self) -> Option<u32> {
        self.with(|map| map.allocate().map(narrow))
    }

    #[inline]
    fn allocate_at(&mut self, index: u32) -> bool {
        self.with(|map| map.allocate_at(index as usize).is_ok())
    }

    #[inline]
    fn release(&mut self, index: u32) {
        self.with(|map| map.release(index as usize))
            .expect("only live numbers are released");
    }
}

impl Shared for Mutexed {
    const NAME: &'static str = "mutex-exclusive";

    fn new(capacity: u32, taken: &[u32]) -> Self {
        <Self as Subject>::new(capacity, taken)
    }

    #[inline]
    fn pair(&self, index: u32) -> Option<u32> {
        self.with(|map| map.release(index as usize))
            .expect("only live numbers are released");
        self.with(|map| map.allocate().map(narrow))
    }
}

/// What any lock-free form must do at the least: clear the bit of the number given back, set a bit,
/// and look at what each of the two operations found. It sets the same bit again, so it needs no
/// search and has the word at hand.
pub(crate) struct Limit(Vec<AtomicU64>);

impl Subject for Limit {
    const NAME: &'static str = "limit-fetch-or";

    fn new(capacity: u32, taken: &[u32]) -> Self {
        let words = Self(
            (0..capacity.div_ceil(64))
                .map(|_| AtomicU64::new(0))
                .collect(),
        );
        for index in taken {
            words.set(*index);
        }
        words
    }

    #[inline]
    fn allocate(&mut self) -> Option<u32> {
        None
    }

    #[inline]
    fn allocate_at(&mut self, index: u32) -> bool {
        self.set(index)
    }

    #[inline]
    fn release(&mut self, index: u32) {
        let (word, bit) = (index as usize / 64, 1 << (index % 64));
        let old = self
            .0
            .get(word)
            .map_or(0, |word| word.fetch_and(!bit, Ordering::SeqCst));
        assert!(old & bit != 0, "only live numbers are released");
    }

    #[inline]
    fn pair(&mut self, index: u32) -> Option<u32> {
        self.release(index);
        self.set(index).then_some(index)
    }
}

impl Limit {
    #[inline]
    fn set(&self, index: u32) -> bool {
        let (word, bit) = (index as usize / 64, 1 << (index % 64));
        let old = self
            .0
            .get(word)
            .map_or(bit, |word| word.fetch_or(bit, Ordering::SeqCst));
        old & bit == 0
    }
}

/// Calls `each` with every number below `capacity` that is not in `taken`, which is sorted.
fn for_free(capacity: u32, taken: &[u32], mut each: impl FnMut(u32)) {
    let mut taken = taken.iter().peekable();
    for index in 0..capacity {
        if taken.next_if_eq(&&index).is_none() {
            each(index);
        }
    }
}

fn narrow(index: usize) -> u32 {
    u32::try_from(index).expect("pools of the bench have at most 2^24 numbers")
}
