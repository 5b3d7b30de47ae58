//! The transport against a device made of a few bytes of configuration space and one BAR.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hal::registers::{RegisterIo, Width};
use hal::virtio::{DeviceStatus, QueueLayout, VirtioTransport};
use hal::{BusDevice, BusError, DmaSpace, Interrupt, NicError, PciIdentity, RegisterError, Registers};

use super::PciTransport;

const BAR_LEN: u64 = 0x1000;
const COMMON: u32 = 0;
const ISR: u32 = 0x100;
const CONFIG: u32 = 0x200;
const NOTIFY: u32 = 0x800;
const MULTIPLIER: u32 = 4;
const MSIX: usize = 0xb0;
const LAYOUT: QueueLayout = QueueLayout { size: 64, descriptors: 0x1_0000_1000, driver: 0x1_0000_2000, device: 0x1_0000_3000 };

/// What is behind the registers.
#[derive(Default)]
struct Device {
    features: u64,
    accepted: u64,
    select: u32,
    driver_select: u32,
    status: u8,
    /// Reads of the status for which a reset goes on.
    reset_takes: usize,
    /// Reads of the configuration that change it.
    changes: u8,
    generation: u8,
    queue: u16,
    queues: HashMap<u16, HashMap<u64, u32>>,
    num_queues: u16,
    vectors: u16,
    refuses_queues: bool,
    config_vector: u16,
    isr: u8,
    doorbells: Vec<(u64, u64)>,
    /// Whether MSI-X is enabled, and what is pending: vector 0 alone without.
    msix: bool,
    pending: HashMap<u16, usize>,
    bus_master: bool,
    accesses: Vec<(u64, Width)>,
}

/// The device on its bus.
#[derive(Clone)]
struct Fake {
    config: Arc<Mutex<[u8; 256]>>,
    device: Arc<Mutex<Device>>,
    identity: (u16, u16),
}

impl Fake {
    /// As QEMU's: MSI-X with 4 vectors, three queues.
    fn new() -> Self {
        let mut device = Device { num_queues: 3, vectors: 4, config_vector: 0xffff, ..Device::default() };
        device.features = 0x0000_0103_0000_8024;
        let fake = Self { config: Arc::new(Mutex::new([0; 256])), device: Arc::new(Mutex::new(device)), identity: (0x1af4, 0x1041) };
        fake.capability(0x40, 0x50, 1, COMMON, 60);
        fake.capability(0x50, 0x60, 3, ISR, 1);
        fake.capability(0x60, 0x70, 4, CONFIG, 24);
        fake.capability(0x70, 0x84, 2, NOTIFY, 0x100);
        fake.set(0x72, &[20]);
        fake.set(0x80, &MULTIPLIER.to_le_bytes());
        // Access by configuration space, which has no BAR to be right.
        fake.set(0x84, &[9, MSIX as u8, 20, 5, 0]);
        fake.set(MSIX, &[0x11, 0, 3, 0x00]);
        fake.set(0x06, &[0x10]);
        fake.set(0x34, &[0x40]);
        fake
    }

    fn set(&self, at: usize, bytes: &[u8]) {
        self.config.lock().unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A capability for a structure in BAR 4.
    fn capability(&self, at: usize, next: u8, kind: u8, offset: u32, len: u32) {
        self.set(at, &[9, next, 16, kind, 4, 0, 0, 0]);
        self.set(at + 8, &offset.to_le_bytes());
        self.set(at + 12, &len.to_le_bytes());
    }

    fn open(&self) -> Result<PciTransport, NicError> {
        PciTransport::new(Box::new(self.clone()))
    }

    #[track_caller]
    fn refused(&self) -> String {
        match self.open() {
            Err(NicError::WrongDevice(reason)) => reason,
            Err(error) => panic!("{error:?}"),
            Ok(_) => panic!("it was opened"),
        }
    }

    fn device(&self) -> std::sync::MutexGuard<'_, Device> {
        self.device.lock().unwrap()
    }

    /// The status, and whether it may use memory.
    fn state(&self) -> (u8, bool) {
        let device = self.device();
        (device.status, device.bus_master)
    }

    fn raise(&self, vector: u16) {
        *self.device().pending.entry(vector).or_default() += 1;
    }
}

impl BusDevice for Fake {
    fn address(&self) -> &str {
        "fake"
    }
    fn identity(&self) -> PciIdentity {
        PciIdentity { vendor: self.identity.0, device: self.identity.1, class: 0x02_0000, revision: 1 }
    }
    fn config_read(&self, offset: u16, width: Width) -> Result<u32, BusError> {
        let config = self.config.lock().unwrap();
        let (at, len) = (usize::from(offset), width as usize);
        assert!(at.is_multiple_of(len) && at + len <= 256, "{offset:#x} {width:?}");
        let mut bytes = [0; 4];
        bytes[..len].copy_from_slice(&config[at..at + len]);
        Ok(u32::from_le_bytes(bytes))
    }
    fn config_write(&self, offset: u16, _width: Width, _value: u32) -> Result<(), BusError> {
        panic!("a write to configuration space at {offset:#x}")
    }
    fn bar(&mut self, index: u8) -> Result<Registers, BusError> {
        if index == 4 { Ok(Registers::remote(Arc::new(self.clone()), BAR_LEN)) } else { Err(BusError::NoBar(index)) }
    }
    fn set_bus_master(&mut self, on: bool) -> Result<(), BusError> {
        self.device().bus_master = on;
        Ok(())
    }
    fn dma(&self) -> Arc<dyn DmaSpace> {
        unreachable!("no memory is mapped here")
    }
    fn interrupt(&mut self, vector: u16) -> Result<Box<dyn Interrupt>, BusError> {
        let msix = self.device().msix;
        let vectors = self.device().vectors;
        if msix {
            self.set(MSIX + 3, &[0x80]);
        }
        match vector {
            0 => Ok(Box::new(Line(self.clone(), 0))),
            vector if msix && vector < vectors => Ok(Box::new(Line(self.clone(), vector))),
            vector => Err(BusError::NoInterrupt { vector, reason: "there are fewer".into() }),
        }
    }
    fn reset(&mut self) -> Result<(), BusError> {
        Err(BusError::Reset("not here".into()))
    }
}

struct Line(Fake, u16);

impl Interrupt for Line {
    fn wait(&mut self, timeout: Duration) -> Result<bool, RegisterError> {
        let start = std::time::Instant::now();
        loop {
            {
                let mut device = self.0.device();
                // A level stays until its cause was read.
                let level = !device.msix && device.isr != 0;
                let message = device.pending.get_mut(&self.1).filter(|count| **count > 0);
                if let Some(count) = message {
                    *count -= 1;
                    return Ok(true);
                }
                if level {
                    return Ok(true);
                }
            }
            if start.elapsed() >= timeout {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl RegisterIo for Fake {
    fn read(&self, offset: u64, width: Width) -> Result<u64, RegisterError> {
        let mut device = self.device();
        let device = &mut *device;
        device.accesses.push((offset, width));
        let queue = device.queues.get(&device.queue);
        let of_queue = |default: u32| u64::from(queue.and_then(|queue| queue.get(&offset)).copied().unwrap_or(default));
        Ok(match (offset, width) {
            (4, Width::Double) => device.features >> (32 * device.select) & 0xffff_ffff,
            (16, Width::Word) => device.config_vector.into(),
            (18, Width::Word) => device.num_queues.into(),
            (20, Width::Byte) if device.status == 0 && device.reset_takes > 0 => {
                device.reset_takes -= 1;
                0x0f
            }
            (20, Width::Byte) => device.status.into(),
            (21, Width::Byte) => device.generation.into(),
            (24, Width::Word) => of_queue(256),
            (26, Width::Word) => of_queue(0xffff),
            (28 | 58, Width::Word) => of_queue(0),
            (30, Width::Word) => u64::from(device.queue) * 2,
            (0x100, Width::Byte) => std::mem::take(&mut device.isr).into(),
            (0x200..0x218, _) => {
                if device.changes > 0 {
                    device.changes -= 1;
                    device.generation = device.generation.wrapping_add(1);
                }
                (0..width as u64)
                    .fold(0, |value, byte| value | ((offset - 0x200 + byte + u64::from(device.generation)) & 0xff) << (8 * byte))
            }
            _ => panic!("a read of {offset:#x} {width:?}"),
        })
    }

    fn write(&self, offset: u64, width: Width, value: u64) -> Result<(), RegisterError> {
        let mut device = self.device();
        let device = &mut *device;
        device.accesses.push((offset, width));
        match (offset, width) {
            (0, Width::Double) => device.select = value as u32,
            (8, Width::Double) => device.driver_select = value as u32,
            (12, Width::Double) => device.accepted |= value << (32 * device.driver_select),
            (16, Width::Word) => device.config_vector = if value < device.vectors.into() { value as u16 } else { 0xffff },
            (20, Width::Byte) => {
                device.status = value as u8;
                if value == 0 {
                    device.queues.clear();
                    device.config_vector = 0xffff;
                }
            }
            (22, Width::Word) => device.queue = value as u16,
            (26, Width::Word) => {
                let vector = if value < device.vectors.into() { value as u32 } else { 0xffff };
                device.queues.entry(device.queue).or_default().insert(26, vector);
            }
            (28, Width::Word) if device.refuses_queues => {}
            (58, Width::Word) => drop(device.queues.remove(&device.queue)),
            (24 | 28, Width::Word) | (32..56, Width::Double) => {
                device.queues.entry(device.queue).or_default().insert(offset, value as u32);
            }
            (0x200..0x218, _) => {}
            (0x800..0x900, Width::Word) => device.doorbells.push((offset, value)),
            _ => panic!("a write of {value:#x} to {offset:#x} {width:?}"),
        }
        Ok(())
    }
}

#[test]
fn features_are_words_and_the_status_is_written_as_it_is() {
    let fake = Fake::new();
    let mut transport = fake.open().unwrap();
    assert_eq!(transport.device_features().unwrap(), 0x0000_0103_0000_8024);
    transport.set_driver_features(0x0000_0101_0000_0020).unwrap();
    assert_eq!(fake.device().accepted, 0x0000_0101_0000_0020);
    transport.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER).unwrap();
    assert_eq!(fake.state(), (3, false));
    transport.set_status(DeviceStatus::DRIVER_OK).unwrap();
    assert!(fake.device().bus_master, "before the device may use its queues");
    fake.device().reset_takes = 5;
    transport.set_status(DeviceStatus::empty()).unwrap();
    assert_eq!((fake.state(), fake.device().reset_takes), ((0, false), 0));
}

#[test]
fn dropping_it_resets_a_running_device() {
    let fake = Fake::new();
    let mut transport = fake.open().unwrap();
    transport.set_status(DeviceStatus::DRIVER_OK).unwrap();
    drop(transport);
    assert_eq!(fake.state(), (0, false));
}

#[test]
fn a_device_that_is_gone_or_does_not_end_its_reset_is_told_and_loses_the_bus() {
    let fake = Fake::new();
    let mut transport = fake.open().unwrap();
    transport.set_status(DeviceStatus::DRIVER_OK).unwrap();
    fake.device().reset_takes = usize::MAX;
    assert!(matches!(transport.set_status(DeviceStatus::empty()), Err(BusError::Reset(_))));
    assert!(!fake.device().bus_master);
}

#[test]
fn queues_get_their_addresses_a_doorbell_and_a_vector() {
    let fake = Fake::new();
    fake.device().msix = true;
    let mut transport = fake.open().unwrap();
    assert_eq!((transport.queues().unwrap(), transport.max_queue_size(1).unwrap(), transport.max_queue_size(3).unwrap()), (3, 256, 0));
    for index in 0..3 {
        transport.enable_queue(index, LAYOUT).unwrap().ring(index.into()).unwrap();
        let device = fake.device();
        let queue = &device.queues[&index];
        let expected = [(24, 64), (28, 1), (32, 0x1000), (36, 1), (40, 0x2000), (44, 1), (48, 0x3000), (52, 1), (26, u32::from(index) + 1)];
        assert!(expected.iter().all(|(register, value)| queue[register] == *value), "{queue:x?}");
    }
    assert_eq!(fake.device().config_vector, 0);
    // notify_off is twice the index, 4 bytes each.
    assert_eq!(fake.device().doorbells, [(0x800, 0), (0x808, 1), (0x810, 2)]);
    transport.reset_queue(1).unwrap();
    assert!(!fake.device().queues.contains_key(&1));
    // A reset takes the vectors away, and they are given again.
    transport.set_status(DeviceStatus::empty()).unwrap();
    assert_eq!(fake.device().config_vector, 0xffff);
    transport.enable_queue(0, LAYOUT).unwrap();
    assert_eq!(fake.device().config_vector, 0);
}

#[test]
fn queues_that_cannot_be_are_refused() {
    let fake = Fake::new();
    let mut transport = fake.open().unwrap();
    let refused = |transport: &mut PciTransport, index, layout, says: &str| {
        let error = transport.enable_queue(index, layout).map(drop).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    refused(&mut transport, 3, LAYOUT, "takes 0 at most");
    refused(&mut transport, 0, QueueLayout { size: 512, ..LAYOUT }, "512 entries");
    refused(&mut transport, 0, QueueLayout { size: 0, ..LAYOUT }, "0 entries");
    fake.device().refuses_queues = true;
    refused(&mut transport, 0, LAYOUT, "does not take it");
    assert!(transport.reset_queue(7).unwrap_err().to_string().contains("no such queue"));
    // The doorbell of queue 2 is at 0x10.
    fake.set(0x70 + 12, &[0x11, 0]);
    let mut transport = fake.open().unwrap();
    refused(&mut transport, 2, LAYOUT, "doorbell");
    // VIRTIO 1.0 has no reset of queues.
    fake.set(0x40 + 12, &[56]);
    assert!(fake.open().unwrap().reset_queue(0).unwrap_err().to_string().contains("no such register"));
}

#[test]
fn the_configuration_is_read_in_whole_fields_and_again_when_it_changes_meanwhile() {
    let fake = Fake::new();
    fake.device().changes = 3;
    let mut transport = fake.open().unwrap();
    let mut mac = [0; 6];
    transport.read_config(0, &mut mac).unwrap();
    // Each byte is its offset and the generation, which was 3 in the last round.
    assert_eq!(mac, [3, 4, 5, 6, 7, 8]);
    fake.device().accesses.clear();
    for (offset, len, width, accesses) in
        [(6, 2, Width::Word, 1), (12, 4, Width::Double, 1), (16, 8, Width::Double, 2), (5, 2, Width::Byte, 2)]
    {
        let mut bytes = vec![0; len];
        transport.read_config(offset, &mut bytes).unwrap();
        assert_eq!(bytes, (0..len).map(|byte| (offset as usize + byte + 3) as u8).collect::<Vec<_>>());
        transport.write_config(offset, &bytes).unwrap();
        let device = &mut *fake.device();
        let of_config = device.accesses.iter().filter(|(offset, _)| *offset >= u64::from(CONFIG));
        assert_eq!(of_config.clone().count(), 2 * accesses);
        assert!(of_config.clone().all(|(_, one)| *one == width));
        device.accesses.clear();
    }
    assert!(transport.read_config(22, &mut mac).is_err() && transport.write_config(24, &[0]).is_err());
    fake.device().changes = u8::MAX;
    assert!(transport.read_config(0, &mut [0; 2]).is_ok());
}

#[test]
fn vectors_are_shared_where_there_are_too_few() {
    let fake = Fake::new();
    {
        let mut device = fake.device();
        (device.msix, device.vectors, device.num_queues) = (true, 3, 5);
    }
    let mut transport = fake.open().unwrap();
    for index in 0..5 {
        transport.enable_queue(index, LAYOUT).unwrap();
    }
    let vectors = (0..5).map(|index| fake.device().queues[&index][&26]).collect::<Vec<_>>();
    assert_eq!(vectors, [1, 2, 2, 2, 2]);
    let mut all: Vec<_> = [None, Some(0), Some(1), Some(4)].map(|queue| transport.interrupt(queue).unwrap()).into();
    fake.raise(2);
    let came: Vec<bool> = all.iter_mut().map(|interrupt| interrupt.wait(Duration::ZERO).unwrap()).collect();
    assert_eq!(came, [false, false, true, true]);
    fake.raise(0);
    let came: Vec<bool> = all.iter_mut().map(|interrupt| interrupt.wait(Duration::ZERO).unwrap()).collect();
    assert_eq!(came, [true, false, false, false]);
}

#[test]
fn users_of_one_line_wake_each_other_whoever_takes_the_interrupt() {
    let fake = Fake::new();
    let mut transport = fake.open().unwrap();
    transport.enable_queue(0, LAYOUT).unwrap();
    assert_eq!(fake.device().config_vector, 0xffff, "no vectors without MSI-X");
    let mut interrupts: Vec<_> = [Some(0), Some(1), None].map(|queue| transport.interrupt(queue).unwrap()).into();
    std::thread::scope(|scope| {
        let waiting: Vec<_> =
            interrupts.iter_mut().map(|interrupt| scope.spawn(|| interrupt.wait(Duration::from_secs(20)).unwrap())).collect();
        fake.device().isr = 1;
        // The third one waits for a change of the configuration, which comes when the others have been woken.
        let mut waiting = waiting.into_iter();
        assert!(waiting.by_ref().take(2).all(|thread| thread.join().unwrap()));
        fake.device().isr = 2;
        assert!(waiting.all(|thread| thread.join().unwrap()));
    });
    assert!(interrupts.iter_mut().all(|interrupt| !interrupt.wait(Duration::ZERO).unwrap()));
    assert_eq!(fake.device().isr, 0);
}

#[test]
fn what_is_not_a_modern_network_card_is_refused_with_what_is_needed() {
    let mut fake = Fake::new();
    fake.identity = (0x1af4, 0x1042);
    assert!(fake.refused().contains("not a virtio network card"));
    fake.identity = (0x1af4, 0x1000);
    assert!(fake.open().is_ok(), "a transitional device has both sides");
    fake.set(0x34, &[MSIX as u8]);
    assert!(fake.refused().contains("disable-legacy=on"));
    fake.set(0x06, &[0]);
    assert!(fake.refused().contains("VIRTIO 1.0"), "no capabilities at all");
}

#[test]
fn malformed_lists_of_capabilities_are_refused() {
    for (at, next, says) in
        [(0x51, 0x40, "comes back to 0x40"), (0x51, 0x50, "comes back to 0x50"), (0x34, 0x10, "into the header, to 0x10")]
    {
        let fake = Fake::new();
        fake.set(at, &[next]);
        assert!(fake.refused().contains(says), "{}", fake.refused());
    }
}

#[test]
fn a_capability_that_makes_no_sense_is_passed_over_for_the_next_one() {
    for (what, at, bytes, says) in [
        ("too short", 0x42, vec![15], "has 15 bytes"),
        ("in no BAR", 0x44, vec![6], "is for BAR 6"),
        ("in a BAR that is not there", 0x44, vec![2], "no usable BAR 2"),
        ("outside its BAR", 0x48, 0xfe0_u32.to_le_bytes().to_vec(), "0x3c bytes at 0xfe0 of BAR 4"),
        ("outside every BAR", 0x48, u32::MAX.to_le_bytes().to_vec(), "at 0xffffffff of BAR 4"),
        ("smaller than its registers", 0x4c, vec![55], "it needs 56"),
        ("of another kind", 0x43, vec![77], "registers"),
    ] {
        let fake = Fake::new();
        fake.set(at, &bytes);
        assert!(fake.refused().contains(says), "{what}: {}", fake.refused());
        // A second one of the kind is as good. At the end of the space, which has room for it.
        fake.set(MSIX + 1, &[0xf0]);
        fake.capability(0xf0, 0, 1, COMMON, 60);
        assert_eq!(fake.open().unwrap_or_else(|error| panic!("{what}: {error}")).queues().unwrap(), 3);
    }
    // The first of two good ones is taken.
    let fake = Fake::new();
    fake.set(MSIX + 1, &[0xf0]);
    fake.capability(0xf0, 0, 1, COMMON + 0x400, 60);
    assert_eq!(fake.open().unwrap().queues().unwrap(), 3);
    // One that would go beyond the space.
    fake.set(MSIX + 1, &[0xfc]);
    fake.set(0x40, &[0]);
    fake.set(0xfc, &[9, 0, 16, 1]);
    assert!(fake.refused().contains("end of configuration space"));
}

#[test]
fn doorbells_that_would_not_be_aligned_are_refused() {
    for multiplier in [1_u32, 3, 6, u32::MAX] {
        let fake = Fake::new();
        fake.set(0x80, &multiplier.to_le_bytes());
        assert!(fake.refused().contains("no even power of two"), "{multiplier}: {}", fake.refused());
    }
    let fake = Fake::new();
    fake.set(0x80, &[0; 4]);
    let mut transport = fake.open().unwrap();
    for index in 0..2 {
        transport.enable_queue(index, LAYOUT).unwrap().ring(index.into()).unwrap();
    }
    assert_eq!(fake.device().doorbells, [(0x800, 0), (0x800, 1)], "one doorbell for all");
}

#[test]
fn a_status_of_all_ones_is_a_device_that_is_gone() {
    let fake = Fake::new();
    let mut transport = fake.open().unwrap();
    fake.device().reset_takes = 0;
    // The write is lost, too.
    struct Gone;
    impl RegisterIo for Gone {
        fn read(&self, _: u64, _: Width) -> Result<u64, RegisterError> {
            Ok(u64::MAX)
        }
        fn write(&self, _: u64, _: Width, _: u64) -> Result<(), RegisterError> {
            Ok(())
        }
    }
    transport.common = super::Common(super::Region::new(Registers::remote(Arc::new(Gone), BAR_LEN), 0, 60).unwrap());
    let error = transport.set_status(DeviceStatus::empty()).unwrap_err().to_string();
    assert!(error.contains("all ones"), "{error}");
}
