//! A NIC in another process, over vhost-user: a back end that is not ours takes what the command sends.

#[path = "../../drivers/vhost-user/tests/back_end/mod.rs"]
mod back_end;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use back_end::{BackEnd, Frames, VERSION_1};
use hal::{Burst, MacAddress, Offload, Pool, PoolConfig};
use hw_sim::wire;
use hw_sim::wire::check::Protocol;
use pagewire::device::{self, Device, OpenOptions};
use pagewire::file::Source;
use pagewire::net::Interface;
use pagewire::send::{self, Port, PortConfig, Stop, UdpOptions, UdpSend, Wait};
use pagewire_tests::command::{Figures, Run, pagewire, run, send, start};
use pagewire_tests::process::Signal;
use pagewire_tests::{PATIENCE, content, wait_for};

/// A station that is not asked, in a network that does not exist.
const TO: &str = "udp://192.0.2.2:9000";
const OPTIONS: &str = "--ip 192.0.2.1/24 --station 52:54:00:00:00:02";
/// The header in front of a frame (VIRTIO 1.3, 5.1.6).
const HEADER: usize = 12;
/// `VIRTIO_F_RING_PACKED`.
const RING_PACKED: u64 = 1 << 34;
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

/// Who has slept before the back end went is woken by the new one.
#[test]
fn a_back_end_that_was_started_again_interrupts() {
    let directory = content::directory();
    let socket = directory.path().join("socket");
    let pending = BackEnd::listen(&socket, 0);
    let address = format!("vhost-user:{}", socket.display()).parse().unwrap();
    let Device { mut nic, .. } = device::open(&address, OpenOptions::default()).unwrap();
    let mut back_end = pending.connected();
    let mut pool = Pool::new(PoolConfig { buffers: 16, buffer_size: 2048 }).unwrap();
    nic.attach_pool(pool.attach(&nic.space()).unwrap()).unwrap();
    for round in 0..3 {
        let mut burst = Burst::default();
        let mut buffer = pool.take().unwrap();
        buffer.set(&[round; 60]);
        burst.push(buffer, Offload::NONE);
        assert_eq!(nic.tx(0).post(&mut burst).unwrap(), 1);
        // A back end may interrupt for nothing when it gets to know a queue.
        while nic.tx(0).reap().unwrap() == 0 {
            assert!(nic.wait(PATIENCE).unwrap(), "round {round}");
        }
        drop(back_end);
        wait_for("the end to be noticed", || nic.tx(0).check(Duration::ZERO).err());
        let pending = BackEnd::listen(&socket, 0);
        assert_eq!(nic.reset().unwrap(), 0);
        back_end = pending.connected();
    }
}

/// Eight regions, of which rings and buffers take some: a file that is sent takes the place of the one that was last used before all others.
#[test]
fn more_files_than_the_back_end_has_regions_are_all_gathered() {
    let directory = content::directory();
    let socket = directory.path().join("socket");
    let pending = BackEnd::listen(&socket, CSUM);
    let address = format!("vhost-user:{},files=on", socket.display()).parse().unwrap();
    let Device { nic, .. } = device::open(&address, OpenOptions::default()).unwrap();
    let back_end = pending.connected();
    let interface = Interface::new(nic.mac(), "192.0.2.1/24".parse().unwrap(), None, 1500, None).unwrap();
    let mut port = Port::new(nic, interface, PortConfig::default()).unwrap();
    let (mut evicted, mut expected) = (0, Vec::new());
    for (name, turn) in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 9].into_iter().zip(0..) {
        let path = directory.path().join(format!("file-{name}"));
        let sent = content::bytes(100_000, name);
        if turn < 10 {
            std::fs::write(&path, &sent).unwrap();
        }
        let options = UdpOptions {
            station: Some(MacAddress([0x52, 0x54, 0, 0, 0, 2])),
            copy_below: 0,
            ..UdpOptions::to("192.0.2.2:9000".parse().unwrap())
        };
        let mut one = UdpSend::new(&mut port, Source::open(&path).unwrap(), options, Duration::ZERO).unwrap();
        let report = send::run(&mut one, Wait::default(), &AtomicBool::new(false), |_| ());
        assert_eq!((&report.stopped, report.bytes_gathered), (&Stop::Complete, 100_000), "turn {turn}: {report:?}");
        evicted += report.windows.evicted;
        expected.extend(sent);
    }
    assert!(evicted >= 3, "{evicted}");
    content::assert_same(&payload(&back_end.frames, false).0, &expected);
}

#[test]
fn a_back_end_may_connect_to_us() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 50_000);
    let socket = directory.path().join("socket");
    let own = "02:00:00:00:00:77";
    let running = start(send(&path, &format!("vhost-user:{},server=on,tx-ring=64,mac={own}", socket.display()), TO, OPTIONS));
    wait_for("the socket", || socket.exists().then_some(()));
    let back_end = BackEnd::connect(&socket, 0).connected();
    let _ = running.wait().sent();
    content::assert_same(&payload(&back_end.frames, true).0, &sent);
    let frames = back_end.frames.lock().unwrap();
    assert!(frames.iter().all(|frame| wire::check(&frame[HEADER..]).unwrap().source_mac.to_string() == own));
    drop(frames);
    assert!(!socket.exists(), "the socket is taken away");
}

/// A send of a file, and its back end once that has got some of it. With `server`, it is the back end that connects.
fn under_way(directory: &Path, file: &Path, server: bool, options: &str) -> (Run, BackEnd) {
    let socket = directory.join("socket");
    let command = |more: &str| send(file, &format!("vhost-user:{}{more}", socket.display()), TO, &format!("{OPTIONS} {options}"));
    let (running, back_end) = if server {
        let running = start(command(",server=on"));
        wait_for("the socket", || socket.exists().then_some(()));
        (running, BackEnd::connect(&socket, 0).connected())
    } else {
        let pending = BackEnd::listen(&socket, 0);
        (start(command("")), pending.connected())
    };
    wait_for("the first frames", || (back_end.frames.lock().unwrap().len() > 100).then_some(()));
    (running, back_end)
}

#[test]
fn a_back_end_that_goes_away_for_good_ends_the_send_with_a_sentence() {
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), 50_000_000);
    let (running, back_end) = under_way(directory.path(), &path, false, "--rate 20Mbit");
    let frames = Arc::clone(&back_end.frames);
    drop(back_end);
    let ended = running.wait().with_code(1);
    ended.complains_of(&["the back end is gone: it closed the connection; start it again"]);
    let figures = Figures(ended.json());
    assert!(figures.text("stopped").starts_with("failed: ") && figures.number("resets") == 0, "{}", figures.0);
    let arrived = frames.lock().unwrap().len() as u64;
    assert!(figures.number("frames_lost") > 0 && figures.number("frames") <= arrived + figures.number("frames_lost"), "{}", figures.0);
}

#[test]
fn a_back_end_that_was_started_again_gets_the_rest_and_what_was_lost_is_told() {
    for server in [false, true] {
        starts_again(server);
    }
}

#[test]
fn a_back_end_that_offers_less_than_before_is_told_so() {
    let directory = content::directory();
    let socket = directory.path().join("socket");
    let (path, _) = content::file(directory.path(), 50_000_000);
    let pending = BackEnd::listen(&socket, CSUM);
    let running = start(send(&path, &format!("vhost-user:{}", socket.display()), TO, &format!("{OPTIONS} --rate 20Mbit")));
    let back_end = pending.connected();
    wait_for("the first frames", || (back_end.frames.lock().unwrap().len() > 100).then_some(()));
    drop(back_end);
    let again = BackEnd::listen(&socket, 0);
    let ended = running.wait().with_code(1);
    ended.complains_of(&["does not offer all the features any more"]);
    drop(again);
}

#[test]
fn nobody_is_waited_for_any_longer_after_ctrl_c() {
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), 50_000_000);
    // Before there was one, as client and as server; and after it went away.
    for (name, server) in [("none", ""), ("own", ",server=on")] {
        let nic = format!("vhost-user:{}{server}", directory.path().join(name).display());
        let mut running = start(send(&path, &nic, TO, OPTIONS));
        interrupt_waiting(&mut running);
        running.wait().with_code(130).complains_of(&["stopped while waiting"]);
        assert!(!directory.path().join(name).exists());
    }
    let (mut running, back_end) = under_way(directory.path(), &path, false, "--rate 20Mbit");
    drop(back_end);
    interrupt_waiting(&mut running);
    let figures = Figures(running.wait().with_code(130).json());
    assert_eq!(figures.text("stopped"), "interrupted");
}

#[test]
fn a_server_ends_at_ctrl_c_also_while_its_back_end_is_away() {
    let directory = content::directory();
    let socket = directory.path().join("socket");
    let (path, _) = content::file(directory.path(), 1000);
    let pending = BackEnd::listen(&socket, 0);
    let mut command = pagewire(["serve"]);
    command.arg(&path).args(["--nic", &format!("vhost-user:{}", socket.display()), "--ip", "192.0.2.1/24", "--json"]);
    let mut running = start(command);
    let back_end = pending.connected();
    wait_for("the server", || running.complaints().contains("serving").then_some(()));
    drop(back_end);
    interrupt_waiting(&mut running);
    // With its statistics.
    assert!(running.wait().with_code(130).json()["http"].is_object());
}

fn interrupt_waiting(running: &mut Run) {
    wait_for("a word about waiting", || running.complaints().contains("waiting for the back end").then_some(()));
    running.signal(Signal::INT);
}

fn starts_again(server: bool) {
    let directory = content::directory();
    let socket = directory.path().join("socket");
    let (path, sent) = content::file(directory.path(), 3_000_000);
    let (running, back_end) = under_way(directory.path(), &path, server, "--rate 8Mbit --wait irq");
    let before = Arc::clone(&back_end.frames);
    drop(back_end);
    // It may offer more than before, which is left alone.
    let again = if server { BackEnd::connect(&socket, 0) } else { BackEnd::listen(&socket, CSUM) };
    let back_end = again.connected();
    let ended = running.wait();
    ended.complains_of(&["the back end is gone", "it is reset now"]);
    let figures = ended.sent();
    let ((before, first), (after, second)) = (payload(&before, false), payload(&back_end.frames, false));
    assert!(sent.starts_with(&before) && sent.ends_with(&after) && !after.is_empty());
    let arrived = first + second;
    // What the first one had taken, but not given back, counts as lost.
    assert_eq!(figures.number("resets"), 1);
    assert!(arrived <= figures.number("frames") && figures.number("frames") <= arrived + figures.number("frames_lost"), "{}", figures.0);
}

#[test]
fn several_pairs_of_queues_send_and_receive() {
    let directory = content::directory();
    let socket = directory.path().join("socket");
    for what in [&["tx"][..], &["forward", "--inject", "8"]] {
        let pending = BackEnd::listen_with(&socket, VERSION_1, 2);
        let nic = format!("vhost-user:{}", socket.display());
        let mut command = pagewire(["bench"].iter().chain(what));
        command.args(["--nic", &nic, "--queues", "2", "--seconds", "1", "--json"]);
        let running = start(command);
        let back_end = pending.connected();
        let figures = Figures(running.wait().with_code(0).json());
        let counts = back_end.counts.lock().unwrap().clone();
        assert!(counts.iter().all(|count| *count > 8), "{what:?}: {counts:?}");
        assert_eq!(figures.number("queues"), 2);
        assert!(figures.number("frames") <= counts.iter().sum(), "{what:?}: {counts:?}, {}", figures.0);
    }
}

#[test]
fn the_rings_of_all_queues_are_one_region() {
    let directory = content::directory();
    let socket = directory.path().join("socket");
    for packed in ["on", "off"] {
        let pending = BackEnd::listen_with(&socket, VERSION_1 | RING_PACKED, 7);
        let nic = format!("vhost-user:{},packed={packed}", socket.display()).parse().unwrap();
        let Device { nic, .. } = device::open(&nic, OpenOptions { queues: 7, ..OpenOptions::default() }).unwrap();
        let back_end = pending.connected();
        assert_eq!((nic.queues(), nic.space().limits().maps), ((7, 7), 7), "of eight");
        drop(nic);
        drop(back_end);
    }
}

#[test]
fn a_back_end_that_does_not_take_what_is_asked_for_is_told_with_the_remedy() {
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), 1000);
    let socket = directory.path().join("socket");
    for (features, options, says) in [
        (0, "", &["VIRTIO_F_VERSION_1", "the back end has to follow VIRTIO 1.0"][..]),
        (VERSION_1, ",packed=on", &["packed rings are asked for", "packed=auto"]),
        // It takes 1024 descriptors, and has two queues.
        (VERSION_1, ",tx-ring=2048", &["refuses queue 1 of 2048 descriptors", "tx-ring="]),
        (VERSION_1, ",queues=2", &["refuses queue 2 of 256 descriptors", "queues="]),
    ] {
        let pending = BackEnd::listen_with(&socket, features, 1);
        let running = start(send(&path, &format!("vhost-user:{}{options}", socket.display()), TO, OPTIONS));
        let _back_end = pending.connected();
        running.wait().with_code(1).complains_of(says);
    }
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
