//! The round-trip time and the retransmission time-out (RFC 6298).

use std::time::Duration;

use super::nanos::Nanos;

/// The time-out before there is a sample (RFC 6298 2.1).
pub const INITIAL_RTO: Duration = Duration::from_secs(1);
/// The least time-out. RFC 6298 2.4 asks for 1 s and allows less; this is what Linux has, and delayed ACKs of 40 to 200 ms fit in.
pub const MIN_RTO: Duration = Duration::from_millis(200);
/// The largest time-out (RFC 6298 2.5: at least 60 s).
pub const MAX_RTO: Duration = Duration::from_secs(60);
/// For how long a minimum counts: paths change.
const MINIMUM_SPAN: Nanos = Nanos::from_secs(300);

const SHORTEST: Nanos = Nanos::of(MIN_RTO);
const LONGEST: Nanos = Nanos::of(MAX_RTO);

/// What is known of the round-trip time of a connection.
#[derive(Clone, Debug)]
pub(super) struct Rtt {
    smoothed: Nanos,
    variation: Nanos,
    /// What the samples say, without back-off.
    rto: Nanos,
    backoff: u8,
    /// The least sample since `minimum_since`, and of the span before.
    minimum: [Nanos; 2],
    minimum_since: Nanos,
}

impl Rtt {
    pub fn new() -> Self {
        Self {
            smoothed: Nanos::ZERO,
            variation: Nanos::ZERO,
            rto: Nanos::of(INITIAL_RTO),
            backoff: 0,
            minimum: [Nanos::MAX; 2],
            minimum_since: Nanos::ZERO,
        }
    }

    /// Takes a sample that no retransmission can have spoilt (Karn's rule), and ends the back-off.
    pub fn sample(&mut self, sample: Nanos, now: Nanos) {
        // A sample of 0, from a clock that did not move, would count as none.
        let sample = sample.clamp(Nanos(1), LONGEST);
        if self.smoothed.is_zero() {
            (self.smoothed, self.variation) = (sample, sample / 2);
        } else {
            self.variation = (self.variation * 3 + Nanos(self.smoothed.0.abs_diff(sample.0))) / 4;
            self.smoothed = ((self.smoothed * 7 + sample) / 8).max(Nanos(1));
        }
        self.rto = (self.smoothed + (self.variation * 4).max(SHORTEST)).min(LONGEST);
        self.backoff = 0;
        if now.since(self.minimum_since) > MINIMUM_SPAN {
            self.minimum = [Nanos::MAX, self.minimum[0]];
            self.minimum_since = now;
        }
        self.minimum[0] = self.minimum[0].min(sample);
    }

    /// Doubles the time-out, after one has passed (RFC 6298 5.5).
    pub fn back_off(&mut self) {
        self.backoff = (self.backoff + 1).min(16);
    }

    /// Data is sent after a handshake whose SYN timed out: the time-out is 3 s at least, as long as there is no sample (RFC 6298 5.7).
    pub fn after_lost_syn(&mut self) {
        self.backoff = 0;
        if self.smoothed.is_zero() {
            self.rto = Nanos::from_secs(3);
        }
    }

    /// The time-out, with back-off, at most [`MAX_RTO`].
    #[inline]
    pub fn rto(&self) -> Nanos {
        (self.rto * (1 << self.backoff)).min(LONGEST)
    }

    /// Whether the time-out has doubled since the last sample.
    #[inline]
    pub fn is_backed_off(&self) -> bool {
        self.backoff > 0
    }

    /// The smoothed round-trip time, if there was a sample.
    #[inline]
    pub fn smoothed(&self) -> Option<Nanos> {
        (!self.smoothed.is_zero()).then_some(self.smoothed)
    }

    /// The least sample of the last 5 to 10 minutes, [`Nanos::MAX`] without any.
    pub fn minimum(&self) -> Nanos {
        self.minimum[0].min(self.minimum[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Nanos {
        Nanos::from_millis(milliseconds)
    }

    #[test]
    fn the_estimate_is_that_of_rfc_6298() {
        let mut rtt = Rtt::new();
        assert_eq!((rtt.smoothed(), rtt.rto()), (None, ms(1000)));
        rtt.sample(ms(400), ms(0));
        assert_eq!((rtt.smoothed(), rtt.rto()), (Some(ms(400)), ms(400 + 4 * 200)));
        // RTTVAR = 3/4 * 200 + 1/4 * |400 - 800|, SRTT = 7/8 * 400 + 1/8 * 800.
        rtt.sample(ms(800), ms(0));
        assert_eq!((rtt.smoothed(), rtt.rto()), (Some(ms(450)), ms(450 + 4 * 250)));
    }

    #[test]
    fn the_timeout_has_bounds_and_doubles_between_them() {
        let mut rtt = Rtt::new();
        for _ in 0..100 {
            rtt.sample(Nanos(50_000), ms(0));
        }
        assert_eq!(rtt.rto(), Nanos(200_050_000));
        rtt.back_off();
        rtt.back_off();
        assert_eq!(rtt.rto(), Nanos(800_200_000));
        for _ in 0..200 {
            rtt.back_off();
        }
        assert_eq!(rtt.rto().duration(), MAX_RTO);
        rtt.sample(Nanos(50_000), ms(0));
        assert_eq!(rtt.rto(), Nanos(200_050_000));
        rtt.sample(Nanos::MAX, ms(0));
        assert_eq!(rtt.rto().duration(), MAX_RTO);
    }

    #[test]
    fn a_minimum_is_forgotten_after_a_while() {
        let mut rtt = Rtt::new();
        assert_eq!(rtt.minimum(), Nanos::MAX);
        rtt.sample(ms(10), ms(0));
        for at in 1..=12 {
            rtt.sample(ms(50), Nanos::from_secs(60 * at));
        }
        assert_eq!(rtt.minimum(), ms(50));
        rtt.sample(ms(30), Nanos::from_secs(721));
        assert_eq!(rtt.minimum(), ms(30));
    }

    #[test]
    fn a_sample_of_nothing_is_one() {
        let mut rtt = Rtt::new();
        rtt.sample(Nanos::ZERO, ms(0));
        assert!(rtt.smoothed().is_some());
    }
}
