use hal::virtio::{DeviceStatus, QueueLayout};

use super::*;

fn cold(features: Features) -> Bench {
    Bench::cold(ModelConfig { mac: MAC, features, queue_size: SIZE, pairs: 2, ..ModelConfig::default() })
}

#[test]
fn the_usual_start_is_clean() {
    let mut bench = cold(Features::USUAL);
    assert_eq!(bench.transport.device_type(), 1);
    assert_eq!(bench.transport.device_features().unwrap(), Features::USUAL.bits());
    assert_eq!((bench.transport.queues().unwrap(), bench.transport.max_queue_size(0).unwrap()), (5, SIZE));
    assert_eq!(bench.transport.max_queue_size(5).unwrap(), 0);
    bench.start(Features::USUAL);
    assert_eq!(bench.model.status(), 15);
    bench.clean();
    assert!(matches!(bench.transport.set_status(DeviceStatus::empty()), Ok(())));
    assert_eq!((bench.model.status(), bench.model.accepted()), (0, Features::empty()));
    bench.clean();
}

#[test]
fn status_bits_are_set_in_order_and_never_cleared() {
    let mut bench = cold(Features::USUAL);
    bench.set_status(DeviceStatus::DRIVER);
    bench.set_status(DeviceStatus::DRIVER_OK);
    bench.transport.set_status(DeviceStatus::ACKNOWLEDGE).unwrap();
    bench.violates("DRIVER was set before ACKNOWLEDGE");
    bench.violates("DRIVER_OK was set before FEATURES_OK");
    bench.violates("bits 0x6 of the device status were cleared");
    let mut bench = cold(Features::USUAL);
    bench.set_status(DeviceStatus::FEATURES_OK);
    bench.violates("FEATURES_OK was set before DRIVER");
}

#[test]
fn features_ok_is_read_back() {
    let mut bench = cold(Features::USUAL);
    bench.set_status(DeviceStatus::ACKNOWLEDGE);
    bench.set_status(DeviceStatus::DRIVER);
    bench.transport.set_driver_features(Features::USUAL.bits()).unwrap();
    bench.set_status(DeviceStatus::FEATURES_OK);
    bench.set_status(DeviceStatus::DRIVER_OK);
    bench.violates("DRIVER_OK was set without reading FEATURES_OK back");
}

#[test]
fn features_are_accepted_that_were_offered_and_go_together() {
    let mut bench = cold(Features::USUAL);
    bench.negotiate(Features::USUAL | Features::RING_PACKED);
    bench.violates("features 0x400000000 were accepted that were not offered");
    assert_eq!(bench.model.status() & 8, 0, "refused");
    for (without, text) in [
        (Features::CSUM, "HOST_TSO4 was accepted without CSUM"),
        (Features::CSUM, "HOST_USO was accepted without CSUM"),
        (Features::GUEST_CSUM, "GUEST_TSO6 was accepted without GUEST_CSUM"),
        (Features::CTRL_VQ, "MQ was accepted without CTRL_VQ"),
        (Features::CTRL_VQ, "NOTF_COAL was accepted without CTRL_VQ"),
        (Features::HOST_TSO4 | Features::HOST_TSO6, "HOST_ECN was accepted without HOST_TSO4 or HOST_TSO6"),
        (Features::VERSION_1, "VERSION_1 was offered and not accepted"),
        (Features::ACCESS_PLATFORM, "ACCESS_PLATFORM was offered and not accepted"),
    ] {
        let mut bench = cold(Features::USUAL);
        bench.negotiate(Features::USUAL - without);
        bench.violates(text);
    }
}

#[test]
fn features_are_accepted_at_their_time() {
    let mut bench = cold(Features::USUAL);
    bench.transport.set_driver_features(0).unwrap();
    bench.violates("features were accepted before DRIVER");
    bench.negotiate(Features::USUAL);
    bench.transport.set_driver_features(0).unwrap();
    bench.violates("features were accepted after FEATURES_OK");
    assert_eq!(bench.model.accepted(), Features::USUAL);
}

#[test]
fn queues_are_enabled_once_and_at_their_time() {
    let mut bench = cold(Features::USUAL);
    bench.transport.enable_queue(0, bench.layout(0)).unwrap();
    bench.violates("queue 0 was enabled before FEATURES_OK");
    bench.negotiate(Features::USUAL);
    bench.transport.enable_queue(0, bench.layout(0)).unwrap();
    bench.transport.enable_queue(0, bench.layout(0)).unwrap();
    bench.violates("queue 0 was enabled twice");
    bench.set_status(DeviceStatus::DRIVER_OK);
    bench.transport.enable_queue(1, bench.layout(1)).unwrap();
    bench.violates("queue 1 was enabled after DRIVER_OK");
    assert!(bench.transport.enable_queue(5, bench.layout(0)).is_err());
    bench.violates("queue 5 was enabled, which does not exist");
}

#[test]
fn queues_have_a_size_and_memory_that_fit() {
    let mut bench = cold(Features::USUAL);
    bench.negotiate(Features::USUAL);
    let good = bench.layout(0);
    for (size, text) in [(0, "size of 0"), (12, "size of 12"), (32, "size of 32")] {
        assert!(bench.transport.enable_queue(0, QueueLayout { size, ..good }).is_err());
        bench.violates(text);
    }
    let bad = QueueLayout { descriptors: good.descriptors + 8, driver: good.driver + 1, device: good.device + 2, ..good };
    bench.transport.enable_queue(0, bad).unwrap();
    for text in [
        "the descriptor area of queue 0 is not aligned to 16 bytes",
        "the driver area of queue 0 is not aligned to 2 bytes",
        "the device area of queue 0 is not aligned to 4 bytes",
    ] {
        bench.violates(text);
    }
    bench.transport.enable_queue(1, QueueLayout { device: 0x1000, driver: good.descriptors + 16, ..good }).unwrap();
    bench.violates("the device area of queue 1 is not in mapped memory");
    bench.violates("the driver area of queue 1 overlaps its descriptor area");
    bench.write_device(2, 2, 7);
    bench.transport.enable_queue(2, bench.layout(2)).unwrap();
    bench.violates("the index of the used ring of queue 2 are not 0");
}

#[test]
fn a_packed_queue_need_not_be_a_power_of_two_but_is_written() {
    let features = Features::USUAL | Features::RING_PACKED;
    let mut bench = cold(features);
    bench.negotiate(features);
    let good = bench.layout(0);
    bench.transport.enable_queue(0, QueueLayout { size: 12, ..good }).unwrap();
    bench.clean();
    let memory = hal::SharedMemory::new("read-only", 4096).unwrap();
    let space = bench.transport.dma();
    let mapping = space.map_memory(&memory, hal::Access::Read).unwrap();
    bench.transport.enable_queue(1, QueueLayout { descriptors: mapping.iova(), driver: good.driver + 2, ..good }).unwrap();
    bench.violates("the descriptor area of queue 1 is not in mapped memory");
    bench.violates("the driver area of queue 1 is not aligned to 4 bytes");
    bench.transport.set_status(DeviceStatus::empty()).unwrap();
    space.unmap(mapping).unwrap();
}

#[test]
fn nothing_is_notified_before_driver_ok_or_without_a_queue() {
    let mut bench = cold(Features::USUAL);
    bench.negotiate(Features::USUAL);
    let doorbell = bench.transport.enable_queue(1, bench.layout(1)).unwrap();
    bench.send(&frame(60));
    doorbell.ring(1).unwrap();
    bench.violates("queue 1 was notified before DRIVER_OK");
    assert!(bench.model.step().is_empty());
    bench.set_status(DeviceStatus::DRIVER_OK);
    bench.transport.reset_queue(1).unwrap();
    doorbell.ring(1).unwrap();
    bench.violates("queue 1 was notified, but is not enabled");
}

#[test]
fn a_notification_tells_the_queue() {
    let mut bench = Bench::new();
    bench.send(&frame(60));
    bench.doorbells[1].ring(3).unwrap();
    bench.violates("queue 1 was notified with 0x3 instead of 0x1");
}

#[test]
fn with_notification_data_it_tells_the_next_position_too() {
    for ring in [Features::empty(), Features::RING_PACKED] {
        let mut bench = Bench::with(Features::USUAL | Features::NOTIFICATION_DATA | ring);
        for number in 1..=20_u32 {
            bench.send(&frame(60));
            let next = if bench.packed { (number % 16) | (u32::from(number < 16) << 15) } else { number };
            bench.doorbells[1].ring(1 | next << 16).unwrap();
            assert_eq!(bench.model.step().len(), 1);
        }
        bench.clean();
        bench.ring(TX);
        bench.violates("queue 1 was notified with 0x1 instead of");
    }
}

#[test]
fn a_queue_can_be_reset_and_enabled_again() {
    for mut bench in [Bench::new(), Bench::packed()] {
        bench.send(&frame(60));
        bench.ring(TX);
        bench.transport.reset_queue(TX).unwrap();
        assert!(bench.model.step().is_empty(), "what it held is gone");
        bench.memory.memory().write_bytes(0x1000, &[0; 0x1000]);
        (bench.available[1], bench.next[1]) = (0, 0);
        bench.doorbells[1] = bench.transport.enable_queue(TX, bench.layout(TX)).unwrap();
        bench.send(&frame(70));
        assert_eq!(bench.go(), [frame(70)]);
        bench.clean();
        bench.transport.reset_queue(TX).unwrap();
        bench.transport.reset_queue(TX).unwrap();
        bench.violates("queue 1 was reset, which is not enabled");
    }
    let mut bench = Bench::with(Features::USUAL - Features::RING_RESET);
    bench.transport.reset_queue(TX).unwrap();
    bench.violates("a queue was reset without VIRTIO_F_RING_RESET");
}

#[test]
fn the_configuration_is_read_only_and_tells_what_was_configured() {
    let config = ModelConfig { mac: MAC, mtu: 9000, pairs: 3, speed: 40_000, ..ModelConfig::default() };
    let mut bench = Bench::cold(config);
    let mut bytes = [0; 17];
    bench.transport.read_config(0, &mut bytes).unwrap();
    assert_eq!(bytes[..6], MAC.0);
    assert_eq!(bytes[6..], [1, 0, 3, 0, 0x28, 0x23, 0x40, 0x9c, 0, 0, 1]);
    bench.clean();
    bench.transport.read_config(17, &mut bytes[..1]).unwrap();
    bench.violates("byte 17 of the configuration was read, which needs HASH_REPORT or RSS");
    bench.transport.write_config(0, &[0; 6]).unwrap();
    bench.violates("6 bytes of the configuration were written at 0");
    assert!(bench.transport.read_config(20, &mut bytes).is_err());
}

#[test]
fn the_link_and_announcements_are_told_by_interrupt() {
    let mut bench = Bench::new();
    let mut interrupt = bench.transport.interrupt(None).unwrap();
    assert!(!interrupt.wait(std::time::Duration::ZERO).unwrap());
    bench.model.set_link(false);
    assert!(interrupt.wait(std::time::Duration::ZERO).unwrap() && !interrupt.wait(std::time::Duration::ZERO).unwrap());
    bench.model.ask_for_announcement();
    let mut status = [0; 2];
    bench.transport.read_config(6, &mut status).unwrap();
    assert_eq!((status, bench.model.config_interrupts()), ([2, 0], 2));
    assert_eq!(bench.model.receive(&incoming(60)), Received::Off);
}

#[test]
fn dropping_the_transport_stops_the_device() {
    let mut bench = Bench::new();
    bench.send(&frame(60));
    bench.ring(TX);
    let Bench { model, transport, memory, .. } = bench;
    drop(transport);
    assert!(model.step().is_empty());
    drop(memory);
    assert_eq!((model.violations(), model.mappings()), (vec![], 0));
}
