//! TCP headers, read and written. The fixed part is read by smoltcp; the options are [ours](super::options), as smoltcp writes no SACK blocks
//! beside timestamps and refuses a segment for an option that it does not like.

use bitflags::bitflags;
use smoltcp::wire::TcpPacket;

use super::{Seq, TcpOptions};

/// The bytes of a TCP header without options.
pub const TCP_HEADER_LEN: usize = 20;

/// The bytes of a TCP header with all the options that it can have.
pub const MAX_TCP_HEADER_LEN: usize = 60;

bitflags! {
    /// The control bits (RFC 9293 3.1), at the place that they have in byte 13 of the header. Those of ECN are never set here, and ignored.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Flags: u8 {
        /// no more data
        const FIN = 0x01;
        /// the start of the sequence numbers
        const SYN = 0x02;
        /// the connection does not exist, or no longer
        const RST = 0x04;
        /// up to here it was written at once
        const PSH = 0x08;
        /// the acknowledgement number counts
        const ACK = 0x10;
    }
}

/// A TCP header without its checksum, which depends on the addresses and on who computes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpHeader {
    /// the sender's port
    pub source_port: u16,
    /// the receiver's port
    pub destination_port: u16,
    /// the number of the first byte, or of the SYN
    pub seq: Seq,
    /// the number that is expected next, if [`Flags::ACK`]; else 0
    pub ack: Seq,
    /// the control bits
    pub flags: Flags,
    /// the window as it is in the header: not scaled
    pub window: u16,
    /// the options
    pub options: TcpOptions,
}

impl TcpHeader {
    /// The length in bytes, 20..=60, a multiple of 4.
    #[inline]
    pub fn len(&self) -> usize {
        TCP_HEADER_LEN + self.options.len()
    }

    /// Always false: a header has 20 bytes at least.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes the header at the start of `out` and returns its [length](Self::len). The checksum field is left 0, the urgent pointer as well.
    ///
    /// # Panics
    /// When `out` is shorter.
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> usize {
        let len = self.len();
        let out = &mut out[..len];
        let word = |words: [u16; 2]| u32::from(words[0]) << 16 | u32::from(words[1]);
        // The data offset counts words of 4 bytes, and stands in the upper half of its byte.
        let control = u16::from_be_bytes([(len as u8) << 2, self.flags.bits()]);
        let words = [word([self.source_port, self.destination_port]), self.seq.0, self.ack.0, word([control, self.window]), 0];
        for (place, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *place = word.to_be_bytes();
        }
        self.options.emit(&mut out[TCP_HEADER_LEN..]);
        len
    }
}

/// A segment that has arrived: a header, and the payload where it lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment<'a> {
    /// the header
    pub header: TcpHeader,
    /// the bytes behind it
    pub payload: &'a [u8],
}

/// Bytes that are no TCP segment: fewer than 20, or fewer than the header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} bytes are no TCP segment: they are fewer than its header has, or the header says that it has fewer than 20; drop them")]
pub struct NoSegment(pub usize);

impl<'a> Segment<'a> {
    /// Reads a segment from the bytes behind the IP header, without the padding of a short frame. The checksum is not looked at: verify it
    /// before, or have the NIC do so.
    ///
    /// # Errors
    /// When the bytes are too few for the header.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, NoSegment> {
        let packet = TcpPacket::new_checked(bytes).map_err(|_| NoSegment(bytes.len()))?;
        let flags = Flags::from_bits_truncate(bytes[13]);
        let (head, payload) = bytes.split_at(packet.header_len().into());
        let header = TcpHeader {
            source_port: packet.src_port(),
            destination_port: packet.dst_port(),
            seq: Seq(packet.seq_number().0 as u32),
            ack: Seq(packet.ack_number().0 as u32),
            flags,
            window: packet.window_len(),
            options: TcpOptions::parse(&head[TCP_HEADER_LEN..], flags.contains(Flags::SYN)),
        };
        Ok(Self { header, payload })
    }

    /// How many sequence numbers it takes: its payload, and one each for SYN and FIN.
    #[inline]
    pub fn sequence_len(&self) -> u64 {
        let flags = self.header.flags;
        self.payload.len() as u64 + u64::from(flags.contains(Flags::SYN)) + u64::from(flags.contains(Flags::FIN))
    }
}

/// The RST that answers a segment for which there is no connection (RFC 9293 3.10.7.1). `None` for a RST, which gets no answer.
pub fn refuse(segment: &Segment<'_>) -> Option<TcpHeader> {
    let header = &segment.header;
    if header.flags.contains(Flags::RST) {
        return None;
    }
    let (seq, ack, flags) = if header.flags.contains(Flags::ACK) {
        (header.ack, Seq(0), Flags::RST)
    } else {
        (Seq(0), header.seq + segment.sequence_len(), Flags::RST | Flags::ACK)
    };
    Some(TcpHeader {
        source_port: header.destination_port,
        destination_port: header.source_port,
        seq,
        ack,
        flags,
        window: 0,
        options: TcpOptions::default(),
    })
}

#[cfg(test)]
mod tests;
