//! Reno's congestion avoidance (RFC 5681 3.1, by bytes as in RFC 3465).

/// The bytes that have arrived since the window grew.
#[derive(Clone, Debug, Default)]
pub(super) struct Reno {
    counted: u64,
}

impl Reno {
    /// The window after `bytes` have arrived: a segment more for each window full.
    pub fn arrived(&mut self, window: u64, bytes: u64, mss: u64) -> u64 {
        self.counted += bytes;
        if self.counted < window {
            return window;
        }
        self.counted -= window;
        window + mss
    }
}
