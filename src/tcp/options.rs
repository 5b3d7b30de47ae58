//! The options of a TCP header that this engine uses (RFC 9293 3.1, 7323, 2018).

use super::Seq;

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// The most bytes of options that a header has room for.
pub const MAX_OPTIONS: usize = 40;

/// The largest window scale (RFC 7323 2.3). A larger one in a SYN counts as this one.
pub const MAX_SCALE: u8 = 14;

/// The timestamps option (RFC 7323 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timestamps {
    /// the sender's clock
    pub value: u32,
    /// the latest clock value that it had from the other side, 0 in a SYN
    pub echo: u32,
}

impl Timestamps {
    /// The bytes that the option takes, aligned as it is.
    pub(super) const OPTION_LEN: usize = 12;
}

/// The blocks of a SACK option (RFC 2018 3), at most four: each from a number up to, and without, another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SackBlocks {
    blocks: [(Seq, Seq); 4],
    len: u8,
}

impl SackBlocks {
    /// Adds a block. Returns whether there was room.
    pub fn push(&mut self, start: Seq, end: Seq) -> bool {
        let Some(free) = self.blocks.get_mut(usize::from(self.len)) else { return false };
        *free = (start, end);
        self.len += 1;
        true
    }

    /// The blocks, in the order of the option.
    #[inline]
    pub fn as_slice(&self) -> &[(Seq, Seq)] {
        &self.blocks[..usize::from(self.len)]
    }

    /// Whether there is none, which is when there is no option.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes that an option with so many blocks takes, aligned as it is.
    #[inline]
    pub(super) fn option_len(blocks: usize) -> usize {
        if blocks == 0 { 0 } else { 4 + 8 * blocks }
    }

    /// How many fit beside timestamps, or without.
    pub fn room(timestamps: bool) -> usize {
        if timestamps { 3 } else { 4 }
    }
}

/// What the options of a header say. Options that are not known are skipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TcpOptions {
    /// the largest segment that the sender takes, in bytes without any header; only in a SYN
    pub mss: Option<u16>,
    /// by how many bits the sender shifts its window, 0..=14; only in a SYN
    pub window_scale: Option<u8>,
    /// whether the other side may send SACK blocks; only in a SYN
    pub sack_permitted: bool,
    /// what has arrived out of order
    pub sack: SackBlocks,
    /// the clocks
    pub timestamps: Option<Timestamps>,
}

impl TcpOptions {
    /// Reads the option bytes of a header. It ends at the first option whose length cannot be right, as Linux does: what was read until
    /// then counts. Those that belong to a SYN are looked at only when `syn`.
    #[inline]
    pub fn parse(bytes: &[u8], syn: bool) -> Self {
        // What nearly every segment has (RFC 7323 appendix A).
        if let &[NO_OPERATION, NO_OPERATION, TIMESTAMPS, 10, ref body @ ..] = bytes
            && body.len() == 8
        {
            let timestamps = Some(Timestamps { value: word(&body[..4]), echo: word(&body[4..]) });
            return Self { timestamps, ..Self::default() };
        }
        Self::parse_any(bytes, syn)
    }

    fn parse_any(mut bytes: &[u8], syn: bool) -> Self {
        let mut options = Self::default();
        loop {
            let (kind, body) = match *bytes {
                [] | [END, ..] => return options,
                [NO_OPERATION, ref rest @ ..] => {
                    bytes = rest;
                    continue;
                }
                [kind, len, ..] if (2..=bytes.len()).contains(&usize::from(len)) => {
                    let (option, rest) = bytes.split_at(usize::from(len));
                    bytes = rest;
                    (kind, &option[2..])
                }
                _ => return options,
            };
            match (kind, body) {
                (MSS, &[a, b]) if syn => options.mss = Some(u16::from_be_bytes([a, b])),
                (WINDOW_SCALE, &[scale]) if syn => options.window_scale = Some(scale.min(MAX_SCALE)),
                (SACK_PERMITTED, []) if syn => options.sack_permitted = true,
                (SACK, body) if body.len() % 8 == 0 => {
                    options.sack = SackBlocks::default();
                    for block in body.chunks_exact(8) {
                        options.sack.push(Seq(word(&block[..4])), Seq(word(&block[4..])));
                    }
                }
                (TIMESTAMPS, body) if body.len() == 8 => {
                    options.timestamps = Some(Timestamps { value: word(&body[..4]), echo: word(&body[4..]) });
                }
                _ => {}
            }
        }
    }

    /// The bytes that [`emit`](Self::emit) writes: a multiple of 4, at most 40 for what a header can have (in a SYN everything but blocks;
    /// else timestamps and three blocks, or four blocks).
    #[inline]
    pub fn len(&self) -> usize {
        let mut len = 0;
        if self.mss.is_some() {
            len += 4;
        }
        if self.window_scale.is_some() {
            len += 4;
        }
        // The SACK-permitted option takes the place of the two NOPs before the timestamps.
        if self.timestamps.is_some() {
            len += Timestamps::OPTION_LEN;
        } else if self.sack_permitted {
            len += 4;
        }
        len + SackBlocks::option_len(self.sack.len.into())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Writes the options at the start of `out` and returns how many bytes they have: [`len`](Self::len). Every option is aligned as
    /// RFC 7323 appendix A and Linux have it, which middle boxes and receivers are fastest with.
    ///
    /// # Panics
    /// When `out` is shorter.
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> usize {
        // What nearly every segment has.
        if let (Some(Timestamps { value, echo }), None, None, false, true) =
            (self.timestamps, self.mss, self.window_scale, self.sack_permitted, self.sack.is_empty())
        {
            let head = u32::from_be_bytes([NO_OPERATION, NO_OPERATION, TIMESTAMPS, 10]);
            for (place, word) in out[..Timestamps::OPTION_LEN].as_chunks_mut::<4>().0.iter_mut().zip([head, value, echo]) {
                *place = word.to_be_bytes();
            }
            return Timestamps::OPTION_LEN;
        }
        self.emit_any(out)
    }

    fn emit_any(&self, out: &mut [u8]) -> usize {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        if let Some(mss) = self.mss {
            put(&[MSS, 4]);
            put(&mss.to_be_bytes());
        }
        match (self.sack_permitted, self.timestamps.is_some()) {
            (true, true) => put(&[SACK_PERMITTED, 2]),
            (true, false) => put(&[NO_OPERATION, NO_OPERATION, SACK_PERMITTED, 2]),
            (false, true) => put(&[NO_OPERATION, NO_OPERATION]),
            (false, false) => {}
        }
        if let Some(timestamps) = self.timestamps {
            put(&[TIMESTAMPS, 10]);
            put(&timestamps.value.to_be_bytes());
            put(&timestamps.echo.to_be_bytes());
        }
        if let Some(scale) = self.window_scale {
            put(&[NO_OPERATION, WINDOW_SCALE, 3, scale]);
        }
        if !self.sack.is_empty() {
            put(&[NO_OPERATION, NO_OPERATION, SACK, 2 + 8 * self.sack.len]);
            for (start, end) in self.sack.as_slice() {
                put(&start.0.to_be_bytes());
                put(&end.0.to_be_bytes());
            }
        }
        at
    }
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
