//! A file or a stream as UDP datagrams.
//!
//! Each frame is a header in a pool buffer, and file bytes that the device gathers from the page cache. The program writes headers and
//! descriptors, and reads no byte of the file on this way; where it must (the NIC lacks something, the source has no pages), the report
//! counts every byte with the reason.

mod copy;
mod gather;
mod post;

use std::time::Duration;

use hal::{Burst, MacAddress};

use super::error::SendError;
use super::options::{Stability, UdpOptions};
use super::pace::Pacer;
use super::port::{Checked, Port};
use super::report::{CopyReason, Report, Stop};
use super::run::Progress;
use crate::file::{Lease, RegularFile, Source, Stream, WindowStatistics};
use crate::net::{self, Resolution, UdpFlow};
use post::Posted;

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
    File {
        file: RegularFile,
        lease: Option<Lease>,
        /// Why all of it is copied, if it is.
        copy: Option<CopyReason>,
        /// From here on it is copied, since so few bytes are not worth a window.
        copy_from: u64,
    },
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
                (lease, report.stability) = secure(&file, port.stability(options.stability)?)?;
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
                (Content::File { file, lease, copy: None, copy_from: u64::MAX }, Some(end))
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

    /// The next hop's Ethernet address, once it is known: for the [options](UdpOptions::station) of a next send, which then asks nobody.
    pub fn station(&self) -> Option<MacAddress> {
        self.options.station
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

    /// Looks whether the device is alive, and gets on. Now and then while idle. What is lost when it has to be reset is not sent
    /// again, since nobody knows what of it arrived; the report tells how many frames that were.
    ///
    /// # Errors
    /// [`hal::NicError::Hang`], [`hal::NicError::Vanished`].
    pub fn check(&mut self, now: Duration) -> Result<(), SendError> {
        let Checked { reset, lost, trouble } = self.port.check(now);
        self.report.resets += u64::from(reset);
        self.report.frames_lost += lost;
        self.blocked &= !reset;
        trouble.map_or(Ok(()), |trouble| Err(trouble.into()))
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
            self.report.frames_lost += lost;
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
        self.report.tags_written = if self.port.interface().written_tag().is_some() { self.report.frames } else { 0 };
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
                self.options.station = Some(station);
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
            self.stop(Stop::Complete);
            return Ok(Step::Busy);
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
        let posted = self.data_burst(&flow, frames)?;
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

    /// Posts at most `frames` frames on the way that is right here.
    fn data_burst(&mut self, flow: &UdpFlow, frames: usize) -> Result<usize, SendError> {
        match &self.content {
            Content::File { copy: Some(reason), .. } => self.copy_burst(flow, frames, *reason),
            Content::File { copy_from, .. } if self.position >= *copy_from => self.copy_burst(flow, frames, CopyReason::BelowThreshold),
            Content::File { .. } => self.gather_burst(flow, frames),
            Content::Stream(_) => self.stream_burst(flow, frames),
        }
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
    fn has_changed(&self) -> Result<bool, SendError> {
        let Content::File { file, lease: None, .. } = &self.content else { return Ok(false) };
        file.changed().map_err(|error| SendError::Read { name: file.name().to_owned(), error })
    }

    fn look_for_change(&mut self) -> Result<(), SendError> {
        if self.has_changed()? {
            self.stop(changed());
        }
        Ok(())
    }

    /// Waits until the device has read all that was posted; then the lease can go.
    fn drain(&mut self) -> Result<Step, SendError> {
        if self.port.outstanding() > 0 {
            return Ok(Step::Idle { until: None });
        }
        // Only now has the device read the last bytes.
        if self.report.stopped == Stop::Complete && self.has_changed()? {
            self.report.stopped = changed();
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

fn changed() -> Stop {
    Stop::FileChanged("its size or times changed during the send; the receiver may have a mixture".into())
}

/// Takes the lease that was asked for, and says in words how the file is kept.
pub(crate) fn secure(file: &RegularFile, stability: Stability) -> Result<(Option<Lease>, String), SendError> {
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
