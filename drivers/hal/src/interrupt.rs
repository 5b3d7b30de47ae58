//! Waiting for a device.

use std::io;
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

/// Waits until the counter of an eventfd (non-blocking) is not 0 and takes it: several events are one, none is lost. Returns whether there was one.
///
/// # Errors
/// What the system says.
pub fn take_event(event: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let start = Instant::now();
    loop {
        let mut count = [0; 8];
        match rustix::io::read(event, &mut count) {
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let left = timeout.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        // Longer than 64 bits of seconds is for ever.
        let left = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::from_borrowed_fd(event, PollFlags::IN)], left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
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
    let descriptors = interrupts.iter().map(|interrupt| interrupt.descriptor().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    if let Some(mut polled) = descriptors.collect::<Option<Vec<_>>>() {
        let timeout = Timespec::try_from(timeout).ok();
        match poll(&mut polled, timeout.as_ref()) {
            // A signal is no interrupt; the caller looks at the clock.
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(RegisterError::Unreachable(format!("poll: {error}"))),
        }
        let ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        drop(polled);
        // It has to be taken from all that it came from: the next wait is for new ones.
        let mut came = false;
        for (interrupt, _) in interrupts.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            came |= interrupt.wait(Duration::ZERO)?;
        }
        return Ok(came);
    }
    let mut came = false;
    for interrupt in interrupts.iter_mut() {
        came |= interrupt.wait(Duration::ZERO)?;
    }
    let start = Instant::now();
    while !came && start.elapsed() < timeout {
        for interrupt in interrupts.iter_mut() {
            came |= interrupt.wait(if came { Duration::ZERO } else { TURN.min(timeout.saturating_sub(start.elapsed())) })?;
        }
    }
    Ok(came)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    #[test]
    fn an_event_before_the_wait_counts_and_several_are_one() {
        let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        assert!(!take_event(event.as_fd(), Duration::ZERO).unwrap());
        rustix::io::write(&event, &1_u64.to_ne_bytes()).unwrap();
        rustix::io::write(&event, &1_u64.to_ne_bytes()).unwrap();
        assert!(take_event(event.as_fd(), Duration::ZERO).unwrap());
        let start = Instant::now();
        assert!(!take_event(event.as_fd(), Duration::from_millis(20)).unwrap());
        assert!(start.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn an_event_during_the_wait_ends_it() {
        let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(10));
                rustix::io::write(&event, &1_u64.to_ne_bytes()).unwrap();
            });
            assert!(take_event(event.as_fd(), Duration::MAX).unwrap());
        });
    }
}
