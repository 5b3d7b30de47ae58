//! So many bits a second, no more.

use std::time::Duration;

use crate::net::Rate;

/// A token bucket in virtual time: bytes flow in at the rate, frames take them out.
///
/// It holds at most [`DEPTH`](Self::DEPTH) of time, or one frame: after a pause there is no burst to catch up.
#[derive(Clone, Debug)]
pub struct Pacer {
    bits_per_second: u64,
    /// When the next frame may go: the time at which all before it are through, at the rate.
    next: Duration,
}

impl Pacer {
    /// How much of a pause may be made up for: enough for a late wake-up.
    pub const DEPTH: Duration = Duration::from_millis(2);

    /// A pacer from `now` on.
    pub fn new(rate: Rate, now: Duration) -> Self {
        Self { bits_per_second: rate.bits_per_second(), next: now }
    }

    /// How many of at most `frames` frames of `bytes` bytes may go now. They count as sent; [`refund`](Self::refund) those that were not.
    pub fn take(&mut self, now: Duration, frames: usize, bytes: usize) -> usize {
        self.next = self.next.max(now.saturating_sub(Self::DEPTH));
        let cost = self.time(bytes);
        let mut count = 0;
        while count < frames && self.next <= now {
            self.next += cost;
            count += 1;
        }
        count
    }

    /// Gives back what was taken for frames that were not sent, or for bytes that shorter frames did not have.
    pub fn refund(&mut self, bytes: usize) {
        self.next = self.next.saturating_sub(self.time(bytes));
    }

    /// When the next frame may go.
    pub fn next(&self) -> Duration {
        self.next
    }

    fn time(&self, bytes: usize) -> Duration {
        Duration::from_nanos((bytes as u64).saturating_mul(8_000_000_000) / self.bits_per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent_in(rate: &str, span: Duration, poll: Duration) -> u64 {
        let mut pacer = Pacer::new(rate.parse().unwrap(), Duration::ZERO);
        let (mut now, mut sent) = (Duration::ZERO, 0);
        while now < span {
            sent += pacer.take(now, 32, 1500) as u64 * 1500;
            now += poll;
        }
        sent * 8
    }

    #[test]
    fn the_rate_is_kept_however_often_it_is_asked() {
        for poll in [Duration::from_micros(1), Duration::from_micros(130), Duration::from_millis(1)] {
            let bits = sent_in("200Mbit", Duration::from_secs(1), poll);
            assert!((198_000_000..=201_000_000).contains(&bits), "{bits} bits at a poll every {poll:?}");
        }
    }

    #[test]
    fn a_slow_rate_sends_single_frames() {
        let bits = sent_in("64kbit", Duration::from_secs(10), Duration::from_millis(1));
        assert!((628_000..=652_000).contains(&bits), "{bits}");
    }

    #[test]
    fn a_pause_is_not_made_up_for() {
        let mut pacer = Pacer::new("100Mbit".parse().unwrap(), Duration::ZERO);
        pacer.take(Duration::ZERO, 1, 1500);
        // 2 ms at 100 Mbit/s are 25,000 bytes.
        let frames = pacer.take(Duration::from_secs(60), 1000, 1500);
        assert!((16..=18).contains(&frames), "{frames}");
    }
}
