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
//! the data are one piece for the device. Data start with a cache line, and what is in front of them has a line of its own. That one is nearly
//! always the same, and who would write into it what is there already leaves it alone: so where the device is a program on another processor,
//! both keep their copies, and a packet that is only sent on costs no line that goes to and fro. Neighbouring buffers fall into different sets of
//! the cache.
//!
//! Neither a take nor a return touches a reference count: the pool counts at its own end what is still out, and the last buffer to
//! come back then frees the memory.
#![allow(unsafe_code)]

mod buffer;
mod mapping;

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::free_list::{Chain, FreeList};
use crate::memory::SharedMemory;
use crate::segment::Domain;
use crate::space::{Access, DmaError, DmaSpace};

pub use buffer::Buffer;
pub(crate) use mapping::PoolId;
pub use mapping::PoolMapping;

/// Bytes from one buffer's data to the next one's, besides the buffer itself, and in front of the first: a cache line, with room for a prefix in front of
/// data that begin in the place of one.
const GAP: usize = 64;
const _: () = assert!(GAP >= 2 * Buffer::PREFIX);
/// Where the first buffer's data start.
const FIRST: usize = GAP;

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
        let memory = SharedMemory::with_huge_pages("pagewire-pool", buffers as usize * stride)?;
        let (free, chain) = FreeList::full(buffers);
        // SAFETY: inside the memory: the last buffer ends with it.
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

    /// A free buffer, empty; `None` when all are out. What it holds is what was left in it, unless it was written and sent: its first bytes may be gone
    /// then.
    #[inline]
    pub fn take(&mut self) -> Option<Buffer> {
        let core = self.core;
        // SAFETY: as in `core`; borrowed by hand, since `chain` is borrowed too.
        let free = unsafe { &core.as_ref().free };
        free.take(&mut self.chain).map(|index| Buffer::new(core, index))
    }

    /// For a queue: puts free buffers into `slots`, up to the first that has one, as many as there are. `each` is told the place of each, in bytes from the
    /// first buffer's, which is what [`AddressMap::base`](crate::AddressMap::base) is of. Returns how many.
    #[inline(always)]
    pub fn fill(&mut self, slots: &mut [Option<Buffer>], mut each: impl FnMut(u64)) -> usize {
        let core = self.core;
        // SAFETY: as in `take`.
        let Core { free, stride, .. } = unsafe { core.as_ref() };
        let (mut takes, stride) = (free.takes(&mut self.chain), *stride as u64);
        let mut count = 0;
        for slot in slots.iter_mut().take_while(|slot| slot.is_none()) {
            let Some(index) = takes.next() else { break };
            // What was there is nothing, so there is nothing to drop.
            std::mem::forget(slot.replace(Buffer::new(core, index)));
            each(u64::from(index) * stride);
            count += 1;
        }
        count
    }

    /// Names the pool, for comparison.
    pub(crate) fn id(&self) -> PoolId {
        PoolId(self.core.as_ptr() as usize)
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
        Ok(PoolMapping::new(self.core, domain, base, mapping, Arc::clone(space)))
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
