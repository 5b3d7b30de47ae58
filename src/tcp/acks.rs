//! ACKs that come together. Of those that a connection expects, the last says what the others say: only that one gets as far as the connection.

use std::time::Duration;

use hal::receive::RxFlags;

use super::connections::Connections;
use super::segment::{Segment, TcpHeader};
use super::seq::Seq;
use super::shape::Shape;
use super::table::{Ends, Name};

/// The ACKs of the connection that had some last.
#[derive(Debug)]
pub(super) struct Acks {
    name: Name,
    ends: Ends,
    /// Of the latest one.
    header: TcpHeader,
    /// What they look like, where they look alike.
    shape: Option<Shape>,
    /// The latest one waits to be [taken](Connections::flush).
    waiting: bool,
    /// What was sent by then ends here.
    limit: Seq,
}

impl Connections {
    /// Takes a frame that looks like an ACK of the connection that had some last. Whether it was one that is expected; else nothing has changed.
    #[inline]
    pub(super) fn receive_alike(&mut self, frame: &[u8], checked: RxFlags) -> bool {
        let Some(acks) = &mut self.acks else { return false };
        let Some(fields) = acks.shape.as_ref().and_then(|shape| shape.fields(frame, checked)) else { return false };
        if acks.waiting {
            let since = acks.header.options.timestamps.map_or(0, |stamps| fields.value.wrapping_sub(stamps.value) as i32);
            if fields.ack.since(acks.header.ack) <= 0 || fields.ack.since(acks.limit) > 0 || since < 0 {
                return false;
            }
            fields.put(&mut acks.header);
            self.report.segments += 1;
            return true;
        }
        let mut header = acks.header;
        fields.put(&mut header);
        let Some(link) = self.table.get(acks.name) else {
            self.acks = None;
            return false;
        };
        if !link.engine.expects(&Segment { header, payload: &[] }) {
            return false;
        }
        (acks.header, acks.limit, acks.waiting) = (header, link.engine.sent_upto(), true);
        self.report.segments += 1;
        true
    }

    /// Keeps an ACK that its connection expects until something else arrives, or the [last](Self::flush) of what came together. Whether it was one.
    #[inline]
    pub(super) fn receive_first(&mut self, frame: &[u8], ends: Ends, segment: &Segment<'_>, now: Duration) -> bool {
        let header = segment.header;
        if let Some(acks) = self.acks.as_mut().filter(|acks| acks.waiting) {
            let later = match (header.options.timestamps, acks.header.options.timestamps) {
                (Some(stamps), Some(before)) => stamps.value.wrapping_sub(before.value) as i32 >= 0,
                _ => true,
            };
            let goes_on = acks.ends == ends && header.ack.since(acks.header.ack) > 0 && later;
            if goes_on && self.table.get(acks.name).is_some_and(|link| link.engine.expects(segment)) {
                acks.header = header;
                return true;
            }
            self.flush(now);
        }
        let Some(name) = self.table.find(ends) else { return false };
        let Some(link) = self.table.get(name).filter(|link| link.engine.expects(segment)) else { return false };
        self.acks = Some(Acks { name, ends, header, shape: Shape::of(frame), waiting: true, limit: link.engine.sent_upto() });
        true
    }

    /// Whether the connection that had ACKs last is to have more.
    pub(super) fn has_acks_to_come(&self) -> bool {
        let link = self.acks.as_ref().and_then(|acks| self.table.get(acks.name));
        link.is_some_and(|link| link.engine.has_data_under_way())
    }

    /// All that came together is here: what was kept of it is taken.
    pub(super) fn flush(&mut self, now: Duration) {
        if let Some(Acks { name, header, waiting: waiting @ true, .. }) = &mut self.acks {
            *waiting = false;
            let (name, segment) = (*name, Segment { header: *header, payload: &[] });
            self.receive_for(name, &segment, now);
        }
    }
}
