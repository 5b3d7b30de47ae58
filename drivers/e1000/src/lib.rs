//! A driver for Intel's 82540EM, the e1000 of virtual machines.
//!
//! It follows Intel's *PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual* (8254x, 317453); comments name its
//! sections.
//!
//! | room | holds |
//! |---|---|
//! | `registers`, `descriptor` | the manual's names and layouts |
//! | `start` | reset, EEPROM, PHY: from whatever state to a device that stands still |
//! | `tx`, `context` | the transmit ring, and checksum and segmentation requests |
//! | `rx`, `filter` | the receive ring, and which packets reach it |
//! | `statistics` | the device's counters |
//!
//! The driver knows no bus: it is given a [`BusDevice`] and reaches memory through hal. Nothing that the device writes is used before it
//! was checked.

#![forbid(unsafe_code)]

mod context;
mod descriptor;
mod filter;
mod registers;
mod rx;
mod start;
mod statistics;
mod tx;

use std::sync::Arc;
use std::time::Duration;

use hal::pool::PoolMapping;
use hal::{
    BusDevice, Capabilities, DmaSpace, Interrupt, Link, MacAddress, Nic, NicError, OffloadFlags, PciIdentity, Registers, RxFilter, RxQueue,
    Statistics, TxQueue, barrier,
};

use registers::{Causes, Control, ReceiveChecksum, ReceiveControl, Status, TIPG_COPPER, TransmitControl, VLAN_ETHER_TYPE, offset};
use rx::RxRing;
use start::{read_station_address, reset_device, restore_phy, stop_device};
use tx::TxRing;

/// Vendor and device of the 82540EM.
pub const IDENTITY: (u16, u16) = (0x8086, 0x100e);

/// How an [`E1000`] is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct E1000Config {
    /// Transmit descriptors: 80 to 4096, a multiple of 8. Default 256.
    pub tx_descriptors: u16,
    /// Receive descriptors: 80 to 4096, a multiple of 8. Default 256.
    pub rx_descriptors: u16,
    /// The largest IP packet in bytes, 68 to 16,110. Default 1500.
    pub mtu: u16,
    /// Strip VLAN tags of received packets, and allow [`OffloadFlags::VLAN_TAG`]. Default true.
    pub vlan: bool,
    /// What the NIC offers to do for frames; less than all leaves the work to software. Default: all.
    pub offloads: OffloadFlags,
    /// Offers to gather a frame from several segments. Default true.
    pub gather: bool,
    /// What is received from the start. Default: the station address and broadcast.
    pub filter: RxFilter,
}

impl Default for E1000Config {
    fn default() -> Self {
        Self {
            tx_descriptors: 256,
            rx_descriptors: 256,
            mtu: 1500,
            vlan: true,
            offloads: OffloadFlags::all(),
            gather: true,
            filter: RxFilter::default(),
        }
    }
}

impl E1000Config {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`NicError::Config`], with what the device takes.
    pub fn check(&self) -> Result<(), NicError> {
        for (ring, len) in [("transmit", self.tx_descriptors), ("receive", self.rx_descriptors)] {
            if !(80..=4096).contains(&len) || !len.is_multiple_of(8) {
                return Err(NicError::Config(format!("a {ring} ring of {len} descriptors; the 82540EM takes 80 to 4096, a multiple of 8")));
            }
        }
        if !(68..=16_110).contains(&self.mtu) {
            return Err(NicError::Config(format!("an MTU of {}; the 82540EM takes 68 to 16110 bytes", self.mtu)));
        }
        filter::check(&self.filter)
    }

    /// An Ethernet header, and a tag.
    fn max_frame(&self) -> u32 {
        u32::from(self.mtu) + 18
    }
}

/// What interrupts but for completions: packets, a ring that runs empty, the link.
const RECEIVED: Causes = Causes::LSC.union(Causes::RXDMT0).union(Causes::RXO).union(Causes::RXT0);

/// A started 82540EM. Dropping it stops the device.
pub struct E1000 {
    registers: Registers,
    tx: TxRing,
    rx: RxRing,
    space: Arc<dyn DmaSpace>,
    mac: MacAddress,
    config: E1000Config,
    statistics: Statistics,
    /// Taken from the bus with the first wait.
    interrupt: Option<Box<dyn Interrupt>>,
    /// Last, so that the device is closed after the rings were taken from it.
    device: Box<dyn BusDevice>,
}

impl E1000 {
    /// Whether this driver is for such a device.
    pub fn drives(identity: PciIdentity) -> bool {
        (identity.vendor, identity.device) == IDENTITY
    }

    /// Resets and starts the device. Transmission can begin at once; what is received needs buffers first
    /// ([`RxQueue::refill`]), and a link.
    ///
    /// # Errors
    /// [`NicError::WrongDevice`], [`NicError::Config`], [`NicError::Timeout`], [`NicError::Vanished`], and what the bus says.
    pub fn start(mut device: Box<dyn BusDevice>, config: E1000Config) -> Result<Self, NicError> {
        config.check()?;
        let identity = device.identity();
        if !Self::drives(identity) {
            return Err(NicError::WrongDevice(format!("{} is a {identity}, not an 82540EM (8086:100e)", device.address())));
        }
        let registers = device.bar(0)?;
        if registers.len() < offset::END {
            return Err(NicError::WrongDevice(format!(
                "BAR 0 of {} has {:#x} bytes; an 82540EM has 0x20000",
                device.address(),
                registers.len()
            )));
        }
        reset_device(&registers)?;
        let mac = read_station_address(&registers)?;
        restore_phy(&registers)?;
        device.set_bus_master(true)?;
        let space = device.dma();
        let mut tx = TxRing::new(&space, &registers, config.tx_descriptors, config.max_frame(), config.vlan)?;
        tx.set_withdrawal(device.withdrawal());
        let rx = RxRing::new(&space, &registers, config.rx_descriptors)?;
        let mut nic = Self { registers, tx, rx, space, mac, config, statistics: Statistics::default(), interrupt: None, device };
        nic.program()?;
        // A reset need not clear what an earlier user's packets have counted.
        nic.statistics()?;
        nic.statistics = Statistics::default();
        Ok(nic)
    }

    /// The bus's name of the device.
    pub fn address(&self) -> &str {
        self.device.address()
    }

    /// From a reset device to a running one (manual 14.3 to 14.5). Returns how many posted frames were lost.
    fn program(&mut self) -> Result<u64, NicError> {
        let write = |register, value| self.registers.write::<u32>(register, value);
        let control = self.registers.read::<u32>(offset::CTRL)?;
        let mut control = Control::from_bits_retain(control) | Control::SLU | Control::ASDE;
        control -= Control::LRST | Control::PHY_RST | Control::ILOS;
        control.set(Control::VME, self.config.vlan);
        write(offset::CTRL, control.bits())?;
        write(offset::VET, VLAN_ETHER_TYPE)?;
        write(offset::RXCSUM, (ReceiveChecksum::IPOFL | ReceiveChecksum::TUOFL).bits())?;
        write(offset::TIPG, TIPG_COPPER)?;
        filter::write_tables(&self.registers, self.mac, &self.config.filter)?;
        self.rx.program()?;
        let lost = self.tx.program()?;
        let transmit = TransmitControl::EN | TransmitControl::PSP | TransmitControl::CT_15 | TransmitControl::COLD_64;
        self.registers.write::<u32>(offset::TCTL, transmit.bits())?;
        // Once, and last: QEMU's model is deaf for a second after each write.
        self.registers.write::<u32>(offset::RCTL, self.receive_control().bits())?;
        Ok(lost)
    }

    /// Sleeps until one of the causes.
    fn sleep(&mut self, causes: Causes, timeout: Duration) -> Result<bool, NicError> {
        let interrupt = match &mut self.interrupt {
            Some(interrupt) => interrupt,
            none => none.insert(self.device.interrupt(0)?),
        };
        // Old causes go first, so that only what is new interrupts; what happened until the mask is set is in the rings.
        self.registers.read::<u32>(offset::ICR)?;
        self.registers.write::<u32>(offset::IMS, causes.bits())?;
        barrier::full();
        let came = causes.contains(Causes::TXDW) && self.tx.is_done() || self.rx.is_done() || interrupt.wait(timeout)?;
        self.registers.write::<u32>(offset::IMC, u32::MAX)?;
        // Reading lowers the line.
        self.registers.read::<u32>(offset::ICR)?;
        Ok(came)
    }

    fn receive_control(&self) -> ReceiveControl {
        let mut control = filter::receive_control(&self.config.filter) | ReceiveControl::EN | ReceiveControl::SECRC;
        control.set(ReceiveControl::LPE, self.config.mtu > 1500);
        control
    }
}

impl Nic for E1000 {
    fn model(&self) -> &str {
        "Intel 82540EM"
    }

    fn mac(&self) -> MacAddress {
        self.mac
    }

    fn capabilities(&self) -> Capabilities {
        // Not segmentation over IPv6: the device's payload length includes the IP header (3.5.9), which no receiver takes.
        let mut offloads = self.config.offloads - OffloadFlags::TCP6_SEGMENTATION - OffloadFlags::UDP_SEGMENTATION;
        if !self.config.vlan {
            offloads -= OffloadFlags::VLAN_TAG;
        }
        Capabilities {
            offloads,
            max_segments: if self.config.gather { self.tx.max_segments() } else { 1 },
            max_frame: self.config.max_frame(),
            max_segmentation: self.tx.max_segmentation(),
            vlan_strip: self.config.vlan,
            whole_headers: false,
        }
    }

    fn space(&self) -> Arc<dyn DmaSpace> {
        Arc::clone(&self.space)
    }

    fn link(&mut self) -> Result<Link, NicError> {
        let status = self.registers.read::<u32>(offset::STATUS)?;
        if status == u32::MAX {
            return Err(NicError::Vanished { register: "STATUS" });
        }
        let status = Status::from_bits_retain(status);
        let speed = match (status.contains(Status::SPEED_1000), status.contains(Status::SPEED_100)) {
            (true, _) => 1000,
            (false, true) => 100,
            (false, false) => 10,
        };
        let up = status.contains(Status::LU);
        Ok(Link { up, speed: if up { speed } else { 0 }, full_duplex: status.contains(Status::FD) })
    }

    fn statistics(&mut self) -> Result<Statistics, NicError> {
        statistics::collect(&self.registers, &mut self.statistics)?;
        Ok(self.statistics)
    }

    fn set_filter(&mut self, filter: &RxFilter) -> Result<(), NicError> {
        filter::check(filter)?;
        let before = self.receive_control();
        self.config.filter = filter.clone();
        filter::write_tables(&self.registers, self.mac, filter)?;
        let after = self.receive_control();
        if after != before {
            self.registers.write::<u32>(offset::RCTL, after.bits())?;
        }
        Ok(())
    }

    fn attach_pool(&mut self, pool: PoolMapping) -> Result<(), NicError> {
        self.tx.attach_pool(pool.clone())?;
        self.rx.attach_pool(pool)
    }

    fn queues(&self) -> (usize, usize) {
        (1, 1)
    }

    fn tx(&mut self, index: usize) -> &mut dyn TxQueue {
        assert_eq!(index, 0, "the 82540EM has one transmit queue");
        &mut self.tx
    }

    fn rx(&mut self, index: usize) -> &mut dyn RxQueue {
        assert_eq!(index, 0, "the 82540EM has one receive queue");
        &mut self.rx
    }

    fn split(&mut self) -> (Vec<&mut dyn TxQueue>, Vec<&mut dyn RxQueue>) {
        (vec![&mut self.tx], vec![&mut self.rx])
    }

    fn wait(&mut self, timeout: Duration) -> Result<bool, NicError> {
        self.sleep(Causes::TXDW | RECEIVED, timeout)
    }

    fn wait_received(&mut self, timeout: Duration) -> Result<bool, NicError> {
        self.sleep(RECEIVED, timeout)
    }

    fn reset(&mut self) -> Result<u64, NicError> {
        statistics::collect(&self.registers, &mut self.statistics)?;
        reset_device(&self.registers)?;
        // What was done, and not reaped yet, is not lost.
        self.tx.reap()?;
        // It is off when the NIC was stopped.
        self.device.set_bus_master(true)?;
        self.program()
    }

    fn stop(&mut self) -> Result<(), NicError> {
        let stopped = stop_device(&self.registers);
        let master = self.device.set_bus_master(false);
        // Whether it answered or not: a device that does not answer has lost its bus.
        self.tx.settle();
        self.rx.settle();
        stopped?;
        Ok(master?)
    }
}

impl Drop for E1000 {
    fn drop(&mut self) {
        // A device that cannot be reached cannot be stopped; its bus closes it.
        let _ = self.stop();
    }
}
