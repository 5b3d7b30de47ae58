//! From frames to descriptors.

use hal::frame::{Frames, Lengths};
use hal::{Frame, NicError, Offload, OffloadFlags};

use super::{MAX_SEGMENTATION, Sent, Tx};
use crate::header::{self, Header, WORDS_WITH_HASH};
use crate::queue::Transmit;
use crate::ring::{Cursor, Indirect, Kind, Piece, Ring};

/// The last request that cuts nothing, and what came of it, since neighbouring frames mostly ask for the same.
#[derive(Clone, Copy)]
pub(super) struct Usual {
    pub(super) offload: Offload,
    pub(super) header: Header,
    pub(super) lengths: Lengths,
}

/// What changes while a burst is written.
#[derive(Clone, Copy)]
pub(super) struct Run<C> {
    pub(super) cursor: C,
    /// Descriptors that are still free.
    pub(super) room: u32,
    pub(super) sent: Sent,
}

impl<R: Ring> Tx<R> {
    /// Writes frames of the usual kind, up to the first that is not, or for which there is no room. Everything that changes is local, so that it
    /// stays in registers; and frames of one piece, of two, and of more have a loop each, which need not carry what the others need.
    #[inline]
    pub(super) fn write_usual<'b, 'w, const N: usize>(&mut self, frames: Frames<'b, 'w>, run: &mut Run<R::Cursor>) -> Frames<'b, 'w> {
        let header = header::extend::<N>(self.usual.header);
        frames.in_runs(|segments, frames| match segments {
            0 => self.write_single(frames, run, header),
            1 => self.write_pairs(frames, run, header),
            _ => self.write_gathered(frames, run, header),
        })
    }

    /// Frames that gather nothing. Not inlined, nor are the others: a loop has all registers to itself.
    #[inline(never)]
    fn write_single<'b, 'w, const N: usize>(&self, frames: Frames<'b, 'w>, run: &mut Run<R::Cursor>, header: [u32; N]) -> Frames<'b, 'w> {
        let (usual, addresses) = (self.usual, self.addresses.usual());
        let Run { mut cursor, mut sent, .. } = *run;
        let (first, mut sum) = (cursor.position(), 0);
        for (buffer, offload) in frames.singles(run.room.min(self.ring.until_end(&cursor)) as usize) {
            let bytes = buffer.len() as u64;
            if *offload != usual.offload || !usual.lengths.fit(bytes) {
                break;
            }
            let Some(address) = addresses.prefix(buffer, header) else { break };
            self.ring.write(&mut cursor, Piece { address, len: bytes as u32 + header::len(header), kind: Kind::Read });
            sum += bytes;
        }
        self.ring.turn(&mut cursor);
        let count = cursor.position().wrapping_sub(first);
        sent.packets += u64::from(count);
        sent.bytes += sum;
        *run = Run { cursor, room: run.room - count, sent };
        frames.behind(count as usize, 0)
    }

    /// Frames that gather one segment. Two descriptors in the ring are half a cache line for the device to fetch; a table would be a whole one.
    #[inline(never)]
    fn write_pairs<'b, 'w, const N: usize>(
        &mut self,
        frames: Frames<'b, 'w>,
        run: &mut Run<R::Cursor>,
        header: [u32; N],
    ) -> Frames<'b, 'w> {
        let (usual, addresses) = (self.usual, self.addresses.usual());
        let (ring, mut lengths) = (&self.ring, self.flight.chains());
        let Run { mut cursor, mut sent, .. } = *run;
        let (mut count, mut sum) = (0, 0);
        for (buffer, segment, offload) in frames.pairs(run.room as usize / 2) {
            let (first, second) = (buffer.len() as u64, segment.len());
            let bytes = first + u64::from(second);
            if *offload != usual.offload || !usual.lengths.fit(bytes) {
                break;
            }
            let (Some(rest), Some(address)) = (addresses.segment(segment), addresses.prefix(buffer, header)) else { break };
            let head = Piece { address, len: first as u32 + header::len(header), kind: Kind::Read };
            lengths.add(cursor.position(), 2);
            ring.put_pair(&mut cursor, [head, Piece { address: rest, len: second, kind: Kind::Read }]);
            count += 1;
            sum += bytes;
        }
        sent.packets += count as u64;
        sent.bytes += sum;
        *run = Run { cursor, room: run.room - 2 * count as u32, sent };
        frames.behind(count, 1)
    }

    /// Frames that gather several, by a table.
    #[inline(never)]
    fn write_gathered<'b, 'w, const N: usize>(
        &self,
        mut frames: Frames<'b, 'w>,
        run: &mut Run<R::Cursor>,
        header: [u32; N],
    ) -> Frames<'b, 'w> {
        let (usual, addresses) = (self.usual, self.addresses.usual());
        let Some(indirect) = &self.indirect else { return frames };
        // A chain has no more descriptors than the ring, wherever they are (2.7.5.3.1).
        let most = Indirect::ENTRIES.min(self.config.ring.size.into());
        let Run { mut cursor, mut room, mut sent } = *run;
        'frames: while room > 0
            && let Some((frame, after)) = frames.split_first()
            && frame.segments.len() < most
            && *frame.offload == usual.offload
        {
            let Some(address) = addresses.prefix(frame.header, header) else { break };
            let mut bytes = frame.header.len() as u64;
            // The table is of a free place: what is written of a frame that turns out to be unusual is written over.
            let mut table = indirect.start(cursor.position(), frame.segments.len() + 1);
            table.put(Piece { address, len: bytes as u32 + header::len(header), kind: Kind::Read });
            for segment in frame.segments {
                let Some(address) = addresses.segment(segment) else { break 'frames };
                table.put(Piece { address, len: segment.len(), kind: Kind::Read });
                bytes += u64::from(segment.len());
            }
            if !usual.lengths.fit(bytes) {
                break;
            }
            self.ring.put(&mut cursor, table.piece());
            room -= 1;
            sent.bytes += bytes;
            sent.packets += 1;
            frames = after;
        }
        *run = Run { cursor, room, sent };
        frames
    }

    /// The same for any frame. `false` when there is no room for it now.
    #[inline(never)]
    pub(super) fn write_any(&mut self, run: &mut Run<R::Cursor>, frame: &Frame<'_, '_>) -> Result<bool, NicError> {
        let Offload { flags, payload_start, mss, .. } = *frame.offload;
        let (bytes, pieces) = (frame.bytes(), frame.segments.len() + 1);
        let cutting = flags.intersects(OffloadFlags::CUTTING);
        if cutting && u32::from(payload_start) + u32::from(mss) > self.config.max_frame {
            return Err(NicError::UnsupportedOffload(format!("segments of {mss} bytes, which are longer than the MTU")));
        }
        let limit = if cutting { MAX_SEGMENTATION } else { self.config.max_frame };
        if bytes > limit || pieces > usize::from(self.max_segments()) {
            return Err(NicError::FrameTooLong { bytes, segments: pieces, max_bytes: limit, max_segments: self.max_segments().into() });
        }
        let prepared = header::prepare(frame.offload, self.config.offloads)?;
        if bytes < prepared.least {
            return Err(NicError::UnsupportedOffload(format!("work on headers that a frame of {bytes} bytes does not have")));
        }
        let table = self.indirect.as_ref().filter(|_| pieces > 1 && pieces <= Indirect::ENTRIES);
        let descriptors = if table.is_some() { 1 } else { pieces };
        if descriptors > run.room as usize {
            return Ok(false);
        }
        // All addresses first: after that nothing can fail.
        if frame.segments.iter().any(|segment| self.addresses.segment(segment).is_none()) {
            return Err(NicError::UnmappedSegment);
        }
        let address = if self.config.hash {
            self.addresses.prefix(frame.header, header::extend::<WORDS_WITH_HASH>(prepared.header))
        } else {
            self.addresses.prefix(frame.header, prepared.header)
        };
        let Some(address) = address else { return Err(NicError::UnmappedSegment) };
        let head = Piece { address, len: frame.header.len() as u32 + self.header_len, kind: Kind::Read };
        let rest = frame
            .segments
            .iter()
            .filter_map(|segment| self.addresses.segment(segment).map(|address| Piece { address, len: segment.len(), kind: Kind::Read }));
        let position = run.cursor.position();
        match table {
            Some(table) => {
                let mut table = table.start(position, pieces);
                std::iter::once(head).chain(rest).for_each(|piece| table.put(piece));
                self.ring.put(&mut run.cursor, table.piece());
            }
            None if pieces == 1 => self.ring.put(&mut run.cursor, head),
            None => {
                self.ring.put_chain(&mut run.cursor, pieces, std::iter::once(head).chain(rest));
                self.flight.chains().add(position, pieces as u16);
            }
        }
        run.room -= descriptors as u32;
        run.sent.bytes += u64::from(bytes);
        if cutting {
            let (payload, headers) = (u64::from(bytes) - u64::from(payload_start), u64::from(payload_start));
            let segments = payload.div_ceil(mss.into());
            run.sent.packets += segments;
            run.sent.bytes += (segments - 1) * headers;
        } else {
            run.sent.packets += 1;
            self.usual =
                Usual { offload: *frame.offload, header: prepared.header, lengths: Lengths { least: prepared.least, most: limit } };
        }
        Ok(true)
    }
}
