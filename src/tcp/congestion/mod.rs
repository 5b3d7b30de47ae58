//! How much may be under way: congestion control (RFC 5681, 9438, 6928, 6937).

mod cubic;
mod prr;
mod reno;

use super::nanos::Nanos;

pub(super) use prr::Prr;

use cubic::Cubic;
use reno::Reno;

/// Which algorithm finds the congestion window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Congestion {
    /// CUBIC (RFC 9438)
    #[default]
    Cubic,
    /// Reno (RFC 5681): the window grows by a segment in a round trip
    Reno,
}

#[derive(Clone, Debug)]
enum Algorithm {
    Cubic(Cubic),
    Reno(Reno),
}

/// The congestion window of a connection, in bytes.
#[derive(Clone, Debug)]
pub(super) struct Controller {
    window: u64,
    threshold: u64,
    mss: u64,
    algorithm: Algorithm,
}

/// The initial window (RFC 6928 2): ten segments, less when they are large.
fn initial_window(mss: u64) -> u64 {
    (10 * mss).min(14600.max(2 * mss))
}

impl Controller {
    /// A window as it is after a handshake; one segment when the SYN was `lost` (RFC 5681 3.1).
    pub fn new(congestion: Congestion, mss: u64, syn_lost: bool) -> Self {
        let algorithm = match congestion {
            Congestion::Cubic => Algorithm::Cubic(Cubic::default()),
            Congestion::Reno => Algorithm::Reno(Reno::default()),
        };
        let window = if syn_lost { mss } else { initial_window(mss) };
        Self { window, threshold: u64::MAX, mss, algorithm }
    }

    /// The congestion window in bytes, a segment at least.
    #[inline]
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Where slow start ends, in bytes.
    #[inline]
    pub fn threshold(&self) -> u64 {
        self.threshold
    }

    /// Whether the window doubles in a round trip.
    #[inline]
    pub fn slow_start(&self) -> bool {
        self.window < self.threshold
    }

    /// Segments have another size from now on.
    pub fn set_mss(&mut self, mss: u64) {
        self.mss = mss;
        self.window = self.window.max(mss);
    }

    /// `bytes` have arrived, when the window was what limited the sender. In slow start after a time-out, `cautious`, an ACK counts for one
    /// segment at most (RFC 3465 2.3).
    pub fn arrived(&mut self, mut bytes: u64, cautious: bool, round_trip: Nanos, now: Nanos) {
        if self.slow_start() {
            let growth = bytes.min(self.threshold - self.window);
            bytes -= growth;
            self.window += if cautious { growth.min(self.mss) } else { growth };
        }
        if bytes > 0 && !self.slow_start() {
            self.window = match &mut self.algorithm {
                Algorithm::Cubic(cubic) => cubic.arrived(self.window, bytes, self.mss, round_trip, now),
                Algorithm::Reno(reno) => reno.arrived(self.window, bytes, self.mss),
            };
        }
    }

    /// A loss: sets the threshold. The window follows it by [`Prr`], or by [`set_window`](Self::set_window).
    pub fn reduce(&mut self) {
        let reduced = match &mut self.algorithm {
            Algorithm::Cubic(cubic) => cubic.reduce(self.window, self.mss),
            Algorithm::Reno(_) => self.window / 2,
        };
        self.threshold = reduced.max(2 * self.mss);
    }

    /// Sets the window; a segment at least.
    pub fn set_window(&mut self, bytes: u64) {
        self.window = bytes.max(self.mss);
    }

    /// The sender paused for longer than a time-out, with nothing under way: what was known of the path is old (RFC 5681 4.1).
    pub fn restart(&mut self) {
        self.window = self.window.min(initial_window(self.mss));
        if let Algorithm::Cubic(cubic) = &mut self.algorithm {
            cubic.restart();
        }
    }
}

#[cfg(test)]
mod tests;
