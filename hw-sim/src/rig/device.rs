//! The rig's NIC as a device on a bus.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hal::registers::{RegisterIo, Width};
use hal::{BusDevice, BusError, DmaSpace, Interrupt, PciIdentity, RegisterError, Registers};

use super::interrupt::Intx;
use super::machine::Machine;
use super::pci::{self, Bar};
use super::qtest::Place;

/// The device, open.
pub(crate) struct Device(Arc<Machine>);

impl Device {
    /// Opens the machine's device; `None` when it is open already.
    pub(crate) fn open(machine: &Arc<Machine>) -> Option<Self> {
        let was_open = machine.open.swap(true, Ordering::AcqRel);
        (!was_open).then(|| Self(Arc::clone(machine)))
    }

    fn check(offset: u16, width: Width) -> Result<(), RegisterError> {
        let (offset, bytes) = (u64::from(offset), width as u64);
        // Port 0xcfc takes accesses of at most 4 bytes.
        if bytes <= 4 && offset.is_multiple_of(bytes) && offset + bytes <= u64::from(pci::CONFIG_LEN) {
            Ok(())
        } else {
            Err(RegisterError::OutOfRange { offset, bytes, len: u64::from(pci::CONFIG_LEN) })
        }
    }
}

impl BusDevice for Device {
    fn address(&self) -> &str {
        &self.0.address
    }

    fn identity(&self) -> PciIdentity {
        self.0.function.identity
    }

    fn config_read(&self, offset: u16, width: Width) -> Result<u32, BusError> {
        Self::check(offset, width)?;
        Ok(self.0.with_qtest(|qtest| pci::config_read(qtest, offset, width))?)
    }

    fn config_write(&self, offset: u16, width: Width, value: u32) -> Result<(), BusError> {
        Self::check(offset, width)?;
        Ok(self.0.with_qtest(|qtest| pci::config_write(qtest, offset, width, value))?)
    }

    fn bar(&mut self, index: u8) -> Result<Registers, BusError> {
        let bar = self.0.function.bars.get(usize::from(index)).copied().flatten().ok_or(BusError::NoBar(index))?;
        Ok(Registers::remote(Arc::new(BarRegisters { machine: Arc::clone(&self.0), bar }), bar.len))
    }

    fn set_bus_master(&mut self, on: bool) -> Result<(), BusError> {
        self.0.with_qtest(|qtest| {
            let command = pci::config_read(qtest, pci::COMMAND, Width::Word)?;
            let wanted = if on { command | pci::COMMAND_BUS_MASTER } else { command & !pci::COMMAND_BUS_MASTER };
            pci::config_write(qtest, pci::COMMAND, Width::Word, wanted)
        })?;
        Ok(())
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        Arc::clone(&self.0) as Arc<dyn DmaSpace>
    }

    fn interrupt(&mut self, vector: u16) -> Result<Box<dyn Interrupt>, BusError> {
        if vector != 0 {
            return Err(no_interrupt(vector, "the rig delivers INTx alone, which is vector 0; poll the rings of other queues"));
        }
        let Some(input) = self.0.function.interrupt else {
            return Err(no_interrupt(vector, "the device has no INTx pin"));
        };
        let failed = |error: std::io::Error| no_interrupt(vector, &error.to_string());
        let (socket, raised) = self.0.with_qtest(|qtest| Ok((qtest.socket(), qtest.watch_interrupt(input))))?;
        Ok(Box::new(Intx { machine: Arc::clone(&self.0), socket: socket.map_err(failed)?, raised: raised.map_err(failed)? }))
    }

    fn reset(&mut self) -> Result<(), BusError> {
        Err(BusError::Reset(format!(
            "the rig's {} has no function-level reset: use the reset bit among the device's own registers",
            self.0.model
        )))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // When it fails QEMU is gone, and with it all access to memory.
        let _ = self.set_bus_master(false);
        self.0.open.store(false, Ordering::Release);
    }
}

fn no_interrupt(vector: u16, reason: &str) -> BusError {
    BusError::NoInterrupt { vector, reason: reason.to_owned() }
}

/// One BAR, reached by messages.
struct BarRegisters {
    machine: Arc<Machine>,
    bar: Bar,
}

impl BarRegisters {
    fn place(&self, offset: u64, width: Width) -> Result<Place, RegisterError> {
        let bytes = width as u64;
        let out_of_range = RegisterError::OutOfRange { offset, bytes, len: self.bar.len };
        if offset.checked_add(bytes).is_none_or(|end| end > self.bar.len) {
            return Err(out_of_range);
        }
        match self.bar.start {
            Place::Memory(start) => Ok(Place::Memory(start + offset)),
            // x86 has no 8-byte access to ports.
            Place::Port(_) if width == Width::Quad => Err(out_of_range),
            Place::Port(start) => Ok(Place::Port(start + offset as u16)),
        }
    }
}

impl RegisterIo for BarRegisters {
    fn read(&self, offset: u64, width: Width) -> Result<u64, RegisterError> {
        self.machine.read(self.place(offset, width)?, width)
    }

    fn write(&self, offset: u64, width: Width, value: u64) -> Result<(), RegisterError> {
        self.machine.write(self.place(offset, width)?, width, value)
    }
}
