//! Interrupts by eventfd: MSI-X, MSI and INTx.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hal::interrupt::take_event;
use hal::{Interrupt, RegisterError};
use rustix::event::{EventfdFlags, eventfd};
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_ACTION_UNMASK, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE, VFIO_PCI_INTX_IRQ_INDEX,
    VFIO_PCI_MSI_IRQ_INDEX, VFIO_PCI_MSIX_IRQ_INDEX,
};

use crate::container::request;
use crate::region::OpenDevice;

const DEVICE_SET_IRQS: std::ffi::c_ulong = request(10);

/// Vectors that are enabled at once: kernels before 6.4 cannot add any later without a moment in which interrupts are lost.
const MOST_VECTORS: u32 = 64;

/// How a device interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterruptKind {
    /// Messages, a vector each.
    Msix,
    /// Messages; one vector is used.
    Msi,
    /// A level, masked by the kernel at each interrupt until it is unmasked.
    Intx,
}

impl InterruptKind {
    fn index(self) -> u32 {
        match self {
            Self::Msix => VFIO_PCI_MSIX_IRQ_INDEX,
            Self::Msi => VFIO_PCI_MSI_IRQ_INDEX,
            Self::Intx => VFIO_PCI_INTX_IRQ_INDEX,
        }
    }
}

/// The enabled interrupts of a device.
pub(crate) struct Interrupts {
    pub(crate) kind: InterruptKind,
    device: Arc<OpenDevice>,
    vectors: Vec<Arc<Vector>>,
}

struct Vector {
    event: OwnedFd,
    /// INTx: it came, so the kernel has masked it.
    masked: AtomicBool,
}

impl Interrupts {
    /// Enables the best kind that the device has, all vectors at once.
    pub(crate) fn enable(device: &Arc<OpenDevice>) -> io::Result<Self> {
        for kind in [InterruptKind::Msix, InterruptKind::Msi, InterruptKind::Intx] {
            let count = device.handle.interrupts(kind.index());
            let mut wanted = if kind == InterruptKind::Msix { count.min(MOST_VECTORS) } else { count.min(1) };
            while wanted > 0 {
                let vectors = (0..wanted).map(|_| {
                    let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
                    Ok(Arc::new(Vector { event, masked: AtomicBool::new(false) }))
                });
                let vectors: Vec<Arc<Vector>> = vectors.collect::<io::Result<_>>()?;
                let events: Vec<i32> = vectors.iter().map(|vector| vector.event.as_raw_fd()).collect();
                match signal_by(device, kind.index(), &events)? {
                    0 => return Ok(Self { kind, device: Arc::clone(device), vectors }),
                    // None was enabled; there are so many. (vfio-ioctls takes this for success.)
                    fewer => wanted = fewer.min(wanted - 1),
                }
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the device has neither MSI-X nor MSI, and its INTx pin leads nowhere; poll its rings",
        ))
    }

    /// How many vectors there are.
    pub(crate) fn count(&self) -> usize {
        self.vectors.len()
    }

    /// Vector `index`. All that ask for the same one share its events.
    pub(crate) fn vector(&self, index: u16) -> Option<VfioInterrupt> {
        let vector = self.vectors.get(usize::from(index)).map(Arc::clone)?;
        Some(VfioInterrupt { device: Arc::clone(&self.device), vector, level: self.kind == InterruptKind::Intx })
    }

    /// Has the kernel signal a vector as if the device had: tells a wrong event from a silent device.
    pub(crate) fn trigger(&self, index: u16) -> io::Result<()> {
        set(&self.device, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, self.kind.index(), index.into(), 1, &[]).map(drop)
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        // A failure leaves the events with a device that is about to be closed, which ends them.
        let _ = set(&self.device, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, self.kind.index(), 0, 0, &[]);
    }
}

/// Has the kernel signal these events for the interrupts of kind `index`, from the first on. Returns 0, or how many there are when there are
/// fewer.
pub(crate) fn signal_by(device: &OpenDevice, index: u32, events: &[i32]) -> io::Result<u32> {
    set(device, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, index, 0, events.len() as u32, events)
}

/// `VFIO_DEVICE_SET_IRQS`. Returns 0, or how many vectors there are when there are fewer than asked for.
fn set(device: &OpenDevice, flags: u32, index: u32, start: u32, count: u32, events: &[i32]) -> io::Result<u32> {
    // struct vfio_irq_set: argsz, flags, index, start, count, and the descriptors.
    let mut words: Vec<u32> = vec![0, flags, index, start, count];
    words.extend(events.iter().map(|event| *event as u32));
    words[0] = size_of_val(words.as_slice()) as u32;
    // SAFETY: `words` has the bytes that its first field names; the kernel only reads them.
    match unsafe { libc::ioctl(device.fd().as_raw_fd(), DEVICE_SET_IRQS, words.as_ptr()) } {
        result @ 0.. => Ok(result as u32),
        _ => Err(io::Error::last_os_error()),
    }
}

/// One vector of a device.
pub(crate) struct VfioInterrupt {
    device: Arc<OpenDevice>,
    vector: Arc<Vector>,
    level: bool,
}

impl VfioInterrupt {
    /// INTx is masked from the interrupt that was taken to the next wait: in between the driver reads the cause, which ends the level.
    /// Unmasked any earlier, it would come once more for nothing.
    fn unmask(&self) -> io::Result<()> {
        if self.level && self.vector.masked.swap(false, Ordering::AcqRel) {
            let flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK;
            set(&self.device, flags, VFIO_PCI_INTX_IRQ_INDEX, 0, 1, &[])
                .inspect_err(|_| self.vector.masked.store(true, Ordering::Release))?;
        }
        Ok(())
    }
}

impl Interrupt for VfioInterrupt {
    fn wait(&mut self, timeout: Duration) -> Result<bool, RegisterError> {
        let gone = |what: &str, error: io::Error| RegisterError::Unreachable(format!("{what}: {error}"));
        self.unmask().map_err(|error| gone("unmasking INTx", error))?;
        let came = take_event(self.vector.event.as_fd(), timeout).map_err(|error| gone("waiting for an interrupt", error))?;
        if came {
            self.vector.masked.store(true, Ordering::Release);
        }
        Ok(came)
    }

    /// Unmasks INTx, so ask for it anew after each [`wait`](Interrupt::wait) (which the borrow makes sure of).
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        // An error shows at the next wait, which tries again.
        let _ = self.unmask();
        Some(self.vector.event.as_fd())
    }
}
