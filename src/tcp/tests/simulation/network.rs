//! A path that delays, loses, duplicates and reorders, and one that corrupts as well.

use std::time::Duration;

use fastrand::Rng;
use hw_sim::wire::{self, Impairment};
use smoltcp::wire::{IpAddress, TcpPacket};

/// What a path does. Chances are in millionths.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    pub delay: Duration,
    /// by how much more a segment may be delayed, each by itself: reordering
    pub jitter: Duration,
    pub loss: u64,
    pub duplication: u64,
    pub corruption: u64,
    /// bytes a second, 0 for no bound, and how many may wait
    pub rate: u64,
    pub queue: u64,
}

/// One direction of a path.
#[derive(Debug)]
pub struct Wire {
    path: wire::Path,
    corruption: u64,
    random: Rng,
}

const FROM: IpAddress = IpAddress::v4(10, 0, 0, 1);
const TO: IpAddress = IpAddress::v4(10, 0, 0, 2);
/// What the IP and Ethernet headers add on a link of a bounded rate.
const OVERHEAD: u64 = 20 + 14;

impl Wire {
    pub fn new(path: Path, seed: u64) -> Self {
        let Path { delay, jitter, loss, duplication, corruption, rate, queue } = path;
        let impairment = Impairment { delay, jitter, loss, duplication, rate, queue, overhead: OVERHEAD };
        Self { path: wire::Path::new(impairment, seed), corruption, random: Rng::with_seed(!seed) }
    }

    pub fn send(&mut self, mut bytes: Vec<u8>, now: Duration) {
        if self.corruption > 0 {
            TcpPacket::new_unchecked(&mut bytes[..]).fill_checksum(&FROM, &TO);
        }
        if self.random.u64(..1_000_000) < self.corruption {
            let bit = self.random.u64(..8 * bytes.len() as u64) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        self.path.send(bytes, now);
    }

    pub fn next(&self) -> Option<Duration> {
        self.path.next()
    }

    /// What has arrived by now, without what a checksum finds.
    pub fn take(&mut self, now: Duration) -> Option<Vec<u8>> {
        loop {
            let bytes = self.path.take(now)?;
            let sound = self.corruption == 0 || TcpPacket::new_checked(&bytes[..]).is_ok_and(|packet| packet.verify_checksum(&FROM, &TO));
            if sound {
                return Some(bytes);
            }
        }
    }
}
