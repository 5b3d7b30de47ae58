//! The transport alone.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hal::virtio::{DeviceStatus, QueueLayout, VirtioTransport};
use hal::{DmaMemory, NicError};
use virtio_net::Features;
use virtio_net::pci::PciTransport;

use crate::headers::STATION;
use crate::{MSIX, PATIENCE, rig};

fn open(settings: &[(&str, &str)]) -> PciTransport {
    PciTransport::new(rig(settings).0.device().unwrap()).unwrap()
}

#[test]
fn a_network_card_with_three_queues_and_its_address_is_found() {
    let mut transport = open(&[]);
    assert_eq!((transport.address(), transport.device_type()), ("sim:virtio-net", 1));
    assert_eq!((transport.queues().unwrap(), transport.max_queue_size(2).unwrap(), transport.max_queue_size(3).unwrap()), (3, 64, 0));
    assert_eq!((transport.max_queue_size(0).unwrap(), transport.max_queue_size(1).unwrap()), (256, 256));
    let (mut mac, mut status) = ([0; 6], [0; 2]);
    transport.read_config(0, &mut mac).unwrap();
    transport.read_config(6, &mut status).unwrap();
    assert_eq!((mac, status), (STATION, [1, 0]));
    assert!(transport.read_config(4096, &mut mac).is_err());
}

#[test]
fn features_are_what_the_device_was_made_with() {
    let offered = |settings: &[(&str, &str)]| Features::from_bits_retain(open(settings).device_features().unwrap());
    // The word that QEMU 7.2 offers on a wire without offloads.
    assert_eq!(offered(&[]).bits(), 0x101_30bf_8024);
    let other = offered(&[("packed", "on"), ("iommu_platform", "on"), ("event_idx", "off"), ("host_mtu", "1400")]);
    assert!(other.contains(Features::RING_PACKED | Features::ACCESS_PLATFORM | Features::MTU) && !other.contains(Features::EVENT_IDX));
}

#[test]
fn a_transitional_device_is_driven_and_a_legacy_one_is_refused_with_what_is_needed() {
    let device = |modern| rig(&[("disable-legacy", "off"), ("disable-modern", modern)]).0.device().unwrap();
    let both = device("off");
    assert_eq!(both.identity().to_string(), "1af4:1000");
    assert!(PciTransport::new(both).unwrap().device_features().unwrap() & Features::VERSION_1.bits() != 0);
    let Err(NicError::WrongDevice(reason)) = PciTransport::new(device("on")) else { panic!("a legacy device was opened") };
    assert!(reason.contains("legacy") && reason.contains("disable-legacy=on"), "{reason}");
}

#[test]
fn a_queue_can_be_reset_alone_and_enabled_again() {
    let mut transport = open(&[]);
    let memory = DmaMemory::new(&transport.dma(), "queue", 8192).unwrap();
    let base = memory.iova();
    let layout = QueueLayout { size: 64, descriptors: base, driver: base + 2048, device: base + 4096 };
    transport.set_status(DeviceStatus::empty()).unwrap();
    let mut status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
    transport.set_status(status).unwrap();
    transport.set_driver_features((Features::VERSION_1 | Features::RING_RESET).bits()).unwrap();
    status |= DeviceStatus::FEATURES_OK;
    transport.set_status(status).unwrap();
    assert_eq!(transport.status().unwrap(), status);
    for _ in 0..2 {
        transport.enable_queue(1, layout).unwrap();
        transport.set_status(status | DeviceStatus::DRIVER_OK).unwrap();
        transport.reset_queue(1).unwrap();
        assert_eq!(transport.max_queue_size(1).unwrap(), 256, "as after a reset");
    }
    assert!(transport.enable_queue(1, QueueLayout { size: 512, ..layout }).is_err());
    assert!(transport.enable_queue(3, layout).is_err());
    transport.set_status(DeviceStatus::empty()).unwrap();
    assert!(transport.status().unwrap().is_empty());
}

#[test]
fn each_queue_has_a_vector_of_its_own() {
    let (rig, _wire) = rig(&[MSIX]);
    let mut transport = PciTransport::new(rig.device().unwrap()).unwrap();
    let queue = DmaMemory::new(&transport.dma(), "queue", 8192).unwrap();
    let (base, memory) = (queue.iova(), queue.memory());
    let layout = QueueLayout { size: 64, descriptors: base, driver: base + 2048, device: base + 4096 };
    transport.set_status(DeviceStatus::empty()).unwrap();
    let status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
    transport.set_status(status).unwrap();
    transport.set_driver_features(Features::VERSION_1.bits()).unwrap();
    transport.set_status(status | DeviceStatus::FEATURES_OK).unwrap();
    let doorbell = transport.enable_queue(1, layout).unwrap();
    let mut interrupts = [Some(1), Some(0), None].map(|queue| transport.interrupt(queue).unwrap());
    transport.set_status(status | DeviceStatus::FEATURES_OK | DeviceStatus::DRIVER_OK).unwrap();
    for frame in 1..4_u16 {
        // A header of zeros and 60 bytes, in descriptor 0.
        memory.write(0, [base + 6144, 72]);
        memory.write(2048 + 2 + 2 * usize::from(frame), 0_u16);
        memory.atomic_u16(2048 + 2).store(frame, Ordering::Release);
        doorbell.ring(1).unwrap();
        assert!(interrupts[0].wait(PATIENCE).unwrap(), "frame {frame}");
        assert!(interrupts[1..].iter_mut().all(|other| !other.wait(Duration::ZERO).unwrap()), "nothing happened to the others");
        assert_eq!(memory.atomic_u16(4096 + 2).load(Ordering::Acquire), frame);
    }
    assert!(!interrupts[0].wait(Duration::ZERO).unwrap(), "each came once");
}
