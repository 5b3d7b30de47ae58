//! What a NIC is made to do.

use std::time::Duration;

use hal::Capabilities;

use super::BenchError;
use crate::net::fill_ipv4_header;

/// The bytes of the headers in every packet: Ethernet, IPv4, UDP.
pub(super) const HEADER: usize = 42;

/// The headers of a UDP datagram in a packet of `bytes` bytes: between locally administered addresses, and the IP addresses and the port for
/// benchmarks (RFC 2544) and nobody (discard). There is no UDP checksum (RFC 768), since the bytes behind are whatever is there.
pub(super) fn header(bytes: u64) -> [u8; HEADER] {
    let mut header = [
        0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1, 0x08, 0, // Ethernet
        0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2, // IPv4
        0, 9, 0, 9, 0, 0, 0, 0, // UDP
    ];
    for (place, before) in [(16, 14), (38, 34)] {
        let len = u16::try_from(bytes.saturating_sub(before)).unwrap_or(u16::MAX);
        header[place..place + 2].copy_from_slice(&len.to_be_bytes());
    }
    fill_ipv4_header(&mut header, 14);
    header
}

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
