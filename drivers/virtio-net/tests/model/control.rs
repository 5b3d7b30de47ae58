use std::time::Duration;

use hal::{MacAddress, Nic, NicError, RxFilter};
use hw_sim::model::virtio::{Fault, Features, ModelConfig, VirtioNetModel};
use virtio_net::{Coalescing, VirtioNet, VirtioNetConfig};

use crate::bench::{Bench, each, start};
use crate::headers::{PEER, STATION, plain};

const GROUP: [u8; 6] = [0x01, 0x00, 0x5e, 0x01, 0x02, 0x03];
const OTHER: [u8; 6] = [0x52, 0x54, 0x00, 0x00, 0x00, 0x99];

#[test]
fn filters_let_through_what_they_name() {
    each(|features| {
        let mut bench = Bench::new(features);
        let hears = |bench: &mut Bench, to| bench.hears(&plain(to, 1, 64));
        assert!(hears(&mut bench, STATION) && hears(&mut bench, [0xff; 6]));
        assert!(!hears(&mut bench, GROUP) && !hears(&mut bench, OTHER));
        let filters = [
            (RxFilter { multicast: vec![MacAddress(GROUP)], ..RxFilter::default() }, [true, true, true, false]),
            (RxFilter { unicast: vec![MacAddress(OTHER)], ..RxFilter::default() }, [true, true, false, true]),
            (RxFilter { promiscuous: true, ..RxFilter::default() }, [true; 4]),
            (RxFilter { all_multicast: true, no_broadcast: true, ..RxFilter::default() }, [true, false, true, false]),
            (RxFilter::default(), [true, true, false, false]),
        ];
        for (filter, wanted) in filters {
            bench.command(|nic| nic.set_filter(&filter)).unwrap();
            assert_eq!([STATION, [0xff; 6], GROUP, OTHER].map(|to| hears(&mut bench, to)), wanted, "{filter:?}");
            assert_eq!(bench.command(|nic| nic.reset()).unwrap(), 0);
            assert_eq!([STATION, [0xff; 6], GROUP, OTHER].map(|to| hears(&mut bench, to)), wanted, "{filter:?} after a reset");
        }
        bench.finish();
    });
}

#[test]
fn vlans_are_filtered_where_the_filter_has_some() {
    each(|features| {
        let tagged = |vlan: u16| {
            let mut frame = [&STATION[..], &PEER, &[0x81, 0]].concat();
            frame.extend(vlan.to_be_bytes());
            frame.extend([0x88, 0xb5]);
            frame.resize(64, 0);
            frame
        };
        let mut bench = Bench::new(features);
        assert!(bench.hears(&tagged(5)) && !bench.model.accepted().contains(Features::CTRL_VLAN));
        let vlans = |vlans: &[u16]| RxFilter { vlans: vlans.to_vec(), ..RxFilter::default() };
        assert!(matches!(bench.command(|nic| nic.set_filter(&vlans(&[5]))), Err(NicError::Config(_))));
        bench.finish();

        let mut bench = Bench::with(features, VirtioNetConfig { filter: vlans(&[5, 7]), ..VirtioNetConfig::default() });
        assert_eq!([5, 6, 7].map(|vlan| bench.hears(&tagged(vlan))), [true, false, true]);
        bench.command(|nic| nic.set_filter(&vlans(&[6]))).unwrap();
        assert_eq!([5, 6, 7].map(|vlan| bench.hears(&tagged(vlan))), [false, true, false]);
        bench.command(|nic| nic.reset()).unwrap();
        assert_eq!([5, 6, 7].map(|vlan| bench.hears(&tagged(vlan))), [false, true, false]);
        bench.command(|nic| nic.set_filter(&vlans(&[]))).unwrap();
        assert_eq!([0, 5, 4095].map(|vlan| bench.hears(&tagged(vlan))), [true; 3]);
        bench.finish();
    });
}

#[test]
fn the_address_the_announcement_and_the_moderation_are_told() {
    each(|features| {
        let (usecs, packets) = (50, 16);
        let config = VirtioNetConfig {
            mac: Some(MacAddress(OTHER)),
            rx_coalescing: Some(Coalescing { usecs, packets }),
            ..VirtioNetConfig::default()
        };
        let mut bench = Bench::with(features, config);
        assert_eq!((bench.nic.mac(), bench.model.mac()), (MacAddress(OTHER), MacAddress(OTHER)));
        assert!(bench.hears(&plain(OTHER, 1, 64)) && !bench.hears(&plain(STATION, 1, 64)));
        assert_eq!(bench.model.control().coalescing.get(&0), Some(&(packets, usecs)));
        assert!(!bench.nic.wants_announcement().unwrap());
        bench.model.ask_for_announcement();
        assert!(bench.nic.link().unwrap().up && bench.nic.wants_announcement().unwrap());
        assert_eq!(bench.model.control().announcements, 0);
        bench.command(|nic| nic.announced()).unwrap();
        assert_eq!((bench.model.control().announcements, bench.nic.wants_announcement().unwrap()), (1, false));
        bench.model.set_link(false);
        let link = bench.command(|nic| nic.link()).unwrap();
        assert_eq!((link.up, link.speed, link.full_duplex), (false, 0, true));
        bench.finish();
    });
}

#[test]
fn queue_pairs_are_as_many_as_both_sides_have() {
    each(|features| {
        for (asked, has, used) in [(1, 4, 1), (3, 4, 3), (8, 4, 4)] {
            let device = ModelConfig { features, pairs: has, ..ModelConfig::default() };
            let mut bench = Bench::on(device, VirtioNetConfig { queue_pairs: asked, ..VirtioNetConfig::default() });
            assert_eq!(bench.nic.queues(), (used.into(), used.into()));
            assert_eq!(bench.model.control().pairs, used);
            for pair in 0..used {
                let queue = usize::from(pair);
                let mut burst = bench.burst(&[(plain(PEER, 1, 64), hal::Offload::NONE)]);
                bench.nic.tx(queue).post(&mut burst).unwrap();
                assert_eq!(bench.model.step_pairs().len(), 1);
                assert_eq!(bench.nic.tx(queue).reap().unwrap(), 1);
                bench.nic.rx(queue).refill(&mut bench.pool).unwrap();
                bench.model.receive_on(pair, &plain(STATION, 1, 64));
                let mut packets = hal::RxBurst::default();
                assert_eq!(bench.nic.rx(queue).receive(&mut packets, 9).unwrap(), 1);
            }
            bench.finish();
        }
    });
}

#[test]
fn a_command_without_an_answer_times_out() {
    each(|features| {
        let model = VirtioNetModel::with(ModelConfig { features, ..ModelConfig::default() });
        model.set_fault(Fault::ControlSilent);
        let config = VirtioNetConfig { patience: Duration::from_millis(20), ..VirtioNetConfig::default() };
        let Err(NicError::Timeout { what, register, .. }) = start(&model, config).map(drop) else { panic!("it did not time out") };
        assert_eq!((what, register), ("VIRTIO_NET_CTRL_MAC_TABLE_SET", "control queue"));
        assert_eq!(model.mappings(), 0);
        model.clear_fault();
        drop(start(&model, VirtioNetConfig::default()).unwrap());
        assert_eq!(model.violations(), [""; 0]);
    });
}

#[test]
fn a_command_that_is_refused_is_told_and_the_next_one_goes_on() {
    each(|features| {
        for fault in [Fault::ControlError, Fault::ControlGarbage] {
            let mut bench = Bench::new(features);
            bench.model.set_fault(fault);
            let filter = RxFilter { promiscuous: true, ..RxFilter::default() };
            let Err(NicError::Config(text)) = bench.command(|nic| nic.set_filter(&filter)) else { panic!("it was not refused") };
            assert!(text.contains("VIRTIO_NET_CTRL_MAC_TABLE_SET"), "{text}");
            bench.model.clear_fault();
            bench.command(|nic| nic.set_filter(&filter)).unwrap();
            assert!(bench.hears(&plain(OTHER, 1, 64)));
            bench.finish();
        }
    });
}

#[test]
fn a_device_without_a_control_queue_gives_what_it_gives() {
    each(|features| {
        let mut bench = Bench::with(features - Features::CTRL_VQ, VirtioNetConfig::default());
        bench.nic.set_filter(&RxFilter { promiscuous: true, ..RxFilter::default() }).unwrap();
        assert!(bench.hears(&plain(OTHER, 1, 64)));
        assert!(bench.nic.set_filter(&RxFilter { no_broadcast: true, ..RxFilter::default() }).is_err());
        let report = bench.nic.features();
        let promiscuous = report.iter().find(|row| row.name == "VIRTIO_NET_F_CTRL_RX").unwrap();
        assert!(promiscuous.offered && !promiscuous.accepted && promiscuous.note.contains("VIRTIO_NET_F_CTRL_VQ"), "{promiscuous:?}");
        bench.finish();
    });
}

#[test]
fn many_commands_go_around_the_ring() {
    each(|features| {
        let mut bench = Bench::new(features);
        for round in 0..100 {
            let unicast = (0..round).map(|number| MacAddress([2, 0, 0, 0, 0, number])).collect::<Vec<_>>();
            bench.command(|nic: &mut VirtioNet| nic.set_filter(&RxFilter { unicast: unicast.clone(), ..RxFilter::default() })).unwrap();
            assert_eq!(bench.model.control().unicast, unicast);
        }
        let too_many = RxFilter { multicast: vec![MacAddress(GROUP); 1001], ..RxFilter::default() };
        assert!(matches!(bench.command(|nic| nic.set_filter(&too_many)), Err(NicError::Config(_))));
        bench.finish();
    });
}
