//! What a connection makes of the segments that arrive (RFC 9293 3.10.7).

use std::time::Duration;

use super::timers::Timer;
use super::{Connection, DEFAULT_MSS, Events, LEAST_MSS, State, TcpError};
use crate::tcp::nanos::Nanos;
use crate::tcp::{Flags, Segment, TcpHeader, refuse};

/// How long an ACK waits for company (RFC 9293 3.8.6.3: less than 500 ms); as Linux.
const DELAYED_ACK: Nanos = Nanos::from_millis(40);
/// Answers to segments that cannot be right, one in this time: as Linux, and for each connection, so that none tells about another
/// (RFC 5961 7).
const CHALLENGE_INTERVAL: Nanos = Nanos::from_millis(500);
/// For how long a timestamp of the peer says something: after this its clock may have wrapped (RFC 7323 5.5).
const TIMESTAMP_LIFE: Nanos = Nanos::from_secs(24 * 24 * 3600);

impl Connection {
    /// Takes a segment for this connection, whose addresses, ports and checksum the caller has checked. Returns what it has changed.
    pub fn receive(&mut self, segment: &Segment<'_>, now: Duration) -> Events {
        let now = Nanos::of(now);
        if let Some(events) = self.receive_expected(segment, now) {
            return events;
        }
        match self.state {
            State::Closed => Events::empty(),
            State::SynSent => self.receive_in_syn_sent(segment, now),
            _ => self.receive_synchronized(segment, now),
        }
    }

    fn receive_in_syn_sent(&mut self, segment: &Segment<'_>, now: Nanos) -> Events {
        let header = &segment.header;
        let acknowledges = header.flags.contains(Flags::ACK);
        if acknowledges && (self.next == 0 || header.ack != self.iss + 1) {
            self.reset = refuse(segment);
            return Events::empty();
        }
        if header.flags.contains(Flags::RST) {
            if acknowledges {
                self.finish(Some(TcpError::Refused));
                return Events::CLOSED;
            }
            return Events::empty();
        }
        if !header.flags.contains(Flags::SYN) {
            return Events::empty();
        }
        self.take_syn(header, now);
        if !acknowledges {
            // The peer opens as well (RFC 9293 3.5, figure 7).
            self.state = State::SynReceived;
            self.handshake_due = true;
            return Events::empty();
        }
        if !self.syn_lost {
            self.rtt.sample(now.since(self.sent_at), now);
        }
        self.establish(now);
        self.acknowledge_now = true;
        Events::ESTABLISHED
    }

    /// What a SYN says of its sender.
    pub(super) fn take_syn(&mut self, header: &TcpHeader, now: Nanos) {
        let options = &header.options;
        self.irs = header.seq;
        self.received.skip_syn();
        self.acknowledged_upto = 1;
        self.mss = options.mss.unwrap_or(DEFAULT_MSS).max(LEAST_MSS).min(self.config.mss);
        self.window_scale_agreed = options.window_scale.is_some();
        self.window_scale = options.window_scale.unwrap_or(0);
        if !self.window_scale_agreed {
            self.own_scale = 0;
        }
        self.sack_permitted &= options.sack_permitted;
        self.timestamps &= options.timestamps.is_some();
        if let Some(stamps) = options.timestamps {
            (self.recent_timestamp, self.recent_at) = (stamps.value, now);
        }
        self.window = header.window.into();
        self.largest_window = self.window;
        // What is promised: a window that is not scaled, from the first byte on.
        self.window_end = 1 + u64::from(self.config.window.min(65535));
    }

    pub(super) fn receive_synchronized(&mut self, segment: &Segment<'_>, now: Nanos) -> Events {
        let header = &segment.header;
        let flags = header.flags;
        let expected = self.receive_next();
        let Some(start) = header.seq.position(self.irs, expected) else {
            // Before the SYN: an old duplicate.
            if !flags.contains(Flags::RST) {
                self.answer_unacceptable(segment, now);
            }
            return Events::empty();
        };

        if let Some(events) = self.receive_duplicate_syn(segment, start, now) {
            return events;
        }
        if self.timestamps && !flags.contains(Flags::RST) {
            match header.options.timestamps {
                // RFC 7323 3.2: such a segment is not of this connection.
                None => return Events::empty(),
                Some(stamps) if self.is_old(stamps.value, now) => {
                    self.answer_unacceptable(segment, now);
                    return Events::empty();
                }
                Some(_) => {}
            }
        }
        let end = start + segment.sequence_len();
        let before = if end == start { end < expected } else { end <= expected };
        if before || start > self.window_end.max(expected) {
            if !flags.contains(Flags::RST) {
                self.answer_unacceptable(segment, now);
            }
            return Events::empty();
        }
        if flags.contains(Flags::RST) {
            return self.receive_reset(start, now);
        }
        if flags.contains(Flags::SYN) {
            self.challenge(now);
            return Events::empty();
        }
        if !flags.contains(Flags::ACK) {
            return Events::empty();
        }
        if let Some(stamps) = header.options.timestamps {
            // RFC 7323 4.3.
            if self.timestamps && start <= self.acknowledged_upto && stamps.value.wrapping_sub(self.recent_timestamp) as i32 >= 0 {
                (self.recent_timestamp, self.recent_at) = (stamps.value, now);
            }
        }
        let Some(mut events) = self.receive_acknowledgement(segment, start, now) else { return Events::empty() };
        self.heard(now);
        if self.state != State::Closed {
            events |= self.receive_payload(segment, start, now);
        }
        events
    }

    /// A SYN before the handshake is complete, with the number of the one that is known: the peer has not had the answer, or opens as well
    /// and this is its answer.
    fn receive_duplicate_syn(&mut self, segment: &Segment<'_>, start: u64, now: Nanos) -> Option<Events> {
        let flags = segment.header.flags;
        if self.state != State::SynReceived || start != 0 || !flags.contains(Flags::SYN) || flags.contains(Flags::RST) {
            return None;
        }
        if flags.contains(Flags::ACK) {
            if self.next == 1 && segment.header.ack == self.iss + 1 {
                self.window = segment.header.window.into();
                self.largest_window = self.window;
                self.establish(now);
                self.acknowledge_now = true;
                return Some(Events::ESTABLISHED);
            }
            self.reset = refuse(segment);
            return Some(Events::empty());
        }
        if self.may_challenge(now) {
            self.handshake_due = true;
        }
        Some(Events::empty())
    }

    /// RFC 5961 3.2: exactly the expected number, or it is asked back.
    fn receive_reset(&mut self, start: u64, now: Nanos) -> Events {
        if start != self.receive_next() {
            self.challenge(now);
            return Events::empty();
        }
        // A RST in TIME-WAIT would end it early (RFC 1337).
        if self.state == State::TimeWait {
            return Events::empty();
        }
        self.finish(Some(TcpError::Reset));
        Events::CLOSED
    }

    /// `None` when the segment is to be dropped.
    fn receive_acknowledgement(&mut self, segment: &Segment<'_>, start: u64, now: Nanos) -> Option<Events> {
        let header = &segment.header;
        let mut events = Events::empty();
        let ack = header.ack.position(self.iss, self.una);
        if self.state == State::SynReceived {
            if ack != Some(1) || self.next != 1 {
                self.reset = refuse(segment);
                return None;
            }
            if !self.syn_lost {
                self.rtt.sample(now.since(self.sent_at), now);
            }
            self.establish(now);
            (self.window_seq, self.window_ack) = (start, 1);
            self.set_window(header);
            return Some(Events::ESTABLISHED);
        }
        // RFC 5961 5.2.
        let Some(ack) = ack.filter(|&ack| ack <= self.next && ack + self.largest_window >= self.una) else {
            self.challenge(now);
            return None;
        };
        if ack < self.una {
            return Some(events);
        }
        let grown = self.update_window(header, start, ack, now);
        let plain = segment.payload.is_empty() && !header.flags.contains(Flags::FIN) && !grown;
        if !self.scoreboard.is_empty() {
            let before = self.acknowledged();
            self.process_acknowledgement(segment, ack, plain, now);
            if self.acknowledged() > before {
                events |= Events::ACKNOWLEDGED;
            }
        }
        if self.shut && self.una > self.stream_end() {
            events |= self.fin_acknowledged(now);
        }
        Some(events)
    }

    fn fin_acknowledged(&mut self, now: Nanos) -> Events {
        match self.state {
            State::FinWait1 => {
                self.state = State::FinWait2;
                Events::empty()
            }
            State::Closing => {
                self.enter_time_wait(now);
                Events::CLOSED
            }
            State::LastAck => {
                self.finish(None);
                Events::CLOSED
            }
            _ => Events::empty(),
        }
    }

    /// Takes the window of a segment that is not older than the one that told it last. Returns whether it has changed.
    #[inline]
    pub(super) fn update_window(&mut self, header: &TcpHeader, start: u64, ack: u64, now: Nanos) -> bool {
        if (start, ack) < (self.window_seq, self.window_ack) {
            return false;
        }
        (self.window_seq, self.window_ack) = (start, ack);
        let before = self.window;
        self.set_window(header);
        if self.window > 0 && self.persisted > 0 {
            self.persisted = 0;
        }
        if self.window == 0 {
            // A peer that says that its window is closed is there (RFC 9293 3.8.6.1). The idle time-out bounds it.
            self.stalled_since = now;
        }
        self.window != before
    }

    #[inline]
    fn set_window(&mut self, header: &TcpHeader) {
        self.window = u64::from(header.window) << self.window_scale;
        self.largest_window = self.largest_window.max(self.window);
    }

    fn receive_payload(&mut self, segment: &Segment<'_>, start: u64, now: Nanos) -> Events {
        let mut events = Events::empty();
        let has_fin = segment.header.flags.contains(Flags::FIN);
        if segment.payload.is_empty() && !has_fin {
            return events;
        }
        if !self.state.receives() {
            // What comes after the peer's FIN is the FIN again, or wrong.
            self.acknowledge_now = true;
            if self.state == State::TimeWait {
                self.enter_time_wait(now);
            }
            return events;
        }
        // What is behind the window is cut off, with the FIN.
        let room = self.window_end.saturating_sub(start) as usize;
        let payload = &segment.payload[..segment.payload.len().min(room)];
        let inserted = self.received.insert(start, payload);
        if has_fin && payload.len() == segment.payload.len() {
            self.fin_at.get_or_insert(start + payload.len() as u64);
        }
        if inserted.in_order > 0 {
            self.moved_at = now;
            self.unacknowledged += inserted.in_order;
            events |= Events::READABLE;
        }
        if inserted.irregular || payload.len() < segment.payload.len() || self.unacknowledged >= 2 * u64::from(self.config.mss) {
            self.acknowledge_now = true;
        } else if inserted.in_order > 0 && !self.timers.is_set(Timer::Acknowledge) {
            self.timers.set(Timer::Acknowledge, now + DELAYED_ACK);
        }
        if self.fin_at == Some(self.received.next()) {
            events |= self.take_fin(now);
        } else if has_fin {
            self.acknowledge_now = true;
        }
        events
    }

    /// Everything before the peer's FIN has arrived.
    fn take_fin(&mut self, now: Nanos) -> Events {
        self.fin_received = true;
        self.acknowledge_now = true;
        self.moved_at = now;
        match self.state {
            State::FinWait1 => self.state = State::Closing,
            State::FinWait2 => {
                self.enter_time_wait(now);
                return Events::FINISHED | Events::CLOSED;
            }
            _ => self.state = State::CloseWait,
        }
        Events::FINISHED
    }

    /// Whether a timestamp is older than what was seen last (RFC 7323 5.3).
    fn is_old(&self, value: u32, now: Nanos) -> bool {
        (value.wrapping_sub(self.recent_timestamp) as i32) < 0 && now.since(self.recent_at) < TIMESTAMP_LIFE
    }

    /// A segment with nothing that is new: says what is expected. With payload it is a retransmission, or a probe of a closed window, and the
    /// peer needs the answer.
    fn answer_unacceptable(&mut self, segment: &Segment<'_>, now: Nanos) {
        if segment.sequence_len() > 0 && self.state.is_synchronized() {
            if let Some(start) = segment.header.seq.position(self.irs, self.receive_next()) {
                self.received.note_arrived_before(start..start + segment.payload.len() as u64);
            }
            self.acknowledge_now = true;
            if self.state == State::TimeWait {
                self.enter_time_wait(now);
            }
        } else {
            self.challenge(now);
        }
    }

    /// Has an ACK sent that says what is expected, not too often.
    fn challenge(&mut self, now: Nanos) {
        if self.may_challenge(now) {
            self.acknowledge_now = true;
        }
    }

    fn may_challenge(&mut self, now: Nanos) -> bool {
        let may = self.challenged_at.is_none_or(|at| now.since(at) >= CHALLENGE_INTERVAL);
        if may {
            self.challenged_at = Some(now);
        }
        may
    }
}
