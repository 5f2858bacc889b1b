//! Where the search for a free bit starts.

/// Which free number is handed out next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Policy {
    /// The lowest free one: dense use, but a released number comes back at once.
    LowestFree,
    /// The next one above that handed out last, wrapping around at the end.
    ///
    /// A released number is reused only after the search has come round to it: the order of
    /// cool-down for no memory at all. A number released just ahead of the search is the exception;
    /// an exact order by idle time would need a queue as large as the pool.
    #[default]
    NextFit,
    /// The first free one from a pseudo-random position on, so that independent owners of one pool
    /// seldom want the same number.
    RandomStart {
        /// Equal seeds give equal sequences.
        seed: u64,
    },
}

/// A policy at work: where the next search starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start<N> {
    Lowest,
    Next(N),
    Random(u64),
}

impl<N: Copy + Default> Start<N> {
    pub(crate) fn new(policy: Policy) -> Self {
        match policy {
            Policy::LowestFree => Self::Lowest,
            Policy::NextFit => Self::Next(N::default()),
            Policy::RandomStart { seed } => Self::Random(seed),
        }
    }

    /// The policy that continues from here.
    pub(crate) fn policy(self) -> Policy {
        match self {
            Self::Lowest => Policy::LowestFree,
            Self::Next(_) => Policy::NextFit,
            Self::Random(state) => Policy::RandomStart { seed: state },
        }
    }
}

impl Start<usize> {
    /// Where to start in `from..to`, which is not empty.
    #[inline]
    pub(crate) fn position(&mut self, from: usize, to: usize) -> usize {
        match self {
            Self::Lowest => from,
            Self::Next(at) if (from..to).contains(at) => *at,
            Self::Next(_) => from,
            Self::Random(state) => from + below(next_random(state), to - from),
        }
    }

    /// Notes that `index` was handed out.
    #[inline]
    pub(crate) fn advance(&mut self, index: usize) {
        if let Self::Next(at) = self {
            *at = index + 1;
        }
    }

    /// Starts over when the place to start was cut off.
    pub(crate) fn clamp(&mut self, capacity: usize) {
        if let Self::Next(at) = self
            && *at > capacity
        {
            *at = 0;
        }
    }
}

impl Start<u128> {
    /// Where to start in `from..=last`.
    pub(crate) fn position(&mut self, from: u128, last: u128) -> u128 {
        match self {
            Self::Lowest => from,
            Self::Next(at) if (from..=last).contains(at) => *at,
            Self::Next(_) => from,
            Self::Random(state) => {
                let wide = u128::from(next_random(state)) << 64 | u128::from(next_random(state));
                match (last - from).checked_add(1) {
                    // The bias of a remainder is below size / 2^128: nobody can see it.
                    Some(size) => from + wide % size,
                    None => wide,
                }
            }
        }
    }

    /// Notes that `index` was handed out.
    pub(crate) fn advance(&mut self, index: u128) {
        if let Self::Next(at) = self {
            *at = index.wrapping_add(1);
        }
    }
}

/// The next number of splitmix64 (Steele, Lea, Flood 2014): one addition of state, good enough to
/// spread starting points and the same on every machine.
#[inline]
pub(crate) fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(RANDOM_STEP);
    mix(*state)
}

/// The finaliser of splitmix64.
#[inline]
pub(crate) fn mix(state: u64) -> u64 {
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Scales `random` to `0..size` by multiplication, without a division.
#[inline]
pub(crate) fn below(random: u64, size: usize) -> usize {
    let scaled = (u128::from(random) * size as u128) >> 64;
    usize::try_from(scaled).unwrap_or(0)
}

/// 2^64 divided by the golden ratio, made odd: the step of splitmix64.
pub(crate) const RANDOM_STEP: u64 = 0x9e37_79b9_7f4a_7c15;
