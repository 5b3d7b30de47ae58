use std::time::Duration;

use hal::{MacAddress, Nic, NicError, Offload, RxBurst, RxFilter};
use hw_sim::model::e1000::{Fault, Received};
use hw_sim::wire::check;

use crate::bench::{BUFFERS, Bench, LONG};
use crate::headers::{PEER, STATION, plain, tso4, udp4};

const NONE: Offload = Offload::NONE;
const GROUP: [u8; 6] = [0x01, 0x00, 0x5e, 0x01, 0x02, 0x03];

fn post(bench: &mut Bench, count: u32) {
    let frames: Vec<_> = (0..count).map(|number| (plain(PEER, number, 60), NONE)).collect();
    let mut burst = bench.burst(&frames);
    assert_eq!(bench.nic.tx(0).post(&mut burst).unwrap(), count as usize);
}

#[test]
fn a_hang_is_told_and_a_reset_ends_it() {
    let mut bench = Bench::new();
    bench.nic.set_filter(&RxFilter { multicast: vec![MacAddress(GROUP)], ..RxFilter::default() }).unwrap();
    let (udp, offload) = udp4(0);
    check(&bench.send_bytes(&udp, offload)[0]).unwrap();

    bench.model.set_fault(Fault::TransmitHang);
    post(&mut bench, 3);
    let start = Duration::from_secs(1000);
    bench.nic.tx(0).check(start).unwrap();
    bench.model.step();
    assert_eq!(bench.nic.tx(0).reap().unwrap(), 0);
    bench.nic.tx(0).check(start + Duration::from_millis(4999)).unwrap();
    let error = bench.nic.tx(0).check(start + Duration::from_secs(5)).unwrap_err();
    let NicError::Hang { outstanding, stood, head, tail } = error else { panic!("{error:?}") };
    assert_eq!((outstanding, stood, tail - head), (3, Duration::from_secs(5), 3));

    assert_eq!(bench.nic.reset().unwrap(), 3);
    assert_eq!(bench.free_buffers(), BUFFERS as usize);
    bench.nic.tx(0).check(start + LONG).unwrap();
    assert!(bench.model.step().is_empty(), "what was lost is lost");
    // As before: frames, the context, which the reset has wiped out, and the filters.
    check(&bench.send_bytes(&udp, offload)[0]).unwrap();
    assert!(bench.hears(&plain(GROUP, 1, 64)) && bench.hears(&plain(STATION, 1, 64)) && !bench.hears(&plain(PEER, 1, 64)));
    assert_eq!(bench.nic.tx(0).progress().posted(), 5);
    bench.finish();
}

#[test]
fn a_queue_that_was_idle_for_long_does_not_hang() {
    let mut bench = Bench::new();
    bench.nic.tx(0).check(Duration::ZERO).unwrap();
    // Nothing to do for a minute, and nobody asks.
    post(&mut bench, 1);
    bench.nic.tx(0).check(Duration::from_secs(60)).unwrap();
    bench.nic.tx(0).check(Duration::from_secs(64)).unwrap();
    bench.model.step();
    bench.nic.tx(0).reap().unwrap();
    bench.nic.tx(0).check(Duration::from_secs(66)).unwrap();
    // The same after work.
    post(&mut bench, 1);
    bench.nic.tx(0).check(Duration::from_secs(200)).unwrap();
    assert!(matches!(bench.nic.tx(0).check(Duration::from_secs(205)), Err(NicError::Hang { .. })));
    bench.finish();
}

#[test]
fn a_queue_that_gets_ahead_slowly_does_not_hang() {
    let mut bench = Bench::new();
    post(&mut bench, 1);
    for second in 0..60 {
        bench.nic.tx(0).check(Duration::from_secs(second)).unwrap();
        if second % 4 == 3 {
            post(&mut bench, 1);
            bench.model.set_fault(Fault::TransmitHangAfter(1));
            bench.model.step();
            bench.model.clear_fault();
            assert_eq!(bench.nic.tx(0).reap().unwrap(), 1);
        }
    }
    bench.finish();
}

#[test]
fn what_left_before_a_reset_is_not_lost() {
    let mut bench = Bench::new();
    post(&mut bench, 4);
    post(&mut bench, 3);
    bench.model.set_fault(Fault::TransmitHangAfter(4));
    assert_eq!(bench.model.step().len(), 4);
    // Completed, but not reaped.
    assert_eq!(bench.nic.reset().unwrap(), 3);
    bench.finish();
}

#[test]
fn a_reset_takes_back_what_was_posted_to_receive() {
    let mut bench = Bench::new();
    bench.nic.rx(0).refill(&mut bench.pool).unwrap();
    bench.deliver(&plain(STATION, 1, 64));
    assert_eq!(bench.nic.reset().unwrap(), 0);
    assert_eq!(bench.free_buffers(), BUFFERS as usize);
    assert_eq!(bench.model.receive(&plain(STATION, 2, 64)), Received::Missed, "there is no buffer");
    assert!(bench.received().is_empty());
    for number in 3..300 {
        bench.deliver(&plain(STATION, number, 64));
        assert_eq!(bench.received(), [plain(STATION, number, 64)]);
    }
    bench.finish();
}

#[test]
fn half_of_a_packet_is_forgotten_by_a_reset() {
    let mut bench = Bench::new();
    bench.model.set_fault(Fault::RxNeverEnds);
    bench.deliver(&plain(STATION, 1, 64));
    assert!(bench.received().is_empty());
    bench.model.clear_fault();
    bench.nic.reset().unwrap();
    assert_eq!(bench.free_buffers(), BUFFERS as usize);
    bench.deliver(&plain(STATION, 2, 64));
    assert_eq!(bench.received(), [plain(STATION, 2, 64)]);
    bench.finish();
}

#[test]
fn resets_can_follow_each_other() {
    let mut bench = Bench::new();
    let (mut tso, tso_offload) = tso4(10);
    tso.extend([5; 40]);
    for round in 0..20 {
        post(&mut bench, round);
        bench.nic.rx(0).refill(&mut bench.pool).unwrap();
        assert_eq!(bench.nic.reset().unwrap(), u64::from(round));
        assert_eq!(bench.nic.reset().unwrap(), 0);
        assert_eq!(bench.send_bytes(&tso, tso_offload).len(), 4);
        assert!(bench.hears(&plain(STATION, 1, 64)));
    }
    bench.finish();
}

#[test]
fn a_stopped_nic_is_started_again_by_a_reset() {
    let mut bench = Bench::new();
    post(&mut bench, 2);
    bench.nic.stop().unwrap();
    assert!(bench.model.step().is_empty());
    bench.nic.reset().unwrap();
    assert_eq!(bench.send_bytes(&plain(PEER, 1, 60), NONE), [plain(PEER, 1, 60)]);
    assert!(bench.hears(&plain(STATION, 1, 64)));
    bench.finish();
}

#[test]
fn statistics_go_on_over_a_reset() {
    let mut bench = Bench::new();
    bench.send_bytes(&plain(PEER, 1, 60), NONE);
    bench.deliver(&plain(STATION, 1, 64));
    bench.nic.reset().unwrap();
    bench.send_bytes(&plain(PEER, 1, 60), NONE);
    let statistics = bench.nic.statistics().unwrap();
    assert_eq!((statistics.tx_packets, statistics.tx_bytes, statistics.rx_packets), (2, 128, 1));
    bench.finish();
}

#[test]
fn frames_wait_while_the_link_is_down() {
    let mut bench = Bench::new();
    bench.model.set_link(false);
    post(&mut bench, 3);
    bench.nic.rx(0).refill(&mut bench.pool).unwrap();
    assert!(bench.model.step().is_empty() && !bench.nic.link().unwrap().up);
    assert_eq!(bench.model.receive(&plain(STATION, 1, 64)), Received::Off);
    assert_eq!(bench.nic.tx(0).reap().unwrap(), 0);
    bench.model.set_link(true);
    assert!(bench.nic.link().unwrap().up);
    assert_eq!(bench.model.step().len(), 3);
    assert_eq!(bench.nic.tx(0).reap().unwrap(), 3);
    assert!(bench.hears(&plain(STATION, 1, 64)));
    bench.finish();
}

#[test]
fn a_reset_without_a_link_works_when_the_link_comes() {
    let mut bench = Bench::new();
    bench.model.set_link(false);
    post(&mut bench, 3);
    assert_eq!(bench.nic.reset().unwrap(), 3);
    post(&mut bench, 2);
    assert!(bench.model.step().is_empty());
    bench.model.set_link(true);
    assert_eq!(bench.model.step().len(), 2);
    assert_eq!(bench.nic.tx(0).reap().unwrap(), 2);
    bench.finish();
}

#[test]
fn packets_taken_before_a_reset_stay_the_programs() {
    let mut bench = Bench::new();
    bench.deliver(&plain(STATION, 1, 64));
    let mut burst = RxBurst::default();
    bench.nic.rx(0).receive(&mut burst, 1).unwrap();
    bench.nic.reset().unwrap();
    bench.nic.rx(0).refill(&mut bench.pool).unwrap();
    bench.deliver(&plain(STATION, 2, 64));
    assert_eq!(crate::bench::bytes_of(&burst), [plain(STATION, 1, 64)]);
    drop(burst);
    bench.finish();
}
