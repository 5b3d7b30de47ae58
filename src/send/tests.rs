//! Sends through the real driver on the in-process model, in virtual time.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use e1000::{E1000, E1000Config};
use hal::nic::HANG;
use hal::{MacAddress, Nic, OffloadFlags};
use hw_sim::model::e1000::{E1000Model, Fault, Received};
use hw_sim::wire;
use hw_sim::wire::check::Protocol;

use super::*;
use crate::file::Source;
use crate::net::{Cidr, Interface, respond};

mod asked;

const STATION: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 2]);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

struct Bench {
    model: E1000Model,
    port: Port,
    now: Duration,
    wire: Vec<Vec<u8>>,
}

impl Bench {
    fn new() -> Self {
        Self::with(E1000Config::default(), PortConfig::default())
    }

    fn with(config: E1000Config, port: PortConfig) -> Self {
        let model = E1000Model::new("52:54:00:00:00:01".parse().unwrap());
        let mtu = config.mtu;
        let nic = E1000::start(model.device(), config).unwrap();
        let interface = Interface::new(nic.mac(), "192.0.2.1/24".parse().unwrap(), None, mtu, None).unwrap();
        Self { port: Port::new(Box::new(nic), interface, port).unwrap(), model, now: Duration::ZERO, wire: Vec::new() }
    }

    fn options() -> UdpOptions {
        UdpOptions { station: Some(STATION), ..UdpOptions::to((PEER, 9000).into()) }
    }

    /// However few bytes there are.
    fn gathering() -> UdpOptions {
        UdpOptions { copy_below: 0, ..Self::options() }
    }

    /// Takes steps until the send is over or fails; a step takes 10 µs of virtual time, and a wait as long as it says.
    fn run(&mut self, source: Source, options: UdpOptions) -> Report {
        self.run_with(source, options, |_, _| ())
    }

    fn run_with(&mut self, source: Source, options: UdpOptions, mut meanwhile: impl FnMut(&mut UdpSend<'_>, &E1000Model)) -> Report {
        let Self { model, port, now, wire } = self;
        let mut send = UdpSend::new(port, source, options, *now).unwrap();
        let deadline = *now + Duration::from_secs(600);
        loop {
            assert!(*now < deadline, "the send does not end");
            meanwhile(&mut send, model);
            let step = send.step(*now);
            wire.extend(model.step());
            match step {
                Ok(Step::Done) => return send.finish(*now),
                Ok(Step::Busy) => *now += Duration::from_micros(10),
                Ok(Step::Idle { until }) => {
                    if let Err(error) = send.check(*now) {
                        return send.fail(*now, error);
                    }
                    *now = until.unwrap_or(*now + Duration::from_millis(1)).max(*now + Duration::from_micros(10));
                }
                Err(error) => return send.fail(*now, error),
            }
        }
    }

    /// The payloads of the UDP datagrams on the wire, each frame checked.
    fn datagrams(&self) -> Vec<Vec<u8>> {
        let udp =
            self.wire.iter().map(|frame| (frame, wire::check(frame).unwrap())).filter(|(_, checked)| checked.protocol == Protocol::Udp);
        udp.map(|(frame, checked)| frame[checked.payload].to_vec()).collect()
    }

    fn assert_clean(&self) {
        assert_eq!(self.model.violations(), Vec::<String>::new());
        assert_eq!(self.model.faulted_accesses(), []);
    }
}

fn file(len: usize) -> (tempfile::TempPath, Vec<u8>) {
    let content: Vec<u8> = (0..len as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&content).unwrap();
    (file.into_temp_path(), content)
}

#[test]
fn a_file_of_any_size_arrives_and_is_gathered() {
    for len in [0, 1, 17, 1472, 1473, 4095, 4096, 4097, 300_000] {
        let (path, content) = file(len);
        let mut bench = Bench::new();
        let report = bench.run(Source::open(&path).unwrap(), Bench::gathering());
        assert_eq!(report.stopped, Stop::Complete);
        assert!(bench.datagrams().concat() == content, "{len} bytes");
        assert_eq!((report.bytes, report.bytes_gathered, report.bytes_copied), (len as u64, len as u64, 0));
        assert_eq!(report.frames, len.div_ceil(1472) as u64);
        assert_eq!(report.doorbells, report.frames.div_ceil(32));
        bench.assert_clean();
    }
}

#[test]
fn a_file_of_several_windows_arrives() {
    let (path, content) = file(9 << 20);
    let mut bench = Bench::with(E1000Config::default(), PortConfig { window_budget: 8 << 20, ..PortConfig::default() });
    let report = bench.run(Source::open(&path).unwrap(), Bench::options());
    assert!(bench.datagrams().concat() == content);
    assert_eq!((report.windows.mapped, report.windows.evicted), (3, 1));
    bench.assert_clean();
}

#[test]
fn a_burst_lies_in_two_windows_however_small_they_are() {
    // Windows of 4, 16, 32, 64 and 256 KiB; full bursts are of 47 and of 377 KB.
    for (budget, burst) in [(8, 32), (48, 32), (64, 32), (120, 32), (200, 32), (600, 256)] {
        let (path, content) = file(1 << 20);
        let mut bench = Bench::with(E1000Config::default(), PortConfig { window_budget: budget << 10, ..PortConfig::default() });
        let report = bench.run(Source::open(&path).unwrap(), UdpOptions { burst, ..Bench::gathering() });
        assert_eq!((&report.stopped, report.bytes_gathered), (&Stop::Complete, 1 << 20), "{budget} KiB");
        assert!(bench.datagrams().concat() == content, "{budget} KiB");
        bench.assert_clean();
    }
}

#[test]
fn datagrams_that_are_larger_than_two_windows_are_copied() {
    let (path, content) = file(100_000);
    let config = E1000Config { mtu: 9000, ..E1000Config::default() };
    let mut bench = Bench::with(config, PortConfig { window_budget: 8 << 10, ..PortConfig::default() });
    let report = bench.run(Source::open(&path).unwrap(), Bench::gathering());
    assert_eq!((&report.stopped, report.copy_reasons.get(&CopyReason::NotMappable)), (&Stop::Complete, Some(&100_000)));
    assert!(bench.datagrams().concat() == content);
}

#[test]
fn a_second_send_of_the_same_file_maps_nothing() {
    let (path, _) = file(1 << 20);
    let mut bench = Bench::new();
    let first = bench.run(Source::open(&path).unwrap(), Bench::options());
    let second = bench.run(Source::open(&path).unwrap(), Bench::options());
    assert_eq!((first.windows.mapped, first.windows.hits), (1, 0));
    assert_eq!((second.windows.mapped, second.windows.hits), (0, 1));
}

#[test]
fn a_small_file_is_copied_and_a_large_one_gathered() {
    let threshold = COPY_BELOW as usize;
    for (len, gathers) in [(1, false), (threshold - 1, false), (threshold, true), (3 * threshold + 5, true)] {
        let (path, content) = file(len);
        let mut bench = Bench::new();
        let report = bench.run(Source::open(&path).unwrap(), Bench::options());
        assert!(bench.datagrams().concat() == content, "{len} bytes");
        if gathers {
            assert_eq!((report.bytes_copied, report.windows.mapped), (0, 1), "{len} bytes");
        } else {
            assert_eq!((report.copy_reasons[&CopyReason::BelowThreshold], report.windows.mapped), (len as u64, 0));
        }
        bench.assert_clean();
    }
}

#[test]
fn a_window_that_is_there_is_used_however_few_bytes_are_wanted() {
    let (path, content) = file(10_000);
    let mut bench = Bench::new();
    bench.run(Source::open(&path).unwrap(), Bench::gathering());
    bench.wire.clear();
    let report = bench.run(Source::open(&path).unwrap(), Bench::options());
    assert!(bench.datagrams().concat() == content);
    assert_eq!((report.bytes_gathered, report.windows.mapped, report.windows.hits), (10_000, 0, 1));
}

#[test]
fn a_short_rest_behind_the_last_window_is_copied() {
    // A datagram lies across the border, so it has a segment of the window and a copied one.
    let window = 4 << 20;
    let (path, content) = file(window + 10_000);
    let mut bench = Bench::new();
    for offset in [0, window - 100, window - 10, window, window + 1] {
        bench.wire.clear();
        let options = UdpOptions { offset: offset as u64, ..Bench::options() };
        let report = bench.run(Source::open(&path).unwrap(), options);
        assert_eq!(report.stopped, Stop::Complete);
        assert!(bench.datagrams().concat() == content[offset..], "from {offset}");
        let gathered = window.saturating_sub(offset) as u64;
        assert_eq!((report.bytes_gathered, report.bytes_copied), (gathered, report.bytes - gathered), "from {offset}");
        assert_eq!(report.copy_reasons.keys().collect::<Vec<_>>(), [&CopyReason::BelowThreshold], "from {offset}");
        assert_eq!(report.windows.mapped, u64::from(offset == 0), "from {offset}");
    }
    bench.assert_clean();
}

#[test]
fn passes_over_one_port_use_the_same_windows_and_ask_once_for_the_neighbour() {
    let (path, content) = file(300_000);
    let mut bench = Bench::new();
    let Bench { model, port, wire, .. } = &mut bench;
    let ended = std::sync::atomic::AtomicBool::new(false);
    // The device works in a thread of its own, as the clock is the real one here.
    let repeated = std::thread::scope(|scope| {
        let device = scope.spawn(|| {
            let peer = Interface::new(STATION, Cidr::new(IpAddr::V4(PEER), 24).unwrap(), None, 1500, None).unwrap();
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                for frame in model.step() {
                    let mut answer = Vec::new();
                    if respond(&peer, &frame, &mut answer).is_some() {
                        assert!(matches!(model.receive(&answer), Received::Delivered));
                    }
                    wire.push(frame);
                }
            }
        });
        let mut options = UdpOptions { station: None, ..Bench::options() };
        let stop = std::sync::atomic::AtomicBool::new(false);
        let repeated = repeat(
            3,
            |_| (),
            |tell| {
                let mut send = UdpSend::new(port, Source::open(&path).unwrap(), options.clone(), Duration::ZERO)?;
                let report = super::run(&mut send, Wait::Poll, &stop, tell);
                options.station = send.station();
                Ok::<_, SendError>(report)
            },
        );
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
        device.join().unwrap();
        repeated.unwrap()
    });
    assert!(bench.datagrams().concat() == content.repeat(3));
    assert_eq!(bench.wire.len() as u64, repeated.total.frames + 1, "one question");
    let windows: Vec<_> = repeated.passes.iter().map(|report| (report.windows.mapped, report.windows.hits)).collect();
    assert_eq!(windows, [(1, 0), (0, 1), (0, 1)]);
    assert_eq!((repeated.total.bytes, repeated.total.stopped), (900_000, Stop::Complete));
    let cost = repeated.after_first.unwrap();
    assert_eq!((cost.bytes, cost.frames), (600_000, 2 * 204));
    assert!(cost.cpu_seconds > 0.0 && cost.busy_seconds > 0.0 && cost.busy_seconds <= cost.seconds, "{cost:?}");
    assert!(repeated.passes.iter().all(|report| report.cpu_seconds > 0.0));
}

#[test]
fn what_the_nic_lacks_is_done_by_the_cpu_and_reported() {
    let (path, content) = file(100_000);
    for (config, reason) in [
        (E1000Config { offloads: OffloadFlags::empty(), ..E1000Config::default() }, CopyReason::NoChecksumOffload),
        (E1000Config { gather: false, ..E1000Config::default() }, CopyReason::NoGather),
    ] {
        let mut bench = Bench::with(config, PortConfig::default());
        let report = bench.run(Source::open(&path).unwrap(), Bench::options());
        assert!(bench.datagrams().concat() == content);
        assert_eq!((report.bytes_gathered, report.copy_reasons[&reason]), (0, 100_000));
        assert_eq!(report.windows.mapped, 0);
        bench.assert_clean();
    }
}

#[test]
fn a_file_that_cannot_be_mapped_is_copied() {
    let (path, content) = file(100_000);
    let mut bench = Bench::with(E1000Config::default(), PortConfig { window_budget: 0, ..PortConfig::default() });
    let report = bench.run(Source::open(&path).unwrap(), Bench::gathering());
    assert!(bench.datagrams().concat() == content);
    assert_eq!(report.copy_reasons[&CopyReason::NotMappable], 100_000);
}

#[test]
fn offsets_stand_in_front_of_the_data_and_nothing_is_copied_for_them() {
    let (path, content) = file(10_000);
    let mut bench = Bench::new();
    let options = UdpOptions { framing: Framing::Offset, offset: 100, length: Some(5000), ..Bench::gathering() };
    let report = bench.run(Source::open(&path).unwrap(), options);
    let mut position = 100;
    for datagram in bench.datagrams() {
        let (offset, data) = datagram.split_first_chunk().unwrap();
        assert_eq!(u64::from_be_bytes(*offset), position as u64);
        assert!(data == &content[position..position + data.len()]);
        position += data.len();
    }
    assert_eq!(position, 5100);
    assert_eq!((report.bytes_gathered, report.bytes_copied, report.descriptors), (5000, 0, 4 * 2 + 1), "one context, two a frame");
}

#[test]
fn a_jumbo_frame_is_cut_into_descriptors() {
    let (path, content) = file(100_000);
    let mut bench = Bench::with(E1000Config { mtu: 9000, ..E1000Config::default() }, PortConfig::default());
    let report = bench.run(Source::open(&path).unwrap(), Bench::options());
    assert!(bench.datagrams().concat() == content);
    assert_eq!(report.frames, 100_000_u64.div_ceil(9000 - 28));
    bench.assert_clean();
}

#[test]
fn a_neighbour_is_asked_for_and_its_answer_is_used() {
    let (path, content) = file(5000);
    let mut bench = Bench::new();
    let peer = Interface::new(STATION, Cidr::new(IpAddr::V4(PEER), 24).unwrap(), None, 1500, None).unwrap();
    let mut answered = 0;
    let Bench { model, port, wire, .. } = &mut bench;
    let mut send =
        UdpSend::new(port, Source::open(&path).unwrap(), UdpOptions { station: None, ..Bench::options() }, Duration::ZERO).unwrap();
    let mut now = Duration::ZERO;
    while send.step(now).unwrap() != Step::Done {
        for frame in model.step() {
            let mut answer = Vec::new();
            if respond(&peer, &frame, &mut answer).is_some() {
                assert!(matches!(model.receive(&answer), Received::Delivered));
                answered += 1;
            }
            wire.push(frame);
        }
        now += Duration::from_micros(100);
    }
    assert_eq!(send.finish(now).stopped, Stop::Complete);
    assert_eq!(answered, 1);
    assert!(bench.datagrams().concat() == content);
    let destinations = bench.wire[1..].iter().map(|frame| wire::check(frame).unwrap().destination_mac);
    assert!(destinations.into_iter().all(|destination| destination == STATION));
}

#[test]
fn a_neighbour_that_does_not_answer_is_named() {
    let (path, _) = file(5000);
    let mut bench = Bench::new();
    let report = bench.run(Source::open(&path).unwrap(), UdpOptions { station: None, ..Bench::options() });
    let Stop::Failed(why) = report.stopped else { panic!("{:?}", report.stopped) };
    assert!(why.contains("192.0.2.2 did not answer ARP for 5s"), "{why}");
    assert_eq!(report.bytes, 0);
    assert_eq!(bench.now.as_secs(), 5);
}

#[test]
fn a_send_keeps_its_rate() {
    let (path, _) = file(1_000_000);
    let mut bench = Bench::new();
    let report = bench.run(Source::open(&path).unwrap(), UdpOptions { rate: Some("10Mbit".parse().unwrap()), ..Bench::options() });
    // 680 frames: a million bytes of file and 42 of headers each.
    let expected = (1_000_000.0 + 680.0 * 42.0) * 8.0 / 10e6;
    assert!((report.seconds / expected - 1.0).abs() < 0.02, "{} s for {expected} s", report.seconds);
}

#[test]
fn an_interrupted_send_completes_what_is_posted() {
    let (path, content) = file(1 << 20);
    let mut bench = Bench::new();
    let report = bench.run_with(Source::open(&path).unwrap(), Bench::options(), |send, _| {
        if send.progress().bytes > 500_000 {
            send.interrupt();
        }
    });
    assert_eq!(report.stopped, Stop::Interrupted);
    assert!(report.bytes > 500_000 && report.bytes < 600_000);
    assert!(bench.datagrams().concat() == content[..report.bytes as usize]);
}

#[test]
fn a_hanging_device_ends_the_send_and_is_usable_afterwards() {
    let (path, content) = file(1 << 20);
    let mut bench = Bench::new();
    let report = bench.run_with(Source::open(&path).unwrap(), Bench::options(), |send, model| {
        if send.progress().bytes > 500_000 {
            model.set_fault(Fault::TransmitHang);
        }
    });
    let Stop::Failed(why) = &report.stopped else { panic!("{:?}", report.stopped) };
    assert!(why.contains("hangs"), "{why}");
    assert!(report.frames_lost > 0 && bench.now >= HANG);
    assert_eq!(report.frames_lost + bench.datagrams().len() as u64, report.frames);
    bench.model.clear_fault();
    bench.wire.clear();
    let report = bench.run(Source::open(&path).unwrap(), Bench::options());
    assert_eq!((report.stopped, report.frames_lost), (Stop::Complete, 0));
    assert!(bench.datagrams().concat() == content);
}

#[test]
fn a_device_that_vanishes_ends_the_send_with_an_error() {
    for fault in [Fault::Vanished, Fault::Unreachable("QEMU is gone".into())] {
        let (path, _) = file(1 << 20);
        let mut bench = Bench::new();
        let report = bench.run_with(Source::open(&path).unwrap(), Bench::options(), |send, model| {
            if send.progress().bytes > 500_000 {
                model.set_fault(fault.clone());
            }
        });
        assert!(matches!(report.stopped, Stop::Failed(_)), "{:?}", report.stopped);
        assert!(report.bytes > 500_000);
    }
}

#[test]
fn a_writer_stops_the_send_and_nothing_stays_mapped() {
    let (path, content) = file(1 << 20);
    let mut bench = Bench::new();
    let mut writer = None;
    let mappings = bench.model.mappings();
    let report = bench.run_with(Source::open(&path).unwrap(), Bench::options(), |send, _| {
        if send.progress().bytes > 300_000 {
            let path = path.to_path_buf();
            writer.get_or_insert_with(|| std::thread::spawn(move || std::fs::File::options().write(true).open(path).unwrap()));
            // The kernel's message takes real time; virtual time waits for it.
            let start = std::time::Instant::now();
            while !send.lease_broken() {
                assert!(start.elapsed() < Duration::from_secs(30), "the lease is not broken");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    assert!(matches!(report.stopped, Stop::FileChanged(_)), "{:?}", report.stopped);
    assert_eq!(report.stability, "lease");
    writer.unwrap().join().unwrap();
    assert_eq!(bench.model.mappings(), mappings);
    assert!(report.bytes < 1 << 20 && bench.datagrams().concat() == content[..report.bytes as usize]);
}

#[test]
fn without_a_lease_a_change_is_found_and_told() {
    let (path, _) = file(1 << 20);
    let mut changed = false;
    let mut bench = Bench::new();
    let options = UdpOptions { stability: Stability::Trust, ..Bench::options() };
    let report = bench.run_with(Source::open(&path).unwrap(), options, |send, _| {
        if send.progress().bytes > 300_000 && !std::mem::replace(&mut changed, true) {
            std::fs::File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap();
        }
    });
    assert!(matches!(report.stopped, Stop::FileChanged(_)), "{:?}", report.stopped);
    assert_eq!(report.stability, "trust: as asked for");
}

#[test]
fn a_change_is_found_as_long_as_the_device_may_read_the_last_bytes() {
    let (path, content) = file(1 << 20);
    let mut after_all = 0;
    let mut bench = Bench::new();
    let options = UdpOptions { stability: Stability::Trust, ..Bench::options() };
    let report = bench.run_with(Source::open(&path).unwrap(), options, |send, _| {
        after_all += u32::from(send.progress().bytes == content.len() as u64);
        // One step behind the last burst it is known that there is no more to post.
        if after_all == 2 {
            std::fs::File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap();
        }
    });
    assert!(matches!(report.stopped, Stop::FileChanged(_)), "{:?}", report.stopped);
}

#[test]
fn a_file_that_became_shorter_is_no_signal_where_it_is_copied() {
    let (path, _) = file(1 << 20);
    let mut bench = Bench::with(E1000Config { gather: false, ..E1000Config::default() }, PortConfig::default());
    let options = UdpOptions { stability: Stability::Trust, ..Bench::options() };
    let report = bench.run_with(Source::open(&path).unwrap(), options, |send, _| {
        if send.progress().bytes > 300_000 {
            std::fs::File::options().write(true).open(&path).unwrap().set_len(1000).unwrap();
        }
    });
    assert_eq!(report.stopped, Stop::FileChanged("it became shorter".into()));
}

#[test]
fn a_port_that_was_opened_for_less_refuses_the_mtu() {
    let model = E1000Model::new("52:54:00:00:00:01".parse().unwrap());
    let nic = E1000::start(model.device(), E1000Config::default()).unwrap();
    let interface = Interface::new(nic.mac(), "192.0.2.1/24".parse().unwrap(), None, 9000, None).unwrap();
    assert!(matches!(Port::new(Box::new(nic), interface, PortConfig::default()), Err(SendError::Config(_))));
}

#[test]
fn what_is_no_frame_is_refused_and_a_frame_gets_its_tag() {
    let model = E1000Model::new("52:54:00:00:00:01".parse().unwrap());
    // It inserts no tags.
    let nic = E1000::start(model.device(), E1000Config { offloads: OffloadFlags::empty(), ..E1000Config::default() }).unwrap();
    let interface = Interface::new(nic.mac(), "192.0.2.1/24".parse().unwrap(), None, 1500, Some(100)).unwrap();
    let mut port = Port::new(Box::new(nic), interface, PortConfig::default()).unwrap();
    for bytes in [&[][..], &[2; 11], &[2; 13]] {
        let error = port.transmit(bytes).unwrap_err().to_string();
        assert!(error.contains("a frame of") && error.contains("14"), "{error}");
    }
    assert!(port.transmit(&[2; 60]).unwrap());
    let sent = model.step();
    assert_eq!(sent, [[&[2; 12][..], &[0x81, 0, 0, 100], &[2; 48]].concat()]);
}
