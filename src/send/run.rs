//! Takes the steps of a send, reads the clock, and waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::report::Report;
use super::udp::{Step, UdpSend};

/// How far a send is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// File bytes handed to the device.
    pub bytes: u64,
    /// File bytes to be sent; `None` for a stream.
    pub total: Option<u64>,
}

/// How long the loop spins for the device before it sleeps between looks: longer than a device needs for a burst.
const SPIN: Duration = Duration::from_micros(20);
/// How long it sleeps then.
const NAP: Duration = Duration::from_micros(50);
/// How often a waiting loop asks the device whether it is alive.
const CHECK: Duration = Duration::from_millis(20);
/// How often progress is told.
const TELL: Duration = Duration::from_millis(100);

/// Runs a send to its end: complete, stopped by `stop`, or failed. The report says which, and how far it came.
///
/// `tell` is called about ten times a second.
pub fn run(send: &mut UdpSend<'_>, stop: &AtomicBool, mut tell: impl FnMut(Progress)) -> Report {
    let start = Instant::now();
    let (mut told, mut checked) = (Duration::ZERO, Duration::ZERO);
    let mut idle_since = None;
    loop {
        let now = start.elapsed();
        if stop.load(Ordering::Relaxed) {
            send.interrupt();
        }
        match send.step(now) {
            Ok(Step::Done) => return send.finish(now),
            Ok(Step::Busy) => idle_since = None,
            Ok(Step::Idle { until }) => {
                let since = *idle_since.get_or_insert(now);
                if now.saturating_sub(checked) > CHECK {
                    checked = now;
                    if let Err(error) = send.check(now) {
                        return send.fail(now, error);
                    }
                }
                let waiting = until.map_or(Duration::MAX, |until| until.saturating_sub(now));
                if waiting > SPIN && (until.is_some() || now.saturating_sub(since) > SPIN) {
                    std::thread::sleep(waiting.min(NAP));
                } else {
                    std::hint::spin_loop();
                }
            }
            Err(error) => return send.fail(now, error),
        }
        if now.saturating_sub(told) > TELL {
            told = now;
            tell(send.progress());
        }
    }
}
