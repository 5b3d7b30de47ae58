//! What a NIC is made to do.

use std::time::Duration;

use hal::Capabilities;

use super::BenchError;

/// The headers of a UDP datagram, written into every packet: Ethernet, IPv4 and UDP without checksums, to a locally administered address.
pub(super) const HEADER: [u8; 42] = [
    0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1, 0x08, 0, // Ethernet
    0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 17, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2, // IPv4, addresses for benchmarks (RFC 2544)
    0, 9, 0, 9, 0, 30, 0, 0, // UDP, port 9 (discard)
];

/// What is common to all measurements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// The bytes of each segment of a packet that is made here: the first, with the headers, in a buffer; the others gathered from a file.
    pub segments: Vec<u32>,
    /// Packets that are handled together, and handed over with one doorbell: 1 to 256.
    pub burst: usize,
    /// For how long.
    pub duration: Duration,
    /// The processors that the queues' threads are pinned to, in order; none: where the system puts them.
    pub cpus: Vec<usize>,
}

impl Default for Load {
    fn default() -> Self {
        Self { segments: vec![64], burst: 32, duration: Duration::from_secs(5), cpus: Vec::new() }
    }
}

/// The largest burst.
pub const LARGEST_BURST: usize = 256;
/// The size of a packet buffer in bytes.
pub(super) const BUFFER: u16 = 2048;

impl Load {
    /// The bytes of a packet.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(*segment)).sum()
    }

    /// Whether a burst, and packets with at least `least` bytes in their first segment, can be of these sizes on this NIC.
    pub(super) fn check(&self, least: usize, capabilities: &Capabilities) -> Result<(), BenchError> {
        let refuse = |text: String| Err(BenchError::Load(text));
        if !(1..=LARGEST_BURST).contains(&self.burst) {
            return refuse(format!("a burst of {} packets; use 1 to {LARGEST_BURST}", self.burst));
        }
        let [first, rest @ ..] = self.segments.as_slice() else { return refuse("a packet needs a segment".into()) };
        if !(least..=BUFFER.into()).contains(&(*first as usize)) {
            return refuse(format!("a first segment of {first} bytes; it has {least} to {BUFFER}"));
        }
        if rest.contains(&0) {
            return refuse("an empty segment".into());
        }
        if self.segments.len() > capabilities.max_segments.into() {
            let (wanted, most) = (self.segments.len(), capabilities.max_segments);
            return refuse(format!("a packet of {wanted} segments; this NIC, as it was opened, gathers {most}"));
        }
        if self.bytes() > capabilities.max_frame.into() {
            let most = capabilities.max_frame;
            return refuse(format!("a packet of {} bytes; this NIC, as it was opened, sends at most {most}", self.bytes()));
        }
        Ok(())
    }
}
