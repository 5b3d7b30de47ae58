//! Packet buffers in one piece of shared memory.
//!
//! One thread takes buffers from a [`Pool`]; a [`Buffer`] returns when it is dropped, on whichever thread that happens. The memory can be
//! mapped in any number of spaces: a buffer knows its offset in the pool, a queue adds where its own space has the pool
//! ([`PoolMapping`]). So a frame that one NIC received can be sent by another without a copy.
//!
//! A buffer that is posted belongs to the ring (the fbuf rule): it is moved into the queue and cannot be changed until the queue drops it
//! or hands it back.
//!
//! In front of each buffer's data is room for what a transport puts there, a virtio header for one ([`Buffer::write_prefix`]), so that it and
//! the data are one piece for the device. Data start 20 bytes into a cache line: 12 bytes of such a header and 42 bytes of Ethernet, IPv4 and
//! UDP headers are written in one line then, and neighbouring buffers fall into different sets of the cache.
//!
//! Neither a take nor a return touches a reference count: the pool counts at its own end what is still out, and the last buffer to
//! come back then frees the memory.
#![allow(unsafe_code)]

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use crate::free_list::{Chain, FreeList};
use crate::memory::SharedMemory;
use crate::prefetch;
use crate::segment::{Domain, Segment};
use crate::space::{Access, DmaError, DmaSpace, Mapping};

/// Bytes in front of a buffer's data: a prefix, in front of data that begin in the place of one.
const HEADROOM: usize = 2 * Buffer::PREFIX;
/// Bytes from one buffer's data to the next one's, besides the buffer itself: headroom, rounded up to whole cache lines.
const GAP: usize = 64;
/// Where the first buffer's data start.
const FIRST: usize = GAP + Buffer::PREFIX;

/// How a [`Pool`] is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// How many buffers, 1 to 1,048,576.
    pub buffers: u32,
    /// The size of a buffer in bytes: a power of two from 64 to 32,768. The default, 2048, holds a frame of 1518 bytes.
    pub buffer_size: u16,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { buffers: 2048, buffer_size: 2048 }
    }
}

/// A pool of equal buffers. One thread takes from it.
///
/// ```
/// # use pagewire_hal as hal;
/// use hal::{Pool, PoolConfig};
/// let mut pool = Pool::new(PoolConfig { buffers: 1, ..Default::default() })?;
/// let mut buffer = pool.take().unwrap();
/// buffer.set(b"header");
/// assert!(pool.take().is_none());
/// std::thread::spawn(move || drop(buffer)).join().unwrap();
/// assert!(pool.take().is_some());
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Pool {
    core: NonNull<Core>,
    chain: Chain,
}

/// What the buffers share with their pool; freed when the pool is dropped and all buffers are back.
struct Core {
    free: FreeList,
    /// Where the first buffer's data start.
    base: NonNull<u8>,
    domain: Domain,
    buffer_size: u32,
    /// From one buffer to the next, in bytes; as wide as what it is multiplied with.
    stride: isize,
    memory: SharedMemory,
    buffers: u32,
    /// How often the pool was attached.
    attached: AtomicI64,
    /// Buffers that come back after the pool was dropped, and attachments that end, count down; the pool adds, as it goes, how many there are
    /// to wait for.
    orphans: AtomicI64,
}

// SAFETY: a Pool is the only taker; everything behind `core` may be used from any thread (SharedMemory, FreeList and atomics are Sync).
unsafe impl Send for Pool {}

impl Pool {
    /// A pool on huge pages where there are any.
    ///
    /// # Errors
    /// `InvalidInput` for a configuration outside its ranges; otherwise what the system said.
    pub fn new(config: PoolConfig) -> io::Result<Self> {
        let PoolConfig { buffers, buffer_size } = config;
        if !(1..=1 << 20).contains(&buffers) || !(64..=32_768).contains(&buffer_size) || !buffer_size.is_power_of_two() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a pool of {buffers} buffers of {buffer_size} bytes (1 to 1048576 buffers, a power of two from 64 to 32768 bytes)"),
            ));
        }
        let stride = usize::from(buffer_size) + GAP;
        let memory = SharedMemory::with_huge_pages("pagewire-pool", FIRST - HEADROOM + buffers as usize * stride)?;
        let (free, chain) = FreeList::full(buffers);
        // SAFETY: inside the memory, which is longer.
        let base = unsafe { memory.base().add(FIRST) };
        let core = Box::new(Core {
            free,
            base,
            domain: Domain::new(),
            buffer_size: buffer_size.into(),
            stride: stride as isize,
            memory,
            buffers,
            attached: AtomicI64::new(0),
            orphans: AtomicI64::new(0),
        });
        Ok(Self { core: NonNull::from(Box::leak(core)), chain })
    }

    /// A free buffer, empty; `None` when all are out.
    #[inline]
    pub fn take(&mut self) -> Option<Buffer> {
        let core = self.core;
        // SAFETY: as in `core`; borrowed by hand, since `chain` is borrowed too.
        let free = unsafe { &core.as_ref().free };
        free.take(&mut self.chain).map(|index| Buffer { core, index, len: 0, ahead: 0 })
    }

    /// The size of each buffer in bytes.
    pub fn buffer_size(&self) -> usize {
        self.core().buffer_size as usize
    }

    /// How many buffers there are, in and out.
    pub fn buffers(&self) -> u32 {
        self.core().buffers
    }

    /// Whether the pool lies on huge pages.
    pub fn huge_pages(&self) -> bool {
        self.core().memory.huge_pages()
    }

    /// Maps the pool for the devices of `space`, readable and writable. Give the result to the queues that shall use it.
    ///
    /// # Errors
    /// The space's [`DmaError`].
    pub fn attach(&self, space: &Arc<dyn DmaSpace>) -> Result<PoolMapping, DmaError> {
        let mapping = space.map_memory(&self.core().memory, Access::ReadWrite)?;
        let (domain, base) = (self.core().domain, mapping.iova() + FIRST as u64);
        self.core().attached.fetch_add(1, Ordering::Relaxed);
        Ok(PoolMapping(Arc::new(Attached { core: self.core, domain, base, mapping: Some(mapping), space: Arc::clone(space) })))
    }

    fn core(&self) -> &Core {
        // SAFETY: freed only by `Core::release`, after this Pool was dropped.
        unsafe { self.core.as_ref() }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let core = self.core();
        let out = core.buffers - core.free.close(&self.chain);
        let attached = core.attached.load(Ordering::Relaxed);
        Core::release(self.core, i64::from(out) + attached);
    }
}

impl Core {
    /// A function of its own, which asks for what it says, so that no hot path prepares the message. The caller has a buffer of this core.
    #[cold]
    #[inline(never)]
    fn outside(core: NonNull<Self>, offset: usize, len: usize) -> ! {
        // SAFETY: a buffer is out, so the core lives.
        let size = unsafe { core.as_ref() }.buffer_size;
        panic!("{len} bytes at {offset} of a buffer of {size}")
    }

    /// Gives back the chain from `first` to `last`, all of them buffers that are out. Never inlined: a drop is a call with values, so that a
    /// buffer need not be in memory.
    #[inline(never)]
    fn give_chain(core: NonNull<Self>, first: u32, last: u32) {
        // SAFETY: the buffers of the chain are out, so the core lives.
        let free = unsafe { &core.as_ref().free };
        if free.give_chain(first, last).is_err() {
            Self::release(core, -free.chain_len(first, last));
        }
    }

    /// The pool adds the buffers that are out and how often it was attached; each of them, coming back later, subtracts one. Whoever makes
    /// it zero *after the pool added* is the last: before that, only negative numbers occur.
    fn release(core: NonNull<Self>, change: i64) {
        // SAFETY: the caller holds a buffer, an attachment or the pool, which the count includes, so nobody has freed it.
        let before = unsafe { core.as_ref() }.orphans.fetch_add(change, Ordering::AcqRel);
        if before + change == 0 {
            // SAFETY: made by Box::leak in `Pool::new`; the pool, all buffers and attachments are gone, so this is the only pointer.
            drop(unsafe { Box::from_raw(core.as_ptr()) });
        }
    }
}

/// A packet buffer, owned: nobody else reads or writes it, a device included. Returns to its pool when dropped.
pub struct Buffer {
    core: NonNull<Core>,
    index: u32,
    len: u16,
    /// How far before their usual place the data start.
    ahead: u16,
}

// SAFETY: the buffer's bytes belong to it alone, and what it shares with the pool may be used from any thread.
unsafe impl Send for Buffer {}
// SAFETY: through a shared reference there is only reading by copy.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// The most bytes that a prefix has.
    pub const PREFIX: usize = 20;

    /// The bytes in use.
    #[inline]
    pub fn len(&self) -> usize {
        self.len.into()
    }

    /// Whether no bytes are in use.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The size in bytes.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.core().buffer_size as usize + usize::from(self.ahead)
    }

    /// For a queue: writes `N` 32-bit words directly in front of the data, at most [`PREFIX`](Self::PREFIX) bytes. Nobody who reads the data sees
    /// them, so a shared buffer does. Returns where the prefix starts, relative to the pool as addresses of segments are.
    #[inline(always)]
    pub fn write_prefix<const N: usize>(&self, words: [u32; N]) -> i64 {
        let start = self.start();
        let first = self.prefix::<N>(start);
        for (index, word) in words.into_iter().enumerate() {
            // SAFETY: inside the headroom and aligned (see `prefix`); an atomic, since other threads may do the same.
            unsafe { AtomicU32::from_ptr(first.add(index).as_ptr()) }.store(word.to_le(), Ordering::Relaxed);
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
        // SAFETY: in front of the data are HEADROOM bytes less at most PREFIX by which they start earlier, and the prefix has no more. Data
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
        self.ahead = ahead as u16;
        self.len = len as u16;
    }

    /// The content becomes `bytes`.
    ///
    /// # Panics
    /// When they do not fit.
    #[inline]
    pub fn set(&mut self, bytes: &[u8]) {
        self.write(0, bytes);
        self.len = bytes.len() as u16;
    }

    /// Writes at `offset` without a change of the length.
    ///
    /// # Panics
    /// When the range passes the buffer's end.
    #[inline]
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        let place = self.place(offset, bytes.len());
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
        self.len = len as u16;
    }

    /// For a queue: as [`set_len`](Self::set_len), for a length that a device says. `false`, and nothing done, when the buffer is smaller.
    #[inline(always)]
    pub fn try_set_len(&mut self, len: u32) -> bool {
        let fits = len as usize <= self.capacity();
        if fits {
            self.len = len as u16;
        }
        fits
    }

    /// For a queue: asks for the line in which headers usually are, to be written or read soon.
    #[inline(always)]
    pub fn fetch(&self) {
        let core = self.core();
        // SAFETY: where the data of a buffer usually start, inside the pool's memory.
        prefetch::for_writing(unsafe { core.base.offset(self.index as isize * core.stride) });
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
        (self.len != 0).then(|| Segment::new(self.core().domain, self.start() as u64, self.len.into()))
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
        self.index as isize * stride - self.ahead as isize
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

    /// Gives the buffers of many owners back at once: one atomic operation for all neighbours of one pool. The vector keeps its memory. `also` is told
    /// where the data of each usually start, inside the pool's memory; it only may ask for that line.
    #[inline]
    pub(crate) fn give_back<T>(owners: &mut Vec<T>, buffer: impl Fn(&T) -> &Buffer, also: impl Fn(NonNull<u8>)) {
        let len = owners.len();
        // From here on the buffers are in the care of `give_chain`.
        // SAFETY: no more than there were; what is cut off is given back below, not dropped.
        unsafe { owners.set_len(0) };
        // SAFETY: `len` owners are still there, since nobody writes to the vector before this returns.
        let mut buffers = unsafe { std::slice::from_raw_parts(owners.as_ptr(), len) }.iter().map(buffer);
        let mut next = buffers.next();
        while let Some(&Self { core, index: last, .. }) = next {
            // SAFETY: its buffers are out, so the core lives until `give_chain`, behind which none of this is used.
            let Core { free, base, stride, .. } = unsafe { core.as_ref() };
            // Copies, which stay in registers.
            let (base, stride, links) = (*base, *stride, free.links());
            // SAFETY: where the data of one of its buffers usually start, inside the pool's memory.
            let see = |index: u32| also(unsafe { base.offset(index as isize * stride) });
            see(last);
            let mut first = last;
            next = buffers.find(|buffer| {
                if buffer.core == core {
                    see(buffer.index);
                    links.link(buffer.index, first);
                    first = buffer.index;
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
        Core::give_chain(self.core, self.index, self.index);
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({}, {} bytes)", self.index, self.len)
    }
}

/// Where one space has a pool. Clones share it; the pool is unmapped when the last is dropped, so queues drop theirs after they stopped.
#[derive(Clone)]
pub struct PoolMapping(Arc<Attached>);

/// A pool, by where its shared part is. Only compared. No other pool gets the place while the pool is attached anywhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct PoolId(usize);

struct Attached {
    /// Keeps the shared part, so that the [`PoolId`] stays this pool's own.
    core: NonNull<Core>,
    domain: Domain,
    base: u64,
    mapping: Option<Mapping>,
    space: Arc<dyn DmaSpace>,
}

// SAFETY: `core` is only compared, and released by an atomic count.
unsafe impl Send for Attached {}
// SAFETY: as above.
unsafe impl Sync for Attached {}

impl PoolMapping {
    pub(crate) fn id(&self) -> PoolId {
        PoolId(self.0.core.as_ptr() as usize)
    }

    /// The domain of the pool's segments.
    pub fn pool(&self) -> Domain {
        self.0.domain
    }

    /// The domain of the space.
    pub fn space(&self) -> Domain {
        self.0.space.domain()
    }

    /// The bus address that the addresses of the pool's segments are added to, which may be negative.
    pub(crate) fn base(&self) -> u64 {
        self.0.base
    }

    /// From one buffer to the next, in bytes.
    pub(crate) fn stride(&self) -> isize {
        // SAFETY: the attachment keeps the core.
        unsafe { self.0.core.as_ref() }.stride
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Some(mapping) = self.mapping.take() {
            // As with DmaMemory: what cannot be unmapped stays mapped, and the space counts it.
            let _ = self.space.unmap(mapping);
        }
        Core::release(self.core, -1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(buffers: u32) -> Pool {
        Pool::new(PoolConfig { buffers, buffer_size: 64 }).unwrap()
    }

    #[test]
    fn buffers_do_not_overlap() {
        let mut pool = pool(3);
        let mut buffers: Vec<Buffer> = std::iter::from_fn(|| pool.take()).collect();
        for (number, buffer) in buffers.iter_mut().enumerate() {
            buffer.set(&[number as u8; 64]);
        }
        for (number, buffer) in buffers.iter().enumerate() {
            let mut bytes = [0; 64];
            buffer.read(0, &mut bytes);
            assert_eq!(bytes, [number as u8; 64]);
        }
    }

    #[test]
    fn prefixes_lie_outside_all_data() {
        let mut pool = pool(4);
        let mut buffers: Vec<Buffer> = std::iter::from_fn(|| pool.take()).collect();
        for (number, buffer) in buffers.iter_mut().enumerate() {
            buffer.set(&[number as u8; 64]);
        }
        // Data in the place of a prefix leave room for another one.
        buffers[2].set_range(20, 84);
        buffers[2].write(0, &[2; 84]);
        for (number, buffer) in buffers.iter().enumerate() {
            buffer.write_prefix([0x1111_1111 * number as u32; 5]);
        }
        for (number, buffer) in buffers.iter().enumerate() {
            assert_eq!(buffer.read_prefix(), [0x1111_1111 * number as u32; 5]);
            assert_eq!(buffer.read_prefix(), [0x1111_1111 * number as u32; 3]);
            let mut bytes = vec![0; buffer.len()];
            buffer.read(0, &mut bytes);
            assert!(bytes.iter().all(|byte| usize::from(*byte) == number));
        }
    }

    #[test]
    #[should_panic(expected = "of a buffer of 64")]
    fn a_range_past_a_buffer_is_stopped() {
        pool(2).take().unwrap().set_range(12, 77);
    }

    #[test]
    fn buffers_come_back_from_other_threads() {
        let mut pool = pool(64);
        let total = std::thread::scope(|scope| {
            let (sender, receiver) = crossbeam::channel::unbounded::<Buffer>();
            for _ in 0..3 {
                let receiver = receiver.clone();
                scope.spawn(move || receiver.into_iter().for_each(drop));
            }
            let mut total = 0;
            while total < 10_000 {
                match pool.take() {
                    Some(buffer) => {
                        sender.send(buffer).unwrap();
                        total += 1;
                    }
                    None => std::thread::yield_now(),
                }
            }
            drop(sender);
            total
        });
        assert_eq!(total, 10_000);
        assert_eq!(std::iter::from_fn(|| pool.take()).collect::<Vec<_>>().len(), 64);
    }

    #[test]
    fn a_buffer_outlives_its_pool() {
        let mut pool = pool(2);
        let mut buffer = pool.take().unwrap();
        let other = pool.take().unwrap();
        drop(pool);
        buffer.set(b"still here");
        drop(other);
        let mut bytes = [0; 10];
        buffer.read(0, &mut bytes);
        assert_eq!(&bytes, b"still here");
    }

    #[test]
    fn a_configuration_outside_its_ranges_is_refused() {
        for (buffers, buffer_size) in [(0, 2048), (1, 63), (1, 100), (u32::MAX, 2048)] {
            assert!(Pool::new(PoolConfig { buffers, buffer_size }).is_err());
        }
    }

    #[test]
    #[should_panic(expected = "of a buffer of 64")]
    fn a_write_past_a_buffer_is_stopped() {
        pool(2).take().unwrap().write(60, b"12345");
    }
}
