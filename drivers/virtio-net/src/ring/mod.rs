//! The two layouts of a virtqueue behind one trait (VIRTIO 1.3, 2.7 and 2.8).
//!
//! A ring here is used first in, first out: a buffer takes the descriptors at the running *position*, its identifier is the position's place
//! in the ring, and a place is written again only when everything posted before it is back. So there is no list of free
//! descriptors, an identifier in flight is unique, and whatever order a device uses buffers in, at worst a place is free later.
//!
//! | room | holds |
//! |---|---|
//! | `split`, `packed` | the layouts |
//! | `flight` | what is in flight: the driver's own record, by which completions are checked |
//! | `indirect` | tables of descriptors outside the ring |

mod flight;
mod indirect;
mod packed;
mod split;

use std::ops::Range;
use std::sync::Arc;

use hal::barrier::Order;
use hal::memory::PAGE;
use hal::virtio::QueueLayout;
use hal::{DmaError, DmaMemory, DmaSpace};

pub(crate) use flight::{Flight, InFlightRun};
pub(crate) use indirect::Indirect;
pub(crate) use packed::PackedRing;
pub(crate) use split::SplitRing;

/// How a ring is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingConfig {
    /// Descriptors, a power of two.
    pub size: u16,
    /// EVENT_IDX was accepted.
    pub event_idx: bool,
    /// For whom memory is ordered.
    pub order: Order,
}

/// Where a ring lies. Those of all pairs of queues of a NIC share one memory: a back end may take no more than eight regions (vhost-user).
#[derive(Clone)]
pub(crate) struct Place {
    pub memory: Arc<DmaMemory>,
    /// In bytes, a multiple of a cache line.
    pub at: usize,
}

impl Place {
    /// The start of new memory of the device's space, of so many bytes.
    pub fn new(space: &Arc<dyn DmaSpace>, name: &str, bytes: usize) -> Result<Self, DmaError> {
        Ok(Self { memory: Arc::new(DmaMemory::new(space, name, bytes)?), at: 0 })
    }

    /// The first bytes of it; the place goes on [behind them](Self::span).
    pub fn take(&mut self, bytes: usize) -> Self {
        let first = self.clone();
        self.at += Self::span(bytes);
        first
    }

    /// What so many bytes take up: whole pages.
    pub fn span(bytes: usize) -> usize {
        bytes.next_multiple_of(PAGE)
    }
}

/// A piece of a buffer: a bus address, a length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub address: u64,
    pub len: u32,
    pub kind: Kind,
}

/// What the device does with a descriptor's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It reads it.
    Read,
    /// It writes it.
    Write,
    /// It reads descriptors in it.
    Indirect,
}

/// The chain goes on.
const NEXT: u16 = 1;
/// The device writes.
const WRITE: u16 = 2;
/// The descriptor names a table.
const INDIRECT: u16 = 4;

impl Kind {
    #[inline(always)]
    fn flags(self) -> u16 {
        match self {
            Self::Read => 0,
            Self::Write => WRITE,
            Self::Indirect => INDIRECT,
        }
    }
}

/// A buffer that the device has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    /// Which one; not checked.
    pub id: u32,
    /// How many bytes the device says it has written; not checked.
    pub len: u32,
}

/// The device wrote what it must not; the text says what.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation(pub String);

/// How far a burst is written. Small enough to stay in registers.
pub(crate) trait Cursor: Copy {
    /// The position that is written next.
    fn position(&self) -> u32;
}

/// One layout. The caller makes sure that positions are free before they are written.
pub(crate) trait Ring: Send + Sized {
    /// Where a burst is written.
    type Cursor: Cursor;

    /// Whether descriptors of a table name the next one, or are simply counted.
    const LINKED: bool;

    /// The bytes of a ring.
    fn bytes(config: RingConfig) -> usize;

    /// A ring at this place, which has at least so many.
    fn new(place: Place, config: RingConfig) -> Self;

    /// A ring in new memory of the device's space.
    fn alone(space: &Arc<dyn DmaSpace>, name: &str, config: RingConfig) -> Result<Self, DmaError> {
        Ok(Self::new(Place::new(space, name, Self::bytes(config))?, config))
    }

    /// So many places from a position on, which are free, are to be written soon: gets their cache lines, which a device on another processor has
    /// read.
    fn claim(&self, position: u32, places: u32);

    /// Where its parts are.
    fn layout(&self) -> QueueLayout;

    /// The device is stopped: the ring is as new.
    fn restart(&mut self);

    /// Behind what was published last.
    fn cursor(&self) -> Self::Cursor;

    /// How many places there are from the cursor on up to the end of the ring, or to where the layout does not mind.
    fn until_end(&self, cursor: &Self::Cursor) -> u32;

    /// Writes a buffer of one descriptor. At the end of the ring [`turn`](Self::turn) comes before the next.
    fn write(&self, cursor: &mut Self::Cursor, piece: Piece);

    /// Begins again with the first place when the last one was written.
    fn turn(&self, cursor: &mut Self::Cursor);

    /// Writes a buffer of one descriptor, wherever.
    #[inline(always)]
    fn put(&self, cursor: &mut Self::Cursor, piece: Piece) {
        self.write(cursor, piece);
        self.turn(cursor);
    }

    /// Writes a buffer of `count` descriptors, which is how many pieces there are.
    fn put_chain(&self, cursor: &mut Self::Cursor, count: usize, pieces: impl Iterator<Item = Piece>);

    /// Writes a buffer of two descriptors.
    #[inline(always)]
    fn put_pair(&self, cursor: &mut Self::Cursor, pieces: [Piece; 2]) {
        self.put_chain(cursor, 2, pieces.into_iter());
    }

    /// Makes what was written visible to the device, which has done nothing with it before. Returns whether the device wants its doorbell rung.
    fn publish(&mut self, cursor: Self::Cursor) -> bool;

    /// The next used buffer, if there is one. It stays the next one until [`advance`](Self::advance).
    fn peek(&mut self) -> Result<Option<Used>, Violation>;

    /// How many of the next used buffers there are, `most` at most; all of one descriptor. Where the device does not count them, but marks each: whether
    /// there is one, and how many there may be.
    fn ready(&mut self, most: u32) -> Result<u32, Violation>;

    /// The next used buffers, which are [`ready`](Self::ready), none behind the end of the ring: how many bytes the device says it has written to each, as
    /// long as they are those of one descriptor that were posted at these positions; and `None` for another. Where they are marked it ends with the last.
    fn lengths(&self, posted: Range<u32>) -> impl Iterator<Item = Option<u32>>;

    /// With IN_ORDER: whether the next used entry can stand for so many buffers.
    fn covers(&mut self, buffers: u32) -> Result<bool, Violation>;

    /// Takes the next used buffers, as long as they are those that were posted at these positions, oldest first. `descriptors` says how many the buffer
    /// at a position has. Returns how many buffers, and whether there are more, which are others.
    fn take_run(&mut self, posted: Range<u32>, descriptors: impl Fn(u32) -> u32) -> Result<(u32, bool), Violation>;

    /// So many used buffers, and the descriptors that they had, were taken.
    fn advance(&mut self, buffers: u16, descriptors: u16);

    /// With IN_ORDER: takes everything that is used, by the fewest reads. Returns how many buffers.
    fn take_in_order(&mut self, flight: &mut Flight) -> Result<u32, Violation>;

    /// Whether a buffer was used that was not taken yet.
    fn has_used(&self) -> bool;

    /// Asks for an interrupt with the next used buffer. The caller looks at the ring once more afterwards.
    fn arm(&mut self);

    /// Asks for no more interrupts.
    fn disarm(&mut self);
}

/// Whether the step from `old` to `new` passes `event` (2.7.7.1), all of them counts that wrap.
#[inline(always)]
fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use hal::barrier::Order;

    use super::*;
    use crate::testing::TestSpace;

    fn stays_at_its_place<R: Ring>() {
        let space: Arc<dyn DmaSpace> = TestSpace::new();
        for size in [2, 8, 256] {
            let config = RingConfig { size, event_idx: true, order: Order::Processors };
            let bytes = R::bytes(config);
            let mut place = Place::new(&space, "test", 3 * bytes.next_multiple_of(PAGE)).unwrap();
            let memory = Arc::clone(&place.memory);
            let [first, own, last] = [place.take(bytes), place.take(bytes), place.take(bytes)];
            assert!(first.at + bytes <= own.at && own.at + bytes <= last.at && last.at + bytes <= memory.memory().len());
            let all = memory.memory().len();
            memory.memory().write_bytes(0, &vec![0xaa; all]);
            let (start, end) = (own.at, own.at + bytes);
            let mut ring = R::new(own, config);
            ring.restart();
            let layout = ring.layout();
            assert_eq!(layout.descriptors, memory.iova() + start as u64);
            assert!([layout.driver, layout.device].iter().all(|part| (start..end).contains(&((part - memory.iova()) as usize))));
            let mut now = vec![0; all];
            memory.memory().read_bytes(0, &mut now);
            assert!(now[..start].iter().chain(&now[end..]).all(|byte| *byte == 0xaa), "neighbours are as they were");
            assert!(now[start..start + 16 * usize::from(size)].iter().all(|byte| *byte == 0), "and it is as new");
        }
    }

    #[test]
    fn rings_keep_to_their_places() {
        stays_at_its_place::<SplitRing>();
        stays_at_its_place::<PackedRing>();
    }

    #[test]
    fn an_event_is_passed_across_the_wrap_too() {
        for base in [0_u16, 100, 0xfff0, 0xffff] {
            let at = |steps: u16| base.wrapping_add(steps);
            assert!(need_event(at(0), at(1), at(0)));
            assert!(need_event(at(3), at(5), at(2)));
            assert!(need_event(at(4), at(5), at(2)));
            assert!(!need_event(at(5), at(5), at(2)));
            assert!(!need_event(at(1), at(5), at(2)));
            assert!(!need_event(at(7), at(7), at(7)), "nothing was added");
        }
    }
}
