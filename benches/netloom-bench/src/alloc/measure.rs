//! Random choices, states and samples.

use super::subjects::{Shared, Subject};
use crate::{clock, heap};
use std::hint::black_box;

/// How long a run may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Turns that the subjects of a cell take.
    pub(crate) rounds: usize,
    /// How long one sample shall last, in nanoseconds.
    pub(crate) sample: f64,
    /// Whether every subject is measured in the widest pool.
    pub(crate) wide: bool,
}

impl Effort {
    pub(crate) const FULL: Self = Self {
        rounds: 25,
        sample: 8e6,
        wide: true,
    };
    pub(crate) const QUICK: Self = Self {
        rounds: 12,
        sample: 2e6,
        wide: false,
    };
}

/// splitmix64.
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    #[inline]
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `size`, by multiplication.
    #[inline]
    pub(crate) fn below(&mut self, size: usize) -> usize {
        let scaled = (u128::from(self.next()) * size as u128) >> 64;
        usize::try_from(scaled).unwrap_or(0)
    }
}

/// The seed of every state of this bench.
const SEED: u64 = 42;

/// Which addresses of a pool are live, and the state it began in.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) capacity: u32,
    /// All that is taken, network and broadcast included, sorted.
    pub(crate) taken: Vec<u32>,
    /// What may be released.
    pub(crate) live: Vec<u32>,
}

impl State {
    /// A pool of `2^host_bits` addresses with `occupancy` per cent taken at random.
    pub(crate) fn new(host_bits: u32, occupancy: u32) -> Self {
        let capacity = 1_u32 << host_bits;
        let wanted = u64::from(capacity) * u64::from(occupancy) / 100;
        // The first addresses of a random order; the network's own two are never in it.
        let mut order: Vec<u32> = (1..capacity - 1).collect();
        let mut dice = Dice(SEED);
        shuffle(&mut order, &mut dice);
        order.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
        let mut taken = order.clone();
        taken.extend([0, capacity - 1]);
        taken.sort_unstable();
        Self {
            capacity,
            taken,
            live: order,
        }
    }
}

/// A subject in the middle of its life, with its own live addresses.
pub(crate) struct Running<S> {
    subject: S,
    /// In random order when the work at its beginning starts.
    live: Vec<u32>,
    /// The first of the live addresses that this pass did not come to yet.
    next: usize,
    dice: Dice,
}

/// One way to work through a batch of random live addresses.
pub(crate) type Pattern<S> = fn(&mut S, &mut [u32]);

/// Releases each address of the batch and allocates any in its place.
#[inline(never)]
pub(crate) fn churn<S: Subject>(subject: &mut S, batch: &mut [u32]) {
    for slot in batch {
        *slot = subject.pair(*slot).expect("one was just released");
    }
}

/// Releases each address of the batch and allocates the same again.
#[inline(never)]
pub(crate) fn specific<S: Subject>(subject: &mut S, batch: &mut [u32]) {
    for index in batch {
        subject.release(*index);
        assert!(
            black_box(subject.allocate_at(*index)),
            "it was just released"
        );
    }
}

/// Allocates `count` addresses.
#[inline(never)]
pub(crate) fn fill<S: Subject>(subject: &mut S, count: usize) {
    for _ in 0..count {
        black_box(
            subject
                .allocate()
                .expect("no more are asked for than are free"),
        );
    }
}

impl<S: Subject> Running<S> {
    pub(crate) fn new(state: &State) -> Self {
        let subject = S::new(state.capacity, &state.taken);
        Self {
            subject,
            live: state.live.clone(),
            next: 0,
            dice: Dice(SEED),
        }
    }

    /// Works through `pairs` of the live addresses in random order; gives the time of the work alone.
    ///
    /// The list of live addresses is shuffled, worked through from its beginning to its end, and
    /// shuffled again, outside of the time. So the addresses are random, but choosing them costs a
    /// sequential read: in a wide pool a look into the list at random would cost more than the
    /// allocator does.
    pub(crate) fn work(&mut self, pattern: Pattern<S>, pairs: usize) -> f64 {
        let mut left = pairs;
        let mut took = 0.0;
        while left > 0 {
            if self.next == self.live.len() {
                shuffle(&mut self.live, &mut self.dice);
                self.next = 0;
            }
            let end = self.live.len().min(self.next + left);
            let batch = self.live.get_mut(self.next..end).unwrap_or_default();
            took += clock::nanoseconds(|| pattern(&mut self.subject, batch));
            left -= end - self.next;
            self.next = end;
        }
        took
    }
}

fn shuffle(list: &mut [u32], dice: &mut Dice) {
    for at in (1..list.len()).rev() {
        list.swap(at, dice.below(at + 1));
    }
}

/// What one subject of a cell gave so far.
pub(crate) trait Cell {
    fn name(&self) -> &'static str;
    /// Takes a sample of about `sample` nanoseconds.
    fn measure(&mut self, sample: f64);
    /// Least time per operation seen, in nanoseconds.
    fn nanoseconds(&self) -> f64;
    /// Calls of the heap per operation, the most seen.
    fn heap_calls(&self) -> f64;
    /// Bytes held on the heap and in the value.
    fn bytes(&self) -> f64;
}

/// One subject under one pattern of endless operations.
pub(crate) struct Endless<S> {
    running: Running<S>,
    pattern: Pattern<S>,
    count: usize,
    least: f64,
    heap_calls: f64,
    bytes: i64,
}

impl<S: Subject> Endless<S> {
    pub(crate) fn new(state: &State, pattern: Pattern<S>) -> Self {
        // What the list of live addresses holds is the bench's.
        let list = state.live.clone();
        let before = heap::bytes();
        let subject = S::new(state.capacity, &state.taken);
        let on_heap = heap::bytes() - before;
        let running = Running {
            subject,
            live: list,
            next: 0,
            dice: Dice(SEED),
        };
        let size = i64::try_from(size_of::<S>()).unwrap_or(i64::MAX);
        let mut cell = Self {
            running,
            pattern,
            count: 16,
            least: f64::INFINITY,
            heap_calls: 0.0,
            bytes: on_heap + size,
        };
        // Wakes caches and predictors, and lets sets of several representations settle.
        cell.running.work(pattern, 64);
        cell
    }
}

impl<S: Subject> Cell for Endless<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn measure(&mut self, sample: f64) {
        // Another subject had the caches before.
        self.running.work(self.pattern, self.count / 2);
        let calls = heap::calls();
        let took = self.running.work(self.pattern, self.count);
        let calls = heap::calls() - calls;
        let count = as_f64(self.count);
        self.least = self.least.min(took / count);
        self.heap_calls = self.heap_calls.max(calls as f64 / count);
        // The next sample has the wanted length, if this one is anything to go by.
        let factor = (sample / took.max(1.0)).clamp(0.5, 64.0);
        self.count = scaled(self.count, factor);
    }

    fn nanoseconds(&self) -> f64 {
        self.least
    }

    fn heap_calls(&self) -> f64 {
        self.heap_calls
    }

    fn bytes(&self) -> f64 {
        self.bytes as f64
    }
}

/// One subject that is filled from empty, again and again.
pub(crate) struct Filling<S> {
    state: State,
    count: usize,
    least: f64,
    subject: core::marker::PhantomData<S>,
}

impl<S: Subject> Filling<S> {
    pub(crate) fn new(state: &State, count: usize) -> Self {
        let subject = core::marker::PhantomData;
        Self {
            state: state.clone(),
            count,
            least: f64::INFINITY,
            subject,
        }
    }
}

impl<S: Subject> Cell for Filling<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn measure(&mut self, _sample: f64) {
        let mut running = Running::<S>::new(&self.state);
        let took = clock::nanoseconds(|| fill(&mut running.subject, self.count));
        self.least = self.least.min(took / as_f64(self.count));
    }

    fn nanoseconds(&self) -> f64 {
        self.least
    }

    fn heap_calls(&self) -> f64 {
        0.0
    }

    fn bytes(&self) -> f64 {
        0.0
    }
}

/// Wall time per pair when `threads` threads churn one shared set, each its own live addresses.
pub(crate) fn threads<S: Shared>(state: &State, threads: usize, pairs: usize) -> f64 {
    let shared = S::new(state.capacity, &state.taken);
    let share = state.live.len() / threads;
    let mut parts: Vec<Vec<u32>> = state.live.chunks(share).map(<[u32]>::to_vec).collect();
    parts.truncate(threads);
    let ready = std::sync::Barrier::new(threads);
    let span = std::thread::scope(|scope| {
        let workers: Vec<_> = parts
            .iter_mut()
            .enumerate()
            .map(|(number, live)| {
                let (shared, ready) = (&shared, &ready);
                scope.spawn(move || {
                    let mut dice = Dice(SEED + number as u64);
                    ready.wait();
                    clock::Span::of(|| {
                        for _ in 0..pairs {
                            let at = dice.below(live.len());
                            if let Some(slot) = live.get_mut(at) {
                                *slot = shared.pair(*slot).expect("one was just released");
                            }
                        }
                    })
                })
            })
            .collect();
        let spans = workers
            .into_iter()
            .map(|worker| worker.join().expect("no worker panics"));
        spans.reduce(clock::Span::join)
    });
    span.map_or(f64::NAN, clock::Span::nanoseconds) / as_f64(pairs * threads)
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counts of operations are far below 2^53"
)]
fn as_f64(count: usize) -> f64 {
    count as f64
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the factor is positive and the count of a sample far below 2^53"
)]
fn scaled(count: usize, factor: f64) -> usize {
    ((as_f64(count) * factor) as usize).clamp(16, 50_000_000)
}
