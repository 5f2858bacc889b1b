//! Group commit by leader and followers.
//!
//! Whoever needs durability first becomes the leader: it writes and syncs, in its own thread, what
//! all callers have queued so far. Those who come meanwhile queue up and wait; one of them leads
//! next. A single caller hands over to nobody.

use super::JournalError;
use super::Upkeep;
use super::frame::{FRAME_HEADER, push_event};
use super::lookout::Lookout;
use super::writer::Writer;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Wake, Waker};
use std::thread::Thread;
use tokio::runtime::{Handle, RuntimeFlavor};

/// How an event's commit ended. The error is shared by all that were in the same frame.
pub type Outcome = Result<(), Arc<JournalError>>;

#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// Locked by the leader alone.
    writer: Mutex<Writer>,
    upkeep: Upkeep,
    frame_events_max: usize,
    /// From the first task on that leads; none where no thread could be started.
    lookout: OnceLock<Option<Lookout>>,
}

#[derive(Debug, Default)]
struct Queue {
    pending: VecDeque<Pending>,
    /// What the leader writes now.
    in_flight: Option<Arc<Batch>>,
    leader: Leader,
    /// Once a frame failed, later events build on what did not happen: all fail alike.
    failed: Option<Arc<JournalError>>,
    /// A buffer to use again, so that a commit allocates none.
    buffer: Vec<u8>,
    /// Events in the last frame.
    last_count: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Leader {
    #[default]
    Nobody,
    AtWork,
}

/// Events that will share a frame.
#[derive(Debug)]
struct Pending {
    batch: Arc<Batch>,
    frame: Vec<u8>,
    count: u32,
}

#[derive(Debug)]
struct Batch(Mutex<BatchState>);

#[derive(Debug)]
struct BatchState {
    outcome: Option<Outcome>,
    waiting: Vec<Waker>,
}

impl Batch {
    /// With room for as many that wait as there were events in the last frame; its leader does not.
    fn with_room(last_count: u32) -> Arc<Self> {
        let others = last_count.saturating_sub(1).min(WAITING_EXPECTED_MAX);
        let waiting = Vec::with_capacity(usize::try_from(others).unwrap_or_default());
        let outcome = None;
        Arc::new(Self(Mutex::new(BatchState { outcome, waiting })))
    }

    fn state(&self) -> MutexGuard<'_, BatchState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outcome(&self) -> Option<Outcome> {
        self.state().outcome.clone()
    }

    fn finish(&self, outcome: Outcome) {
        let waiting = {
            let mut state = self.state();
            state.outcome = Some(outcome);
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Shared {
    pub(super) fn new(writer: Writer, upkeep: Upkeep, frame_events_max: usize) -> Self {
        Self {
            queue: Mutex::default(),
            writer: Mutex::new(writer),
            upkeep,
            frame_events_max,
            lookout: OnceLock::new(),
        }
    }

    pub(super) fn journal(&self) -> u128 {
        self.writer().journal()
    }

    /// Known without a lock: who retires the upkeep holds the writer's until it ended.
    pub(super) fn upkeep(&self) -> Upkeep {
        self.upkeep
    }

    pub(super) fn retire(&self) {
        self.writer().retire();
    }

    pub(super) fn failure(&self) -> Option<Arc<JournalError>> {
        self.queue().failed.clone()
    }

    pub(super) fn append(self: &Arc<Self>, events: &[&[u8]]) -> Result<Ticket, Arc<JournalError>> {
        let mut queue = self.queue();
        if let Some(failure) = &queue.failed {
            return Err(Arc::clone(failure));
        }
        let bytes: usize = events.iter().map(|e| e.len() + 2).sum();
        if bytes > self.frame_events_max {
            return Err(Arc::new(JournalError::TooLarge { bytes }));
        }
        let full = |p: &Pending| p.frame.len() - FRAME_HEADER + bytes > self.frame_events_max;
        if queue.pending.back().is_none_or(full) {
            let mut frame = std::mem::take(&mut queue.buffer);
            frame.clear();
            frame.resize(FRAME_HEADER, 0);
            let batch = Batch::with_room(queue.last_count);
            queue.pending.push_back(Pending {
                batch,
                frame,
                count: 0,
            });
        }
        let pending = queue
            .pending
            .back_mut()
            .expect("there is one, made just now if need be");
        let before = pending.frame.len();
        for event in events {
            if let Err(error) = push_event(&mut pending.frame, event) {
                pending.frame.truncate(before);
                return Err(Arc::new(error));
            }
        }
        pending.count += u32::try_from(events.len()).unwrap_or(u32::MAX);
        Ok(Ticket {
            shared: Arc::clone(self),
            batch: Arc::clone(&pending.batch),
            settled: Settled::No,
            waker: None,
        })
    }

    /// For an answer that adds nothing but builds on what may still be under way.
    pub(super) fn under_way(self: &Arc<Self>) -> Option<Ticket> {
        let queue = self.queue();
        let newest = queue.pending.back().map(|p| &p.batch);
        let batch = Arc::clone(newest.or(queue.in_flight.as_ref())?);
        Some(Ticket {
            shared: Arc::clone(self),
            batch,
            settled: Settled::No,
            waker: None,
        })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the oldest pending frame; none when there is none.
    fn write_one(&self) -> Option<()> {
        let mut pending = {
            let mut queue = self.queue();
            let pending = queue.pending.pop_front()?;
            queue.in_flight = Some(Arc::clone(&pending.batch));
            pending
        };
        let outcome = self.writer().write(&mut pending.frame, pending.count);
        let mut queue = self.queue();
        queue.in_flight = None;
        queue.last_count = pending.count;
        queue.buffer = pending.frame;
        match outcome {
            Ok(()) => {
                drop(queue);
                pending.batch.finish(Ok(()));
            }
            Err(error) => {
                let error = Arc::new(error);
                queue.failed = Some(Arc::clone(&error));
                let rest = std::mem::take(&mut queue.pending);
                drop(queue);
                pending.batch.finish(Err(Arc::clone(&error)));
                for other in rest {
                    other.batch.finish(Err(Arc::clone(&error)));
                }
            }
        }
        Some(())
    }

    /// Runs a short blocking piece of work from a task.
    ///
    /// A thread that tells the runtime hands its tasks over to another one, and may have to wait for a place
    /// when it comes back. Measured without telling: 8 callers on two threads commit half as much again, and
    /// 512 in 8 processes a third.
    fn block<T>(&self, work: impl FnOnce() -> T) -> T {
        match Handle::try_current() {
            Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => {
                let lookout = self.lookout.get_or_init(|| Lookout::start().ok());
                match lookout {
                    Some(lookout) if runtime.metrics().num_workers() > 1 => {
                        lookout.over(runtime, work)
                    }
                    // Everything else would stand still meanwhile.
                    _ => tokio::task::block_in_place(work),
                }
            }
            // A runtime of one thread has nobody to hand over to.
            Ok(_) | Err(_) => work(),
        }
    }

    /// Wakes somebody who waits, for the oldest pending frame as a rule, so that it leads. Nobody
    /// to wake means that the owners have not begun to wait: they will look themselves.
    fn call_a_leader(queue: &Queue) {
        let pending = &mut queue.pending.iter();
        let waiting = pending.find_map(|p| p.batch.state().waiting.pop());
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

/// The right and duty to lead; dropped, it passes on.
struct Leadership {
    shared: Arc<Shared>,
}

impl Leadership {
    /// Whether others are likely to join if one lets them.
    fn is_crowded(&self) -> bool {
        self.shared.queue().last_count > 1
    }

    /// Writes frames until that of `batch` is done.
    fn lead(&self, batch: &Batch) -> Outcome {
        loop {
            if let Some(outcome) = batch.outcome() {
                return outcome;
            }
            self.shared
                .write_one()
                .expect("a batch without an outcome is pending");
        }
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        queue.leader = Leader::Nobody;
        Shared::call_a_leader(&queue);
    }
}

/// Appended events that are not known to be durable yet.
///
/// Dropping it does not take the events back: they become durable with the next frame.
#[derive(Debug)]
#[must_use = "the events are durable only after it was waited for"]
pub struct Ticket {
    shared: Arc<Shared>,
    batch: Arc<Batch>,
    settled: Settled,
    /// What the batch was last given to wake this one by.
    waker: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settled {
    No,
    Yes,
}

enum Turn {
    Done(Outcome),
    Lead(Leadership),
}

impl Ticket {
    /// Waits in this thread.
    ///
    /// # Errors
    /// Why nothing was made durable.
    pub fn wait(mut self) -> Outcome {
        thread_local! {
            static PARKED: RefCell<Option<Waker>> = const { RefCell::new(None) };
        }
        let waker = PARKED.with_borrow_mut(|cached| {
            cached
                .get_or_insert_with(|| Arc::new(Unpark(std::thread::current())).into())
                .clone()
        });
        loop {
            match self.turn(&waker) {
                Poll::Ready(Turn::Done(outcome)) => return outcome,
                Poll::Ready(Turn::Lead(leadership)) => {
                    if leadership.is_crowded() {
                        std::thread::yield_now();
                    }
                    return leadership.lead(&self.batch);
                }
                Poll::Pending => std::thread::park(),
            }
        }
    }

    /// Waits as a task. The leader's write runs in the task's own thread; other threads of the runtime
    /// take over this one's tasks meanwhile, but for the one that this task woke last.
    ///
    /// # Errors
    /// Why nothing was made durable.
    pub async fn durable(mut self) -> Outcome {
        match poll_fn(|context| self.turn(context.waker())).await {
            Turn::Done(outcome) => outcome,
            Turn::Lead(leadership) => {
                if leadership.is_crowded() {
                    tokio::task::yield_now().await;
                }
                self.shared.block(|| leadership.lead(&self.batch))
            }
        }
    }

    fn turn(&mut self, waker: &Waker) -> Poll<Turn> {
        let mut queue = self.shared.queue();
        let mut state = self.batch.state();
        if let Some(outcome) = state.outcome.clone() {
            self.settled = Settled::Yes;
            return Poll::Ready(Turn::Done(outcome));
        }
        if queue.leader == Leader::AtWork {
            if !state.waiting.iter().any(|w| w.will_wake(waker)) {
                state.waiting.push(waker.clone());
            }
            self.waker = Some(waker.clone());
            return Poll::Pending;
        }
        queue.leader = Leader::AtWork;
        self.settled = Settled::Yes;
        Poll::Ready(Turn::Lead(Leadership {
            shared: Arc::clone(&self.shared),
        }))
    }
}

impl Drop for Ticket {
    /// One that was called to lead and goes away passes the call on, and leaves nothing behind by
    /// which it could be called later.
    fn drop(&mut self) {
        if self.settled == Settled::Yes {
            return;
        }
        let queue = self.shared.queue();
        if let Some(waker) = self.waker.take() {
            self.batch
                .state()
                .waiting
                .retain(|other| !other.will_wake(&waker));
            // Another ticket of the same task may have been called by it: that one looks again.
            waker.wake();
        }
        if queue.leader == Leader::Nobody {
            Shared::call_a_leader(&queue);
        }
    }
}

/// One append may bring any number of events.
const WAITING_EXPECTED_MAX: u32 = 256;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
