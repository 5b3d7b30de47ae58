//! What a connection sends.

use std::ops::Range;
use std::time::Duration;

use super::timers::Timer;
use super::{Connection, Outgoing, Probe, Recovery, State};
use crate::tcp::nanos::Nanos;
use crate::tcp::pacing::Pace;
use crate::tcp::{Flags, SackBlocks, Seq, TcpHeader, TcpOptions, Timestamps};

impl Connection {
    /// The next segment to send, if there is one. To be called until there is none.
    pub fn poll(&mut self, now: Duration) -> Option<Outgoing> {
        let now = Nanos::of(now);
        if let Some(header) = self.reset.take() {
            return Some(self.control(header, false));
        }
        if self.timers.may_have_passed(now) {
            self.expire(now);
            if let Some(header) = self.reset.take() {
                return Some(self.control(header, false));
            }
        }
        match self.state {
            State::Closed => None,
            State::SynSent | State::SynReceived => self.poll_handshake(now),
            State::FinWait2 | State::TimeWait => self.poll_acknowledgement(now),
            _ => {
                let data = self.poll_data(now);
                self.filling = data.is_some();
                data.or_else(|| self.poll_acknowledgement(now))
            }
        }
    }

    fn poll_handshake(&mut self, now: Nanos) -> Option<Outgoing> {
        if !std::mem::take(&mut self.handshake_due) {
            return None;
        }
        let again = self.next == 1;
        if again {
            self.syn_lost |= self.retries > 0;
        } else {
            self.sent_at = now;
        }
        self.next = 1;
        self.timers.set(Timer::Retransmit, now + self.rtt.rto());
        let answer = self.state == State::SynReceived;
        let options = TcpOptions {
            mss: Some(self.config.mss),
            window_scale: (!answer || self.window_scale_agreed).then_some(self.own_scale),
            sack_permitted: self.sack_permitted,
            sack: SackBlocks::default(),
            timestamps: self.timestamps.then(|| Timestamps { value: self.timestamp(now), echo: self.recent_timestamp }),
        };
        let mut header = self.header(if answer { Flags::SYN | Flags::ACK } else { Flags::SYN }, 0, options);
        // The window of a SYN is not scaled (RFC 7323 2.2).
        header.window = self.config.window.min(65535) as u16;
        self.window_end = self.received.next() + u64::from(header.window);
        Some(self.control(header, again))
    }

    fn poll_acknowledgement(&mut self, now: Nanos) -> Option<Outgoing> {
        if std::mem::take(&mut self.window_probe_due) {
            // A number that was acknowledged before: the peer answers with what it expects and its window. As Linux, rather than a byte
            // beyond the window.
            let options = self.options(now);
            let header = self.header(Flags::ACK, self.una - 1, options);
            self.acknowledgement_sent();
            return Some(self.control(header, true));
        }
        if !self.acknowledge_now {
            return None;
        }
        let options = self.options(now);
        let header = self.header(Flags::ACK, self.next, options);
        self.acknowledgement_sent();
        Some(self.control(header, false))
    }

    fn poll_data(&mut self, now: Nanos) -> Option<Outgoing> {
        self.timers.clear(Timer::Pace);
        if std::mem::take(&mut self.probe_due)
            && let Some(probe) = self.poll_loss_probe(now)
        {
            return Some(probe);
        }
        let in_flight = self.in_flight();
        if self.scoreboard.is_empty() && self.unsent() > 0 && now.since(self.sent_at) > self.rtt.rto() {
            self.congestion.restart();
        }
        let room = self.congestion.window().saturating_sub(in_flight);
        if self.scoreboard.lost() > 0 {
            return self.poll_lost(room, now);
        }
        self.forced = false;
        self.poll_new(room, in_flight, now)
    }

    /// What was lost goes out first, as far as the congestion window allows.
    fn poll_lost(&mut self, room: u64, now: Nanos) -> Option<Outgoing> {
        let forced = self.forced;
        let options = self.options(now);
        let mss = self.payload_mss(&options);
        if !forced {
            if room < mss && self.scoreboard.in_flight() > 0 {
                self.limited_until = self.next;
                return None;
            }
            if self.must_wait(now) {
                return None;
            }
        }
        let pace = self.pace();
        let most = self.burst(pace, mss).min(room - room % mss).max(mss);
        let mut range = self.scoreboard.next_lost(most)?;
        // A window that has shrunk holds back everything but the first segment, which is what asks for it.
        let window_end = self.una + self.window;
        if !forced && range.end > window_end && range.start > self.una {
            if range.start >= window_end {
                return None;
            }
            range.end = window_end;
        }
        // A FIN rides on a single segment only.
        if range.end > self.stream_end() && range.end - range.start > mss {
            range.end = self.stream_end();
        }
        self.forced = false;
        if range.start == self.una {
            self.timers.set(Timer::Retransmit, now + self.rtt.rto());
        }
        self.scoreboard.resend(range.clone(), now);
        Some(self.data(range, mss, options, pace, true, now))
    }

    /// The stream goes on, as far as both windows allow.
    fn poll_new(&mut self, room: u64, in_flight: u64, now: Nanos) -> Option<Outgoing> {
        let waiting = self.stream_end().saturating_sub(self.next);
        let fin = self.shut && self.next <= self.stream_end();
        if waiting == 0 && !fin {
            return None;
        }
        let window = (self.una + self.window).saturating_sub(self.next);
        let usable = room.min(window);
        if usable == 0 && in_flight > 0 {
            // Mostly so, when an ACK has just been answered with all that it let out.
            if room == 0 {
                self.limited_until = self.next;
            }
            return None;
        }
        let mss = u64::from(self.mss) - self.options_len() as u64;
        let wanted = waiting + u64::from(fin);
        if usable < wanted.min(mss) || (usable < wanted && self.should_defer(usable, mss, in_flight)) {
            if room <= window {
                self.limited_until = self.next;
            }
            let idle = self.scoreboard.is_empty();
            // Half of the largest window is worth a segment, where nothing is under way (RFC 9293 3.8.6.2.1).
            if !idle || usable == 0 || (usable < mss && usable * 2 < self.largest_window && !self.override_due) {
                if idle && !self.timers.is_set(Timer::Persist) {
                    self.persisted = 0;
                    self.arm_persist(now);
                }
                return None;
            }
        }
        if self.must_wait(now) {
            return None;
        }
        let pace = self.pace();
        let mut len = waiting.min(usable).min(self.burst(pace, mss));
        if len < waiting && len > mss {
            len -= len % mss;
        }
        // A FIN rides on a single segment only.
        let with_fin = fin && len == waiting && len <= mss && len < usable;
        if len == 0 && !with_fin {
            return None;
        }
        self.override_due = false;
        if self.scoreboard.is_empty() {
            self.stalled_since = now;
        }
        let range = self.next..self.next + len + u64::from(with_fin);
        self.scoreboard.push(range.clone(), now);
        self.next = range.end;
        self.timers.clear(Timer::Persist);
        self.arm_retransmission(now);
        self.arm_loss_probe(now);
        if with_fin {
            self.state = if self.state == State::CloseWait { State::LastAck } else { State::FinWait1 };
        }
        let options = self.options(now);
        Some(self.data(range, mss, options, pace, false, now))
    }

    /// Whether to wait for more room, so that a burst becomes larger: as long as something is under way an ACK will make room. A quarter of
    /// a window is enough to keep the path full. What was begun is finished: then all of the window is used.
    #[inline]
    fn should_defer(&self, usable: u64, mss: u64, in_flight: u64) -> bool {
        if in_flight == 0 || (self.filling && usable >= mss) {
            return false;
        }
        let quarter = self.congestion.window().min(self.largest_window) / 4;
        // A burst has two segments at least, where the NIC cuts.
        let few = 2 * mss <= self.config.max_burst.into() && usable < 2 * mss;
        usable < quarter.max(mss) && (few || usable < self.burst(self.pace(), mss))
    }

    /// Something new if there is and the peer's window allows, else the last segment again (RFC 8985 7.3).
    fn poll_loss_probe(&mut self, now: Nanos) -> Option<Outgoing> {
        let last = *self.scoreboard.last()?;
        let options = self.options(now);
        let mss = self.payload_mss(&options);
        let pace = self.pace();
        self.timers.set(Timer::Retransmit, now + self.rtt.rto());
        let waiting = self.stream_end().saturating_sub(self.next);
        let window = (self.una + self.window).saturating_sub(self.next);
        let fresh = waiting.min(mss);
        if fresh > 0 && window >= fresh {
            let range = self.next..self.next + fresh;
            self.scoreboard.push(range.clone(), now);
            self.next = range.end;
            self.probe = Some(Probe { end: self.next, retransmission: false });
            return Some(self.data(range, mss, options, pace, false, now));
        }
        let range = last.end.saturating_sub(mss).max(last.start)..last.end;
        self.scoreboard.resend(range.clone(), now);
        self.probe = Some(Probe { end: self.next, retransmission: true });
        Some(self.data(range, mss, options, pace, true, now))
    }

    /// Whether the pace asks to wait; sets the time-out then.
    #[inline]
    fn must_wait(&mut self, now: Nanos) -> bool {
        let next = self.pacer.next();
        if !self.config.pacing || next <= now {
            return false;
        }
        self.timers.set(Timer::Pace, next);
        true
    }

    #[inline]
    fn pace(&self) -> Option<Pace> {
        if !self.config.pacing {
            return None;
        }
        self.rtt.smoothed().map(|round_trip| Pace::new(self.congestion.window(), self.congestion.slow_start(), round_trip))
    }

    /// How long a burst is to be.
    #[inline]
    fn burst(&self, pace: Option<Pace>, mss: u64) -> u64 {
        let most = u64::from(self.config.max_burst);
        let most = (most - most % mss).max(mss);
        pace.map_or(most, |pace| pace.burst(mss, most))
    }

    /// The payload of a segment with these options.
    #[inline]
    fn payload_mss(&self, options: &TcpOptions) -> u64 {
        u64::from(self.mss) - options.len() as u64
    }

    /// What is under way, less what duplicate ACKs say has left the network.
    fn in_flight(&self) -> u64 {
        self.scoreboard.in_flight().saturating_sub(self.duplicates * u64::from(self.mss))
    }

    /// The segment with the positions of `range`.
    fn data(&mut self, range: Range<u64>, mss: u64, options: TcpOptions, pace: Option<Pace>, again: bool, now: Nanos) -> Outgoing {
        let end = self.stream_end();
        let mut flags = Flags::ACK;
        if range.end >= end {
            flags |= Flags::PSH;
        }
        if range.end > end {
            flags |= Flags::FIN;
        }
        let header = self.header(flags, range.start, options);
        let len = range.end - range.start;
        if let Some(pace) = pace {
            self.pacer.sent(len, pace, now);
        }
        if let Recovery::Fast { prr, .. } = &mut self.recovery {
            prr.sent(len);
        }
        self.sent_at = now;
        self.acknowledgement_sent();
        Outgoing { header, payload: range.start - 1..range.end.min(end) - 1, mss: mss as u16, retransmission: again }
    }

    /// A segment without payload.
    fn control(&self, header: TcpHeader, retransmission: bool) -> Outgoing {
        let at = self.next.saturating_sub(1).min(self.offered);
        Outgoing { header, payload: at..at, mss: self.mss, retransmission }
    }

    /// A header with the number of a position, what is acknowledged, and the window.
    fn header(&mut self, flags: Flags, position: u64, options: TcpOptions) -> TcpHeader {
        let acknowledges = flags.contains(Flags::ACK);
        TcpHeader {
            source_port: self.local_port,
            destination_port: self.remote_port,
            seq: self.iss + position,
            ack: if acknowledges { self.irs + self.receive_next() } else { Seq(0) },
            flags,
            window: if acknowledges { self.announce_window() } else { 0 },
            options,
        }
    }

    /// The bytes of the options of everything but a SYN.
    #[inline]
    fn options_len(&self) -> usize {
        let blocks = if self.sack_permitted { self.received.sack_blocks().min(SackBlocks::room(self.timestamps)) } else { 0 };
        SackBlocks::option_len(blocks) + if self.timestamps { Timestamps::OPTION_LEN } else { 0 }
    }

    /// The options of everything but a SYN.
    fn options(&mut self, now: Nanos) -> TcpOptions {
        let mut options = TcpOptions::default();
        if self.timestamps {
            options.timestamps = Some(Timestamps { value: self.timestamp(now), echo: self.recent_timestamp });
        }
        if self.sack_permitted && self.received.wants_sack() {
            options.sack = self.received.take_sack(self.irs, SackBlocks::room(self.timestamps));
        }
        options
    }

    /// The window for a header, and remembers what it promises. It ends no earlier than before, and moves on only by a segment or half of
    /// the buffer (RFC 9293 3.8.6.2.2).
    fn announce_window(&mut self) -> u16 {
        let next = self.receive_next();
        if self.window_moves() >= self.window_step() {
            self.window_end = next + self.free();
        }
        // Rounded up, so that rounding takes nothing back.
        let units = self.window_end.saturating_sub(next).div_ceil(1 << self.own_scale).min(65535);
        self.window_end = self.window_end.max(next + (units << self.own_scale));
        units as u16
    }

    /// How much further the window could reach.
    fn window_moves(&self) -> u64 {
        (self.receive_next() + self.free()).saturating_sub(self.window_end)
    }

    fn window_step(&self) -> u64 {
        u64::from(self.config.mss).min(u64::from(self.config.window) / 2).max(1)
    }

    /// How many bytes there is room for.
    fn free(&self) -> u64 {
        u64::from(self.config.window).saturating_sub(self.received.ready() as u64)
    }

    /// Whether what was read is worth telling: half of the buffer, or the end of a window that was closed.
    pub(super) fn wants_window_update(&self) -> bool {
        let moves = self.window_moves();
        let left = self.window_end.saturating_sub(self.receive_next());
        moves >= (u64::from(self.config.window) / 2).max(1) || (left < self.window_step() && moves >= self.window_step())
    }

    fn acknowledgement_sent(&mut self) {
        self.acknowledge_now = false;
        self.unacknowledged = 0;
        self.acknowledged_upto = self.receive_next();
        self.timers.clear(Timer::Acknowledge);
    }

    /// Has a RST sent, if the peer knows this connection.
    pub(super) fn send_reset(&mut self) {
        if self.state == State::SynSent || self.state == State::TimeWait {
            return;
        }
        let header = self.header(Flags::RST | Flags::ACK, self.next, TcpOptions::default());
        self.reset = Some(header);
    }
}
