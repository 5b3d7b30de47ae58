//! What has arrived: in order and not yet read, and a little out of order (RFC 2018 for how that is reported).

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

use super::{SackBlocks, Seq};

/// The most ranges out of order that are kept; what would be one more is dropped, and sent again by the peer.
const MAX_RANGES: usize = 16;
/// The memory that an empty buffer keeps.
const KEPT: usize = 1024;

/// The bytes between what was read and what the window allows, by position.
#[derive(Clone)]
pub(super) struct ReceiveBuffer {
    /// From the first unread byte to the furthest that arrived; what is between ranges is zero.
    bytes: VecDeque<u8>,
    /// Everything before has arrived.
    next: u64,
    /// The unread bytes before `next`.
    ready: usize,
    /// What has arrived out of order; the latest first (RFC 2018 4).
    ranges: Vec<Range<u64>>,
    /// What the last segment brought that had arrived already (RFC 2883).
    duplicate: Option<Range<u64>>,
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
        Self { bytes: VecDeque::new(), next: 0, ready: 0, ranges: Vec::new(), duplicate: None }
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
        self.ready
    }

    /// Whether there is something to report in a SACK option.
    #[inline]
    pub fn wants_sack(&self) -> bool {
        !self.ranges.is_empty() || self.duplicate.is_some()
    }

    /// The bytes of the heap that it holds.
    pub fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.ranges.capacity() * size_of::<Range<u64>>()
    }

    /// Takes the bytes from position `start` on. The caller has cut off what is behind the window.
    pub fn insert(&mut self, start: u64, payload: &[u8]) -> Inserted {
        let end = start + payload.len() as u64;
        if payload.is_empty() {
            return Inserted { in_order: 0, irregular: false };
        }
        if start == self.next && self.ranges.is_empty() {
            self.bytes.extend(payload);
            self.ready += payload.len();
            self.next = end;
            return Inserted { in_order: payload.len() as u64, irregular: false };
        }
        self.note_duplicate(start..end);
        if end <= self.next {
            return Inserted { in_order: 0, irregular: true };
        }
        let fresh = start.max(self.next);
        if !self.add_range(fresh..end) {
            return Inserted { in_order: 0, irregular: true };
        }
        self.copy_in(fresh, &payload[(fresh - start) as usize..]);
        let before = self.next;
        if let Some(index) = self.ranges.iter().position(|range| range.start == before) {
            self.next = self.ranges.remove(index).end;
            self.ready += (self.next - before) as usize;
        }
        if self.ranges.is_empty() {
            self.ranges = Vec::new();
        }
        Inserted { in_order: self.next - before, irregular: true }
    }

    /// Moves the next bytes to `out`, as many as there are and fit, and returns how many that were.
    pub fn read(&mut self, out: &mut [u8]) -> usize {
        let len = out.len().min(self.ready);
        let (front, back) = self.bytes.as_slices();
        let split = front.len().min(len);
        out[..split].copy_from_slice(&front[..split]);
        out[split..len].copy_from_slice(&back[..len - split]);
        self.bytes.drain(..len);
        self.ready -= len;
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT {
            self.bytes = VecDeque::new();
        }
        len
    }

    /// Writes the blocks to report, `most` at most: the duplicate first (RFC 2883 4), then what arrived out of order, the latest first. A
    /// duplicate is reported once.
    pub fn take_sack(&mut self, origin: Seq, most: usize) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        for range in self.duplicate.take().iter().chain(&self.ranges).take(most) {
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
            let known = self.ranges.iter().find(|known| known.start < range.end && range.start < known.end);
            known.map(|known| known.start.max(range.start)..known.end.min(range.end))
        };
    }

    /// Adds a range, joined with those that it touches, in the first place. Returns whether there was room.
    fn add_range(&mut self, mut range: Range<u64>) -> bool {
        let touches = |known: &Range<u64>, range: &Range<u64>| known.start <= range.end && range.start <= known.end;
        if self.ranges.len() >= MAX_RANGES && range.start != self.next && !self.ranges.iter().any(|known| touches(known, &range)) {
            return false;
        }
        self.ranges.retain(|known| {
            let joined = touches(known, &range);
            if joined {
                range = range.start.min(known.start)..range.end.max(known.end);
            }
            !joined
        });
        self.ranges.insert(0, range);
        true
    }

    fn copy_in(&mut self, start: u64, payload: &[u8]) {
        let at = self.ready + (start - self.next) as usize;
        let end = at + payload.len();
        if end > self.bytes.len() {
            self.bytes.resize(end, 0);
        }
        let (front, back) = self.bytes.as_mut_slices();
        let split = front.len().clamp(at, end) - at;
        if split > 0 {
            front[at..at + split].copy_from_slice(&payload[..split]);
        }
        if split < payload.len() {
            let from = at + split - front.len();
            back[from..from + payload.len() - split].copy_from_slice(&payload[split..]);
        }
    }
}

impl fmt::Debug for ReceiveBuffer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { next, ready, ranges, duplicate, .. } = self;
        write!(out, "ReceiveBuffer {{ next: {next}, ready: {ready}, ranges: {ranges:?}, duplicate: {duplicate:?} }}")
    }
}

#[cfg(test)]
mod tests;
