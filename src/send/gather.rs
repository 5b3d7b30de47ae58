//! Frames of file bytes that the device gathers.

use std::io;

use hal::{Burst, Offload, Pool};

use super::port::buffers_of;
use super::udp::Framing;
use crate::file::{RegularFile, Span};
use crate::net::{HEADER_ROOM, UdpFlow};

/// What the frames of a burst are made of.
pub(super) struct Datagrams<'a> {
    pub flow: &'a UdpFlow,
    pub framing: Framing,
    pub file: &'a RegularFile,
    /// The windows of the file's bytes in front of `mapped`.
    pub span: Option<Span<'a>>,
    pub mapped: u64,
    pub end: u64,
}

/// Why a frame could not be built.
pub(super) enum GatherError {
    /// The bytes that are in no window could not be read.
    Read(io::Error),
    /// The windows are shorter than they were said to be.
    Unmapped,
}

/// The headers of a flow's frames. A copy of it stays in registers.
#[derive(Clone, Copy)]
struct Headers {
    len: usize,
    /// Where the offset in the file goes, if anywhere.
    prefix: Option<usize>,
    offload: Offload,
}

impl Headers {
    fn new(flow: &UdpFlow, framing: Framing) -> Self {
        let prefix = (framing == Framing::Offset).then_some(flow.prefix().start);
        Self { len: flow.header_len(), prefix, offload: flow.offload() }
    }

    /// Starts a frame with this header block for the bytes at `position`. Whether there was a buffer for it.
    #[inline(always)]
    fn push(self, burst: &mut Burst<'_>, pool: &mut Pool, block: &mut [u8; HEADER_ROOM], position: u64) -> bool {
        let Some(mut header) = pool.take() else { return false };
        if let Some(prefix) = self.prefix.and_then(|prefix| block.get_mut(prefix..prefix + 8)) {
            prefix.copy_from_slice(&position.to_be_bytes());
        }
        header.set(block);
        header.set_len(self.len);
        burst.push(header, self.offload);
        true
    }
}

impl<'a> Datagrams<'a> {
    /// Adds at most `frames` frames of the bytes from `position` on, as long as there are buffers. `copy` is room for bytes that are in no
    /// window.
    pub fn push(
        &self,
        burst: &mut Burst<'a>,
        pool: &mut Pool,
        position: u64,
        frames: usize,
        copy: &mut Vec<u8>,
    ) -> Result<(), GatherError> {
        let mut position = self.push_full(burst, pool, position, frames)?;
        while burst.len() < frames && position < self.end {
            match self.push_any(burst, pool, position, copy)? {
                0 => break,
                len => position += len,
            }
        }
        Ok(())
    }

    /// Frames of the usual size, as far as their bytes are in windows. Returns where the file goes on. A function of its own, so that what is
    /// around it does not compete with the loop for registers.
    #[inline(never)]
    fn push_full(&self, burst: &mut Burst<'a>, pool: &mut Pool, mut position: u64, frames: usize) -> Result<u64, GatherError> {
        let Some(span) = self.span else { return Ok(position) };
        let (headers, payload) = (Headers::new(self.flow, self.framing), self.flow.payload() as u32);
        let mut block = *self.flow.full();
        let whole = self.mapped.saturating_sub(position) / u64::from(payload);
        for _ in 0..whole.min(frames as u64) {
            if !headers.push(burst, pool, &mut block, position) {
                break;
            }
            if span.gather(burst, position, payload) != payload {
                return Err(GatherError::Unmapped);
            }
            position += u64::from(payload);
        }
        Ok(position)
    }

    /// One frame of any size. Returns how many bytes of the file it has: none when there are no buffers.
    #[cold]
    fn push_any(&self, burst: &mut Burst<'a>, pool: &mut Pool, position: u64, copy: &mut Vec<u8>) -> Result<u64, GatherError> {
        let len = (self.flow.payload() as u64).min(self.end - position);
        let in_windows = if self.span.is_some() { self.mapped.saturating_sub(position).min(len) as u32 } else { 0 };
        copy.resize(len as usize - in_windows as usize, 0);
        if !copy.is_empty() {
            self.file.read_at(copy, position + u64::from(in_windows)).map_err(GatherError::Read)?;
        }
        let Some(copied) = buffers_of(pool, copy) else { return Ok(0) };
        if !Headers::new(self.flow, self.framing).push(burst, pool, &mut self.flow.header(len as usize), position) {
            return Ok(0);
        }
        if let Some(span) = &self.span
            && in_windows > 0
            && span.gather(burst, position, in_windows) != in_windows
        {
            return Err(GatherError::Unmapped);
        }
        copied.into_iter().flatten().for_each(|buffer| burst.gather_buffer(buffer));
        Ok(len)
    }
}
