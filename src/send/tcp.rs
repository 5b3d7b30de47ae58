//! A file or a stream to a TCP server.

use std::net::SocketAddr;
use std::time::Duration;

use hal::MacAddress;

use super::error::SendError;
use super::options::Stability;
use super::port::Port;
use super::report::{CopyReason, Report, Stop, TcpFigures};
use super::run::{Progress, Transfer};
use super::udp::Step;
use crate::file::source::Available;
use crate::file::{Source, Stream};
use crate::tcp::{SharedFile, Socket, SocketError, Stack, StackConfig, State};

/// What is to be sent, and how.
#[derive(Clone, Copy, Debug)]
pub struct TcpOptions {
    /// The server.
    pub target: SocketAddr,
    /// The next hop's Ethernet address; `None` asks for it by ARP or neighbour discovery.
    pub station: Option<MacAddress>,
    /// The first byte of the file to be sent.
    pub offset: u64,
    /// How many bytes at most; `None` for all.
    pub length: Option<u64>,
    /// How the file is kept from changing.
    pub stability: Stability,
    /// The stack that is made for this.
    pub stack: StackConfig,
}

impl TcpOptions {
    /// Everything of the file to `target`, by the defaults.
    pub fn to(target: SocketAddr) -> Self {
        Self { target, station: None, offset: 0, length: None, stability: Stability::Auto, stack: StackConfig::default() }
    }
}

/// One file or stream on its way to a server, over a connection of its own. It is complete when the server has acknowledged the last byte and
/// the end behind it. What the server sends is read and forgotten. [`run`](super::run()) takes its steps.
pub struct TcpSend {
    stack: Stack,
    socket: Socket,
    stream: Option<Stream>,
    /// How many bytes are to be sent; a stream's end is known when it is there.
    total: Option<u64>,
    /// The bytes of a stream that were taken.
    taken: u64,
    block: Vec<u8>,
    /// What the server said last.
    said: Box<[u8]>,
    started: Option<Duration>,
    /// Until when the server's end of the connection is waited for.
    patience: Option<Duration>,
    report: Report,
}

/// How much of a stream waits to be acknowledged, at most.
const AHEAD: u64 = 1 << 20;
/// How much of it is read at once.
const BLOCK: usize = 64 << 10;
/// How much is taken at once of what the server says: mostly nothing.
const SAID: usize = 4 << 10;
/// For how long the server may take to close its side after all has arrived: it is answered that long, and needs not repeat itself.
const PATIENCE: Duration = Duration::from_secs(2);

impl TcpSend {
    /// Prepares a send: checks the range, takes the lease, begins to connect. Nothing is sent yet.
    ///
    /// # Errors
    /// [`SendError`] for a range outside the file, a server that cannot be reached, a lease that is not to be had.
    pub fn new(port: Port, source: Source, options: TcpOptions, now: Duration) -> Result<Self, SendError> {
        let mut stack = Stack::new(port, options.stack)?;
        let mut report = Report::default();
        let (file, stream, total) = match source {
            Source::File(file) => {
                let start = options.offset.saturating_add(file.start());
                let (name, size) = (file.name().to_owned(), file.size());
                let left = size.checked_sub(start).ok_or(SendError::Offset { offset: start, name, size })?;
                let len = options.length.unwrap_or(left).min(left);
                let file = SharedFile::new(file, stack.stability(options.stability)?)?;
                file.stability().clone_into(&mut report.stability);
                (Some((file, start..start + len)), None, Some(len))
            }
            Source::Stream(stream) => {
                if options.offset != 0 {
                    return Err(SendError::StreamOffset(stream.name().to_owned()));
                }
                report.stability = "copied".into();
                (None, Some(stream), options.length)
            }
        };
        let socket = match options.station {
            Some(station) => stack.connect_by(options.target, station, now)?,
            None => stack.connect(options.target, now)?,
        };
        if let Some((file, range)) = file {
            socket.sendfile(&mut stack, &file, range).and_then(|_| socket.shutdown(&mut stack))?;
        }
        let (block, started, patience) = Default::default();
        let said = vec![0; SAID].into();
        Ok(Self { stack, socket, stream, total, taken: 0, block, said, started, patience, report })
    }

    /// The port, for the next send, with the windows that it has. A connection that is not over is forgotten.
    pub fn into_port(self) -> Port {
        self.stack.into_port()
    }

    fn acknowledged(&self) -> u64 {
        self.socket.acknowledged(&self.stack).unwrap_or(0)
    }

    fn stop(&mut self, why: Stop) {
        if self.report.stopped == Stop::Running {
            self.report.stopped = why;
        }
    }

    /// Hands over more of a stream.
    fn feed(&mut self) -> Result<bool, SendError> {
        let Some(stream) = &mut self.stream else { return Ok(false) };
        let mut fed = false;
        while self.taken.saturating_sub(self.socket.acknowledged(&self.stack)?) < AHEAD {
            let left = self.total.map_or(u64::MAX, |total| total - self.taken);
            self.block.resize(left.min(BLOCK as u64) as usize, 0);
            let available = if left == 0 { Ok(Available::End) } else { stream.take(&mut self.block) };
            match available.map_err(|error| SendError::Read { name: stream.name().to_owned(), error })? {
                Available::Bytes(len) => {
                    self.socket.send(&mut self.stack, &self.block[..len])?;
                    self.taken += len as u64;
                    fed = true;
                }
                Available::NotYet => break,
                Available::End => {
                    self.total = Some(self.taken);
                    self.stream = None;
                    self.socket.shutdown(&mut self.stack)?;
                    return Ok(true);
                }
            }
        }
        Ok(fed)
    }

    /// What became of the connection, once that is decided.
    fn judge(&mut self) {
        let arrived = self.total == Some(self.acknowledged());
        match self.socket.delivered(&self.stack) {
            Ok(true) if arrived => self.stop(Stop::Complete),
            Ok(_) if self.socket.state(&self.stack) == Ok(State::Closed) => {
                self.stop(Stop::Failed("the server closed the connection before it had everything".into()));
            }
            Ok(_) => {}
            Err(error @ SocketError::FileChanged { .. }) => self.stop(Stop::FileChanged(error.to_string())),
            // Some servers reset what they have read to the end.
            Err(SocketError::Tcp(_)) if arrived && self.total != Some(0) => self.stop(Stop::Complete),
            Err(error) => self.stop(Stop::Failed(error.to_string())),
        }
    }

    fn close_report(&mut self, now: Duration) -> Report {
        let done = self.stack.report();
        let report = &mut self.report;
        (report.frames, report.descriptors, report.doorbells) = (done.frames, done.descriptors, done.doorbells);
        report.bytes_gathered = done.bytes_gathered;
        (report.bytes_copied, report.copy_reasons) = (done.bytes_copied, done.copy_reasons);
        report.copied(done.bytes_program, CopyReason::Stream);
        report.bytes = report.bytes_gathered + report.bytes_copied - report.copy_reasons.get(&CopyReason::FileChanging).unwrap_or(&0);
        report.windows = done.windows;
        report.seconds = self.started.map_or(0.0, |started| now.saturating_sub(started).as_secs_f64());
        report.tcp = Some(TcpFigures { acknowledged: done.acknowledged, retransmitted: done.retransmitted });
        std::mem::take(report)
    }
}

impl Transfer for TcpSend {
    fn step(&mut self, now: Duration) -> Result<Step, SendError> {
        let step = self.stack.poll(now)?;
        while self.stack.next_event().is_some() {}
        while let Ok(Available::Bytes(_)) = self.socket.recv(&mut self.stack, &mut self.said) {}
        if self.socket.state(&self.stack) == Ok(State::SynSent) {
            self.judge();
        } else {
            self.started.get_or_insert(now);
            let fed = self.report.stopped == Stop::Running && self.socket.error(&self.stack).is_none() && self.feed()?;
            self.judge();
            if fed {
                return Ok(Step::Busy);
            }
        }
        if self.report.stopped == Stop::Running || step == Step::Busy {
            return Ok(step);
        }
        let over = !matches!(self.socket.state(&self.stack), Ok(State::FinWait2)) || self.report.stopped != Stop::Complete;
        let patience = *self.patience.get_or_insert(now + PATIENCE);
        let changing = matches!(self.report.stopped, Stop::FileChanged(_)) && self.socket.state(&self.stack) != Ok(State::Closed);
        // Nothing may refer to the file any more, and what is on its way of a file that changed is delivered.
        if self.stack.outstanding() == 0 && (over && !changing || !over && now >= patience) {
            return Ok(Step::Done);
        }
        Ok(if over { step } else { Step::Idle { until: Some(patience) } })
    }

    fn check(&mut self, now: Duration) -> Result<(), SendError> {
        self.stack.check(now)
    }

    fn wait(&mut self, timeout: Duration) -> Result<bool, SendError> {
        self.stack.wait(timeout)
    }

    fn interrupt(&mut self) {
        if self.report.stopped == Stop::Running {
            self.stop(Stop::Interrupted);
            // It cannot be gone: this has the only handle.
            let _ = self.socket.abort(&mut self.stack);
        }
    }

    fn progress(&self) -> Progress {
        Progress { bytes: self.acknowledged(), total: self.total }
    }

    fn finish(&mut self, now: Duration) -> Report {
        self.close_report(now)
    }

    fn fail(&mut self, now: Duration, error: SendError) -> Report {
        self.report.stopped = Stop::Failed(error.to_string());
        self.report.frames_lost = self.stack.outstanding();
        self.close_report(now)
    }
}
