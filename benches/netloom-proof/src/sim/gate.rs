//! A process that can be stopped, continued and killed: its futures run only while it does.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The process died before the future was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Died;

/// One process.
#[derive(Debug, Default)]
pub(crate) struct Gate(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: State,
    /// Who is to be woken when that changes, by number.
    wakers: BTreeMap<u64, Waker>,
    next: u64,
    /// How often it was stopped.
    pauses: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Running,
    Paused,
    Dead,
}

impl Gate {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, state: State) {
        let mut inner = self.inner();
        if inner.state == State::Dead {
            return;
        }
        inner.state = state;
        inner.pauses += u64::from(state == State::Paused);
        let wakers: Vec<Waker> = inner.wakers.values().cloned().collect();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn pause(&self) {
        self.enter(State::Paused);
    }

    pub(crate) fn resume(&self) {
        self.enter(State::Running);
    }

    pub(crate) fn kill(&self) {
        self.enter(State::Dead);
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.inner().state == State::Paused
    }

    pub(crate) fn pauses(&self) -> u64 {
        self.inner().pauses
    }

    /// Runs `future` as a part of the process.
    pub(crate) fn run<F: Future>(self: &Arc<Self>, future: F) -> Gated<F> {
        let mut inner = self.inner();
        inner.next += 1;
        Gated {
            number: inner.next,
            gate: Arc::clone(self),
            future: Some(Box::pin(future)),
        }
    }
}

/// A future of a process.
pub(crate) struct Gated<F> {
    gate: Arc<Gate>,
    number: u64,
    future: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Gated<F> {
    type Output = Result<F::Output, Died>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let state = {
            let mut inner = this.gate.inner();
            let known = inner.wakers.get(&this.number);
            if known.is_none_or(|waker| !waker.will_wake(context.waker())) {
                inner.wakers.insert(this.number, context.waker().clone());
            }
            inner.state
        };
        match (state, &mut this.future) {
            (State::Dead, future) => {
                *future = None;
                Poll::Ready(Err(Died))
            }
            (State::Paused, _) | (State::Running, None) => Poll::Pending,
            (State::Running, Some(future)) => future.as_mut().poll(context).map(Ok),
        }
    }
}

impl<F> Drop for Gated<F> {
    fn drop(&mut self) {
        self.gate.inner().wakers.remove(&self.number);
    }
}
