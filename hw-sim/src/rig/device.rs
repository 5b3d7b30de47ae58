//! The rig's NIC as a device on a bus.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hal::registers::{RegisterIo, Width};
use hal::{BusDevice, BusError, DmaSpace, Interrupt, PciIdentity, RegisterError, Registers};

use super::interrupt::Intx;
use super::machine::Machine;
use super::msix::Msix;
use super::pci::{self, Bar};
use super::qtest::Place;

/// The device, open.
pub(crate) struct Device {
    machine: Arc<Machine>,
    /// Once an interrupt was asked for, where it is MSI-X. The device writes to its memory until it may not master the bus any more.
    msix: Option<Msix>,
}

impl Device {
    /// Opens the machine's device; `None` when it is open already.
    pub(crate) fn open(machine: &Arc<Machine>) -> Option<Self> {
        let was_open = machine.open.swap(true, Ordering::AcqRel);
        (!was_open).then(|| Self { machine: Arc::clone(machine), msix: None })
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
        &self.machine.address
    }

    fn identity(&self) -> PciIdentity {
        self.machine.function.identity
    }

    fn config_read(&self, offset: u16, width: Width) -> Result<u32, BusError> {
        Self::check(offset, width)?;
        Ok(self.machine.with_qtest(|qtest| pci::config_read(qtest, offset, width))?)
    }

    fn config_write(&self, offset: u16, width: Width, value: u32) -> Result<(), BusError> {
        Self::check(offset, width)?;
        Ok(self.machine.with_qtest(|qtest| pci::config_write(qtest, offset, width, value))?)
    }

    fn bar(&mut self, index: u8) -> Result<Registers, BusError> {
        let bar = self.machine.function.bars.get(usize::from(index)).copied().flatten().ok_or(BusError::NoBar(index))?;
        Ok(Registers::remote(Arc::new(BarRegisters { machine: Arc::clone(&self.machine), bar }), bar.len))
    }

    fn set_bus_master(&mut self, on: bool) -> Result<(), BusError> {
        self.machine.with_qtest(|qtest| {
            let command = pci::config_read(qtest, pci::COMMAND, Width::Word)?;
            let wanted = if on { command | pci::COMMAND_BUS_MASTER } else { command & !pci::COMMAND_BUS_MASTER };
            pci::config_write(qtest, pci::COMMAND, Width::Word, wanted)
        })?;
        Ok(())
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        Arc::clone(&self.machine) as Arc<dyn DmaSpace>
    }

    fn interrupt(&mut self, vector: u16) -> Result<Box<dyn Interrupt>, BusError> {
        if self.machine.msix {
            let msix = match self.msix.take() {
                Some(msix) => msix,
                None => Msix::enable(&self.machine)?,
            };
            return self.msix.insert(msix).vector(vector);
        }
        if vector != 0 {
            return Err(no_interrupt(
                vector,
                "this rig delivers INTx, which is vector 0 alone; poll the rings of other queues, or set msix",
            ));
        }
        let Some(input) = self.machine.function.interrupt else {
            return Err(no_interrupt(vector, "the device has no INTx pin"));
        };
        let failed = |error: std::io::Error| no_interrupt(vector, &error.to_string());
        let (socket, raised) = self.machine.with_qtest(|qtest| Ok((qtest.socket(), qtest.watch_interrupt(input))))?;
        Ok(Box::new(Intx { machine: Arc::clone(&self.machine), socket: socket.map_err(failed)?, raised: raised.map_err(failed)? }))
    }

    fn reset(&mut self) -> Result<(), BusError> {
        Err(BusError::Reset(format!(
            "the rig's {} has no function-level reset: use the reset bit among the device's own registers",
            self.machine.model
        )))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // When it fails QEMU is gone, and with it all access to memory.
        let _ = self.set_bus_master(false);
        self.machine.open.store(false, Ordering::Release);
    }
}

pub(crate) fn no_interrupt(vector: u16, reason: &str) -> BusError {
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
