//! The common case: an ACK of something new in order, and nothing else. Header prediction, as in every TCP since Jacobson's.

use super::{Connection, Events, Recovery, State};
use crate::tcp::nanos::Nanos;
use crate::tcp::{Flags, Segment};

impl Connection {
    /// Whether a segment does nothing but acknowledge, in order, what was sent once: nearly all that the peer of a download sends. Of several
    /// that come together only the last counts then, as it says what the others say.
    #[inline]
    pub(in crate::tcp) fn expects(&self, segment: &Segment<'_>) -> bool {
        let header = &segment.header;
        let form = header.flags - Flags::PSH == Flags::ACK
            && header.seq == self.irs + self.receive_next()
            && segment.payload.is_empty()
            && header.options.sack.is_empty();
        let calm = matches!(self.state, State::Established | State::CloseWait)
            && matches!(self.recovery, Recovery::Open)
            && self.probe.is_none()
            && self.duplicates == 0
            && self.scoreboard.is_plain();
        let fresh = match header.options.timestamps {
            Some(stamps) => !self.timestamps || stamps.value.wrapping_sub(self.recent_timestamp) as i32 >= 0,
            None => !self.timestamps,
        };
        let advanced = header.ack.since(self.iss + self.una);
        form && calm && fresh && advanced > 0 && self.una + advanced as u64 <= self.next
    }

    /// Takes a segment that is [expected](Self::expects). It changes what the [general way](Self::receive) would change, for a fraction of the
    /// work. `None`, with nothing changed, when there may be more to it.
    #[inline]
    pub(super) fn receive_expected(&mut self, segment: &Segment<'_>, now: Nanos) -> Option<Events> {
        if !self.expects(segment) {
            return None;
        }
        let (header, start) = (&segment.header, self.receive_next());
        let advanced = header.ack.since(self.iss + self.una) as u64;
        let ack = self.una + advanced;
        let in_flight_before = self.scoreboard.in_flight();
        let (first_sent, last) = self.scoreboard.acknowledge_plain(ack)?;
        if let Some(stamps) = header.options.timestamps.filter(|_| self.timestamps && start <= self.acknowledged_upto) {
            (self.recent_timestamp, self.recent_at) = (stamps.value, now);
        }
        self.update_window(header, start, ack, now);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::tcp::{Isn, Seq, TcpConfig, TcpHeader, TcpOptions, Timestamps};

    fn header(ack: u64, window: u16, flags: Flags, stamp: Option<u32>) -> TcpHeader {
        let options = TcpOptions { timestamps: stamp.map(|value| Timestamps { value, echo: 1000 }), ..TcpOptions::default() };
        let seq = if flags.contains(Flags::SYN) { Seq(1000) } else { Seq(1001) };
        TcpHeader { source_port: 51000, destination_port: 80, seq, ack: Seq(u32::MAX - 5000) + ack, flags, window, options }
    }

    fn established(timestamps: bool) -> Connection {
        let now = Duration::from_millis(100);
        let mut syn = header(0, 65535, Flags::SYN, timestamps.then_some(7));
        (syn.options.mss, syn.options.window_scale, syn.options.sack_permitted) = (Some(1460), Some(7), true);
        let isn = Isn { seq: Seq(u32::MAX - 5000), timestamp: 1000 };
        let mut connection = Connection::accept(TcpConfig::default(), &Segment { header: syn, payload: &[] }, isn, now);
        assert!(connection.poll(now).is_some());
        let header = header(1, 2000, Flags::ACK, timestamps.then_some(8));
        assert_eq!(connection.receive(&Segment { header, payload: &[] }, now), Events::ESTABLISHED);
        connection.offer(1 << 40).unwrap();
        connection
    }

    proptest! {
        #[test]
        fn both_ways_are_the_same(
            timestamps: bool,
            steps in proptest::collection::vec((0..60u64, 0.0..1.1f64, 1000..2000u16, 0..3u32), 1..60),
        ) {
            let mut connection = established(timestamps);
            let (mut now, mut stamp) = (Duration::from_millis(100), 9u32);
            for (wait, share, window, ticks) in steps {
                while connection.poll(now).is_some() {}
                now += Duration::from_millis(wait);
                stamp = (stamp + ticks).saturating_sub(1);
                let ack = connection.una + ((connection.next - connection.una) as f64 * share) as u64;
                let header = header(ack, window, Flags::ACK, timestamps.then_some(stamp));
                let segment = Segment { header, payload: &[] };
                let mut general = connection.clone();
                let events = connection.receive(&segment, now);
                prop_assert_eq!(events, general.receive_synchronized(&segment, Nanos::of(now)));
                prop_assert_eq!(format!("{connection:?}"), format!("{general:?}"));
            }
        }
    }

    #[test]
    fn an_ack_in_order_is_expected_and_nothing_else_is() {
        let mut connection = established(true);
        let now = Duration::from_millis(110);
        while connection.poll(now).is_some() {}
        let expects = |change: &dyn Fn(&mut TcpHeader), payload| {
            let mut header = header(1449, 2000, Flags::ACK, Some(9));
            change(&mut header);
            connection.expects(&Segment { header, payload })
        };
        assert!(expects(&|_| (), &[]));
        assert!(!expects(&|_| (), b"x"), "payload");
        assert!(!expects(&|header| header.flags |= Flags::FIN, &[]));
        assert!(!expects(&|header| header.flags |= Flags::RST, &[]));
        assert!(!expects(&|header| header.seq = Seq(1000), &[]), "a probe");
        assert!(!expects(&|header| header.ack = Seq(u32::MAX - 5000) + 1, &[]), "nothing new");
        assert!(!expects(&|header| header.ack = Seq(u32::MAX - 5000) + (1 << 20), &[]), "more than was sent");
        assert!(!expects(&|header| header.options.timestamps = None, &[]));
        assert!(!expects(&|header| header.options.timestamps = Some(Timestamps { value: 7, echo: 0 }), &[]), "an old one");
        assert!(!expects(&|header| assert!(header.options.sack.push(Seq(0), Seq(9))), &[]));
    }
}
