//! Losses that ACKs tell.

use super::*;

/// A script that has sent ten segments, one by one.
fn ten_segments(config: TcpConfig) -> Script {
    let mut script = Script::accepted(TcpConfig { max_burst: 0, ..config });
    script.connection.offer(100_000).unwrap();
    assert_eq!(script.sent_data().len(), 10);
    script.after(100);
    script
}

#[test]
fn three_segments_behind_a_hole_repair_it() {
    let mut script = ten_segments(plain());
    script.receive(". 1:1 ack 1 sack 1001:2001");
    // Limited transmit comes from the room that an arrival makes.
    assert_eq!(script.sent_data(), [". 10001:11001 ack 1"]);
    script.receive(". 1:1 ack 1 sack 1001:3001");
    assert_eq!(script.sent_data(), [". 11001:12001 ack 1"]);
    script.receive(". 1:1 ack 1 sack 1001:4001");
    assert_eq!(script.sent_data(), [". 1:1001 ack 1 again"]);
}

#[test]
fn the_window_shrinks_in_proportion() {
    let mut script = ten_segments(TcpConfig { congestion: Congestion::Reno, ..plain() });
    script.receive(". 1:1 ack 1 sack 1001:4001");
    assert_eq!(script.sent_data(), [". 1:1001 ack 1 again"]);
    // Half as much goes out as arrives, from now on.
    let mut out = 0;
    for upto in 5..=10 {
        script.receive(&format!(". 1:1 ack 1 sack 1001:{upto}001"));
        out += script.sent_data().len();
    }
    assert_eq!(out, 4, "five are under way in the end, with the one that was sent before");
    script.after(100).receive(". 1:1 ack 13001");
    assert_eq!(script.connection.congestion_window(), 5000);
}

#[test]
fn a_retransmission_covers_the_hole_and_nothing_else() {
    let mut script = Script::accepted(plain());
    script.connection.offer(100_000).unwrap();
    script.sent();
    script.after(100).receive(". 1:1 ack 1 sack 2001:4001,5001:10001");
    // 7000 have arrived, and 7000 may be under way.
    assert_eq!(script.sent_data(), [". 1:2001 ack 1 again", ". 4001:5001 ack 1 again", ". 10001:14001 ack 1"]);
    for ack in [1, 1, 1001, 2001, 4001] {
        script.after(20).receive(&format!(". 1:1 ack {ack} sack 2001:4001,5001:10001"));
        assert!(script.sent_data().iter().all(|line| !line.contains("again")));
    }
}

#[test]
fn a_lost_retransmission_is_noticed_by_time() {
    let mut script = ten_segments(plain());
    script.receive(". 1:1 ack 1 sack 1001:4001");
    assert_eq!(script.sent_data(), [". 1:1001 ack 1 again"]);
    script.after(1).receive(". 1:1 ack 1 sack 1001:10001");
    let new = script.sent_data();
    assert!(!new.is_empty() && new.iter().all(|line| !line.contains("again")), "{new:?}");
    // What was sent after the retransmission arrives, a round trip later: the retransmission is lost, and no time-out is needed.
    script.after(100).receive(". 1:1 ack 1 sack 1001:11001");
    assert_eq!(script.sent_data()[0], ". 1:1001 ack 1 again");
}

#[test]
fn reordering_widens_the_time_that_a_segment_may_be_late() {
    let mut script = ten_segments(plain());
    // The first arrives after the second: reordering is seen.
    script.receive(". 1:1 ack 1 sack 1001:2001");
    script.receive(". 1:1 ack 2001");
    let before = script.connection.congestion_window();
    script.sent();
    // Three behind the third are not enough then: a quarter of a round trip is waited.
    script.receive(". 1:1 ack 2001 sack 3001:6001");
    assert!(script.sent_data().iter().all(|line| !line.contains("again")));
    script.after(20).receive(". 1:1 ack 6001");
    assert!(script.sent_data().iter().all(|line| !line.contains("again")));
    assert!(script.connection.congestion_window() >= before);
    // And when it stays out, it is lost after that.
    script.receive(". 1:1 ack 6001 sack 7001:10001");
    assert!(script.sent_data().iter().all(|line| !line.contains("again")));
    assert!((20..=30).contains(&script.wait()));
    assert_eq!(script.sent_data(), [". 6001:7001 ack 1 again"]);
}

#[test]
fn three_duplicates_repair_a_hole_without_sack() {
    let mut script = ten_segments(TcpConfig { sack: false, ..plain() });
    for _ in 0..2 {
        script.receive(". 1:1 ack 1");
        assert_eq!(script.sent_data().len(), 1, "limited transmit (RFC 3042)");
    }
    script.receive(". 1:1 ack 1");
    assert_eq!(script.sent_data()[0], ". 1:1001 ack 1 again");
    // A partial ACK shows the next hole (RFC 6582 3.2).
    script.after(100).receive(". 1:1 ack 4001");
    assert_eq!(script.sent_data()[0], ". 4001:5001 ack 1 again");
    script.after(100).receive(". 1:1 ack 12001");
    assert!(script.sent_data().iter().all(|line| !line.contains("again")));
    assert_eq!(script.connection.acknowledged(), 12_000);
}

#[test]
fn window_updates_and_data_are_no_duplicates() {
    let mut script = ten_segments(TcpConfig { sack: false, ..plain() });
    for at in 0..4 {
        script.receive(&format!(". 1:1 ack 1 win {}", 50_000 + at));
        script.receive(&format!(". {}:{} ack 1 win {}", 1 + 10 * at, 11 + 10 * at, 50_000 + at));
    }
    assert!(script.sent_data().iter().all(|line| !line.contains("again")));
}

#[test]
fn a_fin_is_not_repeated_in_a_burst() {
    let mut script = Script::accepted(plain());
    script.connection.offer(3_000).unwrap();
    script.connection.shutdown();
    assert_eq!(script.sent_data(), ["P. 1:3001 ack 1", "FP. 3001:3002 ack 1"]);
    // Everything is lost, probe and all.
    script.wait();
    script.sent();
    script.wait();
    assert_eq!(script.sent_data(), [". 1:1001 ack 1 again"]);
    script.after(100).receive(". 1:1 ack 1001");
    assert_eq!(script.sent_data(), ["P. 1001:3001 ack 1 again"]);
    script.after(100).receive(". 1:1 ack 3001");
    assert_eq!(script.sent_data(), ["FP. 3001:3002 ack 1 again"]);
}

#[test]
fn pacing_spreads_a_window_over_the_round_trip() {
    let mut script = Script::accepted(TcpConfig { pacing: true, ..plain() });
    script.connection.offer(100_000).unwrap();
    // 10,000 bytes in 100 ms, doubled as it is slow start: two segments in 10 ms.
    assert_eq!(script.sent_data(), [". 1:2001 ack 1"]);
    for start in [2001, 4001, 6001, 8001] {
        assert!((9..=10).contains(&script.wait()));
        assert_eq!(script.sent_data(), [format!(". {start}:{} ack 1", start + 2000)]);
    }
    // The window is full: nothing is due but the probe.
    assert!(script.wait() > 100);
}

#[test]
fn a_pause_starts_with_the_initial_window_again() {
    let mut script = Script::accepted(plain());
    script.connection.offer(70_000).unwrap();
    let mut acknowledged = 1;
    while script.connection.unsent() > 0 {
        script.sent();
        script.after(100);
        acknowledged += script.connection.congestion_window().min(70_001 - acknowledged);
        let upto = (acknowledged as i64).min(70_001 - script.connection.unsent() as i64);
        script.receive(&format!(". 1:1 ack {upto}"));
        acknowledged = upto as u64;
    }
    script.sent();
    script.after(100).receive(". 1:1 ack 70001");
    assert!(script.connection.congestion_window() > 20_000);
    script.after(5000);
    script.connection.offer(50_000).unwrap();
    assert_eq!(script.sent_data(), [". 70001:80001 ack 1"]);
}
