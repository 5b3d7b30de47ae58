//! The bus addresses of one space: which are free.
//!
//! First fit over ranges that are kept sorted and never touch one another. Mapping is not on the hot path, and there are at most 65,536
//! maps in a container.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// How many bits of an address a device drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressWidth {
    /// Below 4 GiB: conventional PCI devices such as the 8254x.
    Bits32,
    /// All: PCI Express devices.
    Bits64,
}

impl AddressWidth {
    fn last(self) -> u64 {
        match self {
            Self::Bits32 => u32::MAX.into(),
            Self::Bits64 => u64::MAX,
        }
    }
}

/// Where a range has to lie: at `phase` modulo `modulus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// A power of two.
    pub modulus: u64,
    /// Below `modulus`, and a multiple of the granule.
    pub phase: u64,
}

/// Hands out bus addresses inside the ranges that the kernel reports.
#[derive(Debug)]
pub struct IovaAllocator {
    /// First to last address of each free range. Inclusive, since a range may end at the last address there is.
    free: BTreeMap<u64, u64>,
    granule: u64,
}

impl IovaAllocator {
    /// All of `ranges` that a device of this width reaches, in whole granules (a power of two). The granule at address 0 is left out:
    /// devices and drivers take 0 for "nothing".
    pub fn new(ranges: &[RangeInclusive<u64>], granule: u64, width: AddressWidth) -> Self {
        debug_assert!(granule.is_power_of_two());
        let mut allocator = Self { free: BTreeMap::new(), granule };
        let mut ranges: Vec<_> = ranges.iter().collect();
        ranges.sort_by_key(|range| *range.start());
        // The granule at 0 counts as taken, and ranges that overlap are one.
        let mut taken = granule - 1;
        for range in ranges {
            let Some(start) = (*range.start()).max(taken.saturating_add(1)).checked_next_multiple_of(granule) else { continue };
            // The last whole granule: `end + 1` may not be representable.
            let last = (*range.end()).min(width.last());
            let end = if last & (granule - 1) == granule - 1 { Some(last) } else { (last & !(granule - 1)).checked_sub(1) };
            if let Some(end) = end.filter(|end| *end > start) {
                allocator.insert(start, end);
                taken = end;
            }
        }
        allocator
    }

    /// The first address of a free range of `len` bytes (rounded up to whole granules) that lies as `alignment` says; `None` when there is
    /// none.
    pub fn allocate(&mut self, len: u64, alignment: Alignment) -> Option<u64> {
        let len = len.max(1).checked_next_multiple_of(self.granule)?;
        let modulus = alignment.modulus.max(self.granule);
        let (start, end, at) = self.free.iter().find_map(|(&start, &end)| {
            let at = start.checked_add(alignment.phase.wrapping_sub(start) & (modulus - 1))?;
            (at <= end && end - at >= len - 1).then_some((start, end, at))
        })?;
        self.free.remove(&start);
        if at > start {
            self.free.insert(start, at - 1);
        }
        if end - at > len - 1 {
            self.free.insert(at + len, end);
        }
        Some(at)
    }

    /// Gives back what [`allocate`](Self::allocate) handed out for `len` bytes.
    pub fn release(&mut self, start: u64, len: u64) {
        let len = len.max(1).next_multiple_of(self.granule);
        self.insert(start, start + (len - 1));
    }

    fn insert(&mut self, mut start: u64, mut end: u64) {
        if let Some((&before, &last)) = self.free.range(..=start).next_back() {
            debug_assert!(last < start, "{start:#x} is free already");
            if last.checked_add(1) == Some(start) {
                start = before;
            }
        }
        if let Some(after) = end.checked_add(1)
            && let Some(last) = self.free.remove(&after)
        {
            end = last;
        }
        self.free.insert(start, end);
    }

    /// How many bytes are free, as far as 64 bits hold the number.
    pub fn free_bytes(&self) -> u64 {
        self.free.iter().fold(0, |sum: u64, (start, end)| sum.saturating_add((end - start).saturating_add(1)))
    }

    /// How many free ranges there are.
    pub fn fragments(&self) -> usize {
        self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: u64 = 4096;
    const HUGE: u64 = 2 << 20;
    const PAGES: Alignment = Alignment { modulus: PAGE, phase: 0 };

    fn x86() -> Vec<RangeInclusive<u64>> {
        vec![0..=0xfedf_ffff, 0xfef0_0000..=(1 << 39) - 1]
    }

    #[test]
    fn address_zero_and_the_interrupt_window_are_never_handed_out() {
        let mut allocator = IovaAllocator::new(&x86(), PAGE, AddressWidth::Bits32);
        let mut seen = Vec::new();
        while let Some(at) = allocator.allocate(0x100_0000, PAGES) {
            assert!(at > 0 && (at + 0xff_ffff < 0xfee0_0000 || at >= 0xfef0_0000) && at + 0xff_ffff <= u64::from(u32::MAX), "{at:#x}");
            seen.push(at);
        }
        assert_eq!(seen.len(), 0xfe + 1);
    }

    #[test]
    fn a_range_to_the_last_address_does_not_overflow() {
        let mut allocator = IovaAllocator::new(&[0..=u64::MAX], PAGE, AddressWidth::Bits64);
        assert_eq!(allocator.free_bytes(), u64::MAX - PAGE + 1);
        let at = allocator.allocate(u64::MAX - 2 * PAGE, PAGES).unwrap();
        assert_eq!(at, PAGE);
        allocator.release(at, u64::MAX - 2 * PAGE);
        assert_eq!(allocator.fragments(), 1);
        assert!(allocator.allocate(u64::MAX, PAGES).is_none());
    }

    #[test]
    fn ranges_without_a_whole_granule_hold_nothing() {
        let mut allocator = IovaAllocator::new(&[0x1800..=0x27ff, 0x3000..=0x3ffe, 0x5000..=0x5fff], PAGE, AddressWidth::Bits64);
        assert_eq!((allocator.allocate(1, PAGES), allocator.allocate(1, PAGES)), (Some(0x5000), None));
    }

    #[test]
    fn ranges_that_overlap_are_counted_once() {
        let allocator = IovaAllocator::new(&[0x4000..=0x8fff, 0x1000..=0x5fff, 0x2000..=0x2fff], PAGE, AddressWidth::Bits64);
        assert_eq!((allocator.free_bytes(), allocator.fragments()), (0x8000, 1));
    }

    #[test]
    fn a_large_file_window_lies_as_its_pages_do() {
        let mut allocator = IovaAllocator::new(&x86(), PAGE, AddressWidth::Bits64);
        let at = allocator.allocate(4 * HUGE, Alignment { modulus: HUGE, phase: 0x3000 }).unwrap();
        assert_eq!(at % HUGE, 0x3000);
        let before = allocator.allocate(PAGE, PAGES).unwrap();
        assert!(before < at, "the gap in front is used too");
    }

    proptest! {
        #[test]
        fn what_is_handed_out_never_overlaps_and_all_comes_back(steps in prop::collection::vec((any::<bool>(), 1..5 * HUGE, 0..512_u64, any::<prop::sample::Index>()), 1..200)) {
            let ranges = [0..=0x0fff_ffff, 0x2000_0000..=0x23ff_ffff, 0x2400_0000..=0x2400_1fff];
            let mut allocator = IovaAllocator::new(&ranges, PAGE, AddressWidth::Bits32);
            let (bytes, fragments) = (allocator.free_bytes(), allocator.fragments());
            let mut held: Vec<(u64, u64)> = Vec::new();
            for (take, len, phase, which) in steps {
                if take || held.is_empty() {
                    let alignment = if len >= HUGE { Alignment { modulus: HUGE, phase: phase * PAGE } } else { PAGES };
                    if let Some(at) = allocator.allocate(len, alignment) {
                        let end = at + len.next_multiple_of(PAGE);
                        prop_assert_eq!(at & (alignment.modulus - 1), alignment.phase);
                        prop_assert!(at > 0 && ranges.iter().any(|range| range.contains(&at) && range.contains(&(end - 1)))
                            || (at >= 0x2000_0000 && end <= 0x2400_2000), "{:#x}", at);
                        prop_assert!(held.iter().all(|(start, len)| end <= *start || start + len.next_multiple_of(PAGE) <= at));
                        held.push((at, len));
                    }
                } else {
                    let (at, len) = held.swap_remove(which.index(held.len()));
                    allocator.release(at, len);
                }
                let out: u64 = held.iter().map(|(_, len)| len.next_multiple_of(PAGE)).sum();
                prop_assert_eq!(allocator.free_bytes() + out, bytes);
            }
            for (at, len) in held {
                allocator.release(at, len);
            }
            prop_assert_eq!((allocator.free_bytes(), allocator.fragments()), (bytes, fragments));
        }
    }
}
