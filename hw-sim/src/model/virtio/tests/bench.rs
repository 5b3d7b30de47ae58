//! A driver that writes rings by hand: as little of one as the tests need.

use hal::virtio::{DeviceStatus, QueueLayout, VirtioTransport};
use hal::{DmaMemory, Doorbell};

use super::*;

/// Entries of each queue.
pub const SIZE: u16 = 16;
/// Memory of each queue: descriptors, driver area, device area, at these offsets.
const QUEUE: usize = 0x1000;
const DRIVER_AREA: usize = 0x800;
const DEVICE_AREA: usize = 0xa00;
/// Where buffers go.
const DATA: usize = 0x1_0000;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

pub const RX: u16 = 0;
pub const TX: u16 = 1;
pub const CONTROL: u16 = 2;

/// An element: address, length, whether the device writes it.
pub type Element = (u64, u32, bool);

/// A model with its queues enabled, in one piece of memory.
pub struct Bench {
    pub model: VirtioNetModel,
    pub transport: Box<dyn VirtioTransport>,
    pub memory: DmaMemory,
    pub doorbells: Vec<Doorbell>,
    pub packed: bool,
    /// For each queue: how many entries (split) or descriptors (packed) were made available.
    pub available: Vec<u16>,
    /// Split: the next free descriptor. Packed: the next identifier.
    pub next: Vec<u16>,
    /// Where the next buffer goes.
    free: usize,
}

impl Bench {
    /// Features as usual, but without event indices and without mergeable buffers: the plainest device.
    pub fn new() -> Self {
        Self::with(Features::USUAL - Features::EVENT_IDX)
    }

    pub fn packed() -> Self {
        Self::with((Features::USUAL - Features::EVENT_IDX) | Features::RING_PACKED)
    }

    pub fn with(features: Features) -> Self {
        Self::of(ModelConfig { mac: MAC, features, queue_size: SIZE, ..ModelConfig::default() })
    }

    /// Whatever is offered is accepted.
    pub fn of(config: ModelConfig) -> Self {
        let features = config.features;
        let mut bench = Self::cold(config);
        bench.start(features);
        bench
    }

    /// Nothing done yet.
    pub fn cold(config: ModelConfig) -> Self {
        let packed = config.features.contains(Features::RING_PACKED);
        let model = VirtioNetModel::with(config);
        let mut transport = model.transport();
        let queues = usize::from(transport.queues().unwrap());
        let memory = DmaMemory::new(&transport.dma(), "bench", 0x20_0000).unwrap();
        let (available, next) = (vec![0; queues], vec![0; queues]);
        Self { model, transport, memory, doorbells: Vec::new(), packed, available, next, free: DATA }
    }

    /// What 3.1.1 says.
    pub fn start(&mut self, features: Features) {
        self.negotiate(features);
        for index in 0..self.available.len() as u16 {
            let doorbell = self.transport.enable_queue(index, self.layout(index)).unwrap();
            self.doorbells.push(doorbell);
        }
        self.set_status(DeviceStatus::DRIVER_OK);
    }

    pub fn negotiate(&mut self, features: Features) {
        self.transport.set_status(DeviceStatus::empty()).unwrap();
        self.doorbells.clear();
        self.set_status(DeviceStatus::ACKNOWLEDGE);
        self.set_status(DeviceStatus::DRIVER);
        self.transport.set_driver_features(features.bits()).unwrap();
        self.set_status(DeviceStatus::FEATURES_OK);
        self.transport.status().unwrap();
    }

    /// Sets one more bit.
    pub fn set_status(&mut self, bit: DeviceStatus) {
        let status = self.model.status();
        self.transport.set_status(DeviceStatus::from_bits_retain(status) | bit).unwrap();
    }

    pub fn layout(&self, index: u16) -> QueueLayout {
        let at = |offset: usize| self.memory.iova() + (usize::from(index) * QUEUE + offset) as u64;
        QueueLayout { size: SIZE, descriptors: at(0), driver: at(DRIVER_AREA), device: at(DEVICE_AREA) }
    }

    fn offset(&self, index: u16, area: usize) -> usize {
        usize::from(index) * QUEUE + area
    }

    /// A word of a queue's driver area, and of its device area, at `at` bytes.
    pub fn write_driver(&self, index: u16, at: usize, value: u16) {
        self.memory.memory().write(self.offset(index, DRIVER_AREA) + at, value);
    }

    pub fn write_device(&self, index: u16, at: usize, value: u16) {
        self.memory.memory().write(self.offset(index, DEVICE_AREA) + at, value);
    }

    pub fn read_device(&self, index: u16, at: usize) -> u16 {
        self.memory.memory().read(self.offset(index, DEVICE_AREA) + at)
    }

    /// Puts bytes into memory; returns their bus address.
    pub fn place(&mut self, bytes: &[u8]) -> u64 {
        let at = self.free;
        self.memory.memory().write_bytes(at, bytes);
        self.free += bytes.len().next_multiple_of(64);
        self.memory.iova() + at as u64
    }

    /// Memory for the device to write.
    pub fn room(&mut self, len: usize) -> u64 {
        self.place(&vec![0xaa; len])
    }

    pub fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.memory().read_bytes((address - self.memory.iova()) as usize, &mut bytes);
        bytes
    }

    /// A descriptor into slot `slot` of a queue; `link` is next or identifier.
    pub fn put(&self, index: u16, slot: u16, address: u64, len: u32, flags: u16, link: u16) {
        let raw = descriptor(self.packed, address, len, flags, link);
        self.memory.memory().write_bytes(self.offset(index, usize::from(slot) * 16), &raw);
    }

    pub fn raw(&self, index: u16, slot: u16) -> [u8; 16] {
        let mut raw = [0; 16];
        self.memory.memory().read_bytes(self.offset(index, usize::from(slot) * 16), &mut raw);
        raw
    }

    /// Packed: AVAIL and USED for a descriptor that is made available at this position.
    pub fn marks(position: u16) -> u16 {
        if (position / SIZE).is_multiple_of(2) { 1 << 7 } else { 1 << 15 }
    }

    /// A chain of direct descriptors, available. Returns its identifier.
    pub fn post(&mut self, index: u16, elements: &[Element]) -> u16 {
        let queue = usize::from(index);
        let count = elements.len() as u16;
        let first = self.next[queue];
        let position = self.available[queue];
        for (number, (address, len, write)) in elements.iter().enumerate().rev() {
            let last = number + 1 == elements.len();
            let flags = if last { 0 } else { NEXT } | if *write { WRITE } else { 0 };
            let number = number as u16;
            if self.packed {
                let at = position + number;
                self.put(index, at % SIZE, *address, *len, flags | Self::marks(at), first);
            } else {
                let next = if last { 0 } else { (first + number + 1) % SIZE };
                self.put(index, (first + number) % SIZE, *address, *len, flags, next);
            }
        }
        if self.packed {
            self.next[queue] = (first + 1) % SIZE;
            self.available[queue] = (position + count) % (2 * SIZE);
        } else {
            self.next[queue] = (first + count) % SIZE;
            self.offer(index, first);
        }
        first
    }

    /// One descriptor with a table of these elements.
    pub fn post_indirect(&mut self, index: u16, elements: &[Element]) -> u16 {
        let table: Vec<u8> = elements
            .iter()
            .enumerate()
            .flat_map(|(number, (address, len, write))| {
                let next = !self.packed && number + 1 < elements.len();
                let flags = if next { NEXT } else { 0 } | if *write { WRITE } else { 0 };
                descriptor(self.packed, *address, *len, flags, if next { number as u16 + 1 } else { 0 })
            })
            .collect();
        let address = self.place(&table);
        self.post_raw(index, address, table.len() as u32, INDIRECT, 0)
    }

    /// One descriptor with any flags.
    pub fn post_raw(&mut self, index: u16, address: u64, len: u32, flags: u16, next: u16) -> u16 {
        let queue = usize::from(index);
        let (first, position) = (self.next[queue], self.available[queue]);
        self.next[queue] = (first + 1) % SIZE;
        if self.packed {
            self.put(index, position % SIZE, address, len, flags | Self::marks(position), first);
            self.available[queue] = (position + 1) % (2 * SIZE);
        } else {
            self.put(index, first, address, len, flags, next);
            self.offer(index, first);
        }
        first
    }

    /// Split: the chain of descriptor `head` becomes available.
    pub fn offer(&mut self, index: u16, head: u16) {
        let position = self.available[usize::from(index)];
        self.write_driver(index, 4 + 2 * usize::from(position % SIZE), head);
        self.available[usize::from(index)] = position.wrapping_add(1);
        self.write_driver(index, 2, position.wrapping_add(1));
    }

    pub fn ring(&self, index: u16) {
        self.doorbells[usize::from(index)].ring(index.into()).unwrap();
    }

    /// The doorbell of the first transmit queue, and time.
    pub fn go(&self) -> Vec<Vec<u8>> {
        self.ring(TX);
        self.model.step()
    }

    /// A frame behind this header, in one element, available.
    pub fn send_with(&mut self, header: &[u8], frame: &[u8]) -> u16 {
        let bytes = [header, frame].concat();
        let address = self.place(&bytes);
        self.post(TX, &[(address, bytes.len() as u32, false)])
    }

    pub fn send(&mut self, frame: &[u8]) -> u16 {
        self.send_with(&[0; 12], frame)
    }

    /// Receive buffers of `len` bytes, available and notified; returns where they are.
    pub fn refill(&mut self, count: usize, len: usize) -> Vec<u64> {
        let rooms: Vec<u64> = (0..count).map(|_| self.room(len)).collect();
        rooms.iter().for_each(|room| {
            self.post(RX, &[(*room, len as u32, true)]);
        });
        self.ring(RX);
        rooms
    }

    /// A command, with room for the answer; returns the answer.
    pub fn command(&mut self, command: &[u8]) -> u8 {
        *self.command_returning(command, 0).last().unwrap()
    }

    /// A command with `result` bytes before the answer.
    pub fn command_returning(&mut self, command: &[u8], result: usize) -> Vec<u8> {
        let address = self.place(command);
        let answer = self.room(result + 1);
        self.post(CONTROL, &[(address, command.len() as u32, false), (answer, result as u32 + 1, true)]);
        self.ring(CONTROL);
        self.model.step();
        self.bytes(answer, result + 1)
    }

    /// Split: the used index.
    pub fn used_index(&self, index: u16) -> u16 {
        self.read_device(index, 2)
    }

    /// What the device wrote at used position `position`: identifier and length.
    pub fn used(&self, index: u16, position: u16) -> (u16, u32) {
        if self.packed {
            let raw = self.raw(index, position % SIZE);
            (u16::from_le_bytes([raw[12], raw[13]]), u32::from_le_bytes(raw[8..12].try_into().unwrap()))
        } else {
            let at = self.offset(index, DEVICE_AREA) + 4 + 8 * usize::from(position % SIZE);
            (self.memory.memory().read::<u32>(at) as u16, self.memory.memory().read(at + 4))
        }
    }

    /// Whether the buffer at used position `position` came back.
    pub fn is_used(&self, index: u16, position: u16) -> bool {
        if !self.packed {
            return self.used_index(index).wrapping_sub(position) as i16 > 0;
        }
        let flags = u16::from_le_bytes(self.raw(index, position % SIZE)[14..].try_into().unwrap());
        let both = 1 << 7 | 1 << 15;
        flags & both == if (position / SIZE).is_multiple_of(2) { both } else { 0 }
    }

    #[track_caller]
    pub fn clean(&self) {
        assert_eq!(self.model.violations(), [""; 0]);
        assert_eq!(self.model.faulted_accesses(), []);
    }

    /// Some violation has `text` in it.
    #[track_caller]
    pub fn violates(&self, text: &str) {
        let violations = self.model.violations();
        assert!(violations.iter().any(|violation| violation.contains(text)), "no {text:?} in {violations:#?}");
    }
}

/// A descriptor as it lies in memory.
pub fn descriptor(packed: bool, address: u64, len: u32, flags: u16, link: u16) -> [u8; 16] {
    let mut raw = [0; 16];
    raw[..8].copy_from_slice(&address.to_le_bytes());
    raw[8..12].copy_from_slice(&len.to_le_bytes());
    let (low, high) = if packed { (link, flags) } else { (flags, link) };
    raw[12..14].copy_from_slice(&low.to_le_bytes());
    raw[14..].copy_from_slice(&high.to_le_bytes());
    raw
}
