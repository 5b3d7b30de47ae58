//! The common case: an ACK of something new in order, and nothing else. Header prediction, as in every TCP since Jacobson's.

use super::{Connection, Events, Recovery, State};
use crate::tcp::nanos::Nanos;
use crate::tcp::{Flags, Segment};

impl Connection {
    /// Takes a segment that does nothing but acknowledge, in order, what was sent once: nearly all that the peer of a download sends. It changes
    /// what the [general way](Self::receive) would change, for a fraction of the work. `None`, with nothing changed, when there may be more to it.
    #[inline]
    pub(super) fn receive_expected(&mut self, segment: &Segment<'_>, now: Nanos) -> Option<Events> {
        let header = &segment.header;
        let start = self.receive_next();
        let expected = matches!(self.state, State::Established | State::CloseWait)
            && header.flags - Flags::PSH == Flags::ACK
            && header.seq == self.irs + start
            && segment.payload.is_empty()
            && header.options.sack.is_empty();
        let calm = matches!(self.recovery, Recovery::Open) && self.probe.is_none() && self.duplicates == 0 && self.scoreboard.is_plain();
        let advanced = header.ack.since(self.iss + self.una);
        if !(expected && calm && advanced > 0) {
            return None;
        }
        let advanced = advanced as u64;
        let ack = self.una + advanced;
        if ack > self.next {
            return None;
        }
        if self.timestamps {
            let stamps = header.options.timestamps?;
            if (stamps.value.wrapping_sub(self.recent_timestamp) as i32) < 0 {
                return None;
            }
            if start <= self.acknowledged_upto {
                (self.recent_timestamp, self.recent_at) = (stamps.value, now);
            }
        }
        self.update_window(header, start, ack, now);
        let in_flight_before = self.scoreboard.in_flight();
        let (first_sent, last) = self.scoreboard.acknowledge_plain(ack)?;
        self.rack.arrived(&last, now, Nanos::ZERO, false);
        self.una = ack;
        self.sample(first_sent, now);
        self.progressed(now);
        self.adjust_window(advanced, true, in_flight_before, now);
        self.arm_loss_probe(now);
        self.heard(now);
        Some(Events::ACKNOWLEDGED)
    }
}
