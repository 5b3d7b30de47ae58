use std::time::Duration;

use hal::{Nic, NicError, Offload, RxBurst, RxFilter};
use hw_sim::model::Received;
use hw_sim::model::virtio::{Fault, Features, ModelConfig};
use virtio_net::VirtioNetConfig;

use crate::bench::{BUFFERS, Bench, LONG, each};
use crate::headers::{PEER, STATION, plain};

fn post(bench: &mut Bench, count: u32) {
    let frames: Vec<_> = (0..count).map(|number| (plain(PEER, number, 60), Offload::NONE)).collect();
    let mut burst = bench.burst(&frames);
    assert_eq!(bench.nic.tx(0).post(&mut burst).unwrap(), count as usize);
}

fn reset(bench: &mut Bench) -> u64 {
    bench.command(|nic| nic.reset()).unwrap()
}

#[test]
fn a_hang_is_told_and_a_reset_ends_it() {
    each(|features| {
        let mut bench = Bench::new(features);
        let filter = RxFilter { promiscuous: true, ..RxFilter::default() };
        bench.command(|nic| nic.set_filter(&filter)).unwrap();
        bench.model.set_fault(Fault::TransmitHang);
        post(&mut bench, 3);
        let start = Duration::from_secs(1000);
        bench.nic.tx(0).check(start).unwrap();
        bench.model.step();
        assert_eq!(bench.nic.tx(0).reap().unwrap(), 0);
        bench.nic.tx(0).check(start + Duration::from_millis(4999)).unwrap();
        let error = bench.nic.tx(0).check(start + Duration::from_secs(5)).unwrap_err();
        let NicError::Hang { outstanding, stood, .. } = error else { panic!("{error:?}") };
        assert_eq!((outstanding, stood), (3, Duration::from_secs(5)));
        bench.model.set_link(false);
        assert!(matches!(bench.nic.tx(0).check(start + LONG), Err(NicError::LinkDown { outstanding: 3, .. })));
        bench.model.set_link(true);
        assert_eq!(reset(&mut bench), 3);
        assert_eq!(bench.free_buffers(), BUFFERS as usize);
        bench.nic.tx(0).check(start + LONG).unwrap();
        assert!(bench.model.step().is_empty(), "what was lost is lost");
        post(&mut bench, 5);
        assert_eq!(bench.model.step().len(), 5);
        assert_eq!(bench.nic.tx(0).reap().unwrap(), 5);
        assert!(bench.hears(&plain(PEER, 1, 64)), "the filter is as before");
        assert_eq!(bench.nic.tx(0).progress().posted(), 8);
        bench.finish();
    });
}

#[test]
fn a_device_that_asks_for_a_reset_is_heard_and_recovers() {
    each(|features| {
        let mut bench = Bench::new(features);
        bench.model.set_fault(Fault::NeedsResetAfter(4));
        post(&mut bench, 10);
        let sent = bench.model.step().len();
        assert!(sent < 10);
        let mut done = bench.nic.tx(0).reap().unwrap();
        assert!(matches!(bench.nic.tx(0).check(Duration::ZERO), Err(NicError::NeedsReset)));
        assert!(matches!(bench.nic.link(), Err(NicError::NeedsReset)));
        bench.model.clear_fault();
        let lost = reset(&mut bench) as usize;
        done = 10 - lost - done;
        assert_eq!(done, 0, "all that was complete had been reaped");
        assert_eq!(bench.free_buffers(), BUFFERS as usize);
        post(&mut bench, 10);
        assert_eq!(bench.model.step().len(), 10);
        assert_eq!(bench.nic.tx(0).reap().unwrap(), 10);
        assert!(bench.hears(&plain(STATION, 1, 64)));
        bench.finish();
    });
}

#[test]
fn what_left_before_a_reset_is_not_lost() {
    each(|features| {
        let mut bench = Bench::new(features);
        post(&mut bench, 4);
        post(&mut bench, 3);
        bench.model.set_fault(Fault::TransmitHangAfter(5));
        assert_eq!(bench.model.step().len(), 5);
        // Completed, but not reaped; one of them in the middle of a burst.
        assert_eq!(reset(&mut bench), 2);
        assert_eq!(bench.nic.tx(0).progress().completed(), 7);
        bench.finish();
    });
}

#[test]
fn resets_can_follow_each_other() {
    each(|features| {
        let mut bench = Bench::new(features);
        for round in 0..20 {
            post(&mut bench, round);
            bench.nic.rx(0).refill(&mut bench.pool).unwrap();
            bench.deliver(&plain(STATION, 1, 64));
            assert_eq!(reset(&mut bench), u64::from(round));
            assert_eq!(reset(&mut bench), 0);
            assert_eq!(bench.free_buffers(), BUFFERS as usize);
            assert_eq!(bench.model.receive(&plain(STATION, 2, 64)), Received::Missed, "there is no buffer");
            assert!(bench.received().is_empty());
            assert_eq!(bench.send_bytes(&plain(PEER, 1, 60), Offload::NONE).len(), 1);
            assert!(bench.hears(&plain(STATION, 1, 64)));
        }
        bench.finish();
    });
}

#[test]
fn a_stopped_nic_does_nothing_until_it_is_reset() {
    each(|features| {
        let mut bench = Bench::new(features);
        post(&mut bench, 3);
        bench.nic.rx(0).refill(&mut bench.pool).unwrap();
        bench.nic.stop().unwrap();
        assert_eq!((bench.free_buffers(), bench.model.status()), (BUFFERS as usize, 0));
        let mut burst = bench.burst(&[(plain(PEER, 1, 60), Offload::NONE)]);
        assert!(matches!(bench.nic.tx(0).post(&mut burst), Err(NicError::Config(_))));
        assert!(bench.nic.rx(0).refill(&mut bench.pool).is_err() && bench.nic.rx(0).receive(&mut RxBurst::default(), 1).is_err());
        burst.clear();
        assert_eq!(reset(&mut bench), 0);
        assert_eq!(bench.send_bytes(&plain(PEER, 1, 60), Offload::NONE).len(), 1);
        bench.finish();
    });
}

#[test]
fn a_device_that_is_another_one_after_its_reset_is_not_taken() {
    each(|features| {
        // Of which packets would not fit into the buffers any more.
        let mut bench = Bench::with(features, VirtioNetConfig { rx_buffer: 2048, ..VirtioNetConfig::default() });
        bench.model.set_mtu(9000);
        let refused = bench.command(|nic| nic.reset()).unwrap_err();
        assert!(matches!(&refused, NicError::WrongDevice(why) if why.contains("MTU is larger")), "{refused}");
        // With merging they do.
        let mut bench = Bench::new(features);
        bench.model.set_mtu(9000);
        assert_eq!(reset(&mut bench), 0);
        bench.deliver(&plain(STATION, 1, 9000));
        assert_eq!(bench.received(), [plain(STATION, 1, 9000)]);
        bench.finish();
    });
}

#[test]
fn one_queue_is_reset_and_the_others_run_on() {
    each(|features| {
        let device = ModelConfig { features, pairs: 2, ..ModelConfig::default() };
        let mut bench = Bench::on(device, VirtioNetConfig { queue_pairs: 2, ..VirtioNetConfig::default() });
        for round in 0..5 {
            let mut burst = bench.burst(&[(plain(PEER, 1, 60), Offload::NONE), (plain(PEER, 2, 60), Offload::NONE)]);
            bench.nic.tx(1).post(&mut burst).unwrap();
            post(&mut bench, 7);
            bench.nic.rx(0).refill(&mut bench.pool).unwrap();
            bench.nic.rx(1).refill(&mut bench.pool).unwrap();
            assert_eq!(bench.nic.reset_tx(0).unwrap(), 7);
            bench.nic.reset_rx(0).unwrap();
            assert_eq!(bench.model.step_pairs().len(), 2, "round {round}");
            assert_eq!(bench.nic.tx(1).reap().unwrap(), 2);
            post(&mut bench, 5);
            assert_eq!(bench.model.step().len(), 5);
            assert_eq!(bench.nic.tx(0).reap().unwrap(), 5);
            let mut packets = RxBurst::default();
            for pair in [0, 1] {
                bench.nic.rx(pair.into()).refill(&mut bench.pool).unwrap();
                assert_eq!(bench.model.receive_on(pair, &plain(STATION, 1, 64)), Received::Delivered);
                assert_eq!(bench.nic.rx(pair.into()).receive(&mut packets, 9).unwrap(), 1);
            }
        }
        bench.finish();
        let mut bench = Bench::with(features - Features::RING_RESET, VirtioNetConfig::default());
        assert!(matches!(bench.nic.reset_tx(0), Err(NicError::Config(_))));
        assert!(matches!(bench.nic.reset_rx(0), Err(NicError::Config(_))));
        bench.finish();
    });
}
