//! How much arrives, against what the rules promise.

use super::*;

/// Of a transfer: bytes a second that arrived, over what was asked for; outgoing segments, retransmissions among them, and segments on the
/// wire that brought nothing new.
struct Outcome {
    rate: f64,
    bursts: u64,
    resent: u64,
    needless: u64,
}

/// Sends `total` bytes to a receiver that answers every second segment, over a path of 20 ms there and back, of which the way there loses
/// `loss` millionths.
fn transfer(config: TcpConfig, total: u64, loss: u64, rate: u64, queue: u64, seed: u64) -> Outcome {
    let path = Path { delay: ms(10), jitter: Duration::ZERO, loss: 0, duplication: 0, corruption: 0, rate, queue };
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
    let mut sender = Host::client(TcpConfig { idle_timeout: None, ..config }, total, 0, seed);
    let mut receiver = Receiver::new(habits, total, seed + 1);
    let mut wires = [Wire::new(Path { loss, ..path }, seed + 2), Wire::new(Path { rate: 0, ..path }, seed + 3)];
    let took = run(&mut sender, &mut receiver, &mut wires, Duration::from_secs(3600), seed);
    Outcome { rate: total as f64 / took.as_secs_f64(), bursts: sender.segments, resent: sender.resent, needless: receiver.duplicates }
}

/// Bytes a second by the formula for Reno with an ACK for each segment (Mathis et al. 1997), for a round trip of 20 ms.
fn theory(loss: u64) -> f64 {
    1448.0 / 0.020 * (1.5 / (loss as f64 / 1e6)).sqrt()
}

#[test]
fn under_one_percent_loss_goodput_is_what_the_formula_says() {
    for congestion in [Congestion::Cubic, Congestion::Reno] {
        let mut sum = 0.0;
        for seed in [1, 2, 3] {
            let outcome = transfer(TcpConfig { congestion, ..TcpConfig::default() }, 20_000_000, 10_000, 0, 0, seed * 1000);
            assert_eq!(outcome.needless, 0, "every retransmission was needed");
            sum += outcome.rate / theory(10_000);
        }
        let share = sum / 3.0;
        assert!((0.9..1.4).contains(&share), "{congestion:?}: {share} of theory");
    }
}

#[test]
fn a_link_is_filled() {
    for max_burst in [65_160, 0] {
        // 100 Mbit/s: 250,000 bytes under way, and a queue as long.
        let outcome = transfer(TcpConfig { max_burst, ..TcpConfig::default() }, 50_000_000, 0, 12_500_000, 250_000, 7);
        // Headers take 5 % of it.
        assert!(outcome.rate > 0.9 * 12_500_000.0, "{} bytes a second", outcome.rate);
        assert!(outcome.needless == 0 && outcome.resent < 1000, "{} resent, {} needless", outcome.resent, outcome.needless);
    }
}

#[test]
fn without_loss_nothing_is_sent_twice() {
    for pacing in [true, false] {
        for seed in 0..5 {
            let config = TcpConfig { pacing, ..TcpConfig::default() };
            let outcome = transfer(config, 30_000_000, 0, 0, 0, seed);
            assert_eq!((outcome.resent, outcome.needless), (0, 0));
            // Bursts become long: the window is 4 MiB in the end.
            assert!(outcome.bursts < 3_000, "{} bursts for 20,700 segments", outcome.bursts);
        }
    }
}

#[test]
fn a_short_queue_is_not_overrun_by_bursts() {
    // 100 Mbit/s, and a queue for 20 segments: a 64 KiB burst does not fit. Not paced it is lost again and again.
    let paced = transfer(TcpConfig::default(), 50_000_000, 0, 12_500_000, 30_000, 7);
    assert!(paced.rate > 0.75 * 12_500_000.0, "{} bytes a second", paced.rate);
    let unpaced = transfer(TcpConfig { pacing: false, ..TcpConfig::default() }, 50_000_000, 0, 12_500_000, 30_000, 7);
    assert!(unpaced.rate < paced.rate, "{} and {} bytes a second", unpaced.rate, paced.rate);
}
