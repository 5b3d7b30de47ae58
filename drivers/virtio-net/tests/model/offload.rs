use hal::{Burst, Nic, NicError, Offload, OffloadFlags};
use hw_sim::model::virtio::Features;
use hw_sim::wire::check;
use virtio_net::VirtioNetConfig;

use crate::bench::{Bench, Window, each, whole};
use crate::headers::{content, tagged, tcp4, tcp6, tso4, tso6, udp4, udp6};

/// Headers of a UDP datagram to be cut.
fn uso((header, offload): (Vec<u8>, Offload), mss: u16) -> (Vec<u8>, Offload) {
    let payload_start = header.len() as u8;
    (header, Offload { flags: OffloadFlags::UDP_SEGMENTATION, payload_start, mss, ..offload })
}

/// A frame with `payload` gathered from a file in two pieces; what left, its headers checked by somebody else.
fn send(bench: &mut Bench, window: &Window, headers: (Vec<u8>, Offload), payload: usize) -> Vec<Vec<u8>> {
    let (header, offload) = whole(headers, payload);
    let mut burst = Burst::default();
    burst.push(bench.buffer(&header), offload);
    let half = payload / 2;
    [(0, half), (half, payload - half)].into_iter().filter(|(_, len)| *len > 0).for_each(|(at, len)| burst.gather(window.segment(at, len)));
    let sent = bench.send(burst);
    for frame in &sent {
        check(frame).unwrap();
    }
    sent
}

fn carried(sent: &[Vec<u8>]) -> Vec<u8> {
    sent.iter().flat_map(|frame| frame[check(frame).unwrap().payload].to_vec()).collect()
}

#[test]
fn checksums_are_filled_in() {
    each(|features| {
        let mut bench = Bench::new(features);
        let window = Window::new(bench.nic.space(), 65_536);
        for payload in [0, 1, 2, 999, 1400] {
            for headers in [udp4(payload), udp6(payload), tcp4(payload), tcp6(payload)] {
                let sent = send(&mut bench, &window, headers, payload);
                assert_eq!(sent.len(), 1);
                assert!(carried(&sent) == window.content[..payload]);
            }
        }
        drop(window);
        bench.finish();
    });
}

#[test]
fn frames_are_cut_and_counted_as_they_leave() {
    each(|features| {
        let mut bench = Bench::new(features);
        let window = Window::new(bench.nic.space(), 65_536);
        let (mut packets, mut bytes) = (0, 0);
        for payload in [1, 1000, 1448, 1449, 20_000, 64_000] {
            for (headers, mss) in
                [(tso4(1448), 1448), (tso6(1428), 1428), (uso(udp4(payload), 1400), 1400), (uso(udp6(payload), 1400), 1400)]
            {
                let sent = send(&mut bench, &window, headers, payload);
                assert_eq!(sent.len(), payload.div_ceil(mss));
                assert!(carried(&sent) == window.content[..payload]);
                packets += sent.len() as u64;
                bytes += sent.iter().map(|frame| frame.len() as u64).sum::<u64>();
            }
        }
        let statistics = bench.nic.statistics().unwrap();
        assert_eq!((statistics.tx_packets, statistics.tx_bytes), (packets, bytes));
        drop(window);
        bench.finish();
    });
}

#[test]
fn neighbours_with_different_requests_keep_their_own() {
    each(|features| {
        let mut bench = Bench::new(features);
        let payload = content(1, 100);
        let mut burst = Burst::default();
        let kinds = [udp4(100), tcp4(100), tcp4(100), udp6(100), udp6(100), tcp6(100), udp4(100)];
        for headers in kinds.iter().cycle().take(70) {
            let (header, offload) = whole(headers.clone(), 100);
            burst.push(bench.buffer(&[header, payload.clone()].concat()), offload);
        }
        let sent = bench.send(burst);
        assert_eq!(sent.len(), 70);
        assert!(sent.iter().all(|frame| frame[check(frame).unwrap().payload] == payload));
        bench.finish();
    });
}

#[test]
fn what_is_not_offered_is_refused_and_changes_nothing() {
    each(|features| {
        let mut bench = Bench::with(features - Features::CSUM, VirtioNetConfig::default());
        assert_eq!(bench.nic.capabilities().offloads, OffloadFlags::empty());
        let refused = [udp4(0), whole(tcp4(0), 0), whole(tso4(100), 100), tagged_udp()];
        for (header, offload) in refused {
            let mut burst = bench.burst(&[([header, content(0, 100)].concat(), offload)]);
            assert!(matches!(bench.nic.tx(0).post(&mut burst), Err(NicError::UnsupportedOffload(_))), "{offload:?}");
            assert_eq!(burst.len(), 1);
        }
        bench.finish();
        // IPv4 headers and tags are never the device's.
        let mut bench = Bench::new(features);
        let all = OffloadFlags::UDP_CHECKSUM | OffloadFlags::TCP_CHECKSUM | OffloadFlags::CUTTING;
        assert_eq!(bench.nic.capabilities().offloads, all);
        for (header, offload) in [udp4(0), tagged_udp()] {
            let mut burst = bench.burst(&[(header, offload)]);
            assert!(matches!(bench.nic.tx(0).post(&mut burst), Err(NicError::UnsupportedOffload(_))));
        }
        // Segments beyond the MTU, and headers that the frame does not have.
        let (header, offload) = whole(tso4(1480), 3000);
        let mut burst = bench.burst(&[([header, content(0, 1900)].concat(), offload)]);
        assert!(matches!(bench.nic.tx(0).post(&mut burst), Err(NicError::UnsupportedOffload(_))));
        burst.clear();
        let (header, offload) = whole(tcp4(0), 0);
        let mut burst = bench.burst(&[(header[..51].to_vec(), offload)]);
        assert!(matches!(bench.nic.tx(0).post(&mut burst), Err(NicError::UnsupportedOffload(_))));
        burst.clear();
        bench.finish();
    });
}

fn tagged_udp() -> (Vec<u8>, Offload) {
    let (header, offload) = whole(udp4(0), 0);
    (header, tagged(Offload { flags: OffloadFlags::empty(), ..offload }, 5))
}

#[test]
fn the_configuration_can_leave_work_to_software() {
    let config = VirtioNetConfig { offloads: OffloadFlags::UDP_CHECKSUM, gather: false, ..VirtioNetConfig::default() };
    let mut bench = Bench::with(Features::USUAL, config);
    let capabilities = bench.nic.capabilities();
    assert_eq!((capabilities.offloads, capabilities.max_segments, capabilities.max_segmentation), (OffloadFlags::UDP_CHECKSUM, 1, 0));
    assert!(!bench.model.accepted().intersects(Features::HOST_TSO4 | Features::HOST_TSO6 | Features::HOST_USO));
    let (header, offload) = whole(udp4(0), 0);
    check(&bench.send_bytes(&header, offload)[0]).unwrap();
    bench.finish();
}
