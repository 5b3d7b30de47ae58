//! What is done for nearly every packet: it is taken, and a buffer posted in its place. Each a loop by itself, not inlined, which is little enough to stay
//! in registers.

use hal::{Buffer, Pool, RxBurst};

use crate::header::{self, WORDS};
use crate::ring::{Kind, Piece, Ring};

/// What [`take`] found.
pub(super) struct Plain {
    /// Packets, and their bytes.
    pub(super) count: usize,
    pub(super) bytes: u64,
    /// Whether a buffer came that is something else.
    pub(super) stopped: bool,
}

/// Takes the used buffers out of these slots, up to the first that does not hold a packet with nothing in its header. The first one was posted at
/// `position`.
#[inline(never)]
pub(super) fn take<R: Ring, const MERGEABLE: bool>(
    ring: &R,
    position: u32,
    slots: &mut [Option<Buffer>],
    burst: &mut RxBurst,
    fetch: bool,
) -> Plain {
    let mut lengths = ring.lengths(position..position.wrapping_add(slots.len() as u32));
    let (mut bytes, mut stopped) = (0, false);
    let count = burst.take_plain(slots, |buffer| {
        // Nothing more is used, so nothing else either.
        let Some(written) = lengths.next() else { return false };
        let plain = written.is_some_and(|written| {
            // Flags and kind of segmentation.
            let special = buffer.prefix_word::<WORDS, 0>() as u16 != 0;
            let several = MERGEABLE && header::buffers_of(buffer.prefix_word::<WORDS, 2>()) != 1;
            // A shorter one has a length beyond any buffer's then.
            let len = written.wrapping_sub(header::HEADER);
            let plain = !special && !several && buffer.try_fill(len);
            if plain {
                bytes += u64::from(len);
            }
            plain
        });
        if plain && fetch {
            buffer.fetch();
        }
        stopped = !plain;
        plain
    });
    Plain { count, bytes, stopped }
}

/// Posts buffers of the pool, of `len` bytes with what is in front of them, in these slots, the next ones of the ring up to its end: as many as there
/// are, up to the first slot that is not free, which is a buffer's that the device used later than others, and is filled in its turn. The first
/// buffer of the pool would be at `base`. Returns how many.
#[inline(never)]
pub(super) fn fill<R: Ring>(ring: &R, cursor: &mut R::Cursor, slots: &mut [Option<Buffer>], pool: &mut Pool, base: u64, len: u32) -> usize {
    let mut at = *cursor;
    let count = pool.fill(slots, |place| ring.write(&mut at, Piece { address: base.wrapping_add(place), len, kind: Kind::Write }));
    ring.turn(&mut at);
    *cursor = at;
    count
}
