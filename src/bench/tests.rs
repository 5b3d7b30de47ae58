//! On the model of an e1000, which has nothing of the driver in it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, yield_now};
use std::time::{Duration, Instant};

use e1000::{E1000, E1000Config};
use etherparse::{NetSlice, TransportSlice};
use hal::{NicError, RxFilter};
use hw_sim::model::e1000::{E1000Model, Fault, Received};
use hw_sim::model::virtio::{ModelConfig, VirtioNetModel};
use virtio_net::{VirtioNet, VirtioNetConfig};

use super::*;

const TIME: Duration = Duration::from_millis(20);

fn nic(config: E1000Config) -> (E1000Model, Box<dyn hal::Nic>) {
    let model = E1000Model::new("52:54:00:00:00:01".parse().unwrap());
    model.set_synchronous(true);
    let nic = E1000::start(model.device(), config).unwrap();
    (model, Box::new(nic))
}

fn session(config: E1000Config) -> (E1000Model, Session) {
    let (model, nic) = nic(config);
    (model, Session::new(vec![nic], 1).unwrap())
}

fn load(segments: &[u32]) -> Load {
    Load { segments: segments.to_vec(), duration: TIME, ..Load::default() }
}

fn transmit(load: &Load, prebuilt: bool) -> Result<Figures, BenchError> {
    let (model, mut session) = session(E1000Config::default());
    let figures = session.transmit(load, prebuilt, &AtomicBool::new(false))?;
    assert_eq!(model.violations(), Vec::<String>::new());
    let frames = model.step();
    assert_eq!(frames.len() as u64, figures.frames);
    // By a parser that is not ours, all that a frame says of itself is right.
    let last = etherparse::SlicedPacket::from_ethernet(frames.last().unwrap()).unwrap();
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (last.net, last.transport) else { panic!("not UDP over IPv4") };
    assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
    assert_eq!((udp.destination_port(), udp.checksum(), udp.payload().len() as u64), (9, 0, load.bytes() - 42));
    assert!(frames.iter().all(|frame| frame.len() as u64 == load.bytes() && frame[..42] == load::header(load.bytes())));
    Ok(figures)
}

#[test]
fn every_frame_that_was_posted_is_counted_and_has_its_header() {
    for prebuilt in [false, true] {
        let one = transmit(&load(&[64]), prebuilt).unwrap();
        assert!(one.frames > 0 && one.frames == one.descriptors && one.prebuilt == prebuilt, "{one:?}");
        let two = transmit(&load(&[64, 1400]), prebuilt).unwrap();
        assert_eq!(two.descriptors, 2 * two.frames);
        assert!(two.pps > 0.0 && two.cycles_per_packet > 0.0 && two.busy_ns_per_frame > 0.0 && two.doorbells > 0, "{two:?}");
        assert_eq!(transmit(&load(&[64, 10, 500]), prebuilt).map(|three| three.descriptors / three.frames).unwrap(), 3);
    }
}

#[test]
fn a_load_that_cannot_be_is_refused() {
    for segments in [&[][..], &[41], &[2049], &[64, 0], &[64, 2000], &[64; 300]] {
        assert!(matches!(transmit(&load(segments), false), Err(BenchError::Load(_))), "{segments:?}");
    }
    for burst in [0, 257] {
        assert!(matches!(transmit(&Load { burst, ..load(&[64]) }, false), Err(BenchError::Load(_))));
    }
    let unknown = Load { cpus: vec![1 << 30], ..load(&[64]) };
    assert!(matches!(transmit(&unknown, false), Err(BenchError::Cpu { cpu: 0x4000_0000, .. })));
    let (_, mut plain) = session(E1000Config { gather: false, ..E1000Config::default() });
    let refused = plain.transmit(&load(&[64, 1400]), false, &AtomicBool::new(false)).unwrap_err();
    assert!(refused.to_string().contains("gathers 1"), "{refused}");
}

#[test]
fn a_session_has_one_or_two_nics_with_the_queues_that_are_asked_for() {
    let nics = |count| (0..count).map(|_| nic(E1000Config::default()).1).collect::<Vec<_>>();
    for (count, queues) in [(0, 1), (3, 1), (1, 0), (1, 2)] {
        assert!(matches!(Session::new(nics(count), queues), Err(BenchError::Load(_))), "{count} NICs, {queues} queues");
    }
}

#[test]
fn a_device_that_goes_ends_the_measurement_with_what_happened() {
    let (model, mut session) = session(E1000Config::default());
    model.set_fault(Fault::Vanished);
    let load = Load { duration: Duration::from_secs(60), ..load(&[64]) };
    let done = session.transmit(&load, false, &AtomicBool::new(false));
    assert!(matches!(done, Err(BenchError::Nic(NicError::Vanished { .. }))), "{done:?}");
}

#[test]
fn a_device_that_goes_ends_a_reception_too() {
    let (model, mut session) = session(open(1500));
    // Until it is noticed: the measured time is longer than any test.
    let load = Load { duration: Duration::from_secs(3600), ..load(&[64]) };
    let stop = AtomicBool::new(false);
    scope(|scope| {
        let receiving = scope.spawn(|| session.receive(&load, &stop));
        wait_until_taken(&model);
        model.set_fault(Fault::Vanished);
        let start = Instant::now();
        while !receiving.is_finished() && start.elapsed() < Duration::from_secs(30) {
            yield_now();
        }
        // The end looks at the device, too.
        let noticed = receiving.is_finished();
        stop.store(true, Ordering::Relaxed);
        let done = receiving.join().unwrap();
        assert!(noticed && matches!(done, Err(BenchError::Nic(NicError::Vanished { .. }))), "{done:?}");
    });
}

// What the tests below do while a measurement runs on another thread.

const RDH: u64 = 0x2810;
const RDT: u64 = 0x2818;

/// As `pagewire bench` opens NICs that are to receive.
fn open(mtu: u16) -> E1000Config {
    E1000Config { mtu, filter: RxFilter { promiscuous: true, ..RxFilter::default() }, ..E1000Config::default() }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        yield_now();
    }
}

/// The queue has all the buffers that it can have: it has begun, and all that came was taken.
fn wait_until_taken(model: &E1000Model) {
    let descriptors = u32::from(E1000Config::default().rx_descriptors);
    wait_until("all is taken", || model.register(RDT) == (model.register(RDH) + descriptors - 1) % descriptors);
}

/// A frame arrives, as soon as there is a buffer for it.
fn arrive(model: &E1000Model, frame: &[u8]) {
    wait_until("a frame is delivered", || model.receive(frame) == Received::Delivered);
}

fn frame(number: u8, len: usize) -> Vec<u8> {
    let mut frame = [&[2, 0, 0, 0, 0, 0xaa, 2, 0, 0, 0, 0, 0xbb, 0x88, 0xb5][..], &[number]].concat();
    frame.resize(len, number ^ 0x55);
    frame
}

/// Measures until `meanwhile` is over.
fn during(meanwhile: impl FnOnce(), measure: impl FnOnce(&Load, &AtomicBool) -> Result<Figures, BenchError> + Send) -> Figures {
    let stop = AtomicBool::new(false);
    let load = Load { duration: Duration::from_secs(60), ..load(&[64]) };
    scope(|scope| {
        let measuring = scope.spawn(|| measure(&load, &stop));
        // Also when a test fails, so that it ends.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
        stop.store(true, Ordering::Relaxed);
        let figures = measuring.join().unwrap().unwrap();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        figures
    })
}

#[test]
fn what_arrives_where_nothing_is_to_be_received_is_no_drop() {
    let (model, mut session) = session(open(1500));
    let meanwhile = || {
        wait_until("it sends", || model.doorbells() > 0);
        assert_eq!(model.receive(&frame(0, 100)), Received::Missed);
    };
    let figures = during(meanwhile, |load, stop| session.transmit(load, false, stop));
    assert_eq!(figures.drops, 0);
}

#[test]
fn what_is_received_is_counted_and_so_is_what_is_dropped() {
    let (model, mut session) = session(open(1500));
    let (mut delivered, mut missed) = (0, 0);
    let meanwhile = || {
        wait_until_taken(&model);
        for number in 0..=255 {
            for _ in 0..8 {
                match model.receive(&frame(number, 100)) {
                    Received::Delivered => delivered += 1,
                    Received::Missed => missed += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
        wait_until_taken(&model);
        model.set_fault(Fault::RxError);
        assert_eq!(model.receive(&frame(0, 100)), Received::Delivered, "with an error in it");
        wait_until_taken(&model);
    };
    let figures = during(meanwhile, |load, stop| session.receive(load, stop));
    assert!(delivered > 0, "{figures:?}");
    assert_eq!((figures.frames, figures.drops), (delivered, missed + 1));
    assert!(figures.doorbells > 1 && figures.descriptors == 0 && figures.cycles_per_packet > 0.0, "{figures:?}");
    assert_eq!(model.violations(), Vec::<String>::new());
}

/// What comes out of `to` for what arrives at `from`.
fn forwarded(from: &E1000Model, to: &E1000Model, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    wait_until_taken(from);
    let mut out = Vec::new();
    frames.iter().for_each(|frame| arrive(from, frame));
    wait_until("all is forwarded", || {
        out.extend(to.step());
        out.len() >= frames.len()
    });
    out
}

#[test]
fn what_is_forwarded_comes_out_as_it_came_or_with_its_addresses_exchanged() {
    for mac_swap in [false, true] {
        let (model, mut session) = session(open(9000));
        // Over one buffer and over five, and with a VLAN tag, which the device takes out and puts in again.
        let mut frames: Vec<_> = (0..200).map(|number| frame(number, 60 + usize::from(number))).collect();
        frames.push(frame(201, 9014));
        let mut tagged = frame(202, 200);
        tagged.splice(12..12, [0x81, 0, 0, 100]);
        frames.push(tagged);
        let mut out = Vec::new();
        let figures = during(
            || out = forwarded(&model, &model, &frames),
            |load, stop| session.forward(load, Forwarding { mac_swap, inject: 0 }, stop),
        );
        if mac_swap {
            frames.iter_mut().for_each(|frame| frame[..12].rotate_left(6));
        }
        assert!(out == frames, "{mac_swap}");
        assert_eq!((figures.frames, figures.drops), (202, 0));
        assert_eq!(figures.descriptors, 202 + 4);
        assert_eq!(model.violations(), Vec::<String>::new());
    }
}

#[test]
fn two_nics_forward_to_each_other() {
    let (left, left_nic) = nic(open(1500));
    let (right, right_nic) = nic(open(1500));
    let mut session = Session::new(vec![left_nic, right_nic], 1).unwrap();
    let frames: Vec<_> = (0..100).map(|number| frame(number, 300)).collect();
    let meanwhile = || {
        assert!(forwarded(&left, &right, &frames) == frames);
        assert!(forwarded(&right, &left, &frames[..50]) == frames[..50]);
        // Then nothing comes any more, which is told.
        std::thread::sleep(Duration::from_millis(200));
    };
    let figures = during(meanwhile, |load, stop| session.forward(load, Forwarding::default(), stop));
    assert_eq!((figures.frames, figures.drops), (150, 0));
    assert!((0.1..figures.seconds).contains(&figures.quiet_seconds), "{figures:?}");
}

#[test]
fn what_is_injected_goes_around_also_in_the_next_measurement() {
    let (model, mut session) = session(open(1500));
    for _ in 0..2 {
        let mut rounds = 0;
        let meanwhile = || {
            wait_until("packets go around", || {
                for packet in model.step() {
                    assert_eq!(packet.len(), 64);
                    arrive(&model, &packet);
                    rounds += 1;
                }
                rounds > 1000
            });
            wait_until_taken(&model);
        };
        let figures = during(meanwhile, |load, stop| session.forward(load, Forwarding { mac_swap: false, inject: 40 }, stop));
        assert_eq!((figures.frames, figures.drops), (rounds, 0));
    }
    assert_eq!(model.step().len(), 40, "no packet was lost, none was added");
    let refused = session.forward(&load(&[64]), Forwarding { inject: 256, ..Forwarding::default() }, &AtomicBool::new(false));
    assert!(refused.unwrap_err().to_string().contains("the receive ring holds 255"));
}

#[test]
fn forwarding_goes_on_after_all_buffers_were_on_their_way() {
    let (model, mut session) = session(E1000Config { tx_descriptors: 4096, ..open(1500) });
    // It sends when it is stepped, and has a ring for more than all buffers.
    model.set_synchronous(false);
    let mut delivered = 0;
    let meanwhile = || {
        let mut missed = 0;
        wait_until("no buffer is left", || {
            match model.receive(&frame(0, 60)) {
                Received::Delivered => (delivered, missed) = (delivered + 1, 0),
                _ => missed += 1,
            }
            missed == 5_000
        });
        let mut out = 0;
        for _ in 0..300 {
            wait_until("there are buffers again", || {
                out += model.step().len();
                model.receive(&frame(0, 60)) == Received::Delivered
            });
        }
        wait_until("all is sent on", || {
            out += model.step().len();
            out == delivered + 300
        });
    };
    let figures = during(meanwhile, |load, stop| session.forward(load, Forwarding::default(), stop));
    assert!(delivered > 0);
    assert_eq!(figures.frames as usize, delivered + 300);
}

#[test]
fn queues_that_carry_nothing_are_served_beside_and_may_carry_something_after_all() {
    let start = || {
        let model = VirtioNetModel::with(ModelConfig { pairs: 3, ..ModelConfig::default() });
        model.set_synchronous(true);
        let nic = VirtioNet::start(
            model.transport(),
            VirtioNetConfig { queue_pairs: 3, filter: open(1500).filter, ..VirtioNetConfig::default() },
        )
        .unwrap();
        (model, vec![Box::new(nic) as Box<dyn hal::Nic>])
    };
    assert!(matches!(Session::with_idle(start().1, 1, 3), Err(BenchError::Load(_))), "four pairs of three");
    let (model, nics) = start();
    let mut session = Session::with_idle(nics, 1, 2).unwrap();
    let arrivals = || {
        // More than a ring holds, so that each queue has to be looked at and given buffers meanwhile.
        for pair in [1, 2].repeat(600) {
            wait_until("a buffer of an idle queue", || model.receive_on(pair, &frame(0, 60)) == Received::Delivered);
        }
    };
    let figures = during(arrivals, |load, stop| session.transmit(load, false, stop));
    assert_eq!((figures.queues, figures.idle_queues), (1, 2));
    assert!(figures.frames > 0);
}

#[test]
fn each_round_trip_is_a_sample_and_the_mean_is_the_inverse_of_the_rate() {
    for segments in [&[64][..], &[64, 1400]] {
        let (model, mut session) = session(open(1500));
        let figures = during(
            || {
                let mut trips = 0;
                wait_until("round trips", || {
                    // What is not the packet under way changes nothing, also when it is all that there is.
                    for packet in model.step() {
                        arrive(&model, &frame(9, 60));
                        wait_until_taken(&model);
                        arrive(&model, &packet);
                        trips += 1;
                    }
                    trips > 100
                });
            },
            |load, stop| session.latency(&Load { segments: segments.to_vec(), ..load.clone() }, stop),
        );
        let latency = figures.latency.unwrap();
        // The first one is not measured, and the last ones may not have been taken when the time was over.
        assert!((50..=101).contains(&figures.frames) && latency.samples == figures.frames, "{figures:?}");
        assert!((latency.mean_ns * figures.pps / 1e9 - 1.0).abs() < 1e-9, "{figures:?}");
        assert!(0 < latency.min_ns && latency.min_ns <= latency.p50_ns && latency.p99_ns <= latency.max_ns, "{latency:?}");
        assert_eq!(model.violations(), Vec::<String>::new());
    }
}

#[test]
fn a_packet_that_does_not_come_back_is_lost_and_the_next_one_is_sent() {
    let (model, mut session) = session(open(1500));
    let meanwhile = || {
        let (mut seen, mut back) = (0, 0);
        wait_until("a loss, and what comes after it", || {
            for packet in model.step() {
                seen += 1;
                if seen != 3 {
                    arrive(&model, &packet);
                    back += 1;
                }
            }
            back > 5
        });
    };
    let figures = during(meanwhile, |load, stop| session.latency(load, stop));
    // At least the one: on a machine that stands still for a second, others are late, too.
    assert!(figures.drops >= 1, "{figures:?}");
}

#[test]
fn where_nothing_comes_back_there_is_no_latency() {
    let (_model, mut session) = session(open(1500));
    let silent = session.latency(&load(&[64]), &AtomicBool::new(false)).unwrap_err();
    assert!(silent.to_string().contains("pagewire bench forward"), "{silent}");
    let short = session.latency(&load(&[49]), &AtomicBool::new(false)).unwrap_err();
    assert!(short.to_string().contains("50 to 2048"), "{short}");
}
