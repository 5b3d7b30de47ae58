//! Asking for cache lines ahead of their use.
//!
//! A device that is a program on another processor leaves what it read in that processor's cache. Each store to such a line waits until the line is
//! back, one after the other, since stores come out in order; asked for beforehand, many lines are on their way at once.
#![allow(unsafe_code)]

use std::ptr::NonNull;

/// The size of a cache line in bytes, where nobody says otherwise.
pub(crate) const LINE: usize = 64;

/// Asks for the cache line of `place`, to be written. A hint: any address will do, and nothing is read or written.
#[inline(always)]
pub(crate) fn for_writing<T>(place: NonNull<T>) {
    // SAFETY: prefetches touch nothing that a program can see, and do not fault. PREFETCHW does nothing on processors that do not have it.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) place.as_ptr(), options(nostack, preserves_flags, readonly));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("prfm pstl1keep, [{}]", in(reg) place.as_ptr(), options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = place;
}
