//! The device's accesses to memory.

use super::state::State;

/// The access did not happen: the unit that wanted it stops.
pub(super) struct Aborted;

impl State {
    pub(super) fn dma_read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), Aborted> {
        self.dma_allowed()?;
        let space = self.space.clone();
        space.read(address, bytes).map_err(|_| self.master_abort(address, bytes.len()))
    }

    pub(super) fn dma_write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Aborted> {
        self.dma_allowed()?;
        let space = self.space.clone();
        space.write(address, bytes).map_err(|_| self.master_abort(address, bytes.len()))
    }

    /// Whether the device may reach memory at all.
    fn dma_allowed(&mut self) -> Result<(), Aborted> {
        if !self.config.bus_master() {
            self.violation("the device has descriptors to process, but bus mastering is off in the PCI command register [4.1]");
            return Err(Aborted);
        }
        if self.aborted { Err(Aborted) } else { Ok(()) }
    }

    /// Nothing answered: a device on PCI makes no further access until it is reset.
    fn master_abort(&mut self, address: u64, len: usize) -> Aborted {
        self.faulted.push((address, len as u64));
        self.aborted = true;
        self.config.set_master_abort();
        Aborted
    }
}
