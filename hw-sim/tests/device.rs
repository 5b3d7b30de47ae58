//! The rig's NICs as devices on a bus.

mod raw_e1000;

use std::time::Duration;

use hal::registers::Width;
use hal::{BusError, RegisterError};
use pagewire_hw_sim::rig::{Model, Rig, RigConfig, RigError, qemu_version};
use raw_e1000::{CAUSE_TXDW, ICR, ICS, IMS, RawE1000, local_rig};

const LONG: Duration = Duration::from_secs(10);

fn start(model: Model) -> Rig {
    Rig::start(RigConfig { mac: Some("52:54:00:aa:bb:cc".parse().unwrap()), ..RigConfig::new(model) }).unwrap()
}

#[test]
fn each_model_has_its_identity_and_its_bars() {
    let expected: [(Model, &str, [u64; 6]); 3] = [
        (Model::E1000, "8086:100e", [0x20000, 0x40, 0, 0, 0, 0]),
        (Model::E1000e, "8086:10d3", [0x20000, 0x20000, 0x20, 0x4000, 0, 0]),
        (Model::VirtioNet, "1af4:1041", [0, 0x1000, 0, 0, 0x4000, 0]),
    ];
    for (model, identity, lengths) in expected {
        let rig = start(model);
        let mut device = rig.device().unwrap();
        assert_eq!((device.identity().to_string(), device.identity().class), (identity.to_owned(), 0x02_0000));
        assert_eq!((device.address(), rig.model()), (format!("sim:{model}").as_str(), model));
        let found: Vec<u64> = (0..6).map(|index| device.bar(index).map_or(0, |bar| bar.len())).collect();
        assert_eq!(found, lengths, "{model}");
        assert!(matches!(device.bar(6), Err(BusError::NoBar(6))));
    }
}

#[test]
fn ports_and_memory_reach_the_same_registers() {
    let rig = start(Model::E1000e);
    let mut device = rig.device().unwrap();
    let (memory, ports) = (device.bar(0).unwrap(), device.bar(2).unwrap());
    // IOADDR and IODATA (82574 datasheet, 3.1.1.5) on RAL0, which has the address that was asked for.
    ports.write::<u32>(0, 0x5400).unwrap();
    assert_eq!(ports.read::<u32>(4).unwrap(), 0xaa00_5452);
    assert_eq!(memory.read::<u32>(0x5400).unwrap(), 0xaa00_5452);
    assert!(matches!(ports.read::<u64>(0), Err(RegisterError::OutOfRange { .. })));
}

#[test]
fn configuration_space_is_read_and_written_in_all_widths() {
    let rig = start(Model::E1000);
    let mut device = rig.device().unwrap();
    assert_eq!(device.config_read(0, Width::Double).unwrap(), 0x100e_8086);
    assert_eq!(device.config_read(2, Width::Word).unwrap(), 0x100e);
    assert_eq!(device.config_read(1, Width::Byte).unwrap(), 0x80);
    // The interrupt line is a scratch register.
    device.config_write(0x3c, Width::Byte, 0x5a).unwrap();
    assert_eq!(device.config_read(0x3c, Width::Byte).unwrap(), 0x5a);
    for (offset, width) in [(256, Width::Byte), (254, Width::Double), (1, Width::Word), (0, Width::Quad)] {
        assert!(matches!(device.config_read(offset, width), Err(BusError::Register(RegisterError::OutOfRange { .. }))));
    }
    device.set_bus_master(true).unwrap();
    assert_eq!(device.config_read(4, Width::Word).unwrap() & 7, 7);
    device.set_bus_master(false).unwrap();
    assert_eq!(device.config_read(4, Width::Word).unwrap() & 7, 3);
}

#[test]
fn a_device_is_open_once_and_closing_it_stops_its_access_to_memory() {
    let rig = start(Model::E1000);
    let mut device = rig.device().unwrap();
    device.set_bus_master(true).unwrap();
    assert!(matches!(rig.device(), Err(RigError::Open)));
    drop(device);
    assert_eq!(rig.device().unwrap().config_read(4, Width::Word).unwrap() & 4, 0);
}

#[test]
fn a_reset_is_refused_with_what_to_do_instead() {
    let error = start(Model::E1000).device().unwrap().reset().unwrap_err();
    assert!(matches!(&error, BusError::Reset(text) if text.contains("reset bit")), "{error}");
}

#[test]
fn the_completion_of_a_doorbell_raises_intx_until_its_cause_is_read() {
    let (rig, wire) = local_rig();
    let mut card = RawE1000::open(&rig);
    let mut interrupt = card.device.interrupt(0).unwrap();
    card.write(IMS, CAUSE_TXDW);
    assert!(!interrupt.wait(Duration::ZERO).unwrap());
    card.post_bytes(&[1; 60]);
    card.ring().unwrap();
    assert!(interrupt.wait(LONG).unwrap());
    assert!(interrupt.wait(LONG).unwrap());
    assert_eq!(card.read(ICR) & CAUSE_TXDW, CAUSE_TXDW);
    assert!(!interrupt.wait(Duration::from_millis(20)).unwrap());
    assert!(wire.receive(LONG).is_some());
}

#[test]
fn an_interrupt_wakes_a_thread_that_waits_while_others_use_the_registers() {
    for model in [Model::E1000, Model::E1000e] {
        let rig = start(model);
        let mut device = rig.device().unwrap();
        let registers = device.bar(0).unwrap();
        let mut interrupt = device.interrupt(0).unwrap();
        registers.write(IMS, 1u32).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(move || interrupt.wait(Duration::from_secs(60)).unwrap());
            for _ in 0..200 {
                registers.read::<u32>(8).unwrap();
            }
            registers.write(ICS, 1u32).unwrap();
            for _ in 0..200 {
                registers.read::<u32>(8).unwrap();
            }
            assert!(waiter.join().unwrap(), "{model}");
        });
    }
}

#[test]
fn other_vectors_are_refused_with_the_reason() {
    let rig = start(Model::VirtioNet);
    let mut device = rig.device().unwrap();
    assert!(device.interrupt(0).is_ok());
    assert!(matches!(device.interrupt(1), Err(BusError::NoInterrupt { vector: 1, .. })));
    // With MSI-X there are as many as the device has, which may be none.
    for (model, most) in [(Model::VirtioNet, 4), (Model::E1000e, 5), (Model::E1000, 0)] {
        let rig = Rig::start(RigConfig { msix: true, ..RigConfig::new(model) }).unwrap();
        let mut device = rig.device().unwrap();
        for vector in 0..most {
            assert!(!device.interrupt(vector).unwrap().wait(Duration::from_millis(1)).unwrap(), "{model}: nothing happened");
        }
        assert!(matches!(device.interrupt(most), Err(BusError::NoInterrupt { .. })), "{model} has {most}");
    }
}

#[test]
fn the_version_of_qemu_is_told() {
    drop(start(Model::E1000));
    let version = qemu_version().unwrap();
    assert!(version.chars().next().unwrap().is_ascii_digit(), "{version}");
}
