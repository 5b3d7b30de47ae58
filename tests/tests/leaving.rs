//! Sends that end before their time: by a signal, by the death of QEMU, by a peer that stops reading. Nothing is left behind, and the report says
//! how far it came.

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use hw_sim::wire::check::Protocol;
use pagewire_tests::command::{Run, SLIRP, send, start};
use pagewire_tests::peer::Peer;
use pagewire_tests::process::{Signal, is_gone, signal};
use pagewire_tests::receiver::{socket, take, take_rest};
use pagewire_tests::{PATIENCE, content, wait_for, wait_within};

const SIZE: usize = 20_000_000;

/// A send that takes eight seconds, of which the first datagrams have come; and its QEMU.
fn under_way(directory: &std::path::Path) -> (Run, u32, std::net::UdpSocket) {
    let (path, _) = content::file(directory, SIZE);
    let (socket, target) = socket();
    let mut running = start(send(&path, "sim:e1000", &target, &format!("{SLIRP} --rate 20Mbit")));
    take(&socket, 5);
    let qemu = running.qemu();
    (running, qemu, socket)
}

fn wait_gone(pid: u32) {
    wait_for("QEMU to be gone", || is_gone(pid).then_some(()));
}

fn interrupted_by(by: Signal) {
    let directory = content::directory();
    let (mut running, qemu, socket) = under_way(directory.path());
    running.signal(by);
    let ended = running.wait();
    let figures = ended.stopped(130);
    assert_eq!(figures.text("stopped"), "interrupted");
    figures.add_up();
    let bytes = figures.number("bytes");
    assert!(bytes >= 5 * 1472 && bytes < SIZE as u64, "{bytes}");
    wait_gone(qemu);
    // QEMU may have been ended before its last frames were through; more than was reported never comes.
    assert!(5 * 1472 + take_rest(&socket) <= bytes);
}

#[test]
fn ctrl_c_ends_a_send_with_its_report_and_its_qemu() {
    interrupted_by(Signal::INT);
}

#[test]
fn sigterm_ends_it_as_ctrl_c_does() {
    interrupted_by(Signal::TERM);
}

#[test]
fn people_get_the_table_of_an_interrupted_send_too() {
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), SIZE);
    let (socket, target) = socket();
    let mut command = pagewire_tests::command::pagewire(["send".as_ref(), path.as_os_str()]);
    command.args(["--nic", "sim:e1000", "--to", &target, "--rate", "20Mbit"]).args(SLIRP.split(' '));
    let mut running = start(command);
    take(&socket, 5);
    running.signal(Signal::INT);
    let ended = running.wait().with_code(130);
    assert!(ended.stdout.lines().any(|line| line.starts_with("stopped") && line.ends_with("interrupted")), "{}", ended.all());
}

#[test]
fn ctrl_c_also_ends_a_send_that_still_looks_for_its_target() {
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), 10);
    let peer = Peer::start(directory.path(), &[]);
    let mut running = start(send(&path, &peer.nic("e1000"), "udp://192.0.2.2:9000", "--ip 192.0.2.15/24"));
    peer.wait("an ARP request", |heard| (!heard.is_empty()).then_some(()));
    let qemu = running.qemu();
    running.signal(Signal::INT);
    // Sooner than the target's time to answer is over.
    let figures = running.wait_at_most(Duration::from_secs(4)).stopped(130);
    assert_eq!((figures.text("stopped"), figures.number("frames")), ("interrupted", 0));
    wait_gone(qemu);
}

#[test]
fn ctrl_c_ends_a_send_from_a_pipe_that_says_nothing_more() {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let (socket, target) = socket();
    let mut command = send("-", "sim:e1000", &target, SLIRP);
    command.stdin(reader);
    let mut running = start(command);
    writer.write_all(&[7; 2 * 1472 + 100]).expect("room in the pipe");
    take(&socket, 2);
    let qemu = running.qemu();
    running.signal(Signal::INT);
    let figures = running.wait_at_most(Duration::from_secs(20)).stopped(130);
    assert_eq!((figures.text("stopped"), figures.number("bytes")), ("interrupted", 2 * 1472));
    wait_gone(qemu);
    drop(writer);
}

#[test]
fn sigkill_leaves_no_qemu_behind() {
    let directory = content::directory();
    let (mut running, qemu, _socket) = under_way(directory.path());
    running.signal(Signal::KILL);
    let ended = running.wait();
    assert_eq!(ended.status.code(), None, "{}", ended.all());
    wait_gone(qemu);
}

#[test]
fn a_qemu_that_is_killed_is_a_clear_error_and_the_report_says_how_far_it_came() {
    let directory = content::directory();
    let (running, qemu, socket) = under_way(directory.path());
    signal(qemu, Signal::KILL);
    let ended = running.wait_at_most(Duration::from_secs(20));
    let figures = ended.stopped(1);
    assert!(figures.text("stopped").starts_with("failed: "), "{}", ended.all());
    assert!(figures.text("stopped").contains("QEMU") && figures.text("stopped").contains("signal: 9"), "{}", ended.all());
    ended.complains_of(&["QEMU", "bytes were handed to the NIC"]);
    let bytes = figures.number("bytes");
    assert!(bytes >= 5 * 1472 && bytes < SIZE as u64, "{bytes}");
    assert!(5 * 1472 + take_rest(&socket) <= bytes);
    wait_gone(qemu);
}

#[test]
fn a_peer_that_stops_reading_is_named_and_what_it_got_is_a_beginning_without_a_gap() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), SIZE);
    let (nic, here) = (directory.path().join("nic"), directory.path().join("peer"));
    let peer = UnixDatagram::bind(&here).expect("a socket");
    let device = format!("sim:e1000,wire=dgram:{}:{}", nic.display(), here.display());
    let options = "--ip 192.0.2.15/24 --station 52:54:00:00:00:02 --framing offset";
    let running = start(send(&path, &device, "udp://192.0.2.2:9000", options));
    peer.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let mut frame = [0; 2048];
    let mut received = 0;
    let mut take = |frame: &[u8]| {
        let checked = hw_sim::wire::check(frame).expect("a frame that is right");
        if checked.protocol == Protocol::Udp {
            let (offset, data) = frame[checked.payload].split_first_chunk().expect("an offset");
            assert_eq!(u64::from_be_bytes(*offset), received, "no frame is missing in between");
            assert_eq!(data, &sent[received as usize..received as usize + data.len()]);
            received += data.len() as u64;
        }
    };
    for _ in 0..1000 {
        let len = peer.recv(&mut frame).expect("frames come");
        take(&frame[..len]);
    }
    // From here on it reads nothing. The wire's patience is 10 s.
    let ended = running.wait_at_most(Duration::from_secs(40));
    let figures = ended.stopped(1);
    assert!(figures.text("stopped").contains(&here.display().to_string()), "it names the wire's other end: {}", ended.all());
    ended.complains_of(&["has not read for 10 s", "bytes were handed to the NIC"]);
    peer.set_nonblocking(true).expect("a mode");
    while let Ok(len) = peer.recv(&mut frame) {
        take(&frame[..len]);
    }
    assert!(received <= figures.number("bytes") && figures.number("bytes") < SIZE as u64, "{received} bytes came: {}", ended.all());
    assert!(!nic.exists(), "the wire's own socket is removed");
}

#[test]
fn a_peer_that_is_slow_gets_everything() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 3_000_000);
    let (nic, here) = (directory.path().join("nic"), directory.path().join("peer"));
    let peer = UnixDatagram::bind(&here).expect("a socket");
    peer.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let device = format!("sim:e1000,wire=dgram:{}:{}", nic.display(), here.display());
    let mut running = start(send(&path, &device, "udp://192.0.2.2:9000", "--ip 192.0.2.15/24 --station 52:54:00:00:00:02 --burst 256"));
    let (mut frame, mut received) = ([0; 2048], Vec::new());
    for number in 0_u64.. {
        if received.len() == sent.len() {
            break;
        }
        let len = peer.recv(&mut frame).unwrap_or_else(|error| panic!("{error} after {} bytes", received.len()));
        let checked = hw_sim::wire::check(&frame[..len]).expect("a frame that is right");
        received.extend_from_slice(&frame[checked.payload]);
        if number.is_multiple_of(500) {
            // Long against what the wire can hold, short against its patience.
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    content::assert_same(&received, &sent);
    assert!(wait_within(PATIENCE, || running.has_ended().then_some(())).is_some());
    assert_eq!(running.wait().sent().number("bytes"), sent.len() as u64);
}
