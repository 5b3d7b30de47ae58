//! How much arrives, against what the rules promise.

use super::*;

/// Sends `total` bytes to a receiver over a path of 20 ms there and back, of which the way there loses `loss` millionths. Returns the bytes
/// a second that arrived, and the sender.
fn transfer(config: TcpConfig, total: u64, loss: u64, there: Path, seed: u64) -> (f64, Host, Receiver) {
    let habits = Habits {
        sack: config.sack,
        timestamps: config.timestamps,
        scale: Some(7),
        mss: 1460,
        buffer: 4 << 20,
        reading: 0,
        every: 2,
        reneging: 0,
    };
    let mut sender = Host::client(config, total, 0, seed);
    let mut receiver = Receiver::new(habits, total, seed + 1);
    let back = Path { rate: 0, loss: 0, ..there };
    let mut wires = [Wire::new(Path { loss, ..there }, seed + 2), Wire::new(back, seed + 3)];
    let took = run(&mut sender, &mut receiver, &mut wires, Duration::from_secs(3600), seed);
    (total as f64 / took.as_secs_f64(), sender, receiver)
}

fn path(rate: u64, queue: u64) -> Path {
    Path { delay: ms(10), jitter: Duration::ZERO, loss: 0, duplication: 0, corruption: 0, rate, queue }
}

#[test]
fn steady() {
    for congestion in [Congestion::Cubic, Congestion::Reno] {
        for pacing in [true, false] {
            for loss in [1000, 10000] {
                for total in [10_000_000, 50_000_000, 200_000_000] {
                    let config = TcpConfig { congestion, pacing, idle_timeout: None, ..TcpConfig::default() };
                    let (rate, sender, receiver) = transfer(config, total, loss, path(0, 0), 3);
                    let theory = 1448.0 / 0.020 * (1.5f64 / (loss as f64 / 1e6)).sqrt();
                    println!(
                        "{congestion:?} {pacing} {loss} {total}: {:.0} {:.2} needless {} out {}",
                        rate / 1e3,
                        rate / theory,
                        receiver.duplicates,
                        sender.segments
                    );
                }
            }
        }
    }
}

#[test]
fn report() {
    for congestion in [Congestion::Cubic, Congestion::Reno] {
        for max_burst in [65_160, 0] {
            for pacing in [true, false] {
                for loss in [1_000, 10_000, 50_000] {
                    let config = TcpConfig { congestion, max_burst, pacing, idle_timeout: None, ..TcpConfig::default() };
                    let mut sum = 0.0;
                    let mut segs = 0;
                    let mut resent = 0;
                    let mut dup = 0;
                    for seed in 0..3 {
                        let (rate, sender, receiver) = transfer(config, 20_000_000, loss, path(0, 0), seed * 77);
                        sum += rate / 3.0;
                        segs += sender.segments;
                        resent += sender.resent;
                        dup += receiver.duplicates;
                    }
                    let theory = 1448.0 / 0.020 * (1.5f64 / (loss as f64 / 1e6)).sqrt();
                    println!(
                        "{congestion:?} burst {max_burst} pacing {pacing} loss {loss}: {:.0} kB/s, theory {:.0}, {:.2}; outgoing {segs} resent {resent} needless {dup}",
                        sum / 1e3,
                        theory / 1e3,
                        sum / theory
                    );
                }
            }
        }
    }
    for (rate, queue) in
        [(1_250_000, 30_000), (12_500_000, 30_000), (12_500_000, 250_000), (125_000_000, 1_000_000), (125_000_000, 100_000)]
    {
        for max_burst in [65_160, 0] {
            let config = TcpConfig { max_burst, idle_timeout: None, ..TcpConfig::default() };
            let (got, sender, receiver) = transfer(config, rate * 10, 0, path(rate, queue), 5);
            println!(
                "link {rate} queue {queue} burst {max_burst}: {:.0} kB/s, {:.2}; outgoing {} resent {} needless {}",
                got / 1e3,
                got / rate as f64,
                sender.segments,
                sender.resent,
                receiver.duplicates
            );
        }
    }
}
