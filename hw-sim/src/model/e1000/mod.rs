//! The Intel 82540EM Gigabit Ethernet controller.
//!
//! Written from Intel's *PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual* (the 8254x manual); section numbers in
//! this module are that manual's. Time passes only in [`E1000Model::step`]: a doorbell puts nothing on the wire before the next step, so that
//! completion is always a race that the driver has to get right. [`set_synchronous`](E1000Model::set_synchronous) makes it behave like QEMU's
//! model, which transmits inside the doorbell.
//!
//! Where the manual leaves something open, or says something surprising, the model does this:
//! - **A computed checksum of 0 goes out as 0.** 3.5.8 defines the field as the complement of the sum, without an exception, and in a normal
//!   context the hardware does not even know that it is UDP (TUCMD.TCP is ignored unless TSE is set, 3.3.6.1). QEMU's model sends 0xffff, for
//!   every kind of checksum. A UDP checksum of 0 means "none" (RFC 768), so a driver that cares has to see to it.
//! - **The IPv6 payload length of a segment is too large by 40**, because 3.5.9 defines it as MSS + HDRLEN - IPCSS, which includes the IPv6
//!   header. QEMU's model does the same, and Linux offers no TSO over IPv6 on these parts.
//!   [`set_ipv6_payload_length_right`](E1000Model::set_ipv6_payload_length_right) imitates later parts.
//! - **VLE, IFCS and the special field** count in the last descriptor of a packet, but in the first one of a segmentation (3.3.7.1). The same
//!   section says "last" for all in another place, so a segmentation whose first and last descriptor disagree is a violation.
//! - **A DMA access that nothing is mapped for** ends in a master abort: it transfers nothing, and the device makes no further access until it is
//!   reset, as silicon behind an IOMMU does.
//! - **Registers whose initial value is X** hold noise after power-on: MTA, VFTA, the ring bases. A driver that does not write them notices.
//! - **The link** is up when the cable is in and CTRL.SLU is set. Without a link nothing is transmitted or received; descriptors wait.
//! - **There is no receive FIFO**: a packet without descriptors is missed at once (MPC and RNBC).
//! - **Write-back**: TXDCTL.WTHRESH is honoured; what waits below the threshold is written when the TIDV timer runs out, at the start of the
//!   next step. Receive descriptors are written back at once. Interrupts that IDE or RDTR delay come at the start of the next step.

mod access;
mod config;
mod descriptor;
mod device;
mod dma;
mod eeprom;
mod fault;
mod filter;
mod inspect;
mod interrupt;
mod packet;
mod phy;
mod receive;
mod receive_checksum;
mod registers;
mod ring;
mod segmentation;
mod state;
mod statistics;
mod transmit;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hal::{BusDevice, DmaLimits, MacAddress};

pub use fault::Fault;

use super::space::Space;
use state::State;

pub use super::Received;

/// Up to the window in which an IOMMU on x86 takes writes for interrupts.
const ADDRESSES: std::ops::RangeInclusive<u64> = 0x1000_0000..=0xfedf_ffff;

/// A model of the 82540EM. Cheap to clone; every clone is the same device.
///
/// ```
/// use hal::MacAddress;
/// use pagewire_hw_sim::model::e1000::E1000Model;
/// let model = E1000Model::new(MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
/// let device = model.device();
/// assert_eq!(device.identity().to_string(), "8086:100e");
/// // a driver is given the device, and posts frames; then
/// assert!(model.step().is_empty());
/// assert!(model.violations().is_empty());
/// ```
#[derive(Clone)]
pub struct E1000Model {
    state: Arc<Mutex<State>>,
    space: Arc<Space>,
}

impl E1000Model {
    /// A device that has just been powered on, with `mac` in its EEPROM, its cable plugged in and memory accesses enabled, bus mastering not.
    pub fn new(mac: MacAddress) -> Self {
        let mut space = None;
        let state = Arc::new_cyclic(|state: &Weak<Mutex<State>>| {
            let own = Arc::new(Space::new(ADDRESSES, state.clone()));
            space = Some(Arc::clone(&own));
            Mutex::new(State::new(mac, own))
        });
        Self { state, space: space.expect("made just above") }
    }

    /// The device as a driver opens it: 8086:100e, BAR 0 with 128 KiB of registers that are reached by calls, a DMA space of its own.
    pub fn device(&self) -> Box<dyn BusDevice> {
        Box::new(device::Device::new(Arc::clone(&self.state), Arc::clone(&self.space)))
    }

    /// Lets time pass: the device processes its transmit ring up to TDT. Returns the frames it put on the wire since the last call, in order,
    /// without the frame check sequence.
    pub fn step(&self) -> Vec<Vec<u8>> {
        self.lock().step()
    }

    /// A frame, without its frame check sequence, arrives from the wire. A frame below 60 bytes is padded with zeros, as its sender would have
    /// done; one without a whole Ethernet header is dropped as undersized.
    pub fn receive(&self, frame: &[u8]) -> Received {
        self.lock().receive(frame)
    }

    /// Makes the device misbehave from now on; one fault at a time.
    pub fn set_fault(&self, fault: Fault) {
        self.lock().set_fault(fault);
    }

    /// The device behaves again.
    pub fn clear_fault(&self) {
        self.lock().set_fault(Fault::None);
    }

    /// Plugs the cable in or pulls it. Interrupts with LSC when the state of the link changes.
    pub fn set_link(&self, up: bool) {
        self.lock().set_cable(up);
    }

    /// Whether a doorbell transmits at once, as in QEMU's model; [`step`](Self::step) returns the frames later. Off at first.
    pub fn set_synchronous(&self, on: bool) {
        self.lock().synchronous = on;
    }

    /// Whether the IPv6 payload length of segments leaves the IPv6 header out, as it has to and as later parts do; see the
    /// [module](self). Off at first.
    pub fn set_ipv6_payload_length_right(&self, on: bool) {
        self.lock().ipv6_payload_length_right = on;
    }

    /// Imitates another DMA space; `maps` is what can be mapped besides what is mapped already. The limits are enforced.
    pub fn set_limits(&self, limits: DmaLimits) {
        self.space.set_limits(limits);
    }

    /// How many times TDT was written.
    pub fn doorbells(&self) -> u64 {
        self.lock().doorbells
    }

    /// How many context descriptors were processed.
    pub fn context_descriptors(&self) -> u64 {
        self.lock().contexts
    }

    /// The lengths of the descriptors that the last packet was gathered from.
    pub fn last_packet(&self) -> Vec<usize> {
        self.lock().last_packet.clone()
    }

    /// What the register at `offset` holds. Has no side effects: nothing is cleared, nothing recorded, and no fault shows.
    pub fn register(&self, offset: u64) -> u32 {
        self.lock().peek(offset)
    }

    /// The DMA accesses (address, length) outside every mapping, and writes to read-only mappings, in order.
    pub fn faulted_accesses(&self) -> Vec<(u64, u64)> {
        self.lock().faulted.clone()
    }

    /// What the driver did that the manual forbids, each once, in order, with the section that forbids it in brackets. At most
    /// 256 are kept.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.list()
    }

    /// How many mappings of memory and files there are now.
    pub fn mappings(&self) -> usize {
        self.space.mappings()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
