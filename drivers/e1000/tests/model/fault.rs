//! Every way in which the model can misbehave: no panic, no endless wait, a typed error or a clean continuation, and a pool that is whole.

use std::time::Duration;

use hal::{MacAddress, Nic, NicError, Offload, RegisterError, RxBurst};
use hw_sim::model::e1000::{E1000Model, Fault};
use pagewire_e1000::{E1000, E1000Config};

use crate::bench::{BUFFERS, Bench, LONG};
use crate::headers::{PEER, STATION, plain, udp4};

const NONE: Offload = Offload::NONE;

/// All faults, those that count accesses with a small count.
fn faults() -> Vec<Fault> {
    vec![
        Fault::None,
        Fault::Vanished,
        Fault::VanishedAfter(7),
        Fault::Unreachable("gone".to_owned()),
        Fault::UnreachableAfter(7, "gone".to_owned()),
        Fault::ResetNeverEnds,
        Fault::EepromNeverDone,
        Fault::EepromChecksumWrong,
        Fault::EepromBlank,
        Fault::PhyNeverReady,
        Fault::LinkFlap,
        Fault::TransmitHang,
        Fault::TransmitHangAfter(5),
        Fault::NoWriteBack,
        Fault::DoneTooEarly,
        Fault::DoneEverywhere,
        Fault::HeadGarbage,
        Fault::RxLengthTooLong,
        Fault::RxLengthZero,
        Fault::RxNeverEnds,
        Fault::RxError,
        Fault::RxGarbageStatus,
        Fault::RxSkipsDescriptor,
        Fault::RxBeyondTail,
        Fault::StatisticsStuck,
        Fault::InterruptStorm,
        Fault::InterruptLost,
    ]
}

/// Sends and receives, and does not care what comes of it. Returns the errors.
fn use_it(bench: &mut Bench, now: Duration) -> Vec<NicError> {
    let mut errors = Vec::new();
    let mut packets = RxBurst::default();
    let (udp, offload) = udp4(0);
    for round in 0..40 {
        if bench.free_buffers() > 10 {
            let mut burst = bench.burst(&[(plain(PEER, round, 60), NONE), (udp.clone(), offload), (plain(PEER, round, 1500), NONE)]);
            errors.extend(bench.nic.tx(0).post(&mut burst).err());
        }
        bench.model.step();
        errors.extend(bench.nic.tx(0).reap().err());
        errors.extend(bench.nic.rx(0).refill(&mut bench.pool).err());
        bench.model.receive(&plain(STATION, round, 64 + 30 * round as usize));
        errors.extend(bench.nic.rx(0).receive(&mut packets, 3).err());
        packets.clear();
        errors.extend(bench.nic.statistics().err());
        errors.extend(bench.nic.link().err());
    }
    errors.extend(bench.nic.tx(0).check(now).err());
    errors.extend(bench.nic.tx(0).check(now + LONG).err());
    errors
}

#[test]
fn every_fault_is_survived_and_a_reset_puts_it_right() {
    for fault in faults() {
        let mut bench = Bench::new();
        use_it(&mut bench, Duration::ZERO);
        bench.model.set_fault(fault.clone());
        let errors = use_it(&mut bench, Duration::from_secs(100));
        match &fault {
            Fault::Vanished | Fault::VanishedAfter(_) => assert!(matches!(errors.last(), Some(NicError::Vanished { .. })), "{errors:?}"),
            Fault::Unreachable(_) | Fault::UnreachableAfter(..) => {
                assert!(
                    errors.iter().all(|error| matches!(error, NicError::Register(RegisterError::Unreachable(reason)) if reason == "gone"))
                );
                assert!(!errors.is_empty());
            }
            Fault::TransmitHang | Fault::TransmitHangAfter(_) | Fault::NoWriteBack => {
                assert!(matches!(errors.last(), Some(NicError::Hang { .. })), "{fault:?}: {errors:?}");
            }
            Fault::RxLengthTooLong => assert!(errors.iter().all(|error| matches!(error, NicError::Protocol(_))) && !errors.is_empty()),
            _ => assert!(errors.is_empty(), "{fault:?}: {errors:?}"),
        }
        bench.model.clear_fault();
        bench.nic.reset().unwrap();
        assert_eq!(bench.free_buffers(), BUFFERS as usize, "{fault:?}");
        assert_eq!(bench.send_bytes(&plain(PEER, 1, 60), NONE), [plain(PEER, 1, 60)], "{fault:?}");
        assert!(bench.hears(&plain(STATION, 1, 64)), "{fault:?}");
        bench.finish();
    }
}

#[test]
fn a_nic_can_be_dropped_in_every_fault() {
    for fault in faults() {
        let mut bench = Bench::new();
        bench.nic.rx(0).refill(&mut bench.pool).unwrap();
        let mut burst = bench.burst(&[(plain(PEER, 1, 60), NONE), (plain(PEER, 2, 60), NONE)]);
        bench.nic.tx(0).post(&mut burst).unwrap();
        bench.model.set_fault(fault.clone());
        bench.model.step();
        bench.finish_broken(&format!("{fault:?}"));
    }
}

#[test]
fn a_reset_in_a_fault_ends_in_time_with_a_typed_error_or_in_a_working_nic() {
    for fault in faults() {
        let mut bench = Bench::new();
        bench.nic.rx(0).refill(&mut bench.pool).unwrap();
        let mut burst = bench.burst(&[(plain(PEER, 1, 60), NONE)]);
        bench.nic.tx(0).post(&mut burst).unwrap();
        bench.model.set_fault(fault.clone());
        let outcome = bench.nic.reset();
        match &fault {
            Fault::Vanished => assert!(matches!(outcome, Err(NicError::Vanished { .. }))),
            Fault::VanishedAfter(_) => assert!(matches!(outcome, Err(NicError::Vanished { .. } | NicError::Timeout { .. })), "{outcome:?}"),
            Fault::Unreachable(_) | Fault::UnreachableAfter(..) => assert!(matches!(outcome, Err(NicError::Register(_)))),
            Fault::ResetNeverEnds => {
                assert!(matches!(outcome, Err(NicError::Timeout { register: "CTRL.RST", .. })), "{outcome:?}");
            }
            _ => assert_eq!(outcome.unwrap(), 1, "{fault:?}"),
        }
        bench.finish_broken(&format!("{fault:?}"));
    }
}

#[test]
fn a_start_in_a_fault_ends_in_time_with_a_typed_error_or_in_a_nic() {
    for fault in faults() {
        let model = E1000Model::new(MacAddress(STATION));
        model.set_fault(fault.clone());
        let outcome = E1000::start(model.device(), E1000Config::default()).map(drop);
        match &fault {
            Fault::Vanished => assert!(matches!(outcome, Err(NicError::Vanished { register: "CTRL" }))),
            Fault::VanishedAfter(_) => assert!(matches!(outcome, Err(NicError::Timeout { .. } | NicError::Vanished { .. })), "{outcome:?}"),
            Fault::Unreachable(_) | Fault::UnreachableAfter(..) => {
                assert!(matches!(outcome, Err(NicError::Register(_) | NicError::Bus(_))))
            }
            Fault::ResetNeverEnds => assert!(matches!(outcome, Err(NicError::Timeout { register: "CTRL.RST", .. }))),
            Fault::EepromNeverDone => assert!(matches!(outcome, Err(NicError::Timeout { register: "EERD.DONE", .. }))),
            Fault::EepromBlank => assert!(matches!(outcome, Err(NicError::WrongDevice(_)))),
            Fault::EepromChecksumWrong => {
                assert!(matches!(&outcome, Err(NicError::WrongDevice(reason)) if reason.contains("checksum")), "{outcome:?}");
            }
            Fault::PhyNeverReady => assert!(matches!(outcome, Err(NicError::Timeout { register: "MDIC.R", .. })), "{outcome:?}"),
            _ => outcome.unwrap_or_else(|error| panic!("{fault:?}: {error}")),
        }
        assert_eq!(model.mappings(), 0, "{fault:?}");
    }
}

#[test]
fn a_device_may_go_at_any_register_access_of_start_and_stop() {
    // Every access of the first steps, then the tables, which are written by one loop, now and then.
    for after in (0..60).chain((60..).step_by(11)) {
        let reasons = [Fault::UnreachableAfter(after, "gone".to_owned()), Fault::VanishedAfter(after)];
        // The second kind costs up to half a second where the driver waits for the device, which it does at the first accesses.
        for fault in reasons.into_iter().take(if after < 20 { 2 } else { 1 }) {
            let model = E1000Model::new(MacAddress(STATION));
            model.set_fault(fault.clone());
            let started = E1000::start(model.device(), E1000Config::default());
            let unreachable = matches!(fault, Fault::UnreachableAfter(..));
            if let Err(error) = &started {
                let named = matches!(error, NicError::Register(_) | NicError::Bus(_)) == unreachable;
                assert!(named, "{fault:?}: {error}");
            }
            let done = started.is_ok() && unreachable;
            drop(started);
            assert_eq!(model.mappings(), 0, "{fault:?}");
            if done {
                // The whole of start, and some more than stop needs.
                assert!(after > 300);
                return;
            }
        }
    }
}

#[test]
fn a_length_beyond_the_buffer_stops_the_queue_and_leaves_the_device_its_buffers() {
    let mut bench = Bench::new();
    bench.deliver(&plain(STATION, 1, 64));
    bench.model.set_fault(Fault::RxLengthTooLong);
    bench.deliver(&plain(STATION, 2, 64));
    bench.model.clear_fault();
    bench.deliver(&plain(STATION, 3, 64));
    let free = bench.free_buffers();
    let mut burst = RxBurst::default();
    for _ in 0..300 {
        assert!(matches!(bench.nic.rx(0).receive(&mut burst, 10), Err(NicError::Protocol(_))));
    }
    assert_eq!(crate::bench::bytes_of(&burst), [plain(STATION, 1, 64)]);
    // What is posted stays posted: the device may still write there.
    assert_eq!(bench.free_buffers(), free);
    drop(burst);
    bench.nic.reset().unwrap();
    assert_eq!(bench.free_buffers(), BUFFERS as usize);
    assert!(bench.hears(&plain(STATION, 1, 64)));
    bench.finish();
}

#[test]
fn a_packet_without_an_end_takes_no_more_than_its_share_of_buffers() {
    let mut bench = Bench::new();
    bench.model.set_fault(Fault::RxNeverEnds);
    for number in 0..2000 {
        bench.deliver(&plain(STATION, number, 64));
        assert!(bench.received().is_empty());
    }
    assert!(bench.free_buffers() >= BUFFERS as usize - 255 - 10);
    bench.model.clear_fault();
    // With its end the monster is dropped, and the next packet is whole.
    bench.deliver(&plain(STATION, 1, 64));
    bench.deliver(&plain(STATION, 2, 64));
    assert_eq!(bench.received(), [plain(STATION, 2, 64)]);
    assert_eq!(bench.nic.rx(0).counters().dropped, 1);
    bench.finish();
}

#[test]
fn a_descriptor_without_bytes_gives_no_empty_buffer() {
    let mut bench = Bench::new();
    bench.model.set_fault(Fault::RxLengthZero);
    bench.deliver(&plain(STATION, 1, 64));
    bench.model.clear_fault();
    bench.deliver(&plain(STATION, 2, 64));
    assert_eq!(bench.received(), [plain(STATION, 2, 64)]);
    assert_eq!(bench.nic.rx(0).counters().dropped, 1);
    bench.finish();
}

#[test]
fn a_done_bit_where_nothing_was_posted_is_not_believed() {
    let mut bench = Bench::new();
    bench.model.set_fault(Fault::DoneEverywhere);
    bench.model.step();
    assert_eq!(bench.nic.tx(0).reap().unwrap(), 0);
    for round in 0..200 {
        assert_eq!(bench.send_bytes(&plain(PEER, round, 60), NONE), [plain(PEER, round, 60)]);
        assert_eq!(bench.nic.tx(0).reap().unwrap(), 0);
    }
    bench.nic.rx(0).refill(&mut bench.pool).unwrap();
    bench.model.set_fault(Fault::RxBeyondTail);
    for number in 0..600 {
        bench.deliver(&plain(STATION, number, 64));
        assert_eq!(bench.received(), [plain(STATION, number, 64)]);
        assert!(bench.received().is_empty());
    }
    bench.finish();
}

#[test]
fn statistics_that_stick_at_their_end_do_not_overflow() {
    let mut bench = Bench::new();
    bench.model.set_fault(Fault::StatisticsStuck);
    for _ in 0..5 {
        bench.nic.statistics().unwrap();
    }
    bench.nic.reset().unwrap();
    assert_eq!(bench.nic.statistics().unwrap().tx_bytes, u64::MAX);
    bench.finish();
}

#[test]
fn a_device_that_goes_while_it_is_counted_adds_nothing() {
    let mut bench = Bench::new();
    bench.send_bytes(&plain(PEER, 1, 60), NONE);
    bench.nic.statistics().unwrap();
    bench.model.set_fault(Fault::VanishedAfter(3));
    assert!(matches!(bench.nic.statistics(), Err(NicError::Vanished { .. })));
    bench.model.clear_fault();
    assert_eq!(bench.nic.statistics().unwrap().tx_packets, 1);
    bench.finish();
}
