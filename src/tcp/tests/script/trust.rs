//! Segments that are not what they seem (RFC 5961, 7323).

use super::*;

#[test]
fn a_reset_counts_only_with_exactly_the_expected_number() {
    let mut script = Script::accepted(plain());
    // In the window: asked back.
    assert_eq!(script.receive("R 500:500"), Events::empty());
    assert_eq!((script.sent_data(), script.state()), (vec![". 1:1 ack 1".to_owned()], State::Established));
    // Outside, before and behind: nothing.
    script.after(1000);
    script.receive("R -5:-5");
    script.receive("R 70000:70000");
    assert_eq!((script.sent(), script.state()), (vec![], State::Established));
    assert_eq!(script.receive("R 1:1"), Events::CLOSED);
    assert_eq!((script.connection.error(), script.sent()), (Some(TcpError::Reset), vec![]));
}

#[test]
fn a_reset_in_time_wait_does_not_end_it() {
    let mut script = Script::accepted(plain());
    script.connection.shutdown();
    script.sent();
    script.receive("F. 1:2 ack 2");
    script.receive("R 2:2");
    assert_eq!(script.state(), State::TimeWait);
}

#[test]
fn a_syn_in_a_connection_is_asked_back_and_not_too_often() {
    let mut script = Script::accepted(plain());
    script.receive("S 1:2 mss 1000");
    assert_eq!(script.sent_data(), [". 1:1 ack 1"]);
    script.after(100).receive("S 3:4 mss 1000");
    assert_eq!(script.sent(), [""; 0]);
    script.after(500).receive("S 3:4 mss 1000");
    assert_eq!((script.sent_data().len(), script.state()), (1, State::Established));
}

#[test]
fn an_ack_of_what_was_never_sent_is_asked_back_and_its_data_dropped() {
    let mut script = Script::accepted(plain());
    assert_eq!(script.receive("P. 1:11 ack 5000"), Events::empty());
    assert_eq!((script.sent_data(), script.connection.readable()), (vec![". 1:1 ack 1".to_owned()], 0));
    // Too old an ACK, by more than the largest window.
    script.after(1000).receive("P. 1:11 ack -70000");
    assert_eq!((script.sent_data().len(), script.connection.readable()), (1, 0));
    // An old one, but not that old.
    script.connection.offer(100).unwrap();
    script.sent();
    script.receive(". 1:1 ack 101");
    script.receive("P. 1:11 ack 1");
    assert_eq!(script.connection.readable(), 10);
}

#[test]
fn old_duplicates_are_answered_and_reported() {
    let mut script = Script::accepted(plain());
    script.receive("P. 1:101 ack 1");
    script.receive("P. 1:101 ack 1");
    // A duplicate is reported (RFC 2883).
    assert_eq!(script.sent_data(), [". 1:1 ack 101 sack 1:101"]);
    // In part.
    assert_eq!(script.receive("P. 51:151 ack 1"), Events::READABLE);
    assert_eq!(script.sent_data(), [". 1:1 ack 151 sack 51:101"]);
    // Without payload not for each.
    script.receive(". 51:51 ack 1");
    script.receive(". 51:51 ack 1");
    assert_eq!(script.sent_data(), [". 1:1 ack 151"]);
    let mut some = [0; 200];
    assert_eq!(script.connection.read(&mut some), 150);
    assert_eq!(some[..150], *content(0, 150));
}

#[test]
fn a_segment_without_ack_is_dropped() {
    let mut script = Script::accepted(plain());
    assert_eq!((script.receive("P 1:11"), script.sent()), (Events::empty(), vec![]));
}

#[test]
fn timestamps_tell_old_segments() {
    let config = TcpConfig { timestamps: true, ..plain() };
    let mut script = Script::listening(config, "S 0:1 mss 1000 ts 5000:0");
    script.sent();
    script.receive(". 1:1 ack 1 ts 5001:6000");
    script.receive("P. 1:11 ack 1 ts 6000:6000");
    assert_eq!(script.connection.readable(), 10);
    // 2^31 ticks behind: from before the numbers wrapped.
    assert_eq!(script.receive("P. 11:21 ack 1 ts 5999:6000"), Events::empty());
    assert_eq!((script.sent_data(), script.connection.readable()), (vec![". 1:1 ack 11 ts 6000:6000".to_owned()], 10));
    // One without a timestamp is not of this connection.
    assert_eq!((script.receive("P. 11:21 ack 1"), script.sent()), (Events::empty(), vec![]));
    // But a RST needs none.
    assert_eq!(script.receive("R 11:11"), Events::CLOSED);
}

#[test]
fn the_clock_of_a_connection_that_was_idle_for_long_says_nothing() {
    let config = TcpConfig { timestamps: true, idle_timeout: None, ..plain() };
    let mut script = Script::listening(config, "S 0:1 mss 1000 ts 5000:0");
    script.sent();
    script.receive(". 1:1 ack 1 ts 5000:6000");
    script.after(25 * 24 * 3600 * 1000);
    script.receive("P. 1:11 ack 1 ts 4000:6000");
    assert_eq!(script.connection.readable(), 10);
}

#[test]
fn the_clock_that_is_echoed_is_that_of_the_first_segment_an_ack_is_for() {
    let config = TcpConfig { timestamps: true, ..plain() };
    let mut script = Script::listening(config, "S 0:1 mss 1000 ts 5000:0");
    script.sent();
    script.receive(". 1:1 ack 1 ts 5000:6000");
    // In order, delayed: the first of the two. Then out of order: the last in order (RFC 7323 4.3).
    script.receive(". 1:1001 ack 1 ts 5100:6000");
    script.receive(". 1001:2921 ack 1 ts 5200:6000");
    assert_eq!(script.sent_data(), [". 1:1 ack 2921 ts 6000:5100"]);
    script.receive(". 3921:4921 ack 1 ts 5300:6000");
    assert_eq!(script.sent_data(), [". 1:1 ack 2921 ts 6000:5100"]);
}

#[test]
fn a_peer_that_asks_for_tiny_segments_does_not_get_them() {
    let mut script = Script::listening(plain(), "S 0:1 mss 1");
    script.sent();
    script.receive(". 1:1 ack 1");
    script.connection.offer(1000).unwrap();
    assert_eq!(script.connection.poll(script.now).unwrap().mss, 88);
}

#[test]
fn blocks_outside_of_what_was_sent_say_nothing() {
    let mut script = Script::accepted(plain());
    script.connection.offer(5000).unwrap();
    script.sent();
    script.after(100);
    script.receive(". 1:1 ack 1 sack 3001:90001,4001:3001,-5000:-4000");
    assert_eq!(script.sent_data(), [""; 0]);
    script.receive(". 1:1 ack 5001");
    assert_eq!(script.connection.acknowledged(), 5000);
}
