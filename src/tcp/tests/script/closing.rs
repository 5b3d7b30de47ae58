//! FINs and resets.

use super::*;

#[test]
fn the_fin_rides_on_the_last_segment_only_if_there_is_one() {
    let mut script = Script::accepted(plain());
    script.connection.offer(700).unwrap();
    script.connection.shutdown();
    assert_eq!(script.sent_data(), ["FP. 1:702 ack 1"]);
    assert_eq!(script.state(), State::FinWait1);

    let mut script = Script::accepted(plain());
    script.connection.offer(1700).unwrap();
    script.connection.shutdown();
    // A NIC that segments would put the FIN on both.
    assert_eq!(script.sent_data(), ["P. 1:1701 ack 1", "FP. 1701:1702 ack 1"]);
}

#[test]
fn this_side_closes_first_and_waits() {
    let mut script = Script::accepted(plain());
    script.connection.shutdown();
    assert_eq!(script.sent_data(), ["FP. 1:2 ack 1"]);
    script.receive(". 1:1 ack 2");
    assert_eq!(script.state(), State::FinWait2);
    assert_eq!(script.receive("P. 1:11 ack 2"), Events::READABLE);
    assert_eq!(script.receive("F. 11:12 ack 2"), Events::FINISHED | Events::CLOSED);
    assert_eq!((script.state(), script.sent_data()), (State::TimeWait, vec![". 2:2 ack 12".to_owned()]));
    // The ACK was lost.
    script.after(1000).receive("F. 11:12 ack 2");
    assert_eq!(script.sent_data().len(), 1);
    assert_eq!(script.wait(), 60_000);
    assert_eq!((script.sent(), script.state(), script.connection.error()), (vec![], State::Closed, None));
}

#[test]
fn the_peer_closes_first() {
    let mut script = Script::accepted(plain());
    assert_eq!(script.receive("FP. 1:102 ack 1"), Events::READABLE | Events::FINISHED);
    assert_eq!((script.state(), script.sent_data()), (State::CloseWait, vec![". 1:1 ack 102".to_owned()]));
    assert!(!script.connection.is_finished());
    assert_eq!(script.connection.read(&mut [0; 200]), 100);
    assert!(script.connection.is_finished());
    script.connection.offer(10).unwrap();
    script.connection.shutdown();
    assert_eq!((script.sent_data(), script.state()), (vec!["FP. 1:12 ack 102".to_owned()], State::LastAck));
    assert_eq!(script.receive(". 102:102 ack 12"), Events::ACKNOWLEDGED | Events::CLOSED);
    assert_eq!((script.state(), script.connection.error(), script.connection.acknowledged()), (State::Closed, None, 10));
}

#[test]
fn both_close_at_once() {
    let mut script = Script::accepted(plain());
    script.connection.shutdown();
    script.sent();
    assert_eq!(script.receive("F. 1:2 ack 1"), Events::FINISHED);
    assert_eq!((script.state(), script.sent_data()), (State::Closing, vec![". 2:2 ack 2".to_owned()]));
    assert_eq!(script.receive(". 2:2 ack 2"), Events::CLOSED);
    assert_eq!(script.state(), State::TimeWait);
}

#[test]
fn a_fin_that_answers_ours_ends_it_at_once() {
    let mut script = Script::accepted(plain());
    script.connection.shutdown();
    script.sent();
    assert_eq!(script.receive("F. 1:2 ack 2"), Events::FINISHED | Events::CLOSED);
    assert_eq!((script.state(), script.sent_data()), (State::TimeWait, vec![". 2:2 ack 2".to_owned()]));
}

#[test]
fn a_lost_fin_is_sent_again() {
    let mut script = Script::accepted(plain());
    script.connection.offer(1000).unwrap();
    script.connection.shutdown();
    assert_eq!(script.sent_data(), ["FP. 1:1002 ack 1"]);
    script.after(100).receive(". 1:1 ack 1001");
    script.wait();
    assert_eq!(script.sent_data(), ["FP. 1001:1002 ack 1 again"]);
    script.receive(". 1:1 ack 1002");
    assert_eq!(script.state(), State::FinWait2);
}

#[test]
fn a_fin_before_its_time_waits() {
    let mut script = Script::accepted(plain());
    assert_eq!(script.receive("FP. 101:202 ack 1"), Events::empty());
    assert_eq!(script.sent_data(), [". 1:1 ack 1 sack 101:201"]);
    assert_eq!(script.receive(". 1:101 ack 1"), Events::READABLE | Events::FINISHED);
    assert_eq!((script.sent_data(), script.state()), (vec![". 1:1 ack 202".to_owned()], State::CloseWait));
}

#[test]
fn nothing_is_offered_after_the_end() {
    let mut script = Script::accepted(plain());
    script.connection.shutdown();
    assert_eq!(script.connection.offer(1), Err(TcpError::NotOpen));
}

#[test]
fn an_abort_resets() {
    let mut script = Script::accepted(plain());
    script.connection.offer(5000).unwrap();
    script.sent();
    script.connection.abort();
    assert_eq!((script.sent_data(), script.connection.error()), (vec!["R. 5001:5001 ack 1".to_owned()], Some(TcpError::Aborted)));
    assert_eq!((script.sent(), script.connection.deadline(), script.connection.is_closed()), (vec![], None, true));
    // Nobody knows of a SYN that was not sent.
    let mut script = Script::connecting(plain());
    script.connection.abort();
    assert_eq!(script.sent(), [""; 0]);
}

#[test]
fn a_new_connection_takes_the_place_of_one_in_time_wait() {
    let mut script = Script::accepted(plain());
    script.connection.shutdown();
    script.sent();
    script.receive("F. 1:2 ack 2");
    let syn = |at: i64| parse(&format!("S {at}:{}", at + 1)).0;
    assert!(script.connection.may_be_replaced_by(&Segment { header: syn(500), payload: &[] }));
    assert!(!script.connection.may_be_replaced_by(&Segment { header: syn(-500), payload: &[] }));
    assert!(!script.connection.may_be_replaced_by(&Segment { header: parse(". 500:500").0, payload: &[] }));
}

#[test]
fn what_was_not_sent_can_be_withdrawn() {
    let mut script = Script::accepted(plain());
    script.connection.offer(20_000).unwrap();
    script.connection.shutdown();
    assert_eq!(script.sent_data(), [". 1:10001 ack 1"]);
    assert_eq!(script.connection.withdraw(), 10_000);
    script.after(100).receive(". 1:1 ack 10001");
    assert_eq!((script.sent(), script.connection.unsent(), script.state()), (vec![], 0, State::Established));
}
