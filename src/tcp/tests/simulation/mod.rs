//! Transfers in virtual time, by seed.

mod goodput;
mod host;
mod network;
mod receiver;

use std::time::Duration;

use fastrand::Rng;

use super::ms;
use crate::tcp::*;
use host::{Host, Station};
use network::{Path, Wire};
use receiver::{Habits, Receiver};

/// Runs two stations over a path, until both are done. Returns how long that took.
fn run(left: &mut dyn Station, right: &mut dyn Station, wires: &mut [Wire; 2], limit: Duration, seed: u64) -> Duration {
    let mut now = Duration::ZERO;
    loop {
        let mut busy = true;
        while busy {
            busy = false;
            while let Some(bytes) = wires[0].take(now) {
                right.receive(&bytes, now);
                for bytes in right.send(now) {
                    wires[1].send(bytes, now);
                }
                busy = true;
            }
            while let Some(bytes) = wires[1].take(now) {
                left.receive(&bytes, now);
                busy = true;
            }
            for bytes in left.send(now) {
                wires[0].send(bytes, now);
            }
            for bytes in right.send(now) {
                wires[1].send(bytes, now);
            }
        }
        if left.is_done() && right.is_done() {
            return now;
        }
        let next = [left.deadline(), right.deadline(), wires[0].next(), wires[1].next()].into_iter().flatten().min();
        let Some(next) = next else { panic!("seed {seed}: nothing goes on at {now:?}\n{}\n{}", left.describe(), right.describe()) };
        assert!(next < limit, "seed {seed}: not done at {now:?}\n{}\n{}", left.describe(), right.describe());
        now = next.max(now);
    }
}

/// One of some.
fn pick<T: Copy>(random: &mut Rng, of: &[T]) -> T {
    of[random.usize(..of.len())]
}

/// A path and a configuration for a seed. The path loses `loss` millionths.
fn draw(seed: u64, loss: u64) -> (Path, TcpConfig, Rng) {
    let mut random = Rng::with_seed(seed);
    let delay = Duration::from_micros(pick(&mut random, &[1_000, 5_000, 20_000, 50_000, 100_000, 200_000]));
    let path = Path {
        delay,
        jitter: pick(&mut random, &[Duration::ZERO, Duration::ZERO, delay / 8, delay]),
        loss,
        duplication: pick(&mut random, &[0, 0, 10_000]),
        corruption: pick(&mut random, &[0, 0, 5_000]),
        rate: pick(&mut random, &[0, 0, 1_250_000, 12_500_000]),
        queue: pick(&mut random, &[40_000, 400_000]),
    };
    let config = TcpConfig {
        mss: pick(&mut random, &[1460, 1460, 536, 8960]),
        window: pick(&mut random, &[65_535, 16_384, 300_000, 2_000_000]),
        congestion: pick(&mut random, &[Congestion::Cubic, Congestion::Reno]),
        idle_timeout: None,
        pacing: random.f64() < 0.7,
        max_burst: pick(&mut random, &[65_160, 0, 20_000]),
        timestamps: random.f64() < 0.7,
        sack: random.f64() < 0.8,
        ..TcpConfig::default()
    };
    (path, config, random)
}

/// The longest that an ACK can take, its delay of 40 ms included.
fn longest_round_trip(path: &Path) -> Duration {
    let queue = (path.queue * 1_000_000_000).checked_div(path.rate).map_or(Duration::ZERO, Duration::from_nanos);
    2 * (path.delay + path.jitter) + 2 * queue + ms(40)
}

/// Engine to engine, both directions.
fn engines(seed: u64, loss: u64) {
    let (path, config, mut random) = draw(seed, loss);
    let (there, back) = (random.u64(..2_000), pick(&mut random, &[0, 1, 1460, 100_000, 300_000]) + random.u64(..3000));
    let server_config = TcpConfig { window: 65_535, mss: 1460, ..config };
    let mut client = Host::client(config, there, back, seed).reading(pick(&mut random, &[0, 0, 0, 500]));
    let mut server = Host::server(server_config, back, there, seed + 1);
    let mut wires = [Wire::new(path, seed + 2), Wire::new(path, seed + 3)];
    run(&mut client, &mut server, &mut wires, Duration::from_secs(3600), seed);
    assert_eq!((client.got, server.got), (back, there), "seed {seed}");
}

/// Engine to the receiver that is not one.
fn to_receiver(seed: u64, loss: u64) {
    let (path, config, mut random) = draw(seed, loss);
    let total = pick(&mut random, &[0, 1, 1460, 50_000, 300_000]) + random.u64(..3000);
    let scale = pick(&mut random, &[None, Some(0), Some(2), Some(7)]);
    let habits = Habits {
        sack: config.sack && random.f64() < 0.9,
        timestamps: config.timestamps,
        scale,
        mss: pick(&mut random, &[1460, 1460, 536]),
        buffer: u64::from(config.window).min(65_535 << scale.unwrap_or(0)),
        reading: pick(&mut random, &[0, 0, 0, 1000]),
        every: pick(&mut random, &[1, 2, 2, 8]),
        reneging: pick(&mut random, &[0, 0, 0, 10_000]),
    };
    let mut sender = Host::client(config, total, 0, seed);
    let mut receiver = Receiver::new(habits, total, seed + 1);
    if config.timestamps && habits.reading == 0 {
        sender.longest_round_trip = Some(longest_round_trip(&path));
    }
    let mut wires = [Wire::new(path, seed + 2), Wire::new(path, seed + 3)];
    run(&mut sender, &mut receiver, &mut wires, Duration::from_secs(3600), seed);
}

const RUNS: u64 = 300;

macro_rules! transfers {
    ($($name:ident: $transfer:ident with $loss:literal;)*) => {$(
        #[test]
        fn $name() {
            for seed in 0..RUNS {
                $transfer(seed * 1_000_003 + $loss, $loss);
            }
        }
    )*};
}

transfers! {
    engines_without_loss: engines with 0;
    engines_with_a_thousandth_lost: engines with 1_000;
    engines_with_a_hundredth_lost: engines with 10_000;
    engines_with_a_twentieth_lost: engines with 50_000;
    a_receiver_without_loss: to_receiver with 0;
    a_receiver_with_a_thousandth_lost: to_receiver with 1_000;
    a_receiver_with_a_hundredth_lost: to_receiver with 10_000;
    a_receiver_with_a_twentieth_lost: to_receiver with 50_000;
}
