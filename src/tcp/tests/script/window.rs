//! Windows, ours and the peer's.

use super::*;

#[test]
fn a_closed_window_is_probed_with_growing_pauses() {
    let mut script = Script::accepted(plain());
    script.connection.offer(5_000).unwrap();
    assert_eq!(script.sent_data().len(), 1);
    script.after(100).receive(". 1:1 ack 5001 win 0");
    script.connection.offer(5_000).unwrap();
    assert_eq!(script.sent(), [""; 0]);
    let mut pauses = Vec::new();
    for _ in 0..4 {
        pauses.push(script.wait());
        // A number that was acknowledged, so that the peer says what it expects.
        assert_eq!(script.sent_data(), [". 5000:5000 ack 1 again"]);
        script.receive(". 1:1 ack 5001 win 0");
        assert_eq!(script.sent(), [""; 0]);
    }
    assert_eq!(pauses, [300, 600, 1200, 2400]);
    script.after(100).receive(". 1:1 ack 5001 win 60000");
    assert_eq!(script.sent_data(), ["P. 5001:10001 ack 1"]);
    assert_eq!(script.connection.error(), None);
}

#[test]
fn a_peer_that_keeps_its_window_closed_ends_with_the_idle_timeout() {
    let mut script = Script::accepted(plain());
    script.receive(". 1:1 ack 1 win 0");
    script.connection.offer(5_000).unwrap();
    script.sent();
    let begun = script.now;
    while !script.connection.is_closed() {
        script.wait();
        let lines = script.sent();
        if !script.connection.is_closed() {
            assert_eq!(lines.len(), 1);
            script.receive(". 1:1 ack 1 win 0");
        } else {
            assert!(lines[0].starts_with("R."), "{lines:?}");
        }
    }
    assert_eq!((script.connection.error(), (script.now - begun).as_secs()), (Some(TcpError::Idle), 300));
}

#[test]
fn no_silly_small_segments_are_sent_into_a_small_window() {
    let mut script = Script::accepted(plain());
    script.receive(". 1:1 ack 1 win 300");
    script.connection.offer(5_000).unwrap();
    assert_eq!(script.sent(), [""; 0]);
    // Unless nothing else happens.
    script.wait();
    assert_eq!(script.sent_data(), [". 1:301 ack 1"]);
    script.after(100).receive(". 1:1 ack 301 win 2500");
    assert_eq!(script.sent_data(), [". 301:2301 ack 1"]);
}

#[test]
fn the_end_of_the_stream_goes_out_whatever_its_size() {
    let mut script = Script::accepted(plain());
    script.receive(". 1:1 ack 1 win 300");
    script.connection.offer(200).unwrap();
    assert_eq!(script.sent_data(), ["P. 1:201 ack 1"]);
    // And a segment while another is under way (no Nagle: what is offered is complete).
    script.connection.offer(50).unwrap();
    assert_eq!(script.sent_data(), ["P. 201:251 ack 1"]);
}

#[test]
fn a_window_that_shrinks_holds_back_what_was_sent_into_it() {
    let mut script = Script::accepted(plain());
    script.connection.offer(5_000).unwrap();
    script.sent();
    script.after(100).receive(". 1:1 ack 1001 win 0");
    // Retransmissions ask, of the first segment only.
    for _ in 0..3 {
        script.wait();
        let lines = script.sent_data();
        assert!(lines == [". 1001:2001 ack 1 again"] || lines == ["P. 4001:5001 ack 1 again"], "{lines:?}");
    }
    script.receive(". 1:1 ack 1001 win 60000");
    script.wait();
    script.sent();
    script.receive(". 1:1 ack 5001 win 60000");
    assert_eq!(script.connection.acknowledged(), 5000);
}

#[test]
fn an_old_segment_does_not_change_the_window() {
    let mut script = Script::accepted(plain());
    script.receive("P. 1:11 ack 1 win 2000");
    script.receive("P. 11:21 ack 1 win 0");
    script.receive("P. 1:11 ack 1 win 60000");
    script.connection.offer(100).unwrap();
    assert!(script.sent_data().iter().all(|line| line.starts_with(". 1:1 ")));
}

#[test]
fn our_window_closes_as_data_waits_and_opens_in_steps() {
    let mut script = Script::accepted(TcpConfig { window: 4000, ..plain() });
    script.receive(". 1:1001 ack 1");
    script.receive(". 1001:2001 ack 1");
    script.receive(". 2001:3001 ack 1");
    assert_eq!(script.sent(), [". 1:1 ack 3001 win 1000"]);
    script.receive(". 3001:4001 ack 1");
    script.after(40);
    assert_eq!(script.sent(), [". 1:1 ack 4001 win 0"]);
    // What comes nevertheless is not taken, and answered.
    assert_eq!(script.receive(". 4001:4002 ack 1"), Events::empty());
    assert_eq!(script.sent(), [". 1:1 ack 4001 win 0"]);
    assert_eq!(script.receive(". 4000:4000 ack 1"), Events::empty());
    assert_eq!(script.sent(), [". 1:1 ack 4001 win 0"]);
    // A few bytes are not worth a word (RFC 9293 3.8.6.2.2); a segment is.
    script.connection.read(&mut [0; 500]);
    assert_eq!(script.sent(), [""; 0]);
    script.connection.read(&mut [0; 1500]);
    assert_eq!(script.sent(), [". 1:1 ack 4001 win 2000"]);
}

#[test]
fn acks_are_for_every_second_segment_or_delayed() {
    let mut script = Script::accepted(plain());
    script.receive(". 1:1461 ack 1");
    assert_eq!(script.sent(), [""; 0]);
    script.receive(". 1461:2921 ack 1");
    assert_eq!(script.sent_data(), [". 1:1 ack 2921"]);
    script.receive("P. 2921:3000 ack 1");
    assert_eq!((script.sent(), script.wait()), (vec![], 40));
    assert_eq!(script.sent_data(), [". 1:1 ack 3000"]);
    // An answer takes the ACK along.
    script.receive("P. 3000:3100 ack 1");
    script.connection.offer(10).unwrap();
    assert_eq!(script.sent_data(), ["P. 1:11 ack 3100"]);
    assert_eq!(script.sent(), [""; 0]);
}

#[test]
fn what_is_out_of_order_is_reported_the_latest_first() {
    let mut script = Script::accepted(plain());
    for start in [1001, 3001, 5001, 7001, 9001] {
        script.receive(&format!(". {start}:{} ack 1", start + 1000));
    }
    assert_eq!(script.sent_data(), [". 1:1 ack 1 sack 9001:10001,7001:8001,5001:6001,3001:4001"]);
    script.receive(". 2001:3001 ack 1");
    assert_eq!(script.sent_data(), [". 1:1 ack 1 sack 1001:4001,9001:10001,7001:8001,5001:6001"]);
    assert_eq!(script.receive(". 1:1001 ack 1"), Events::READABLE);
    assert_eq!(script.sent_data(), [". 1:1 ack 4001 sack 9001:10001,7001:8001,5001:6001"]);
    let mut some = vec![0; 5000];
    assert_eq!(script.connection.read(&mut some), 4000);
    assert_eq!(some[..4000], *content(0, 4000));
}
