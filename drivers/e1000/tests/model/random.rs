//! Whatever is asked for, however it is cut and whenever time passes: what leaves is byte for byte what was asked for, in order.

use hal::{Burst, Nic, NicError, Offload, RxBurst};
use hw_sim::model::e1000::{Fault, Received};
use hw_sim::wire::check;
use pagewire_e1000::E1000Config;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::bench::{BUFFERS, Bench, LONG, Window};
use crate::headers::{PEER, STATION, plain, tagged, tcp4, tcp6, tso4, udp4, udp6};

/// Bytes of the file that payload is gathered from.
const FILE: usize = 40_000;

#[derive(Clone, Debug)]
enum Kind {
    Plain,
    Udp4,
    Udp6,
    Tcp4,
    Tcp6,
    Tso(u16),
}

#[derive(Clone, Debug)]
struct Wanted {
    kind: Kind,
    /// Offset and length of each piece of the file; whether it is copied into buffers instead.
    pieces: Vec<(usize, usize, bool)>,
    vlan: Option<u16>,
}

#[derive(Clone, Debug)]
enum Action {
    Post(Vec<Wanted>),
    Step,
    Reap,
    Receive(usize),
    /// A fault that does not change what leaves.
    Harmless(u8),
    /// A hang after some descriptors, and the reset that ends it.
    Hang(u64),
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let kind = prop_oneof![
        Just(Kind::Plain),
        Just(Kind::Udp4),
        Just(Kind::Udp6),
        Just(Kind::Tcp4),
        Just(Kind::Tcp6),
        (4_u16..1460).prop_map(Kind::Tso),
    ];
    let length = prop_oneof![1_usize..20, 1_usize..1500, 4090_usize..4100, 1_usize..9000];
    let piece = (0..FILE - 9000, length, prop::bool::weighted(0.2));
    (kind, vec(piece, 0..5), prop::option::weighted(0.2, any::<u16>())).prop_map(|(kind, pieces, vlan)| Wanted { kind, pieces, vlan })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => vec(wanted(), 0..12).prop_map(Action::Post),
        4 => Just(Action::Step),
        4 => Just(Action::Reap),
        2 => (60_usize..9000).prop_map(Action::Receive),
        1 => (0_u8..5).prop_map(Action::Harmless),
        1 => (0_u64..30).prop_map(Action::Hang),
    ]
}

fn headers(kind: &Kind, payload: usize) -> (Vec<u8>, Offload) {
    match kind {
        Kind::Plain => (plain(PEER, payload as u32, 18), Offload::NONE),
        Kind::Udp4 => udp4(payload),
        Kind::Udp6 => udp6(payload),
        Kind::Tcp4 => tcp4(payload),
        Kind::Tcp6 => tcp6(payload),
        // A segmentation without a payload is refused.
        Kind::Tso(_) if payload == 0 => tcp4(0),
        Kind::Tso(mss) => tso4(*mss),
    }
}

/// One frame that was posted, and has to leave.
struct Expected {
    header: Vec<u8>,
    payload: Vec<u8>,
    mss: Option<usize>,
    vlan: Option<u16>,
}

impl Expected {
    fn frames(&self) -> usize {
        self.mss.map_or(1, |mss| self.payload.len().div_ceil(mss))
    }

    #[track_caller]
    fn compare(&self, sent: &[Vec<u8>]) {
        let mut payload: Vec<u8> = Vec::new();
        for frame in sent {
            let mut frame = frame.clone();
            if let Some(tag) = self.vlan {
                assert_eq!(frame[12..16], [0x81, 0, (tag >> 8) as u8, tag as u8]);
                frame.drain(12..16);
                // The driver pads before the tag is inserted; the device pads its segments behind it.
                assert!(frame.len() >= 60 || self.mss.is_some() && frame.len() >= 56);
            }
            assert_eq!(frame[..14], self.header[..14]);
            if self.header.len() == 18 {
                payload.extend(&frame[18..]);
            } else {
                let checked = check(&frame).unwrap();
                payload.extend(&frame[checked.payload]);
            }
        }
        if self.header.len() == 18 {
            let padded = payload.len().max(self.payload.len());
            let mut own = self.payload.clone();
            own.resize(padded, 0);
            assert!(padded == self.payload.len() || padded == 42);
            assert!(payload == own);
        } else {
            assert!(payload == self.payload);
        }
    }
}

fn run(descriptors: u16, actions: Vec<Action>) {
    let mut bench = Bench::with(E1000Config { tx_descriptors: descriptors, rx_descriptors: 80, mtu: 9000, ..E1000Config::default() });
    let window = Window::new(bench.nic.space(), FILE);
    let mut expected: Vec<Expected> = Vec::new();
    let mut now = std::time::Duration::ZERO;
    let mut received = 0;
    for action in actions {
        match action {
            Action::Post(wanted) => post(&mut bench, &window, &wanted, &mut expected),
            Action::Step => {
                let sent = bench.model.step();
                compare(&mut expected, &sent, true);
            }
            Action::Reap => {
                bench.nic.tx(0).reap().unwrap();
            }
            Action::Receive(len) => {
                bench.nic.rx(0).refill(&mut bench.pool).unwrap();
                let frame = plain(STATION, received, len);
                received += 1;
                if bench.model.receive(&frame) == Received::Delivered {
                    assert!(bench.received() == [frame]);
                }
            }
            Action::Harmless(fault) => bench.model.set_fault(
                [Fault::None, Fault::HeadGarbage, Fault::InterruptStorm, Fault::RxBeyondTail, Fault::DoneEverywhere][usize::from(fault)]
                    .clone(),
            ),
            Action::Hang(after) => {
                bench.model.set_fault(Fault::TransmitHangAfter(after));
                let sent = bench.model.step();
                compare(&mut expected, &sent, false);
                bench.nic.tx(0).reap().unwrap();
                let outstanding = bench.nic.tx(0).progress().posted() - bench.nic.tx(0).progress().completed();
                bench.nic.tx(0).check(now).unwrap();
                let hangs = bench.nic.tx(0).check(now + LONG);
                assert_eq!(matches!(hangs, Err(NicError::Hang { .. })), outstanding > 0, "{hangs:?}");
                now += 3 * LONG;
                bench.model.clear_fault();
                assert_eq!(bench.nic.reset().unwrap(), outstanding);
                expected.clear();
            }
        }
    }
    let sent = bench.model.step();
    compare(&mut expected, &sent, true);
    bench.nic.tx(0).reap().unwrap();
    let mut rest = RxBurst::default();
    bench.nic.rx(0).receive(&mut rest, usize::MAX).unwrap();
    assert!(rest.is_empty());
    let progress = bench.nic.tx(0).progress();
    assert_eq!(progress.posted(), progress.completed());
    let fence = bench.nic.space().queues().fence();
    assert!(fence.passed());
    bench.nic.reset().unwrap();
    assert_eq!(bench.free_buffers(), BUFFERS as usize);
    drop(window);
    bench.finish();
}

/// Posts what there is room for; what the device cannot take is dropped from the burst.
fn post(bench: &mut Bench, window: &Window, wanted: &[Wanted], expected: &mut Vec<Expected>) {
    let mut burst = Burst::default();
    let mut asked = Vec::new();
    for frame in wanted {
        let mut payload: Vec<u8> = Vec::new();
        let most = if matches!(frame.kind, Kind::Tso(_)) { 36_000 } else { 8900 };
        let mut pieces = frame.pieces.clone();
        pieces.retain(|(_, len, _)| {
            let fits = payload.len() + len <= most;
            if fits {
                payload.resize(payload.len() + len, 0);
            }
            fits
        });
        payload.clear();
        if bench.free_buffers() < 32 {
            break;
        }
        let total = pieces.iter().map(|(_, len, _)| len).sum();
        let (header, offload) = headers(&frame.kind, total);
        let offload = frame.vlan.map_or(offload, |tag| tagged(offload, tag));
        burst.push(bench.buffer(&header), offload);
        for (offset, len, copied) in pieces {
            let bytes = &window.content[offset..offset + len];
            payload.extend(bytes);
            if copied {
                bytes.chunks(2048).for_each(|chunk| burst.gather_buffer(bench.buffer(chunk)));
            } else {
                burst.gather(window.segment(offset, len));
            }
        }
        let mss = (offload.mss != 0).then_some(usize::from(offload.mss));
        asked.push(Expected { header, payload, mss, vlan: frame.vlan });
    }
    let posted = bench.nic.tx(0).post(&mut burst).unwrap();
    asked.truncate(posted);
    expected.extend(asked);
}

/// Compares what left with what was posted first; `all` of it, or whole frames until a hang.
#[track_caller]
fn compare(expected: &mut Vec<Expected>, sent: &[Vec<u8>], all: bool) {
    let mut sent = sent;
    while let Some(first) = expected.first().filter(|first| sent.len() >= first.frames()) {
        let (own, rest) = sent.split_at(first.frames());
        first.compare(own);
        sent = rest;
        expected.remove(0);
    }
    assert!(sent.is_empty(), "{} frames more than were asked for", sent.len());
    assert!(!all || expected.is_empty(), "{} frames did not leave", expected.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_leaves_is_what_was_asked_for(descriptors in prop_oneof![Just(80_u16), Just(128), Just(256)], actions in vec(action(), 1..60)) {
        run(descriptors, actions);
    }

    /// A device that writes anything into its rings: no panic, and a whole pool in the end.
    #[test]
    fn a_lying_device_does_no_harm(steps in vec((0_usize..10, 0_u8..6), 1..80)) {
        let mut bench = Bench::with(E1000Config { tx_descriptors: 80, rx_descriptors: 80, mtu: 9000, ..E1000Config::default() });
        let faults = [
            Fault::None, Fault::DoneTooEarly, Fault::DoneEverywhere, Fault::NoWriteBack, Fault::RxLengthTooLong, Fault::RxLengthZero,
            Fault::RxNeverEnds, Fault::RxGarbageStatus, Fault::RxSkipsDescriptor, Fault::StatisticsStuck,
        ];
        let mut packets = RxBurst::default();
        for (number, (fault, action)) in steps.into_iter().enumerate() {
            bench.model.set_fault(faults[fault].clone());
            match action {
                0 | 1 if bench.free_buffers() > 20 => {
                    let frames: Vec<_> = (0..10).map(|frame| (plain(PEER, frame, 60), Offload::NONE)).collect();
                    let mut burst = bench.burst(&frames);
                    bench.nic.tx(0).post(&mut burst).unwrap();
                }
                2 => {
                    let _ = bench.nic.rx(0).refill(&mut bench.pool);
                    bench.model.receive(&plain(STATION, number as u32, 60 + number * 100));
                }
                3 => {
                    let _ = bench.nic.rx(0).receive(&mut packets, number % 5);
                    // Every packet can be sent on: no buffer of it is empty.
                    prop_assert!(packets.packets().all(|packet| packet.buffers.iter().all(|buffer| !buffer.is_empty())));
                    if number % 3 == 0 {
                        packets.clear();
                    }
                }
                4 => {
                    bench.nic.reset().unwrap();
                }
                _ => {
                    bench.model.step();
                    let _ = bench.nic.tx(0).reap();
                    bench.nic.statistics().unwrap();
                }
            }
        }
        prop_assert_eq!(bench.model.faulted_accesses(), vec![]);
        drop(packets);
        bench.finish_broken("a lying device");
    }
}
