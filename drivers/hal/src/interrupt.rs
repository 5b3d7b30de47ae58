//! Waiting for a device.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::registers::RegisterError;

/// One interrupt of a device.
pub trait Interrupt: Send {
    /// Waits for the interrupt, at most `timeout`. Returns whether it came. An interrupt that came before the call counts; none is lost.
    ///
    /// # Errors
    /// When the device, or whoever delivers its interrupts, is gone.
    fn wait(&mut self, timeout: Duration) -> Result<bool, RegisterError>;

    /// A descriptor that becomes readable with the interrupt, to wait for several things at once; not every bus has one (the rig's MSI-X is a
    /// word in memory).
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
}

/// How long one of several interrupts without a descriptor is waited for before it is the next one's turn.
const TURN: Duration = Duration::from_millis(1);

/// Waits for any of several interrupts, at most `timeout`. Returns whether one came.
///
/// # Errors
/// As [`Interrupt::wait`].
pub fn wait_any(interrupts: &mut [Box<dyn Interrupt>], timeout: Duration) -> Result<bool, RegisterError> {
    if let [one] = interrupts {
        return one.wait(timeout);
    }
    // One that came already, and it has to be taken from all of them: the next wait is for new ones.
    let mut came = false;
    for interrupt in interrupts.iter_mut() {
        came |= interrupt.wait(Duration::ZERO)?;
    }
    if came || interrupts.is_empty() {
        return Ok(came);
    }
    if let Some(descriptors) = interrupts.iter().map(|interrupt| interrupt.descriptor()).collect::<Option<Vec<_>>>() {
        let mut polled: Vec<PollFd<'_>> = descriptors.iter().map(|descriptor| PollFd::new(descriptor, PollFlags::IN)).collect();
        let timeout = Timespec::try_from(timeout).ok();
        match poll(&mut polled, timeout.as_ref()) {
            // A signal is no interrupt; the caller looks at the clock.
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(RegisterError::Unreachable(format!("poll: {error}"))),
        }
        drop(polled);
        for interrupt in interrupts.iter_mut() {
            came |= interrupt.wait(Duration::ZERO)?;
        }
        return Ok(came);
    }
    let start = Instant::now();
    while !came && start.elapsed() < timeout {
        for interrupt in interrupts.iter_mut() {
            came |= interrupt.wait(if came { Duration::ZERO } else { TURN.min(timeout.saturating_sub(start.elapsed())) })?;
        }
    }
    Ok(came)
}
