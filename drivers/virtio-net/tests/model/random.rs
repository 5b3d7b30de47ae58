//! Whatever is asked for, however it is cut and whenever time passes: what leaves is byte for byte what was asked for, in order.

use std::collections::VecDeque;

use hal::{Burst, Nic, Offload, OffloadFlags, RxBurst};
use hw_sim::model::Received;
use hw_sim::model::virtio::{Fault, Features, ModelConfig, Notify};
use hw_sim::wire::check;
use proptest::collection::vec;
use proptest::prelude::*;
use virtio_net::VirtioNetConfig;

use crate::bench::{BUFFERS, Bench, Window, bytes_of, variants, whole};
use crate::headers::{PEER, STATION, plain, tcp4, tcp6, tso4, udp4, udp6};

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
}

#[derive(Clone, Debug)]
enum Action {
    Post(Vec<Wanted>),
    Step,
    Reap,
    Refill,
    /// So many packets of so many bytes arrive.
    Arrive(usize, usize),
    Receive(usize),
    Notify(u8),
    Reset,
    ResetQueues,
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let kind = prop_oneof![
        4 => Just(Kind::Plain),
        1 => Just(Kind::Udp4),
        1 => Just(Kind::Udp6),
        1 => Just(Kind::Tcp4),
        1 => Just(Kind::Tcp6),
        1 => (4_u16..1400).prop_map(Kind::Tso),
    ];
    let length = prop_oneof![1_usize..20, 1_usize..1500, 1_usize..9000];
    let piece = (0..FILE - 9000, length, prop::bool::weighted(0.2));
    (kind, vec(piece, 0..20)).prop_map(|(kind, pieces)| Wanted { kind, pieces })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => vec(wanted(), 0..20).prop_map(Action::Post),
        5 => Just(Action::Step),
        5 => Just(Action::Reap),
        3 => Just(Action::Refill),
        3 => (1_usize..9, 60_usize..8900).prop_map(|(count, len)| Action::Arrive(count, len)),
        3 => (0_usize..9).prop_map(Action::Receive),
        1 => (0_u8..4).prop_map(Action::Notify),
        1 => Just(Action::Reset),
        1 => Just(Action::ResetQueues),
    ]
}

fn headers(kind: &Kind, payload: usize) -> (Vec<u8>, Offload) {
    let headers = match kind {
        Kind::Plain => return (plain(PEER, payload as u32, 18), Offload::NONE),
        Kind::Udp4 => udp4(payload),
        Kind::Udp6 => udp6(payload),
        Kind::Tcp4 => tcp4(payload),
        Kind::Tcp6 => tcp6(payload),
        // A segmentation without a payload is refused.
        Kind::Tso(_) if payload == 0 => tcp4(0),
        Kind::Tso(mss) => tso4(*mss),
    };
    whole(headers, payload)
}

/// One frame that was posted, and has to leave.
struct Expected {
    header: Vec<u8>,
    payload: Vec<u8>,
    offload: Offload,
}

impl Expected {
    fn frames(&self) -> usize {
        let cutting = self.offload.flags.intersects(OffloadFlags::CUTTING);
        if cutting { self.payload.len().div_ceil(self.offload.mss.into()) } else { 1 }
    }

    #[track_caller]
    fn compare(&self, sent: &[Vec<u8>]) {
        let mut payload: Vec<u8> = Vec::new();
        for frame in sent {
            assert_eq!(frame[..14], self.header[..14]);
            if self.header.len() == 18 {
                payload.extend(&frame[18..]);
            } else {
                payload.extend(&frame[check(frame).unwrap().payload]);
            }
        }
        assert!(payload == self.payload);
    }
}

struct Run {
    bench: Bench,
    window: Window,
    expected: VecDeque<Expected>,
    /// What arrived and was not received.
    arrived: VecDeque<Vec<u8>>,
    number: u32,
}

impl Run {
    fn act(&mut self, action: Action) {
        let bench = &mut self.bench;
        match action {
            Action::Post(wanted) => self.post(&wanted),
            Action::Step => {
                let sent = bench.model.step();
                self.compare(&sent);
            }
            Action::Reap => {
                bench.nic.tx(0).reap().unwrap();
            }
            Action::Refill => {
                bench.nic.rx(0).refill(&mut bench.pool).unwrap();
            }
            Action::Arrive(count, len) => {
                for _ in 0..count {
                    self.number += 1;
                    let frame = plain(STATION, self.number, len);
                    if bench.model.receive(&frame) == Received::Delivered {
                        self.arrived.push_back(frame);
                    }
                }
            }
            Action::Receive(limit) => {
                let mut packets = RxBurst::default();
                let count = bench.nic.rx(0).receive(&mut packets, limit).unwrap();
                assert_eq!(count, self.arrived.len().min(limit));
                assert!(bytes_of(&packets).into_iter().eq(self.arrived.drain(..count)));
            }
            Action::Notify(kind) => {
                bench.model.set_notify([Notify::Next, Notify::After(3), Notify::After(90), Notify::Never][usize::from(kind)])
            }
            Action::Reset => {
                self.settle();
                let outstanding = self.outstanding();
                self.bench.model.set_synchronous(true);
                assert_eq!(self.bench.nic.reset().unwrap(), outstanding);
                self.bench.model.set_synchronous(false);
                self.forget();
            }
            Action::ResetQueues => {
                self.settle();
                let outstanding = self.outstanding();
                assert_eq!(self.bench.nic.reset_tx(0).unwrap(), outstanding);
                self.bench.nic.reset_rx(0).unwrap();
                self.forget();
            }
        }
    }

    /// Nothing is complete that was not reaped.
    fn settle(&mut self) {
        self.bench.nic.tx(0).reap().unwrap();
    }

    fn outstanding(&mut self) -> u64 {
        let progress = self.bench.nic.tx(0).progress();
        progress.posted() - progress.completed()
    }

    fn forget(&mut self) {
        self.expected.clear();
        self.arrived.clear();
        assert_eq!(self.bench.free_buffers(), BUFFERS as usize);
    }

    /// Posts what there is room for; what the device cannot take is dropped from the burst.
    fn post(&mut self, wanted: &[Wanted]) {
        let mut burst = Burst::default();
        let mut asked = Vec::new();
        for frame in wanted {
            let most = if matches!(frame.kind, Kind::Tso(_)) { 36_000 } else { 8900 };
            let mut total = 0;
            let mut pieces = frame.pieces.clone();
            pieces.retain(|(_, len, _)| {
                let fits = total + len <= most;
                total += if fits { *len } else { 0 };
                fits
            });
            if self.bench.free_buffers() < 32 {
                break;
            }
            let (header, offload) = headers(&frame.kind, total);
            burst.push(self.bench.buffer(&header), offload);
            let mut payload: Vec<u8> = Vec::new();
            for (offset, len, copied) in pieces {
                let bytes = &self.window.content[offset..offset + len];
                payload.extend(bytes);
                if copied {
                    bytes.chunks(2048).for_each(|chunk| burst.gather_buffer(self.bench.buffer(chunk)));
                } else {
                    burst.gather(self.window.segment(offset, len));
                }
            }
            asked.push(Expected { header, payload, offload });
        }
        let posted = self.bench.nic.tx(0).post(&mut burst).unwrap();
        asked.truncate(posted);
        self.expected.extend(asked);
    }

    /// Compares what left with what was posted first.
    #[track_caller]
    fn compare(&mut self, mut sent: &[Vec<u8>]) {
        while !sent.is_empty() {
            let first = self.expected.pop_front().expect("a frame that nobody asked for");
            let (own, rest) = sent.split_at(first.frames());
            first.compare(own);
            sent = rest;
        }
    }

    fn finish(mut self) {
        // Whatever the device was not told of since it asked for a late notification.
        self.bench.model.set_notify(Notify::Never);
        let sent = self.bench.model.step();
        self.compare(&sent);
        assert!(self.expected.is_empty(), "{} frames did not leave", self.expected.len());
        self.act(Action::Reap);
        self.act(Action::Receive(usize::MAX));
        assert_eq!(self.outstanding(), 0);
        assert!(self.bench.nic.space().queues().fence().passed());
        let Self { bench, window, .. } = self;
        drop(window);
        bench.finish();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_leaves_is_what_was_asked_for(
        variant in 0_usize..8,
        reversed: bool,
        descriptors in prop_oneof![Just(32_u16), Just(64), Just(256)],
        actions in vec(action(), 1..60),
    ) {
        let device = ModelConfig { features: variants()[variant], mtu: 9000, ..ModelConfig::default() };
        let config = VirtioNetConfig { tx_descriptors: descriptors, rx_descriptors: descriptors, ..VirtioNetConfig::default() };
        let bench = Bench::on(device, config);
        bench.model.set_reversed(reversed);
        let window = Window::new(bench.nic.space(), FILE);
        let mut run = Run { bench, window, expected: VecDeque::new(), arrived: VecDeque::new(), number: 0 };
        actions.into_iter().for_each(|action| run.act(action));
        run.finish();
    }

    /// A device that writes anything into its rings: no panic, and a whole pool in the end.
    #[test]
    fn a_lying_device_does_no_harm(variant in 0_usize..8, steps in vec((0_usize..13, 0_u8..6), 1..80)) {
        let device = ModelConfig { features: variants()[variant] | Features::HASH_REPORT, mtu: 9000, ..ModelConfig::default() };
        let config = VirtioNetConfig { tx_descriptors: 32, rx_descriptors: 32, hash_report: variant % 3 == 0, lro: true, ..VirtioNetConfig::default() };
        let mut bench = Bench::on(device, config);
        let faults = [
            Fault::None, Fault::NoCompletion, Fault::UsedIdOutOfRange, Fault::UsedIdNotInFlight, Fault::UsedTwice, Fault::UsedJumps,
            Fault::RxLengthTooLong, Fault::RxLengthTooShort, Fault::RxIdOutOfRange, Fault::RxBuffersZero, Fault::RxBuffersTooMany,
            Fault::RxChecksumBeyond, Fault::RxGarbageHeader,
        ];
        let mut packets = RxBurst::default();
        for (number, (fault, action)) in steps.into_iter().enumerate() {
            bench.model.set_fault(faults[fault].clone());
            match action {
                0 | 1 if bench.free_buffers() > 20 => {
                    let frames: Vec<_> = (0..10).map(|frame| (plain(PEER, frame, 60), Offload::NONE)).collect();
                    let mut burst = bench.burst(&frames);
                    let _ = bench.nic.tx(0).post(&mut burst);
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
                    bench.model.clear_fault();
                    bench.command(|nic| nic.reset()).unwrap();
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
