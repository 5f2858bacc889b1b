//! What happened in a run, as a number to compare and as words to read.

use super::random::mix;
use std::sync::{Mutex, PoisonError};
use tokio::time::Instant;

/// The course of one run.
#[derive(Debug)]
pub(crate) struct Trace {
    begun: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(in_words: bool) -> Self {
        let hash = 0;
        let lines = in_words.then(Vec::new);
        let inner = Mutex::new(Inner { hash, lines });
        let begun = Instant::now();
        Self { begun, inner }
    }

    /// Notes something; the words are made only when somebody will read them.
    pub(crate) fn note(&self, what: &'static str, numbers: &[u64], words: impl FnOnce() -> String) {
        let at = self.begun.elapsed();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hash = inner.hash ^ u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        hash = mix(hash);
        for byte in what.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        for number in numbers {
            hash = mix(hash ^ *number);
        }
        inner.hash = hash;
        if let Some(lines) = &mut inner.lines {
            let line = format!("{:>9.3} {what:<12} {}", at.as_secs_f64(), words());
            lines.push(line);
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.hash
    }

    pub(crate) fn take_lines(&self) -> Vec<String> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.lines.take().unwrap_or_default()
    }
}
