//! A packet buffer.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Core, PoolId};
use crate::prefetch;
use crate::segment::Segment;

/// A packet buffer, owned: nobody else reads or writes it, a device included. Returns to its pool when dropped.
pub struct Buffer {
    core: NonNull<Core>,
    state: State,
}

/// What a buffer knows of itself, in one word: with the pool's address it is two, which are handed on in registers, where four fields would be
/// written to memory one by one and read back as one, for which the processor waits.
///
/// | bits | |
/// |---|---|
/// | 0..32 | its index |
/// | 32..40 | how many bytes before their usual place the data start |
/// | 40 | whether the program wrote data since it was taken |
/// | 48..64 | bytes in use |
#[derive(Clone, Copy)]
struct State(u64);

impl State {
    const INDEX: u64 = u32::MAX as u64;
    const AHEAD: u32 = 32;
    const WRITTEN: u64 = 1 << 40;
    const LEN: u32 = 48;

    #[inline(always)]
    fn index(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    fn ahead(self) -> u8 {
        (self.0 >> Self::AHEAD) as u8
    }

    #[inline(always)]
    fn is_written(self) -> bool {
        self.0 & Self::WRITTEN != 0
    }

    #[inline(always)]
    fn len(self) -> u16 {
        (self.0 >> Self::LEN) as u16
    }

    #[inline(always)]
    fn with_len(self, len: u16) -> Self {
        Self(self.0 & ((1 << Self::LEN) - 1) | u64::from(len) << Self::LEN)
    }

    #[inline(always)]
    fn with_range(self, ahead: u8, len: u16) -> Self {
        Self(self.0 & (Self::INDEX | Self::WRITTEN) | u64::from(ahead) << Self::AHEAD).with_len(len)
    }

    #[inline(always)]
    fn written(self) -> Self {
        Self(self.0 | Self::WRITTEN)
    }
}

// SAFETY: the buffer's bytes belong to it alone, and what it shares with the pool may be used from any thread.
unsafe impl Send for Buffer {}
// SAFETY: through a shared reference there is only reading by copy.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// The most bytes that a prefix has.
    pub const PREFIX: usize = 20;

    /// A free one, empty.
    #[inline(always)]
    pub(super) fn new(core: NonNull<Core>, index: u32) -> Self {
        Self { core, state: State(index.into()) }
    }

    /// The bytes in use.
    #[inline]
    pub fn len(&self) -> usize {
        self.state.len().into()
    }

    /// Whether no bytes are in use.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.state.len() == 0
    }

    /// For a frame's header.
    ///
    /// # Panics
    /// When no bytes are in use.
    #[inline(always)]
    pub(crate) fn expect_bytes(&self) {
        // A function of its own, so that no hot path prepares the message.
        #[cold]
        #[inline(never)]
        fn none() -> ! {
            panic!("a frame's header has bytes")
        }
        if self.is_empty() {
            none();
        }
    }

    /// The size in bytes.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.core().buffer_size as usize + usize::from(self.state.ahead())
    }

    /// For a queue: `N` 32-bit words stand directly in front of the data then, at most [`PREFIX`](Self::PREFIX) bytes; those that stand there
    /// already are not written. Nobody who reads the data sees them, so a shared buffer does. Returns where the prefix starts, relative to the
    /// pool as addresses of segments are.
    #[inline(always)]
    pub fn write_prefix<const N: usize>(&self, words: [u32; N]) -> i64 {
        let start = self.start();
        let first = self.prefix::<N>(start);
        let words = words.map(u32::to_le);
        // SAFETY: inside the headroom and aligned (see `prefix`); atomics, since other threads may do the same.
        let place = |index: usize| unsafe { AtomicU32::from_ptr(first.add(index).as_ptr()) };
        // All of them compared by one branch.
        let difference = (0..N).fold(0, |sum, index| sum | (place(index).load(Ordering::Relaxed) ^ words[index]));
        if difference != 0 {
            (0..N).for_each(|index| place(index).store(words[index], Ordering::Relaxed));
        }
        start as i64 - (N * size_of::<u32>()) as i64
    }

    /// For a queue: reads the `N` words in front of the data that a device has written there.
    #[inline(always)]
    pub fn read_prefix<const N: usize>(&self) -> [u32; N] {
        let first = self.prefix::<N>(self.start());
        // SAFETY: as in `write_prefix`.
        std::array::from_fn(|index| u32::from_le(unsafe { AtomicU32::from_ptr(first.add(index).as_ptr()) }.load(Ordering::Relaxed)))
    }

    /// `N` words in front of the data, which [`start`](Self::start) there.
    #[inline(always)]
    fn prefix<const N: usize>(&self, start: isize) -> NonNull<u32> {
        const { assert!(N * size_of::<u32>() <= Self::PREFIX, "a prefix of at most 20 bytes") };
        // SAFETY: in front of the data are GAP bytes less at most PREFIX by which they start earlier, and the prefix has no more. Data
        // start at a multiple of 4.
        unsafe { self.core().base.offset(start - (N * size_of::<u32>()) as isize).cast() }
    }

    /// For a queue: the data are `len` bytes, and start `ahead` bytes before their usual place, where a prefix would be.
    ///
    /// # Panics
    /// When `ahead` is more than [`PREFIX`](Self::PREFIX) or not a multiple of 4, or the buffer is smaller.
    #[inline]
    pub fn set_range(&mut self, ahead: usize, len: usize) {
        if ahead > Self::PREFIX || !ahead.is_multiple_of(4) || len > self.core().buffer_size as usize + ahead {
            Core::outside(self.core, ahead, len);
        }
        self.state = self.state.with_range(ahead as u8, len as u16);
    }

    /// The content becomes `bytes`.
    ///
    /// # Panics
    /// When they do not fit.
    #[inline]
    pub fn set(&mut self, bytes: &[u8]) {
        self.write(0, bytes);
        self.state = self.state.with_len(bytes.len() as u16);
    }

    /// Writes at `offset` without a change of the length.
    ///
    /// # Panics
    /// When the range passes the buffer's end.
    #[inline]
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        let place = self.place(offset, bytes.len());
        self.state = self.state.written();
        // SAFETY: `place` is inside this buffer for all of `bytes`; nobody else has the buffer, and no reference to the pool's memory exists.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place.as_ptr(), bytes.len()) }
    }

    /// The first `len` bytes are in use.
    ///
    /// # Panics
    /// When the buffer is smaller.
    #[inline]
    pub fn set_len(&mut self, len: usize) {
        if len > self.capacity() {
            Core::outside(self.core, 0, len);
        }
        self.state = self.state.with_len(len as u16);
    }

    /// For a queue: a device has filled a buffer, which is as it was taken from its pool, with `len` bytes, by its own word. `false`, and nothing done,
    /// when that is none, or more than the buffer has.
    #[inline(always)]
    pub fn try_fill(&mut self, len: u32) -> bool {
        debug_assert!(self.state.0 == self.state.index().into(), "a buffer that was used");
        let fits = len.wrapping_sub(1) < self.core().buffer_size;
        if fits {
            self.state = State(self.state.index().into()).with_len(len as u16);
        }
        fits
    }

    /// For a queue: word `WORD` of the `N` that [`read_prefix`](Self::read_prefix) reads, of a buffer as it was taken from its pool.
    #[inline(always)]
    pub fn prefix_word<const N: usize, const WORD: usize>(&self) -> u32 {
        const { assert!(WORD < N, "one of the words") };
        let first = self.prefix::<N>(self.state.index() as isize * self.core().stride);
        // SAFETY: as in `write_prefix`; one of those words.
        u32::from_le(unsafe { AtomicU32::from_ptr(first.add(WORD).as_ptr()) }.load(Ordering::Relaxed))
    }

    /// For a queue: asks for the line in which headers usually are, to be read soon.
    #[inline(always)]
    pub fn fetch(&self) {
        let core = self.core();
        // SAFETY: where the data of a buffer usually start, inside the pool's memory.
        prefetch::for_reading(unsafe { core.base.offset(self.state.index() as isize * core.stride) });
    }

    /// Copies from `offset` on into `bytes`.
    ///
    /// # Panics
    /// When the range passes the buffer's end.
    #[inline]
    pub fn read(&self, offset: usize, bytes: &mut [u8]) {
        let place = self.place(offset, bytes.len());
        // SAFETY: as in `write`.
        unsafe { std::ptr::copy_nonoverlapping(place.as_ptr(), bytes.as_mut_ptr(), bytes.len()) }
    }

    /// The bytes in use as a segment, relative to the pool; `None` when there are none.
    #[inline]
    pub(crate) fn segment<'w>(&self) -> Option<Segment<'w>> {
        (!self.is_empty()).then(|| Segment::new(self.core().domain, self.start() as u64, self.state.len().into()))
    }

    /// The whole buffer as a place to receive into, relative to the pool.
    #[inline]
    pub(crate) fn room(&self) -> Segment<'static> {
        Segment::new(self.core().domain, self.start() as u64, self.core().buffer_size)
    }

    /// Where its data start, in bytes from the usual place of the first buffer's.
    #[inline(always)]
    fn start(&self) -> isize {
        self.start_by(self.core().stride)
    }

    /// The same with the pool's [stride](PoolMapping::stride), known from elsewhere.
    #[inline(always)]
    pub(crate) fn start_by(&self, stride: isize) -> isize {
        self.state.index() as isize * stride - isize::from(self.state.ahead())
    }

    /// The address of `len` bytes from `offset` on.
    #[inline(always)]
    fn place(&self, offset: usize, len: usize) -> NonNull<u8> {
        let size = self.capacity();
        if offset > size || len > size - offset {
            Core::outside(self.core, offset, len);
        }
        // SAFETY: the buffer is inside the pool's memory, and the range was checked to be inside the buffer.
        unsafe { self.core().base.offset(self.start() + offset as isize) }
    }

    /// Gives the buffers of many owners back at once: one atomic operation for all neighbours of one pool. The vector keeps its memory. With
    /// `CLAIM` a device on another processor has read the buffers: those that were written will be written again, so their first lines are made this
    /// processor's, by a store that nobody waits for (as [`Table::claim`](crate::Table::claim)).
    #[inline]
    pub(crate) fn give_back<T, const CLAIM: bool>(owners: &mut Vec<T>, buffer: impl Fn(&T) -> &Buffer) {
        let len = owners.len();
        // From here on the buffers are in the care of `give_chain`.
        // SAFETY: no more than there were; what is cut off is given back below, not dropped.
        unsafe { owners.set_len(0) };
        // SAFETY: `len` owners are still there, since nobody writes to the vector before this returns.
        let mut buffers = unsafe { std::slice::from_raw_parts(owners.as_ptr(), len) }.iter().map(buffer);
        let mut next = buffers.next();
        while let Some(&Self { core, state }) = next {
            // SAFETY: its buffers are out, so the core lives until `give_chain`, behind which none of this is used.
            let Core { free, base, stride, .. } = unsafe { core.as_ref() };
            // Copies, which stay in registers.
            let (base, stride, links) = (*base, *stride, free.links());
            let claim = |state: State| {
                if CLAIM && state.is_written() {
                    // SAFETY: where the data of one of its buffers usually start, inside the pool's memory, aligned; the buffer is ours yet.
                    unsafe { base.offset(state.index() as isize * stride).cast::<u64>().write_volatile(0) }
                }
            };
            claim(state);
            let (mut first, last) = (state.index(), state.index());
            next = buffers.find(|buffer| {
                if buffer.core == core {
                    claim(buffer.state);
                    links.link(buffer.state.index(), first);
                    first = buffer.state.index();
                }
                buffer.core != core
            });
            Core::give_chain(core, first, last);
        }
    }

    /// Names the buffer's pool, for comparison.
    #[inline(always)]
    pub(crate) fn pool(&self) -> PoolId {
        PoolId(self.core.as_ptr() as usize)
    }

    #[inline(always)]
    fn core(&self) -> &Core {
        // SAFETY: freed only when no buffer is out.
        unsafe { self.core.as_ref() }
    }
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        Core::give_chain(self.core, self.state.index(), self.state.index());
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({}, {} bytes)", self.state.index(), self.len())
    }
}
