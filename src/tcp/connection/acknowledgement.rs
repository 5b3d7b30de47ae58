//! What a connection makes of ACKs: what has arrived, what is lost, how large the window is.

use super::timers::Timer;
use super::{Connection, Recovery};
use crate::tcp::Segment;
use crate::tcp::congestion::Prr;
use crate::tcp::nanos::Nanos;
use crate::tcp::rack::Circumstances;
use crate::tcp::scoreboard::Record;

/// So many duplicate ACKs tell a loss, without SACK (RFC 5681 3.2).
const DUPLICATES: u64 = 3;

impl Connection {
    /// What an ACK says of what is under way.
    pub(super) fn process_acknowledgement(&mut self, segment: &Segment<'_>, ack: u64, plain: bool, now: Nanos) {
        let options = &segment.header.options;
        let advanced = ack - self.una;
        let in_flight_before = self.scoreboard.in_flight();
        let minimum = self.rtt.minimum();
        let echo = options.timestamps.filter(|stamps| self.timestamps && stamps.echo != 0).map(|stamps| stamps.echo);
        let offset = self.timestamp_offset;
        // The clock of the echo is coarser than ours: only a whole tick tells.
        let older = |sent_at: Nanos| {
            let milliseconds = (sent_at.as_millis() as u32).wrapping_add(offset);
            echo.is_some_and(|echo| (echo.wrapping_sub(milliseconds) as i32) < 0)
        };
        let mut first_sent: Option<Nanos> = None;
        let mut resent = false;
        let rack = &mut self.rack;
        let mut arrived = |record: &Record| {
            resent |= record.resent;
            if !record.resent {
                first_sent = Some(first_sent.map_or(record.sent_at, |at| at.min(record.sent_at)));
            }
            rack.arrived(record, now, minimum, record.resent && older(record.sent_at));
        };
        let mut delivered = self.scoreboard.acknowledge(ack, &mut arrived);
        let mut duplicate = None;
        if self.sack_permitted && !options.sack.is_empty() {
            let blocks = options.sack.as_slice();
            for (index, &(left, right)) in blocks.iter().enumerate() {
                let (Some(left), Some(right)) = (left.position(self.iss, ack), right.position(self.iss, ack)) else { continue };
                if left >= right || right > self.next {
                    continue;
                }
                let within_second = index == 0
                    && blocks.get(1).is_some_and(|&(second_left, second_right)| {
                        second_left.position(self.iss, ack).is_some_and(|at| at <= left)
                            && second_right.position(self.iss, ack).is_some_and(|at| right <= at)
                    });
                if index == 0 && (right <= ack || within_second) {
                    duplicate = Some(left..right);
                }
                if right > ack {
                    delivered += self.scoreboard.sack(left.max(ack)..right, &mut arrived);
                }
            }
        }
        self.una = ack;
        // Karn's rule. What else an ACK of a retransmission covers may have arrived long before, and have waited for it.
        if let Some(sent_at) = first_sent.filter(|_| !resent) {
            self.sample(sent_at, now);
        } else if let (Some(echo), true) = (echo, advanced > 0) {
            let ticks = self.timestamp(now).wrapping_sub(echo);
            if ticks < 1 << 24 {
                self.rtt.sample(Nanos::from_millis(ticks.into()), now);
            }
        }
        if duplicate.is_some() {
            self.rack.duplicate(ack, self.next);
        }
        if advanced > 0 {
            self.progressed(now);
        }
        self.judge_probe(ack, advanced, duplicate.is_some(), options.sack.is_empty(), plain);
        self.leave_recovery();
        if !self.sack_permitted {
            delivered += self.count_duplicates(advanced, plain);
        }
        if !self.scoreboard.is_plain() {
            self.detect_losses(in_flight_before, now);
        }
        self.adjust_window(delivered, advanced > 0, in_flight_before, now);
        self.arm_loss_probe(now);
    }

    /// A round-trip sample of what was sent at `sent_at`. Once for a burst, however many ACKs it draws: the later ones have the burst's own
    /// length in them.
    #[inline]
    pub(super) fn sample(&mut self, sent_at: Nanos, now: Nanos) {
        if sent_at != self.sampled || self.rtt.is_backed_off() {
            self.sampled = sent_at;
            self.rtt.sample(now.since(sent_at), now);
        }
    }

    /// Something of what was under way is acknowledged.
    #[inline]
    pub(super) fn progressed(&mut self, now: Nanos) {
        self.retries = 0;
        (self.stalled_since, self.moved_at) = (now, now);
        if self.scoreboard.is_empty() {
            self.timers.clear(Timer::Retransmit);
        } else {
            self.timers.set(Timer::Retransmit, now + self.rtt.rto());
        }
    }

    /// Everything that was under way when a recovery began is acknowledged: it is over.
    fn leave_recovery(&mut self) {
        let over = match self.recovery {
            Recovery::Open => false,
            Recovery::Fast { until, .. } | Recovery::Loss { until } => self.una >= until,
        };
        if over {
            if matches!(self.recovery, Recovery::Fast { .. }) {
                self.congestion.set_window(self.congestion.threshold());
            }
            self.recovery = Recovery::Open;
            self.rack.recovered();
        }
    }

    /// Finds what is lost, and begins a recovery if there is something. `in_flight` was under way before the ACK that tells.
    pub(super) fn detect_losses(&mut self, in_flight: u64, now: Nanos) {
        self.timers.clear(Timer::Reorder);
        if self.sack_permitted {
            let about = Circumstances {
                now,
                smoothed: self.rtt.smoothed().unwrap_or_default(),
                minimum: self.rtt.minimum(),
                mss: self.mss.into(),
                recovering: !matches!(self.recovery, Recovery::Open),
            };
            if let Some(again) = self.rack.detect(&mut self.scoreboard, &about) {
                self.timers.set(Timer::Reorder, again);
            }
        }
        if self.scoreboard.lost() > 0 && matches!(self.recovery, Recovery::Open) {
            self.enter_recovery(in_flight);
        }
    }

    fn enter_recovery(&mut self, in_flight: u64) {
        self.congestion.reduce();
        self.recovery = Recovery::Fast { until: self.next, prr: Prr::new(in_flight) };
        self.timers.clear(Timer::LossProbe);
        self.probe = None;
        self.forced = true;
    }

    /// The congestion window after an ACK.
    #[inline]
    pub(super) fn adjust_window(&mut self, delivered: u64, advances: bool, in_flight_before: u64, now: Nanos) {
        let in_flight = self.scoreboard.in_flight().saturating_sub(self.duplicates * u64::from(self.mss));
        let threshold = self.congestion.threshold();
        match &mut self.recovery {
            Recovery::Fast { prr, .. } => {
                let allowed = prr.arrived(delivered, in_flight, threshold, self.mss.into());
                self.congestion.set_window(in_flight + allowed);
            }
            recovery => {
                let cautious = matches!(recovery, Recovery::Loss { .. });
                let limited =
                    self.una <= self.limited_until || (self.congestion.slow_start() && 2 * in_flight_before > self.congestion.window());
                if advances && delivered > 0 && (limited || cautious) {
                    let round_trip = self.rtt.smoothed().unwrap_or_default();
                    self.congestion.arrived(delivered, cautious, round_trip, now);
                }
            }
        }
    }

    /// NewReno, for a peer without SACK (RFC 6582). Returns how many bytes a duplicate says have arrived.
    fn count_duplicates(&mut self, advanced: u64, plain: bool) -> u64 {
        let mss = u64::from(self.mss);
        if advanced > 0 {
            self.duplicates = self.duplicates.saturating_sub(advanced.div_ceil(mss));
            // A part of what was under way is acknowledged: what follows it is lost as well.
            if matches!(self.recovery, Recovery::Fast { .. }) {
                self.scoreboard.lose_first(mss);
                self.forced = true;
            } else {
                self.duplicates = 0;
            }
            return 0;
        }
        if !plain || self.scoreboard.is_empty() || self.duplicates * mss >= self.scoreboard.in_flight() {
            return 0;
        }
        self.duplicates += 1;
        if self.duplicates == DUPLICATES && matches!(self.recovery, Recovery::Open) {
            self.scoreboard.lose_first(mss);
        }
        mss
    }

    /// What an ACK says of a tail loss probe (RFC 8985 7.4.2).
    fn judge_probe(&mut self, ack: u64, advanced: u64, duplicate: bool, without_sack: bool, plain: bool) {
        let Some(probe) = self.probe.filter(|probe| ack >= probe.end) else { return };
        if !probe.retransmission || duplicate {
            self.probe = None;
        } else if ack > probe.end {
            // No duplicate came back: the probe has repaired a loss, and that is a sign of congestion.
            self.probe = None;
            self.congestion.reduce();
            self.congestion.set_window(self.congestion.threshold());
        } else if advanced == 0 && without_sack && plain {
            self.probe = None;
        }
    }
}
