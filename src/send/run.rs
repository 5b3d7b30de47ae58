//! Takes the steps of a send, reads the clock, and waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hal::{BusError, NicError};

use super::error::SendError;
use super::report::{Report, Stop};
use super::udp::{Step, UdpSend};

/// How far a send is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// File bytes handed to the device.
    pub bytes: u64,
    /// File bytes to be sent; `None` for a stream.
    pub total: Option<u64>,
}

/// How to wait for the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// Look again and again: the quickest, and a whole processor.
    Poll,
    /// Sleep until the device interrupts.
    Interrupt,
    /// Look for a moment, then sleep until the device interrupts; where it cannot, sleep a little between looks.
    #[default]
    Adaptive,
}

/// How long an adaptive wait looks before it sleeps: longer than a device needs for a burst.
const SPIN: Duration = Duration::from_micros(50);
/// How long it sleeps between looks where there is no interrupt.
const NAP: Duration = Duration::from_micros(50);
/// Shorter waits are not worth an interrupt.
const MOMENT: Duration = Duration::from_millis(1);
/// How often a waiting loop asks the device whether it is alive, and looks at `stop`.
pub(crate) const CHECK: Duration = Duration::from_millis(20);
/// How often progress is told.
const TELL: Duration = Duration::from_millis(100);

/// A send that is taken step by step.
pub trait Transfer {
    /// Does what there is to do now, without waiting.
    ///
    /// # Errors
    /// [`SendError`]; [`fail`](Self::fail) is called then.
    fn step(&mut self, now: Duration) -> Result<Step, SendError>;

    /// Looks whether the device is alive. Now and then while idle.
    ///
    /// # Errors
    /// [`NicError::Hang`], [`NicError::Vanished`].
    fn check(&mut self, now: Duration) -> Result<(), SendError>;

    /// Sleeps until the device has something for us, at most `timeout`. Returns whether it has.
    ///
    /// # Errors
    /// What the NIC says; [`BusError::NoInterrupt`] when it cannot wake us.
    fn wait(&mut self, timeout: Duration) -> Result<bool, SendError>;

    /// Ends it early.
    fn interrupt(&mut self);

    /// How far it is.
    fn progress(&self) -> Progress;

    /// The report, once a step was [`Step::Done`].
    fn finish(&mut self, now: Duration) -> Report;

    /// The report of a send that an error ended.
    fn fail(&mut self, now: Duration, error: SendError) -> Report;
}

impl Transfer for UdpSend<'_> {
    fn step(&mut self, now: Duration) -> Result<Step, SendError> {
        UdpSend::step(self, now)
    }

    fn check(&mut self, now: Duration) -> Result<(), SendError> {
        UdpSend::check(self, now)
    }

    fn wait(&mut self, timeout: Duration) -> Result<bool, SendError> {
        UdpSend::wait(self, timeout)
    }

    fn interrupt(&mut self) {
        UdpSend::interrupt(self);
    }

    fn progress(&self) -> Progress {
        UdpSend::progress(self)
    }

    fn finish(&mut self, now: Duration) -> Report {
        UdpSend::finish(self, now)
    }

    fn fail(&mut self, now: Duration, error: SendError) -> Report {
        UdpSend::fail(self, now, error)
    }
}

/// Runs a send to its end: complete, stopped by `stop`, or failed. The report says which, and how far it came.
///
/// `tell` is called about ten times a second.
pub fn run(send: &mut impl Transfer, wait: Wait, stop: &AtomicBool, mut tell: impl FnMut(Progress)) -> Report {
    let (start, processor) = (Instant::now(), processor_time());
    let (mut told, mut checked) = (Duration::ZERO, Duration::ZERO);
    let mut busy = Busy::default();
    let mut waiter = Waiter::new(wait);
    loop {
        let now = start.elapsed();
        busy.turn(now);
        if stop.load(Ordering::Relaxed) {
            send.interrupt();
        }
        let step = send.step(now).and_then(|step| {
            if let Step::Idle { until } = step {
                if now.saturating_sub(checked) > CHECK {
                    checked = now;
                    send.check(now)?;
                }
                waiter.idle(now, until, |timeout| send.wait(timeout))?;
            } else {
                waiter.busy();
            }
            Ok(step)
        });
        let mut report = match step {
            Ok(Step::Done) => send.finish(now),
            Ok(step) => {
                busy.got_on = step == Step::Busy;
                if now.saturating_sub(told) > TELL {
                    told = now;
                    tell(send.progress());
                }
                continue;
            }
            Err(error) => {
                let stopped = error.is_stopped();
                let report = send.fail(now, error);
                if stopped { Report { stopped: Stop::Interrupted, ..report } } else { report }
            }
        };
        report.busy_seconds = busy.time.as_secs_f64();
        report.cpu_seconds = processor_time().saturating_sub(processor).as_secs_f64();
        return report;
    }
}

/// Processor time of this process so far, the kernel's for it included.
pub(super) fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// The time of the turns that got on. The clock is read once a turn, so the reading is part of it.
#[derive(Default)]
struct Busy {
    time: Duration,
    last: Duration,
    got_on: bool,
}

impl Busy {
    /// A turn begins; the one before it is over.
    #[inline]
    fn turn(&mut self, now: Duration) {
        if self.got_on {
            self.time += now.saturating_sub(self.last);
        }
        self.last = now;
    }
}

/// Waits for a device as it was told to.
pub(crate) struct Waiter {
    wait: Wait,
    /// Whether the device can wake us, as far as is known.
    interrupts: bool,
    idle_since: Option<Duration>,
}

impl Waiter {
    /// One that has not waited yet.
    pub fn new(wait: Wait) -> Self {
        Self { wait, interrupts: wait != Wait::Poll, idle_since: None }
    }

    /// There was something to do.
    pub fn busy(&mut self) {
        self.idle_since = None;
    }

    /// There is nothing to do until `until`, or until the device gets on: `sleep` sleeps until it does.
    pub fn idle(
        &mut self,
        now: Duration,
        until: Option<Duration>,
        sleep: impl FnOnce(Duration) -> Result<bool, SendError>,
    ) -> Result<(), SendError> {
        let since = *self.idle_since.get_or_insert(now);
        let left = until.map_or(CHECK, |until| until.saturating_sub(now)).min(CHECK);
        let spin = match self.wait {
            Wait::Poll => true,
            Wait::Interrupt => false,
            Wait::Adaptive => now.saturating_sub(since) < SPIN,
        };
        if spin || left.is_zero() {
            std::hint::spin_loop();
            return Ok(());
        }
        // To be woken takes longer than the pause between two frames at a rate.
        if self.interrupts && left > MOMENT {
            match sleep(left) {
                Err(SendError::Nic(NicError::Bus(BusError::NoInterrupt { .. }))) if self.wait == Wait::Adaptive => self.interrupts = false,
                other => return other.map(drop),
            }
        }
        std::thread::sleep(left.min(NAP));
        Ok(())
    }
}
