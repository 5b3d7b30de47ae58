//! Interrupt causes and their mask (13.4.17 to 13.4.21), and INTA# as a driver waits for it.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hal::{Interrupt, RegisterError};

use super::fault::Fault;
use super::registers::{Cause, ICR, IMS};
use super::state::State;

/// The causes that exist on the 82540EM.
const CAUSES: u32 = 0x0001_ffff;

impl State {
    pub(super) fn raise(&mut self, causes: Cause) {
        if self.fault != Fault::InterruptLost {
            self.registers.set(ICR, self.registers.get(ICR) | causes.bits() & CAUSES);
        }
    }

    /// Reading ICR acknowledges all causes, writing ones those that are written.
    pub(super) fn read_icr(&mut self) -> u32 {
        let causes = self.registers.get(ICR);
        self.acknowledge(u32::MAX);
        causes
    }

    pub(super) fn acknowledge(&mut self, causes: u32) {
        if self.fault != Fault::InterruptStorm {
            self.registers.set(ICR, self.registers.get(ICR) & !causes);
        }
    }

    fn interrupt_pending(&self) -> bool {
        self.registers.get(ICR) & self.registers.get(IMS) != 0
    }
}

/// INTA# is a level: it is there as long as an unmasked cause is.
pub(super) struct IntX(pub Arc<Mutex<State>>);

impl Interrupt for IntX {
    /// Returns at once: nothing in this process would make the device go on during a wait.
    fn wait(&mut self, _timeout: Duration) -> Result<bool, RegisterError> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.fault {
            Fault::Unreachable(reason) => Err(RegisterError::Unreachable(reason.clone())),
            Fault::Vanished => Ok(false),
            _ => Ok(state.interrupt_pending()),
        }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
