//! Barriers between memory that a device shares.
//!
//! On x86 loads and stores of coherent DMA memory are ordered by the processor, so [`read()`] and [`write()`] only stop the compiler;
//! elsewhere they are the processor's acquire and release fences. A [`full()`] barrier orders a store before a later load, which no
//! processor does by itself.

use std::sync::atomic::{Ordering, fence};

/// Loads before this come before loads and stores after it: between a completion flag and what it covers.
#[inline(always)]
pub fn read() {
    fence(Ordering::Acquire);
}

/// Stores before this come before stores after it: between descriptors and the doorbell.
#[inline(always)]
pub fn write() {
    fence(Ordering::Release);
}

/// Everything before this comes before everything after it: between publishing an index and reading the peer's event index.
#[inline(always)]
pub fn full() {
    fence(Ordering::SeqCst);
}
