//! The device as a driver holds it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hal::registers::{RegisterIo, Width};
use hal::{BusDevice, BusError, DmaSpace, Interrupt, PciIdentity, RegisterError, Registers};

use super::fault::Fault;
use super::interrupt::IntX;
use super::registers::SPACE;
use super::state::State;
use crate::model::space::Space;

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An opened device. Dropping it stops the device's access to memory.
pub(super) struct Device {
    state: Arc<Mutex<State>>,
    space: Arc<Space>,
}

impl Device {
    pub(super) fn new(state: Arc<Mutex<State>>, space: Arc<Space>) -> Self {
        Self { state, space }
    }

    /// The state, unless nobody answers for the device.
    fn reach(&self) -> Result<MutexGuard<'_, State>, BusError> {
        let state = lock(&self.state);
        match &state.fault {
            Fault::Unreachable(reason) => Err(RegisterError::Unreachable(reason.clone()).into()),
            _ => Ok(state),
        }
    }
}

impl BusDevice for Device {
    fn address(&self) -> &str {
        "model:e1000"
    }

    fn identity(&self) -> PciIdentity {
        PciIdentity { vendor: 0x8086, device: 0x100e, class: 0x02_0000, revision: 2 }
    }

    fn config_read(&self, offset: u16, width: Width) -> Result<u32, BusError> {
        let state = self.reach()?;
        if state.fault == Fault::Vanished {
            return Ok(ones(width) as u32);
        }
        Ok(state.config.read(offset, width))
    }

    fn config_write(&self, offset: u16, width: Width, value: u32) -> Result<(), BusError> {
        let mut state = self.reach()?;
        if state.fault != Fault::Vanished {
            state.config.write(offset, width, value);
        }
        Ok(())
    }

    fn bar(&mut self, index: u8) -> Result<Registers, BusError> {
        match index {
            0 => Ok(Registers::remote(Arc::new(Io(Arc::clone(&self.state))), SPACE)),
            other => Err(BusError::NoBar(other)),
        }
    }

    fn set_bus_master(&mut self, on: bool) -> Result<(), BusError> {
        let mut state = self.reach()?;
        if state.fault != Fault::Vanished {
            state.config.set_bus_master(on);
        }
        Ok(())
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        self.space.clone()
    }

    fn interrupt(&mut self, vector: u16) -> Result<Box<dyn Interrupt>, BusError> {
        match vector {
            0 => Ok(Box::new(IntX(Arc::clone(&self.state)))),
            _ => Err(BusError::NoInterrupt { vector, reason: "the 82540EM has INTA# alone".to_owned() }),
        }
    }

    fn reset(&mut self) -> Result<(), BusError> {
        let mut state = self.reach()?;
        if state.fault == Fault::Vanished {
            return Err(BusError::Reset("nothing answers".to_owned()));
        }
        state.reset_function();
        Ok(())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        lock(&self.state).config.set_bus_master(false);
    }
}

/// BAR 0.
struct Io(Arc<Mutex<State>>);

impl Io {
    /// Counts the access, and says whether it reaches the device.
    fn reach(&self) -> Result<Option<MutexGuard<'_, State>>, RegisterError> {
        let mut state = lock(&self.0);
        match &mut state.fault {
            Fault::VanishedAfter(0) => state.fault = Fault::Vanished,
            Fault::UnreachableAfter(0, reason) => state.fault = Fault::Unreachable(std::mem::take(reason)),
            Fault::VanishedAfter(left) | Fault::UnreachableAfter(left, _) => *left -= 1,
            _ => {}
        }
        match &state.fault {
            Fault::Unreachable(reason) => Err(RegisterError::Unreachable(reason.clone())),
            Fault::Vanished => Ok(None),
            _ if !state.config.memory_enabled() => {
                state.violation("a register was accessed while the PCI command register had memory accesses off [4.1]");
                Ok(None)
            }
            _ => Ok(Some(state)),
        }
    }
}

impl RegisterIo for Io {
    fn read(&self, offset: u64, width: Width) -> Result<u64, RegisterError> {
        let Some(mut state) = self.reach()? else { return Ok(ones(width)) };
        if width != Width::Double {
            state.violation(format!("a register was read {} bytes wide instead of 4 [13.2]", width as u64));
        }
        let value = u64::from(state.read_register(offset & !3)) >> ((offset & 3) * 8);
        Ok(value & ones(width))
    }

    fn write(&self, offset: u64, width: Width, value: u64) -> Result<(), RegisterError> {
        let Some(mut state) = self.reach()? else { return Ok(()) };
        if width != Width::Double {
            state.violation(format!("a register was written {} bytes wide instead of 4 [13.2]", width as u64));
            return Ok(());
        }
        state.write_register(offset, value as u32);
        Ok(())
    }
}

fn ones(width: Width) -> u64 {
    u64::MAX >> (64 - 8 * width as u32)
}
