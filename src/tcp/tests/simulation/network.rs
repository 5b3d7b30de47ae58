//! A path that delays, loses, duplicates, reorders and corrupts.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use smoltcp::wire::{IpAddress, TcpPacket};

use super::random::Random;

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
    path: Path,
    random: Random,
    under_way: BinaryHeap<Reverse<(Duration, u64, Vec<u8>)>>,
    order: u64,
    free_at: Duration,
    pub lost: u64,
    pub carried: u64,
}

const FROM: IpAddress = IpAddress::v4(10, 0, 0, 1);
const TO: IpAddress = IpAddress::v4(10, 0, 0, 2);
/// What the IP and Ethernet headers add on a link of a bounded rate.
const OVERHEAD: u64 = 20 + 14;

impl Wire {
    pub fn new(path: Path, seed: u64) -> Self {
        Self { path, random: Random(seed), under_way: BinaryHeap::new(), order: 0, free_at: Duration::ZERO, lost: 0, carried: 0 }
    }

    pub fn send(&mut self, mut bytes: Vec<u8>, now: Duration) {
        self.carried += 1;
        let mut leaves = now;
        if self.path.rate > 0 {
            let waiting = self.free_at.saturating_sub(now);
            let len = bytes.len() as u64 + OVERHEAD;
            if waiting.as_nanos() as u64 * self.path.rate / 1_000_000_000 + len > self.path.queue {
                self.lost += 1;
                return;
            }
            leaves = self.free_at.max(now) + Duration::from_nanos(len * 1_000_000_000 / self.path.rate);
            self.free_at = leaves;
        }
        if self.random.chance(self.path.loss) {
            self.lost += 1;
            return;
        }
        if self.path.corruption > 0 {
            TcpPacket::new_unchecked(&mut bytes[..]).fill_checksum(&FROM, &TO);
        }
        if self.random.chance(self.path.duplication) {
            self.enqueue(bytes.clone(), leaves);
        }
        if self.random.chance(self.path.corruption) {
            let bit = self.random.below(8 * bytes.len() as u64) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        self.enqueue(bytes, leaves);
    }

    fn enqueue(&mut self, bytes: Vec<u8>, leaves: Duration) {
        let jitter = self.path.jitter.as_nanos() as u64;
        let late = if jitter > 0 { self.random.below(jitter) } else { 0 };
        self.order += 1;
        self.under_way.push(Reverse((leaves + self.path.delay + Duration::from_nanos(late), self.order, bytes)));
    }

    pub fn next(&self) -> Option<Duration> {
        self.under_way.peek().map(|Reverse((at, ..))| *at)
    }

    /// What has arrived by now, without what a checksum finds.
    pub fn take(&mut self, now: Duration) -> Option<Vec<u8>> {
        loop {
            if self.next()? > now {
                return None;
            }
            let Reverse((_, _, bytes)) = self.under_way.pop()?;
            let sound =
                self.path.corruption == 0 || TcpPacket::new_checked(&bytes[..]).is_ok_and(|packet| packet.verify_checksum(&FROM, &TO));
            if sound {
                return Some(bytes);
            }
            self.lost += 1;
        }
    }
}
