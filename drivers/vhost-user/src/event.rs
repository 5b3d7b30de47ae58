//! Doorbells and interrupts: eventfds.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use hal::interrupt::take_event;
use hal::{Doorbell, Interrupt, RegisterError};
use rustix::event::{EventfdFlags, eventfd};
use vmm_sys_util::eventfd::EventFd;

/// An event of a queue: its doorbell or its interrupt.
pub struct Event(Arc<OwnedFd>);

impl Event {
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?)))
    }

    /// As the protocol crate wants it.
    pub fn to_send(&self) -> io::Result<EventFd> {
        let descriptor = self.0.try_clone()?.into_raw_fd();
        // SAFETY: the descriptor is an eventfd that was duplicated just now; nobody else owns it.
        Ok(unsafe { EventFd::from_raw_fd(descriptor) })
    }

    pub fn doorbell(&self) -> io::Result<Doorbell> {
        Ok(Doorbell::event(self.0.try_clone()?))
    }

    pub fn interrupt(&self) -> Box<dyn Interrupt> {
        Box::new(EventInterrupt(Arc::clone(&self.0)))
    }
}

struct EventInterrupt(Arc<OwnedFd>);

impl Interrupt for EventInterrupt {
    fn wait(&mut self, timeout: Duration) -> Result<bool, RegisterError> {
        take_event(self.0.as_fd(), timeout).map_err(|error| RegisterError::Unreachable(format!("waiting for a back end: {error}")))
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}
