//! The split layout (2.7): a table of descriptors, a ring of what is available, a ring of what is used.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hal::barrier::Order;
use hal::virtio::QueueLayout;
use hal::{DmaError, DmaMemory, DmaSpace, Table};

use super::{Cursor, Flight, NEXT, Piece, Ring, RingConfig, Used, Violation, need_event};

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
    /// The next used entry, and how far the device was when it was last asked.
    next_used: u16,
    seen: u16,
}

#[derive(Clone, Copy)]
pub(crate) struct SplitCursor {
    position: u32,
    entry: u16,
}

impl Cursor for SplitCursor {
    #[inline(always)]
    fn position(&self) -> u32 {
        self.position
    }
}

impl SplitRing {
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

#[cold]
#[inline(never)]
fn overrun(index: u16, next: u16, outstanding: u16) -> Violation {
    Violation(format!("its used index went from {next} to {index}, and {outstanding} buffers were in flight"))
}

impl Ring for SplitRing {
    type Cursor = SplitCursor;
    const LINKED: bool = true;

    fn new(space: &Arc<dyn DmaSpace>, name: &str, config: RingConfig) -> Result<Self, DmaError> {
        let size = usize::from(config.size);
        let driver_area = 16 * size;
        // Entries of the used ring lie behind two words; so they begin with a line, and are read in one access.
        let device_area = (driver_area + 6 + 2 * size).next_multiple_of(LINE) + LINE - 4;
        let memory = Arc::new(DmaMemory::new(space, name, device_area + 6 + 8 * size)?);
        let mut this = Self {
            descriptors: Table::new(&memory, 0, size),
            available: Table::new(&memory, driver_area + 4, size),
            used: Table::new(&memory, device_area + 4, size),
            memory,
            driver_area,
            device_area,
            config,
            mask: u32::from(config.size) - 1,
            tail: 0,
            entry: 0,
            next_used: 0,
            seen: 0,
        };
        this.restart();
        Ok(this)
    }

    #[inline(always)]
    fn fetch(&self, places: u32) {
        self.descriptors.fetch(self.tail as usize, places as usize);
        self.available.fetch(self.entry.into(), places as usize);
    }

    fn layout(&self) -> QueueLayout {
        let base = self.memory.iova();
        QueueLayout {
            size: self.config.size,
            descriptors: base,
            driver: base + self.driver_area as u64,
            device: base + self.device_area as u64,
        }
    }

    fn restart(&mut self) {
        let memory = self.memory.memory();
        memory.write_bytes(0, &vec![0; self.available_event() + 2]);
        (self.tail, self.entry, self.next_used, self.seen) = (0, 0, 0, 0);
        self.disarm();
    }

    fn cursor(&self) -> SplitCursor {
        SplitCursor { position: self.tail, entry: self.entry }
    }

    #[inline(always)]
    fn put(&self, cursor: &mut SplitCursor, piece: Piece) {
        let SplitCursor { position, entry } = *cursor;
        self.descriptors.write_pair(position as usize, [piece.address, u64::from(piece.len) | u64::from(piece.kind.flags()) << 32]);
        self.available.write(entry.into(), ((position & self.mask) as u16).to_le());
        *cursor = SplitCursor { position: position.wrapping_add(1), entry: entry.wrapping_add(1) };
    }

    #[inline(always)]
    fn put_chain(&self, cursor: &mut SplitCursor, count: usize, pieces: impl Iterator<Item = Piece>) {
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
    }

    fn publish(&mut self, cursor: SplitCursor) -> bool {
        let old = self.entry;
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
        let element = u64::from_le(self.used.read(self.next_used.into()));
        Ok(Some(Used { id: element as u32, len: (element >> 32) as u32 }))
    }

    #[inline(always)]
    fn take_run(&mut self, first: u32, most: u32) -> Result<(u32, bool), Violation> {
        self.look()?;
        let available = u32::from(self.seen.wrapping_sub(self.next_used));
        let (start, most) = (usize::from(self.next_used), most.min(available));
        let mut count = 0;
        while count < most && u64::from_le(self.used.read(start + count as usize)) as u32 == first.wrapping_add(count) & self.mask {
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
