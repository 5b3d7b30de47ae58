//! MSI-X with no processor to interrupt: the message of a vector is a store, and goes to a word in memory, which is looked at.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use hal::bus::capability;
use hal::registers::Width;
use hal::{BusError, DmaMemory, DmaSpace, Interrupt, RegisterError};

use super::device::no_interrupt;
use super::machine::Machine;
use super::pci;
use super::qtest::Place;

/// The capability, its registers, and an entry of the table (PCI Local Bus 3.0, 6.8.2).
const KIND: u8 = 0x11;
const CONTROL: u16 = 2;
const TABLE: u16 = 4;
const TABLE_SIZE: u32 = 0x7ff;
const ENABLE: u32 = 1 << 15;
const FUNCTION_MASK: u32 = 1 << 14;
const BAR_INDICATOR: u32 = 7;
const ENTRY: u64 = 16;

/// What a message stores.
const COME: u32 = 1;

/// Between two looks at a word, and two looks whether QEMU is still there.
const LOOK: Duration = Duration::from_micros(50);
const ALIVE: Duration = Duration::from_millis(100);

/// The vectors of a device that interrupts so.
pub(crate) struct Msix {
    machine: Arc<Machine>,
    table: u64,
    vectors: u16,
    /// A word for each vector.
    words: Arc<DmaMemory>,
}

impl Msix {
    /// Switches it on. Messages come from then on that the device may master the bus.
    pub(crate) fn enable(machine: &Arc<Machine>) -> Result<Self, BusError> {
        let none = |reason: &str| no_interrupt(0, reason);
        let read = |offset, width| machine.with_qtest(|qtest| pci::config_read(qtest, offset, width));
        let capability = capability(read, KIND)?.ok_or_else(|| none("the device has no MSI-X; leave out msix=on"))?;
        let (control, table) = (read(capability + CONTROL, Width::Word)?, read(capability + TABLE, Width::Double)?);
        let vectors = (control & TABLE_SIZE) as u16 + 1;
        let bar = machine.function.bars.get((table & BAR_INDICATOR) as usize).copied().flatten();
        let (bar, offset) = (bar.ok_or(BusError::NoBar((table & BAR_INDICATOR) as u8))?, u64::from(table & !BAR_INDICATOR));
        let table = match bar.start {
            Place::Memory(start) if offset + ENTRY * u64::from(vectors) <= bar.len => start + offset,
            _ => return Err(none("its MSI-X table does not lie in its BAR")),
        };
        let space = Arc::clone(machine) as Arc<dyn DmaSpace>;
        let words = Arc::new(DmaMemory::new(&space, "msix", usize::from(vectors) * size_of::<u32>())?);
        let enabled = control & !FUNCTION_MASK | ENABLE;
        machine.with_qtest(|qtest| pci::config_write(qtest, capability + CONTROL, Width::Word, enabled))?;
        Ok(Self { machine: Arc::clone(machine), table, vectors, words })
    }

    /// The interrupt of a vector, which is unmasked.
    pub(crate) fn vector(&self, vector: u16) -> Result<Box<dyn Interrupt>, BusError> {
        if vector >= self.vectors {
            return Err(no_interrupt(vector, &format!("the device has {} MSI-X vectors", self.vectors)));
        }
        let (entry, word) = (self.table + ENTRY * u64::from(vector), usize::from(vector) * size_of::<u32>());
        let address = self.words.iova() + word as u64;
        // Address, data, and no mask.
        for (place, value) in [(0, address & u64::from(u32::MAX)), (4, address >> 32), (8, u64::from(COME)), (12, 0)] {
            self.machine.write(Place::Memory(entry + place), Width::Double, value)?;
        }
        Ok(Box::new(Message { machine: Arc::clone(&self.machine), words: Arc::clone(&self.words), word }))
    }
}

/// One vector. What comes between two waits stays in the word.
struct Message {
    machine: Arc<Machine>,
    words: Arc<DmaMemory>,
    word: usize,
}

impl Interrupt for Message {
    fn wait(&mut self, timeout: Duration) -> Result<bool, RegisterError> {
        let start = Instant::now();
        let mut alive = Duration::ZERO;
        loop {
            if self.words.memory().atomic_u32(self.word).swap(0, Ordering::Acquire) != 0 {
                return Ok(true);
            }
            let waited = start.elapsed();
            if waited >= timeout {
                return Ok(false);
            }
            if waited - alive >= ALIVE {
                alive = waited;
                self.machine.idle_access()?;
            }
            thread::sleep(LOOK.min(timeout - waited));
        }
    }

    fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }
}
