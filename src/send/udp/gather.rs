//! The gathering way: frames of file bytes that the device reads itself.

use std::io;

use hal::{Burst, Offload, Pool};

use super::post::Posted;
use super::{Content, UdpSend};
use crate::file::{CacheError, RegularFile, Span};
use crate::net::{HEADER_ROOM, UdpFlow};
use crate::send::options::Framing;
use crate::send::port::{Port, buffers_of};
use crate::send::{CopyReason, SendError};

impl UdpSend<'_> {
    /// Posts at most `frames` frames of segments in windows.
    pub(super) fn gather_burst(&mut self, flow: &UdpFlow, frames: usize) -> Result<usize, SendError> {
        let Content::File { file, lease, copy, copy_from } = &mut self.content else { return Ok(0) };
        let Port { nic, windows, pool, .. } = &mut *self.port;
        let (start, end, payload) = (self.position, self.end.unwrap_or(0), flow.payload() as u64);
        let mapped = windows.mappable(file).min(end).min(*copy_from);
        let span_end = mapped.min(start + frames as u64 * payload);
        if span_end > start {
            let few = end - start < self.options.copy_below;
            let prepared =
                if few { windows.prepare_cached(file, start, span_end) } else { windows.prepare(file, start, span_end).map(|()| None) };
            match prepared {
                Ok(None) => {}
                Err(CacheError::Busy) => {
                    self.blocked = true;
                    return Ok(0);
                }
                Ok(Some(from)) => {
                    // Up to there the windows are used.
                    *copy_from = from.max(start);
                    return self.data_burst(flow, frames);
                }
                // A file that has become shorter meanwhile cannot be mapped, nor read.
                Err(CacheError::Map(_)) if lease.is_none() && file.changed().unwrap_or(false) => {
                    self.look_for_change()?;
                    return Ok(0);
                }
                Err(CacheError::Map(error)) => {
                    tracing::warn!("{} is copied: {error}", file.name());
                    *copy = Some(CopyReason::NotMappable);
                    return self.data_burst(flow, frames);
                }
            }
        }
        let reason = if mapped == *copy_from { CopyReason::BelowThreshold } else { CopyReason::PartialLastPage };
        let span = windows.span(file, start, span_end);
        let datagrams = Datagrams { flow, framing: self.options.framing, file, span, mapped, end };
        let mut burst: Burst<'_> = std::mem::take(&mut self.burst);
        match datagrams.push(&mut burst, pool, start, frames, &mut self.block) {
            Ok(()) => {}
            // The window is shorter than the file was: it was truncated before it was mapped.
            Err(GatherError::Unmapped) => {
                burst.clear();
                return self.cannot_read(io::ErrorKind::UnexpectedEof.into());
            }
            Err(GatherError::Read(error)) => {
                burst.clear();
                return self.cannot_read(error);
            }
        }
        let built = burst.len();
        let posted = Posted::post(&mut **nic, &mut burst);
        self.burst = burst.recycle();
        self.blocked |= posted.frames < built || built == 0;
        let position = end.min(start + posted.frames as u64 * payload);
        let gathered = position.min(mapped).saturating_sub(start);
        self.account(&posted, position, gathered, reason);
        posted.result()
    }
}

/// What the frames of a burst are made of.
struct Datagrams<'a> {
    flow: &'a UdpFlow,
    framing: Framing,
    file: &'a RegularFile,
    /// The windows of the file's bytes in front of `mapped`.
    span: Option<Span<'a>>,
    mapped: u64,
    end: u64,
}

/// Why a frame could not be built.
enum GatherError {
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
    fn push(&self, burst: &mut Burst<'a>, pool: &mut Pool, position: u64, frames: usize, copy: &mut Vec<u8>) -> Result<(), GatherError> {
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
