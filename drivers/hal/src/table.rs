//! An array in memory that a device shares, of a power of two of entries.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;

use volatile::VolatilePtr;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::memory::DmaMemory;

/// The size of a cache line in bytes, where nobody says otherwise.
const LINE: usize = 64;

/// A power of two of entries in [`DmaMemory`], read and written by volatile copies. Every index is taken modulo their number: a running count
/// needs no wrap, no access needs a check, and none is outside.
///
/// ```
/// # use pagewire_hal as hal;
/// # use std::sync::Arc;
/// # fn example(memory: Arc<hal::DmaMemory>) {
/// let words: hal::Table<u16> = hal::Table::new(&memory, 64, 8);
/// words.write(9, 7);
/// assert_eq!(words.read(1), 7);
/// # }
/// ```
pub struct Table<T> {
    first: NonNull<T>,
    mask: usize,
    iova: u64,
    /// Keeps `first` valid.
    _memory: Arc<DmaMemory>,
}

// SAFETY: a pointer into a mapping that the value keeps; all access is by volatile copies, as with `SharedMemory`.
unsafe impl<T: Send> Send for Table<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Table<T> {}

impl<T: FromBytes + IntoBytes + Immutable + Copy> Table<T> {
    /// The `len` entries at `offset` bytes.
    ///
    /// # Panics
    /// When `len` is not a power of two, the table not inside the memory, or `offset` not aligned for the type.
    pub fn new(memory: &Arc<DmaMemory>, offset: usize, len: usize) -> Self {
        assert!(len.is_power_of_two() && offset.is_multiple_of(align_of::<T>()), "{len} entries at {offset:#x}");
        let end = len.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(offset));
        assert!(end.is_some_and(|end| end <= memory.memory().len()), "{len} entries at {offset:#x} of {:#x} bytes", memory.memory().len());
        // SAFETY: inside the mapping, as was just checked.
        let first = unsafe { memory.memory().base().add(offset).cast() };
        Self { first, mask: len - 1, iova: memory.iova() + offset as u64, _memory: Arc::clone(memory) }
    }

    /// How many entries there are.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.mask + 1
    }

    /// The bus address of the first entry.
    pub fn iova(&self) -> u64 {
        self.iova
    }

    /// Writes entry `index` modulo the number of entries.
    #[inline(always)]
    pub fn write(&self, index: usize, value: T) {
        self.entry(index).write(value);
    }

    /// Reads entry `index` modulo the number of entries.
    #[inline(always)]
    pub fn read(&self, index: usize) -> T {
        self.entry(index).read()
    }

    /// [Reads](Self::read) the `count` entries from `index` on, none behind the table's end. It has copies of what it needs, so nothing that a loop over it
    /// writes can have changed it.
    #[inline(always)]
    pub fn run(&self, index: usize, count: usize) -> impl Iterator<Item = T> + use<'_, T> {
        // SAFETY: as in `entry`; the borrow keeps the memory.
        self.places(index, count).map(|place| unsafe { VolatilePtr::new(place) }.read())
    }

    /// Where those are.
    #[inline(always)]
    fn places(&self, index: usize, count: usize) -> impl Iterator<Item = NonNull<T>> + use<T> {
        let index = index & self.mask;
        let first = self.first;
        // SAFETY: below the number of entries.
        (index..index + count.min(self.len() - index)).map(move |index| unsafe { first.add(index) })
    }

    #[inline(always)]
    fn entry(&self, index: usize) -> VolatilePtr<'_, T> {
        // SAFETY: the mask keeps the index below the number of entries, all of which `new` found to be inside the memory, and aligned, since
        // the memory starts at a page. Any bytes are a valid T.
        unsafe { VolatilePtr::new(self.first.add(index & self.mask)) }
    }
}

/// Descriptors of 16 bytes: two little-endian words.
impl Table<[u64; 2]> {
    /// Makes the cache lines that lie wholly in the `count` descriptors from `index` on this processor's, where a device on another one has read
    /// them: by a store to each, of a zero address to a descriptor that nobody may be using. The stores wait for their lines all at once, and the
    /// program goes on meanwhile, where those that write the descriptors later would wait for one after the other. PREFETCHW is there for this, and
    /// does nothing (AMD Zen 4) when the other processor took its copy of the line from this one's second-level cache.
    #[inline(always)]
    pub fn claim(&self, index: usize, count: usize) {
        const A_LINE: usize = LINE / size_of::<[u64; 2]>();
        let index = index & self.mask;
        let (mut at, end) = (index.next_multiple_of(A_LINE), index + count);
        while at + A_LINE <= end {
            self.half(at, 0).write(0);
            at += A_LINE;
        }
    }

    /// Writes a descriptor, its low word first.
    #[inline(always)]
    pub fn write_pair(&self, index: usize, [low, high]: [u64; 2]) {
        self.half(index, 0).write(low.to_le());
        self.half(index, 1).write(high.to_le());
    }

    /// Reads a descriptor's high word at once.
    #[inline(always)]
    pub fn read_high(&self, index: usize) -> u64 {
        u64::from_le(self.half(index, 1).read())
    }

    /// The [high words](Self::read_high) of a [`run`](Self::run).
    #[inline(always)]
    pub fn high_run(&self, index: usize, count: usize) -> impl Iterator<Item = u64> + use<'_> {
        // SAFETY: the second word of an entry, of which `run` tells.
        self.places(index, count).map(|place| u64::from_le(unsafe { VolatilePtr::new(place.cast::<u64>().add(1)) }.read()))
    }

    /// Writes a descriptor's low word alone.
    #[inline(always)]
    pub fn write_low(&self, index: usize, low: u64) {
        self.half(index, 0).write(low.to_le());
    }

    /// Writes a descriptor's high word alone, by one store.
    #[inline(always)]
    pub fn write_high(&self, index: usize, high: u64) {
        self.half(index, 1).write(high.to_le());
    }

    #[inline(always)]
    fn half(&self, index: usize, half: usize) -> VolatilePtr<'_, u64> {
        let pair = self.entry(index).as_raw_ptr().cast::<u64>();
        // SAFETY: one of the entry's two words.
        unsafe { VolatilePtr::new(pair.add(half)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::{Access, DmaError, DmaLimits, DmaSpace, Mapping};
    use crate::{memory::SharedMemory, progress::ProgressBoard, segment::Domain};

    /// A space that maps everything at one address.
    struct Flat(Domain, ProgressBoard);

    impl DmaSpace for Flat {
        fn domain(&self) -> Domain {
            self.0
        }
        fn limits(&self) -> DmaLimits {
            DmaLimits {
                ranges: vec![0..=u64::MAX],
                granule: 4096,
                maps: 1,
                bytes: u64::MAX,
                whole_files: false,
                partial_page: false,
                writable_descriptor: false,
            }
        }
        fn map_memory(&self, memory: &SharedMemory, _: Access) -> Result<Mapping, DmaError> {
            Ok(Mapping::new(self.0, 0x1000, memory.len() as u64))
        }
        fn map_file(&self, _: std::os::fd::BorrowedFd<'_>, _: std::ops::Range<u64>) -> Result<Mapping, DmaError> {
            Err(DmaError::Unsupported("a test".into()))
        }
        fn unmap(&self, _: Mapping) -> Result<(), DmaError> {
            Ok(())
        }
        fn queues(&self) -> &ProgressBoard {
            &self.1
        }
    }

    fn memory() -> Arc<DmaMemory> {
        let space: Arc<dyn DmaSpace> = Arc::new(Flat(Domain::new(), ProgressBoard::new()));
        Arc::new(DmaMemory::new(&space, "test", 4096).unwrap())
    }

    #[test]
    fn every_index_is_inside() {
        let memory = memory();
        let table: Table<u16> = Table::new(&memory, 16, 4);
        assert_eq!((table.iova(), table.len()), (0x1010, 4));
        for index in [1, 5, usize::MAX] {
            table.write(index, index as u16);
            assert_eq!(memory.memory().read::<u16>(16 + 2 * (index % 4)), index as u16);
        }
        assert_eq!(table.read(9), 5);
    }

    #[test]
    fn a_descriptor_is_two_words_that_are_written_together_or_alone() {
        let memory = memory();
        let table: Table<[u64; 2]> = Table::new(&memory, 0, 128);
        table.write_pair(129, [1, 2]);
        assert_eq!(memory.memory().read::<[u64; 2]>(16), [1, 2]);
        table.write_low(1, 3);
        table.write_high(1, 4);
        assert_eq!(memory.memory().read::<[u64; 2]>(16), [3, 4]);
        assert_eq!(table.read_high(129), 4);
        table.write_high(127, 5);
        assert_eq!(table.high_run(127 + 128, 9).collect::<Vec<_>>(), [5], "up to the end");
        assert_eq!(table.high_run(129, 1).collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn lines_are_claimed_that_are_free_as_a_whole() {
        let memory = memory();
        let table: Table<[u64; 2]> = Table::new(&memory, 0, 16);
        let claimed = |index: usize, count: usize| {
            (0..16).for_each(|at| table.write_pair(at, [1, 1]));
            table.claim(index, count);
            assert!((0..16).all(|at| table.read_high(at) == 1), "only addresses are written");
            (0..16).filter(|at| table.read(*at)[0] == 0).collect::<Vec<_>>()
        };
        assert_eq!(claimed(0, 16), [0, 4, 8, 12]);
        assert_eq!(claimed(5, 8), [8]);
        assert_eq!(claimed(14, 7), [0]);
        assert_eq!(claimed(4, 3), []);
        assert_eq!(claimed(16 + 5, 8), [8]);
    }

    #[test]
    #[should_panic(expected = "256 entries at 0x10 of 0x1000 bytes")]
    fn a_table_past_the_end_is_stopped() {
        let _: Table<[u64; 2]> = Table::new(&memory(), 16, 256);
    }
}
