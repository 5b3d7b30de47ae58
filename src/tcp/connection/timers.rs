//! The time-outs of a connection.

use std::fmt;

use super::{Connection, Recovery, State, TcpError};
use crate::tcp::nanos::Nanos;
use crate::tcp::rtt;
use crate::tcp::scoreboard::Fate;

/// What there are time-outs for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(super) enum Timer {
    /// The retransmission time-out (RFC 6298), of a SYN as well.
    Retransmit,
    /// The tail loss probe (RFC 8985 7).
    LossProbe,
    /// The end of RACK's reordering window (RFC 8985 6.3).
    Reorder,
    /// The window of the peer is closed (RFC 9293 3.8.6.1).
    Persist,
    /// An acknowledgement is due.
    Acknowledge,
    /// The next burst may go.
    Pace,
    /// The peer is silent: keep-alive.
    KeepAlive,
    /// Nothing moves: the idle time-out; in TIME-WAIT its end.
    Idle,
}

const COUNT: usize = Timer::Idle as usize + 1;
const OFF: Nanos = Nanos::MAX;

/// When each time-out passes.
#[derive(Clone)]
pub(super) struct Timers {
    at: [Nanos; COUNT],
    /// None passes before: most are put off again and again, and only the first has to be looked at.
    soonest: Nanos,
}

impl Timers {
    pub fn new() -> Self {
        Self { at: [OFF; COUNT], soonest: OFF }
    }

    #[inline]
    pub fn set(&mut self, timer: Timer, at: Nanos) {
        self.at[timer as usize] = at;
        self.soonest = self.soonest.min(at);
    }

    #[inline]
    pub fn clear(&mut self, timer: Timer) {
        self.at[timer as usize] = OFF;
    }

    #[inline]
    pub fn is_set(&self, timer: Timer) -> bool {
        self.at[timer as usize] != OFF
    }

    #[inline]
    pub fn at(&self, timer: Timer) -> Nanos {
        self.at[timer as usize]
    }

    /// The first to pass.
    pub fn first(&self) -> Option<Nanos> {
        self.at.iter().min().copied().filter(|&at| at != OFF)
    }

    /// None passes before this.
    #[inline]
    pub fn soonest(&self) -> Nanos {
        self.soonest
    }

    /// Whether one may have passed.
    #[inline]
    pub fn may_have_passed(&self, now: Nanos) -> bool {
        self.soonest <= now
    }

    /// Those that have passed are taken: looks for the first of the others.
    fn settle(&mut self) {
        self.soonest = self.first().unwrap_or(OFF);
    }

    /// Whether it has passed. It is cleared then.
    #[inline]
    fn take(&mut self, timer: Timer, now: Nanos) -> bool {
        let passed = self.at[timer as usize] <= now;
        if passed {
            self.clear(timer);
        }
        passed
    }
}

impl fmt::Debug for Timers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Timers").field(&self.at).finish()
    }
}

/// How often a SYN is sent again before the connection is given up: after 127 s, as Linux.
const SYN_RETRIES: u8 = 6;
/// The same for a SYN-ACK: after 63 s. A listener bounds how many there are.
const SYN_ACK_RETRIES: u8 = 5;
/// The most that a tail loss probe waits for a delayed ACK (RFC 8985 7.2).
const DELAYED_ACK: Nanos = Nanos::from_millis(200);
/// What a probe waits at least beyond two round trips: a poll, an interrupt that is moderated, a receiver whose program has to read before it
/// acknowledges (5 ms were seen on a busy host, where the round trip was 0.1 ms). Linux has two ticks, 2 to 20 ms.
const PROBE_SLACK: Nanos = Nanos::from_millis(10);

impl Connection {
    /// Does what is due. Segments that it asks for are sent by what follows in `poll`.
    pub(super) fn expire(&mut self, now: Nanos) {
        self.take_passed(now);
        self.timers.settle();
    }

    fn take_passed(&mut self, now: Nanos) {
        if self.timers.take(Timer::Idle, now) {
            self.idle_passed(now);
        }
        if self.state == State::Closed {
            return;
        }
        if self.timers.take(Timer::KeepAlive, now) {
            self.silence_passed(now);
        }
        if self.timers.take(Timer::Acknowledge, now) {
            self.acknowledge_now = true;
        }
        if self.timers.take(Timer::Reorder, now) {
            self.detect_losses(self.scoreboard.in_flight(), now);
        }
        // Whether there is anything to send is found out anew.
        self.timers.take(Timer::Pace, now);
        if self.timers.take(Timer::Persist, now) {
            self.persist_passed(now);
        }
        // A time-out makes a probe pointless.
        if self.timers.take(Timer::Retransmit, now) {
            self.timers.clear(Timer::LossProbe);
            self.retransmission_passed(now);
        } else if self.timers.take(Timer::LossProbe, now) {
            self.probe_due = true;
        }
    }

    fn retransmission_passed(&mut self, now: Nanos) {
        if !self.state.is_synchronized() {
            let most = if self.state == State::SynSent { SYN_RETRIES } else { SYN_ACK_RETRIES };
            if self.retries >= most {
                return self.finish(Some(TcpError::NoAnswer));
            }
            self.retries += 1;
            self.rtt.back_off();
            self.handshake_due = true;
            return;
        }
        if now.since(self.stalled_since) >= Nanos::of(self.config.user_timeout) {
            return self.finish(Some(TcpError::TimedOut));
        }
        let Some(first) = self.scoreboard.first() else { return };
        // What was reported as arrived is the first thing missing: the receiver threw it away.
        let reneged = first.fate == Fate::Sacked;
        // Once for what was under way, however often it times out (RFC 5681 3.1), and not again for what is under repair.
        let reduced = match self.recovery {
            Recovery::Open => false,
            Recovery::Fast { .. } => true,
            Recovery::Loss { .. } => self.retries > 0,
        };
        if !reduced {
            self.congestion.reduce();
        }
        self.retries = self.retries.saturating_add(1);
        self.scoreboard.lose_all(reneged);
        self.duplicates = 0;
        self.recovery = Recovery::Loss { until: self.next };
        self.congestion.set_window(0);
        self.rtt.back_off();
        self.probe = None;
        self.forced = true;
        self.timers.set(Timer::Retransmit, now + self.rtt.rto());
    }

    fn persist_passed(&mut self, now: Nanos) {
        self.persisted = self.persisted.saturating_add(1);
        if self.window > 0 && self.next <= self.stream_end() {
            self.override_due = true;
        } else {
            self.window_probe_due = true;
        }
        self.arm_persist(now);
    }

    /// The peer's window does not let anything out, and nothing is under way whose ACK would open it.
    pub(super) fn arm_persist(&mut self, now: Nanos) {
        let wait = (self.rtt.rto() * (1 << self.persisted.min(10))).min(Nanos::of(rtt::MAX_RTO));
        self.timers.set(Timer::Persist, now + wait);
    }

    fn silence_passed(&mut self, now: Nanos) {
        let Some(keep_alive) = self.config.keep_alive else { return };
        // While something is under way retransmissions ask the same question.
        if !self.scoreboard.is_empty() {
            return self.timers.set(Timer::KeepAlive, now + Nanos::of(keep_alive.idle));
        }
        if self.keep_alive_probes >= keep_alive.probes {
            self.send_reset();
            return self.finish(Some(TcpError::Silent));
        }
        self.keep_alive_probes += 1;
        self.window_probe_due = true;
        self.timers.set(Timer::KeepAlive, now + Nanos::of(keep_alive.interval));
    }

    fn idle_passed(&mut self, now: Nanos) {
        if self.state == State::TimeWait {
            return self.finish(None);
        }
        let Some(idle) = self.config.idle_timeout else { return };
        let passes = self.moved_at + Nanos::of(idle);
        if passes > now {
            return self.timers.set(Timer::Idle, passes);
        }
        self.send_reset();
        self.finish(Some(TcpError::Idle));
    }

    /// Something came from the peer: it is there.
    #[inline]
    pub(super) fn heard(&mut self, now: Nanos) {
        if let Some(keep_alive) = self.config.keep_alive {
            self.keep_alive_probes = 0;
            if self.state.is_synchronized() && self.state != State::TimeWait {
                self.timers.set(Timer::KeepAlive, now + Nanos::of(keep_alive.idle));
            }
        }
    }

    /// Starts the time-out of what is under way, unless it runs.
    #[inline]
    pub(super) fn arm_retransmission(&mut self, now: Nanos) {
        if !self.timers.is_set(Timer::Retransmit) {
            self.timers.set(Timer::Retransmit, now + self.rtt.rto());
        }
    }

    /// Sets or clears the probe of a lost tail (RFC 8985 7.2).
    #[inline]
    pub(super) fn arm_loss_probe(&mut self, now: Nanos) {
        let wanted = self.sack_permitted
            && self.probe.is_none()
            && matches!(self.recovery, Recovery::Open)
            && self.scoreboard.sacked() == 0
            && !self.scoreboard.is_empty();
        if !wanted {
            return self.timers.clear(Timer::LossProbe);
        }
        let single = self.scoreboard.in_flight() <= u64::from(self.mss);
        let wait = match self.rtt.smoothed() {
            Some(smoothed) => smoothed * 2 + if single { DELAYED_ACK } else { PROBE_SLACK },
            None => Nanos::of(rtt::INITIAL_RTO),
        };
        // Where the time-out comes first, the probe takes its place (RFC 8985 7.2).
        let at = (now + wait).min(self.timers.at(Timer::Retransmit));
        self.timers.set(Timer::LossProbe, at);
        if at == self.timers.at(Timer::Retransmit) {
            self.timers.clear(Timer::Retransmit);
        }
    }

    pub(super) fn enter_time_wait(&mut self, now: Nanos) {
        self.state = State::TimeWait;
        self.timers = Timers::new();
        self.timers.set(Timer::Idle, now + Nanos::of(self.config.time_wait));
    }
}
