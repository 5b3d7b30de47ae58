//! Time-outs, probes, and what they say.

use super::*;

fn sending(config: TcpConfig, bytes: u64) -> (Script, Vec<String>) {
    let mut script = Script::accepted(config);
    script.connection.offer(bytes).unwrap();
    let lines = script.sent_data();
    (script, lines)
}

#[test]
fn the_first_flight_is_ten_segments() {
    let (mut script, lines) = sending(plain(), 50_000);
    assert_eq!(lines, [". 1:10001 ack 1"]);
    // In slow start an ACK lets out twice what it is for.
    script.after(100).receive(". 1:1 ack 10001");
    assert_eq!(script.sent_data(), [". 10001:30001 ack 1"]);
}

#[test]
fn a_burst_is_as_long_as_allowed() {
    let (_, lines) = sending(TcpConfig { max_burst: 4_321, ..plain() }, 50_000);
    assert_eq!(lines, [". 1:4001 ack 1", ". 4001:8001 ack 1", ". 8001:10001 ack 1"]);
    let (_, lines) = sending(TcpConfig { max_burst: 0, ..plain() }, 2_500);
    assert_eq!(lines, [". 1:1001 ack 1", ". 1001:2001 ack 1", "P. 2001:2501 ack 1"]);
}

#[test]
fn a_lost_tail_is_probed_before_the_timeout() {
    let (mut script, _) = sending(plain(), 5_000);
    // Two round trips of 100 ms, and 10 ms.
    assert_eq!(script.wait(), 210);
    assert_eq!(script.sent_data(), ["P. 4001:5001 ack 1 again"]);
    // Its ACK shows the hole, which is repaired at once, and the window is reduced.
    script.after(100).receive(". 1:1 ack 1 sack 4001:5001");
    assert_eq!(script.connection.congestion_window(), 2000, "one that arrived and one more");
    assert_eq!(script.sent_data(), [". 1:2001 ack 1 again"]);
    script.after(100).receive(". 1:1 ack 2001 sack 4001:5001");
    assert_eq!(script.sent_data(), [". 2001:4001 ack 1 again"]);
}

#[test]
fn an_ack_that_is_late_by_more_than_two_short_round_trips_is_waited_for() {
    let mut script = Script::listening(plain(), "S 0:1 win 60000 mss 1000 sackok");
    script.sent();
    script.after(1).receive(". 1:1 ack 1 win 60000");
    script.connection.offer(3_000).unwrap();
    assert_eq!(script.sent_data(), ["P. 1:3001 ack 1"]);
    // The receiver's program was not there to read, on a network of 1 ms.
    script.after(9);
    assert_eq!(script.sent_data(), [""; 0]);
    script.receive(". 1:1 ack 3001");
    assert_eq!(script.sent_data(), [""; 0]);
    assert_eq!(script.connection.acknowledged(), 3000);
}

#[test]
fn a_probe_sends_what_is_new_if_there_is_something() {
    let (mut script, _) = sending(plain(), 15_000);
    script.wait();
    assert_eq!(script.sent_data(), [". 10001:11001 ack 1"]);
}

#[test]
fn a_probe_that_repaired_a_loss_reduces_the_window_and_a_needless_one_does_not() {
    for (block, reduced) in [("", true), (" sack 4001:5001", false)] {
        let (mut script, _) = sending(plain(), 5_000);
        script.wait();
        assert_eq!(script.sent_data(), ["P. 4001:5001 ack 1 again"]);
        script.connection.offer(100).unwrap();
        assert_eq!(script.sent_data(), ["P. 5001:5101 ack 1"]);
        let before = script.connection.congestion_window();
        script.after(50).receive(&format!(". 1:1 ack 5101{block}"));
        assert_eq!(script.connection.congestion_window() < before, reduced);
        assert_eq!(script.sent_data(), [""; 0]);
    }
}

#[test]
fn timeouts_double_and_a_retransmission_is_no_sample() {
    let (mut script, _) = sending(plain(), 1_000);
    // A single segment may wait for a delayed ACK: the probe comes in place of the time-out, 100 ms and 4 times 50 ms.
    assert_eq!(script.wait(), 300);
    assert_eq!(script.sent_data(), ["P. 1:1001 ack 1 again"]);
    let mut pauses = Vec::new();
    for _ in 0..5 {
        pauses.push(script.wait());
        assert_eq!(script.sent_data(), ["P. 1:1001 ack 1 again"]);
    }
    assert_eq!(pauses, [300, 600, 1200, 2400, 4800]);
    script.after(100).receive(". 1:1 ack 1001");
    assert_eq!((script.connection.round_trip(), script.connection.congestion_window()), (Some(ms(100)), 2000));
    // Karn: the back-off stays until something that was sent once is acknowledged.
    script.connection.offer(1_000).unwrap();
    script.sent();
    assert_eq!(script.wait(), 400, "the probe: two round trips and a delayed ACK");
    script.after(100).receive(". 1:1 ack 2001");
    script.sent();
}

#[test]
fn a_timestamp_makes_a_retransmission_a_sample() {
    let config = TcpConfig { timestamps: true, ..plain() };
    let mut script = Script::listening(config, "S 0:1 win 60000 mss 1000 ts 50:0");
    script.sent();
    script.after(100).receive(". 1:1 ack 1 ts 51:6000");
    script.connection.offer(900).unwrap();
    script.sent();
    script.wait();
    let again = script.sent_data();
    assert_eq!(again, ["P. 1:901 ack 1 ts 6400:51 again"]);
    script.after(180).receive(". 1:1 ack 901 ts 52:6400");
    assert_eq!(script.connection.round_trip(), Some(ms(110)), "7/8 of 100 and 1/8 of 180");
}

#[test]
fn after_a_timeout_the_window_starts_from_one_segment() {
    let (mut script, _) = sending(TcpConfig { sack: false, ..plain() }, 5_000);
    assert_eq!(script.wait(), 300);
    assert_eq!(script.sent_data(), [". 1:1001 ack 1 again"]);
    script.after(100).receive(". 1:1 ack 1001");
    assert_eq!(script.sent_data(), [". 1001:3001 ack 1 again"]);
    script.after(100).receive(". 1:1 ack 5001");
    assert_eq!((script.sent(), script.connection.acknowledged()), (vec![], 5000));
}

#[test]
fn a_receiver_that_forgets_what_it_reported_gets_it_again() {
    let (mut script, _) = sending(plain(), 5_000);
    script.after(100).receive(". 1:1 ack 1 sack 2001:5001");
    assert_eq!(script.sent_data(), [". 1:2001 ack 1 again"]);
    // All that was missing has arrived, yet what was reported is not acknowledged.
    script.after(100).receive(". 1:1 ack 2001");
    assert_eq!(script.sent(), [""; 0]);
    script.wait();
    assert_eq!(script.sent_data(), [". 2001:3001 ack 1 again"]);
    script.after(100).receive(". 1:1 ack 3001");
    assert_eq!(script.sent_data(), ["P. 3001:5001 ack 1 again"]);
    script.after(100).receive(". 1:1 ack 5001");
    assert_eq!((script.sent(), script.connection.acknowledged()), (vec![], 5000));
}

#[test]
fn a_peer_that_never_answers_is_given_up() {
    let (mut script, _) = sending(plain(), 1_000);
    let begun = script.now;
    while !script.connection.is_closed() {
        script.wait();
        script.sent();
    }
    assert_eq!(script.connection.error(), Some(TcpError::TimedOut));
    let took = (script.now - begun).as_secs();
    assert!((120..=180).contains(&took), "{took} s");
}

#[test]
fn a_smaller_path_is_used_at_once_without_a_reduction() {
    let (mut script, lines) = sending(plain(), 10_000);
    assert_eq!(lines, ["P. 1:10001 ack 1"]);
    assert!(script.connection.is_under_way(Seq(OWN) + 1) && script.connection.is_under_way(Seq(OWN) + 10_000));
    assert!(!script.connection.is_under_way(Seq(OWN)) && !script.connection.is_under_way(Seq(OWN) + 10_001));
    script.connection.set_path_mtu(500, script.now);
    let out = script.connection.poll(script.now).unwrap();
    assert_eq!((out.mss, out.payload.start, out.retransmission), (500, 0, true));
    assert_eq!(script.connection.congestion_window(), 10_000);
    // Larger ones are not believed.
    script.connection.set_path_mtu(9000, script.now);
    script.sent();
    script.after(100).receive(". 1:1 ack 10001");
    script.connection.offer(9000).unwrap();
    assert_eq!(script.connection.poll(script.now).unwrap().mss, 500);
}
