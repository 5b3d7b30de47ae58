//! The NIC as a whole: from a transport to queues, and back.

use std::sync::Arc;
use std::time::Duration;

use hal::barrier::Order;
use hal::interrupt::wait_any;
use hal::pool::PoolMapping;
use hal::virtio::VirtioTransport;
use hal::{
    Capabilities, DmaSpace, FeatureReport, Interrupt, Link, MacAddress, Nic, NicError, OffloadFlags, RxFilter, RxQueue, Statistics, TxQueue,
};

use crate::config::{DESCRIPTORS, ETHERNET, USUAL_MTU, VirtioNetConfig};
use crate::control::{Command, Commands, Control};
use crate::device::{self, LinkState, SharedDevice};
use crate::features::{Features, Negotiated};
use crate::filter::{self, Filtering};
use crate::queue::{Receive, Transmit};
use crate::ring::{PackedRing, Place, Ring, RingConfig, SplitRing};
use crate::rx::{Rx, RxConfig};
use crate::steering;
use crate::tx::{MAX_SEGMENTATION, Tx, TxConfig};

/// The control queue takes one command at a time.
const CONTROL_DESCRIPTORS: u16 = 16;

/// A started virtio network device. Dropping it stops the device.
pub struct VirtioNet {
    tx: Vec<Box<dyn Transmit>>,
    rx: Vec<Box<dyn Receive>>,
    control: Option<(u16, Box<dyn Commands>)>,
    space: Arc<dyn DmaSpace>,
    mac: MacAddress,
    mtu: u16,
    config: VirtioNetConfig,
    negotiated: Negotiated,
    offloads: OffloadFlags,
    filtering: Filtering,
    /// Whether packets are joined, once that was said while the device ran.
    lro: Option<bool>,
    /// Taken from the transport with the first wait.
    interrupts: Vec<Box<dyn Interrupt>>,
    running: bool,
    /// Last, so that the device is closed after the rings were taken from it.
    device: SharedDevice,
}

/// Transmit and receive queues.
type Pairs = (Vec<Box<dyn Transmit>>, Vec<Box<dyn Receive>>);

/// What queues are made from.
struct Parts<'a> {
    space: &'a Arc<dyn DmaSpace>,
    device: &'a SharedDevice,
    config: &'a VirtioNetConfig,
    features: Features,
    offloads: OffloadFlags,
    max_frame: u32,
}

impl Parts<'_> {
    fn ring(&self, index: u16, wanted: u16) -> Result<RingConfig, NicError> {
        let most = self.device.lock().max_queue_size(index)?;
        let size = wanted.min(most).min(1 << 15);
        if size < 2 {
            return Err(NicError::WrongDevice(format!("the device has no queue {index} of at least 2 descriptors, but of {most}")));
        }
        let order = if self.features.contains(Features::ORDER_PLATFORM) { Order::Platform } else { Order::Processors };
        // The largest power of two that is not larger.
        Ok(RingConfig { size: 1 << size.ilog2(), event_idx: self.features.contains(Features::EVENT_IDX), order })
    }

    /// The ring of a queue whose size users choose: they are told when it is another one.
    fn chosen(&self, index: u16, wanted: u16) -> Result<RingConfig, NicError> {
        let ring = self.ring(index, wanted)?;
        if ring.size < wanted && wanted != DESCRIPTORS {
            let why = if wanted.is_power_of_two() { "which is the device's most" } else { "the next power of two that the device takes" };
            tracing::warn!("queue {index} has {} descriptors instead of {wanted}, {why}", ring.size);
        }
        Ok(ring)
    }

    fn tx(&self, index: u16) -> Result<TxConfig, NicError> {
        Ok(TxConfig {
            ring: self.chosen(index, self.config.tx_descriptors)?,
            in_order: self.features.contains(Features::IN_ORDER),
            indirect: self.features.contains(Features::INDIRECT_DESC),
            hash: self.features.contains(Features::HASH_REPORT),
            offloads: self.offloads,
            max_frame: self.max_frame,
        })
    }

    fn rx(&self, index: u16) -> Result<RxConfig, NicError> {
        Ok(RxConfig {
            ring: self.chosen(index, self.config.rx_descriptors)?,
            in_order: self.features.contains(Features::IN_ORDER),
            mergeable: self.features.contains(Features::MRG_RXBUF),
            hash: self.features.contains(Features::HASH_REPORT),
            max_packet: self.max_frame,
        })
    }

    /// Pairs of queues, in one memory.
    fn pairs<R: Ring + 'static>(&self, pairs: u16) -> Result<Pairs, NicError> {
        let indices = || (0..pairs).map(|pair| 2 * pair);
        let rx = indices().map(|index| Ok((index, self.rx(index)?))).collect::<Result<Vec<_>, NicError>>()?;
        let tx = indices().map(|index| Ok((index + 1, self.tx(index + 1)?))).collect::<Result<Vec<_>, NicError>>()?;
        let bytes = rx.iter().map(|(_, config)| Rx::<R>::bytes(config)).chain(tx.iter().map(|(_, config)| Tx::<R>::bytes(config)));
        let mut place = Place::new(self.space, "virtio-net", bytes.map(Place::span).sum())?;
        let rx = rx.into_iter().map(|(index, config)| {
            let rx: Box<dyn Receive> = Box::new(Rx::<R>::new(self.space, place.take(Rx::<R>::bytes(&config)), index, config));
            rx
        });
        let rx = rx.collect();
        let tx = tx.into_iter().map(|(index, config)| {
            let tx: Box<dyn Transmit> = Box::new(Tx::<R>::new(self.space, place.take(Tx::<R>::bytes(&config)), index, self.device, config));
            tx
        });
        Ok((tx.collect(), rx))
    }

    fn control<R: Ring + 'static>(&self, index: u16) -> Result<Box<dyn Commands>, NicError> {
        let ring = self.ring(index, CONTROL_DESCRIPTORS)?;
        Ok(Box::new(Control::<R>::new(self.space, index, ring, self.config.patience)?))
    }
}

/// What the device does for frames, in hal's terms.
fn offloads(features: Features, config: &VirtioNetConfig) -> OffloadFlags {
    let mut offloads = OffloadFlags::empty();
    for (feature, flags) in [
        (Features::CSUM, OffloadFlags::UDP_CHECKSUM | OffloadFlags::TCP_CHECKSUM),
        (Features::HOST_TSO4, OffloadFlags::TCP4_SEGMENTATION),
        (Features::HOST_TSO6, OffloadFlags::TCP6_SEGMENTATION),
        (Features::HOST_USO, OffloadFlags::UDP_SEGMENTATION),
    ] {
        if features.contains(feature) {
            offloads |= flags;
        }
    }
    offloads & config.offloads
}

/// An address for a device that has none, as kernels make them: random, and locally administered.
fn random_address() -> MacAddress {
    use std::hash::{BuildHasher, RandomState};
    let [a, b, c, d, e, ..] = RandomState::new().hash_one(0).to_le_bytes();
    MacAddress([0x02, a, b, c, d, e])
}

impl VirtioNet {
    /// Resets and starts the device. Transmission can begin at once; what is received needs buffers first ([`RxQueue::refill`]).
    ///
    /// # Errors
    /// [`NicError::WrongDevice`], [`NicError::Config`], [`NicError::Timeout`] for a command that is not answered, and what the transport says.
    pub fn start(transport: Box<dyn VirtioTransport>, mut config: VirtioNetConfig) -> Result<Self, NicError> {
        config.check()?;
        let (device, negotiated) = device::negotiate(transport, &mut config)?;
        let mut nic = Self::build(device.clone(), negotiated, config).inspect_err(|_| {
            let _ = device.stop();
        })?;
        nic.program()?;
        Ok(nic)
    }

    fn build(device: SharedDevice, negotiated: Negotiated, config: VirtioNetConfig) -> Result<Self, NicError> {
        let features = negotiated.accepted();
        filter::check(&config.filter, features)?;
        let space = device.lock().dma();
        let mac = match (config.mac, device.mac()?) {
            (Some(mac), Some(own)) if mac != own && !features.contains(Features::CTRL_MAC_ADDR) => {
                return Err(NicError::Config(format!(
                    "the station address {mac}, which the device would not take: it has {own}, and no VIRTIO_NET_F_CTRL_MAC_ADDR to change it"
                )));
            }
            (Some(mac), _) | (None, Some(mac)) => mac,
            (None, None) => random_address(),
        };
        let most = device.mtu()?;
        let mtu = config.mtu.or(most).unwrap_or(USUAL_MTU);
        if let Some(most) = most.filter(|most| mtu > *most) {
            return Err(NicError::Config(format!("an MTU of {mtu}; this device's network takes {most}: give that, or less")));
        }
        let all_pairs = device.queue_pairs()?;
        let pairs = config.queue_pairs.min(all_pairs);
        if pairs < config.queue_pairs {
            tracing::warn!("{} queue pairs are asked for, and the device has {pairs}{}", config.queue_pairs, negotiated.why_one_pair());
        }
        let offloads = offloads(features, &config);
        let parts = Parts { space: &space, device: &device, config: &config, features, offloads, max_frame: u32::from(mtu) + ETHERNET };
        let packed = features.contains(Features::RING_PACKED);
        let (tx, rx) = if packed { parts.pairs::<PackedRing>(pairs)? } else { parts.pairs::<SplitRing>(pairs)? };
        let control = if features.contains(Features::CTRL_VQ) {
            // It comes behind all pairs that the device has (5.1.2).
            let index = 2 * all_pairs;
            Some((index, if packed { parts.control::<PackedRing>(index)? } else { parts.control::<SplitRing>(index)? }))
        } else {
            None
        };
        let filtering = Filtering::default();
        let (lro, interrupts, running) = (None, Vec::new(), false);
        Ok(Self { tx, rx, control, space, mac, mtu, config, negotiated, offloads, filtering, lro, interrupts, running, device })
    }

    /// From a device that knows the features to a running one.
    fn program(&mut self) -> Result<(), NicError> {
        self.running = true;
        self.enable_queues()?;
        self.device.run()?;
        let features = self.negotiated.accepted();
        self.filtering.forget();
        if let Some((_, control)) = &mut self.control {
            let control = &mut **control;
            if self.config.mac.is_some() && features.contains(Features::CTRL_MAC_ADDR) {
                control.send(Command::MAC_ADDRESS, &self.mac.0)?;
            }
            steering::apply(control, &self.device, features, &self.config, self.tx.len() as u16)?;
            self.filtering.apply(control, features, &self.config.filter)?;
        }
        // The device begins with all that was agreed on.
        self.lro.map_or(Ok(()), |on| self.set_lro(on))
    }

    fn enable_queues(&mut self) -> Result<(), NicError> {
        let mut transport = self.device.lock();
        for (pair, (tx, rx)) in self.tx.iter_mut().zip(&mut self.rx).enumerate() {
            let index = 2 * pair as u16;
            rx.enabled(transport.enable_queue(index, rx.layout())?);
            tx.enabled(transport.enable_queue(index + 1, tx.layout())?);
        }
        if let Some((index, control)) = &mut self.control {
            control.enabled(transport.enable_queue(*index, control.layout())?);
        }
        Ok(())
    }

    /// The device is stopped: everything is the program's again. Returns how many frames had not completed.
    fn settle(&mut self) -> u64 {
        self.rx.iter_mut().for_each(|rx| rx.settle());
        if let Some((_, control)) = &mut self.control {
            control.settle();
        }
        self.tx.iter_mut().map(|tx| tx.settle()).sum()
    }

    /// What was agreed on.
    pub fn negotiated(&self) -> Negotiated {
        self.negotiated
    }

    /// The largest IP packet, in bytes.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Asks the device to join packets, or not to, while it runs (5.1.6.5.6), and after a reset. What was not negotiated stays off.
    ///
    /// # Errors
    /// [`NicError::Config`] when the device has no such command, or refuses.
    pub fn set_lro(&mut self, on: bool) -> Result<(), NicError> {
        let features = self.negotiated.accepted();
        let joining = Features::GUEST_TSO4 | Features::GUEST_TSO6 | Features::GUEST_USO4 | Features::GUEST_USO6;
        let wanted = features & if on { Features::GUEST_CSUM | joining } else { Features::GUEST_CSUM };
        match &mut self.control {
            Some((_, control)) if features.contains(Features::CTRL_GUEST_OFFLOADS) => {
                control.send(Command::OFFLOADS, &wanted.bits().to_le_bytes())?;
                self.lro = Some(on);
                Ok(())
            }
            _ => Err(NicError::Config("the device has no VIRTIO_NET_F_CTRL_GUEST_OFFLOADS; start the NIC anew with lro set".to_owned())),
        }
    }

    /// Resets transmit queue `index` alone (2.6.1); the others run on. Returns how many posted frames were lost.
    ///
    /// # Errors
    /// [`NicError::Config`] when the device cannot reset one queue: [`Nic::reset`] resets all; and what the transport says.
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn reset_tx(&mut self, index: usize) -> Result<u64, NicError> {
        let number = 2 * index as u16 + 1;
        let tx = &mut self.tx[index];
        reset_queue(&self.device, self.negotiated.accepted(), number)?;
        // What was done, and not reaped yet, is not lost.
        let _ = tx.reap();
        let lost = tx.settle();
        tx.enabled(self.device.lock().enable_queue(number, tx.layout())?);
        Ok(lost)
    }

    /// Resets receive queue `index` alone; its buffers return to their pool, so it wants a [refill](RxQueue::refill).
    ///
    /// # Errors
    /// As [`reset_tx`](Self::reset_tx).
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn reset_rx(&mut self, index: usize) -> Result<(), NicError> {
        let number = 2 * index as u16;
        let rx = &mut self.rx[index];
        reset_queue(&self.device, self.negotiated.accepted(), number)?;
        rx.settle();
        rx.enabled(self.device.lock().enable_queue(number, rx.layout())?);
        Ok(())
    }

    /// All interrupts, taken from the transport once; returns how many of them come without completions, which are the first.
    fn take_interrupts(&mut self) -> Result<usize, NicError> {
        let (transmit, receive) = (self.tx.len(), self.rx.len());
        if self.interrupts.is_empty() {
            let mut transport = self.device.lock();
            let mut interrupt = |queue: usize| transport.interrupt(Some(queue as u16));
            let mut interrupts = (0..receive).map(|pair| interrupt(2 * pair)).collect::<Result<Vec<_>, _>>()?;
            let completions = (0..transmit).map(|pair| interrupt(2 * pair + 1)).collect::<Result<Vec<_>, _>>()?;
            // Changes of the configuration wake a sleeper too, where the transport can say them.
            interrupts.extend(transport.interrupt(None).ok());
            interrupts.extend(completions);
            self.interrupts = interrupts;
        }
        Ok(self.interrupts.len() - transmit)
    }
}

fn reset_queue(device: &SharedDevice, features: Features, number: u16) -> Result<(), NicError> {
    if !features.contains(Features::RING_RESET) {
        return Err(NicError::Config("the device cannot reset one queue (VIRTIO_F_RING_RESET); reset the NIC instead".to_owned()));
    }
    Ok(device.lock().reset_queue(number)?)
}

impl Nic for VirtioNet {
    fn model(&self) -> &str {
        "virtio-net"
    }

    fn mac(&self) -> MacAddress {
        self.mac
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            offloads: self.offloads,
            max_segments: if self.config.gather { self.tx[0].max_segments() } else { 1 },
            max_frame: u32::from(self.mtu) + ETHERNET,
            max_segmentation: if self.offloads.intersects(OffloadFlags::CUTTING) { MAX_SEGMENTATION } else { 0 },
            vlan_strip: false,
            whole_headers: true,
        }
    }

    fn features(&self) -> Vec<FeatureReport> {
        self.negotiated.report(&self.config)
    }

    fn space(&self) -> Arc<dyn DmaSpace> {
        Arc::clone(&self.space)
    }

    fn link(&mut self) -> Result<Link, NicError> {
        self.device.health()?;
        let LinkState { up, speed, full_duplex } = self.device.link()?;
        Ok(Link { up, speed: if up { speed } else { 0 }, full_duplex })
    }

    fn wants_announcement(&mut self) -> Result<bool, NicError> {
        Ok(self.negotiated.has(Features::GUEST_ANNOUNCE) && self.device.wants_announcement()?)
    }

    fn announced(&mut self) -> Result<(), NicError> {
        match &mut self.control {
            Some((_, control)) if self.negotiated.has(Features::GUEST_ANNOUNCE) => control.send(Command::ANNOUNCED, &[]),
            _ => Ok(()),
        }
    }

    fn statistics(&mut self) -> Result<Statistics, NicError> {
        let mut sum = Statistics::default();
        for (packets, bytes) in self.tx.iter().map(|tx| tx.sent()) {
            sum.tx_packets += packets;
            sum.tx_bytes += bytes;
        }
        for counters in self.rx.iter().map(|rx| rx.counters()) {
            sum.rx_packets += counters.packets;
            sum.rx_bytes += counters.bytes;
            sum.rx_errors += counters.dropped;
        }
        Ok(sum)
    }

    fn set_filter(&mut self, filter: &RxFilter) -> Result<(), NicError> {
        let features = self.negotiated.accepted();
        filter::check(filter, features)?;
        self.config.filter = filter.clone();
        match &mut self.control {
            Some((_, control)) => self.filtering.apply(&mut **control, features, filter),
            None => Ok(()),
        }
    }

    fn attach_pool(&mut self, pool: PoolMapping) -> Result<(), NicError> {
        self.tx.iter_mut().try_for_each(|tx| tx.attach_pool(pool.clone()))?;
        self.rx.iter_mut().try_for_each(|rx| rx.attach_pool(pool.clone()))
    }

    fn attach_pool_of(&mut self, pair: usize, pool: PoolMapping) -> Result<(), NicError> {
        assert!(pair < self.tx.len(), "no queue {pair}");
        self.tx[pair].attach_pool(pool.clone())?;
        self.rx[pair].attach_pool(pool)
    }

    fn queues(&self) -> (usize, usize) {
        (self.tx.len(), self.rx.len())
    }

    fn tx(&mut self, index: usize) -> &mut dyn TxQueue {
        &mut *self.tx[index]
    }

    fn rx(&mut self, index: usize) -> &mut dyn RxQueue {
        &mut *self.rx[index]
    }

    fn split(&mut self) -> (Vec<&mut dyn TxQueue>, Vec<&mut dyn RxQueue>) {
        (
            self.tx.iter_mut().map(|tx| &mut **tx as &mut dyn TxQueue).collect(),
            self.rx.iter_mut().map(|rx| &mut **rx as &mut dyn RxQueue).collect(),
        )
    }

    fn wait(&mut self, timeout: Duration) -> Result<bool, NicError> {
        self.take_interrupts()?;
        self.tx.iter_mut().for_each(|tx| tx.arm());
        self.rx.iter_mut().for_each(|rx| rx.arm());
        // What was used before the device saw that interrupts are wanted has no interrupt.
        let used = self.tx.iter().any(|tx| tx.has_used()) || self.rx.iter().any(|rx| rx.has_used());
        let came = used || wait_any(&mut self.interrupts, timeout)?;
        self.tx.iter_mut().for_each(|tx| tx.disarm());
        self.rx.iter_mut().for_each(|rx| rx.disarm());
        Ok(came)
    }

    fn wait_received(&mut self, timeout: Duration) -> Result<bool, NicError> {
        let receiving = self.take_interrupts()?;
        self.rx.iter_mut().for_each(|rx| rx.arm());
        let came = self.rx.iter().any(|rx| rx.has_used()) || wait_any(&mut self.interrupts[..receiving], timeout)?;
        self.rx.iter_mut().for_each(|rx| rx.disarm());
        Ok(came)
    }

    fn reset(&mut self) -> Result<u64, NicError> {
        self.device.stop()?;
        for tx in &mut self.tx {
            // What was done, and not reaped yet, is not lost. A queue that is broken has no more to say.
            let _ = tx.reap();
        }
        let lost = self.settle();
        self.device.renegotiate(&mut self.config)?;
        self.program()?;
        Ok(lost)
    }

    fn stop(&mut self) -> Result<(), NicError> {
        let stopped = self.device.stop();
        // Whether it answered or not: a device that does not answer has lost its bus.
        self.settle();
        self.running = false;
        stopped
    }
}

impl Drop for VirtioNet {
    fn drop(&mut self) {
        if self.running {
            // A device that cannot be reached cannot be stopped; its transport closes it.
            let _ = self.stop();
        }
    }
}
