//! The one write that tells a device about new descriptors.
#![allow(unsafe_code)]

use std::os::fd::OwnedFd;
use std::sync::Arc;

use volatile::VolatilePtr;

use crate::registers::{RegisterAccess, RegisterError, RegisterIo, Registers, Width};

/// A queue's doorbell: a word in a BAR, a message, or an eventfd. Owned by the queue that rings it.
pub struct Doorbell(Kind);

enum Kind {
    /// Checked when it was made, so that ringing is one store.
    Mapped {
        registers: Registers,
        offset: u64,
        width: Width,
    },
    Remote {
        io: Arc<dyn RegisterIo>,
        offset: u64,
        width: Width,
    },
    Event(OwnedFd),
}

impl Doorbell {
    /// The register at `offset` bytes as a doorbell of 16 or 32 bits.
    ///
    /// # Errors
    /// [`RegisterError::OutOfRange`] when the register is not inside the region, or the width is neither [`Width::Word`] nor [`Width::Double`].
    pub fn register(registers: &Registers, offset: u64, width: Width) -> Result<Self, RegisterError> {
        registers.check(offset, width)?;
        if !matches!(width, Width::Word | Width::Double) {
            return Err(RegisterError::OutOfRange { offset, bytes: width as u64, len: registers.len() });
        }
        Ok(Self(match &registers.access {
            RegisterAccess::Mapped(_) => Kind::Mapped { registers: registers.clone(), offset, width },
            RegisterAccess::Remote(io) => Kind::Remote { io: Arc::clone(io), offset, width },
        }))
    }

    /// An eventfd as a doorbell (vhost-user): the value is not transferred, only the event.
    pub fn event(event: OwnedFd) -> Self {
        Self(Kind::Event(event))
    }

    /// Rings with `value` (a tail index or a queue number). The caller has put a [write barrier](crate::barrier::write) before it.
    ///
    /// # Errors
    /// [`RegisterError::Unreachable`] when the device is gone. A mapped doorbell never fails.
    #[inline]
    pub fn ring(&self, value: u32) -> Result<(), RegisterError> {
        match &self.0 {
            Kind::Mapped { registers, offset, width } => {
                let RegisterAccess::Mapped(region) = &registers.access else { unreachable!("made from mapped registers") };
                // SAFETY: `register` checked the offset and its alignment; the region is mapped as long as `registers`.
                let word = unsafe { region.base.add(*offset as usize) };
                match width {
                    // SAFETY: as above; two bytes were checked.
                    Width::Word => unsafe { VolatilePtr::new(word.cast::<u16>()) }.write(value as u16),
                    // SAFETY: as above; four bytes were checked.
                    _ => unsafe { VolatilePtr::new(word.cast::<u32>()) }.write(value),
                }
                Ok(())
            }
            Kind::Remote { io, offset, width } => io.write(*offset, *width, u64::from(value)),
            Kind::Event(event) => match rustix::io::write(event, &1u64.to_ne_bytes()) {
                Ok(_) => Ok(()),
                // The counter is at its maximum: the event is pending, which is all that a doorbell says.
                Err(rustix::io::Errno::AGAIN) => Ok(()),
                Err(error) => Err(RegisterError::Unreachable(format!("eventfd: {error}"))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_doorbell_writes_the_register() {
        let registers = Registers::in_memory(4096).unwrap();
        Doorbell::register(&registers, 0x38, Width::Double).unwrap().ring(0x1_2345).unwrap();
        assert_eq!(registers.read::<u32>(0x38).unwrap(), 0x1_2345);
        Doorbell::register(&registers, 0x42, Width::Word).unwrap().ring(7).unwrap();
        assert_eq!(registers.read::<u32>(0x40).unwrap(), 7 << 16);
    }

    #[test]
    fn a_doorbell_outside_the_region_is_refused() {
        let registers = Registers::in_memory(4096).unwrap();
        assert!(Doorbell::register(&registers, 4096, Width::Double).is_err());
        assert!(Doorbell::register(&registers, 2, Width::Double).is_err());
        assert!(Doorbell::register(&registers, 0, Width::Byte).is_err());
    }

    #[test]
    fn an_eventfd_doorbell_signals_the_event() {
        let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
        let doorbell = Doorbell::event(event.try_clone().unwrap());
        doorbell.ring(9).unwrap();
        doorbell.ring(9).unwrap();
        let mut count = [0; 8];
        rustix::io::read(&event, &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 2);
    }
}
