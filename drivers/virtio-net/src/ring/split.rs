//! The split layout (2.7): a table of descriptors, a ring of what is available, a ring of what is used.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hal::barrier::Order;
use hal::virtio::QueueLayout;
use hal::{DmaMemory, Table};

use super::{Cursor, Flight, NEXT, Piece, Place, Ring, RingConfig, Used, Violation, need_event};

/// Each part has cache lines of its own: processors write the one and read the other.
const LINE: usize = 64;
/// The available ring: no interrupts. The used ring: no doorbells.
const QUIET: u16 = 1;

pub(crate) struct SplitRing {
    descriptors: Table<[u64; 2]>,
    available: Table<u16>,
    used: Table<u64>,
    memory: Arc<DmaMemory>,
    /// Offsets of the two rings in the memory.
    driver_area: usize,
    device_area: usize,
    config: RingConfig,
    mask: u32,
    /// The position behind what was published, and the available entry.
    tail: u32,
    entry: u16,
    /// Entries that were written one after the other without a chain between them.
    settled: u32,
    /// The next used entry, and how far the device was when it was last asked.
    next_used: u16,
    seen: u16,
}

#[derive(Clone, Copy)]
pub(crate) struct SplitCursor {
    position: u32,
    entry: u16,
    /// Up to which entry the available ring is written. Those behind are of buffers of one descriptor each.
    written: u16,
}

impl Cursor for SplitCursor {
    #[inline(always)]
    fn position(&self) -> u32 {
        self.position
    }
}

impl SplitRing {
    /// Where the two rings are, from the start of the descriptors: behind those.
    fn areas(config: RingConfig) -> (usize, usize) {
        let size = usize::from(config.size);
        let driver_area = 16 * size;
        // Entries of the used ring lie behind two words; so they begin with a line, and are read in one access.
        (driver_area, (driver_area + 6 + 2 * size).next_multiple_of(LINE) + LINE - 4)
    }

    fn order(&self) -> Order {
        self.config.order
    }

    /// The word behind the available ring: the used entry from which on interrupts are wanted.
    fn used_event(&self) -> usize {
        self.driver_area + 4 + 2 * usize::from(self.config.size)
    }

    /// The word behind the used ring: the available entry from which on doorbells are wanted.
    fn available_event(&self) -> usize {
        self.device_area + 4 + 8 * usize::from(self.config.size)
    }

    fn load(&self, offset: usize) -> u16 {
        u16::from_le(self.memory.memory().atomic_u16(offset).load(Ordering::Relaxed))
    }

    fn store(&self, offset: usize, value: u16) {
        self.memory.memory().atomic_u16(offset).store(value.to_le(), Ordering::Relaxed);
    }

    /// Writes the available entries of buffers of one descriptor that have none yet.
    fn write_entries(&self, cursor: &mut SplitCursor) {
        // How far positions are ahead of entries.
        let skew = cursor.position.wrapping_sub(cursor.entry.into());
        while cursor.written != cursor.entry {
            let position = skew.wrapping_add(cursor.written.into());
            self.available.write(cursor.written.into(), ((position & self.mask) as u16).to_le());
            cursor.written = cursor.written.wrapping_add(1);
        }
    }

    /// Whether all entries of the available ring are what they will be in the next lap, too.
    #[inline(always)]
    fn is_settled(&self) -> bool {
        self.settled > self.mask
    }

    /// Writes the available entries that a burst still wants. After a lap without chains the ring has them all: nothing is written, and the device
    /// keeps its copy of those lines.
    #[inline(always)]
    fn settle(&mut self, cursor: &mut SplitCursor) {
        if cursor.written != self.entry {
            // There were chains.
            self.settled = 0;
        }
        if !self.is_settled() {
            self.settled += u32::from(cursor.entry.wrapping_sub(cursor.written));
            self.write_entries(cursor);
        }
    }

    /// How far the device is. It cannot be further than what it was given.
    fn look(&mut self) -> Result<(), Violation> {
        let index = self.load(self.device_area + 2);
        if index != self.seen {
            self.order().read();
            let outstanding = self.entry.wrapping_sub(self.next_used);
            if index.wrapping_sub(self.next_used) > outstanding {
                return Err(overrun(index, self.next_used, outstanding));
            }
            self.seen = index;
        }
        Ok(())
    }
}

/// What an element of the used ring says.
#[inline(always)]
fn element(word: u64) -> Used {
    let word = u64::from_le(word);
    Used { id: word as u32, len: (word >> 32) as u32 }
}

#[cold]
#[inline(never)]
fn overrun(index: u16, next: u16, outstanding: u16) -> Violation {
    Violation(format!("its used index went from {next} to {index}, and {outstanding} buffers were in flight"))
}

impl Ring for SplitRing {
    type Cursor = SplitCursor;
    const LINKED: bool = true;

    fn bytes(config: RingConfig) -> usize {
        let (_, device_area) = Self::areas(config);
        device_area + 6 + 8 * usize::from(config.size)
    }

    fn new(Place { memory, at }: Place, config: RingConfig) -> Self {
        let size = usize::from(config.size);
        let (driver_area, device_area) = Self::areas(config);
        let (driver_area, device_area) = (at + driver_area, at + device_area);
        let mut this = Self {
            descriptors: Table::new(&memory, at, size),
            available: Table::new(&memory, driver_area + 4, size),
            used: Table::new(&memory, device_area + 4, size),
            memory,
            driver_area,
            device_area,
            config,
            mask: u32::from(config.size) - 1,
            tail: 0,
            entry: 0,
            settled: 0,
            next_used: 0,
            seen: 0,
        };
        this.restart();
        this
    }

    #[inline(always)]
    fn claim(&self, position: u32, places: u32) {
        self.descriptors.claim(position as usize, places as usize);
    }

    fn layout(&self) -> QueueLayout {
        let base = self.memory.iova();
        QueueLayout {
            size: self.config.size,
            descriptors: self.descriptors.iova(),
            driver: base + self.driver_area as u64,
            device: base + self.device_area as u64,
        }
    }

    fn restart(&mut self) {
        let (bytes, end) = (Self::bytes(self.config), self.available_event() + 2);
        self.memory.memory().write_bytes(end - bytes, &vec![0; bytes]);
        (self.tail, self.entry, self.settled, self.next_used, self.seen) = (0, 0, 0, 0, 0);
        self.disarm();
    }

    fn cursor(&self) -> SplitCursor {
        SplitCursor { position: self.tail, entry: self.entry, written: self.entry }
    }

    #[inline(always)]
    fn until_end(&self, _cursor: &SplitCursor) -> u32 {
        u32::MAX
    }

    /// The descriptor alone; its available entry is written with all others.
    #[inline(always)]
    fn write(&self, cursor: &mut SplitCursor, piece: Piece) {
        self.descriptors.write_pair(cursor.position as usize, [piece.address, u64::from(piece.len) | u64::from(piece.kind.flags()) << 32]);
        cursor.position = cursor.position.wrapping_add(1);
        cursor.entry = cursor.entry.wrapping_add(1);
    }

    #[inline(always)]
    fn turn(&self, _cursor: &mut SplitCursor) {}

    #[inline(always)]
    fn put_chain(&self, cursor: &mut SplitCursor, count: usize, pieces: impl Iterator<Item = Piece>) {
        if cursor.written != cursor.entry {
            self.write_entries(cursor);
        }
        let head = cursor.position;
        for (number, piece) in pieces.enumerate() {
            let mut high = u64::from(piece.len) | u64::from(piece.kind.flags()) << 32;
            let next = cursor.position.wrapping_add(1);
            if number + 1 < count {
                high |= u64::from(NEXT) << 32 | u64::from(next & self.mask) << 48;
            }
            self.descriptors.write_pair(cursor.position as usize, [piece.address, high]);
            cursor.position = next;
        }
        self.available.write(cursor.entry.into(), ((head & self.mask) as u16).to_le());
        cursor.entry = cursor.entry.wrapping_add(1);
        cursor.written = cursor.entry;
    }

    fn publish(&mut self, mut cursor: SplitCursor) -> bool {
        let old = self.entry;
        self.settle(&mut cursor);
        self.order().write();
        self.store(self.driver_area + 2, cursor.entry);
        (self.tail, self.entry) = (cursor.position, cursor.entry);
        self.order().full();
        if self.config.event_idx {
            need_event(self.load(self.available_event()), cursor.entry, old)
        } else {
            self.load(self.device_area) & QUIET == 0
        }
    }

    #[inline(always)]
    fn peek(&mut self) -> Result<Option<Used>, Violation> {
        if self.next_used == self.seen {
            self.look()?;
            if self.next_used == self.seen {
                return Ok(None);
            }
        }
        Ok(Some(element(self.used.read(self.next_used.into()))))
    }

    #[inline(always)]
    fn ready(&mut self, most: u32) -> Result<u32, Violation> {
        if u32::from(self.seen.wrapping_sub(self.next_used)) < most {
            self.look()?;
        }
        Ok(u32::from(self.seen.wrapping_sub(self.next_used)).min(most))
    }

    #[inline(always)]
    fn lengths(&self, posted: Range<u32>) -> impl Iterator<Item = Option<u32>> {
        let (first, count) = (posted.start & self.mask, posted.end.wrapping_sub(posted.start));
        debug_assert_eq!(first, u32::from(self.next_used) & self.mask, "buffers of one descriptor are counted as positions are");
        let used = self.used.run(self.next_used.into(), count as usize).map(element);
        used.zip(first..).map(|(used, id)| (used.id == id).then_some(used.len))
    }

    /// The index counts all of them, and was moved at once.
    fn covers(&mut self, buffers: u32) -> Result<bool, Violation> {
        Ok(self.ready(buffers)? == buffers)
    }

    #[inline(always)]
    fn take_run(&mut self, posted: Range<u32>, descriptors: impl Fn(u32) -> u32) -> Result<(u32, bool), Violation> {
        self.look()?;
        // No more than were given, so never past the end of what is posted.
        let (start, available) = (usize::from(self.next_used), u32::from(self.seen.wrapping_sub(self.next_used)));
        let (mut position, mut count) = (posted.start, 0);
        while count < available && element(self.used.read(start + count as usize)).id == position & self.mask {
            position = position.wrapping_add(descriptors(position));
            count += 1;
        }
        self.next_used = self.next_used.wrapping_add(count as u16);
        Ok((count, count < available))
    }

    #[inline(always)]
    fn advance(&mut self, buffers: u16, _descriptors: u16) {
        self.next_used = self.next_used.wrapping_add(buffers);
    }

    /// The index says it all; no entry is read.
    fn take_in_order(&mut self, flight: &mut Flight) -> Result<u32, Violation> {
        self.look()?;
        let buffers = self.seen.wrapping_sub(self.next_used).into();
        if buffers > 0 {
            flight.take(buffers)?;
            self.next_used = self.seen;
        }
        Ok(buffers)
    }

    fn has_used(&self) -> bool {
        self.load(self.device_area + 2) != self.next_used
    }

    fn arm(&mut self) {
        if self.config.event_idx {
            self.store(self.used_event(), self.next_used);
        } else {
            self.store(self.driver_area, 0);
        }
        self.order().full();
    }

    fn disarm(&mut self) {
        if self.config.event_idx {
            // As far away as can be: all but one of the next 65,536.
            self.store(self.used_event(), self.next_used.wrapping_sub(1));
        } else {
            self.store(self.driver_area, QUIET);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;
    use crate::testing;

    #[test]
    fn lengths_are_those_of_the_buffers_that_were_posted_there() {
        let (space, mut ring) = testing::ring::<SplitRing>(4);
        let used = ring.layout().device;
        for lap in 0..5 {
            let (first, mut cursor) = (4 * lap, ring.cursor());
            (0..4).for_each(|_| ring.put(&mut cursor, Piece { address: 0x1000, len: 100, kind: Kind::Write }));
            ring.publish(cursor);
            assert_eq!(ring.ready(9).unwrap(), 0, "lap {lap}");
            for (place, id) in [(0, 0_u32), (1, 1), (2, 3), (3, 3)] {
                let element = u64::from(id) | (10 + place) << 32;
                space.write(used + 4 + 8 * place, &element.to_le_bytes());
            }
            space.write(used + 2, &(first as u16 + 4).to_le_bytes());
            assert_eq!((ring.ready(3).unwrap(), ring.ready(9).unwrap()), (3, 4));
            let lengths = ring.lengths(first..first + 4).collect::<Vec<_>>();
            assert_eq!(lengths, [Some(10), Some(11), None, Some(13)], "another buffer is none");
            ring.advance(2, 2);
            assert_eq!(ring.lengths(first + 2..first + 6).collect::<Vec<_>>(), [None, Some(13)], "up to the end of the ring");
            ring.advance(2, 2);
        }
    }
}
