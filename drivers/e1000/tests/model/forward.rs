use hal::{Buffer, Burst, MacAddress, Nic, NicError, Offload, Pool, PoolConfig, RxBurst};
use hw_sim::model::e1000::{E1000Model, Received};
use pagewire_e1000::{E1000, E1000Config};

use crate::headers::{STATION, plain};

const OTHER_STATION: [u8; 6] = [0x52, 0x54, 0x00, 0x65, 0x43, 0x21];
const JUMBO: E1000Config = E1000Config {
    tx_descriptors: 128,
    rx_descriptors: 128,
    mtu: 9000,
    vlan: true,
    offloads: hal::OffloadFlags::all(),
    gather: true,
    filter: hal::RxFilter {
        promiscuous: true,
        all_multicast: false,
        no_broadcast: false,
        unicast: vec![],
        multicast: vec![],
        vlans: vec![],
    },
};

fn start(mac: [u8; 6]) -> (E1000Model, E1000) {
    let model = E1000Model::new(MacAddress(mac));
    let nic = E1000::start(model.device(), JUMBO).unwrap();
    (model, nic)
}

/// A received packet's buffers, in order, become one frame.
fn turned_round(packets: &mut RxBurst) -> Burst<'static> {
    let counts: Vec<usize> = packets.packets().map(|packet| packet.buffers.len()).collect();
    let mut buffers = packets.drain();
    let mut burst = Burst::with_capacity(counts.len());
    for count in counts {
        burst.push(buffers.next().expect("the first buffer of a packet"), Offload::NONE);
        buffers.by_ref().take(count - 1).for_each(|buffer| burst.gather_buffer(buffer));
    }
    burst
}

#[test]
fn a_frame_received_on_one_nic_is_sent_on_another_without_a_copy() {
    let (left, mut left_nic) = start(STATION);
    let (right, mut right_nic) = start(OTHER_STATION);
    let mut pool = Pool::new(PoolConfig { buffers: 200, ..PoolConfig::default() }).unwrap();
    for nic in [&mut left_nic, &mut right_nic] {
        nic.attach_pool(pool.attach(&nic.space()).unwrap()).unwrap();
    }
    let mut packets = RxBurst::default();
    for round in 0..50 {
        left_nic.rx(0).refill(&mut pool).unwrap();
        let frames: Vec<_> =
            (0..5).map(|at| plain(OTHER_STATION, round * 5 + at, 60 + (round as usize * 719 + at as usize) % 8900)).collect();
        for frame in &frames {
            assert_eq!(left.receive(frame), Received::Delivered);
        }
        assert_eq!(left_nic.rx(0).receive(&mut packets, 5).unwrap(), 5);
        let mut burst = turned_round(&mut packets);
        assert_eq!(right_nic.tx(0).post(&mut burst).unwrap(), 5);
        assert_eq!(right.step(), frames, "round {round}");
        assert_eq!(right_nic.tx(0).reap().unwrap(), 5);
    }
    // The buffers that were sent are those that were received: no other was taken from the pool.
    drop((left_nic, right_nic));
    assert_eq!(std::iter::from_fn(|| pool.take()).collect::<Vec<Buffer>>().len(), 200);
    for model in [left, right] {
        assert_eq!(model.violations(), [""; 0]);
        assert_eq!(model.faulted_accesses(), []);
        assert_eq!(model.mappings(), 0);
    }
}

#[test]
fn frames_go_both_ways_at_once_on_threads_of_their_own() {
    let (left, mut left_nic) = start(STATION);
    let (right, mut right_nic) = start(OTHER_STATION);
    let mut pools = [(); 2].map(|()| Pool::new(PoolConfig { buffers: 400, ..PoolConfig::default() }).unwrap());
    for pool in &pools {
        for nic in [&mut left_nic, &mut right_nic] {
            nic.attach_pool(pool.attach(&nic.space()).unwrap()).unwrap();
        }
    }
    const COUNT: u32 = 2000;
    let (mut left_tx, mut left_rx) = left_nic.split();
    let (mut right_tx, mut right_rx) = right_nic.split();
    let [left_pool, right_pool] = &mut pools;
    std::thread::scope(|scope| {
        for (from, to, rx, tx, pool) in
            [(&left, &right, &mut left_rx, &mut right_tx, left_pool), (&right, &left, &mut right_rx, &mut left_tx, right_pool)]
        {
            scope.spawn(move || {
                let mut packets = RxBurst::default();
                let (mut next, mut sent) = (0, Vec::new());
                let mut burst = Burst::default();
                while sent.len() < COUNT as usize {
                    rx[0].refill(pool).unwrap();
                    while next < COUNT && from.receive(&plain(STATION, next, 64)) == Received::Delivered {
                        next += 1;
                    }
                    rx[0].receive(&mut packets, 32).unwrap();
                    if burst.is_empty() {
                        burst = turned_round(&mut packets);
                    }
                    tx[0].post(&mut burst).unwrap();
                    sent.extend(to.step());
                    tx[0].reap().unwrap();
                }
                assert!(sent == (0..COUNT).map(|number| plain(STATION, number, 64)).collect::<Vec<_>>());
            });
        }
    });
    drop((left_tx, left_rx, right_tx, right_rx));
    drop((left_nic, right_nic));
    for pool in &mut pools {
        assert_eq!(std::iter::from_fn(|| pool.take()).collect::<Vec<Buffer>>().len(), 400);
    }
    for model in [left, right] {
        assert_eq!(model.violations(), [""; 0]);
        assert_eq!(model.faulted_accesses(), []);
    }
}

#[test]
fn a_pool_that_is_attached_to_one_nic_alone_is_refused_by_the_other() {
    let (left, mut left_nic) = start(STATION);
    let (_right, mut right_nic) = start(OTHER_STATION);
    let mut pool = Pool::new(PoolConfig { buffers: 8, ..PoolConfig::default() }).unwrap();
    left_nic.attach_pool(pool.attach(&left_nic.space()).unwrap()).unwrap();
    left_nic.rx(0).refill(&mut pool).unwrap();
    left.receive(&plain(STATION, 1, 64));
    let mut packets = RxBurst::default();
    left_nic.rx(0).receive(&mut packets, 1).unwrap();
    let mut burst = turned_round(&mut packets);
    assert!(matches!(right_nic.tx(0).post(&mut burst), Err(NicError::UnmappedSegment)));
    assert_eq!(burst.len(), 1);
}
