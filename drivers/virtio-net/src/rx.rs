//! The receive queue (5.1.6.3 and 5.1.6.4).

mod usual;

use std::sync::Arc;

use hal::barrier::Order;
use hal::nic::RxCounters;
use hal::pool::PoolMapping;
use hal::receive::{About, RxFlags};
use hal::{AddressMap, Buffer, DmaSpace, Doorbell, NicError, Pool, RxBurst, RxQueue};

use crate::header::{self, HEADER, HEADER_WITH_HASH};
use crate::queue::{Queue, Receive};
use crate::ring::{Place, Ring, RingConfig, Violation};
use usual::Plain;

/// What was agreed on for a receive queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RxConfig {
    pub ring: RingConfig,
    pub in_order: bool,
    /// A packet may lie in several buffers.
    pub mergeable: bool,
    /// Headers carry a hash.
    pub hash: bool,
    /// The largest packet, in bytes, which a buffer has to hold when it cannot lie in several.
    pub max_packet: u32,
}

impl RxConfig {
    /// The device is a program on another processor, whose caches have what it wrote.
    fn is_shared(&self) -> bool {
        self.ring.order == Order::Processors
    }
}

/// The shortest room for a packet where it cannot lie in several buffers (5.1.6.3.1): 1526 bytes with the header.
const SHORTEST_ROOM: u32 = 1514;

/// A receive queue over one layout.
pub(crate) struct Rx<R: Ring> {
    ring: R,
    addresses: AddressMap,
    /// The buffers that the device has, by place in the ring.
    slots: Box<[Option<Buffer>]>,
    config: RxConfig,
    header_len: u32,
    queue: Queue,
    /// The position that is posted next, and the one behind as many as were taken: with IN_ORDER the oldest.
    tail: u32,
    head: u32,
    /// With IN_ORDER: buffers of a batch that were taken before the one that the device names.
    batch: u16,
    posted: usize,
    /// The packet of which not all buffers were taken yet.
    packet: Vec<Buffer>,
    counters: RxCounters,
}

impl<R: Ring> Rx<R> {
    /// The bytes that a queue has at its place.
    pub fn bytes(config: &RxConfig) -> usize {
        R::bytes(config.ring)
    }

    pub fn new(space: &Arc<dyn DmaSpace>, place: Place, index: u16, config: RxConfig) -> Self {
        let size = usize::from(config.ring.size);
        Self {
            ring: R::new(place, config.ring),
            addresses: AddressMap::new(&**space),
            slots: (0..size).map(|_| None).collect(),
            header_len: if config.hash { HEADER_WITH_HASH } else { HEADER },
            config,
            queue: Queue::new(index),
            tail: 0,
            head: 0,
            batch: 0,
            posted: 0,
            packet: Vec::with_capacity(size),
            counters: RxCounters::default(),
        }
    }

    fn place(&self, position: u32) -> usize {
        position as usize & (self.slots.len() - 1)
    }

    /// The next used buffer, and how many bytes the device has written to it, header included.
    #[inline(always)]
    fn next(&mut self) -> Result<Option<(Buffer, u32)>, Violation> {
        let Some(used) = self.ring.peek()? else { return Ok(None) };
        if self.config.in_order && used.id as usize != self.place(self.head) {
            return self.next_of_batch(used.id).map(Some);
        }
        let Some(slot) = self.slots.get_mut(used.id as usize) else { return Err(not_posted(used.id)) };
        let Some(buffer) = slot.take() else { return Err(not_posted(used.id)) };
        let room = buffer.capacity() as u32 + self.header_len;
        if used.len > room {
            // The buffer stays the device's, which may write to it.
            *slot = Some(buffer);
            return Err(too_long(used.len, room));
        }
        self.ring.advance(self.batch + 1, self.batch + 1);
        self.batch = 0;
        self.head = self.head.wrapping_add(1);
        self.posted -= 1;
        Ok(Some((buffer, used.len)))
    }

    /// The device names only the last buffer of a batch; those before it are full (2.7.9).
    #[inline(never)]
    fn next_of_batch(&mut self, last: u32) -> Result<(Buffer, u32), Violation> {
        let (place, ahead) = (self.place(self.head), last.wrapping_sub(self.head) as usize & (self.slots.len() - 1));
        if last as usize >= self.slots.len() || ahead >= self.posted {
            return Err(not_posted(last));
        }
        let batch = u32::from(self.batch) + ahead as u32 + 1;
        if !self.ring.covers(batch)? {
            return Err(Violation(format!("it says that {batch} buffers are used by naming buffer {last}, and has not counted so many")));
        }
        let Some(buffer) = self.slots[place].take() else { return Err(not_posted(last)) };
        self.batch += 1;
        self.head = self.head.wrapping_add(1);
        self.posted -= 1;
        let room = buffer.capacity() as u32 + self.header_len;
        Ok((buffer, room))
    }

    /// Takes packets that are as nearly all are: each in the next buffer, and without anything in its header. Returns how many, and whether the
    /// next one is not so.
    #[inline(always)]
    fn take_plain(&mut self, burst: &mut RxBurst, limit: u32) -> Result<(u32, bool), Violation> {
        let ready = self.ring.ready(limit)?;
        if ready == 0 {
            return Ok((0, false));
        }
        let place = self.place(self.head);
        let (before, behind) = self.slots.split_at_mut(place);
        let until_end = behind.len().min(ready as usize);
        // The other processor has what it wrote. What somebody will look into is asked for at once.
        let fetch = self.config.is_shared() && burst.is_read();
        let (first, mut sum, mut special) = (self.head, 0, false);
        for slots in [&mut behind[..until_end], &mut before[..ready as usize - until_end]] {
            let all = slots.len();
            if all == 0 {
                // Nearly always they do not pass the end of the ring.
                break;
            }
            let Plain { count, bytes, stopped } = if self.config.mergeable {
                usual::take::<R, true>(&self.ring, self.head, slots, burst, fetch)
            } else {
                usual::take::<R, false>(&self.ring, self.head, slots, burst, fetch)
            };
            self.ring.advance(count as u16, count as u16);
            self.head = self.head.wrapping_add(count as u32);
            sum += bytes;
            if count < all {
                // A place that is empty was one of a buffer that the device used earlier, instead of another.
                special = stopped || slots[count].is_none();
                break;
            }
        }
        let count = self.head.wrapping_sub(first);
        self.posted -= count as usize;
        if self.config.is_shared() {
            // These places are free now, and written soon.
            self.ring.claim(first, count);
        }
        self.counters.packets += u64::from(count);
        self.counters.bytes += sum;
        Ok((count, special))
    }

    /// The next packet, if there is one.
    #[inline(never)]
    fn take(&mut self, burst: &mut RxBurst) -> Result<Taken, Violation> {
        let Some((mut buffer, len)) = self.next()? else { return Ok(Taken::Nothing) };
        if len <= self.header_len {
            // Nothing behind the header, or not even that.
            self.counters.dropped += 1;
            return Ok(Taken::Dropped);
        }
        let header: header::Header;
        let mut hash = None;
        if self.config.hash {
            let [a, b, c, value, report] = buffer.read_prefix();
            (header, hash) = ([a, b, c], (report as u16 != 0).then_some(value));
        } else {
            header = buffer.read_prefix();
        }
        let mut bytes = len - self.header_len;
        buffer.set_len(bytes as usize);
        let buffers = if self.config.mergeable { header::buffers(header) } else { 1 };
        if buffers != 1 {
            bytes = self.join(buffer, buffers)?;
            let about = with_hash(header::about(header, bytes).ok_or_else(|| outside(bytes))?, hash);
            burst.push(self.packet.drain(..), about);
        } else {
            let about = with_hash(header::about(header, bytes).ok_or_else(|| outside(bytes))?, hash);
            burst.push_buffer(buffer, about);
        }
        self.counters.packets += 1;
        self.counters.bytes += u64::from(bytes);
        Ok(Taken::Packet)
    }

    /// Takes the other buffers of a packet that lies in several, which were all used together (5.1.6.4); returns its bytes.
    #[inline(never)]
    fn join(&mut self, first: Buffer, buffers: u16) -> Result<u32, Violation> {
        self.packet.clear();
        let mut bytes = first.len() as u32;
        self.packet.push(first);
        for taken in 1..buffers.max(1) {
            let Some((mut buffer, len)) = self.next()? else {
                return Err(Violation(format!("a packet in {buffers} buffers, of which {taken} were used")));
            };
            if len == 0 {
                return Err(Violation(format!("a packet in {buffers} buffers, of which one is empty")));
            }
            // Its data start where the first buffer has the header.
            buffer.set_range(self.header_len as usize, len as usize);
            bytes += len;
            self.packet.push(buffer);
        }
        if buffers == 0 {
            return Err(Violation("a packet in 0 buffers".to_owned()));
        }
        Ok(bytes)
    }

    fn room_needed(&self) -> usize {
        // The smallest pool buffer has 64 bytes, which is enough where packets may lie in several.
        if self.config.mergeable { 1 } else { self.config.max_packet.max(SHORTEST_ROOM) as usize }
    }
}

enum Taken {
    Nothing,
    Dropped,
    Packet,
}

#[inline(always)]
fn with_hash(about: About, hash: Option<u32>) -> About {
    match hash {
        Some(hash) => About { hash, flags: about.flags | RxFlags::HASH, ..about },
        None => about,
    }
}

#[cold]
#[inline(never)]
fn not_posted(id: u32) -> Violation {
    Violation(format!("it filled buffer {id}, which it does not have"))
}

#[cold]
#[inline(never)]
fn too_long(len: u32, room: u32) -> Violation {
    Violation(format!("it wrote {len} bytes to a buffer of {room}"))
}

#[cold]
#[inline(never)]
fn outside(bytes: u32) -> Violation {
    Violation(format!("a checksum outside a packet of {bytes} bytes"))
}

impl<R: Ring> RxQueue for Rx<R> {
    fn capacity(&self) -> usize {
        self.slots.len()
    }

    fn refill(&mut self, pool: &mut Pool) -> Result<usize, NicError> {
        self.queue.check()?;
        let needed = self.room_needed();
        if pool.buffer_size() < needed {
            return Err(NicError::Config(format!(
                "receive buffers of {} bytes, where a packet has up to {needed} and must lie in one buffer: make the pool's buffers larger, or let \
                 packets lie in several: rx_buffer has to be what the buffers hold, and the device has to offer VIRTIO_NET_F_MRG_RXBUF",
                pool.buffer_size()
            )));
        }
        if self.batch > 0 {
            // The entry that stands for the batch is read until the last of its buffers is taken, so none of their places is free before.
            return Ok(0);
        }
        let Some(base) = self.addresses.base(pool) else { return Err(NicError::UnmappedSegment) };
        let base = base.wrapping_sub(self.header_len.into());
        let (mut cursor, tail) = (self.ring.cursor(), self.place(self.tail));
        let (before, behind) = self.slots.split_at_mut(tail);
        let mut count = 0;
        for slots in [behind, before] {
            let (all, len) = (slots.len(), pool.buffer_size() as u32 + self.header_len);
            let filled = usual::fill(&self.ring, &mut cursor, slots, pool, base, len);
            count += filled;
            if filled < all {
                break;
            }
        }
        if count > 0 {
            self.tail = self.tail.wrapping_add(count as u32);
            self.posted += count;
            if self.ring.publish(cursor) {
                self.counters.doorbells += 1;
                self.queue.ring()?;
            }
        }
        Ok(count)
    }

    fn receive(&mut self, burst: &mut RxBurst, limit: usize) -> Result<usize, NicError> {
        self.queue.check()?;
        let mut count = 0;
        while count < limit {
            if self.batch == 0 && !self.config.hash {
                match self.take_plain(burst, u32::try_from(limit - count).unwrap_or(u32::MAX)) {
                    Ok((plain, more)) => {
                        count += plain as usize;
                        if !more {
                            break;
                        }
                    }
                    Err(violation) => return Err(self.queue.stop(violation)),
                }
            }
            match self.take(burst) {
                Ok(Taken::Packet) => count += 1,
                Ok(Taken::Dropped) => {}
                Ok(Taken::Nothing) => break,
                Err(violation) => return Err(self.queue.stop(violation)),
            }
        }
        Ok(count)
    }

    fn counters(&self) -> RxCounters {
        self.counters
    }
}

impl<R: Ring> Receive for Rx<R> {
    fn layout(&self) -> hal::virtio::QueueLayout {
        self.ring.layout()
    }

    fn enabled(&mut self, doorbell: Doorbell) {
        self.queue.enabled(doorbell);
    }

    fn attach_pool(&mut self, pool: PoolMapping) -> Result<(), NicError> {
        self.addresses.attach(pool)
    }

    fn settle(&mut self) {
        self.slots.fill_with(|| None);
        self.packet.clear();
        (self.tail, self.head, self.batch, self.posted) = (0, 0, 0, 0);
        self.ring.restart();
        self.queue.settled();
    }

    fn has_used(&self) -> bool {
        self.ring.has_used()
    }

    fn arm(&mut self) {
        self.ring.arm();
    }

    fn disarm(&mut self) {
        self.ring.disarm();
    }
}

#[cfg(test)]
mod tests {
    use hal::virtio::QueueLayout;
    use hal::{PoolConfig, Registers, registers::Width};

    use super::*;
    use crate::ring::{PackedRing, SplitRing};
    use crate::testing::TestSpace;

    /// With IN_ORDER a device may name only the last buffer of a batch. `answer` names buffer `id`, of `len` bytes, as the `nth` used one.
    fn batches<R: Ring>(answer: fn(&TestSpace, QueueLayout, nth: u16, id: u16, len: u32)) {
        let (space, mut rx, mut pool) = posted::<R>(4, true);
        let mut packets = RxBurst::default();
        for lap in 0..5 {
            assert_eq!(rx.refill(&mut pool).unwrap(), if lap == 0 { 0 } else { 3 });
            // Three of four are used, by one entry; the one before them was left over.
            let first = lap * 3;
            answer(&space, rx.layout(), first, (first + 2) % 4, 12 + 60);
            let before = packets.len();
            assert_eq!(rx.receive(&mut packets, 2).unwrap(), 2, "a limit inside the batch");
            assert_eq!(rx.refill(&mut pool).unwrap(), 0, "the batch's entry is needed yet");
            assert_eq!(rx.receive(&mut packets, 9).unwrap(), 1);
            let bytes: Vec<u32> = packets.packets().skip(before).map(|packet| packet.bytes).collect();
            assert_eq!(bytes, [2048, 2048, 60]);
            packets.clear();
        }
        answer(&space, rx.layout(), 15, 7, 72);
        assert!(matches!(rx.receive(&mut packets, 9), Err(NicError::Protocol(_))), "buffer 7 of 4");
    }

    /// A queue of so many buffers, all of them posted, over a space in which a test plays the device.
    fn posted<R: Ring>(size: u16, in_order: bool) -> (Arc<TestSpace>, Rx<R>, Pool) {
        let space = TestSpace::new();
        let shared: Arc<dyn DmaSpace> = space.clone();
        let ring = RingConfig { size, event_idx: false, order: Order::Processors };
        let config = RxConfig { ring, in_order, mergeable: false, hash: false, max_packet: 1518 };
        let place = Place::new(&shared, "test", Rx::<R>::bytes(&config)).unwrap();
        let mut rx = Rx::<R>::new(&shared, place, 0, config);
        rx.enabled(Doorbell::register(&Registers::in_memory(4096).unwrap(), 0, Width::Word).unwrap());
        let mut pool = Pool::new(PoolConfig { buffers: 2 * u32::from(size), buffer_size: 2048 }).unwrap();
        rx.attach_pool(pool.attach(&shared).unwrap()).unwrap();
        assert_eq!(rx.refill(&mut pool).unwrap(), size.into());
        (space, rx, pool)
    }

    #[test]
    fn the_last_buffer_of_a_batch_stands_for_those_before_it() {
        batches::<SplitRing>(|space, layout, nth, id, len| {
            let element = [u32::from(id).to_le_bytes(), len.to_le_bytes()].concat();
            space.write(layout.device + 4 + 8 * u64::from(nth % layout.size), &element);
            let batch = if id < layout.size { 3 } else { 1 };
            space.write(layout.device + 2, &(nth + batch).to_le_bytes());
        });
        batches::<PackedRing>(|space, layout, nth, id, len| {
            let used: u16 = if (nth / layout.size).is_multiple_of(2) { 0x8080 } else { 0 };
            let element = [&len.to_le_bytes()[..], &id.to_le_bytes(), &used.to_le_bytes()].concat();
            space.write(layout.descriptors + 16 * u64::from(nth % layout.size) + 8, &element);
        });
    }

    #[test]
    fn a_batch_that_was_not_counted_is_refused() {
        let (space, mut rx, _pool) = posted::<SplitRing>(4, true);
        // The entry stands for three buffers, and the index counts two.
        let layout = rx.layout();
        space.write(layout.device + 4, &[2_u32.to_le_bytes(), 72_u32.to_le_bytes()].concat());
        space.write(layout.device + 2, &2_u16.to_le_bytes());
        let mut packets = RxBurst::default();
        let error = rx.receive(&mut packets, 9).unwrap_err();
        assert!(matches!(&error, NicError::Protocol(text) if text.contains("3 buffers are used")), "{error}");
        assert!(packets.is_empty());
    }

    #[test]
    fn descriptors_that_the_device_has_yet_stay_as_they_are() {
        let (space, mut rx, mut pool) = posted::<SplitRing>(16, false);
        let layout = rx.layout();
        let descriptors = |space: &TestSpace| {
            let mut bytes = [0; 16 * 16];
            space.read(layout.descriptors, &mut bytes);
            bytes
        };
        let before = descriptors(&space);
        // The newest eight buffers first, as a device may without IN_ORDER; then the others.
        let (mut packets, mut nth) = (RxBurst::default(), 0_u16);
        for ids in [8..16_u32, 0..8] {
            for id in ids {
                space.write(layout.device + 4 + 8 * u64::from(nth), &[id.to_le_bytes(), 72_u32.to_le_bytes()].concat());
                nth += 1;
            }
            space.write(layout.device + 2, &nth.to_le_bytes());
            assert_eq!(rx.receive(&mut packets, 99).unwrap(), 8);
            if nth == 8 {
                assert_eq!(descriptors(&space)[..8 * 16], before[..8 * 16]);
                assert_eq!(rx.refill(&mut pool).unwrap(), 0, "the next place is not free");
            }
        }
        assert_eq!(rx.refill(&mut pool).unwrap(), 16);
    }
}
