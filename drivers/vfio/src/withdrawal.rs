//! Whether the kernel wants the device back.
//!
//! A device that is removed, or unbound from vfio-pci, stays in the hands of the process that has it open: the kernel signals an event
//! and waits, for as long as it takes. A thread of ours waits for the event, so that nobody has to ask the kernel in a loop that sends.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use vfio_bindings::bindings::vfio::VFIO_PCI_REQ_IRQ_INDEX;

use crate::interrupt::signal_by;
use crate::region::OpenDevice;

/// Watches for the kernel's request until it is dropped.
pub(crate) struct Withdrawal {
    pub(crate) wanted: Arc<AtomicBool>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Withdrawal {
    /// `None` when this kernel does not ask (before 3.17), or there is no thread to be had: the device works without.
    pub(crate) fn watch(device: &OpenDevice) -> Option<Self> {
        if device.handle.interrupts(VFIO_PCI_REQ_IRQ_INDEX) == 0 {
            return None;
        }
        let event = || eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
        let (request, stop) = (event().ok()?, Arc::new(event().ok()?));
        if signal_by(device, VFIO_PCI_REQ_IRQ_INDEX, &[request.as_raw_fd()]).ok()? != 0 {
            return None;
        }
        let wanted = Arc::new(AtomicBool::new(false));
        let (flag, ended) = (Arc::clone(&wanted), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("vfio-withdrawal".into());
        let thread = thread.spawn(move || {
            if wait(&request, &ended).unwrap_or(false) {
                flag.store(true, Ordering::Relaxed);
            }
        });
        Some(Self { wanted, stop, thread: Some(thread.ok()?) })
    }
}

/// Whether `request` is signalled, before `stop` is.
fn wait(request: &OwnedFd, stop: &OwnedFd) -> io::Result<bool> {
    let mut events = [PollFd::from_borrowed_fd(request.as_fd(), PollFlags::IN), PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN)];
    loop {
        match poll(&mut events, None) {
            Ok(_) => return Ok(events[1].revents().is_empty()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        // A thread that cannot be told stays behind; it does no harm.
        if rustix::io::write(&*self.stop, &1_u64.to_ne_bytes()).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_seen_and_the_end_is_none() {
        let event = || eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let (request, stop) = (event(), event());
        rustix::io::write(&request, &1_u64.to_ne_bytes()).unwrap();
        assert!(wait(&request, &stop).unwrap());
        rustix::io::write(&stop, &1_u64.to_ne_bytes()).unwrap();
        assert!(!wait(&request, &stop).unwrap());
    }
}
