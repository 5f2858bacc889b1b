//! Counts what a thread takes from the heap.
//!
//! The only unsafe code of the benches: a global allocator cannot be written without. It adds to two
//! counters and hands every call on to the system's allocator unchanged.
#![allow(
    unsafe_code,
    reason = "GlobalAlloc is an unsafe trait; both of its duties are delegated"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    // Constant and without a destructor, so that reading them allocates nothing.
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

/// How often this thread asked for memory since it began.
pub(crate) fn calls() -> u64 {
    CALLS.get()
}

/// Bytes that this thread took and did not give back.
pub(crate) fn bytes() -> i64 {
    BYTES.get()
}

fn count(calls: u64, bytes: i64) {
    CALLS.set(CALLS.get() + calls);
    BYTES.set(BYTES.get() + bytes);
}

/// No block is larger than `i64::MAX` bytes: `Layout` forbids it.
fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

struct Counting;

// SAFETY: every method hands its arguments to `System` as they came and returns what it returned,
// so `System`'s guarantees are this allocator's. Counting touches thread-local cells only and can
// neither allocate nor unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, signed(layout.size()));
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(0, -signed(layout.size()));
        // SAFETY: `ptr` came from `System` through this allocator, with this `layout`.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, signed(layout.size()));
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(1, signed(new_size) - signed(layout.size()));
        // SAFETY: `ptr` came from `System` through this allocator, with this `layout`, and the
        // caller's promises about `new_size` are passed on.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

#[cfg(test)]
mod tests {
    #[test]
    fn a_box_is_one_call_and_its_bytes() {
        let (calls, bytes) = (super::calls(), super::bytes());
        let held = std::hint::black_box(Box::new([0_u8; 100]));
        assert_eq!((super::calls() - calls, super::bytes() - bytes), (1, 100));
        drop(held);
        assert_eq!(super::bytes(), bytes);
    }
}
