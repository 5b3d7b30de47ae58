//! Initial sequence numbers that cannot be guessed (RFC 6528).

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use siphasher::sip::SipHasher24;

use super::Seq;

/// What a connection counts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Isn {
    /// the sequence number of the SYN
    pub seq: Seq,
    /// what is added to the clock of the timestamps (RFC 7323 7.1: uptime is nobody's business)
    pub timestamp: u32,
}

/// Makes initial sequence numbers: a clock of 4 µs plus a keyed hash of the addresses and ports (RFC 6528 3).
///
/// Two connections between the same ports get numbers, and timestamps, that increase with time, so that the second one's SYN is not taken
/// for an old one. The hash is SipHash-2-4, as in Linux.
#[derive(Clone)]
pub struct IsnGenerator {
    secret: [u8; 16],
}

impl IsnGenerator {
    /// A generator with a secret: 16 bytes from the system's random source, drawn once when the program starts.
    pub fn new(secret: [u8; 16]) -> Self {
        Self { secret }
    }

    /// The numbers for a connection that begins at `now`.
    pub fn generate(&self, local: SocketAddr, remote: SocketAddr, now: Duration) -> Isn {
        let hash = keyed_hash(&self.secret, local, remote, 0);
        let ticks = (now.as_micros() / 4) as u32;
        Isn { seq: Seq((hash as u32).wrapping_add(ticks)), timestamp: (hash >> 32) as u32 }
    }
}

/// SipHash-2-4 of addresses, ports and a number.
pub(super) fn keyed_hash(secret: &[u8; 16], local: SocketAddr, remote: SocketAddr, number: u64) -> u64 {
    let mut hasher = SipHasher24::new_with_key(secret);
    for end in [local, remote] {
        match end.ip() {
            IpAddr::V4(address) => hasher.write(&address.octets()),
            IpAddr::V6(address) => hasher.write(&address.octets()),
        }
        hasher.write(&end.port().to_be_bytes());
    }
    hasher.write(&number.to_be_bytes());
    hasher.finish()
}

impl std::fmt::Debug for IsnGenerator {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("IsnGenerator")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> (SocketAddr, SocketAddr) {
        ("10.0.2.15:80".parse().unwrap(), "10.0.2.2:51000".parse().unwrap())
    }

    #[test]
    fn the_numbers_move_with_the_clock_and_differ_between_ports() {
        let generator = IsnGenerator::new([7; 16]);
        let (local, remote) = ends();
        let first = generator.generate(local, remote, Duration::from_secs(1));
        let second = generator.generate(local, remote, Duration::from_secs(2));
        assert_eq!((second.seq.since(first.seq), second.timestamp), (250_000, first.timestamp));
        let other = generator.generate(local, SocketAddr::new(remote.ip(), 51001), Duration::from_secs(1));
        assert_ne!(other.seq, first.seq);
        assert_ne!(IsnGenerator::new([8; 16]).generate(local, remote, Duration::from_secs(1)).seq, first.seq);
    }
}
