//! Looks out for a disk that stalls.
//!
//! Whoever leads a commit writes in its own thread and does not tell the runtime: being told, that wakes
//! another thread for the tasks of this one, which costs more than the sync of a fast disk. But the runtime's
//! other threads may all sleep, and then nobody looks at sockets and timers until the write is done. Should it
//! take long, one of them is woken from here, and looks at them from then on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Handle;

/// A thread that wakes a runtime whose leader takes long.
#[derive(Debug)]
pub(super) struct Lookout {
    watched: Arc<Watched>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Watched {
    /// Counts beginnings and ends: odd while somebody writes.
    turns: AtomicU64,
    /// Whose thread writes.
    runtime: Mutex<Option<Handle>>,
    /// Nothing was written for long, and the lookout waits to be called.
    asleep: AtomicBool,
    ended: AtomicBool,
}

impl Lookout {
    pub(super) fn start() -> std::io::Result<Self> {
        let watched = Arc::new(Watched::default());
        let seen = Arc::clone(&watched);
        let thread = std::thread::Builder::new()
            .name("netloom-lookout".to_owned())
            .spawn(move || seen.look_out())?;
        Ok(Self {
            watched,
            thread: Some(thread),
        })
    }

    /// Runs a piece of work that blocks this thread of `runtime`. There is one at a time.
    pub(super) fn over<T>(&self, runtime: Handle, work: impl FnOnce() -> T) -> T {
        *self.watched.runtime() = Some(runtime);
        let _turn = Turn::begin(&self.watched);
        if self.watched.asleep.load(Ordering::SeqCst) {
            self.call();
        }
        work()
    }

    fn call(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.watched.ended.store(true, Ordering::SeqCst);
        self.call();
        if let Some(thread) = self.thread.take() {
            // It holds nothing that could be lost.
            drop(thread.join());
        }
    }
}

/// Somebody writes; also over when that panics.
struct Turn<'a>(&'a Watched);

impl<'a> Turn<'a> {
    fn begin(watched: &'a Watched) -> Self {
        watched.turns.fetch_add(1, Ordering::SeqCst);
        Self(watched)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.turns.fetch_add(1, Ordering::SeqCst);
    }
}

impl Watched {
    fn runtime(&self) -> std::sync::MutexGuard<'_, Option<Handle>> {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_out(&self) {
        let (mut before, mut same) = (0, 0);
        while !self.ended.load(Ordering::SeqCst) {
            std::thread::park_timeout(LONG);
            let turns = self.turns.load(Ordering::SeqCst);
            same = if turns == before { same + 1 } else { 0 };
            before = turns;
            if is_under_way(turns) && same == 1 {
                self.wake_runtime();
            }
            if !is_under_way(turns) && same > QUIET_ROUNDS {
                self.sleep(turns);
            }
        }
    }

    /// Any task will do: who is woken for it looks at sockets and timers next.
    fn wake_runtime(&self) {
        let runtime = self.runtime().take();
        if let Some(runtime) = runtime {
            drop(runtime.spawn(async {}));
        }
    }

    fn sleep(&self, turns: u64) {
        self.asleep.store(true, Ordering::SeqCst);
        // Whoever began before it was said did not call.
        if self.turns.load(Ordering::SeqCst) == turns && !self.ended.load(Ordering::SeqCst) {
            std::thread::park();
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}

fn is_under_way(turns: u64) -> bool {
    !turns.is_multiple_of(2)
}

/// Between two looks. A write that takes as long as one or two of them is a stall.
const LONG: Duration = Duration::from_millis(10);
/// Looks that saw nothing before it waits to be called.
const QUIET_ROUNDS: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::yield_now;
    use tokio::time::sleep;

    /// The other threads of the runtime sleep, and the work waits for what comes by a timer; at last with a
    /// lookout that waits to be called.
    #[test]
    fn timers_go_on_while_a_write_stalls() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .expect("a runtime is made");
        let lookout = Arc::new(Lookout::start().expect("a thread is made"));
        for round in 0..=20 {
            while round == 20 && !lookout.watched.asleep.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            let (done, is_done) = std::sync::mpsc::channel();
            let lookout = Arc::clone(&lookout);
            let stalls = runtime.spawn(async move {
                drop(tokio::spawn(async move {
                    sleep(Duration::from_millis(1)).await;
                    done.send(()).expect("it is waited for");
                }));
                yield_now().await;
                let limit = Duration::from_secs(20);
                lookout.over(Handle::current(), || is_done.recv_timeout(limit))
            });
            let ended = runtime.block_on(stalls).expect("nothing panics");
            assert_eq!(
                ended,
                Ok(()),
                "nobody looked after the timer, round {round}"
            );
        }
    }
}
