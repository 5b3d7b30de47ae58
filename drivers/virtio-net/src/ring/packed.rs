//! The packed layout (2.8): one ring, in which the device writes over the descriptors that it has used.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hal::barrier::Order;
use hal::virtio::QueueLayout;
use hal::{DmaMemory, Table};

use super::{Cursor, Flight, NEXT, Piece, Place, Ring, RingConfig, Used, Violation, need_event};

/// Flags, in the upper half of a descriptor's high word. A descriptor is the device's when the two differ and `AVAILABLE` is the lap's, the driver's when both
/// are the lap's; the laps' values alternate, and the first one's is 1.
const AVAILABLE: u32 = 1 << 23;
const USED: u32 = 1 << 31;
/// Where the identifier is.
const IDENTIFIER: u32 = 0xffff;

/// Event suppression (2.8.10): always, never, or at a descriptor.
const ENABLE: u16 = 0;
const DISABLE: u16 = 1;
const AT_DESCRIPTOR: u16 = 2;

pub(crate) struct PackedRing {
    descriptors: Table<[u64; 2]>,
    memory: Arc<DmaMemory>,
    /// Offset of the driver's event suppression in the memory; the device's lies a cache line behind it.
    events: usize,
    config: RingConfig,
    mask: u32,
    /// The position behind what was published.
    tail: u32,
    /// The position that the device uses next.
    next_used: u32,
}

/// Cache lines apart, since one is the driver's and the other the device's.
const LINE: usize = 64;

#[derive(Clone, Copy)]
pub(crate) struct PackedCursor {
    position: u32,
    /// In the upper half of the high word of an available descriptor at the position: the flags of its lap, and the identifier of a buffer that begins
    /// there.
    head: u32,
    /// The first descriptor of all, which is written when all others are: the device may take it from then on. Until then it is not touched, since the
    /// device keeps looking at it.
    first: Option<[u64; 2]>,
}

impl Cursor for PackedCursor {
    #[inline(always)]
    fn position(&self) -> u32 {
        self.position
    }
}

impl PackedRing {
    /// Where event suppression is, from the start of the ring: behind the descriptors, in lines of its own.
    fn events(config: RingConfig) -> usize {
        (16 * usize::from(config.size)).next_multiple_of(LINE)
    }

    fn order(&self) -> Order {
        self.config.order
    }

    /// Whether the lap of a position is one with the value 1.
    #[inline(always)]
    fn odd_lap(&self, position: u32) -> bool {
        position & (self.mask + 1) == 0
    }

    /// See [`PackedCursor::head`].
    #[inline(always)]
    fn head(&self, position: u32) -> u32 {
        position & self.mask | if self.odd_lap(position) { AVAILABLE } else { USED }
    }

    /// The offset in the ring, and the lap's value in bit 15, as events are named.
    fn event(&self, position: u32) -> u16 {
        (position & self.mask) as u16 | u16::from(self.odd_lap(position)) << 15
    }

    fn store_event(&self, event: u16, flags: u16) {
        let word = u32::from(event) | u32::from(flags) << 16;
        self.memory.memory().atomic_u32(self.events).store(word.to_le(), Ordering::Relaxed);
    }

    /// Whether the device wants to know of the positions from `old` to the tail.
    fn wanted(&self, old: u32) -> bool {
        let word = u32::from_le(self.memory.memory().atomic_u32(self.events + LINE).load(Ordering::Relaxed));
        let (event, flags) = (word as u16, (word >> 16) as u16 & 3);
        match flags {
            DISABLE => false,
            AT_DESCRIPTOR if self.config.event_idx => {
                // The event's lap is the tail's or the one before it.
                let lap = self.tail & !self.mask;
                let same = (event >> 15 != 0) == self.odd_lap(self.tail);
                let base = if same { lap } else { lap.wrapping_sub(self.mask + 1) };
                let event = base.wrapping_add(u32::from(event & 0x7fff));
                need_event(event as u16, self.tail as u16, old as u16)
            }
            _ => true,
        }
    }

    /// Writes a descriptor, which may be the last of the ring, with the lap's flags and an identifier from `head`.
    #[inline(always)]
    fn write_word(&self, cursor: &mut PackedCursor, piece: Piece, flags: u16, head: u32) {
        let descriptor = [piece.address, u64::from(head | u32::from(flags) << 16) << 32 | u64::from(piece.len)];
        if cursor.first.is_none() {
            cursor.first = Some(descriptor);
        } else {
            self.descriptors.write_pair(cursor.position as usize, descriptor);
        }
        cursor.position = cursor.position.wrapping_add(1);
        cursor.head += 1;
    }

    /// Identifier and flags of a used descriptor, when it is of the buffer that was posted at a position.
    #[inline(always)]
    fn expected(&self, position: u32) -> u32 {
        position & self.mask | if self.odd_lap(position) { AVAILABLE | USED } else { 0 }
    }

    /// How identifier and flags of the descriptor at a position in flight differ from what is [expected](Self::expected).
    #[inline(always)]
    fn difference(&self, position: u32) -> u32 {
        difference(self.descriptors.read_high(position as usize), self.expected(position))
    }

    /// Whether the device has used the descriptor at a position in flight.
    #[inline(always)]
    fn is_used(&self, position: u32) -> bool {
        is_used(self.difference(position))
    }
}

/// How identifier and flags in a high word differ from these.
#[inline(always)]
fn difference(high: u64, expected: u32) -> u32 {
    (high >> 32) as u32 & (AVAILABLE | USED | IDENTIFIER) ^ expected
}

/// Whether the flags do not differ, whatever the identifier.
#[inline(always)]
fn is_used(difference: u32) -> bool {
    difference & !IDENTIFIER == 0
}

/// What the high word of a used descriptor says.
#[inline(always)]
fn element(high: u64) -> Used {
    Used { id: (high >> 32) as u16 as u32, len: high as u32 }
}

impl Ring for PackedRing {
    type Cursor = PackedCursor;
    const LINKED: bool = false;

    fn bytes(config: RingConfig) -> usize {
        Self::events(config) + 2 * LINE
    }

    fn new(Place { memory, at }: Place, config: RingConfig) -> Self {
        let events = at + Self::events(config);
        let descriptors = Table::new(&memory, at, config.size.into());
        let mut this = Self { descriptors, memory, events, config, mask: u32::from(config.size) - 1, tail: 0, next_used: 0 };
        this.restart();
        this
    }

    #[inline(always)]
    fn claim(&self, position: u32, places: u32) {
        self.descriptors.claim(position as usize, places as usize);
    }

    fn layout(&self) -> QueueLayout {
        let events = self.memory.iova() + self.events as u64;
        QueueLayout { size: self.config.size, descriptors: self.descriptors.iova(), driver: events, device: events + LINE as u64 }
    }

    fn restart(&mut self) {
        let bytes = Self::bytes(self.config);
        self.memory.memory().write_bytes(self.events + 2 * LINE - bytes, &vec![0; bytes]);
        (self.tail, self.next_used) = (0, 0);
        self.disarm();
    }

    fn cursor(&self) -> PackedCursor {
        PackedCursor { position: self.tail, head: self.head(self.tail), first: None }
    }

    #[inline(always)]
    fn until_end(&self, cursor: &PackedCursor) -> u32 {
        self.mask + 1 - (cursor.position & self.mask)
    }

    #[inline(always)]
    fn write(&self, cursor: &mut PackedCursor, piece: Piece) {
        self.write_word(cursor, piece, piece.kind.flags(), cursor.head);
    }

    #[inline(always)]
    fn turn(&self, cursor: &mut PackedCursor) {
        // The cursor only goes ahead, so that it is at the start now after the end.
        if cursor.position & self.mask == 0 {
            cursor.head = self.head(cursor.position);
        }
    }

    #[inline(always)]
    fn put_chain(&self, cursor: &mut PackedCursor, count: usize, pieces: impl Iterator<Item = Piece>) {
        let identifier = cursor.head & IDENTIFIER;
        for (number, piece) in pieces.enumerate() {
            let flags = piece.kind.flags() | if number + 1 < count { NEXT } else { 0 };
            self.write_word(cursor, piece, flags, cursor.head & !IDENTIFIER | identifier);
            self.turn(cursor);
        }
    }

    #[inline(always)]
    fn put_pair(&self, cursor: &mut PackedCursor, [first, second]: [Piece; 2]) {
        if self.until_end(cursor) < 2 {
            return self.put_chain(cursor, 2, [first, second].into_iter());
        }
        let head = cursor.head;
        self.write_word(cursor, first, first.kind.flags() | NEXT, head);
        self.write_word(cursor, second, second.kind.flags(), head);
        self.turn(cursor);
    }

    fn publish(&mut self, cursor: PackedCursor) -> bool {
        let old = self.tail;
        let Some([address, high]) = cursor.first else { return false };
        // The device looks at nothing behind a descriptor that is not available.
        self.descriptors.write_low(old as usize, address);
        self.order().write();
        self.descriptors.write_high(old as usize, high);
        self.tail = cursor.position;
        self.order().full();
        self.wanted(old)
    }

    #[inline(always)]
    fn peek(&mut self) -> Result<Option<Used>, Violation> {
        if !self.has_used() {
            return Ok(None);
        }
        self.order().read();
        // What is behind the flags is read when they are known.
        Ok(Some(element(self.descriptors.read_high(self.next_used as usize))))
    }

    #[inline(always)]
    fn ready(&mut self, most: u32) -> Result<u32, Violation> {
        let outstanding = self.tail.wrapping_sub(self.next_used);
        Ok(if outstanding > 0 && self.is_used(self.next_used) { most.min(outstanding) } else { 0 })
    }

    #[inline(always)]
    fn lengths(&self, posted: Range<u32>) -> impl Iterator<Item = Option<u32>> {
        debug_assert_eq!(posted.start, self.next_used, "a buffer of one descriptor comes back at its own position");
        let (first, count) = (self.expected(posted.start), posted.end.wrapping_sub(posted.start));
        let order = self.order();
        // In one lap only the identifier grows.
        self.descriptors.high_run(posted.start as usize, count as usize).zip(first..).map_while(move |(high, expected)| {
            let difference = difference(high, expected);
            // One access has flags, identifier and length, so only what they are about has to come after it.
            order.read();
            match difference {
                0 => Some(Some(high as u32)),
                _ => is_used(difference).then_some(None),
            }
        })
    }

    /// Only the first of them is marked.
    fn covers(&mut self, buffers: u32) -> Result<bool, Violation> {
        Ok(buffers <= self.tail.wrapping_sub(self.next_used))
    }

    #[inline(always)]
    fn take_run(&mut self, posted: Range<u32>, descriptors: impl Fn(u32) -> u32) -> Result<(u32, bool), Violation> {
        // The device skips the further descriptors of a chain, so each buffer comes back at its own position.
        let (mut position, mut count) = (posted.start, 0);
        while position != posted.end && self.difference(position) == 0 {
            position = position.wrapping_add(descriptors(position));
            count += 1;
        }
        self.order().read();
        self.next_used = position;
        Ok((count, position != posted.end && self.is_used(position)))
    }

    #[inline(always)]
    fn advance(&mut self, _buffers: u16, descriptors: u16) {
        self.next_used = self.next_used.wrapping_add(descriptors.into());
    }

    fn take_in_order(&mut self, flight: &mut Flight) -> Result<u32, Violation> {
        let mut sum = 0;
        while let Some(used) = self.peek()? {
            let (buffers, descriptors) = flight.take_through(used.id)?;
            self.next_used = self.next_used.wrapping_add(descriptors);
            sum += buffers;
        }
        Ok(sum)
    }

    fn has_used(&self) -> bool {
        self.next_used != self.tail && self.is_used(self.next_used)
    }

    fn arm(&mut self) {
        if self.config.event_idx {
            self.store_event(self.event(self.next_used), AT_DESCRIPTOR);
        } else {
            self.store_event(0, ENABLE);
        }
        self.order().full();
    }

    fn disarm(&mut self) {
        self.store_event(0, DISABLE);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;
    use crate::testing;

    #[test]
    fn the_device_sees_nothing_of_a_burst_before_it_is_published() {
        let (space, mut ring) = testing::ring::<PackedRing>(4);
        let descriptors = ring.layout().descriptors;
        let at = |position: u32| {
            let mut bytes = [0; 16];
            space.read(descriptors + 16 * u64::from(position % 4), &mut bytes);
            bytes
        };
        let piece = |address: u64| Piece { address, len: 1, kind: Kind::Read };
        let mut tail = 0;
        // Around the ring's end, with each way to write.
        for round in 0..9 {
            let (before, mut cursor) = (at(tail), ring.cursor());
            let len = match round % 3 {
                0 => {
                    ring.put(&mut cursor, piece(0x1000));
                    ring.put(&mut cursor, piece(0x2000));
                    2
                }
                1 => {
                    ring.put_pair(&mut cursor, [piece(0x3000), piece(0x4000)]);
                    2
                }
                _ => {
                    ring.put_chain(&mut cursor, 3, (5..8).map(|number| piece(number << 12)));
                    3
                }
            };
            assert_eq!(at(tail), before, "round {round}");
            ring.publish(cursor);
            assert_ne!(at(tail), before, "round {round}");
            tail += len;
        }
    }

    #[test]
    fn lengths_are_those_of_the_buffers_that_were_posted_there() {
        let (space, mut ring) = testing::ring::<PackedRing>(4);
        let descriptors = ring.layout().descriptors;
        for lap in 0..5 {
            let (first, mut cursor) = (4 * lap, ring.cursor());
            (0..4).for_each(|_| ring.put(&mut cursor, Piece { address: 0x1000, len: 100, kind: Kind::Write }));
            ring.publish(cursor);
            let flags = if lap % 2 == 0 { 0x8080_u16 } else { 0 };
            let uses = |place: u64, id: u16, len: u32| {
                let high = u64::from(len) | u64::from(id) << 32 | u64::from(flags) << 48;
                space.write(descriptors + 16 * place + 8, &high.to_le_bytes());
            };
            let lengths = |ring: &PackedRing| ring.lengths(first..first + 4).collect::<Vec<_>>();
            assert_eq!((ring.ready(9).unwrap(), lengths(&ring)), (0, vec![]), "lap {lap}");
            uses(0, 0, 10);
            uses(1, 1, 11);
            assert_eq!((ring.ready(9).unwrap(), lengths(&ring)), (4, vec![Some(10), Some(11)]), "up to the last used one");
            uses(2, 3, 12);
            uses(3, 3, 13);
            assert_eq!(lengths(&ring), [Some(10), Some(11), None, Some(13)], "another buffer is none");
            ring.advance(2, 2);
            assert_eq!(ring.lengths(first + 2..first + 6).collect::<Vec<_>>(), [None, Some(13)], "up to the end of the ring");
            ring.advance(2, 2);
        }
    }
}
