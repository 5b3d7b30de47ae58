use hal::{MacAddress, Nic, NicError, RxFilter};
use hw_sim::model::virtio::{Fault, Features, ModelConfig, VirtioNetModel};
use virtio_net::{Packed, Rss, VirtioNetConfig};

use crate::bench::{Bench, each, start};
use crate::headers::{STATION, plain};

fn error(features: Features, config: VirtioNetConfig) -> NicError {
    let model = VirtioNetModel::with(ModelConfig { features, ..ModelConfig::default() });
    let error = start(&model, config).map(drop).unwrap_err();
    assert_eq!(model.mappings(), 0);
    error
}

#[test]
fn what_the_device_says_is_what_the_nic_says() {
    each(|features| {
        let mut bench = Bench::on(ModelConfig { features, mtu: 2000, ..ModelConfig::default() }, VirtioNetConfig::default());
        assert_eq!((bench.nic.mac(), bench.nic.mtu()), (MacAddress(STATION), 2000));
        let capabilities = bench.nic.capabilities();
        assert_eq!((capabilities.max_frame, capabilities.vlan_strip, capabilities.whole_headers), (2018, false, true));
        let link = bench.nic.link().unwrap();
        assert_eq!((link.up, link.speed, link.full_duplex), (true, 10_000, true));
        bench.finish();
    });
}

#[test]
fn a_device_that_cannot_be_driven_is_refused_with_the_remedy() {
    let NicError::WrongDevice(text) = error(Features::USUAL - Features::VERSION_1 - Features::ACCESS_PLATFORM, VirtioNetConfig::default())
    else {
        panic!("a legacy device")
    };
    assert!(text.contains("disable-legacy=on"), "{text}");
    // Packed rings are of VIRTIO 1.1: such an offer contradicts itself.
    let contradicting = (Features::USUAL | Features::RING_PACKED) - Features::VERSION_1;
    let NicError::WrongDevice(text) = error(contradicting, VirtioNetConfig::default()) else { panic!("packed and legacy") };
    assert!(text.contains("VIRTIO_F_VERSION_1"), "{text}");
    let iommu = VirtioNetConfig { iommu: true, ..VirtioNetConfig::default() };
    let NicError::WrongDevice(text) = error(Features::USUAL - Features::ACCESS_PLATFORM, iommu) else { panic!("past the IOMMU") };
    assert!(text.contains("iommu_platform=on"), "{text}");
    let packed = VirtioNetConfig { packed: Packed::On, ..VirtioNetConfig::default() };
    let NicError::Config(text) = error(Features::USUAL, packed) else { panic!("no packed rings") };
    assert!(text.contains("packed=on"), "{text}");
    let mtu = VirtioNetConfig { mtu: Some(1501), ..VirtioNetConfig::default() };
    assert!(matches!(error(Features::USUAL, mtu), NicError::Config(_)));
}

#[test]
fn a_configuration_outside_its_ranges_is_refused() {
    let usual = VirtioNetConfig::default;
    let rss = |key: usize, table: Vec<u16>| Some(Rss { key: vec![1; key], table });
    for config in [
        VirtioNetConfig { tx_descriptors: 7, ..usual() },
        VirtioNetConfig { rx_descriptors: 40_000, ..usual() },
        VirtioNetConfig { queue_pairs: 0, ..usual() },
        VirtioNetConfig { mtu: Some(67), ..usual() },
        VirtioNetConfig { mac: Some(MacAddress([1, 0, 0, 0, 0, 0])), ..usual() },
        VirtioNetConfig { rss: rss(0, vec![0]), ..usual() },
        VirtioNetConfig { rss: rss(40, vec![0; 3]), ..usual() },
        VirtioNetConfig { rss: rss(40, vec![1]), ..usual() },
        VirtioNetConfig { filter: RxFilter { vlans: vec![5000], ..RxFilter::default() }, ..usual() },
    ] {
        assert!(matches!(error(Features::USUAL, config.clone()), NicError::Config(_)), "{config:?}");
    }
    // What only the device's limits forbid.
    let config = VirtioNetConfig { rss: rss(41, vec![0]), ..usual() };
    assert!(matches!(error(Features::USUAL | Features::RSS, config), NicError::Config(_)));
    let config = VirtioNetConfig { rss: rss(40, vec![0; 256]), ..usual() };
    assert!(matches!(error(Features::USUAL | Features::RSS, config), NicError::Config(_)));
}

#[test]
fn packed_rings_are_the_configurations_choice() {
    for (packed, taken) in [(Packed::Auto, true), (Packed::On, true), (Packed::Off, false)] {
        let bench = Bench::with(Features::USUAL | Features::RING_PACKED, VirtioNetConfig { packed, ..VirtioNetConfig::default() });
        assert_eq!(bench.model.accepted().contains(Features::RING_PACKED), taken);
        bench.finish();
    }
}

#[test]
fn whatever_is_missing_from_the_offer_the_rest_works() {
    // Each feature alone is taken away, which makes every contradiction between two of them.
    for missing in Features::USUAL.iter().filter(|missing| *missing != Features::VERSION_1) {
        let mut bench = Bench::with(Features::USUAL - missing, VirtioNetConfig { queue_pairs: 2, lro: true, ..VirtioNetConfig::default() });
        let report = bench.nic.features();
        let accepted = report.iter().filter(|row| row.accepted).fold(0_u64, |sum, row| sum | 1 << row.bit);
        assert_eq!(accepted, bench.model.accepted().bits());
        let offered = report.iter().filter(|row| row.offered).fold(0_u64, |sum, row| sum | 1 << row.bit);
        assert_eq!(offered, (Features::USUAL - missing).bits());
        assert!(report.iter().all(|row| !row.note.is_empty()));
        let frame = plain(STATION, 1, 64);
        assert_eq!(bench.send_bytes(&frame, hal::Offload::NONE), std::slice::from_ref(&frame), "without {missing:?}");
        assert!(bench.hears(&frame));
        bench.finish();
    }
}

#[test]
fn queue_pairs_without_a_control_queue_are_one_and_the_report_says_why() {
    let device = ModelConfig { features: Features::USUAL - Features::CTRL_VQ, pairs: 4, ..ModelConfig::default() };
    let bench = Bench::on(device, VirtioNetConfig { queue_pairs: 4, ..VirtioNetConfig::default() });
    assert_eq!(bench.nic.queues(), (1, 1));
    let row = bench.nic.features().into_iter().find(|row| row.name == "VIRTIO_NET_F_MQ").unwrap();
    assert_eq!((row.offered, row.accepted, row.note.as_str()), (true, false, "needs VIRTIO_NET_F_CTRL_VQ, which is not in use"));
    bench.finish();
}

#[test]
fn a_device_that_offers_next_to_nothing_still_sends_and_receives() {
    let mut bench = Bench::with(Features::VERSION_1, VirtioNetConfig { queue_pairs: 2, lro: true, ..VirtioNetConfig::default() });
    assert_eq!(bench.model.accepted(), Features::VERSION_1);
    assert!(bench.nic.capabilities().offloads.is_empty());
    let frame = plain(STATION, 1, 1514);
    assert_eq!(bench.send_bytes(&frame, hal::Offload::NONE), std::slice::from_ref(&frame));
    assert!(bench.hears(&frame));
    bench.finish();
}

#[test]
fn rings_are_as_large_as_both_sides_can() {
    for (wanted, most, size) in [(256, 64, 64), (100, 256, 64), (32_768, 256, 256), (8, 256, 8)] {
        let device = ModelConfig { queue_size: most, ..ModelConfig::default() };
        let config = VirtioNetConfig { tx_descriptors: wanted, rx_descriptors: wanted, ..VirtioNetConfig::default() };
        let mut bench = Bench::on(device, config);
        assert_eq!(bench.nic.rx(0).capacity(), size);
        bench.finish();
    }
}

#[test]
fn another_station_address_needs_a_device_that_takes_it() {
    let config = VirtioNetConfig { mac: Some(MacAddress([2, 0, 0, 0, 0, 9])), ..VirtioNetConfig::default() };
    let NicError::Config(text) = error(Features::USUAL - Features::CTRL_MAC_ADDR, config.clone()) else { panic!("it was started") };
    assert!(text.contains("02:00:00:00:00:09") && text.contains("VIRTIO_NET_F_CTRL_MAC_ADDR"), "{text}");
    // A device without an address of its own takes any.
    let bench = Bench::with(Features::USUAL - Features::CTRL_MAC_ADDR - Features::MAC, config);
    assert_eq!(bench.nic.mac(), MacAddress([2, 0, 0, 0, 0, 9]));
    bench.finish();
}

#[test]
fn a_pool_of_one_queue_pair_is_none_of_the_others() {
    let device = ModelConfig { pairs: 2, ..ModelConfig::default() };
    let mut bench = Bench::on(device, VirtioNetConfig { queue_pairs: 2, ..VirtioNetConfig::default() });
    let mut own = hal::Pool::new(hal::PoolConfig { buffers: 16, buffer_size: 2048 }).unwrap();
    let mapping = own.attach(&bench.nic.space()).unwrap();
    bench.nic.attach_pool_of(1, mapping).unwrap();
    for (queue, taken) in [(0, false), (1, true)] {
        let mut burst = hal::Burst::default();
        let mut buffer = own.take().unwrap();
        buffer.set(&plain(STATION, 1, 64));
        burst.push(buffer, hal::Offload::NONE);
        let posted = bench.nic.tx(queue).post(&mut burst);
        assert_eq!(posted.is_ok(), taken, "{posted:?}");
        assert!(taken || matches!(posted, Err(NicError::UnmappedSegment)));
        assert_eq!(bench.nic.rx(queue).refill(&mut own).is_ok(), taken);
    }
    assert_eq!(bench.model.step_pairs().len(), 1);
    assert_eq!(bench.nic.tx(1).reap().unwrap(), 1);
    bench.finish();
}

#[test]
fn a_device_that_says_impossible_things_is_refused() {
    let usual = ModelConfig::default;
    for device in [
        ModelConfig { mac: MacAddress([0xff; 6]), ..usual() },
        ModelConfig { mac: MacAddress([0; 6]), ..usual() },
        ModelConfig { mtu: 67, ..usual() },
        ModelConfig { queue_size: 1, ..usual() },
        ModelConfig { queue_size: 0, ..usual() },
        ModelConfig { pairs: 0, ..usual() },
        ModelConfig { pairs: 0x8000, ..usual() },
    ] {
        let model = VirtioNetModel::with(device.clone());
        let config = VirtioNetConfig { queue_pairs: 2, ..VirtioNetConfig::default() };
        assert!(matches!(start(&model, config).map(drop), Err(NicError::WrongDevice(_))), "{device:?}");
        assert_eq!(model.mappings(), 0);
    }
}

#[test]
fn features_that_the_device_does_not_take_are_named() {
    let model = VirtioNetModel::new(MacAddress(STATION));
    model.set_fault(Fault::FeaturesRefused);
    let Err(NicError::WrongDevice(text)) = start(&model, VirtioNetConfig::default()).map(drop) else { panic!("it was taken") };
    assert!(text.contains("VIRTIO_NET_F_CSUM"), "{text}");
}

#[test]
fn features_can_be_refused_one_by_one() {
    let refuse = virtio_net::Features::EVENT_IDX | virtio_net::Features::CSUM;
    let bench = Bench::with(Features::USUAL, VirtioNetConfig { refuse, ..VirtioNetConfig::default() });
    assert!(!bench.model.accepted().intersects(Features::EVENT_IDX | Features::CSUM | Features::HOST_TSO4));
    let row = bench.nic.features().into_iter().find(|row| row.name == "VIRTIO_NET_F_CSUM").unwrap();
    assert_eq!(row.note, "refused by the configuration");
    bench.finish();
}
