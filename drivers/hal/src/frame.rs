//! Frames to send, in bursts.
//!
//! A frame is a header in a pool buffer, payload segments (windows of files, or further buffers), and a request to the NIC. Frames are handed to a
//! queue in a [`Burst`], whose memory is used again: nothing is allocated for a frame.

use crate::offload::Offload;
use crate::pool::Buffer;
use crate::segment::Segment;

/// Frames to be posted together, in order.
///
/// ```
/// # use pagewire_hal as hal;
/// use hal::{Burst, Mapping, Offload, Pool, PoolConfig, segment::Domain};
/// let mut pool = Pool::new(PoolConfig::default())?;
/// let window = Mapping::new(Domain::new(), 0x1000, 8192);
///
/// let mut header = pool.take().unwrap();
/// header.set(&[0; 42]);
/// let mut burst = Burst::with_capacity(32);
/// burst.push(header, Offload::NONE);
/// burst.gather(window.segment(100, 1400).unwrap());
/// assert_eq!(burst.frames().next().unwrap().bytes, 1442);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Burst<'w> {
    heads: Vec<Head>,
    segments: Vec<Segment<'w>>,
    buffers: Vec<Buffer>,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    segments: u16,
    buffers: u16,
    bytes: u32,
    offload: Offload,
}

/// One frame of a burst, as a driver sees it.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'b, 'w> {
    /// What is gathered, header first. Never empty.
    pub segments: &'b [Segment<'w>],
    /// The request to the NIC.
    pub offload: &'b Offload,
    /// The sum of the segments' lengths.
    pub bytes: u32,
}

impl<'w> Burst<'w> {
    /// A burst with room for `frames` frames of a header and two segments before it has to allocate.
    pub fn with_capacity(frames: usize) -> Self {
        Self { heads: Vec::with_capacity(frames), segments: Vec::with_capacity(frames * 3), buffers: Vec::with_capacity(frames * 2) }
    }

    /// Starts a frame with `header` as its first segment.
    ///
    /// # Panics
    /// When the buffer is empty: no NIC takes an empty descriptor.
    #[inline]
    pub fn push(&mut self, header: Buffer, offload: Offload) {
        let segment = header.segment().expect("a frame's header has bytes");
        self.heads.push(Head { segments: 1, buffers: 1, bytes: segment.len(), offload });
        self.segments.push(segment);
        self.buffers.push(header);
    }

    /// Adds a segment to the last frame.
    ///
    /// # Panics
    /// When there is no frame yet.
    #[inline]
    pub fn gather(&mut self, segment: Segment<'w>) {
        let head = self.heads.last_mut().expect("a frame was pushed");
        head.segments += 1;
        head.bytes += segment.len();
        self.segments.push(segment);
    }

    /// Adds a buffer to the last frame: bytes that were copied, or a prepared block. An empty one adds nothing and returns to its pool.
    ///
    /// # Panics
    /// When there is no frame yet.
    #[inline]
    pub fn gather_buffer(&mut self, buffer: Buffer) {
        if let Some(segment) = buffer.segment() {
            self.gather(segment);
            self.buffers.push(buffer);
            self.heads.last_mut().expect("gathered above").buffers += 1;
        }
    }

    /// How many frames there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether there is no frame.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// The frames in order.
    #[inline]
    pub fn frames<'b>(&'b self) -> impl Iterator<Item = Frame<'b, 'w>> {
        let mut segments = self.segments.as_slice();
        self.heads.iter().map(move |head| {
            let (own, rest) = segments.split_at(usize::from(head.segments));
            segments = rest;
            Frame { segments: own, offload: &head.offload, bytes: head.bytes }
        })
    }

    /// For a queue: takes the first `frames` frames, which it has posted, out of the burst, and their buffers into its empty `keeper`. When that
    /// is all of them, the two vectors just change places.
    ///
    /// # Panics
    /// When `keeper` is not empty.
    #[inline]
    pub fn hand_over(&mut self, frames: usize, keeper: &mut Vec<Buffer>) {
        assert!(keeper.is_empty());
        if frames >= self.heads.len() {
            self.heads.clear();
            self.segments.clear();
            std::mem::swap(&mut self.buffers, keeper);
        } else {
            self.hand_over_part(frames, keeper);
        }
    }

    #[cold]
    fn hand_over_part(&mut self, frames: usize, keeper: &mut Vec<Buffer>) {
        let count = |of: fn(&Head) -> u16| self.heads[..frames].iter().map(|head| usize::from(of(head))).sum::<usize>();
        let (segments, buffers) = (count(|head| head.segments), count(|head| head.buffers));
        self.heads.drain(..frames);
        self.segments.drain(..segments);
        keeper.extend(self.buffers.drain(..buffers));
    }

    /// Forgets the frames; their buffers return to the pool.
    pub fn clear(&mut self) {
        self.heads.clear();
        self.segments.clear();
        self.buffers.clear();
    }

    /// An empty burst in the same memory, for segments of other windows.
    pub fn recycle<'v>(mut self) -> Burst<'v> {
        self.clear();
        // An empty vector of one lifetime collected into one of another: the standard library keeps the allocation.
        let segments = self.segments.into_iter().map(|_| unreachable!("cleared above")).collect();
        Burst { heads: self.heads, segments, buffers: self.buffers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{Pool, PoolConfig};
    use crate::segment::Domain;
    use crate::space::Mapping;

    fn header(pool: &mut Pool, len: usize) -> Buffer {
        let mut buffer = pool.take().unwrap();
        buffer.set_len(len);
        buffer
    }

    #[test]
    fn a_burst_keeps_each_frames_segments_apart() {
        let mut pool = Pool::new(PoolConfig { buffers: 8, buffer_size: 64 }).unwrap();
        let window = Mapping::new(Domain::new(), 0x1000, 4096);
        let mut burst = Burst::default();
        burst.push(header(&mut pool, 42), Offload::NONE);
        burst.gather(window.segment(0, 10).unwrap());
        burst.gather_buffer(header(&mut pool, 5));
        burst.gather_buffer(pool.take().unwrap());
        burst.push(header(&mut pool, 60), Offload::NONE);
        let lengths: Vec<Vec<u32>> = burst.frames().map(|frame| frame.segments.iter().map(Segment::len).collect()).collect();
        assert_eq!(lengths, [vec![42, 10, 5], vec![60]]);
        assert_eq!(burst.frames().map(|frame| frame.bytes).collect::<Vec<_>>(), [57, 60]);
    }

    #[test]
    fn what_is_handed_over_leaves_the_burst_and_the_rest_stays() {
        let mut pool = Pool::new(PoolConfig { buffers: 8, buffer_size: 64 }).unwrap();
        let mut burst = Burst::default();
        for len in [1, 2, 3] {
            burst.push(header(&mut pool, len), Offload::NONE);
            burst.gather_buffer(header(&mut pool, 10 * len));
        }
        let mut kept = Vec::new();
        burst.hand_over(2, &mut kept);
        assert_eq!(kept.iter().map(Buffer::len).collect::<Vec<_>>(), [1, 10, 2, 20]);
        assert_eq!(burst.frames().map(|frame| frame.bytes).collect::<Vec<_>>(), [33]);
        let mut rest = Vec::new();
        burst.hand_over(1, &mut rest);
        assert!(burst.is_empty());
        assert_eq!(rest.iter().map(Buffer::len).collect::<Vec<_>>(), [3, 30]);
    }

    #[test]
    fn a_recycled_burst_keeps_its_memory() {
        let mut pool = Pool::new(PoolConfig { buffers: 2, buffer_size: 64 }).unwrap();
        let mut burst = Burst::with_capacity(64);
        burst.push(header(&mut pool, 1), Offload::NONE);
        let (capacity, place) = (burst.segments.capacity(), burst.segments.as_ptr() as usize);
        let burst = burst.recycle();
        assert!(burst.is_empty());
        assert_eq!((burst.segments.capacity(), burst.segments.as_ptr() as usize), (capacity, place));
        assert_eq!(std::iter::from_fn(|| pool.take()).collect::<Vec<_>>().len(), 2);
    }
}
