use std::time::Duration;

use hal::RegisterError;
use hal::virtio::DeviceStatus;

use super::*;

fn with(fault: Fault) -> [Bench; 2] {
    let benches = [Bench::new(), Bench::packed()];
    benches.iter().for_each(|bench| bench.model.set_fault(fault.clone()));
    benches
}

#[test]
fn a_vanished_device_reads_all_ones() {
    for mut bench in with(Fault::Vanished) {
        assert_eq!(bench.transport.status().unwrap().bits(), 0xff);
        assert_eq!(bench.transport.device_features().unwrap(), u64::MAX);
        let mut mac = [0; 6];
        bench.transport.read_config(0, &mut mac).unwrap();
        assert_eq!(mac, [0xff; 6]);
        assert!(bench.transport.set_status(DeviceStatus::empty()).is_err());
        bench.send(&frame(60));
        assert!(bench.go().is_empty());
        assert_eq!(bench.model.receive(&incoming(60)), Received::Off);
        bench.model.clear_fault();
        assert_eq!(bench.model.status(), 15, "the reset was lost");
    }
}

#[test]
fn a_device_can_vanish_or_become_unreachable_after_some_calls() {
    for mut bench in with(Fault::VanishedAfter(1)) {
        assert_eq!(bench.transport.status().unwrap().bits(), 15);
        assert_eq!(bench.transport.status().unwrap().bits(), 0xff);
    }
    for mut bench in with(Fault::UnreachableAfter(1, "gone fishing".to_owned())) {
        let mut interrupt = bench.transport.interrupt(Some(0)).unwrap();
        assert!(bench.transport.status().is_ok());
        assert!(bench.transport.status().unwrap_err().to_string().contains("gone fishing"));
        assert!(matches!(bench.doorbells[1].ring(1), Err(RegisterError::Unreachable(reason)) if reason == "gone fishing"));
        assert!(interrupt.wait(Duration::ZERO).is_err());
    }
}

#[test]
fn resets_that_do_not_end() {
    for mut bench in with(Fault::ResetNeverEnds) {
        assert!(bench.transport.set_status(DeviceStatus::empty()).is_err());
        assert_eq!(bench.model.status(), 15);
        bench.model.set_fault(Fault::QueueResetNeverEnds);
        assert!(bench.transport.reset_queue(1).is_err());
        bench.model.clear_fault();
        assert!(bench.transport.set_status(DeviceStatus::empty()).is_ok());
    }
}

#[test]
fn starts_that_are_refused() {
    let mut bench = Bench::cold(ModelConfig::default());
    bench.model.set_fault(Fault::FeaturesRefused);
    bench.negotiate(Features::USUAL);
    assert_eq!(bench.model.status(), 3);
    bench.model.set_fault(Fault::QueueRefused);
    bench.negotiate(Features::USUAL);
    assert_eq!(bench.model.status(), 11);
    assert!(bench.transport.enable_queue(0, bench.layout(0)).is_err());
    bench.model.set_fault(Fault::ConfigNeverStable);
    assert!(bench.transport.read_config(0, &mut [0; 6]).is_err());
    bench.clean();
}

#[test]
fn a_hang_ends_with_a_reset() {
    for mut bench in with(Fault::TransmitHangAfter(1)) {
        bench.send(&frame(60));
        bench.send(&frame(61));
        assert_eq!(bench.go(), [frame(60)]);
        bench.ring(TX);
        assert!(bench.model.step().is_empty() && bench.is_used(TX, 0) && !bench.is_used(TX, 1));
        assert_eq!(bench.model.owned_buffers(TX), 1);
        bench.transport.set_status(DeviceStatus::empty()).unwrap();
        bench.memory.memory().write_bytes(0, &[0; 0x3000]);
        (bench.available, bench.next) = (vec![0; 3], vec![0; 3]);
        let features = bench.transport.device_features().unwrap();
        bench.start(Features::from_bits_retain(features));
        bench.send(&frame(62));
        assert_eq!(bench.go(), [frame(62)]);
        bench.clean();
    }
}

#[test]
fn frames_that_leave_without_a_completion() {
    for mut bench in with(Fault::NoCompletion) {
        bench.send(&frame(60));
        assert_eq!(bench.go(), [frame(60)]);
        assert!(!bench.is_used(TX, 0));
        assert_eq!((bench.model.owned_buffers(TX), bench.model.interrupts(TX)), (1, 0));
        bench.clean();
    }
}

#[test]
fn a_device_can_need_a_reset_in_the_middle_of_a_burst() {
    for mut bench in with(Fault::NeedsResetAfter(2)) {
        for number in 0..4 {
            bench.send(&frame(60 + number));
        }
        assert_eq!(bench.go(), [frame(60), frame(61)]);
        assert_eq!((bench.model.status(), bench.model.config_interrupts()), (15 | 64, 1));
        assert!(bench.model.step().is_empty());
        assert_eq!(bench.transport.status().unwrap(), DeviceStatus::from_bits_retain(15 | 64));
        bench.transport.set_status(DeviceStatus::empty()).unwrap();
        assert_eq!(bench.model.status(), 0);
        bench.clean();
    }
}

#[test]
fn completions_that_lie() {
    for mut bench in with(Fault::UsedIdOutOfRange) {
        bench.send(&frame(60));
        assert_eq!(bench.go().len(), 1);
        assert!(bench.is_used(TX, 0) && bench.used(TX, 0).0 == u16::MAX);
    }
    for mut bench in with(Fault::UsedIdNotInFlight) {
        let id = bench.send(&frame(60));
        bench.go();
        assert!(bench.is_used(TX, 0) && bench.used(TX, 0).0 != id && bench.used(TX, 0).0 < SIZE);
    }
    for mut bench in with(Fault::UsedTwice) {
        let id = bench.send(&frame(60));
        bench.go();
        assert!(bench.is_used(TX, 0) && bench.is_used(TX, 1));
        assert_eq!((bench.used(TX, 0).0, bench.used(TX, 1).0), (id, id));
    }
    let [mut split, mut packed] = with(Fault::UsedJumps);
    split.send(&frame(60));
    split.go();
    assert_eq!(split.used_index(TX), 1 + SIZE + 1);
    packed.send(&frame(60));
    packed.go();
    assert!((0..SIZE).all(|position| packed.is_used(TX, position)));
}

#[test]
fn received_buffers_that_lie() {
    for (fault, id, len) in [(Fault::RxLengthTooLong, 0, 2049), (Fault::RxLengthTooShort, 0, 11), (Fault::RxIdOutOfRange, u16::MAX, 112)] {
        for mut bench in with(fault.clone()) {
            bench.refill(2, 2048);
            assert_eq!(bench.model.receive(&incoming(100)), Received::Delivered);
            assert_eq!(bench.used(RX, 0), (id, len), "{fault:?}");
            bench.clean();
        }
    }
}

#[test]
fn headers_that_lie() {
    for (fault, header) in [
        (Fault::RxBuffersZero, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (Fault::RxBuffersTooMany, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
        (Fault::RxChecksumBeyond, [1, 0, 0, 0, 0, 0, 0xff, 0xff, 16, 0, 1, 0]),
        (Fault::RxChecksumOffsetBeyond, [1, 0, 0, 0, 0, 0, 34, 0, 0xff, 0xff, 1, 0]),
        (Fault::RxGarbageHeader, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0]),
    ] {
        for mut bench in with(fault.clone()) {
            let room = bench.refill(2, 2048)[0];
            bench.model.receive(&incoming(100));
            assert_eq!(bench.bytes(room, 12), header, "{fault:?}");
            bench.clean();
        }
    }
}

#[test]
fn commands_that_are_not_answered_or_wrongly() {
    for mut bench in with(Fault::ControlSilent) {
        assert_eq!(bench.command(&[0, 0, 0]), 0xaa, "nothing was written");
        assert!(!bench.is_used(CONTROL, 0));
    }
    for (fault, answer) in [(Fault::ControlError, 1), (Fault::ControlGarbage, 0x55)] {
        for mut bench in with(fault.clone()) {
            assert_eq!(bench.command(&[0, 0, 0]), answer);
            assert!(bench.model.control().promiscuous && bench.is_used(CONTROL, 0));
            bench.clean();
        }
    }
}

#[test]
fn interrupts_that_are_lost_or_never_end() {
    for mut bench in with(Fault::InterruptLost) {
        let mut interrupt = bench.transport.interrupt(Some(TX)).unwrap();
        bench.send(&frame(60));
        bench.go();
        assert!(!interrupt.wait(Duration::ZERO).unwrap() && bench.model.interrupts(TX) == 0);
        bench.model.set_fault(Fault::InterruptStorm);
        assert!(interrupt.wait(Duration::ZERO).unwrap() && interrupt.wait(Duration::ZERO).unwrap());
    }
}
