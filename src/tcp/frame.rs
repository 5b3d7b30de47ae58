//! From what a connection wants to send to frames: a header in a pool buffer, payload that the NIC gathers from windows of files, and a request for
//! checksums and segmentation. What the NIC lacks is done here, and counted.
//!
//! Two steps, for a burst borrows the windows that its segments lie in: first each frame is *planned*, which maps and holds windows; then all
//! planned frames are *built* into one burst.

use std::io;
use std::ops::Range;

use hal::{Buffer, Burst, Capabilities, DmaError, Offload, OffloadFlags, Pool};

use super::extent::{Content, Extents};
use super::file::SharedFile;
use super::held::Held;
use super::path::{Headers, MOST_HEADERS, Path};
use super::segment::{Flags, TcpHeader};
use crate::file::{CacheError, WindowCache};
use crate::net::{Interface, finish_in_software};
use crate::send::{CopyReason, buffers_of, push_copied};

/// The most bytes of a gathered frame that are copied: from the program's memory, or from what of a file is in no window.
const MOST_COPIED: u64 = 16 << 10;
/// The most pieces of a frame behind its header, whatever more a NIC takes.
const MOST_PIECES: usize = 32;
/// The largest IP packet.
const MOST_PACKET: u32 = 65_535;

/// What a connection sends from: its extents, and the windows of those that are on their way.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub extents: Extents,
    pub held: Held,
}

/// One frame to be built.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub header: TcpHeader,
    /// Stream offsets.
    pub payload: Range<u64>,
    mss: u16,
    /// Why the whole frame is copied, if it is.
    copy: Option<CopyReason>,
    /// Why those bytes of files are copied that are in no window.
    unmapped: CopyReason,
}

/// What the bytes of a frame's payload became.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Bytes of files that the NIC gathers.
    pub gathered: u64,
    /// Bytes of files that were copied, and why: of the partial last page, and of another reason.
    pub partial_page: u64,
    pub copied: Option<(CopyReason, u64)>,
    /// Bytes of the program.
    pub program: u64,
}

/// All windows are in use by frames on their way: complete some first.
#[derive(Debug)]
pub(super) struct Busy;

/// Why a frame cannot be built.
#[derive(Debug)]
pub(super) enum BuildError {
    /// No buffer is free.
    NoBuffer,
    /// Bytes of the file could not be read.
    Read(SharedFile, io::Error),
}

/// Makes frames for one NIC.
#[derive(Debug)]
pub(super) struct Framer {
    offloads: OffloadFlags,
    /// Why no frame with payload can be gathered on this NIC.
    must_copy: Option<CopyReason>,
    pieces: usize,
    /// The most payload of a frame that the NIC cuts, over IPv4 and over IPv6; 0 where it does not.
    max_burst: [u32; 2],
    /// [`Capabilities::whole_headers`].
    whole_headers: bool,
    buffer_size: usize,
    tag: Offload,
    block: Vec<u8>,
    staged: Vec<Buffer>,
}

impl Framer {
    /// For a NIC that can do this.
    pub fn new(interface: &Interface, capabilities: &Capabilities, gathers: bool, buffer_size: usize) -> Self {
        let lacks = |flag: OffloadFlags| !capabilities.offloads.contains(flag);
        let no_checksum = lacks(OffloadFlags::TCP_CHECKSUM).then_some(CopyReason::NoChecksumOffload);
        let must_copy = no_checksum.or((!gathers).then_some(CopyReason::NoGather));
        let max_burst = [OffloadFlags::TCP4_SEGMENTATION, OffloadFlags::TCP6_SEGMENTATION].map(|wanted| {
            let most = if must_copy.is_some() || lacks(wanted) { 0 } else { MOST_PACKET.min(capabilities.max_segmentation) };
            most.saturating_sub(MOST_HEADERS as u32)
        });
        Self {
            offloads: capabilities.offloads,
            must_copy,
            pieces: usize::from(capabilities.max_segments).saturating_sub(1).min(MOST_PIECES),
            max_burst,
            whole_headers: capabilities.whole_headers,
            buffer_size,
            tag: interface.offload(),
            block: Vec::new(),
            staged: Vec::new(),
        }
    }

    /// The most payload that one frame to an address of this family can have, for the NIC to cut; 0 where it does not.
    #[inline]
    pub fn max_burst(&self, ipv4: bool) -> u32 {
        self.max_burst[usize::from(!ipv4)]
    }

    fn lacks_checksum(&self) -> bool {
        self.must_copy == Some(CopyReason::NoChecksumOffload)
    }

    /// The first frame of a segment: its bytes as far as one frame can have them. Windows are mapped and held. The caller takes the frame's payload
    /// off the segment, and plans again until none is left.
    pub fn plan(
        &self,
        mut header: TcpHeader,
        payload: Range<u64>,
        mss: u16,
        path: &Path,
        outbox: &mut Outbox,
        windows: &mut WindowCache,
    ) -> Result<Planned, Busy> {
        let (total, segment, max_burst) = (payload.end - payload.start, u64::from(mss.max(1)), u64::from(self.max_burst(path.is_ipv4())));
        let mut copy = self.must_copy;
        let mut unmapped = CopyReason::NotMappable;
        // What lies in a window that is held, as nearly all does, is one piece.
        let whole = total <= segment || (total <= max_burst && !header.flags.contains(Flags::FIN));
        if whole && copy.is_none() && outbox.held.has(&payload) {
            return Ok(Planned { header, payload, mss, copy, unmapped });
        }
        let mut len = if total > segment && max_burst > 0 && copy.is_none() {
            let most = total.min(max_burst);
            // A FIN goes by itself: not every NIC puts it on the last segment alone. Its segment has a byte at least.
            let most = if header.flags.contains(Flags::FIN) { most.min(total - 1) } else { most };
            if most == total { total } else { most - most % segment }
        } else {
            total.min(segment)
        };
        let fits = self.hold(payload.start..payload.start + len, outbox, windows, &mut unmapped)?;
        if fits < len && copy.is_none() {
            if fits >= segment {
                len = fits - fits % segment;
            } else {
                // More pieces than can be gathered for one segment.
                (len, copy) = (len.min(segment), Some(CopyReason::NoGather));
            }
        }
        if len < total {
            header.flags -= Flags::FIN | Flags::PSH;
        }
        Ok(Planned { header, payload: payload.start..payload.start + len, mss, copy, unmapped })
    }

    /// Holds the windows of a range, as far as a frame can gather it. Returns how far that is.
    fn hold(&self, range: Range<u64>, outbox: &mut Outbox, windows: &mut WindowCache, unmapped: &mut CopyReason) -> Result<u64, Busy> {
        let Outbox { extents, held } = outbox;
        let (mut done, mut copied, mut pieces) = (0, 0, 0);
        for part in extents.parts(range) {
            let (mut left, mut place) = (part.len, 0);
            while left > 0 {
                let gathered = match part.content {
                    Content::File(..) if self.must_copy.is_none() => held_bytes(held, windows, &part, place, unmapped)?,
                    _ => 0,
                };
                let step = if gathered > 0 { left.min(gathered) } else { left.min(MOST_COPIED - copied) };
                pieces += if gathered > 0 { 1 } else { (step as usize).div_ceil(self.buffer_size) };
                if step == 0 || pieces > self.pieces {
                    return Ok(done);
                }
                if gathered == 0 {
                    copied += step;
                }
                (done, left, place) = (done + step, left - step, place + step);
            }
        }
        Ok(done)
    }

    /// Adds a planned frame to a burst.
    pub fn build<'w>(
        &mut self,
        planned: &Planned,
        path: &Path,
        outbox: &Outbox,
        windows: &'w WindowCache,
        pool: &mut Pool,
        burst: &mut Burst<'w>,
    ) -> Result<Account, BuildError> {
        if self.lacks_checksum() || planned.copy.is_some() {
            return self.build_copy(planned, path, outbox, pool, burst);
        }
        if let Some(segment) = outbox.held.segment_of(windows, &planned.payload) {
            let Some(buffer) = pool.take() else { return Err(BuildError::NoBuffer) };
            self.push(planned, path, buffer, burst);
            burst.gather(segment);
            return Ok(Account { gathered: segment.len().into(), ..Account::default() });
        }
        let mut account = Account::default();
        self.staged.clear();
        // First what has to be copied, so that nothing is in the burst when buffers run out.
        for (piece, _) in pieces(planned, outbox, windows) {
            let staged = match piece {
                Piece::Window(segment) => {
                    account.gathered += u64::from(segment.len());
                    continue;
                }
                Piece::Bytes(bytes) => {
                    account.program += bytes.len() as u64;
                    self.stage(bytes, pool)
                }
                Piece::File(file, offset, len) => {
                    let mut block = std::mem::take(&mut self.block);
                    block.resize(len as usize, 0);
                    let read = file.file().read_at(&mut block, offset);
                    let staged = read.map(|()| self.stage(&block, pool));
                    self.block = block;
                    account.copy(windows, file, offset, len, planned.unmapped);
                    staged.map_err(|error| BuildError::Read(file.clone(), error))?
                }
            };
            if !staged {
                self.staged.clear();
                return Err(BuildError::NoBuffer);
            }
        }
        let Some(buffer) = pool.take() else {
            self.staged.clear();
            return Err(BuildError::NoBuffer);
        };
        self.push(planned, path, buffer, burst);
        let mut staged = self.staged.drain(..);
        for (piece, len) in pieces(planned, outbox, windows) {
            match piece {
                Piece::Window(segment) => burst.gather(segment),
                _ => staged.by_ref().take((len as usize).div_ceil(self.buffer_size)).for_each(|buffer| burst.gather_buffer(buffer)),
            }
        }
        Ok(account)
    }

    /// Begins a frame with its headers.
    #[inline]
    fn push(&self, planned: &Planned, path: &Path, mut buffer: Buffer, burst: &mut Burst<'_>) {
        let (Headers { block, len, .. }, offload) = self.headers(planned, path);
        // All of the block: a copy of a known size.
        buffer.write(0, &block);
        buffer.set_len(len.into());
        burst.push(buffer, offload);
    }

    /// Copies bytes into staged buffers. Whether there were enough.
    fn stage(&mut self, bytes: &[u8], pool: &mut Pool) -> bool {
        let Some(buffers) = buffers_of(pool, bytes) else { return false };
        self.staged.extend(buffers.into_iter().flatten());
        true
    }

    /// A frame whose bytes are all copied: for a NIC without checksums or without gathering.
    fn build_copy<'w>(
        &mut self,
        planned: &Planned,
        path: &Path,
        outbox: &Outbox,
        pool: &mut Pool,
        burst: &mut Burst<'w>,
    ) -> Result<Account, BuildError> {
        let mut account = Account::default();
        let (Headers { block, len, .. }, offload) = self.headers(planned, path);
        self.block.clear();
        self.block.extend_from_slice(&block[..len.into()]);
        for part in outbox.extents.parts(planned.payload.clone()) {
            match part.content {
                Content::Bytes(bytes) => {
                    account.program += part.len;
                    self.block.extend_from_slice(bytes);
                }
                Content::File(file, offset) => {
                    let at = self.block.len();
                    self.block.resize(at + part.len as usize, 0);
                    file.file().read_at(&mut self.block[at..], offset).map_err(|error| BuildError::Read(file.clone(), error))?;
                    let reason = planned.copy.unwrap_or(CopyReason::NoChecksumOffload);
                    account.copied = Some((reason, account.copied.map_or(0, |(_, bytes)| bytes) + part.len));
                }
            }
        }
        if self.lacks_checksum() {
            let work = Offload { flags: OffloadFlags::TCP_CHECKSUM, ..offload };
            finish_in_software(&mut self.block, &work);
        }
        if push_copied(burst, pool, &self.block, offload) { Ok(account) } else { Err(BuildError::NoBuffer) }
    }

    /// The headers of a frame, and what to ask the NIC for.
    #[inline]
    fn headers(&self, planned: &Planned, path: &Path) -> (Headers, Offload) {
        let payload = planned.payload.end - planned.payload.start;
        let cut = payload > planned.mss.into();
        let flags = match (cut, path.is_ipv4()) {
            (true, true) => OffloadFlags::TCP4_SEGMENTATION,
            (true, false) => OffloadFlags::TCP6_SEGMENTATION,
            (false, true) => OffloadFlags::TCP_CHECKSUM | OffloadFlags::IPV4_CHECKSUM,
            (false, false) => OffloadFlags::TCP_CHECKSUM,
        };
        // Of what is to be cut, the NIC sets the lengths of each segment; some want them for the whole, as if it were one packet.
        let one_packet = !cut || self.whole_headers;
        let sums = if cut { one_packet } else { !self.offloads.contains(OffloadFlags::IPV4_CHECKSUM) };
        let headers = path.headers(&planned.header, payload, one_packet, sums);
        let offload = Offload {
            flags: flags & self.offloads | self.tag.flags,
            ip_start: headers.ip_start,
            l4_start: headers.l4_start,
            payload_start: headers.len,
            mss: if cut { planned.mss } else { 0 },
            vlan_tag: self.tag.vlan_tag,
        };
        (headers, offload)
    }
}

impl Account {
    /// All of them.
    pub fn bytes(&self) -> u64 {
        self.gathered + self.partial_page + self.copied.map_or(0, |(_, bytes)| bytes) + self.program
    }

    fn copy(&mut self, windows: &WindowCache, file: &SharedFile, offset: u64, len: u64, reason: CopyReason) {
        if offset >= windows.mappable(file.file()) {
            self.partial_page += len;
        } else {
            self.copied = Some((reason, self.copied.map_or(0, |(_, bytes)| bytes) + len));
        }
    }
}

/// How many bytes of a file's part are in a window, which is held then, from `place` bytes behind its start on; 0 where they have to be copied.
fn held_bytes(
    held: &mut Held,
    windows: &mut WindowCache,
    part: &super::extent::Part<'_>,
    place: u64,
    unmapped: &mut CopyReason,
) -> Result<u64, Busy> {
    let Content::File(file, offset) = part.content else { return Ok(0) };
    let offset = offset + place;
    if offset >= windows.mappable(file.file()) {
        return Ok(0);
    }
    match held.hold(windows, file, offset, part.start + place, part.rest - place) {
        Ok(len) => Ok(len),
        Err(CacheError::Busy) => Err(Busy),
        Err(CacheError::Map(error)) => {
            *unmapped = if let DmaError::Full { .. } = error { CopyReason::NoWindow } else { CopyReason::NotMappable };
            tracing::debug!("{} is copied: {error}", file.file().name());
            Ok(0)
        }
    }
}

/// What a frame is made of behind its header.
enum Piece<'o, 'w> {
    Window(hal::Segment<'w>),
    Bytes(&'o [u8]),
    File(&'o SharedFile, u64, u64),
}

/// The pieces of a planned frame that is gathered, with their lengths: those of files as the windows have them, the rest to be copied.
fn pieces<'o, 'w>(planned: &Planned, outbox: &'o Outbox, windows: &'w WindowCache) -> impl Iterator<Item = (Piece<'o, 'w>, u64)> {
    outbox.extents.parts(planned.payload.clone()).flat_map(move |part| {
        let mut place = 0;
        std::iter::from_fn(move || {
            let left = part.len - place;
            if left == 0 {
                return None;
            }
            let (piece, len) = match part.content {
                Content::Bytes(bytes) => (Piece::Bytes(bytes), left),
                Content::File(file, offset) => {
                    let (offset, most) = (offset + place, left.min(u32::MAX.into()) as u32);
                    match outbox.held.segment(windows, file, offset, most) {
                        Some(segment) => (Piece::Window(segment), segment.len().into()),
                        None => (Piece::File(file, offset, left), left),
                    }
                }
            };
            place += len;
            Some((piece, len))
        })
    })
}

#[cfg(test)]
mod tests;
