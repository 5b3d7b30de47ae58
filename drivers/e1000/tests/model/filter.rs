use hal::{MacAddress, Nic, NicError, RxFilter};
use pagewire_e1000::E1000Config;

use crate::bench::Bench;
use crate::headers::{PEER, STATION, plain};

const BROADCAST: [u8; 6] = [0xff; 6];
const GROUP: [u8; 6] = [0x01, 0x00, 0x5e, 0x01, 0x02, 0x03];
const OTHER_GROUP: [u8; 6] = [0x33, 0x33, 0x00, 0x00, 0x00, 0x01];

/// Who is heard of: the station, another one, broadcast, a group, another group.
fn heard(bench: &mut Bench) -> [bool; 5] {
    [STATION, PEER, BROADCAST, GROUP, OTHER_GROUP].map(|to| bench.hears(&plain(to, 1, 64)))
}

fn tagged(vlan: u16) -> Vec<u8> {
    let mut frame = plain(STATION, 1, 100);
    frame.splice(12..12, [0x81, 0x00, (vlan >> 8) as u8, vlan as u8]);
    frame
}

#[test]
fn the_filter_decides_who_is_heard() {
    let none = RxFilter::default;
    let cases = [
        (none(), [true, false, true, false, false]),
        (RxFilter { promiscuous: true, ..none() }, [true; 5]),
        (RxFilter { all_multicast: true, ..none() }, [true, false, true, true, true]),
        (RxFilter { multicast: vec![MacAddress(GROUP)], ..none() }, [true, false, true, true, false]),
        (RxFilter { no_broadcast: true, ..none() }, [true, false, false, false, false]),
        (RxFilter { unicast: vec![MacAddress(PEER)], ..none() }, [true, true, true, false, false]),
    ];
    // At the start, and changed under way, from each to each.
    for (filter, expected) in &cases {
        let mut bench = Bench::with(E1000Config { filter: filter.clone(), ..E1000Config::default() });
        assert_eq!(heard(&mut bench), *expected, "{filter:?}");
        for (next, expected) in &cases {
            bench.nic.set_filter(next).unwrap();
            assert_eq!(heard(&mut bench), *expected, "{filter:?}, then {next:?}");
            bench.nic.set_filter(filter).unwrap();
        }
        bench.finish();
    }
}

#[test]
fn fifteen_further_station_addresses_are_heard() {
    let mut bench = Bench::new();
    let address = |number: u8| [2, 0, 0, 0, 1, number];
    let unicast: Vec<MacAddress> = (0..15).map(|number| MacAddress(address(number))).collect();
    bench.nic.set_filter(&RxFilter { unicast: unicast.clone(), ..RxFilter::default() }).unwrap();
    assert!((0..15).all(|number| bench.hears(&plain(address(number), 1, 64))));
    assert!(!bench.hears(&plain(address(15), 1, 64)) && bench.hears(&plain(STATION, 1, 64)));
    bench.nic.set_filter(&RxFilter { unicast: unicast[..1].to_vec(), ..RxFilter::default() }).unwrap();
    let heard: Vec<u8> = (0..16).filter(|number| bench.hears(&plain(address(*number), 1, 64))).collect();
    assert_eq!(heard, [0]);
    bench.finish();
}

#[test]
fn group_addresses_are_told_apart_by_their_hash() {
    let mut bench = Bench::new();
    let group = |low: u8, high: u8| MacAddress([0x01, 0, 0, 0, low, high]);
    let groups: Vec<MacAddress> = (0..=255).map(|high| group(0x10 * (high % 16), high)).collect();
    bench.nic.set_filter(&RxFilter { multicast: groups.clone(), ..RxFilter::default() }).unwrap();
    assert!(groups.iter().all(|group| bench.hears(&plain(group.0, 1, 64))));
    // The same twelve bits: a device may let it through. Others: not.
    assert!(bench.hears(&plain([0x01, 9, 9, 9, 0x1f, 1], 1, 64)));
    assert!(!bench.hears(&plain(group(0x20, 1).0, 1, 64)));
    bench.nic.set_filter(&RxFilter::default()).unwrap();
    assert!(groups.iter().all(|group| !bench.hears(&plain(group.0, 1, 64))));
    bench.finish();
}

#[test]
fn only_the_vlans_in_the_table_are_heard() {
    let mut bench = Bench::new();
    let all = [0, 1, 31, 32, 100, 4094, 4095];
    assert!(all.iter().all(|vlan| bench.hears(&tagged(*vlan))), "no table, no filter");
    let vlans = vec![0, 31, 4095];
    bench.nic.set_filter(&RxFilter { vlans: vlans.clone(), ..RxFilter::default() }).unwrap();
    for vlan in all {
        assert_eq!(bench.hears(&tagged(vlan)), vlans.contains(&vlan), "VLAN {vlan}");
        assert_eq!(bench.hears(&tagged(vlan | 0xe000)), vlans.contains(&vlan), "VLAN {vlan} with a priority");
    }
    assert!(bench.hears(&plain(STATION, 1, 64)), "without a tag");
    bench.nic.set_filter(&RxFilter { promiscuous: true, vlans, ..RxFilter::default() }).unwrap();
    assert!(all.iter().all(|vlan| bench.hears(&tagged(*vlan))), "promiscuous");
    bench.finish();
}

#[test]
fn a_filter_that_the_tables_cannot_hold_changes_nothing() {
    let mut bench = Bench::new();
    let filter = RxFilter { multicast: vec![MacAddress(GROUP)], ..RxFilter::default() };
    bench.nic.set_filter(&filter).unwrap();
    for wrong in [
        RxFilter { unicast: vec![MacAddress(PEER); 16], ..RxFilter::default() },
        RxFilter { multicast: vec![MacAddress(PEER)], ..RxFilter::default() },
        RxFilter { unicast: vec![MacAddress(BROADCAST)], ..RxFilter::default() },
        RxFilter { vlans: vec![4096], ..RxFilter::default() },
    ] {
        assert!(matches!(bench.nic.set_filter(&wrong), Err(NicError::Config(_))));
    }
    assert_eq!(heard(&mut bench), [true, false, true, true, false]);
    bench.nic.reset().unwrap();
    assert_eq!(heard(&mut bench), [true, false, true, true, false]);
    bench.finish();
}

#[test]
fn packets_that_have_arrived_stay_when_the_filter_changes() {
    let mut bench = Bench::new();
    bench.deliver(&plain(STATION, 1, 64));
    bench.nic.set_filter(&RxFilter { multicast: vec![MacAddress(GROUP)], ..RxFilter::default() }).unwrap();
    bench.deliver(&plain(GROUP, 2, 64));
    assert_eq!(bench.received(), [plain(STATION, 1, 64), plain(GROUP, 2, 64)]);
    bench.finish();
}
