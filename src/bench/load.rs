//! What a NIC is made to do.

use std::time::Duration;

use super::BenchError;

/// The headers of a UDP datagram, written into every packet: Ethernet, IPv4 and UDP without checksums, to a locally administered address.
pub(super) const HEADER: [u8; 42] = [
    0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1, 0x08, 0, // Ethernet
    0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 17, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2, // IPv4, addresses for benchmarks (RFC 2544)
    0, 9, 0, 9, 0, 30, 0, 0, // UDP, port 9 (discard)
];

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxLoad {
    /// The bytes of each segment of a packet; the first has the headers.
    pub segments: Vec<u32>,
    /// Packets handed over with one doorbell.
    pub burst: usize,
    /// For how long.
    pub duration: Duration,
}

impl TxLoad {
    pub(super) fn check(&self) -> Result<(), BenchError> {
        let [first, rest @ ..] = self.segments.as_slice() else { return Err(BenchError::Load("a packet needs a segment".into())) };
        let first = *first as usize;
        if !(HEADER.len()..=2048).contains(&first) {
            return Err(BenchError::Load(format!("a first segment of {first} bytes; it has {} to 2048", HEADER.len())));
        }
        if rest.contains(&0) {
            return Err(BenchError::Load("an empty segment".into()));
        }
        if !(1..=256).contains(&self.burst) {
            return Err(BenchError::Load(format!("a burst of {} packets; use 1 to 256", self.burst)));
        }
        Ok(())
    }
}
