//! Waiting for a device.

use std::os::fd::BorrowedFd;
use std::time::Duration;

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
