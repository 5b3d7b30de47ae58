//! Tables of descriptors outside the ring (2.7.5.3, 2.8.7): a buffer of several pieces takes one descriptor.

use hal::Table;

use super::{Kind, NEXT, Piece, Place};

/// A table of [`ENTRIES`](Self::ENTRIES) descriptors for each place of a ring.
pub(crate) struct Indirect {
    table: Table<[u64; 2]>,
    /// Split rings link the entries; packed rings count them.
    linked: bool,
}

impl Indirect {
    /// The entries of a table: the pieces of nearly all frames. A longer frame lies in the ring.
    pub const ENTRIES: usize = 16;

    /// The bytes of the tables for a ring of `size` places.
    pub fn bytes(size: u16) -> usize {
        usize::from(size) * Self::ENTRIES * size_of::<[u64; 2]>()
    }

    /// Tables at this place, which has [so many](Self::bytes).
    pub fn new(Place { memory, at }: &Place, size: u16, linked: bool) -> Self {
        Self { table: Table::new(memory, *at, usize::from(size) * Self::ENTRIES), linked }
    }

    /// Starts the table of `position`, of `pieces` pieces, 1 to [`ENTRIES`](Self::ENTRIES).
    #[inline(always)]
    pub fn start(&self, position: u32, pieces: usize) -> Filling<'_> {
        let first = position as usize * Self::ENTRIES;
        Filling { indirect: self, first, next: first, last: first + pieces - 1 }
    }
}

/// A table that is being filled.
pub(crate) struct Filling<'i> {
    indirect: &'i Indirect,
    first: usize,
    next: usize,
    last: usize,
}

impl Filling<'_> {
    /// Writes the next piece.
    #[inline(always)]
    pub fn put(&mut self, piece: Piece) {
        let mut high = u64::from(piece.len);
        if !self.indirect.linked {
            high |= u64::from(piece.kind.flags()) << 48;
        } else if self.next < self.last {
            high |= u64::from(piece.kind.flags() | NEXT) << 32 | ((self.next - self.first) as u64 + 1) << 48;
        } else {
            high |= u64::from(piece.kind.flags()) << 32;
        }
        self.indirect.table.write_pair(self.next, [piece.address, high]);
        self.next += 1;
    }

    /// All pieces are written: the descriptor that names the table.
    #[inline(always)]
    pub fn piece(self) -> Piece {
        let table = &self.indirect.table;
        let size = size_of::<[u64; 2]>();
        let place = self.first & (table.len() - 1);
        Piece { address: table.iova() + (place * size) as u64, len: ((self.next - self.first) * size) as u32, kind: Kind::Indirect }
    }
}
