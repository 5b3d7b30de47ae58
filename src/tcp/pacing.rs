//! Spreading a window over the round trip, so that a burst of segmentation offload does not overrun a queue on the way.

use super::nanos::Nanos;

/// How long a burst may take at the pace: what Linux has (`tcp_tso_autosize`, 1 ms).
const BURST_SPAN: Nanos = Nanos::from_millis(1);
/// How much of a pause may be made up for: a poll that came late.
const CREDIT: Nanos = Nanos::from_millis(1);

/// Says when the next burst may go, and how long it may be. The pace is the window in a round trip, and more as long as the window is to
/// grow: twice in slow start, 1.2 times later, as in Linux.
#[derive(Clone, Debug, Default)]
pub(super) struct Pacer {
    next: Nanos,
}

/// A pace: so many bytes in so much time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    bytes: u64,
    nanoseconds: u64,
}

impl Pace {
    /// The pace for a window and a round-trip time.
    #[inline]
    pub fn new(window: u64, slow_start: bool, round_trip: Nanos) -> Self {
        let tenths = if slow_start { 20 } else { 12 };
        // 2^63 ns are three hundred years, and a sample is 60 s at most.
        Self { bytes: window.saturating_mul(tenths) / 10, nanoseconds: round_trip.0.max(1) }
    }

    /// How many bytes make a burst of 1 ms: a multiple of `mss`, two segments at least, `most` at most.
    #[inline]
    pub fn burst(self, mss: u64, most: u64) -> u64 {
        let bytes = self.bytes.saturating_mul(BURST_SPAN.0) / self.nanoseconds;
        if bytes >= most { most } else { (bytes - bytes % mss).max(2 * mss).min(most) }
    }

    #[inline]
    fn time(self, bytes: u64) -> Nanos {
        Nanos(bytes.saturating_mul(self.nanoseconds) / self.bytes.max(1))
    }
}

impl Pacer {
    /// When the next burst may go.
    #[inline]
    pub fn next(&self) -> Nanos {
        self.next
    }

    /// `bytes` are sent now, at `pace`.
    #[inline]
    pub fn sent(&mut self, bytes: u64, pace: Pace, now: Nanos) {
        self.next = self.next.max(now.since(CREDIT)) + pace.time(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_takes_half_a_round_trip_in_slow_start_and_five_sixths_later() {
        for (slow_start, milliseconds) in [(true, 50), (false, 83)] {
            let pace = Pace::new(100_000, slow_start, Nanos::from_millis(100));
            let mut pacer = Pacer::default();
            let begun = Nanos::from_secs(5);
            let (mut now, mut sent) = (begun, 0);
            while sent < 100_000 {
                now = now.max(pacer.next());
                let burst = pace.burst(1000, 64_000).min(100_000 - sent);
                pacer.sent(burst, pace, now);
                sent += burst;
            }
            let took = pacer.next().since(begun).as_millis() as i64;
            assert!((took - milliseconds).abs() <= 2, "{took} ms");
        }
    }

    #[test]
    fn bursts_grow_with_the_pace_between_two_segments_and_the_most() {
        let burst = |window| Pace::new(window, false, Nanos::from_millis(10)).burst(1448, 65_160);
        assert_eq!(burst(1448), 2 * 1448);
        assert_eq!(burst(14_480), 2 * 1448);
        assert_eq!(burst(144_800), 12 * 1448);
        assert_eq!(burst(1_000_000_000), 65_160);
        assert_eq!(Pace::new(1, false, Nanos::from_millis(10)).burst(1448, 1448), 1448);
    }

    #[test]
    fn a_pause_is_made_up_for_by_a_millisecond_at_most() {
        let pace = Pace::new(1_000_000, false, Nanos::from_millis(100));
        let mut pacer = Pacer::default();
        pacer.sent(12_000, pace, Nanos::from_secs(9));
        assert_eq!(pacer.next(), Nanos::from_secs(9));
    }
}
