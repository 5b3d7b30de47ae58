//! The transport against a device made of a few bytes of configuration space and one BAR.

mod capability;
mod device;
mod interrupts;

use std::sync::Arc;

use hal::registers::{RegisterIo, Width};
use hal::virtio::{DeviceStatus, QueueLayout, VirtioTransport};
use hal::{BusError, RegisterError, Registers};

use super::PciTransport;
use device::{BAR_LEN, CONFIG, Fake, LAYOUT};

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
