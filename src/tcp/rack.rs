//! Losses told by time: RACK (RFC 8985 6).

use super::nanos::Nanos;
use super::scoreboard::{Record, Scoreboard, Verdict};

/// Bytes reported as arrived that stand for DupThresh, in segments (RFC 8985 6.2 step 4).
const DUPLICATES: u64 = 3;
/// For how many recoveries a reordering window stays widened (RFC 8985 6.2 step 4).
const PERSISTENCE: u8 = 16;

/// What is known from the segment that was sent last of those that have arrived.
#[derive(Clone, Debug, Default)]
pub(super) struct Rack {
    sent_at: Nanos,
    end: u64,
    rtt: Nanos,
    /// Where the furthest byte that has arrived ends.
    forward: u64,
    reordering: bool,
    /// How often a quarter of the least RTT is the reordering window.
    factor: u8,
    persistence: u8,
    /// Where the round ends in which a duplicate was reported.
    duplicate_round: u64,
}

/// What is needed beside the records to tell what is lost.
pub(super) struct Circumstances {
    pub now: Nanos,
    pub smoothed: Nanos,
    pub minimum: Nanos,
    pub mss: u64,
    pub recovering: bool,
}

impl Rack {
    /// A record has arrived (RFC 8985 6.2, steps 1 to 3). `echo_is_older` says that the ACK answers something that was sent before the
    /// record's retransmission.
    pub fn arrived(&mut self, record: &Record, now: Nanos, minimum: Nanos, echo_is_older: bool) {
        let rtt = now.since(record.sent_at);
        if !(record.resent && (echo_is_older || rtt < minimum)) && (record.sent_at, record.end) > (self.sent_at, self.end) {
            (self.sent_at, self.end, self.rtt) = (record.sent_at, record.end, rtt);
        }
        if record.end > self.forward {
            self.forward = record.end;
        } else if !record.resent {
            self.reordering = true;
        }
    }

    /// A duplicate was reported: what was sent again had arrived, so the window was too small. At most once a round trip; the round ends
    /// with `next`.
    pub fn duplicate(&mut self, acknowledged: u64, next: u64) {
        if acknowledged >= self.duplicate_round {
            self.duplicate_round = next;
            self.factor = self.factor.saturating_add(1);
            self.persistence = PERSISTENCE;
        }
    }

    /// A recovery is over.
    pub fn recovered(&mut self) {
        self.persistence = self.persistence.saturating_sub(1);
        if self.persistence == 0 {
            self.factor = 0;
        }
    }

    /// Marks what is lost (RFC 8985 6.2 step 5). Returns when to ask again, at the latest.
    pub fn detect(&self, scoreboard: &mut Scoreboard, about: &Circumstances) -> Option<Nanos> {
        let window = self.window(scoreboard.sacked(), about);
        let mut again: Option<Nanos> = None;
        scoreboard.lose(|record| {
            if (record.sent_at, record.end) >= (self.sent_at, self.end) {
                return Verdict::Later;
            }
            let lost_at = record.sent_at + self.rtt + window;
            if lost_at <= about.now {
                return Verdict::Lost;
            }
            again = Some(again.map_or(lost_at, |at| at.max(lost_at)));
            Verdict::Wait
        });
        again
    }

    /// For how long a segment may be late.
    fn window(&self, sacked: u64, about: &Circumstances) -> Nanos {
        if !self.reordering && (about.recovering || sacked >= DUPLICATES * about.mss) {
            return Nanos::ZERO;
        }
        if about.minimum == Nanos::MAX {
            return Nanos::ZERO;
        }
        (about.minimum / 4 * (u64::from(self.factor) + 1)).min(about.smoothed)
    }
}
