//! One's complement checksums, inserted where and over what the offsets say, literally (Intel 8254x manual, 3.5.8 and 3.6; VIRTIO 1.3, 5.1.6.2).

/// The folded one's complement sum of 16-bit words in network order; a last odd byte is the upper half of a word.
pub(super) fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u64::from(*low)));
    fold(words.sum())
}

/// Adds the carries back in.
pub(super) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// What is wrong with the offsets of a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misplaced {
    /// It starts beyond the packet: the result is unpredictable. Here, nothing is inserted.
    Start,
    /// It would be put beyond the packet: it is not inserted.
    Offset,
    /// It ends beyond the packet, or before it starts. Inserted as far as the packet goes.
    End,
    /// It is put outside of what it covers, so that it covers no seed. Inserted.
    NotCovered,
}

/// Puts the checksum of the bytes from `start` to `end` (included; 0: to the end of the packet) at `offset`.
pub(super) fn insert(packet: &mut [u8], start: usize, offset: usize, end: usize) -> Result<(), Misplaced> {
    let len = packet.len();
    if start >= len {
        return Err(Misplaced::Start);
    }
    if offset + 2 > len {
        return Err(Misplaced::Offset);
    }
    let stop = if end == 0 { len } else { (end + 1).clamp(start, len) };
    let value = !sum(&packet[start..stop]);
    packet[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
    match () {
        () if end >= len || end != 0 && end < start => Err(Misplaced::End),
        () if offset < start || offset + 2 > stop => Err(Misplaced::NotCovered),
        () => Ok(()),
    }
}
