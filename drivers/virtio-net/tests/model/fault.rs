//! Every way in which the model can misbehave: no panic, no endless wait, a typed error or a clean continuation, and a pool that is whole.

use std::time::Duration;

use hal::{MacAddress, Nic, NicError, Offload, RegisterError, RxBurst};
use hw_sim::model::virtio::{Fault, ModelConfig, VirtioNetModel};
use virtio_net::VirtioNetConfig;

use crate::bench::{BUFFERS, Bench, LONG, bytes_of, each, start, whole};
use crate::headers::{PEER, STATION, plain, udp4};

const NONE: Offload = Offload::NONE;

fn gone() -> String {
    "gone".to_owned()
}

/// All faults, those that count with a small count.
fn faults() -> Vec<Fault> {
    vec![
        Fault::None,
        Fault::Vanished,
        Fault::VanishedAfter(7),
        Fault::Unreachable(gone()),
        Fault::UnreachableAfter(7, gone()),
        Fault::ResetNeverEnds,
        Fault::QueueResetNeverEnds,
        Fault::FeaturesRefused,
        Fault::QueueRefused,
        Fault::ConfigNeverStable,
        Fault::TransmitHang,
        Fault::TransmitHangAfter(5),
        Fault::NoCompletion,
        Fault::NeedsResetAfter(5),
        Fault::UsedIdOutOfRange,
        Fault::UsedIdNotInFlight,
        Fault::UsedTwice,
        Fault::UsedJumps,
        Fault::RxLengthTooLong,
        Fault::RxLengthTooShort,
        Fault::RxIdOutOfRange,
        Fault::RxBuffersZero,
        Fault::RxBuffersTooMany,
        Fault::RxChecksumBeyond,
        Fault::RxChecksumOffsetBeyond,
        Fault::RxGarbageHeader,
        Fault::ControlSilent,
        Fault::ControlError,
        Fault::ControlGarbage,
        Fault::InterruptStorm,
        Fault::InterruptLost,
    ]
}

fn config() -> VirtioNetConfig {
    VirtioNetConfig { patience: Duration::from_millis(20), ..VirtioNetConfig::default() }
}

/// Sends and receives, and does not care what comes of it. Returns the errors.
fn use_it(bench: &mut Bench, now: Duration) -> Vec<NicError> {
    let mut errors = Vec::new();
    let mut packets = RxBurst::default();
    let (udp, offload) = whole(udp4(0), 0);
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
        assert!(packets.packets().all(|packet| packet.buffers.iter().all(|buffer| !buffer.is_empty())));
        packets.clear();
        errors.extend(bench.nic.link().err());
    }
    errors.extend(bench.nic.tx(0).check(now).err());
    errors.extend(bench.nic.tx(0).check(now + LONG).err());
    errors
}

fn unreachable(error: &NicError) -> bool {
    let (NicError::Register(error) | NicError::Bus(hal::BusError::Register(error))) = error else { return false };
    matches!(error, RegisterError::Unreachable(reason) if reason == "gone")
}

#[test]
fn every_fault_is_survived_and_a_reset_puts_it_right() {
    each(|features| {
        for fault in faults() {
            let mut bench = Bench::with(features, config());
            assert!(use_it(&mut bench, Duration::ZERO).is_empty());
            bench.model.set_fault(fault.clone());
            let errors = use_it(&mut bench, Duration::from_secs(100));
            let protocol = || !errors.is_empty() && errors.iter().all(|error| matches!(error, NicError::Protocol(_)));
            let in_order = features.contains(hw_sim::model::virtio::Features::IN_ORDER);
            let packed = features.contains(hw_sim::model::virtio::Features::RING_PACKED);
            let last = errors.last();
            match &fault {
                Fault::Vanished | Fault::VanishedAfter(_) => assert!(matches!(last, Some(NicError::Vanished { .. })), "{errors:?}"),
                Fault::Unreachable(_) | Fault::UnreachableAfter(..) => {
                    assert!(!errors.is_empty() && errors.iter().all(unreachable), "{errors:?}");
                }
                Fault::TransmitHang | Fault::TransmitHangAfter(_) | Fault::NoCompletion => {
                    assert!(matches!(last, Some(NicError::Hang { .. })), "{fault:?}: {errors:?}");
                }
                Fault::NeedsResetAfter(_) => assert!(matches!(last, Some(NicError::NeedsReset)), "{errors:?}"),
                // Who only counts reads no identifier, and looks at nothing that the index does not cover.
                Fault::UsedIdOutOfRange | Fault::UsedIdNotInFlight if in_order && !packed => assert!(errors.is_empty(), "{errors:?}"),
                // Descriptors that were not posted are not looked at.
                Fault::UsedTwice if packed && in_order => assert!(errors.is_empty(), "{errors:?}"),
                Fault::UsedJumps if packed => assert!(errors.is_empty(), "{errors:?}"),
                Fault::UsedIdOutOfRange
                | Fault::UsedIdNotInFlight
                | Fault::UsedTwice
                | Fault::UsedJumps
                | Fault::RxLengthTooLong
                | Fault::RxIdOutOfRange => {
                    assert!(protocol(), "{fault:?}: {errors:?}");
                }
                Fault::RxBuffersZero
                | Fault::RxBuffersTooMany
                | Fault::RxChecksumBeyond
                | Fault::RxChecksumOffsetBeyond
                | Fault::RxGarbageHeader => assert!(protocol(), "{fault:?}: {errors:?}"),
                Fault::ConfigNeverStable => assert!(!errors.is_empty()),
                _ => assert!(errors.is_empty(), "{fault:?}: {errors:?}"),
            }
            bench.model.clear_fault();
            bench.command(|nic| nic.reset()).unwrap();
            assert_eq!(bench.free_buffers(), BUFFERS as usize, "{fault:?}");
            assert_eq!(bench.send_bytes(&plain(PEER, 1, 60), NONE), [plain(PEER, 1, 60)], "{fault:?}");
            assert!(bench.hears(&plain(STATION, 1, 64)), "{fault:?}");
            bench.finish();
        }
    });
}

#[test]
fn a_nic_can_be_dropped_in_every_fault() {
    each(|features| {
        for fault in faults() {
            let mut bench = Bench::with(features, config());
            bench.nic.rx(0).refill(&mut bench.pool).unwrap();
            let mut burst = bench.burst(&[(plain(PEER, 1, 60), NONE), (plain(PEER, 2, 60), NONE)]);
            bench.nic.tx(0).post(&mut burst).unwrap();
            bench.model.set_fault(fault.clone());
            bench.model.step();
            bench.finish_broken(&format!("{fault:?}"));
        }
    });
}

#[test]
fn a_reset_in_a_fault_ends_in_time_with_a_typed_error_or_in_a_working_nic() {
    each(|features| {
        for fault in faults() {
            let mut bench = Bench::with(features, config());
            bench.nic.rx(0).refill(&mut bench.pool).unwrap();
            let mut burst = bench.burst(&[(plain(PEER, 1, 60), NONE)]);
            bench.nic.tx(0).post(&mut burst).unwrap();
            bench.model.set_fault(fault.clone());
            let outcome = bench.command(|nic| nic.reset());
            match &fault {
                Fault::Vanished | Fault::ResetNeverEnds | Fault::ConfigNeverStable if outcome.is_err() => {}
                Fault::VanishedAfter(_) => assert!(outcome.is_err()),
                Fault::Unreachable(_) | Fault::UnreachableAfter(..) => assert!(unreachable(&outcome.unwrap_err())),
                Fault::FeaturesRefused => assert!(matches!(outcome, Err(NicError::WrongDevice(_)))),
                Fault::QueueRefused => assert!(matches!(outcome, Err(NicError::Bus(_)))),
                Fault::ControlSilent => assert!(matches!(outcome, Err(NicError::Timeout { .. }))),
                Fault::ControlError | Fault::ControlGarbage => assert!(matches!(outcome, Err(NicError::Config(_)))),
                _ => assert_eq!(outcome.unwrap(), 1, "{fault:?}"),
            }
            // A reset that failed can be tried again.
            bench.model.clear_fault();
            bench.command(|nic| nic.reset()).unwrap();
            assert_eq!(bench.send_bytes(&plain(PEER, 1, 60), NONE).len(), 1, "{fault:?}");
            bench.finish_broken(&format!("{fault:?}"));
        }
    });
}

#[test]
fn a_device_may_go_at_any_access_of_start_and_stop() {
    each(|features| {
        for after in 0..200 {
            let mut started = 0;
            for fault in [Fault::UnreachableAfter(after, gone()), Fault::VanishedAfter(after)] {
                let model = VirtioNetModel::with(ModelConfig { features, mac: MacAddress(STATION), ..ModelConfig::default() });
                model.set_fault(fault.clone());
                let outcome = start(&model, config()).map(drop);
                match (&outcome, &fault) {
                    (Err(error), Fault::UnreachableAfter(..)) => assert!(unreachable(error), "{fault:?}: {error}"),
                    (Err(error), _) => assert!(
                        matches!(
                            error,
                            NicError::Vanished { .. }
                                | NicError::Bus(_)
                                | NicError::Timeout { .. }
                                | NicError::WrongDevice(_)
                                | NicError::Config(_)
                        ),
                        "{error}"
                    ),
                    _ => started += 1,
                }
                assert_eq!(model.mappings(), 0, "{fault:?}");
            }
            if started == 2 {
                assert!(after > 15, "{after}");
                return;
            }
        }
        panic!("it never started");
    });
}

#[test]
fn a_violation_stops_the_queue_and_leaves_the_device_its_buffers() {
    each(|features| {
        let mut bench = Bench::new(features);
        bench.deliver(&plain(STATION, 1, 64));
        bench.model.set_fault(Fault::RxLengthTooLong);
        bench.deliver(&plain(STATION, 2, 64));
        bench.model.clear_fault();
        let mut packets = RxBurst::default();
        let free = bench.free_buffers();
        for _ in 0..300 {
            assert!(matches!(bench.nic.rx(0).receive(&mut packets, 10), Err(NicError::Protocol(_))));
            assert!(matches!(bench.nic.rx(0).refill(&mut bench.pool), Err(NicError::Protocol(_))));
        }
        assert_eq!(bytes_of(&packets), [plain(STATION, 1, 64)]);
        // What is posted stays posted: the device may still write there.
        assert_eq!(bench.free_buffers(), free);
        drop(packets);
        // The other queue goes on.
        assert_eq!(bench.send_bytes(&plain(PEER, 1, 60), NONE).len(), 1);
        bench.command(|nic| nic.reset()).unwrap();
        assert_eq!(bench.free_buffers(), BUFFERS as usize);
        assert!(bench.hears(&plain(STATION, 1, 64)));
        bench.finish();
    });
}
