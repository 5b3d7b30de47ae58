//! A piece of memory that a device reads: the unit of gathering.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};

/// Names what an address is relative to: one DMA space's bus addresses, or the offsets of one buffer pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Domain(u32);

impl Domain {
    /// Equal to no domain that [`new`](Self::new) makes.
    pub(crate) const NONE: Self = Self(0);

    /// A domain that no other one equals in this process.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Default for Domain {
    fn default() -> Self {
        Self::new()
    }
}

/// A range that a device may read: (address, length) in a [`Domain`].
///
/// It can only be made from what is mapped ([`Mapping::segment`](crate::Mapping::segment)) or from a pool's buffer, which both check
/// the range, so it carries the proof that the address is good; a queue only compares the domain. The lifetime keeps the mapping from
/// being retired before the segment is posted; after that the queue's [progress](crate::progress) keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'w> {
    address: u64,
    len: u32,
    domain: Domain,
    window: PhantomData<&'w ()>,
}

impl Segment<'_> {
    /// The caller has checked that `len` bytes at `address` are mapped in `domain`.
    pub(crate) fn new(domain: Domain, address: u64, len: u32) -> Self {
        Self { address, len, domain, window: PhantomData }
    }

    /// The address, in the terms of [`domain`](Self::domain).
    #[inline(always)]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The length in bytes.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)] // an empty segment cannot be made
    pub fn len(&self) -> u32 {
        self.len
    }

    /// What the address is relative to.
    #[inline(always)]
    pub fn domain(&self) -> Domain {
        self.domain
    }
}
