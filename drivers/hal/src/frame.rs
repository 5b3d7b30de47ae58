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
/// assert_eq!(burst.frames().next().unwrap().bytes(), 1442);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Burst<'w> {
    heads: Vec<FrameHead>,
    segments: Vec<Segment<'w>>,
    buffers: Vec<Buffer>,
}

/// A frame's header, and what follows it in the burst's other vectors.
#[derive(Debug)]
pub(crate) struct FrameHead {
    pub(crate) header: Buffer,
    offload: Offload,
    segments: usize,
}

impl FrameHead {
    /// Of a received packet, which is sent on as it is.
    #[inline(always)]
    pub(crate) fn of_received(header: Buffer) -> Self {
        Self { header, offload: Offload::NONE, segments: 0 }
    }
}

/// One frame of a burst, as a driver sees it.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'b, 'w> {
    /// The header: the first to be gathered. Never empty.
    pub header: &'b Buffer,
    /// What is gathered behind it.
    pub segments: &'b [Segment<'w>],
    /// The request to the NIC.
    pub offload: &'b Offload,
}

impl Frame<'_, '_> {
    /// The bytes of header and segments; 4 GiB and more, too long for any device, are `u32::MAX`.
    #[inline]
    pub fn bytes(&self) -> u32 {
        self.segments.iter().fold(self.header.len() as u32, |bytes, segment| bytes.saturating_add(segment.len()))
    }
}

/// The frames of a burst, in order.
#[derive(Debug, Clone)]
pub struct Frames<'b, 'w> {
    heads: std::slice::Iter<'b, FrameHead>,
    segments: &'b [Segment<'w>],
}

impl<'b, 'w> Frames<'b, 'w> {
    /// Header and segments of all frames that are left.
    #[inline]
    pub fn pieces(&self) -> usize {
        self.heads.len() + self.segments.len()
    }

    /// Goes through frames that have loops of their own, by how much they gather: `write` is told how many segments the next frame has, takes as many frames
    /// as it can, and returns those behind them. Returns what is left when it took none.
    #[inline(always)]
    pub fn in_runs(mut self, mut write: impl FnMut(usize, Self) -> Self) -> Self {
        while let Some(head) = self.heads.as_slice().first() {
            let (before, segments) = (self.len(), head.segments);
            self = write(segments, self);
            if self.len() == before {
                break;
            }
        }
        self
    }

    /// Header and request of the next frames, up to the first that gathers something, at most `most`. Less to carry along than
    /// [`split_first`](Self::split_first); [`behind`](Self::behind) goes on behind those that were dealt with.
    #[inline(always)]
    pub fn singles(&self, most: usize) -> impl Iterator<Item = (&'b Buffer, &'b Offload)> + use<'b> {
        let heads = self.heads.as_slice();
        let heads = heads.get(..most).unwrap_or(heads).iter();
        heads.map_while(|head| (head.segments == 0).then_some((&head.header, &head.offload)))
    }

    /// The same for frames that gather one segment.
    #[inline(always)]
    pub fn pairs(&self, most: usize) -> impl Iterator<Item = (&'b Buffer, &'b Segment<'w>, &'b Offload)> + use<'b, 'w> {
        let heads = self.heads.as_slice();
        let heads = heads.get(..most).unwrap_or(heads).iter();
        heads.zip(self.segments).map_while(|(head, segment)| (head.segments == 1).then_some((&head.header, segment, &head.offload)))
    }

    /// The frames behind the next `frames`, which gather `segments` each.
    #[inline(always)]
    pub fn behind(&self, frames: usize, segments: usize) -> Self {
        let heads = self.heads.as_slice().get(frames..).unwrap_or_default().iter();
        Self { heads, segments: self.segments.get(frames * segments..).unwrap_or_default() }
    }

    /// The next frame, and those after it.
    #[inline(always)]
    pub fn split_first(&self) -> Option<(Frame<'b, 'w>, Self)> {
        let mut heads = self.heads.clone();
        let head = heads.next()?;
        let (segments, after) = self.segments.split_at_checked(head.segments)?;
        Some((Frame { header: &head.header, segments, offload: &head.offload }, Self { heads, segments: after }))
    }
}

impl ExactSizeIterator for Frames<'_, '_> {}

impl<'b, 'w> Iterator for Frames<'b, 'w> {
    type Item = Frame<'b, 'w>;

    #[inline(always)]
    fn next(&mut self) -> Option<Frame<'b, 'w>> {
        let (frame, after) = self.split_first()?;
        *self = after;
        Some(frame)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.heads.size_hint()
    }
}

/// The shortest and the longest frame that a request or a device takes, in bytes; the longest is not shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// The shortest.
    pub least: u32,
    /// The longest.
    pub most: u32,
}

impl Lengths {
    /// Whether a frame may have so many bytes.
    #[inline(always)]
    pub fn fit(&self, bytes: u64) -> bool {
        // One comparison, where a range takes two.
        bytes.wrapping_sub(self.least.into()) <= u64::from(self.most - self.least)
    }
}

/// The buffers of posted frames: they belong to the device until the queue gives them back. Its memory is used again.
#[derive(Debug, Default)]
pub struct InFlight {
    heads: Vec<FrameHead>,
    buffers: Vec<Buffer>,
}

impl InFlight {
    /// The frames are completed: their buffers return to their pools, those of one pool by one atomic operation.
    #[inline]
    pub fn give_back(&mut self) {
        self.give::<false>();
    }

    /// The same where a device on another processor has read the headers: gets their cache lines, since they will be written again.
    #[inline]
    pub fn give_back_claiming(&mut self) {
        self.give::<true>();
    }

    #[inline(always)]
    fn give<const CLAIM: bool>(&mut self) {
        Buffer::give_back::<_, CLAIM>(&mut self.heads, |head| &head.header);
        Buffer::give_back::<_, false>(&mut self.buffers, |buffer| buffer);
    }
}

impl<'w> Burst<'w> {
    /// A burst with room for `frames` frames of a header and two segments before it has to allocate.
    pub fn with_capacity(frames: usize) -> Self {
        Self { heads: Vec::with_capacity(frames), segments: Vec::with_capacity(frames * 2), buffers: Vec::new() }
    }

    /// Starts a frame with `header` as its first segment.
    ///
    /// # Panics
    /// When the buffer is empty: no NIC takes an empty descriptor.
    #[inline(always)]
    pub fn push(&mut self, header: Buffer, offload: Offload) {
        header.expect_bytes();
        if self.heads.len() == self.heads.capacity() {
            return self.push_and_grow(header, offload);
        }
        self.heads.push(FrameHead { header, offload, segments: 0 });
    }

    /// Apart from [`push`](Self::push), so that there the header need not be in memory for the case that no room is to be had.
    #[cold]
    #[inline(never)]
    fn push_and_grow(&mut self, header: Buffer, offload: Offload) {
        self.heads.push(FrameHead { header, offload, segments: 0 });
    }

    /// Moves frames that have bytes, and gather nothing, behind those that there are. When there are none, vectors just change places.
    #[inline(always)]
    pub(crate) fn append(&mut self, frames: &mut Vec<FrameHead>) {
        if self.heads.is_empty() {
            std::mem::swap(&mut self.heads, frames);
        } else {
            self.heads.append(frames);
        }
    }

    /// Adds a segment to the last frame.
    ///
    /// # Panics
    /// When there is no frame yet.
    #[inline(always)]
    pub fn gather(&mut self, segment: Segment<'w>) {
        self.heads.last_mut().expect("a frame was pushed").segments += 1;
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
    pub fn frames<'b>(&'b self) -> Frames<'b, 'w> {
        Frames { heads: self.heads.iter(), segments: &self.segments }
    }

    /// For a queue: takes the first `frames` frames, which it has posted, out of the burst, and their buffers into its empty `keeper`. When that
    /// is all of them, vectors just change places.
    ///
    /// # Panics
    /// When `keeper` is not empty.
    #[inline]
    pub fn hand_over(&mut self, frames: usize, keeper: &mut InFlight) {
        assert!(keeper.heads.is_empty() && keeper.buffers.is_empty());
        if frames >= self.heads.len() {
            self.segments.clear();
            std::mem::swap(&mut self.heads, &mut keeper.heads);
            if !self.buffers.is_empty() {
                std::mem::swap(&mut self.buffers, &mut keeper.buffers);
            }
        } else {
            self.hand_over_part(frames, keeper);
        }
    }

    #[cold]
    fn hand_over_part(&mut self, frames: usize, keeper: &mut InFlight) {
        keeper.heads.extend(self.heads.drain(..frames));
        let segments: usize = keeper.heads.iter().map(|head| head.segments).sum();
        // Buffers were gathered in the order of their segments, and only a buffer's own segment is where it is.
        let mut buffers = self.buffers.iter().peekable();
        for segment in self.segments.drain(..segments) {
            buffers.next_if(|buffer| buffer.segment() == Some(segment));
        }
        let buffers = self.buffers.len() - buffers.len();
        keeper.buffers.extend(self.buffers.drain(..buffers));
    }

    /// Forgets the frames; their buffers return to the pool.
    #[inline]
    pub fn clear(&mut self) {
        if !self.is_empty() {
            self.drop_frames();
        }
    }

    #[cold]
    fn drop_frames(&mut self) {
        self.heads.clear();
        self.segments.clear();
        self.buffers.clear();
    }

    /// An empty burst in the same memory, for segments of other windows.
    #[inline]
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
        let lengths: Vec<(usize, Vec<u32>)> =
            burst.frames().map(|frame| (frame.header.len(), frame.segments.iter().map(Segment::len).collect())).collect();
        assert_eq!(lengths, [(42, vec![10, 5]), (60, vec![])]);
        assert_eq!(burst.frames().map(|frame| frame.bytes()).collect::<Vec<_>>(), [57, 60]);
    }

    #[test]
    fn what_is_handed_over_leaves_the_burst_and_the_rest_stays() {
        let mut pool = Pool::new(PoolConfig { buffers: 8, buffer_size: 64 }).unwrap();
        let mut burst = Burst::default();
        for len in [1, 2, 3] {
            burst.push(header(&mut pool, len), Offload::NONE);
            burst.gather_buffer(header(&mut pool, 10 * len));
        }
        let mut kept = InFlight::default();
        burst.hand_over(2, &mut kept);
        assert_eq!((kept.heads.len(), kept.buffers.len()), (2, 2));
        assert_eq!(burst.frames().map(|frame| frame.bytes()).collect::<Vec<_>>(), [33]);
        let mut rest = InFlight::default();
        burst.hand_over(1, &mut rest);
        assert!(burst.is_empty());
        let free: Vec<Buffer> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(free.len(), 2, "six are in flight");
        drop(free);
        kept.give_back();
        rest.give_back();
        assert_eq!(std::iter::from_fn(|| pool.take()).collect::<Vec<_>>().len(), 8);
    }

    #[test]
    fn a_recycled_burst_keeps_its_memory() {
        let mut pool = Pool::new(PoolConfig { buffers: 2, buffer_size: 64 }).unwrap();
        let mut burst = Burst::with_capacity(64);
        let window = Mapping::new(Domain::new(), 0x1000, 4096);
        burst.push(header(&mut pool, 1), Offload::NONE);
        burst.gather(window.segment(0, 1).unwrap());
        let (capacity, place) = (burst.segments.capacity(), burst.segments.as_ptr() as usize);
        let burst = burst.recycle();
        assert!(burst.is_empty());
        assert_eq!((burst.segments.capacity(), burst.segments.as_ptr() as usize), (capacity, place));
        assert_eq!(std::iter::from_fn(|| pool.take()).collect::<Vec<_>>().len(), 2);
    }

    #[test]
    fn what_comes_back_from_another_processor_is_claimed_when_it_was_written() {
        let mut pool = Pool::new(PoolConfig { buffers: 3, buffer_size: 64 }).unwrap();
        let mut buffers: Vec<Buffer> = std::iter::from_fn(|| pool.take()).collect();
        buffers.iter_mut().for_each(|buffer| buffer.set(&[7; 64]));
        drop(buffers);
        // A line is claimed by a store of zeros to the start of it.
        for (claims, claimed) in [(false, 0), (true, 1)] {
            let mut written = header(&mut pool, 64);
            written.write(0, &[7]);
            let mut burst = Burst::default();
            burst.push(header(&mut pool, 64), Offload::NONE);
            burst.push(written, Offload::NONE);
            let mut kept = InFlight::default();
            burst.hand_over(2, &mut kept);
            if claims {
                kept.give_back_claiming();
            } else {
                kept.give_back();
            }
            let buffers: Vec<Buffer> = std::iter::from_fn(|| pool.take()).collect();
            let starting_with = |bytes: [u8; 8]| {
                let starts = |buffer: &&Buffer| {
                    let mut start = [0; 8];
                    buffer.read(0, &mut start);
                    start == bytes
                };
                buffers.iter().filter(starts).count()
            };
            assert_eq!((starting_with([0; 8]), starting_with([7; 8])), (claimed, 3 - claimed));
        }
    }
}
