//! From what a connection wants to send to frames: a header in a pool buffer, payload that the NIC gathers from windows of files, and a request for
//! checksums and segmentation. What the NIC lacks is done here, and counted.
//!
//! Two steps, for a burst borrows the windows that its segments lie in: first each frame is *planned*, which maps and holds windows; then all
//! planned frames are *built* into one burst.

use std::io;
use std::net::IpAddr;
use std::ops::Range;

use hal::{Buffer, Burst, Capabilities, DmaError, MacAddress, Offload, OffloadFlags, Pool};
use smoltcp::wire::{IPV4_HEADER_LEN, IpProtocol, checksum};

use super::extent::{Content, Extents};
use super::file::SharedFile;
use super::held::Held;
use super::segment::{Flags, MAX_TCP_HEADER_LEN, TcpHeader};
use crate::file::{CacheError, WindowCache};
use crate::net::ip::{self, MAX_HEADERS, Written};
use crate::net::{Interface, NetError, fill_ipv4_header, finish_in_software};
use crate::send::{CopyReason, buffers_of, push_copied};

/// The most bytes of headers.
const MOST_HEADERS: usize = MAX_HEADERS + MAX_TCP_HEADER_LEN;
/// Where the checksum is in a TCP header.
const CHECKSUM: usize = 16;
/// The most bytes of a gathered frame that are copied: from the program's memory, or from what of a file is in no window.
const MOST_COPIED: u64 = 16 << 10;
/// The most pieces of a frame behind its header, whatever more a NIC takes.
const MOST_PIECES: usize = 32;
/// The largest IP packet.
const MOST_PACKET: u64 = 65_535;

/// The way to one peer: its Ethernet and IP headers, computed once.
#[derive(Clone, Debug)]
pub(super) struct Path {
    headers: [u8; MAX_HEADERS],
    ip_start: u8,
    ip_len: u8,
    pseudo: u16,
}

impl Path {
    /// The way from `interface` to `peer`, in frames to `station`.
    pub fn new(interface: &Interface, station: MacAddress, peer: IpAddr) -> Result<Self, NetError> {
        let mut headers = [0; MAX_HEADERS];
        let Written { ip_start, ip_len, pseudo } = ip::write_headers(interface, station, peer, IpProtocol::Tcp, &mut headers)?;
        Ok(Self { headers, ip_start: ip_start as u8, ip_len: ip_len as u8, pseudo })
    }

    fn l4_start(&self) -> usize {
        usize::from(self.ip_start) + usize::from(self.ip_len)
    }

    fn is_ipv4(&self) -> bool {
        usize::from(self.ip_len) == IPV4_HEADER_LEN
    }
}

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
    gathers: bool,
    pieces: usize,
    max_segmentation: u64,
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
        Self {
            offloads: capabilities.offloads,
            gathers,
            pieces: usize::from(capabilities.max_segments).saturating_sub(1).min(MOST_PIECES),
            max_segmentation: capabilities.max_segmentation.into(),
            whole_headers: capabilities.whole_headers,
            buffer_size,
            tag: interface.offload(),
            block: Vec::new(),
            staged: Vec::new(),
        }
    }

    /// The most payload that one frame to an address of this family can have, for the NIC to cut; 0 where it does not.
    pub fn max_burst(&self, ipv4: bool) -> u32 {
        if self.cuts(ipv4) { (MOST_PACKET.min(self.max_segmentation) as u32).saturating_sub(MOST_HEADERS as u32) } else { 0 }
    }

    fn cuts(&self, ipv4: bool) -> bool {
        let wanted = if ipv4 { OffloadFlags::TCP4_SEGMENTATION } else { OffloadFlags::TCP6_SEGMENTATION };
        self.gathers && self.missing_checksum().is_none() && self.offloads.contains(wanted)
    }

    fn missing_checksum(&self) -> Option<CopyReason> {
        (!self.offloads.contains(OffloadFlags::TCP_CHECKSUM)).then_some(CopyReason::NoChecksumOffload)
    }

    /// Why no frame with payload can be gathered on this NIC.
    fn must_copy(&self) -> Option<CopyReason> {
        self.missing_checksum().or((!self.gathers).then_some(CopyReason::NoGather))
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
        let (total, segment) = (payload.end - payload.start, u64::from(mss.max(1)));
        let mut copy = self.must_copy();
        let mut len = if total > segment && self.cuts(path.is_ipv4()) && copy.is_none() {
            let most = total.min(self.max_burst(path.is_ipv4()).into());
            // A FIN goes by itself: not every NIC puts it on the last segment alone. Its segment has a byte at least.
            let most = if header.flags.contains(Flags::FIN) { most.min(total - 1) } else { most };
            if most == total { total } else { most - most % segment }
        } else {
            total.min(segment)
        };
        let mut unmapped = CopyReason::NotMappable;
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
                    Content::File(..) if self.must_copy().is_none() => held_bytes(held, windows, &part, place, unmapped)?,
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
        if self.missing_checksum().is_some() || planned.copy.is_some() {
            return self.build_copy(planned, path, outbox, pool, burst);
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
        let Some(mut buffer) = pool.take() else {
            self.staged.clear();
            return Err(BuildError::NoBuffer);
        };
        let (block, len, offload) = self.headers(planned, path);
        buffer.set(&block[..len]);
        burst.push(buffer, offload);
        let mut staged = self.staged.drain(..);
        for (piece, len) in pieces(planned, outbox, windows) {
            match piece {
                Piece::Window(segment) => burst.gather(segment),
                _ => staged.by_ref().take((len as usize).div_ceil(self.buffer_size)).for_each(|buffer| burst.gather_buffer(buffer)),
            }
        }
        Ok(account)
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
        let (block, len, offload) = self.headers(planned, path);
        self.block.clear();
        self.block.extend_from_slice(&block[..len]);
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
        if self.missing_checksum().is_some() {
            let work = Offload { flags: OffloadFlags::TCP_CHECKSUM, ..offload };
            finish_in_software(&mut self.block, &work);
        }
        if push_copied(burst, pool, &self.block, offload) { Ok(account) } else { Err(BuildError::NoBuffer) }
    }

    /// The headers of a frame, and what to ask the NIC for.
    #[inline]
    fn headers(&self, planned: &Planned, path: &Path) -> ([u8; MOST_HEADERS], usize, Offload) {
        let mut block = [0; MOST_HEADERS];
        block[..MAX_HEADERS].copy_from_slice(&path.headers);
        let l4_start = path.l4_start();
        let header_len = planned.header.emit(&mut block[l4_start..]);
        let payload = planned.payload.end - planned.payload.start;
        let cut = payload > planned.mss.into();
        let mut flags = match (cut, path.is_ipv4()) {
            (true, true) => OffloadFlags::TCP4_SEGMENTATION,
            (true, false) => OffloadFlags::TCP6_SEGMENTATION,
            (false, true) => OffloadFlags::TCP_CHECKSUM | OffloadFlags::IPV4_CHECKSUM,
            (false, false) => OffloadFlags::TCP_CHECKSUM,
        };
        let len = (header_len as u64 + payload) as u16;
        // Of what is to be cut, the NIC sets the lengths of each segment; some want them for the whole, as if it were one packet.
        let one_packet = !cut || self.whole_headers;
        ip::set_length(&mut block[path.ip_start.into()..], path.ip_len.into(), one_packet.then_some(len), false);
        let seed = seed(path.pseudo, len, one_packet);
        block[l4_start + CHECKSUM..][..2].copy_from_slice(&seed.to_be_bytes());
        let bare = (flags - self.offloads).contains(OffloadFlags::IPV4_CHECKSUM);
        if bare || cut && self.whole_headers && path.is_ipv4() {
            fill_ipv4_header(&mut block, path.ip_start.into());
        }
        flags &= self.offloads;
        let offload = Offload {
            flags: flags | self.tag.flags,
            ip_start: path.ip_start,
            l4_start: l4_start as u8,
            payload_start: (l4_start + header_len) as u8,
            mss: if cut { planned.mss } else { 0 },
            vlan_tag: self.tag.vlan_tag,
        };
        (block, l4_start + header_len, offload)
    }
}

/// What the checksum field of a TCP header holds when it is handed over: the sum of the pseudo-header, with the length where the headers are those of
/// one packet, and without where the NIC makes several of them ([`OffloadFlags`] has the convention).
fn seed(pseudo: u16, len: u16, one_packet: bool) -> u16 {
    if one_packet { checksum::combine(&[pseudo, len]) } else { pseudo }
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
