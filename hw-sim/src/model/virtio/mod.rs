//! A virtio network device.
//!
//! Written from the *Virtual I/O Device (VIRTIO)* specification, version 1.3; section numbers in this module are that text's. It implements
//! [`VirtioTransport`], without a bus below it. Time passes only in [`VirtioNetModel::step`]: a doorbell puts nothing on the wire before the
//! next step, so that completion is always a race that the driver has to get right. [`set_synchronous`](VirtioNetModel::set_synchronous) makes
//! it transmit inside the doorbell.
//!
//! Where the text leaves something open, the model does this:
//! - **The device sleeps**: a transmit or control queue is not looked at before its doorbell, unless the device asked for none
//!   ([`Notify::Never`]). A driver that does not notify when it has to has its frames lie there, and a violation.
//! - **Completions** of a step are made visible together. With VIRTIO_F_IN_ORDER one entry stands for all transmitted buffers of a step.
//! - **A chain that the device cannot follow**, and an access that nothing is mapped for, end in DEVICE_NEEDS_RESET, as in QEMU.
//! - **A SHOULD of the text counts as a MUST** where a driver has no reason not to, like the size of receive buffers and `hdr_len`. Superfluous
//!   notifications are only [counted](VirtioNetModel::superfluous_doorbells).
//! - **A computed checksum of 0 goes out as 0xffff**, as from the back ends of QEMU and Linux.
//! - **Frames are not padded**, and there is no UFO.
//! - **Promiscuous mode** is on after a reset, as in QEMU.

mod chain;
mod config;
mod control;
mod descriptor;
mod fault;
mod features;
mod filter;
mod hash;
mod header;
mod packed;
mod process;
mod queue;
mod receive;
mod split;
mod state;
mod transmit;
mod transport;

#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hal::virtio::VirtioTransport;
use hal::{DmaLimits, MacAddress};

use super::space::Space;
use state::{Counters, State};

pub use super::Received;
pub use config::ModelConfig;
pub use control::{Control, Hashing};
pub use fault::Fault;
pub use features::Features;
pub use queue::Notify;

/// Above 4 GiB, so that an address that was cut to 32 bits finds nothing.
const ADDRESSES: RangeInclusive<u64> = 0x1_0000_0000..=0x7f_ffff_ffff;

/// A model of a virtio network device. Cheap to clone; every clone is the same device. Queues are numbered as in 5.1.2: receive queue of pair
/// n: 2n, transmit queue: 2n + 1, and the control queue behind them.
///
/// ```
/// use hal::MacAddress;
/// use pagewire_hw_sim::model::virtio::VirtioNetModel;
/// let model = VirtioNetModel::new(MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
/// let transport = model.transport();
/// assert_eq!(transport.device_type(), 1);
/// // a driver is given the transport, and posts frames; then
/// assert!(model.step().is_empty());
/// assert!(model.violations().is_empty());
/// ```
#[derive(Clone)]
pub struct VirtioNetModel {
    state: Arc<Mutex<State>>,
    space: Arc<Space>,
}

impl VirtioNetModel {
    /// A device with [usual](ModelConfig::default) properties, its link up.
    pub fn new(mac: MacAddress) -> Self {
        Self::with(ModelConfig { mac, ..ModelConfig::default() })
    }

    /// A device with these properties, its link up.
    pub fn with(config: ModelConfig) -> Self {
        let mut space = None;
        let state = Arc::new_cyclic(|state: &Weak<Mutex<State>>| {
            let own = Arc::new(Space::new(ADDRESSES, state.clone()));
            space = Some(Arc::clone(&own));
            Mutex::new(State::new(config, own))
        });
        Self { state, space: space.expect("made just above") }
    }

    /// The device as a driver reaches it. Dropping the transport resets the device.
    pub fn transport(&self) -> Box<dyn VirtioTransport> {
        Box::new(transport::Transport::new(Arc::clone(&self.state), Arc::clone(&self.space)))
    }

    /// Lets time pass: the device processes the queues that it was told of. Returns the frames it put on the wire since the last call, in
    /// order: segmented, with their checksums.
    pub fn step(&self) -> Vec<Vec<u8>> {
        self.step_pairs().into_iter().map(|(_, frame)| frame).collect()
    }

    /// As [`step`](Self::step), with the pair of queues that each frame left by.
    pub fn step_pairs(&self) -> Vec<(u16, Vec<u8>)> {
        let mut state = self.lock();
        state.step();
        std::mem::take(&mut state.wire)
    }

    /// The frames that left since the last call, without letting time pass.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.lock().wire).into_iter().map(|(_, frame)| frame).collect()
    }

    /// A frame arrives from the wire, and goes to the queue that steering says: the first one without RSS.
    pub fn receive(&self, frame: &[u8]) -> Received {
        self.lock().receive(frame, None)
    }

    /// As [`receive`](Self::receive), into the receive queue of `pair`.
    pub fn receive_on(&self, pair: u16, frame: &[u8]) -> Received {
        self.lock().receive(frame, Some(pair))
    }

    /// A packet arrives from a neighbour on the same host: the checksum field of its TCP or UDP header holds the pseudo-header's sum. Delivered
    /// with NEEDS_CSUM, or completed where the driver does not take that.
    pub fn receive_partial(&self, frame: &[u8]) -> Received {
        self.lock().receive_partial(frame, None)
    }

    /// A packet of several segments of `mss` bytes arrives as one. Where the driver does not take that, it is cut first.
    pub fn receive_coalesced(&self, packet: &[u8], mss: u16) -> Received {
        self.lock().receive_coalesced(packet, mss, None)
    }

    /// Makes the device misbehave from now on; one fault at a time.
    pub fn set_fault(&self, fault: Fault) {
        self.lock().fault = fault;
    }

    /// The device behaves again.
    pub fn clear_fault(&self) {
        self.lock().fault = Fault::None;
    }

    /// Plugs the cable in or pulls it, with an interrupt when that changes something.
    pub fn set_link(&self, up: bool) {
        self.lock().change_status_field(config::LINK_UP, up);
    }

    /// What the configuration gives as the MTU from now on: a device may do that while it is reset.
    pub fn set_mtu(&self, mtu: u16) {
        self.lock().config.mtu = mtu;
    }

    /// Asks the driver to announce itself (5.1.6.5.4).
    pub fn ask_for_announcement(&self) {
        self.lock().change_status_field(config::ANNOUNCE, true);
    }

    /// Whether a doorbell transmits at once; [`step`](Self::step) returns the frames later. Off at first.
    pub fn set_synchronous(&self, on: bool) {
        self.lock().synchronous = on;
    }

    /// Whether transmitted buffers of a step come back in reverse order, as a device may without VIRTIO_F_IN_ORDER. Off at first.
    pub fn set_reversed(&self, on: bool) {
        self.lock().reversed = on;
    }

    /// When the device asks to be notified of transmit and receive buffers, from now on; of commands always. It looks at its queues once before it sleeps again.
    pub fn set_notify(&self, notify: Notify) {
        let mut state = self.lock();
        state.notify = notify;
        (0..state.queues.len() as u16).for_each(|index| state.look_and_publish(index));
    }

    /// Imitates another DMA space; `maps` is what can be mapped besides what is mapped already. The limits are enforced.
    pub fn set_limits(&self, limits: DmaLimits) {
        self.space.set_limits(limits);
    }

    /// How many times a queue was notified.
    pub fn doorbells(&self, queue: u16) -> u64 {
        self.counters(queue).doorbells
    }

    /// How many of these the device had not asked for.
    pub fn superfluous_doorbells(&self, queue: u16) -> u64 {
        self.counters(queue).superfluous
    }

    /// How many interrupts a queue raised.
    pub fn interrupts(&self, queue: u16) -> u64 {
        self.counters(queue).interrupts
    }

    /// How many interrupts changes of the configuration and of the device status raised.
    pub fn config_interrupts(&self) -> u64 {
        self.lock().changes.interrupts
    }

    /// The features that the driver accepted.
    pub fn accepted(&self) -> Features {
        self.lock().accepted
    }

    /// The device status (2.1).
    pub fn status(&self) -> u8 {
        self.lock().status
    }

    /// What the driver set through the control queue.
    pub fn control(&self) -> Control {
        self.lock().control.clone()
    }

    /// The station address, which the driver can change.
    pub fn mac(&self) -> MacAddress {
        self.lock().mac
    }

    /// How many buffers of a queue the device owns.
    pub fn owned_buffers(&self, queue: u16) -> usize {
        let mut state = self.lock();
        state.observe(queue);
        state.queues.get(usize::from(queue)).and_then(Option::as_ref).map_or(0, |queue| queue.waiting.len() + queue.lost.len())
    }

    /// The accesses to memory (address, length) that nothing is mapped for, in order.
    pub fn faulted_accesses(&self) -> Vec<(u64, u64)> {
        self.lock().faulted.clone()
    }

    /// What the driver did that the specification forbids, each once, in order, with the section that forbids it in brackets. At most 256 are
    /// kept.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.list()
    }

    /// How many mappings of memory and files there are now.
    pub fn mappings(&self) -> usize {
        self.space.mappings()
    }

    fn counters(&self, queue: u16) -> Counters {
        self.lock().counters.get(usize::from(queue)).copied().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
