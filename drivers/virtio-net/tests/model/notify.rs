//! Doorbells and interrupts: only those that somebody waits for, and none lost. That a doorbell is rung whenever the device asked for one, the
//! model's list of violations says in every test.

use std::time::Duration;

use hal::{Nic, Offload};
use hw_sim::model::virtio::{Features, Notify};
use virtio_net::VirtioNetConfig;

use crate::bench::{Bench, each};
use crate::headers::{PEER, STATION, plain};

fn post(bench: &mut Bench, count: u32) {
    let frames: Vec<_> = (0..count).map(|number| (plain(PEER, number, 60), Offload::NONE)).collect();
    let mut burst = bench.burst(&frames);
    assert_eq!(bench.nic.tx(0).post(&mut burst).unwrap(), count as usize);
}

#[test]
fn a_device_that_looks_by_itself_is_not_rung() {
    each(|features| {
        let mut bench = Bench::new(features);
        bench.model.set_notify(Notify::Never);
        let before = (bench.model.doorbells(1), bench.model.doorbells(0));
        for round in 0..2000 {
            bench.nic.rx(0).refill(&mut bench.pool).unwrap();
            post(&mut bench, 33);
            assert_eq!(bench.model.step().len(), 33, "round {round}");
            assert_eq!(bench.nic.tx(0).reap().unwrap(), 33);
        }
        // Sixteen bits of entries wrapped once on a split ring with EVENT_IDX, which has no way to say never.
        let rung = bench.model.doorbells(1) - before.0 + bench.model.doorbells(0) - before.1;
        assert!(rung <= if features.contains(Features::EVENT_IDX) { 2 } else { 0 }, "{rung}");
        assert_eq!(bench.nic.tx(0).counters().doorbells + before.0, bench.model.doorbells(1));
        bench.finish();
    });
}

#[test]
fn a_device_that_sleeps_is_rung_when_it_asked_to_be() {
    each(|features| {
        for more in [0, 1, 5, 40, 300] {
            let mut bench = Bench::new(features);
            bench.model.set_notify(Notify::After(more));
            let mut sent = 0;
            for round in 0..100 {
                post(&mut bench, 1 + round % 7);
                sent += 1 + round % 7;
                // What is not announced yet lies there; a full ring is announced for sure.
                sent -= bench.model.step().len() as u32;
                bench.nic.tx(0).reap().unwrap();
                if sent > 200 {
                    break;
                }
            }
            bench.model.set_notify(Notify::Never);
            assert_eq!(bench.model.step().len() as u32, sent);
            bench.nic.tx(0).reap().unwrap();
            assert_eq!(bench.nic.tx(0).progress().completed(), bench.nic.tx(0).progress().posted());
            if features.contains(Features::EVENT_IDX) {
                assert_eq!(bench.model.superfluous_doorbells(1), 0, "after {more}");
            }
            bench.finish();
        }
    });
}

#[test]
fn nobody_is_interrupted_who_does_not_wait() {
    each(|features| {
        let mut bench = Bench::new(features);
        let before = [0, 1].map(|queue| bench.model.interrupts(queue));
        for _ in 0..300 {
            post(&mut bench, 32);
            bench.model.step();
            bench.nic.tx(0).reap().unwrap();
            bench.deliver(&plain(STATION, 1, 64));
            assert_eq!(bench.received().len(), 1);
        }
        assert_eq!([0, 1].map(|queue| bench.model.interrupts(queue)), before);
        bench.finish();
    });
}

#[test]
fn who_waits_is_woken_and_sees_what_was_there_before() {
    each(|features| {
        let mut bench = Bench::new(features);
        bench.nic.rx(0).refill(&mut bench.pool).unwrap();
        for round in 0..600 {
            assert!(!bench.nic.wait(Duration::ZERO).unwrap(), "round {round}: nothing happened");
            // Before the wait: no interrupt was asked for, and the rings say it.
            if round % 3 == 0 {
                post(&mut bench, 1);
                bench.model.step();
            } else {
                bench.deliver(&plain(STATION, 1, 64));
            }
            assert!(bench.nic.wait(Duration::ZERO).unwrap(), "round {round}: something did");
            bench.nic.tx(0).reap().unwrap();
            bench.received();
        }
        bench.finish();
    });
}

#[test]
fn who_waits_for_packets_alone_is_not_woken_by_completions() {
    each(|features| {
        let mut bench = Bench::new(features);
        bench.nic.rx(0).refill(&mut bench.pool).unwrap();
        for round in 0..300 {
            let before = bench.model.interrupts(1);
            post(&mut bench, 3);
            bench.model.step();
            assert!(!bench.nic.wait_received(Duration::ZERO).unwrap(), "round {round}: completions");
            assert_eq!(bench.model.interrupts(1), before, "round {round}");
            bench.deliver(&plain(STATION, round, 64));
            assert!(bench.nic.wait_received(Duration::ZERO).unwrap(), "round {round}: a packet");
            bench.received();
            assert!(bench.nic.wait(Duration::ZERO).unwrap(), "round {round}: completions are still there");
            assert_eq!(bench.nic.tx(0).reap().unwrap(), 3);
            bench.nic.rx(0).refill(&mut bench.pool).unwrap();
        }
        bench.finish();
    });
}

#[test]
fn what_happens_during_the_wait_wakes() {
    each(|features| {
        let mut bench = Bench::with(features, VirtioNetConfig { rx_descriptors: 16, ..VirtioNetConfig::default() });
        for round in 0..50 {
            bench.nic.rx(0).refill(&mut bench.pool).unwrap();
            post(&mut bench, 3);
            let interrupts = bench.model.interrupts(0) + bench.model.interrupts(1);
            let model = bench.model.clone();
            let woken = std::thread::scope(|scope| {
                let device = scope.spawn(move || {
                    // The driver asks for interrupts when it waits; it is woken by one, or saw the ring.
                    if round % 2 == 0 {
                        model.step();
                    } else {
                        model.receive(&plain(STATION, round, 64));
                    }
                });
                let woken = bench.nic.wait(Duration::from_secs(10)).unwrap();
                device.join().unwrap();
                woken
            });
            assert!(woken, "round {round}");
            assert!(bench.model.interrupts(0) + bench.model.interrupts(1) <= interrupts + 1);
            bench.model.step();
            bench.nic.tx(0).reap().unwrap();
            bench.received();
            // An interrupt that came when the ring had said it is nobody's.
            bench.nic.wait(Duration::ZERO).unwrap();
        }
        bench.finish();
    });
}
