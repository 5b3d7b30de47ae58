//! The copying way: for streams, and for what the device cannot gather.

use hal::{Burst, Offload, Pool};

use super::post::Posted;
use super::{Content, UdpSend};
use crate::file::source::Available;
use crate::net::{UdpFlow, finish_in_software};
use crate::send::options::Framing;
use crate::send::port::{Port, push_copied};
use crate::send::{CopyReason, SendError};

impl UdpSend<'_> {
    /// Posts at most `frames` frames of a file whose bytes are copied.
    pub(super) fn copy_burst(&mut self, flow: &UdpFlow, frames: usize, reason: CopyReason) -> Result<usize, SendError> {
        let Content::File { file, .. } = &self.content else { return Ok(0) };
        let left = self.end.unwrap_or(0) - self.position;
        self.block.resize(left.min((frames * flow.payload()) as u64) as usize, 0);
        if let Err(error) = file.read_at(&mut self.block, self.position) {
            return self.cannot_read(error);
        }
        self.post_block(flow, reason)
    }

    /// Posts at most `frames` full frames of a stream, or its last.
    pub(super) fn stream_burst(&mut self, flow: &UdpFlow, frames: usize) -> Result<usize, SendError> {
        let Content::Stream(stream) = &mut self.content else { return Ok(0) };
        let payload = flow.payload();
        let left = self.end.map_or(u64::MAX, |end| end - self.position);
        let wanted = left.min((frames * payload) as u64) as usize;
        let mut filled = self.block.len();
        self.block.resize(wanted.max(filled), 0);
        while filled < wanted {
            match stream.take(&mut self.block[filled..]) {
                Ok(Available::Bytes(len)) => filled += len,
                Ok(Available::NotYet) => break,
                Ok(Available::End) => {
                    self.end = Some(self.position + filled as u64);
                    break;
                }
                Err(error) => {
                    self.block.truncate(filled);
                    return self.cannot_read(error);
                }
            }
        }
        self.block.truncate(filled);
        let last = self.end == Some(self.position + filled as u64);
        // A datagram that is not full waits for more, unless there is none.
        let rest = if last { Vec::new() } else { self.block.split_off(filled - filled % payload) };
        let full = self.block.len();
        let posted = self.post_block(flow, CopyReason::Stream)?;
        let sent = (posted * payload).min(full);
        self.block.drain(..sent);
        self.block.extend_from_slice(&rest);
        Ok(posted)
    }

    /// Posts what is in the block, as far as there is room.
    fn post_block(&mut self, flow: &UdpFlow, reason: CopyReason) -> Result<usize, SendError> {
        let Port { nic, pool, .. } = &mut *self.port;
        let mut burst: Burst<'_> = std::mem::take(&mut self.burst);
        let mut position = self.position;
        for data in self.block.chunks(flow.payload()) {
            let mut header = if data.len() == flow.payload() { *flow.full() } else { flow.header(data.len()) };
            if self.options.framing == Framing::Offset {
                flow.write_prefix(&mut header, &position.to_be_bytes());
            }
            let header = &header[..flow.header_len()];
            let pushed = match flow.missing() {
                None if header.len() + data.len() <= pool.buffer_size() => push_parts(&mut burst, pool, header, data, flow.offload()),
                missing => {
                    self.frame.clear();
                    self.frame.extend_from_slice(header);
                    self.frame.extend_from_slice(data);
                    if let Some(work) = missing {
                        finish_in_software(&mut self.frame, &work);
                    }
                    push_copied(&mut burst, pool, &self.frame, flow.offload())
                }
            };
            if !pushed {
                break;
            }
            position += data.len() as u64;
        }
        let posted = Posted::post(&mut **nic, &mut burst);
        self.burst = burst.recycle();
        let sent = self.block.len().min(posted.frames * flow.payload());
        self.blocked |= sent < self.block.len();
        self.account(&posted, self.position + sent as u64, 0, reason);
        posted.result()
    }
}

/// Adds a frame of a header and data that fit one buffer. Whether there was a buffer.
fn push_parts(burst: &mut Burst<'_>, pool: &mut Pool, header: &[u8], data: &[u8], offload: Offload) -> bool {
    let Some(mut buffer) = pool.take() else { return false };
    buffer.set(header);
    buffer.write(header.len(), data);
    buffer.set_len(header.len() + data.len());
    burst.push(buffer, offload);
    true
}
