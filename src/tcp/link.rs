//! One connection of a stack: the engine, what it sends from, and the way to its peer.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use super::connection::{Connection, Outgoing, State};
use super::error::SocketError;
use super::extent::Content;
use super::file::SharedFile;
use super::frame::Outbox;
use super::path::Path;
use super::report::StackReport;
use crate::file::WindowCache;
use crate::send::CopyReason;

/// After so long without an acknowledgement a connection no longer keeps others from mapping windows: what has to be sent again is mapped again.
const STANDSTILL: Duration = Duration::from_secs(1);

/// How many bytes of a file without a lease go out between two looks at its size and times.
const LOOK: u64 = 16 << 20;
/// What a segment can have at most.
const MOST_SEGMENT: u64 = 65_535;

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    pub engine: Connection,
    pub outbox: Outbox,
    /// `None` as long as the next hop is not known.
    pub path: Option<Path>,
    pub peer: SocketAddr,
    /// It counts in a listener's backlog.
    pub in_backlog: bool,
    /// It is in the queue of those that may have something to send.
    pub queued: bool,
    /// The program knows that something happened.
    pub told: bool,
    /// The program has given its handle back.
    pub released: bool,
    /// The stream ends with what is queued. The engine is told after the SYN: before, it would take it for the end of the attempt.
    ends: bool,
    /// What is wrong with it that the engine does not know.
    pub trouble: Option<Box<SocketError>>,
    /// When something was acknowledged last, or began to be sent.
    moved: Duration,
    acknowledged: u64,
}

impl Link {
    pub fn new(engine: Connection, path: Option<Path>, peer: SocketAddr, in_backlog: bool, now: Duration) -> Self {
        Self {
            engine,
            outbox: Outbox::default(),
            path,
            peer,
            in_backlog,
            queued: false,
            told: false,
            released: false,
            ends: false,
            trouble: None,
            moved: now,
            acknowledged: 0,
        }
    }

    /// The next segment to be sent.
    #[inline]
    pub fn poll(&mut self, windows: &mut WindowCache, now: Duration) -> Option<Outgoing> {
        let outgoing = self.engine.poll(now);
        if self.ends && outgoing.is_some() && self.trouble.is_none() {
            self.ends = false;
            self.engine.shutdown();
        }
        if self.engine.is_closed() {
            self.outbox.held.let_go(windows);
        }
        outgoing
    }

    /// A file that changed or is about to, among those that the next segment is of. Without a lease, size and times are looked at now and then,
    /// and before the last byte goes out: afterwards the peer would take what it has for the whole.
    #[inline]
    pub fn disturbance(&self) -> Option<(SharedFile, &'static str)> {
        let unsent = self.engine.unsent();
        if unsent == 0 {
            return None;
        }
        let sent = self.engine.offered() - unsent;
        let next = sent..sent + MOST_SEGMENT;
        if let Some((file, offset)) = self.outbox.held.file_of(&next)
            && offset / LOOK == (offset + MOST_SEGMENT) / LOOK
        {
            return file.disturbed().map(|how| (file.clone(), how));
        }
        self.disturbance_in(next)
    }

    fn disturbance_in(&self, range: Range<u64>) -> Option<(SharedFile, &'static str)> {
        self.outbox.extents.parts(range).find_map(|part| {
            let Content::File(file, offset) = part.content else { return None };
            if part.len == part.rest || offset / LOOK != (offset + part.len) / LOOK {
                file.look();
            }
            file.disturbed().map(|how| (file.clone(), how))
        })
    }

    /// Gives up what was acknowledged. Before each turn of [polls](Self::poll), and before what waited for room is planned. `is_planned` says whether
    /// frames of it are planned and not built yet: their windows stay.
    #[inline]
    pub fn settle(&mut self, windows: &mut WindowCache, report: &mut StackReport, is_planned: impl FnOnce() -> bool, now: Duration) {
        let acknowledged = self.engine.acknowledged();
        if acknowledged > self.acknowledged {
            report.acknowledged += acknowledged - self.acknowledged;
            (self.acknowledged, self.moved) = (acknowledged, now);
            self.outbox.extents.acknowledge(acknowledged);
            self.outbox.held.acknowledge(windows, acknowledged);
        } else if self.outbox.extents.is_empty() {
            self.moved = now;
        } else if self.stands_still(now) && !is_planned() {
            self.outbox.held.let_go(windows);
        }
        // A file has changed, and what was on its way has arrived.
        if self.trouble.is_some() && self.outbox.extents.is_empty() && !self.engine.is_closed() {
            self.engine.abort();
        }
    }

    /// Whether nothing was acknowledged for a while, though there is something to be.
    pub fn stands_still(&self, now: Duration) -> bool {
        !self.outbox.extents.is_empty() && now.saturating_sub(self.moved) >= STANDSTILL
    }

    /// Ends the use of a file that changed, or is about to: what of it is on its way is copied, so that it is delivered as it was; what was not sent
    /// yet never is, nor is what stands behind it. Returns whether the connection had anything of the file.
    pub fn leave(&mut self, file: &SharedFile, how: &str, windows: &mut WindowCache, report: &mut StackReport) -> bool {
        let Some((span, _)) = self.outbox.extents.span_of(file) else { return false };
        let sent = self.engine.offered() - self.engine.unsent();
        if span.end > sent {
            let delivered = self.outbox.extents.parts(sent.max(span.start)..span.end).find_map(|part| match part.content {
                Content::File(own, offset) if own.is(file) => Some(offset),
                _ => None,
            });
            let (name, how) = (file.file().name().to_owned(), how.to_owned());
            let trouble = SocketError::FileChanged { name, how, delivered: delivered.unwrap_or(0) };
            self.trouble.get_or_insert(Box::new(trouble));
            let end = self.engine.withdraw();
            self.outbox.extents.truncate(end);
        }
        match self.outbox.extents.copy_out(file) {
            Ok(bytes) => report.copied(bytes, CopyReason::FileChanging),
            // What is on its way can no longer be repeated.
            Err(error) => {
                let (name, how) = (file.file().name().to_owned(), format!("{how} ({error})"));
                let delivered = self.outbox.extents.parts(self.acknowledged..self.acknowledged + 1).find_map(|part| match part.content {
                    Content::File(_, offset) => Some(offset),
                    Content::Bytes(_) => None,
                });
                self.trouble = Some(Box::new(SocketError::FileChanged { name, how, delivered: delivered.unwrap_or(0) }));
                self.outbox.extents.truncate(0);
                self.outbox.held.let_go(windows);
                self.engine.abort();
            }
        }
        self.outbox.held.let_go_of(windows, file);
        true
    }

    /// The stream ends with what is queued.
    pub fn shutdown(&mut self) {
        if self.trouble.is_some() {
            // After trouble with a file there is no end that looks like one.
        } else if self.engine.state() == State::SynSent {
            self.ends = true;
        } else {
            self.engine.shutdown();
        }
    }

    /// It cannot be opened.
    pub fn give_up(&mut self, trouble: SocketError) {
        self.trouble = Some(Box::new(trouble));
        self.engine.abort();
    }

    /// Why it does no longer do what it is asked.
    pub fn error(&self) -> Option<SocketError> {
        self.trouble.as_deref().cloned().or_else(|| self.engine.error().map(SocketError::Tcp))
    }

    /// Nothing refers to it any more, and it has nothing more to say.
    pub fn is_over(&self) -> bool {
        self.released && self.engine.is_closed()
    }
}
