//! What has arrived: in order and not yet read, and a little out of order (RFC 2018 for how that is reported).

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

use super::{SackBlocks, Seq};

/// The most ranges out of order that are kept; what would be one more is dropped, and sent again by the peer.
const MAX_RANGES: usize = 16;
/// The memory that an empty buffer keeps.
const KEPT: usize = 1024;

/// The bytes between what was read and what the window allows, by position. Memory is taken for bytes that arrived only, not for what is missing
/// between them: a peer cannot have a window's worth of it for one segment at the window's end.
#[derive(Clone)]
pub(super) struct ReceiveBuffer {
    /// What is unread before `next`.
    bytes: VecDeque<u8>,
    /// Everything before has arrived.
    next: u64,
    /// What has arrived out of order, in chunks that do not touch; the latest first (RFC 2018 4).
    chunks: Vec<Chunk>,
    /// What the last segment brought that had arrived already (RFC 2883).
    duplicate: Option<Range<u64>>,
}

/// Bytes out of order, from a position on.
#[derive(Clone)]
struct Chunk {
    start: u64,
    bytes: Vec<u8>,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn range(&self) -> Range<u64> {
        self.start..self.end()
    }

    fn touches(&self, range: &Range<u64>) -> bool {
        self.start <= range.end && range.start <= self.end()
    }

    /// Goes on with `bytes`, the first of which is at `start`, at the end of the chunk or before; those that it has are skipped.
    fn append(&mut self, start: u64, bytes: &[u8]) {
        let known = (self.end() - start) as usize;
        self.bytes.extend_from_slice(bytes.get(known..).unwrap_or_default());
    }
}

/// What became of the bytes of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Inserted {
    /// How many bytes are new in order.
    pub in_order: u64,
    /// Whether something is missing before, or was, or all had arrived: an ACK is wanted at once (RFC 5681 4.2).
    pub irregular: bool,
}

impl ReceiveBuffer {
    pub fn new() -> Self {
        Self { bytes: VecDeque::new(), next: 0, chunks: Vec::new(), duplicate: None }
    }

    /// The position that is expected next, without a FIN.
    #[inline]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The SYN, which has position 0, has arrived.
    pub fn skip_syn(&mut self) {
        self.next = 1;
    }

    /// How many bytes can be read.
    #[inline]
    pub fn ready(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is something to report in a SACK option.
    #[inline]
    pub fn wants_sack(&self) -> bool {
        self.sack_blocks() > 0
    }

    /// How many blocks there are to report.
    #[inline]
    pub fn sack_blocks(&self) -> usize {
        self.chunks.len() + usize::from(self.duplicate.is_some())
    }

    /// The bytes of the heap that it holds.
    pub fn heap_bytes(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(|chunk| chunk.bytes.capacity()).sum();
        self.bytes.capacity() + self.chunks.capacity() * size_of::<Chunk>() + chunks
    }

    /// Takes the bytes from position `start` on. The caller has cut off what is behind the window.
    pub fn insert(&mut self, start: u64, payload: &[u8]) -> Inserted {
        let end = start + payload.len() as u64;
        if payload.is_empty() {
            return Inserted { in_order: 0, irregular: false };
        }
        if start == self.next && self.chunks.is_empty() {
            self.bytes.extend(payload);
            self.next = end;
            return Inserted { in_order: payload.len() as u64, irregular: false };
        }
        self.note_duplicate(start..end);
        if end <= self.next {
            return Inserted { in_order: 0, irregular: true };
        }
        let fresh = start.max(self.next);
        if !self.add(fresh, &payload[(fresh - start) as usize..]) {
            return Inserted { in_order: 0, irregular: true };
        }
        let before = self.next;
        if let Some(index) = self.chunks.iter().position(|chunk| chunk.start == before) {
            let chunk = self.chunks.remove(index);
            self.next = chunk.end();
            self.bytes.extend(&chunk.bytes);
        }
        if self.chunks.is_empty() {
            self.chunks = Vec::new();
        }
        Inserted { in_order: self.next - before, irregular: true }
    }

    /// Moves the next bytes to `out`, as many as there are and fit, and returns how many that were.
    pub fn read(&mut self, out: &mut [u8]) -> usize {
        let len = out.len().min(self.bytes.len());
        let (front, back) = self.bytes.as_slices();
        let split = front.len().min(len);
        out[..split].copy_from_slice(&front[..split]);
        out[split..len].copy_from_slice(&back[..len - split]);
        self.bytes.drain(..len);
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT {
            self.bytes = VecDeque::new();
        }
        len
    }

    /// Writes the blocks to report, `most` at most: the duplicate first (RFC 2883 4), then what arrived out of order, the latest first. A
    /// duplicate is reported once.
    pub fn take_sack(&mut self, origin: Seq, most: usize) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        for range in self.duplicate.take().into_iter().chain(self.ranges()).take(most) {
            blocks.push(origin + range.start, origin + range.end);
        }
        blocks
    }

    /// A segment with nothing new has brought `range`.
    pub fn note_arrived_before(&mut self, range: Range<u64>) {
        if range.start < range.end && range.end <= self.next {
            self.duplicate = Some(range);
        }
    }

    /// Remembers the first part of `range` that is here already.
    fn note_duplicate(&mut self, range: Range<u64>) {
        self.duplicate = if range.start < self.next {
            Some(range.start..range.end.min(self.next))
        } else {
            let known = self.ranges().find(|known| known.start < range.end && range.start < known.end);
            known.map(|known| known.start.max(range.start)..known.end.min(range.end))
        };
    }

    /// What has arrived out of order, the latest first.
    fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.chunks.iter().map(Chunk::range)
    }

    /// Adds bytes from `start` on, joined with the chunks that they touch, in the first place. Returns whether there was room.
    fn add(&mut self, start: u64, payload: &[u8]) -> bool {
        let range = start..start + payload.len() as u64;
        let touches = |chunk: &Chunk| chunk.touches(&range);
        if self.chunks.len() >= MAX_RANGES && start != self.next && !self.chunks.iter().any(touches) {
            return false;
        }
        let (mut joined, apart): (Vec<Chunk>, Vec<Chunk>) = std::mem::take(&mut self.chunks).into_iter().partition(touches);
        joined.sort_by_key(|chunk| chunk.start);
        let mut joined = joined.into_iter().peekable();
        // What goes on where a chunk ends is added to it: most of what comes behind a loss does.
        let mut chunk = joined.next_if(|chunk| chunk.start <= start).unwrap_or(Chunk { start, bytes: Vec::new() });
        chunk.append(start, payload);
        joined.for_each(|other| chunk.append(other.start, &other.bytes));
        self.chunks.push(chunk);
        self.chunks.extend(apart);
        true
    }
}

impl fmt::Debug for ReceiveBuffer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { next, duplicate, .. } = self;
        let (ready, ranges) = (self.ready(), self.ranges().collect::<Vec<_>>());
        write!(out, "ReceiveBuffer {{ next: {next}, ready: {ready}, ranges: {ranges:?}, duplicate: {duplicate:?} }}")
    }
}

#[cfg(test)]
mod tests;
