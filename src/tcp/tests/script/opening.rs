//! Handshakes.

use super::*;

#[test]
fn an_active_open_offers_everything_and_takes_what_the_peer_has() {
    let config = TcpConfig { window: 1_000_000, ..TcpConfig::default() };
    let mut script = Script::connecting(config);
    assert_eq!(script.sent(), ["S 0:1 win 65535 mss 1460 ws 4 sackok ts 6000:0"]);
    script.connection.offer(5).unwrap();
    script.after(80);
    assert_eq!(script.receive("S. 0:1 ack 1 win 1000 mss 1200 ws 2 sackok ts 77:6000"), Events::ESTABLISHED);
    assert_eq!(script.connection.round_trip(), Some(ms(80)));
    // The ACK rides on the data. Windows are scaled from now on.
    assert_eq!(script.sent(), ["P. 1:6 ack 1 win 62500 ts 6080:77"]);
}

#[test]
fn options_that_the_peer_lacks_are_not_used() {
    let config = TcpConfig { window: 1_000_000, ..TcpConfig::default() };
    let mut script = Script::connecting(config);
    script.sent();
    script.receive("S. 0:1 ack 1 win 1000");
    assert_eq!(script.sent(), [". 1:1 ack 1 win 65535"]);
    // Without an MSS option a segment has 536 bytes (RFC 9293 3.7.1).
    script.connection.offer(1000).unwrap();
    assert_eq!(script.connection.poll(script.now).unwrap().mss, 536);
}

#[test]
fn a_passive_open_answers_with_what_both_have() {
    let mut script = Script::listening(TcpConfig::default(), "S 0:1 win 60000 mss 1460 ws 7 ts 9:0");
    assert_eq!(script.sent(), ["S. 0:1 ack 1 win 65535 mss 1460 ws 0 ts 6000:9"]);
    script.receive(". 1:1 ack 1 win 10 ts 10:6000");
    script.connection.offer(3000).unwrap();
    // 10 << 7, and it is half of the largest window that was seen at least.
    assert_eq!(script.state(), State::Established);
    assert_eq!(script.sent_data(), [] as [&str; 0]);
    script.receive(". 1:1 ack 1 win 1000 ts 10:6000");
    assert_eq!(script.sent_data(), ["P. 1:3001 ack 1 ts 6000:10"]);
}

#[test]
fn data_that_completes_the_handshake_is_taken() {
    let mut script = Script::listening(plain(), "S 0:1 mss 1000 sackok");
    script.sent();
    assert_eq!(script.receive("P. 1:101 ack 1"), Events::ESTABLISHED | Events::READABLE);
    let mut some = [0; 200];
    assert_eq!(script.connection.read(&mut some), 100);
    assert_eq!(some[..100], *content(0, 100));
}

#[test]
fn a_syn_is_sent_again_with_growing_pauses_and_given_up() {
    let mut script = Script::connecting(plain());
    script.sent();
    let mut pauses = Vec::new();
    while !script.connection.is_closed() {
        pauses.push(script.wait());
        let lines = script.sent();
        assert!(lines.is_empty() || lines == ["S 0:1 win 65535 mss 1460 ws 0 sackok again"], "{lines:?}");
    }
    assert_eq!(pauses, [1000, 2000, 4000, 8000, 16000, 32000, 60000]);
    assert_eq!(script.connection.error(), Some(TcpError::NoAnswer));
}

#[test]
fn a_syn_ack_is_sent_again_when_asked_for_and_after_a_time_out() {
    let mut script = Script::listening(plain(), "S 0:1 mss 1000 sackok");
    script.sent();
    script.receive("S 0:1 mss 1000 sackok");
    assert_eq!(script.sent(), ["S. 0:1 ack 1 win 65535 mss 1460 sackok again"]);
    // Not for each of a flood.
    script.receive("S 0:1 mss 1000 sackok");
    assert_eq!(script.sent(), [""; 0]);
    let mut count = 0;
    while !script.connection.is_closed() {
        script.wait();
        count += script.sent().len();
    }
    assert_eq!((count, script.connection.error()), (5, Some(TcpError::NoAnswer)));
}

#[test]
fn after_a_lost_syn_one_segment_goes_out_first_and_the_timeout_is_three_seconds() {
    let mut script = Script::connecting(plain());
    script.sent();
    script.wait();
    script.sent();
    script.after(50);
    script.receive("S. 0:1 ack 1 mss 1000 sackok");
    script.connection.offer(5000).unwrap();
    assert_eq!(script.sent_data(), [". 1:1001 ack 1"]);
    // It cannot be known which SYN was answered.
    assert_eq!(script.connection.round_trip(), None);
    // The tail loss probe comes first, after 1 s without a sample.
    assert_eq!(script.wait(), 1000);
    script.sent();
    assert_eq!(script.wait(), 3000);
}

#[test]
fn a_simultaneous_open_ends_in_one_connection() {
    let mut script = Script::connecting(plain());
    script.sent();
    assert_eq!(script.receive("S 0:1 mss 1000 sackok"), Events::empty());
    assert_eq!((script.state(), script.sent()), (State::SynReceived, vec!["S. 0:1 ack 1 win 65535 mss 1460 sackok again".to_owned()]));
    assert_eq!(script.receive("S. 0:1 ack 1 win 60000 mss 1000 sackok"), Events::ESTABLISHED);
    assert_eq!((script.state(), script.sent_data()), (State::Established, vec![". 1:1 ack 1".to_owned()]));
    script.connection.offer(1).unwrap();
    assert_eq!(script.sent_data(), ["P. 1:2 ack 1"]);
}

#[test]
fn a_refused_connection_says_so_and_a_blind_reset_does_nothing() {
    let mut script = Script::connecting(plain());
    script.sent();
    assert_eq!(script.receive("R. 0:0 ack 7"), Events::empty());
    assert_eq!(script.receive("R 0:0"), Events::empty());
    assert_eq!((script.state(), script.sent()), (State::SynSent, vec![]));
    assert_eq!(script.receive("R. 0:0 ack 1"), Events::CLOSED);
    assert_eq!(script.connection.error(), Some(TcpError::Refused));
}

#[test]
fn an_answer_to_another_syn_is_reset() {
    let mut script = Script::connecting(plain());
    script.sent();
    script.receive("S. 0:1 ack 99 mss 1000");
    assert_eq!((script.sent(), script.state()), (vec!["R 99:99 win 0".to_owned()], State::SynSent));
    let mut script = Script::listening(plain(), "S 0:1 mss 1000");
    script.sent();
    script.receive(". 1:1 ack 99");
    assert_eq!((script.sent(), script.state()), (vec!["R 99:99 win 0".to_owned()], State::SynReceived));
}

#[test]
fn a_handshake_whose_last_ack_is_lost_completes_with_the_data() {
    let mut script = Script::listening(plain(), "S 0:1 mss 1000 sackok");
    script.sent();
    script.connection.offer(10).unwrap();
    assert_eq!(script.sent(), [""; 0]);
    script.receive("P. 1:2 ack 1");
    assert_eq!(script.sent_data(), ["P. 1:11 ack 2"]);
}
