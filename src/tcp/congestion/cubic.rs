//! CUBIC (RFC 9438). Windows are counted in segments here, as the RFC does.

use crate::tcp::nanos::Nanos;

/// How fast the window grows, in segments a cubic second (RFC 9438 4.1).
const C: f64 = 0.4;
/// What is left of the window after a loss (RFC 9438 4.6).
const BETA: f64 = 0.7;
/// By how much Reno's window grows in a round trip, if it is reduced to BETA as well (RFC 9438 4.3).
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

#[derive(Clone, Debug, Default)]
pub(super) struct Cubic {
    /// The window before the last reduction, less if that was a small one already.
    w_max: f64,
    /// The window before the last reduction.
    prior: f64,
    /// Since when the window grows along the curve.
    epoch: Option<Nanos>,
    /// How long the curve takes back to `w_max`, in seconds.
    k: f64,
    /// What Reno's window would be.
    estimate: f64,
    /// Parts of a byte that the window has grown.
    fraction: f64,
}

impl Cubic {
    /// The window in bytes after `bytes` have arrived (RFC 9438 4.2 to 4.5).
    pub fn arrived(&mut self, window: u64, bytes: u64, mss: u64, round_trip: Nanos, now: Nanos) -> u64 {
        let segment = mss as f64;
        let current = window as f64 / segment;
        let acked = bytes as f64 / segment;
        let epoch = *self.epoch.get_or_insert_with(|| {
            self.w_max = self.w_max.max(current);
            self.k = ((self.w_max - current) / C).cbrt();
            self.estimate = current;
            now
        });
        let elapsed = now.since(epoch).as_secs_f64();
        let curve = |time: f64| C * (time - self.k).powi(3) + self.w_max;
        let alpha = if self.estimate < self.prior { ALPHA } else { 1.0 };
        self.estimate += alpha * acked / current;
        let growth = if curve(elapsed) < self.estimate {
            (self.estimate - current).max(0.0)
        } else {
            let target = curve(elapsed + round_trip.as_secs_f64()).clamp(current, 1.5 * current);
            (target - current) / current * acked
        };
        // Never faster than slow start, whatever the numbers.
        let grown = (growth.min(acked) * segment) + self.fraction;
        self.fraction = grown.fract();
        window + grown as u64
    }

    /// The window in bytes after a loss, with fast convergence (RFC 9438 4.6, 4.7).
    pub fn reduce(&mut self, window: u64, mss: u64) -> u64 {
        let current = window as f64 / mss as f64;
        self.w_max = if current < self.w_max { current * (1.0 + BETA) / 2.0 } else { current };
        self.prior = current;
        self.epoch = None;
        // BETA, without a rounding that depends on the machine.
        window.saturating_mul(7) / 10
    }

    /// After a pause the curve starts anew from where the window is (RFC 9438 5.8).
    pub fn restart(&mut self) {
        self.epoch = None;
    }
}
