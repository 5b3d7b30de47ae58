use super::packets::{inbound, tcp4, udp4};
use super::*;

fn receives(bench: &mut Bench, destination: [u8; 6], vlan: Option<u16>) -> bool {
    let mut packet = incoming(100);
    packet[..6].copy_from_slice(&destination);
    if let Some(vlan) = vlan {
        packet.splice(12..12, [0x81, 0, (vlan >> 8) as u8, vlan as u8]);
    }
    bench.refill(1, 2048);
    bench.model.receive(&packet) == Received::Delivered
}

fn pairs(pairs: u16, features: Features) -> Bench {
    Bench::of(ModelConfig { mac: MAC, features, queue_size: SIZE, pairs, ..ModelConfig::default() })
}

const GROUP: [u8; 6] = [0x01, 0, 0x5e, 0, 0, 1];
const OTHER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x77];

#[test]
fn commands_switch_what_is_received() {
    for mut bench in [Bench::new(), Bench::packed()] {
        assert!(bench.model.control().promiscuous && receives(&mut bench, OTHER, Some(7)));
        assert_eq!(bench.command(&[0, 0, 0]), 0);
        assert!(receives(&mut bench, MAC.0, None) && receives(&mut bench, [0xff; 6], None));
        assert!(!receives(&mut bench, OTHER, None) && !receives(&mut bench, GROUP, None));
        for (number, destination, received) in
            [(1, GROUP, true), (2, OTHER, true), (3, GROUP, false), (4, OTHER, false), (5, [0xff; 6], false)]
        {
            assert_eq!(bench.command(&[0, number, 1]), 0);
            assert_eq!(receives(&mut bench, destination, None), received, "{number}");
        }
        let control = bench.model.control();
        assert!(control.all_multicast && control.all_unicast && control.no_multicast && control.no_unicast && control.no_broadcast);
        assert_eq!(control.commands.len(), 6);
        assert_eq!(bench.used(CONTROL, 0).1, 1, "one byte was written");
        bench.clean();
    }
}

#[test]
fn tables_of_addresses_and_vlans() {
    let mut bench = Bench::new();
    bench.command(&[0, 0, 0]);
    let table = [&[1, 0][..], &[1, 0, 0, 0], &OTHER, &[1, 0, 0, 0], &GROUP].concat();
    assert_eq!(bench.command(&table), 0);
    assert!(receives(&mut bench, OTHER, None) && receives(&mut bench, GROUP, None));
    assert_eq!(bench.command(&[&[1, 1][..], &OTHER].concat()), 0);
    assert_eq!(bench.model.mac().0, OTHER);
    let mut mac = [0; 6];
    bench.transport.read_config(0, &mut mac).unwrap();
    assert_eq!(mac, OTHER);
    assert!(!receives(&mut bench, OTHER, Some(5)));
    assert_eq!(bench.command(&[2, 0, 5, 0]), 0);
    assert!(receives(&mut bench, OTHER, Some(0xe005)) && !receives(&mut bench, OTHER, Some(6)));
    assert_eq!(bench.command(&[2, 1, 5, 0]), 0);
    assert!(!receives(&mut bench, OTHER, Some(5)));
    bench.clean();
    bench.transport.set_status(hal::virtio::DeviceStatus::empty()).unwrap();
    assert_eq!((bench.model.mac(), bench.model.control().unicast.len()), (MAC, 0));
}

#[test]
fn an_announcement_is_acknowledged() {
    let mut bench = Bench::new();
    bench.model.ask_for_announcement();
    assert_eq!(bench.command(&[3, 0]), 0);
    let mut status = [0; 2];
    bench.transport.read_config(6, &mut status).unwrap();
    assert_eq!((status, bench.model.control().announcements), ([1, 0], 1));
    bench.clean();
}

#[test]
fn pairs_of_queues_are_enabled() {
    let mut bench = pairs(2, Features::USUAL);
    let command = |bench: &mut Bench, command: &[u8]| {
        // With multiqueue the control queue is behind all pairs.
        let address = bench.place(command);
        let answer = bench.room(1);
        bench.post(4, &[(address, command.len() as u32, false), (answer, 1, true)]);
        bench.ring(4);
        bench.model.step();
        bench.bytes(answer, 1)[0]
    };
    assert_eq!((command(&mut bench, &[4, 0, 2, 0]), bench.model.control().pairs), (0, 2));
    let bytes = [vec![0; 12], frame(60)].concat();
    let address = bench.place(&bytes);
    bench.post(3, &[(address, bytes.len() as u32, false)]);
    bench.ring(3);
    assert_eq!(bench.model.step_pairs(), [(1, frame(60))]);
    let room = bench.room(2048);
    bench.post(2, &[(room, 2048, true)]);
    bench.ring(2);
    assert_eq!(bench.model.receive_on(1, &incoming(60)), Received::Delivered);
    assert_eq!(bench.used(2, 0).1, 72);
    bench.clean();
    assert_eq!(command(&mut bench, &[4, 0, 3, 0]), 1);
    bench.violates("3 pairs of queues; there are 2");
}

#[test]
fn without_multiqueue_the_control_queue_is_the_third() {
    let mut bench = pairs(2, Features::USUAL - Features::MQ);
    assert_eq!(bench.command(&[0, 0, 0]), 0);
    assert!(!bench.model.control().promiscuous);
}

#[test]
fn receive_offloads_are_switched() {
    let mut bench = Bench::new();
    let offloads = Features::GUEST_CSUM | Features::GUEST_TSO4;
    assert_eq!(bench.command(&[&[5, 0][..], &offloads.bits().to_le_bytes()].concat()), 0);
    assert_eq!(bench.model.control().guest_offloads, offloads);
    bench.refill(5, 8192);
    bench.model.receive_coalesced(&inbound(tcp4(3000)), 1000);
    bench.model.receive_coalesced(&inbound(udp4(3000)), 1000);
    assert!(bench.is_used(RX, 3) && !bench.is_used(RX, 4), "one packet of TCP, three of UDP");
    bench.clean();
    assert_eq!(bench.command(&[&[5, 0][..], &(1_u64 << 11).to_le_bytes()].concat()), 1);
    bench.violates("offloads 0x800 were not negotiated");
}

#[test]
fn notifications_are_coalesced() {
    let mut bench = Bench::new();
    let parameters = [8, 0, 0, 0, 50, 0, 0, 0];
    assert_eq!(bench.command(&[&[6, 0][..], &parameters].concat()), 0);
    assert_eq!(bench.command(&[&[6, 1, 4, 0, 0, 0][..], &[9, 0, 0, 0]].concat()), 0);
    assert_eq!(bench.model.control().coalescing.into_iter().collect::<Vec<_>>(), [(0, (4, 9)), (1, (8, 50))]);
    assert_eq!(bench.command(&[&[6, 2, 1, 0, 0, 0][..], &[1, 0, 0, 0, 2, 0, 0, 0]].concat()), 0);
    assert_eq!(bench.command_returning(&[6, 3, 1, 0, 0, 0], 8), [1, 0, 0, 0, 2, 0, 0, 0, 0]);
    bench.clean();
    assert_eq!(bench.command(&[&[6, 2, 2, 0, 0, 0][..], &parameters].concat()), 1);
    bench.violates("queue 2 is not an enabled transmit or receive queue");
}

#[test]
fn receive_side_scaling_sends_flows_to_queues() {
    let features = Features::USUAL | Features::RSS | Features::HASH_REPORT;
    let mut bench = pairs(2, features);
    let key: Vec<u8> = (1..=40).collect();
    // Four entries: pairs 0, 1, 0, 1; unclassified packets go to 1.
    let table = [&3_u16.to_le_bytes()[..], &[1, 0], &[0, 0, 1, 0, 0, 0, 1, 0], &2_u16.to_le_bytes(), &[40], &key].concat();
    let command = [&[4, 1][..], &0x3f_u32.to_le_bytes(), &table].concat();
    let address = bench.place(&command);
    let answer = bench.room(1);
    bench.post(4, &[(address, command.len() as u32, false), (answer, 1, true)]);
    bench.ring(4);
    bench.model.step();
    bench.clean();
    assert_eq!(bench.bytes(answer, 1), [0]);
    for queue in [0, 2] {
        let room = bench.room(2048);
        bench.post(queue, &[(room, 2048, true)]);
        bench.ring(queue);
    }
    assert_eq!(bench.model.receive(&incoming(60)), Received::Delivered);
    assert_eq!(bench.used(2, 0).1, 80, "unclassified, with a header of 20 bytes");
    let hashing = bench.model.control().hashing.unwrap();
    assert_eq!((hashing.table, hashing.unclassified, hashing.types, hashing.key), (vec![0, 1, 0, 1], 1, 0x3f, key));
}

/// The values of Microsoft's "Verifying the RSS hash calculation".
#[test]
fn the_hash_is_toeplitz() {
    let key = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b,
        0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];
    // From 66.9.149.187:2794 to 161.142.100.80:1766.
    let input = [66, 9, 149, 187, 161, 142, 100, 80, 0x0a, 0xea, 0x06, 0xe6];
    assert_eq!(super::super::hash::toeplitz(&key, &input[..8]), 0x323e_8fc2);
    assert_eq!(super::super::hash::toeplitz(&key, &input), 0x51cc_c178);
    let mut packet = tcp4(10);
    packet[26..34].copy_from_slice(&input[..8]);
    packet[34..38].copy_from_slice(&input[8..]);
    assert_eq!(super::super::hash::hash(&packet, 0b11, &key), Some((0x51cc_c178, 2)));
    assert_eq!(super::super::hash::hash(&packet, 0b01, &key), Some((0x323e_8fc2, 1)));
    assert_eq!(super::super::hash::hash(&packet, 0b100, &key), None);
}

#[test]
fn commands_that_cannot_be_carried_out_are_refused() {
    for (without, command, text) in [
        (Features::empty(), &[0_u8, 9, 1][..], "command 9 of class 0 is not defined"),
        (Features::empty(), &[9, 0], "command 0 of class 9 is not defined"),
        (Features::empty(), &[0, 0], "a command is shorter than its data"),
        (Features::empty(), &[0, 0, 1, 1], "1 bytes follow a command's data"),
        (Features::empty(), &[0, 0, 2], "2 is neither 0 nor 1"),
        (Features::empty(), &[1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0], "a table of unicast addresses has others"),
        (Features::empty(), &[2, 0, 0, 0x10], "4096 is not a VLAN"),
        (Features::empty(), &[4, 0, 0, 0], "0 pairs of queues"),
        (Features::CTRL_RX, &[0, 1, 1], "command 1 of class 0 was sent without CTRL_RX"),
        (Features::CTRL_RX_EXTRA, &[0, 4, 1], "command 4 of class 0 was sent without CTRL_RX_EXTRA"),
        (Features::CTRL_VLAN, &[2, 0, 1, 0], "command 0 of class 2 was sent without CTRL_VLAN"),
        (Features::GUEST_ANNOUNCE, &[3, 0], "command 0 of class 3 was sent without GUEST_ANNOUNCE"),
        (Features::CTRL_MAC_ADDR, &[1, 1, 2, 0, 0, 0, 0, 1], "command 1 of class 1 was sent without CTRL_MAC_ADDR"),
        (Features::empty(), &[4, 2, 0, 0, 0, 0], "command 2 of class 4 was sent without HASH_REPORT"),
    ] {
        let mut bench = Bench::with(Features::USUAL - without);
        assert_eq!(bench.command(command), 1, "{text}");
        bench.violates(text);
    }
    let mut bench = Bench::new();
    let address = bench.place(&[0, 0, 1]);
    bench.post(CONTROL, &[(address, 3, false)]);
    bench.ring(CONTROL);
    bench.model.step();
    bench.violates("queue 2: a command has no room for its answer");
}
