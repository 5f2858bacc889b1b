//! Who has which of 1,024 addresses: a list of runs, and all that can happen to it. Pure.
//!
//! Every change of hands gives the run a generation from the chunk's counter, which never goes
//! back: so a range is named by its place and its generation, and never twice by the same pair.

use std::sync::Arc;

/// Addresses per chunk.
pub(crate) const CHUNK: u32 = 1024;

/// Neighbouring addresses, the last one included, counted from the chunk's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Span {
    pub(crate) first: u32,
    pub(crate) last: u32,
}

/// Whose a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Nobody's.
    Nobody,
    /// The pool's own: a gateway or an auxiliary address.
    Pool,
    /// This host hands out from it.
    Owned(Arc<str>),
    /// This host was given it, and has not taken it yet.
    Offered(Arc<str>),
}

/// A part of a chunk that is in one hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) span: Span,
    pub(crate) holder: Holder,
    /// Of the change that brought it there; 0 for what is nobody's.
    pub(crate) generation: u64,
    /// When its youngest address was in use last, in milliseconds since the Unix epoch; 0 for
    /// never, or not known.
    pub(crate) idle: u64,
}

/// A change that the chunk as it is does not allow: somebody else has a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clash {
    pub(crate) run: Run,
}

/// One chunk in one life of its pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    counter: u64,
    /// Ordered, without gaps, from the first to the last address.
    runs: Vec<Run>,
}

impl Span {
    pub(crate) const WHOLE: Self = Self {
        first: 0,
        last: CHUNK - 1,
    };

    pub(crate) fn one(at: u32) -> Self {
        Self {
            first: at,
            last: at,
        }
    }

    pub(crate) fn len(self) -> u32 {
        self.last - self.first + 1
    }

    /// What both have.
    pub(crate) fn common(self, other: Self) -> Option<Self> {
        let both = Self {
            first: self.first.max(other.first),
            last: self.last.min(other.last),
        };
        (both.first <= both.last).then_some(both)
    }
}

impl Holder {
    /// The host that it names.
    pub(crate) fn host(&self) -> Option<&str> {
        match self {
            Self::Owned(host) | Self::Offered(host) => Some(host),
            Self::Nobody | Self::Pool => None,
        }
    }

    fn is_owned_by(&self, who: &str) -> bool {
        matches!(self, Self::Owned(host) if **host == *who)
    }
}

impl Chunk {
    /// A chunk that nobody has anything of, with the counter of its former lives.
    pub(crate) fn new(counter: u64) -> Self {
        let run = Run {
            span: Span::WHOLE,
            holder: Holder::Nobody,
            generation: 0,
            idle: 0,
        };
        Self {
            counter,
            runs: vec![run],
        }
    }

    /// A chunk of runs that were read; what they leave out is nobody's.
    ///
    /// # Errors
    /// When they are out of order, overlap or lie outside.
    pub(crate) fn from_runs(
        counter: u64,
        runs: impl IntoIterator<Item = Run>,
    ) -> Result<Self, &'static str> {
        let mut chunk = Self::new(counter);
        let mut next = 0;
        for run in runs {
            let Span { first, last } = run.span;
            if first < next || last < first || last >= CHUNK {
                return Err("has runs out of order");
            }
            if run.generation > counter {
                return Err("has a run from the future of its counter");
            }
            next = last + 1;
            chunk.put(run);
        }
        Ok(chunk)
    }

    pub(crate) fn counter(&self) -> u64 {
        self.counter
    }

    /// All runs, without gaps.
    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The runs that touch `span`, as far as they lie in it.
    pub(crate) fn within(&self, span: Span) -> impl Iterator<Item = Run> {
        let start = self.runs.partition_point(|run| run.span.last < span.first);
        self.runs
            .get(start..)
            .unwrap_or_default()
            .iter()
            .map_while(move |run| {
                let span = run.span.common(span)?;
                Some(Run {
                    span,
                    ..run.clone()
                })
            })
    }

    /// The run at one address.
    pub(crate) fn at(&self, at: u32) -> Option<Run> {
        self.within(Span::one(at)).next()
    }

    /// What nobody has of `span`.
    pub(crate) fn free(&self, span: Span) -> impl Iterator<Item = Run> {
        self.within(span).filter(|run| run.holder == Holder::Nobody)
    }

    /// The runs that name a host, owned or offered.
    pub(crate) fn of(&self, host: &str) -> impl Iterator<Item = &Run> {
        let named = move |run: &&Run| run.holder.host() == Some(host);
        self.runs.iter().filter(named)
    }

    /// What to claim of `within`: about `size` addresses that nobody has, those that were idle
    /// longest; of a wide free part, up to the next multiple of `size`, so that the parts of many
    /// hosts lie side by side.
    pub(crate) fn pick(&self, within: Span, size: u32) -> Vec<Run> {
        let size = size.clamp(1, CHUNK);
        let mut free: Vec<_> = self.free(within).collect();
        free.sort_by_key(|run| (run.idle, run.span.first));
        let mut picked: Vec<Run> = Vec::new();
        let mut total = 0;
        for mut run in free {
            while total < size.div_ceil(2) {
                let border = (run.span.first / size + 1) * size - 1;
                let last = run
                    .span
                    .last
                    .min(border)
                    .min(run.span.first + size - total - 1);
                let span = Span { last, ..run.span };
                total += span.len();
                picked.push(Run {
                    span,
                    ..run.clone()
                });
                if last == run.span.last {
                    break;
                }
                run.span.first = last + 1;
            }
        }
        picked
    }

    /// Nobody's becomes a host's; gives the generation.
    pub(crate) fn claim(&mut self, span: Span, host: &Arc<str>) -> Result<u64, Clash> {
        self.demand(span, |holder| *holder == Holder::Nobody)?;
        Ok(self.turn_over(span, Holder::Owned(Arc::clone(host)), 0))
    }

    /// A host gives to another one.
    pub(crate) fn offer(
        &mut self,
        span: Span,
        from: &str,
        to: &Arc<str>,
        idle: u64,
    ) -> Result<u64, Clash> {
        self.demand(span, |holder| holder.is_owned_by(from))?;
        Ok(self.turn_over(span, Holder::Offered(Arc::clone(to)), idle))
    }

    /// A host takes what names it, offered or owned, with a new generation: whatever was under way
    /// for the old one can never happen.
    pub(crate) fn adopt(&mut self, span: Span, host: &Arc<str>) -> Result<u64, Clash> {
        self.demand(span, |holder| holder.host() == Some(&**host))?;
        Ok(self.turn_over(span, Holder::Owned(Arc::clone(host)), 0))
    }

    /// A host's becomes nobody's.
    pub(crate) fn give_back(&mut self, span: Span, host: &str, idle: u64) -> Result<u64, Clash> {
        self.demand(span, |holder| holder.is_owned_by(host))?;
        Ok(self.turn_over(span, Holder::Nobody, idle))
    }

    /// An address becomes the pool's own; it must be nobody's or the host's.
    pub(crate) fn hold(&mut self, at: u32, host: &str) -> Result<u64, Clash> {
        let span = Span::one(at);
        self.demand(span, |holder| {
            *holder == Holder::Nobody || holder.is_owned_by(host)
        })?;
        Ok(self.turn_over(span, Holder::Pool, 0))
    }

    /// The pool's own becomes nobody's.
    pub(crate) fn unhold(&mut self, at: u32, idle: u64) -> Result<u64, Clash> {
        let span = Span::one(at);
        self.demand(span, |holder| *holder == Holder::Pool)?;
        Ok(self.turn_over(span, Holder::Nobody, idle))
    }

    /// A host is gone for ever: what names it is nobody's; gives how many addresses that were.
    pub(crate) fn forget(&mut self, host: &str, idle: u64) -> u32 {
        let spans: Vec<_> = self.of(host).map(|run| run.span).collect();
        for span in &spans {
            self.turn_over(*span, Holder::Nobody, idle);
        }
        spans.iter().map(|span| span.len()).sum()
    }

    /// After the store lost its past: a host says again what its journal holds, with generations
    /// above those that it knows. A run of another host or of the pool with a lower generation than
    /// the journal's is of the time before, and the host's again; one with a higher generation stays
    /// there, and is told; the rest is the host's.
    pub(crate) fn assert(&mut self, span: Span, host: &Arc<str>, generation: u64) -> Vec<Run> {
        self.counter = self.counter.max(generation);
        let mut others = Vec::new();
        let parts: Vec<_> = self.within(span).collect();
        for part in parts {
            match &part.holder {
                Holder::Nobody => {}
                Holder::Owned(owner) | Holder::Offered(owner) if owner == host => {}
                _ if part.generation < generation => {}
                Holder::Pool | Holder::Owned(_) | Holder::Offered(_) => {
                    others.push(part);
                    continue;
                }
            }
            self.turn_over(part.span, Holder::Owned(Arc::clone(host)), 0);
        }
        others
    }

    fn demand(&self, span: Span, fits: impl Fn(&Holder) -> bool) -> Result<(), Clash> {
        match self.within(span).find(|run| !fits(&run.holder)) {
            None => Ok(()),
            Some(run) => Err(Clash { run }),
        }
    }

    fn turn_over(&mut self, span: Span, holder: Holder, idle: u64) -> u64 {
        self.counter += 1;
        let generation = match holder {
            Holder::Nobody => 0,
            Holder::Pool | Holder::Owned(_) | Holder::Offered(_) => self.counter,
        };
        self.put(Run {
            span,
            holder,
            generation,
            idle,
        });
        self.counter
    }

    /// Replaces what lies under a run.
    fn put(&mut self, new: Run) {
        let Span { first, last } = new.span;
        let from = self.runs.partition_point(|run| run.span.last < first);
        let to = self.runs.partition_point(|run| run.span.first <= last);
        let under = self.runs.get(from..to).unwrap_or_default();
        let before = under.first().filter(|run| run.span.first < first);
        let before = before.map(|run| Run {
            span: Span {
                first: run.span.first,
                last: first - 1,
            },
            ..run.clone()
        });
        let after = under.last().filter(|run| run.span.last > last);
        let after = after.map(|run| Run {
            span: Span {
                first: last + 1,
                last: run.span.last,
            },
            ..run.clone()
        });
        let parts = before.into_iter().chain([new]).chain(after);
        let count = self.runs.len();
        self.runs.splice(from..to, parts);
        let grown = self.runs.len() + (to - from) - count;
        self.join(from.saturating_sub(1), from + grown + 1);
    }

    /// Joins neighbours that differ in nothing.
    fn join(&mut self, from: usize, to: usize) {
        let to = to.min(self.runs.len());
        let mut part: Vec<Run> = Vec::with_capacity(to - from);
        for run in self.runs.drain(from..to).collect::<Vec<_>>() {
            match part.last_mut() {
                Some(left) if is_one(left, &run) => left.span.last = run.span.last,
                _ => part.push(run),
            }
        }
        self.runs.splice(from..from, part);
    }
}

fn is_one(left: &Run, right: &Run) -> bool {
    left.holder == right.holder && left.generation == right.generation && left.idle == right.idle
}

#[cfg(test)]
mod healing;
#[cfg(test)]
mod tests;
