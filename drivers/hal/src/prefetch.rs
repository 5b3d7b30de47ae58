//! Asking for cache lines ahead of their use.
//!
//! A device that is a program on another processor leaves what it wrote in that processor's cache. Asked for beforehand, many lines are on their
//! way at once. For lines that are to be *written* see [`Table::claim`](crate::Table::claim).
#![allow(unsafe_code)]

use std::ptr::NonNull;

/// Asks for the cache line of `place`, to be read. A hint: any address will do, and nothing is read or written.
#[inline(always)]
pub(crate) fn for_reading<T>(place: NonNull<T>) {
    // SAFETY (both): prefetches touch nothing that a program can see, and do not fault.
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as above.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(place.as_ptr().cast())
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) place.as_ptr(), options(nostack, preserves_flags, readonly))
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = place;
}
