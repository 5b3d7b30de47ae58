use std::sync::Arc;

use hal::registers::Width;
use hal::{
    BusDevice, BusError, DmaSpace, Interrupt, MacAddress, Nic, NicError, OffloadFlags, PciIdentity, Pool, PoolConfig, Registers, RxFilter,
};
use hw_sim::model::e1000::E1000Model;
use pagewire_e1000::{E1000, E1000Config};

use crate::bench::Bench;
use crate::headers::{STATION, plain};

fn refused(config: E1000Config) -> String {
    let model = E1000Model::new(MacAddress(STATION));
    let Err(error) = E1000::start(model.device(), config.clone()) else { panic!("{config:?} was accepted") };
    assert!(matches!(error, NicError::Config(_)), "{error:?}");
    error.to_string()
}

#[test]
fn the_station_address_is_the_eeproms() {
    for mac in [[0x52, 0x54, 0, 0x12, 0x34, 0x56], [2, 0xff, 0xfe, 0xfd, 0xfc, 0xfb]] {
        let model = E1000Model::new(MacAddress(mac));
        let nic = E1000::start(model.device(), E1000Config::default()).unwrap();
        assert_eq!((nic.mac(), nic.model(), nic.address()), (MacAddress(mac), "Intel 82540EM", "model:e1000"));
    }
}

#[test]
fn the_link_is_up_at_1000_mbit_when_the_cable_is_in() {
    let mut bench = Bench::new();
    let link = bench.nic.link().unwrap();
    assert!(link.up && link.full_duplex);
    assert_eq!(link.speed, 1000);
    bench.model.set_link(false);
    let link = bench.nic.link().unwrap();
    assert_eq!((link.up, link.speed), (false, 0));
    bench.finish();
}

#[test]
fn rings_of_80_to_4096_descriptors_in_eights_are_accepted() {
    for len in [80, 88, 256, 4096] {
        let mut bench = Bench::with(E1000Config { tx_descriptors: len, rx_descriptors: len, ..E1000Config::default() });
        assert_eq!(bench.send_bytes(&plain(STATION, 1, 60), hal::Offload::NONE), [plain(STATION, 1, 60)]);
        bench.deliver(&plain(STATION, 2, 60));
        assert_eq!(bench.received(), [plain(STATION, 2, 60)]);
        bench.finish();
    }
    for len in [0, 72, 81, 4095, 4104, u16::MAX] {
        assert!(refused(E1000Config { tx_descriptors: len, ..E1000Config::default() }).contains(&len.to_string()));
        assert!(refused(E1000Config { rx_descriptors: len, ..E1000Config::default() }).contains("80 to 4096"));
    }
}

#[test]
fn an_mtu_of_68_to_16110_bytes_is_accepted() {
    for mtu in [68, 1500, 9000, 16_110] {
        let bench = Bench::with(E1000Config { mtu, ..E1000Config::default() });
        assert_eq!(bench.nic.capabilities().max_frame, u32::from(mtu) + 18);
        bench.finish();
    }
    for mtu in [0, 67, 16_111, u16::MAX] {
        assert!(refused(E1000Config { mtu, ..E1000Config::default() }).contains("MTU"));
    }
}

#[test]
fn a_filter_that_the_tables_cannot_hold_is_refused() {
    refused(E1000Config { filter: RxFilter { vlans: vec![4096], ..RxFilter::default() }, ..E1000Config::default() });
}

#[test]
fn what_is_switched_off_is_not_offered() {
    let capabilities = |config| Bench::with(config).nic.capabilities();
    let all = capabilities(E1000Config::default());
    assert_eq!(all.offloads, OffloadFlags::all() - OffloadFlags::TCP6_SEGMENTATION - OffloadFlags::UDP_SEGMENTATION);
    assert!(all.vlan_strip && all.max_segments > 200 && all.max_segmentation > 65_536);
    let none = capabilities(E1000Config { vlan: false, gather: false, offloads: OffloadFlags::VLAN_TAG, ..E1000Config::default() });
    assert_eq!((none.offloads, none.max_segments, none.vlan_strip), (OffloadFlags::empty(), 1, false));
}

/// A device that says to be another one.
struct Impostor {
    device: Box<dyn BusDevice>,
    identity: PciIdentity,
    bar: Option<Registers>,
}

impl BusDevice for Impostor {
    fn address(&self) -> &str {
        "model:impostor"
    }
    fn identity(&self) -> PciIdentity {
        self.identity
    }
    fn config_read(&self, offset: u16, width: Width) -> Result<u32, BusError> {
        self.device.config_read(offset, width)
    }
    fn config_write(&self, offset: u16, width: Width, value: u32) -> Result<(), BusError> {
        self.device.config_write(offset, width, value)
    }
    fn bar(&mut self, index: u8) -> Result<Registers, BusError> {
        self.bar.clone().map_or_else(|| self.device.bar(index), Ok)
    }
    fn set_bus_master(&mut self, on: bool) -> Result<(), BusError> {
        self.device.set_bus_master(on)
    }
    fn dma(&self) -> Arc<dyn DmaSpace> {
        self.device.dma()
    }
    fn interrupt(&mut self, vector: u16) -> Result<Box<dyn Interrupt>, BusError> {
        self.device.interrupt(vector)
    }
    fn reset(&mut self) -> Result<(), BusError> {
        self.device.reset()
    }
}

#[test]
fn another_device_is_refused_before_it_is_touched() {
    let model = E1000Model::new(MacAddress(STATION));
    let own = model.device().identity();
    for (vendor, device) in [(0x8086, 0x10d3), (0x1af4, 0x100e)] {
        let identity = PciIdentity { vendor, device, ..own };
        assert!(!E1000::drives(identity));
        let impostor = Impostor { device: model.device(), identity, bar: None };
        let Err(error) = E1000::start(Box::new(impostor), E1000Config::default()) else { panic!("{identity} was accepted") };
        assert!(matches!(&error, NicError::WrongDevice(text) if text.contains(&identity.to_string())), "{error}");
    }
    let short = Impostor { device: model.device(), identity: own, bar: Some(Registers::in_memory(4096).unwrap()) };
    let Err(error) = E1000::start(Box::new(short), E1000Config::default()) else { panic!("a short BAR was accepted") };
    assert!(matches!(error, NicError::WrongDevice(_)), "{error}");
    assert_eq!(model.violations(), [""; 0]);
    assert_eq!(model.mappings(), 0);
}

#[test]
fn a_space_without_room_is_an_error_that_leaves_nothing_mapped() {
    let model = E1000Model::new(MacAddress(STATION));
    let limits = model.device().dma().limits();
    for maps in 0..2 {
        model.set_limits(hal::DmaLimits { maps, ..limits.clone() });
        let Err(error) = E1000::start(model.device(), E1000Config::default()) else { panic!("started with room for {maps} mappings") };
        assert!(matches!(error, NicError::Dma(hal::DmaError::Full { .. })), "{error}");
        assert_eq!(model.mappings(), 0);
    }
    assert_eq!(model.violations(), [""; 0]);
}

#[test]
fn a_pool_of_another_space_is_refused() {
    let mut bench = Bench::new();
    let other = E1000Model::new(MacAddress(STATION));
    let pool = Pool::new(PoolConfig::default()).unwrap();
    let attached = pool.attach(&other.device().dma()).unwrap();
    assert!(matches!(bench.nic.attach_pool(attached), Err(NicError::ForeignSpace)));
    bench.finish();
}

/// Registers that an earlier user may have left behind, and that a reset keeps.
const MDIC: u64 = 0x0020;
const MANC: u64 = 0x5820;
/// A read and a write of register 0 of PHY 1 (13.4.6).
const PHY_READ: u32 = 0b10 << 26 | 1 << 21;
const PHY_WRITE: u32 = 0b01 << 26 | 1 << 21;

/// An operation of the PHY, and its answer.
fn phy(registers: &Registers, operation: u32) -> u32 {
    registers.write::<u32>(MDIC, operation).unwrap();
    let ready = |value: &u32| value >> 28 & 1 == 1;
    std::iter::repeat_with(|| registers.read::<u32>(MDIC).unwrap()).take(10).find(ready).expect("the PHY answers") & 0xffff
}

#[test]
fn a_phy_that_was_left_in_loop_back_or_without_power_negotiates_again() {
    for left in [0x5140, 0x1940, 0x1540, 0x0d40] {
        let model = E1000Model::new(MacAddress(STATION));
        let registers = model.device().bar(0).unwrap();
        phy(&registers, PHY_WRITE | left);
        assert_eq!(phy(&registers, PHY_READ), left);
        let nic = E1000::start(model.device(), E1000Config::default()).unwrap();
        assert_eq!(phy(&registers, PHY_READ), 0x1140, "it was left at {left:#x}");
        drop(nic);
        assert_eq!(model.violations(), [""; 0]);
    }
    // What a user has set on purpose stays: 100 Mbit/s without negotiation.
    let model = E1000Model::new(MacAddress(STATION));
    let registers = model.device().bar(0).unwrap();
    phy(&registers, PHY_WRITE | 0x2100);
    drop(E1000::start(model.device(), E1000Config::default()).unwrap());
    assert_eq!(phy(&registers, PHY_READ), 0x2100);
}

#[test]
fn the_managements_firmware_does_not_answer_arp_any_more() {
    let model = E1000Model::new(MacAddress(STATION));
    let registers = model.device().bar(0).unwrap();
    registers.write::<u32>(MANC, 1 << 13 | 1 << 17).unwrap();
    let nic = E1000::start(model.device(), E1000Config::default()).unwrap();
    assert_eq!(model.register(MANC), 1 << 17);
    drop(nic);
    assert_eq!(model.violations(), [""; 0]);
}
