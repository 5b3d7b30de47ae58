//! Drives the work of a queue, and counts what it costs.

use std::time::{Duration, Instant};

use hal::cycles;

use super::BenchError;

/// What is done over and over with a queue, or a few.
pub trait Work: Send {
    /// Goes once around without waiting. Whether there was anything to do.
    ///
    /// # Errors
    /// What the NIC says.
    fn poll(&mut self) -> Result<bool, BenchError>;

    /// Makes everything ready, before the measured time begins. `over` says that there is no use in going on.
    ///
    /// # Errors
    /// What the NIC says, or that nobody is there.
    fn begin(&mut self, over: &dyn Fn() -> bool) -> Result<(), BenchError>;

    /// Looks whether the device still gets on; `now` is the caller's monotonic clock.
    ///
    /// # Errors
    /// That it hangs, or is gone.
    fn check(&mut self, now: Duration) -> Result<(), BenchError>;

    /// The time is over: what is on its way comes to its end, which counts. `now` as for [`check`](Self::check), from where `clock` goes on.
    ///
    /// # Errors
    /// That it does not.
    fn finish(&mut self, clock: &dyn Fn() -> Duration) -> Result<(), BenchError>;
}

/// What a time of work took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Cycles in polls that did something.
    pub busy: u64,
    /// Such polls.
    pub busy_polls: u64,
    /// Polls that found nothing to do.
    pub idle_polls: u64,
    /// All cycles.
    pub cycles: u64,
    /// The whole time.
    pub elapsed: Duration,
    /// How much of its end no poll found anything to do, to within a few polls.
    pub quiet: Duration,
}

/// Polls between two looks at the clock, which may take as many instructions as a packet.
const POLLS: u32 = 16;
/// How often an idle device is asked whether it is alive.
const LOOK: Duration = Duration::from_millis(20);

/// Polls until `duration` has passed, or `over` says so.
pub(super) fn drive(work: &mut impl Work, duration: Duration, over: &dyn Fn() -> bool) -> Result<Tally, BenchError> {
    let (mut tally, mut worked_polls) = (Tally::default(), 0);
    let (start, first) = (Instant::now(), cycles::now());
    let (mut looked, mut worked) = (Duration::ZERO, Duration::ZERO);
    loop {
        let now = start.elapsed();
        if tally.busy_polls != worked_polls {
            (worked_polls, worked) = (tally.busy_polls, now);
        }
        if now >= duration || over() {
            break;
        }
        let busy_polls = tally.busy_polls;
        let mut before = cycles::now();
        for _ in 0..POLLS {
            let busy = work.poll()?;
            let after = cycles::now();
            if busy {
                tally.busy += after.wrapping_sub(before);
                tally.busy_polls += 1;
            } else {
                tally.idle_polls += 1;
            }
            before = after;
        }
        if tally.busy_polls == busy_polls && now.saturating_sub(looked) > LOOK {
            looked = now;
            work.check(now)?;
        }
    }
    tally.quiet = start.elapsed().saturating_sub(worked);
    work.finish(&|| start.elapsed())?;
    tally.elapsed = start.elapsed();
    tally.cycles = cycles::now().wrapping_sub(first);
    Ok(tally)
}
