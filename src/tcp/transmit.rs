//! From connections that have something to send to a burst that is posted.

use std::ops::Range;
use std::time::Duration;

use hal::Burst;

use super::frame::{BuildError, Busy, Planned};
use super::path::Path;
use super::segment::TcpHeader;
use super::stack::Stack;
use super::table::Name;
use crate::send::SendError;

/// How many segments a connection may send before others have their turn.
const TURN: usize = 4;

/// A segment that a connection gave to be sent.
#[derive(Debug)]
pub(super) struct Unsent {
    origin: Origin,
    header: TcpHeader,
    payload: Range<u64>,
    mss: u16,
    again: bool,
}

/// What a segment is of.
#[derive(Clone, Debug)]
enum Origin {
    /// A connection, which has the payload.
    Link(Name),
    /// None, or one that may be gone before it is sent: there is no payload.
    Bare(Path),
}

/// A frame of the burst that is being made.
#[derive(Debug)]
pub(super) struct Frame {
    origin: Origin,
    planned: Planned,
    mss: u16,
    again: bool,
}

impl Frame {
    /// Whether it is of this connection.
    fn is_of(&self, name: Name) -> bool {
        matches!(self.origin, Origin::Link(own) if own == name)
    }

    fn into_unsent(self) -> Unsent {
        let Self { origin, planned, mss, again } = self;
        Unsent { origin, header: planned.header, payload: planned.payload, mss, again }
    }
}

impl Stack {
    /// Posts a burst of what connections have to send. Returns how many frames were posted.
    pub(super) fn transmit(&mut self, now: Duration) -> Result<usize, SendError> {
        if self.blocked {
            return Ok(0);
        }
        self.plan(now);
        if self.frames.is_empty() {
            return self.stuck();
        }
        let mut burst: Burst<'_> = std::mem::take(&mut self.burst);
        self.accounts.clear();
        let (mut unreadable, mut ended, port) = (None, false, &mut self.port);
        for frame in &self.frames {
            let (path, outbox) = match &frame.origin {
                Origin::Bare(path) => (Some(path), &self.nothing),
                Origin::Link(name) => match self.connections.table.get(*name).filter(|link| !link.engine.is_closed()) {
                    Some(link) => (link.path.as_ref(), &link.outbox),
                    None => (None, &self.nothing),
                },
            };
            // A connection that has ended since this was planned: it is dropped when it is planned again.
            let Some(path) = path else {
                ended = true;
                break;
            };
            match self.framer.build(&frame.planned, path, outbox, &port.windows, &mut port.pool, &mut burst) {
                Ok(account) => self.accounts.push(account),
                Err(BuildError::NoBuffer) => break,
                Err(BuildError::Read(file, error)) => {
                    unreadable = Some((file, error));
                    break;
                }
            }
        }
        let posted = if burst.is_empty() { Ok(0) } else { port.nic.tx(0).post(&mut burst) };
        self.burst = burst.recycle();
        let posted = posted?;
        self.account(posted, now);
        // What found no room is planned again, in the same order.
        self.blocked = posted < self.frames.len() && unreadable.is_none() && !ended;
        self.put_back(posted);
        self.frames.clear();
        if let Some((file, error)) = unreadable {
            file.set_changed();
            self.leave(&file, &format!("it could not be read: {error}"));
        }
        if posted == 0 { self.stuck() } else { Ok(posted) }
    }

    /// The frames from `first` on are planned anew, in the same order.
    fn put_back(&mut self, first: usize) {
        for frame in self.frames.drain(first..).rev() {
            self.unsent.push_front(frame.into_unsent());
        }
    }

    /// Nothing was posted. That is all right as long as it can be otherwise some time.
    fn stuck(&mut self) -> Result<usize, SendError> {
        if self.blocked && self.port.outstanding() == 0 {
            return Err(SendError::Config("no packet buffer or window is free, and none is on its way back".into()));
        }
        Ok(0)
    }

    fn account(&mut self, posted: usize, now: Duration) {
        for (frame, account) in self.frames.iter().zip(&self.accounts).take(posted) {
            self.connections.report.posted(account, frame.again);
            if frame.again
                && let Origin::Link(name) = frame.origin
                && let Some(link) = self.connections.table.get_mut(name)
                && link.stands_still(now)
            {
                link.outbox.held.let_go(&mut self.port.windows);
            }
        }
    }

    /// Plans frames until there are enough for a burst, or nobody has anything to send.
    fn plan(&mut self, now: Duration) {
        while self.frames.len() < self.burst_limit {
            let planned = match self.unsent.pop_front() {
                Some(unsent) => self.plan_again(unsent, now).map(|()| true),
                None => self.collect(now),
            };
            match planned {
                Ok(true) => {}
                Ok(false) => return,
                Err(Busy) => {
                    self.blocked = self.frames.is_empty();
                    return;
                }
            }
        }
    }

    /// Plans what waited for room. ACKs may have come meanwhile: what is acknowledged is given up before the frame is planned, for the frame could not be
    /// built without it.
    fn plan_again(&mut self, mut unsent: Unsent, now: Duration) -> Result<(), Busy> {
        if let Origin::Link(name) = unsent.origin
            && let Some(link) = self.connections.table.get_mut(name)
        {
            let is_planned = || self.frames.iter().any(|frame| frame.is_of(name));
            link.settle(&mut self.port.windows, &mut self.connections.report, is_planned, now);
            let acknowledged = link.outbox.extents.start();
            if unsent.payload.end <= acknowledged {
                return Ok(());
            }
            if unsent.payload.start < acknowledged {
                unsent.header.seq = unsent.header.seq + (acknowledged - unsent.payload.start);
                unsent.payload.start = acknowledged;
            }
        }
        self.plan_one(unsent)
    }

    /// Plans the first frame of a segment; the rest of it waits. When that is not possible, all of it waits.
    fn plan_one(&mut self, mut unsent: Unsent) -> Result<(), Busy> {
        let windows = &mut self.port.windows;
        let (header, payload, mss) = (unsent.header, unsent.payload.clone(), unsent.mss);
        let planned = match &unsent.origin {
            Origin::Bare(path) => self.framer.plan(header, payload, mss, path, &mut self.nothing, windows),
            Origin::Link(name) => {
                let Some(link) = self.connections.table.get_mut(*name) else { return Ok(()) };
                let Some(path) = &link.path else { return Ok(()) };
                if link.engine.is_closed() {
                    return Ok(());
                }
                self.framer.plan(header, payload, mss, path, &mut link.outbox, windows)
            }
        };
        let planned = match planned {
            Ok(planned) => planned,
            Err(error) => {
                self.unsent.push_front(unsent);
                return Err(error);
            }
        };
        let Unsent { mss, again, .. } = unsent;
        let end = planned.payload.end;
        if end < unsent.payload.end {
            let origin = unsent.origin.clone();
            unsent.header.seq = unsent.header.seq + (end - unsent.payload.start);
            unsent.payload.start = end;
            self.unsent.push_front(unsent);
            self.frames.push(Frame { origin, planned, mss, again });
        } else {
            self.frames.push(Frame { origin: unsent.origin, planned, mss, again });
        }
        Ok(())
    }

    /// Takes segments from whoever has some, and plans them. Whether there were any, or there may be more.
    fn collect(&mut self, now: Duration) -> Result<bool, Busy> {
        if let Some((path, header)) = self.connections.replies.pop_front() {
            self.plan_one(Unsent { origin: Origin::Bare(path), header, payload: 0..0, mss: 1, again: false })?;
            return Ok(true);
        }
        let Some(name) = self.connections.ready.pop_front() else { return Ok(false) };
        let Some(link) = self.connections.table.get_mut(name) else { return Ok(true) };
        link.queued = false;
        if link.path.is_none() && !link.engine.is_closed() {
            // Its next hop is asked for.
            return Ok(true);
        }
        let is_planned = || self.frames.iter().any(|frame| frame.is_of(name));
        link.settle(&mut self.port.windows, &mut self.connections.report, is_planned, now);
        let mut planned = Ok(());
        for _ in 0..TURN {
            let Some(link) = self.connections.table.get_mut(name) else { return Ok(true) };
            if let Some((file, how)) = link.disturbance() {
                self.leave(&file, how);
                // What was planned of it is no longer in a window.
                self.put_back(0);
                break;
            }
            let Some(outgoing) = link.poll(&mut self.port.windows, now) else {
                self.connections.rest(name);
                return Ok(true);
            };
            let origin = match &link.path {
                Some(path) if outgoing.payload.is_empty() => Origin::Bare(path.clone()),
                _ => Origin::Link(name),
            };
            let (header, payload, mss, again) = (outgoing.header, outgoing.payload, outgoing.mss, outgoing.retransmission);
            planned = self.plan_one(Unsent { origin, header, payload, mss, again });
            // What is left of it goes first, then those who wait.
            if planned.is_err() || !self.unsent.is_empty() || self.frames.len() >= self.burst_limit {
                break;
            }
        }
        self.connections.wake(name);
        planned.map(|()| true)
    }
}
