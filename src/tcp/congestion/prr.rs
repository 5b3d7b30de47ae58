//! Proportional rate reduction: the window while a loss is repaired (RFC 6937), with the slow-start reduction bound.

/// One recovery.
#[derive(Clone, Debug)]
pub(in super::super) struct Prr {
    /// What was under way when it began.
    start: u64,
    delivered: u64,
    sent: u64,
}

impl Prr {
    /// A recovery begins with `in_flight` bytes under way, those included that are now known to be lost.
    pub fn new(in_flight: u64) -> Self {
        Self { start: in_flight.max(1), delivered: 0, sent: 0 }
    }

    /// An ACK says that `delivered` bytes have arrived. Returns how many bytes may be sent.
    pub fn arrived(&mut self, delivered: u64, in_flight: u64, threshold: u64, mss: u64) -> u64 {
        self.delivered += delivered;
        let allowed = if in_flight > threshold {
            let share = u128::from(self.delivered) * u128::from(threshold);
            (share.div_ceil(u128::from(self.start)) as u64).saturating_sub(self.sent)
        } else {
            let limit = self.delivered.saturating_sub(self.sent).max(delivered) + mss;
            limit.min(threshold - in_flight)
        };
        // The first retransmission goes out at once.
        if self.sent == 0 { allowed.max(mss) } else { allowed }
    }

    /// `bytes` are sent.
    pub fn sent(&mut self, bytes: u64) {
        self.sent += bytes;
    }
}
