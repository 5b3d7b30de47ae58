//! A driver for Intel's 82540EM, the e1000 of virtual machines.
//!
//! It follows Intel's *PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual* (8254x, 317453); comments name its
//! sections.
//!
//! | room | holds |
//! |---|---|
//! | `registers`, `descriptor` | the manual's names and layouts |
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
mod statistics;
mod tx;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hal::pool::PoolMapping;
use hal::{
    BusDevice, Capabilities, DmaSpace, Interrupt, Link, MacAddress, Nic, NicError, OffloadFlags, PciIdentity, Registers, RxFilter, RxQueue,
    Statistics, TxQueue, barrier,
};

use registers::{
    Causes, Control, EepromRead, ReceiveChecksum, ReceiveControl, Status, TIPG_COPPER, TransmitControl, VLAN_ETHER_TYPE, offset,
};
use rx::RxRing;
use tx::TxRing;

/// Vendor and device of the 82540EM.
pub const IDENTITY: (u16, u16) = (0x8086, 0x100e);

/// How long the device may take for a reset or an EEPROM word; the manual says microseconds.
const PATIENCE: Duration = Duration::from_millis(500);

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
        device.set_bus_master(true)?;
        let space = device.dma();
        let tx = TxRing::new(&space, &registers, config.tx_descriptors, config.max_frame(), config.vlan)?;
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

    fn receive_control(&self) -> ReceiveControl {
        let mut control = filter::receive_control(&self.config.filter) | ReceiveControl::EN | ReceiveControl::SECRC;
        control.set(ReceiveControl::LPE, self.config.mtu > 1500);
        control
    }
}

/// Stops and resets the device (13.4.1, RST), and waits for the end of it.
fn reset_device(registers: &Registers) -> Result<(), NicError> {
    let control = registers.read::<u32>(offset::CTRL)?;
    if control == u32::MAX && registers.read::<u32>(offset::STATUS)? == u32::MAX {
        return Err(NicError::Vanished { register: "CTRL" });
    }
    stop_device(registers)?;
    registers.write::<u32>(offset::CTRL, control | Control::RST.bits())?;
    // "Software must wait at least 1 us before it reads" (13.4.1): the device does not answer meanwhile.
    std::thread::sleep(Duration::from_micros(10));
    wait_until("the end of the reset", "CTRL.RST", || {
        Ok(!Control::from_bits_retain(registers.read::<u32>(offset::CTRL)?).contains(Control::RST))
    })?;
    registers.write::<u32>(offset::IMC, u32::MAX)?;
    // A model may take RST for done without a reset of its units; stopping them again makes sure.
    stop_units(registers)
}

/// Interrupts, receive and transmit units off: no access to memory afterwards.
fn stop_device(registers: &Registers) -> Result<(), NicError> {
    registers.write::<u32>(offset::IMC, u32::MAX)?;
    stop_units(registers)
}

fn stop_units(registers: &Registers) -> Result<(), NicError> {
    registers.write::<u32>(offset::RCTL, 0)?;
    registers.write::<u32>(offset::TCTL, TransmitControl::PSP.bits())?;
    // The read makes sure that the writes have arrived.
    registers.read::<u32>(offset::STATUS)?;
    Ok(())
}

/// The station address, from the first three words of the EEPROM (5.6.1).
fn read_station_address(registers: &Registers) -> Result<MacAddress, NicError> {
    let mut address = [0; 6];
    for (word, bytes) in address.chunks_exact_mut(2).enumerate() {
        registers.write::<u32>(offset::EERD, EepromRead::START.bits() | (word as u32) << 8)?;
        let mut data = 0;
        wait_until("an EEPROM read", "EERD.DONE", || {
            data = registers.read::<u32>(offset::EERD)?;
            if data == u32::MAX {
                return Err(NicError::Vanished { register: "EERD" });
            }
            Ok(EepromRead::from_bits_retain(data).contains(EepromRead::DONE))
        })?;
        bytes.copy_from_slice(&((data >> 16) as u16).to_le_bytes());
    }
    let address = MacAddress(address);
    if address.is_valid_unicast() {
        Ok(address)
    } else {
        Err(NicError::WrongDevice(format!("the EEPROM gives {address} as the station address")))
    }
}

/// Waits, at most [`PATIENCE`], for something that takes the device microseconds.
fn wait_until(what: &'static str, register: &'static str, mut done: impl FnMut() -> Result<bool, NicError>) -> Result<(), NicError> {
    let start = Instant::now();
    loop {
        if done()? {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            return Err(NicError::Timeout { what, register, waited: PATIENCE });
        }
        std::thread::sleep(Duration::from_micros(20));
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
        let interrupt = match &mut self.interrupt {
            Some(interrupt) => interrupt,
            none => none.insert(self.device.interrupt(0)?),
        };
        // Old causes go first, so that only what is new interrupts; what happened until the mask is set is in the rings.
        self.registers.read::<u32>(offset::ICR)?;
        let causes = Causes::TXDW | Causes::LSC | Causes::RXDMT0 | Causes::RXO | Causes::RXT0;
        self.registers.write::<u32>(offset::IMS, causes.bits())?;
        barrier::full();
        let came = self.tx.is_done() || self.rx.is_done() || interrupt.wait(timeout)?;
        self.registers.write::<u32>(offset::IMC, u32::MAX)?;
        // Reading lowers the line.
        self.registers.read::<u32>(offset::ICR)?;
        Ok(came)
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
