//! Barriers between memory that a device shares.
//!
//! On x86 loads and stores of coherent DMA memory are ordered by the processor, so [`read()`] and [`write()`] only stop the compiler;
//! elsewhere they are the processor's acquire and release fences. A [`full()`] barrier orders a store before a later load, which no
//! processor does by itself.

#![allow(unsafe_code)]

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
    // As Linux' smp_mb() and DPDK's rte_smp_mb(): a locked addition orders ordinary memory as MFENCE does, and takes half the time.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: adds nothing to the word that the stack pointer is at, which is this thread's own.
    unsafe {
        std::arch::asm!("lock add dword ptr [rsp], 0", options(nostack))
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    fence(Ordering::SeqCst);
}

/// For whom memory is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A device that is a program on another processor, or coherent as the functions of this module take it.
    Processors,
    /// A device of hardware, which on some platforms sees loads and stores in another order than processors do (VIRTIO_F_ORDER_PLATFORM).
    Platform,
}

impl Order {
    /// As [`read()`].
    #[inline(always)]
    pub fn read(self) {
        match self {
            Self::Processors => read(),
            Self::Platform => platform::read(),
        }
    }

    /// As [`write()`].
    #[inline(always)]
    pub fn write(self) {
        match self {
            Self::Processors => write(),
            Self::Platform => platform::write(),
        }
    }

    /// As [`full()`].
    #[inline(always)]
    pub fn full(self) {
        match self {
            Self::Processors => full(),
            Self::Platform => platform::full(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod platform {
    // Not on this one: accesses to ordinary memory (write-back, as DMA memory is) are seen in the order that processors see them. Linux' dma_rmb() and
    // dma_wmb() only stop the compiler, too (arch/x86/include/asm/barrier.h).
    pub use super::{read, write};

    /// As Linux' mb().
    #[inline(always)]
    pub fn full() {
        // SAFETY: the instruction is part of SSE2, which every x86-64 processor has, and touches nothing.
        unsafe { std::arch::x86_64::_mm_mfence() }
    }
}

#[cfg(target_arch = "aarch64")]
mod platform {
    use std::arch::asm;

    #[inline(always)]
    pub fn read() {
        // SAFETY: a barrier for the outer shareable domain; touches nothing.
        unsafe { asm!("dmb oshld", options(nostack, preserves_flags)) }
    }

    #[inline(always)]
    pub fn write() {
        // SAFETY: as above.
        unsafe { asm!("dmb oshst", options(nostack, preserves_flags)) }
    }

    #[inline(always)]
    pub fn full() {
        // SAFETY: as above.
        unsafe { asm!("dmb osh", options(nostack, preserves_flags)) }
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod platform {
    pub use super::{full, full as read, full as write};
}
