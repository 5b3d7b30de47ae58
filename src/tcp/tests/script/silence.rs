//! Peers that say nothing.

use super::*;

fn keep_alive() -> TcpConfig {
    let keep_alive = KeepAlive { idle: Duration::from_secs(10), interval: Duration::from_secs(2), probes: 3 };
    TcpConfig { keep_alive: Some(keep_alive), idle_timeout: None, ..plain() }
}

#[test]
fn a_silent_peer_is_probed_and_given_up() {
    let mut script = Script::accepted(keep_alive());
    assert_eq!(script.wait(), 10_000);
    assert_eq!(script.sent_data(), [". 0:0 ack 1 again"]);
    for _ in 0..2 {
        assert_eq!(script.wait(), 2_000);
        assert_eq!(script.sent_data(), [". 0:0 ack 1 again"]);
    }
    assert_eq!(script.wait(), 2_000);
    assert_eq!(script.sent_data(), ["R. 1:1 ack 1"]);
    assert_eq!(script.connection.error(), Some(TcpError::Silent));
}

#[test]
fn a_peer_that_answers_probes_lives_on() {
    let mut script = Script::accepted(keep_alive());
    for _ in 0..10 {
        assert_eq!(script.wait(), 10_000);
        assert_eq!(script.sent_data().len(), 1);
        script.receive(". 1:1 ack 1");
    }
    assert_eq!(script.state(), State::Established);
}

#[test]
fn probes_of_the_peer_are_answered() {
    let mut script = Script::accepted(plain());
    script.receive(". 0:0 ack 1");
    assert_eq!(script.sent_data(), [". 1:1 ack 1"]);
    // With a byte of garbage, as old stacks send them.
    script.receive(". 0:1 ack 1");
    assert_eq!(script.sent_data(), [". 1:1 ack 1 sack 0:1"]);
}

#[test]
fn an_idle_connection_ends_and_one_that_moves_does_not() {
    let mut script = Script::accepted(TcpConfig { idle_timeout: Some(Duration::from_secs(30)), ..plain() });
    for at in 0..5 {
        script.after(25_000);
        assert_eq!(script.receive(&format!("P. {}:{} ack 1", 1 + at, 2 + at)), Events::READABLE);
        script.sent();
        assert_eq!(script.wait(), 40);
        script.sent();
    }
    let heard = script.now;
    while !script.connection.is_closed() {
        script.wait();
        script.sent();
    }
    assert_eq!((script.connection.error(), (script.now - heard).as_secs()), (Some(TcpError::Idle), 29));
}

#[test]
fn an_idle_connection_takes_little_memory() {
    let mut script = Script::accepted(plain());
    script.connection.offer(40_000).unwrap();
    script.sent();
    script.receive(". 1:1001 ack 1");
    script.receive(". 2001:3001 ack 1");
    script.receive(". 1001:2001 ack 10001");
    script.sent();
    script.receive(". 3001:3001 ack 30001");
    script.sent();
    script.receive(". 3001:3001 ack 40001");
    let mut some = vec![0; 5000];
    assert_eq!(script.connection.read(&mut some), 3000);
    script.sent();
    assert!(script.connection.memory() < 2048, "{} bytes", script.connection.memory());
}
