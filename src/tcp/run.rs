//! A loop around a stack: reads the clock, and waits.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::stack::Stack;
use crate::send::{CHECK, SendError, Step, Wait, Waiter};

/// Polls a stack until `each` breaks or `stop` is set. `each` is called after every poll, with the time since this function was called, and
/// does the program's part: takes [events](Stack::next_event), accepts, receives, sends.
///
/// Returns what `each` broke with; `None` after `stop`.
///
/// # Errors
/// What [`Stack::poll`] says, and [`Stack::check`] now and then while nothing happens.
pub fn run<T>(
    stack: &mut Stack,
    wait: Wait,
    stop: &AtomicBool,
    mut each: impl FnMut(&mut Stack, Duration) -> ControlFlow<T>,
) -> Result<Option<T>, SendError> {
    let start = Instant::now();
    let (mut waiter, mut checked) = (Waiter::new(wait), Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let now = start.elapsed();
        let step = stack.poll(now)?;
        if let ControlFlow::Break(value) = each(stack, now) {
            return Ok(Some(value));
        }
        match step {
            Step::Idle { until } if !stack.has_work() => {
                if now.saturating_sub(checked) > CHECK {
                    checked = now;
                    stack.check(now)?;
                }
                waiter.idle(now, until, |timeout| stack.wait(timeout))?;
            }
            _ => waiter.busy(),
        }
    }
    Ok(None)
}
