use super::*;
use proptest::prelude::*;

/// The same, one address at a time.
#[derive(Debug, Clone)]
struct Naive(Vec<(Holder, u64)>);

#[derive(Debug, Clone)]
enum Deed {
    Claim(Span, u8),
    Offer(Span, u8, u8, u64),
    Adopt(Span, u8),
    GiveBack(Span, u8, u64),
    Hold(u32, u8),
    Unhold(u32),
    Forget(u8),
    Assert(Span, u8),
}

type Fits = Box<dyn Fn(&Holder) -> bool>;

fn host(number: u8) -> Arc<str> {
    format!("h{number}").into()
}

impl Naive {
    fn all(&self, span: Span, fits: impl Fn(&Holder) -> bool) -> bool {
        self.cells(span).iter().all(|(holder, _)| fits(holder))
    }

    fn cells(&self, span: Span) -> &[(Holder, u64)] {
        &self.0[span.first as usize..=span.last as usize]
    }

    fn set(&mut self, span: Span, holder: &Holder, idle: u64) {
        for cell in &mut self.0[span.first as usize..=span.last as usize] {
            *cell = (holder.clone(), idle);
        }
    }

    /// Whether it was allowed.
    fn apply(&mut self, deed: &Deed) -> bool {
        let owned = |h: u8| Holder::Owned(host(h));
        let (span, fits, to, idle): (_, Fits, _, _) = match deed.clone() {
            Deed::Claim(span, h) => (span, Box::new(|x| *x == Holder::Nobody), owned(h), 0),
            Deed::Offer(span, a, b, idle) => {
                let from = owned(a);
                let to = Holder::Offered(host(b));
                (span, Box::new(move |x| *x == from), to, idle)
            }
            Deed::Adopt(span, h) => {
                let named = move |x: &Holder| x.host() == Some(&*host(h));
                (span, Box::new(named), owned(h), 0)
            }
            Deed::GiveBack(span, h, idle) => {
                let from = owned(h);
                (span, Box::new(move |x| *x == from), Holder::Nobody, idle)
            }
            Deed::Hold(at, h) => {
                let from = owned(h);
                let fits = move |x: &Holder| *x == Holder::Nobody || *x == from;
                (Span::one(at), Box::new(fits), Holder::Pool, 0)
            }
            Deed::Unhold(at) => {
                let fits = |x: &Holder| *x == Holder::Pool;
                (Span::one(at), Box::new(fits), Holder::Nobody, 7)
            }
            Deed::Forget(h) => {
                for cell in &mut self.0 {
                    if cell.0.host() == Some(&*host(h)) {
                        *cell = (Holder::Nobody, 7);
                    }
                }
                return true;
            }
            Deed::Assert(span, h) => {
                for at in span.first..=span.last {
                    let free = self.0[at as usize].0 == Holder::Nobody;
                    if free || self.0[at as usize].0.host() == Some(&*host(h)) {
                        self.set(Span::one(at), &owned(h), 0);
                    }
                }
                return true;
            }
        };
        let allowed = self.all(span, fits);
        if allowed {
            self.set(span, &to, idle);
        }
        allowed
    }
}

fn apply(chunk: &mut Chunk, deed: &Deed) -> bool {
    match deed.clone() {
        Deed::Claim(span, h) => chunk.claim(span, &host(h)).is_ok(),
        Deed::Offer(span, a, b, idle) => chunk.offer(span, &host(a), &host(b), idle).is_ok(),
        Deed::Adopt(span, h) => chunk.adopt(span, &host(h)).is_ok(),
        Deed::GiveBack(span, h, idle) => chunk.give_back(span, &host(h), idle).is_ok(),
        Deed::Hold(at, h) => chunk.hold(at, &host(h)).is_ok(),
        Deed::Unhold(at) => chunk.unhold(at, 7).is_ok(),
        Deed::Forget(h) => {
            chunk.forget(&host(h), 7);
            true
        }
        Deed::Assert(span, h) => {
            chunk.assert(span, &host(h), 0);
            true
        }
    }
}

fn spans() -> impl Strategy<Value = Span> {
    // A small part at each end, so that deeds meet often and bounds are tried.
    let at = prop_oneof![0..24u32, CHUNK - 24..CHUNK];
    (at, 0..12u32).prop_map(|(first, more)| Span {
        first,
        last: (first + more).min(CHUNK - 1),
    })
}

fn deeds() -> impl Strategy<Value = Deed> {
    let h = 0..3u8;
    prop_oneof![
        3 => (spans(), h.clone()).prop_map(|(s, h)| Deed::Claim(s, h)),
        3 => (spans(), h.clone(), h.clone(), 0..3u64).prop_map(|(s, a, b, i)| Deed::Offer(s, a, b, i)),
        3 => (spans(), h.clone()).prop_map(|(s, h)| Deed::Adopt(s, h)),
        2 => (spans(), h.clone(), 0..3u64).prop_map(|(s, h, i)| Deed::GiveBack(s, h, i)),
        2 => (0..24u32, h.clone()).prop_map(|(at, h)| Deed::Hold(at, h)),
        1 => (0..24u32).prop_map(Deed::Unhold),
        1 => h.clone().prop_map(Deed::Forget),
        2 => (spans(), h).prop_map(|(s, h)| Deed::Assert(s, h)),
    ]
}

fn check(chunk: &Chunk, naive: &Naive) {
    let mut next = 0;
    for run in chunk.runs() {
        assert_eq!(run.span.first, next, "a gap or an overlap");
        assert!(run.generation <= chunk.counter());
        for (holder, idle) in naive.cells(run.span) {
            assert_eq!((holder, *idle), (&run.holder, run.idle), "{run:?}");
        }
        next = run.span.last + 1;
    }
    assert_eq!(next, CHUNK);
}

proptest! {
    #[test]
    fn it_is_what_single_addresses_would_be(deeds in prop::collection::vec(deeds(), 1..60)) {
        let mut chunk = Chunk::new(0);
        let mut naive = Naive(vec![(Holder::Nobody, 0); CHUNK as usize]);
        for deed in deeds {
            let before = chunk.clone();
            let allowed = apply(&mut chunk, &deed);
            prop_assert_eq!(allowed, naive.apply(&deed), "{:?}", deed);
            prop_assert!(chunk.counter() >= before.counter());
            if !allowed {
                prop_assert_eq!(&chunk, &before);
            }
            check(&chunk, &naive);
            let read = Chunk::from_runs(chunk.counter(), chunk.runs().iter().cloned());
            prop_assert_eq!(read.as_ref(), Ok(&chunk));
        }
    }

    #[test]
    fn no_pair_of_place_and_generation_comes_twice(deeds in prop::collection::vec(deeds(), 1..60)) {
        let mut chunk = Chunk::new(5);
        let mut seen = std::collections::HashMap::new();
        for deed in deeds {
            apply(&mut chunk, &deed);
            for run in chunk.runs().iter().filter(|run| run.holder != Holder::Nobody) {
                for at in run.span.first..=run.span.last {
                    let whose = seen.entry((at, run.generation)).or_insert(run.holder.clone());
                    prop_assert_eq!(&*whose, &run.holder);
                }
            }
        }
    }
}

#[test]
fn what_is_picked_was_idle_longest_and_ends_where_the_next_host_begins() {
    let mut chunk = Chunk::new(0);
    let spans = |chunk: &Chunk, within, size| {
        let picked = chunk.pick(within, size);
        picked
            .into_iter()
            .map(|run| (run.span.first, run.span.last))
            .collect::<Vec<_>>()
    };
    let usable = Span {
        first: 1,
        last: 254,
    };
    assert_eq!(spans(&chunk, usable, 16), [(1, 15)]);
    assert_eq!(spans(&chunk, usable, 1024), [(1, 254)]);
    let me = host(1);
    chunk.claim(Span::WHOLE, &me).unwrap();
    for (first, last, idle) in [(8, 15, 900), (30, 33, 100), (64, 64, 1)] {
        chunk.give_back(Span { first, last }, &me, idle).unwrap();
    }
    assert_eq!(spans(&chunk, Span::WHOLE, 1), [(64, 64)]);
    assert_eq!(spans(&chunk, Span::WHOLE, 4), [(64, 64), (30, 31)]);
    assert_eq!(
        spans(
            &chunk,
            Span {
                first: 16,
                last: 29
            },
            4
        ),
        []
    );
    assert_eq!(spans(&chunk, Span::WHOLE, 1024).len(), 3);
}

#[test]
fn runs_that_cannot_be_are_refused() {
    let run = |first, last, generation| Run {
        span: Span { first, last },
        holder: Holder::Pool,
        generation,
        idle: 0,
    };
    for odd in [
        vec![run(5, 4, 1)],
        vec![run(0, CHUNK, 1)],
        vec![run(0, 5, 1), run(5, 6, 1)],
        vec![run(7, 8, 1), run(1, 2, 1)],
        vec![run(0, 1, 3)],
    ] {
        assert!(Chunk::from_runs(2, odd.clone()).is_err(), "{odd:?}");
    }
}
