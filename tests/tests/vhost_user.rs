//! A NIC in another process, over vhost-user: a back end that is not ours takes what the command sends.

#[path = "../../drivers/vhost-user/tests/back_end/mod.rs"]
mod back_end;

use std::path::Path;

use back_end::{BackEnd, Frames};
use hw_sim::wire;
use hw_sim::wire::check::Protocol;
use pagewire_tests::command::{Figures, pagewire, run, send, start};
use pagewire_tests::{content, wait_for};

/// A station that is not asked, in a network that does not exist.
const TO: &str = "udp://192.0.2.2:9000";
const OPTIONS: &str = "--ip 192.0.2.1/24 --station 52:54:00:00:00:02";
/// The header in front of a frame (VIRTIO 1.3, 5.1.6).
const HEADER: usize = 12;
/// `VIRTIO_NET_F_CSUM`.
const CSUM: u64 = 1;

/// The payload of the datagrams among what was sent, and how many there were. With `checked` the checksums have to be right.
fn payload(frames: &Frames, checked: bool) -> (Vec<u8>, u64) {
    let frames = frames.lock().unwrap();
    let mut bytes = Vec::new();
    for frame in frames.iter() {
        let frame = &frame[HEADER..];
        if checked {
            let checked = wire::check(frame).expect("a right frame");
            assert_eq!(checked.protocol, Protocol::Udp);
            bytes.extend_from_slice(&frame[checked.payload]);
        } else {
            // Ethernet, IPv4 and UDP, as etherparse finds them; the checksum is left to the device.
            let sliced = etherparse::SlicedPacket::from_ethernet(frame).expect("a frame");
            let Some(etherparse::TransportSlice::Udp(udp)) = sliced.transport else { panic!("no UDP") };
            bytes.extend_from_slice(udp.payload());
        }
    }
    (bytes, frames.len() as u64)
}

fn sends(directory: &Path, features: u64, nic: &str, len: usize) -> (Figures, Vec<u8>, Vec<u8>) {
    let (path, sent) = content::file(directory, len);
    let socket = directory.join("socket");
    let pending = BackEnd::listen(&socket, features);
    let running = start(send(&path, &format!("vhost-user:{}{nic}", socket.display()), TO, OPTIONS));
    let back_end = pending.connected();
    let figures = running.wait().sent();
    let (received, frames) = payload(&back_end.frames, features & CSUM == 0);
    assert_eq!(frames, figures.number("frames"));
    (figures, sent, received)
}

#[test]
fn a_file_arrives_copied_where_the_back_end_may_not_map_it() {
    let directory = content::directory();
    let (figures, sent, received) = sends(directory.path(), 0, "", 400_001);
    content::assert_same(&received, &sent);
    assert_eq!((figures.number("bytes_gathered"), figures.number("bytes_copied")), (0, 400_001));
    // A back end that could have gathered: then the files are the reason.
    let directory = content::directory();
    let (figures, sent, received) = sends(directory.path(), CSUM, "", 400_001);
    content::assert_same(&received, &sent);
    assert_eq!(figures.copied_because(), [("not-mappable".to_owned(), 400_001)]);
}

#[test]
fn a_file_is_gathered_where_the_back_end_maps_it() {
    let directory = content::directory();
    let (figures, sent, received) = sends(directory.path(), CSUM, ",files=on", 400_001);
    content::assert_same(&received, &sent);
    assert_eq!((figures.number("bytes_gathered"), figures.number("bytes_copied")), (400_001, 0));
    assert!(figures.text("stability").starts_with("trust"), "no lease goes with a back end that can write: {}", figures.text("stability"));
}

#[test]
fn a_back_end_may_connect_to_us() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 50_000);
    let socket = directory.path().join("socket");
    let running = start(send(&path, &format!("vhost-user:{},server=on,tx-ring=64", socket.display()), TO, OPTIONS));
    wait_for("the socket", || socket.exists().then_some(()));
    let back_end = BackEnd::connect(&socket, 0).connected();
    let _ = running.wait().sent();
    content::assert_same(&payload(&back_end.frames, true).0, &sent);
    assert!(!socket.exists(), "the socket is taken away");
}

#[test]
fn a_back_end_that_goes_away_ends_the_send_with_a_sentence() {
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), 50_000_000);
    let socket = directory.path().join("socket");
    let pending = BackEnd::listen(&socket, 0);
    let running = start(send(&path, &format!("vhost-user:{}", socket.display()), TO, &format!("{OPTIONS} --rate 20Mbit")));
    let back_end = pending.connected();
    wait_for("the first frames", || (back_end.frames.lock().unwrap().len() > 100).then_some(()));
    drop(back_end);
    let ended = running.wait().with_code(1);
    ended.complains_of(&["back end"]);
}

#[test]
fn nobody_at_the_socket_is_told_with_the_remedy() {
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), 1000);
    let nic = format!("vhost-user:{}", directory.path().join("none").display());
    run(send(&path, &nic, TO, OPTIONS)).with_code(1).complains_of(&["start the back end first", "server=on"]);
}

#[test]
fn what_comes_back_is_received_and_counted() {
    let directory = content::directory();
    let socket = directory.path().join("socket");
    let pending = BackEnd::listen(&socket, 0);
    let words = ["bench", "forward", "--nic", &format!("vhost-user:{}", socket.display()), "--inject", "8", "--seconds", "1", "--json"];
    let running = start(pagewire(words));
    let back_end = pending.connected();
    let figures = running.wait().with_code(0).json();
    let frames = figures["frames"].as_u64().expect("a number");
    assert!(frames > 8, "the eight go round: {figures}");
    assert!(back_end.frames.lock().unwrap().len() as u64 >= frames);
}
