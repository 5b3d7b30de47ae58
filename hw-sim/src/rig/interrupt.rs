//! INTx: the level of the NIC's input at the intercepted interrupt controller.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hal::{Interrupt, RegisterError};

use super::machine::Machine;
use super::timeout::wait_readable;

/// The level of INTx. It is high until the driver has read the device's cause register, so none is lost between two waits.
pub(crate) struct Intx {
    pub(crate) machine: Arc<Machine>,
    /// Lines arrive here. They are read by whoever holds the machine's lock: here, or a register access that waits for its reply.
    pub(crate) socket: OwnedFd,
    /// Readable while the level is high: wakes this waiter when another thread has read the line.
    pub(crate) raised: OwnedFd,
}

impl Interrupt for Intx {
    fn wait(&mut self, timeout: Duration) -> Result<bool, RegisterError> {
        let now = Instant::now();
        // Longer than a year is for ever.
        let deadline = now.checked_add(timeout).unwrap_or(now + Duration::from_secs(365 * 86_400));
        loop {
            // The lock is not held while waiting, so other threads reach the device meanwhile.
            let high = self.machine.with_qtest(|qtest| qtest.take_in().map(|()| qtest.interrupt_is_high()))?;
            if high || Instant::now() >= deadline {
                return Ok(high);
            }
            wait_readable(&[self.socket.as_fd(), self.raised.as_fd()], deadline);
        }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        // The level is only known after lines have been read, so there is nothing that becomes readable by itself.
        None
    }
}
