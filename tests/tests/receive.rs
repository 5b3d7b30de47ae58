//! `pagewire receive`, with datagrams of the test's own.

use std::net::{Ipv4Addr, UdpSocket};

use pagewire_tests::command::{pagewire, run};
use pagewire_tests::content;
use pagewire_tests::process::Signal;
use pagewire_tests::receiver::Receiver;
use serde_json::json;

fn sender(receiver: &Receiver) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.connect((Ipv4Addr::LOCALHOST, receiver.port)).expect("an address");
    socket
}

/// A datagram with its offset in front.
fn placed(offset: u64, data: &[u8]) -> Vec<u8> {
    [&offset.to_be_bytes(), data].concat()
}

#[test]
fn gaps_are_reported_and_the_exit_status_is_1() {
    let directory = content::directory();
    let receiver = Receiver::start(directory.path(), "--framing offset --size 5000 --idle 0.5");
    let (socket, sent) = (sender(&receiver), content::bytes(5000, 1));
    // 1000..2000 and 3500..5000 are missing; what comes comes in any order, and some of it twice.
    for range in [2000..3000, 0..1000, 2500..3500] {
        socket.send(&placed(range.start as u64, &sent[range])).expect("sent");
    }
    let (ended, content) = receiver.end();
    let figures = ended.stopped(1);
    assert_eq!(figures.0["gaps"], json!([{"offset": 1000, "length": 1000}, {"offset": 3500, "length": 1500}]));
    assert_eq!((figures.number("bytes"), figures.number("bytes_repeated"), figures.number("datagrams")), (2500, 500, 3));
    assert_eq!(figures.text("stopped"), "idle");
    assert_eq!((&content[..1000], &content[2000..]), (&sent[..1000], &sent[2000..3500]));
}

#[test]
fn datagrams_in_any_order_make_the_whole_file() {
    let directory = content::directory();
    let receiver = Receiver::start(directory.path(), "--framing offset --size 10000 --idle 10");
    let (socket, sent) = (sender(&receiver), content::bytes(10_000, 2));
    for start in (0..10_000).step_by(1000).rev() {
        socket.send(&placed(start as u64, &sent[start..start + 1000])).expect("sent");
    }
    let (figures, received) = receiver.whole();
    content::assert_same(&received, &sent);
    assert_eq!(figures.text("sha256"), content::sha256(&sent));
}

#[test]
fn a_file_that_was_there_before_leaves_nothing_of_itself() {
    let directory = content::directory();
    let output = directory.path().join("copy");
    std::fs::write(&output, [9; 10_000]).expect("an older file");
    let port = pagewire_tests::receiver::free_port(Ipv4Addr::LOCALHOST.into());
    let mut command = pagewire(["receive", &format!("udp://127.0.0.1:{port}"), "--size", "0", "--json", "-o"]);
    command.arg(&output);
    assert_eq!(run(command).with_code(0).json()["stopped"], "complete");
    assert_eq!(std::fs::metadata(&output).expect("the file").len(), 0);
}

#[test]
fn only_the_first_senders_datagrams_count() {
    let directory = content::directory();
    let receiver = Receiver::start(directory.path(), "--size 6 --idle 10");
    let (first, second) = (sender(&receiver), sender(&receiver));
    first.send(b"abc").expect("sent");
    second.send(b"xyz").expect("sent");
    first.send(b"def").expect("sent");
    let (ended, content) = receiver.end();
    let figures = ended.stopped(0);
    assert_eq!((content.as_slice(), figures.number("ignored")), (&b"abcdef"[..], 1));
    assert_eq!(figures.text("sender"), first.local_addr().expect("an address").to_string());
}

#[test]
fn a_datagram_too_short_for_an_offset_is_ignored_and_counted() {
    let directory = content::directory();
    let receiver = Receiver::start(directory.path(), "--framing offset --size 3 --idle 10");
    let socket = sender(&receiver);
    socket.send(b"short").expect("sent");
    socket.send(&placed(0, b"abc")).expect("sent");
    let (ended, content) = receiver.end();
    assert_eq!((content.as_slice(), ended.stopped(0).number("ignored")), (&b"abc"[..], 1));
}

#[test]
fn an_offset_far_beyond_any_file_is_no_reason_to_panic() {
    let directory = content::directory();
    let receiver = Receiver::start(directory.path(), "--framing offset --size 1000 --idle 0.5");
    let socket = sender(&receiver);
    socket.send(&placed(0, b"abc")).expect("sent");
    socket.send(&placed(u64::MAX - 1, b"abc")).expect("sent");
    socket.send(&placed(i64::MAX as u64, b"abc")).expect("sent");
    let (ended, _) = receiver.end();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.all());
    assert!(!ended.stderr.contains("panicked"), "{}", ended.all());
}

#[test]
fn a_pause_ends_a_receiver_that_does_not_know_the_size() {
    let directory = content::directory();
    let receiver = Receiver::start(directory.path(), "--idle 0.3");
    sender(&receiver).send(b"abc").expect("sent");
    let (figures, content) = receiver.whole();
    assert_eq!((content.as_slice(), figures.text("stopped")), (&b"abc"[..], "idle"));
}

#[test]
fn an_address_in_use_is_named_with_the_remedy() {
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let address = format!("udp://{}", taken.local_addr().expect("an address"));
    let ended = run(pagewire(["receive", &address, "--json"])).with_code(1);
    ended.complains_of(&[&address, "another program listens there"]);
    assert_eq!(ended.stdout, "");
}

#[test]
fn an_address_of_another_host_is_named_with_the_remedy() {
    run(pagewire(["receive", "udp://192.0.2.1:9000"])).with_code(1).complains_of(&["192.0.2.1:9000", "does not have that address"]);
}

fn full_disk(options: &[&str]) {
    let port = pagewire_tests::receiver::free_port(Ipv4Addr::LOCALHOST.into());
    let mut command = pagewire(["receive", &format!("udp://127.0.0.1:{port}"), "--json", "-o", "/dev/full", "--idle", "0.5"]);
    command.args(options);
    let receiver = pagewire_tests::command::start(command);
    pagewire_tests::wait_for("the receiver to listen", || receiver.complaints().contains("listening at").then_some(()));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.send_to(&placed(0, &[7; 1000]), (Ipv4Addr::LOCALHOST, port)).expect("sent");
    let ended = receiver.wait().with_code(1);
    ended.complains_of(&["writing /dev/full: No space left on device"]);
    assert_eq!(ended.stdout, "", "no report of a file that is not there");
}

#[test]
fn a_full_disk_is_an_error_with_raw_framing() {
    full_disk(&[]);
}

#[test]
fn a_full_disk_is_an_error_with_offsets() {
    full_disk(&["--framing", "offset"]);
}

#[test]
fn a_file_that_cannot_be_made_is_named() {
    let port = pagewire_tests::receiver::free_port(Ipv4Addr::LOCALHOST.into());
    let ended = run(pagewire(["receive", &format!("udp://127.0.0.1:{port}"), "-o", "/nowhere/copy"])).with_code(1);
    ended.complains_of(&["writing /nowhere/copy: No such file"]);
}

#[test]
fn standard_output_has_the_file_alone() {
    let port = pagewire_tests::receiver::free_port(Ipv4Addr::LOCALHOST.into());
    let command = pagewire(["receive", &format!("udp://127.0.0.1:{port}"), "-o", "-", "--size", "3", "--json"]);
    let receiver = pagewire_tests::command::start(command);
    pagewire_tests::wait_for("the receiver to listen", || receiver.complaints().contains("listening at").then_some(()));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.send_to(b"abc", (Ipv4Addr::LOCALHOST, port)).expect("sent");
    let ended = receiver.wait().with_code(0);
    assert_eq!(ended.stdout, "abc");
    ended.complains_of(&[&content::sha256(b"abc")]);
}

#[test]
fn ctrl_c_ends_a_receiver_with_its_report() {
    let port = pagewire_tests::receiver::free_port(Ipv4Addr::LOCALHOST.into());
    let mut receiver = pagewire_tests::command::start(pagewire(["receive", &format!("udp://127.0.0.1:{port}"), "--json"]));
    pagewire_tests::wait_for("the receiver to listen", || receiver.complaints().contains("listening at").then_some(()));
    receiver.signal(Signal::INT);
    assert_eq!(receiver.wait().stopped(130).text("stopped"), "interrupted");
}
