//! A file or a stream as UDP datagrams.
//!
//! Each frame is a header in a pool buffer, and file bytes that the device gathers from the page cache. The program writes headers and
//! descriptors, and reads no byte of the file on this way; where it must (the NIC lacks something, the source has no pages), the report
//! counts every byte with the reason.

use std::net::SocketAddr;
use std::time::Duration;

use hal::nic::TxCounters;
use hal::{Burst, MacAddress, NicError};

use super::error::SendError;
use super::gather::{Datagrams, GatherError};
use super::pace::Pacer;
use super::port::{Port, push_copied};
use super::report::{CopyReason, Report, Stop};
use super::run::Progress;
use crate::file::source::Available;
use crate::file::{CacheError, Lease, RegularFile, Source, Stream, WindowStatistics};
use crate::net::{self, Rate, Resolution, UdpFlow, finish_in_software};

/// How a file becomes datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// File bytes and nothing else.
    #[default]
    Raw,
    /// The offset of the datagram's first byte in the file, 8 bytes big-endian, then file bytes. A receiver can put them in order and see gaps.
    Offset,
}

impl Framing {
    /// Bytes in front of the file's.
    pub fn prefix_len(self) -> usize {
        match self {
            Self::Raw => 0,
            Self::Offset => 8,
        }
    }
}

/// How a file is kept from changing while it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stability {
    /// By a lease where there is one, else by trust.
    #[default]
    Auto,
    /// By a lease, or not at all.
    Lease,
    /// Nobody changes it; its size and times are looked at now and then. Stores through another process's shared mapping may go unseen.
    Trust,
}

/// What is to be sent, and how.
#[derive(Clone, Debug)]
pub struct UdpOptions {
    /// To whom.
    pub target: SocketAddr,
    /// From which port. Default 49152, the first of the dynamic ports (RFC 6335).
    pub source_port: u16,
    /// The next hop's Ethernet address; `None` asks for it by ARP or neighbour discovery.
    pub station: Option<MacAddress>,
    /// What a datagram holds.
    pub framing: Framing,
    /// The first byte of the file to be sent.
    pub offset: u64,
    /// How many bytes at most; `None` for all.
    pub length: Option<u64>,
    /// The most bits of frames (from the Ethernet header to the payload's end) a second; `None`: as many as the NIC takes.
    pub rate: Option<Rate>,
    /// Frames posted with one doorbell, 1 to 256. Default 32.
    pub burst: usize,
    /// How the file is kept from changing.
    pub stability: Stability,
}

impl UdpOptions {
    /// Everything of the file to `target`, by the defaults.
    pub fn to(target: SocketAddr) -> Self {
        Self {
            target,
            source_port: 49152,
            station: None,
            framing: Framing::Raw,
            offset: 0,
            length: None,
            rate: None,
            burst: 32,
            stability: Stability::Auto,
        }
    }
}

/// What a step did, and when the next makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It did something; call again at once.
    Busy,
    /// There is nothing to do until the device gets on, or until a time.
    Idle {
        /// the time, when one is known
        until: Option<Duration>,
    },
    /// The send is over, and nothing refers to the file any more.
    Done,
}

/// One send on a port. [`run`](super::run()) takes its steps, or a program of your own that has a clock.
pub struct UdpSend<'p> {
    port: &'p mut Port,
    options: UdpOptions,
    content: Content,
    state: State,
    /// The next byte to be sent, and where to end; a stream's end is known when it is there.
    position: u64,
    end: Option<u64>,
    pacer: Option<Pacer>,
    /// The ring was full: wait for a completion.
    blocked: bool,
    /// The receiver's host has said that nobody listens.
    refused: bool,
    burst: Burst<'static>,
    /// Bytes that are copied: of a burst, and of one frame.
    block: Vec<u8>,
    frame: Vec<u8>,
    started: Option<Duration>,
    next_look: u64,
    windows_before: WindowStatistics,
    report: Report,
}

enum Content {
    File { file: RegularFile, lease: Option<Lease>, copy: Option<CopyReason> },
    Stream(Stream),
}

enum State {
    Resolving(Box<Resolution>),
    Sending(Box<UdpFlow>),
    Draining,
}

/// How many bytes go out between two looks at the file's size and times, without a lease.
const LOOK: u64 = 16 << 20;

impl<'p> UdpSend<'p> {
    /// Prepares a send: checks the range, takes the lease. Nothing is sent yet.
    ///
    /// # Errors
    /// [`SendError`] for a range outside the file, a target that cannot be reached, a lease that is not to be had.
    pub fn new(port: &'p mut Port, source: Source, mut options: UdpOptions, now: Duration) -> Result<Self, SendError> {
        if !(1..=256).contains(&options.burst) {
            return Err(SendError::Config(format!("a burst of {} frames; use 1 to 256", options.burst)));
        }
        let mut report = Report::default();
        let (content, end) = match source {
            Source::File(mut file) => {
                let lease;
                (lease, report.stability) = secure(&file, options.stability)?;
                // Before the lease it may have changed; from here on its size holds, or a change is found.
                file.refresh().map_err(|error| SendError::Read { name: file.name().to_owned(), error })?;
                let size = file.size();
                options.offset = options.offset.saturating_add(file.start());
                let left = size.checked_sub(options.offset).ok_or_else(|| SendError::Offset {
                    offset: options.offset,
                    name: file.name().to_owned(),
                    size,
                })?;
                let end = options.offset + options.length.unwrap_or(left).min(left);
                if end == options.offset {
                    tracing::warn!(
                        "there is nothing to send of {}: no datagram goes out, and the receiver learns nothing of it",
                        file.name()
                    );
                }
                (Content::File { file, lease, copy: None }, Some(end))
            }
            Source::Stream(stream) => {
                if options.offset != 0 {
                    return Err(SendError::StreamOffset(stream.name().to_owned()));
                }
                report.stability = "copied".into();
                (Content::Stream(stream), options.length)
            }
        };
        let state = match options.station {
            Some(station) => State::Sending(flow(port, &options, station)?),
            None => State::Resolving(Box::new(Resolution::new(port.interface(), options.target.ip(), now)?)),
        };
        let mut send = Self {
            windows_before: port.windows.statistics(),
            pacer: options.rate.map(|rate| Pacer::new(rate, now)),
            position: options.offset,
            next_look: options.offset + LOOK,
            end,
            port,
            options,
            content,
            state,
            blocked: false,
            refused: false,
            burst: Burst::default(),
            block: Vec::new(),
            frame: Vec::new(),
            started: None,
            report,
        };
        if let State::Sending(flow) = &send.state {
            let copy = send.must_copy(flow);
            send.set_copy(copy);
        }
        Ok(send)
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        Progress { bytes: self.report.bytes, total: self.end.map(|end| end - self.options.offset) }
    }

    /// Ends it early: what is posted is completed, nothing more is posted.
    pub fn interrupt(&mut self) {
        self.stop(Stop::Interrupted);
    }

    /// Does what there is to do now: looks at what arrived, takes completions, posts one burst.
    ///
    /// # Errors
    /// [`SendError`]; call [`fail`](Self::fail) then.
    pub fn step(&mut self, now: Duration) -> Result<Step, SendError> {
        let completed = self.port.nic.tx(0).reap()?;
        self.blocked &= completed == 0;
        let Self { port, state, options, refused, .. } = self;
        let arrived = match state {
            State::Resolving(resolution) => port.service(|packet| resolution.receive(packet))?,
            _ => port.service(|packet| {
                // It may be that somebody listens later, and that this is forged: so it is told, and the send goes on.
                if !*refused && net::refused(packet) == Some(options.target) {
                    *refused = true;
                    tracing::warn!("nobody listens on {}, it answers (ICMP port unreachable); is the receiver running?", options.target);
                }
            })?,
        };
        if self.lease_broken() {
            self.stop(Stop::FileChanged("another process wants to change it".into()));
        }
        let step = match std::mem::replace(&mut self.state, State::Draining) {
            State::Resolving(resolution) => self.resolve(resolution, now)?,
            State::Sending(flow) => self.send_burst(flow, now)?,
            State::Draining => self.drain()?,
        };
        let got_on = completed + arrived > 0 && matches!(step, Step::Idle { .. });
        Ok(if got_on { Step::Busy } else { step })
    }

    /// Looks whether the device is alive, and gets on. Now and then while idle.
    ///
    /// # Errors
    /// [`NicError::Hang`], [`NicError::Vanished`].
    pub fn check(&mut self, now: Duration) -> Result<(), SendError> {
        Ok(self.port.nic.tx(0).check(now)?)
    }

    /// Sleeps until the device has something for us, at most `timeout`. Returns whether it has.
    ///
    /// # Errors
    /// What the NIC says; [`hal::BusError::NoInterrupt`] when it cannot wake us.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool, SendError> {
        Ok(self.port.nic.wait(timeout)?)
    }

    /// The report, once a step was [`Step::Done`].
    pub fn finish(&mut self, now: Duration) -> Report {
        if self.report.stopped == Stop::Running {
            self.report.stopped = Stop::Complete;
        }
        self.close_report(now)
    }

    /// The report of a send that an error ended. The NIC is reset when frames were on their way, so that nothing refers to the file afterwards.
    pub fn fail(&mut self, now: Duration, error: SendError) -> Report {
        self.report.stopped = Stop::Failed(error.to_string());
        if self.port.outstanding() > 0 {
            let lost = self.port.outstanding();
            self.report.frames_lost = lost;
            let revived = self.port.nic.reset().and_then(|_| self.port.nic.rx(0).refill(&mut self.port.pool));
            if revived.is_err() {
                // It does not even reset. Its bus is about to be closed; what it cannot reach, it cannot read.
                let _ = self.port.nic.stop();
            }
        }
        if let Content::File { file, .. } = &self.content {
            let _ = self.port.forget(file);
        }
        self.close_report(now)
    }

    fn close_report(&mut self, now: Duration) -> Report {
        self.port.windows.release();
        let (after, before) = (self.port.windows.statistics(), self.windows_before);
        self.report.windows = WindowStatistics {
            mapped: after.mapped - before.mapped,
            hits: after.hits - before.hits,
            evicted: after.evicted - before.evicted,
        };
        self.report.seconds = self.started.map_or(0.0, |started| now.saturating_sub(started).as_secs_f64());
        std::mem::take(&mut self.report)
    }

    fn stop(&mut self, why: Stop) {
        if self.report.stopped == Stop::Running {
            self.report.stopped = why;
            self.state = State::Draining;
        }
    }

    pub(super) fn lease_broken(&self) -> bool {
        matches!(&self.content, Content::File { lease: Some(lease), .. } if lease.broken())
    }

    fn resolve(&mut self, mut resolution: Box<Resolution>, now: Duration) -> Result<Step, SendError> {
        self.frame.clear();
        let step = match resolution.poll(now, &mut self.frame) {
            net::Step::Resolved(station) => {
                let flow = flow(self.port, &self.options, station)?;
                self.set_copy(self.must_copy(&flow));
                self.state = State::Sending(flow);
                return Ok(Step::Busy);
            }
            net::Step::TimedOut => return Err(resolution.no_answer().into()),
            net::Step::Wait { until } => Step::Idle { until: Some(until) },
            net::Step::Send => {
                self.port.transmit(&self.frame)?;
                Step::Busy
            }
        };
        self.state = State::Resolving(resolution);
        Ok(step)
    }

    /// Why this NIC cannot gather this flow's frames.
    fn must_copy(&self, flow: &UdpFlow) -> Option<CopyReason> {
        if flow.missing().is_some() {
            Some(CopyReason::NoChecksumOffload)
        } else if self.port.gathers() {
            None
        } else {
            Some(CopyReason::NoGather)
        }
    }

    fn set_copy(&mut self, reason: Option<CopyReason>) {
        if let Content::File { copy, .. } = &mut self.content {
            *copy = reason;
        }
    }

    fn send_burst(&mut self, flow: Box<UdpFlow>, now: Duration) -> Result<Step, SendError> {
        if Some(self.position) == self.end {
            return self.end_of_data();
        }
        if self.blocked {
            if self.port.outstanding() == 0 {
                return Err(SendError::Config("no packet buffer or window is free, and none is on its way back".into()));
            }
            self.state = State::Sending(flow);
            return Ok(Step::Idle { until: None });
        }
        let frame_bytes = flow.header_len() + flow.payload();
        let frames = match &mut self.pacer {
            Some(pacer) => pacer.take(now, self.options.burst, frame_bytes),
            None => self.options.burst,
        };
        if frames == 0 {
            self.state = State::Sending(flow);
            return Ok(Step::Idle { until: self.pacer.as_ref().map(Pacer::next) });
        }
        self.started.get_or_insert(now);
        let before = self.position;
        let posted = match &self.content {
            Content::File { copy: None, .. } => self.gather_burst(&flow, frames),
            Content::File { copy: Some(reason), .. } => self.copy_burst(&flow, frames, *reason),
            Content::Stream(_) => self.stream_burst(&flow, frames),
        }?;
        if let Some(pacer) = &mut self.pacer {
            let used = (self.position - before) as usize + flow.header_len() * posted;
            pacer.refund((frames * frame_bytes).saturating_sub(used));
        }
        if self.report.stopped == Stop::Running {
            self.state = State::Sending(flow);
        }
        if self.position >= self.next_look {
            self.next_look = self.position + LOOK;
            self.look_for_change()?;
        }
        Ok(if posted > 0 || self.report.stopped != Stop::Running { Step::Busy } else { Step::Idle { until: None } })
    }

    /// Posts at most `frames` frames of segments in windows.
    fn gather_burst(&mut self, flow: &UdpFlow, frames: usize) -> Result<usize, SendError> {
        let Content::File { file, copy, lease } = &mut self.content else { return Ok(0) };
        let Port { nic, windows, pool, .. } = &mut *self.port;
        let (start, end, payload) = (self.position, self.end.unwrap_or(0), flow.payload() as u64);
        let mapped = windows.mappable(file).min(end);
        let span_end = mapped.min(start + frames as u64 * payload);
        if span_end > start {
            match windows.prepare(file, start, span_end) {
                Ok(()) => {}
                Err(CacheError::Busy) => {
                    self.blocked = true;
                    return Ok(0);
                }
                // A file that has become shorter meanwhile cannot be mapped, nor read.
                Err(CacheError::Map(_)) if lease.is_none() && file.changed().unwrap_or(false) => {
                    self.look_for_change()?;
                    return Ok(0);
                }
                Err(CacheError::Map(error)) => {
                    tracing::warn!("{} is copied: {error}", file.name());
                    *copy = Some(CopyReason::NotMappable);
                    return Ok(0);
                }
            }
        }
        let span = windows.span(file, start, span_end);
        let datagrams = Datagrams { flow, framing: self.options.framing, file, span, mapped, end };
        let mut burst: Burst<'_> = std::mem::take(&mut self.burst);
        match datagrams.push(&mut burst, pool, start, frames, &mut self.block) {
            Ok(()) => {}
            // The window is shorter than the file was: it was truncated before it was mapped.
            Err(GatherError::Unmapped) => {
                burst.clear();
                return self.cannot_read(std::io::ErrorKind::UnexpectedEof.into());
            }
            Err(GatherError::Read(error)) => {
                burst.clear();
                return self.cannot_read(error);
            }
        }
        let built = burst.len();
        let posted = Posted::post(&mut **nic, &mut burst);
        self.burst = burst.recycle();
        self.blocked |= posted.frames < built || built == 0;
        let position = end.min(start + posted.frames as u64 * payload);
        let gathered = position.min(mapped).saturating_sub(start);
        self.account(&posted, position, gathered, CopyReason::PartialLastPage);
        posted.result()
    }

    /// Posts at most `frames` frames of a file whose bytes are copied.
    fn copy_burst(&mut self, flow: &UdpFlow, frames: usize, reason: CopyReason) -> Result<usize, SendError> {
        let Content::File { file, .. } = &self.content else { return Ok(0) };
        let left = self.end.unwrap_or(0) - self.position;
        self.block.resize(left.min((frames * flow.payload()) as u64) as usize, 0);
        if let Err(error) = file.read_at(&mut self.block, self.position) {
            return self.cannot_read(error);
        }
        self.post_block(flow, reason)
    }

    /// Posts at most `frames` full frames of a stream, or its last.
    fn stream_burst(&mut self, flow: &UdpFlow, frames: usize) -> Result<usize, SendError> {
        let Content::Stream(stream) = &mut self.content else { return Ok(0) };
        let payload = flow.payload();
        let left = self.end.map_or(u64::MAX, |end| end - self.position);
        let wanted = left.min((frames * payload) as u64) as usize;
        let mut filled = self.block.len();
        self.block.resize(wanted.max(filled), 0);
        while filled < wanted {
            match stream.take(&mut self.block[filled..]) {
                Ok(Available::Bytes(len)) => filled += len,
                Ok(Available::NotYet) => break,
                Ok(Available::End) => {
                    self.end = Some(self.position + filled as u64);
                    break;
                }
                Err(error) => {
                    self.block.truncate(filled);
                    return self.cannot_read(error);
                }
            }
        }
        self.block.truncate(filled);
        let last = self.end == Some(self.position + filled as u64);
        // A datagram that is not full waits for more, unless there is none.
        let rest = if last { Vec::new() } else { self.block.split_off(filled - filled % payload) };
        let full = self.block.len();
        let posted = self.post_block(flow, CopyReason::Stream)?;
        let sent = (posted * payload).min(full);
        self.block.drain(..sent);
        self.block.extend_from_slice(&rest);
        Ok(posted)
    }

    /// Posts what is in the block, as far as there is room.
    fn post_block(&mut self, flow: &UdpFlow, reason: CopyReason) -> Result<usize, SendError> {
        let Port { nic, pool, .. } = &mut *self.port;
        let mut burst: Burst<'_> = std::mem::take(&mut self.burst);
        let mut position = self.position;
        for data in self.block.chunks(flow.payload()) {
            let mut header = if data.len() == flow.payload() { *flow.full() } else { flow.header(data.len()) };
            if self.options.framing == Framing::Offset {
                flow.write_prefix(&mut header, &position.to_be_bytes());
            }
            self.frame.clear();
            self.frame.extend_from_slice(&header[..flow.header_len()]);
            self.frame.extend_from_slice(data);
            if let Some(work) = flow.missing() {
                finish_in_software(&mut self.frame, &work);
            }
            if !push_copied(&mut burst, pool, &self.frame, flow.offload()) {
                break;
            }
            position += data.len() as u64;
        }
        let posted = Posted::post(&mut **nic, &mut burst);
        self.burst = burst.recycle();
        let sent = self.block.len().min(posted.frames * flow.payload());
        self.blocked |= sent < self.block.len();
        self.account(&posted, self.position + sent as u64, 0, reason);
        posted.result()
    }

    fn account(&mut self, posted: &Posted, position: u64, gathered: u64, reason: CopyReason) {
        let bytes = position - self.position;
        self.position = position;
        let report = &mut self.report;
        report.bytes += bytes;
        report.frames += posted.frames as u64;
        report.descriptors += posted.counters.descriptors;
        report.doorbells += posted.counters.doorbells;
        report.bytes_gathered += gathered;
        report.copied(bytes - gathered, reason);
    }

    /// A file that is shorter than it was has changed; anything else is an error. Either way what is posted is completed first.
    fn cannot_read(&mut self, error: std::io::Error) -> Result<usize, SendError> {
        let stop = match (&self.content, error.kind()) {
            (Content::File { .. }, std::io::ErrorKind::UnexpectedEof) => Stop::FileChanged("it became shorter".into()),
            (Content::File { file, .. }, _) => Stop::Failed(format!("reading {}: {error}", file.name())),
            (Content::Stream(stream), _) => Stop::Failed(format!("reading {}: {error}", stream.name())),
        };
        self.stop(stop);
        Ok(0)
    }

    /// Without a lease, a change can only be found out afterwards.
    fn look_for_change(&mut self) -> Result<(), SendError> {
        if let Content::File { file, lease: None, .. } = &self.content {
            match file.changed() {
                Ok(false) => {}
                Ok(true) => {
                    self.stop(Stop::FileChanged("its size or times changed during the send; the receiver may have a mixture".into()))
                }
                Err(error) => return Err(SendError::Read { name: file.name().to_owned(), error }),
            }
        }
        Ok(())
    }

    fn end_of_data(&mut self) -> Result<Step, SendError> {
        self.look_for_change()?;
        self.stop(Stop::Complete);
        Ok(Step::Busy)
    }

    /// Waits until the device has read all that was posted; then the lease can go.
    fn drain(&mut self) -> Result<Step, SendError> {
        if self.port.outstanding() > 0 {
            return Ok(Step::Idle { until: None });
        }
        if let Content::File { file, lease, .. } = &mut self.content {
            if matches!(self.report.stopped, Stop::FileChanged(_)) && self.port.forget(file)? > 0 {
                return Ok(Step::Idle { until: None });
            }
            *lease = None;
        }
        Ok(Step::Done)
    }
}

/// Takes the lease that was asked for, and says in words how the file is kept.
fn secure(file: &RegularFile, stability: Stability) -> Result<(Option<Lease>, String), SendError> {
    if stability == Stability::Trust {
        return Ok((None, "trust: as asked for".into()));
    }
    match Lease::take(file.file()) {
        Ok(lease) => Ok((Some(lease), "lease".into())),
        Err(error) if stability == Stability::Lease => Err(SendError::NoLease { name: file.name().to_owned(), error }),
        Err(error) => Ok((None, format!("trust: {error}"))),
    }
}

fn flow(port: &Port, options: &UdpOptions, station: MacAddress) -> Result<Box<UdpFlow>, SendError> {
    let flow = UdpFlow::new(port.interface(), station, options.source_port, options.target, options.framing.prefix_len())?;
    Ok(Box::new(flow.offered(port.capabilities().offloads)?))
}

/// What came of a burst.
struct Posted {
    frames: usize,
    counters: TxCounters,
    error: Option<NicError>,
}

impl Posted {
    /// Posts a burst and empties it: frames that found no room are built again later.
    fn post(nic: &mut dyn hal::Nic, burst: &mut Burst<'_>) -> Self {
        let queue = nic.tx(0);
        let before = queue.counters();
        let error = if burst.is_empty() { None } else { queue.post(burst).err() };
        let after = queue.counters();
        burst.clear();
        let counters = TxCounters {
            frames: after.frames - before.frames,
            descriptors: after.descriptors - before.descriptors,
            doorbells: after.doorbells - before.doorbells,
        };
        Self { frames: counters.frames as usize, counters, error }
    }

    fn result(self) -> Result<usize, SendError> {
        self.error.map_or(Ok(self.frames), |error| Err(error.into()))
    }
}
