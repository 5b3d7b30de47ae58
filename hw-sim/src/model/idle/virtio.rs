//! A virtio network device's queues in ordinary memory.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hal::registers::Width;
use hal::virtio::{DeviceStatus, QueueLayout, VirtioTransport};
use hal::{BusError, DmaSpace, Doorbell, Interrupt, MacAddress, RegisterError, Registers, SharedMemory};

use super::space::Space;
use crate::model::virtio::{Features, ModelConfig};

/// Distance of the queues' doorbells.
const DOORBELL: u64 = 4;
/// Flags of descriptors (VIRTIO 1.3, 2.7.5 and 2.8.13).
const NEXT: u16 = 1;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// A virtio network device that does nothing. Clones are the same device.
#[derive(Clone)]
pub struct IdleVirtio(Arc<Inner>);

struct Inner {
    config: ModelConfig,
    status: AtomicU8,
    accepted: AtomicU64,
    /// Mapped, as those of a PCI device are.
    doorbells: Registers,
    queues: Mutex<Vec<Option<Queue>>>,
    space: Arc<Space>,
}

#[derive(Clone, Copy)]
struct Queue {
    layout: QueueLayout,
    /// How many entries (split) or descriptors (packed) are done.
    done: u64,
}

impl IdleVirtio {
    /// A device with this station address that offers these features, and one pair of queues of 256 entries. A control queue would never answer.
    pub fn new(mac: MacAddress, features: Features) -> Self {
        let config = ModelConfig { mac, features: features - Features::CTRL_VQ, ..ModelConfig::default() };
        Self(Arc::new(Inner {
            status: AtomicU8::new(0),
            accepted: AtomicU64::new(0),
            doorbells: Registers::in_memory(4096).expect("a page of memory"),
            queues: Mutex::new(vec![None; usize::from(config.pairs) * 2]),
            space: Arc::new(Space::new()),
            config,
        }))
    }

    /// For a driver to start.
    pub fn transport(&self) -> Box<dyn VirtioTransport> {
        Box::new(self.clone())
    }

    /// Gives every transmit buffer back.
    pub fn complete(&self) {
        let accepted = Features::from_bits_retain(self.0.accepted.load(Ordering::Relaxed));
        let mut queues = self.0.queues.lock().unwrap_or_else(PoisonError::into_inner);
        for queue in queues.iter_mut().skip(1).step_by(2).flatten() {
            let QueueLayout { descriptors, driver, device, .. } = queue.layout;
            let events = accepted.contains(Features::EVENT_IDX);
            let space = &self.0.space;
            if accepted.contains(Features::RING_PACKED) {
                space.at(descriptors, |ring, at| queue.complete_packed(ring, at));
                let position = queue.done % (2 * queue.size());
                let event = if position < queue.size() { position as u16 | USED } else { (position - queue.size()) as u16 };
                space.at(device, |area, at| {
                    if events {
                        area.write(at, u32::from(event) | 2 << 16)
                    }
                });
            } else {
                let Some(heads) = space.at(driver, |area, at| queue.available(area, at)) else { continue };
                space.at(device, |area, at| queue.complete_split(area, at, &heads, events));
            }
        }
    }
}

impl Queue {
    fn size(&self) -> u64 {
        self.layout.size.into()
    }

    /// The entries of the available ring that are not done.
    fn available(&self, area: &SharedMemory, at: usize) -> Vec<u16> {
        let added = area.atomic_u16(at + 2).load(Ordering::Acquire).wrapping_sub(self.done as u16);
        (0..u64::from(added)).map(|step| area.read(at + 4 + 2 * ((self.done + step) % self.size()) as usize)).collect()
    }

    fn complete_split(&mut self, area: &SharedMemory, at: usize, heads: &[u16], events: bool) {
        for head in heads {
            area.write(at + 4 + 8 * (self.done % self.size()) as usize, u32::from(*head));
            self.done += 1;
        }
        if events {
            area.write(at + 4 + 8 * self.size() as usize, self.done as u16);
        }
        area.atomic_u16(at + 2).store(self.done as u16, Ordering::Release);
    }

    fn complete_packed(&mut self, ring: &SharedMemory, at: usize) {
        let size = self.size();
        let descriptor = |position: u64| at + 16 * (position % size) as usize;
        let lap = |position: u64| (position / size).is_multiple_of(2);
        loop {
            let first = self.done;
            let available = if lap(first) { AVAIL } else { USED };
            if ring.atomic_u16(descriptor(first) + 14).load(Ordering::Acquire) & (AVAIL | USED) != available {
                return;
            }
            let mut last = first;
            while ring.read::<u16>(descriptor(last) + 14) & NEXT != 0 && last - first < size {
                last += 1;
            }
            ring.write(descriptor(first) + 8, 0_u32);
            ring.write(descriptor(first) + 12, ring.read::<u16>(descriptor(last) + 12));
            ring.atomic_u16(descriptor(first) + 14).store(if lap(first) { AVAIL | USED } else { 0 }, Ordering::Release);
            self.done = last + 1;
        }
    }
}

impl VirtioTransport for IdleVirtio {
    fn device_type(&self) -> u32 {
        1
    }

    fn device_features(&mut self) -> Result<u64, BusError> {
        Ok(self.0.config.features.bits())
    }

    fn set_driver_features(&mut self, features: u64) -> Result<(), BusError> {
        self.0.accepted.store(features, Ordering::Relaxed);
        Ok(())
    }

    fn status(&mut self) -> Result<DeviceStatus, BusError> {
        Ok(DeviceStatus::from_bits_retain(self.0.status.load(Ordering::Relaxed)))
    }

    fn set_status(&mut self, status: DeviceStatus) -> Result<(), BusError> {
        self.0.status.store(status.bits(), Ordering::Relaxed);
        if status.is_empty() {
            self.0.queues.lock().unwrap_or_else(PoisonError::into_inner).fill(None);
        }
        Ok(())
    }

    fn queues(&mut self) -> Result<u16, BusError> {
        Ok(self.0.config.pairs * 2)
    }

    fn max_queue_size(&mut self, index: u16) -> Result<u16, BusError> {
        Ok(if index < self.0.config.pairs * 2 { self.0.config.queue_size } else { 0 })
    }

    fn enable_queue(&mut self, index: u16, layout: QueueLayout) -> Result<Doorbell, BusError> {
        let mut queues = self.0.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = queues.get_mut(usize::from(index)).ok_or_else(|| RegisterError::Unreachable(format!("there is no queue {index}")))?;
        *slot = Some(Queue { layout, done: 0 });
        Ok(Doorbell::register(&self.0.doorbells, u64::from(index) * DOORBELL, Width::Word)?)
    }

    fn reset_queue(&mut self, index: u16) -> Result<(), BusError> {
        if let Some(slot) = self.0.queues.lock().unwrap_or_else(PoisonError::into_inner).get_mut(usize::from(index)) {
            *slot = None;
        }
        Ok(())
    }

    fn interrupt(&mut self, index: Option<u16>) -> Result<Box<dyn Interrupt>, BusError> {
        Err(BusError::NoInterrupt { vector: index.unwrap_or(0), reason: "an idle device has none".into() })
    }

    fn read_config(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), BusError> {
        let space = self.0.config.space(self.0.config.mac, 1);
        let start = offset as usize;
        let source = space.get(start..start.saturating_add(bytes.len()));
        bytes.copy_from_slice(source.ok_or_else(|| RegisterError::Unreachable("the configuration is shorter".to_owned()))?);
        Ok(())
    }

    fn write_config(&mut self, _offset: u32, _bytes: &[u8]) -> Result<(), BusError> {
        Ok(())
    }

    fn dma(&self) -> Arc<dyn DmaSpace> {
        Arc::clone(&self.0.space) as Arc<dyn DmaSpace>
    }
}

#[cfg(test)]
mod tests {
    use hal::DmaMemory;

    use super::*;

    fn start(features: Features) -> (IdleVirtio, DmaMemory) {
        let device = IdleVirtio::new(MacAddress([2, 0, 0, 0, 0, 1]), features);
        let mut transport = device.transport();
        let memory = DmaMemory::new(&transport.dma(), "queue", 4096).unwrap();
        transport.set_driver_features(features.bits()).unwrap();
        let layout = QueueLayout { size: 4, descriptors: memory.iova(), driver: memory.iova() + 512, device: memory.iova() + 1024 };
        transport.enable_queue(1, layout).unwrap().ring(1).unwrap();
        (device, memory)
    }

    #[test]
    fn split_entries_come_back() {
        let (device, memory) = start(Features::EVENT_IDX);
        let memory = memory.memory();
        for lap in 0..3_u16 {
            memory.write(512 + 4 + 2 * usize::from(lap * 2 % 4), 3_u16);
            memory.write(512 + 4 + 2 * usize::from((lap * 2 + 1) % 4), 1_u16);
            memory.write(512 + 2, lap * 2 + 2);
            device.complete();
            assert_eq!(memory.read::<u16>(1024 + 2), lap * 2 + 2);
            assert_eq!(memory.read::<u16>(1024 + 4 + 8 * 4), lap * 2 + 2, "avail_event");
            assert_eq!(memory.read::<u32>(1024 + 4 + 8 * usize::from((lap * 2 + 1) % 4)), 1);
        }
    }

    #[test]
    fn packed_descriptors_come_back() {
        let (device, memory) = start(Features::RING_PACKED);
        let memory = memory.memory();
        // A list of two, and one; the ring has four.
        let mut position = 0;
        for lap in 0..4_u16 {
            let mark = |position: usize| if (position / 4).is_multiple_of(2) { AVAIL } else { USED };
            for (number, (flags, id)) in [(NEXT, 9), (0, lap), (0, 100 + lap)].into_iter().enumerate() {
                let at = position + number;
                memory.write(at % 4 * 16 + 12, id);
                memory.write(at % 4 * 16 + 14, flags | mark(at));
            }
            device.complete();
            for (at, id) in [(position, lap), (position + 2, 100 + lap)] {
                assert_eq!(memory.read::<u16>(at % 4 * 16 + 12), id);
                assert_eq!(memory.read::<u16>(at % 4 * 16 + 14), if at / 4 % 2 == 0 { AVAIL | USED } else { 0 });
            }
            position += 3;
        }
    }
}
