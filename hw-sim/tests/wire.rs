//! Frames out of the device and into it, on every kind of wire.

mod raw_e1000;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hal::{Access, RegisterError, SharedMemory};
use pagewire_hw_sim::rig::{Model, Rig, RigConfig, RigError};
use pagewire_hw_sim::wire::check::{Protocol, check};
use pagewire_hw_sim::wire::{self, HostWire, WireConfig, WireError};
use raw_e1000::{RX_DESCRIPTORS, RawE1000, eventually, local_rig, udp_frame};

const LONG: Duration = Duration::from_secs(10);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

fn start(wire: impl Into<WireConfig>) -> Result<Rig, RigError> {
    Rig::start(RigConfig { wire: wire.into(), ..RigConfig::new(Model::E1000) })
}

/// A frame that carries its number.
fn numbered(number: u32, len: usize) -> Vec<u8> {
    let mut frame = udp_frame(HOST, 9, &vec![0; len - 42]);
    frame[0..4].copy_from_slice(&number.to_be_bytes());
    frame
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[..4].try_into().unwrap())
}

/// Posts and sends the frames `numbers`, with one doorbell.
fn send(card: &mut RawE1000, numbers: std::ops::Range<u32>) -> Result<(), RegisterError> {
    for number in numbers {
        card.post_bytes(&numbered(number, 60));
    }
    card.ring()
}

#[test]
fn a_slow_reader_loses_nothing_in_twenty_thousand_frames() {
    const FRAMES: u32 = 20_000;
    let (rig, wire) = local_rig();
    let mut card = RawE1000::open(&rig);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut sent, mut burst) = (0, 1);
            while sent < FRAMES {
                let end = FRAMES.min(sent + burst);
                send(&mut card, sent..end).unwrap();
                (sent, burst) = (end, (burst * 7 + 3) % 4000 + 1);
            }
        });
        for expected in 0..FRAMES {
            // As slow as a reader that is scheduled away now and then.
            if expected % 1000 == 0 {
                std::thread::sleep(Duration::from_millis(50));
            }
            assert_eq!(number(&wire.receive(LONG).expect("a frame")), expected);
        }
    });
    drop(rig);
    assert_eq!(wire.receive(Duration::ZERO), None);
}

#[test]
fn what_was_sent_before_the_rig_ended_arrives() {
    let (rig, wire) = local_rig();
    let mut card = RawE1000::open(&rig);
    send(&mut card, 0..4000).unwrap();
    send(&mut card, 4000..8000).unwrap();
    // More than the wire and the socket hold: the rest is in QEMU, and the end of the rig waits for it.
    let ending = std::thread::spawn(move || drop((card, rig)));
    let received: Vec<u32> = std::iter::from_fn(|| wire.receive(LONG)).map(|frame| number(&frame)).collect();
    ending.join().unwrap();
    assert_eq!(received, (0..8000).collect::<Vec<u32>>());
}

#[test]
fn a_wire_that_nobody_reads_withholds_the_doorbell_and_loses_nothing() {
    let (end, wire) = wire::local();
    let wire_timeout = Duration::from_millis(300);
    let rig = Rig::start(RigConfig { wire: WireConfig::Local(end), wire_timeout, ..RigConfig::new(Model::E1000) }).unwrap();
    let mut card = RawE1000::open(&rig);
    let mut sent = 0;
    let error = loop {
        assert!(sent < 20_000, "the doorbell is never withheld");
        match send(&mut card, sent..sent + 1000) {
            Ok(()) => sent += 1000,
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("the wire is full: nobody has called Wire::receive for 0.3 s"), "{error}");
    for expected in 0..sent {
        assert_eq!(number(&wire.receive(LONG).expect("a frame")), expected);
    }
    // The doorbell that was withheld is rung again.
    card.ring().unwrap();
    for expected in sent..sent + 1000 {
        assert_eq!(number(&wire.receive(LONG).expect("a frame")), expected);
    }
}

#[test]
fn frames_of_all_lengths_go_in_and_out() {
    let (rig, wire) = local_rig();
    let mut card = RawE1000::open(&rig);
    let memory = SharedMemory::new("buffers", 2048 * RX_DESCRIPTORS as usize).unwrap();
    let buffers = card.space.map_memory(&memory, Access::ReadWrite).unwrap();
    card.receive_into(&std::array::from_fn(|number| buffers.iova() + 2048 * number as u64));
    for len in [60, 61, 1514, 1518] {
        card.post_bytes(&numbered(7, len));
        card.ring().unwrap();
        assert_eq!(wire.receive(LONG).unwrap(), numbered(7, len));
    }
    for (number, len) in [60, 777, 1514].into_iter().enumerate() {
        let frame = numbered(number as u32, len);
        wire.send(&frame).unwrap();
        eventually("the frame", || card.received(number));
        let mut got = vec![0; len];
        memory.read_bytes(2048 * number, &mut got);
        assert_eq!(got, frame);
    }
}

#[test]
fn an_unplugged_wire_takes_frames_and_the_device_lives_on() {
    let (rig, wire) = local_rig();
    let mut card = RawE1000::open(&rig);
    drop(wire);
    for burst in 0..4 {
        send(&mut card, 3000 * burst..3000 * (burst + 1)).unwrap();
    }
    assert!(card.done());
}

/// A directory with the paths of a wire's two sockets.
fn sockets() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let (local, remote) = (directory.path().join("local, with a comma"), directory.path().join("remote"));
    (directory, local, remote)
}

fn bound(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket
}

fn receive(socket: &UnixDatagram) -> u32 {
    let mut frame = [0; 2048];
    let len = socket.recv(&mut frame).unwrap();
    number(&frame[..len])
}

fn dgram_rig(local: &Path, remote: &Path, wire_timeout: Duration) -> Rig {
    let wire = HostWire::Dgram { local: local.to_owned(), remote: remote.to_owned() }.into();
    Rig::start(RigConfig { wire, wire_timeout, ..RigConfig::new(Model::E1000) }).unwrap()
}

/// Writes registers until the wire's error comes.
fn error_of(card: &RawE1000) -> String {
    let deadline = Instant::now() + LONG;
    loop {
        if let Err(error) = card.registers.write(raw_e1000::TCTL, raw_e1000::TCTL_EN_PSP) {
            return error.to_string();
        }
        assert!(Instant::now() < deadline, "no error");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_frame_is_a_datagram_both_ways() {
    let (_directory, local, remote) = sockets();
    let peer = bound(&remote);
    let rig = dgram_rig(&local, &remote, LONG);
    let mut card = RawE1000::open(&rig);
    let memory = SharedMemory::new("buffers", 4096).unwrap();
    let buffer = card.space.map_memory(&memory, Access::ReadWrite).unwrap();
    card.receive_into(&[buffer.iova(); RX_DESCRIPTORS as usize]);
    send(&mut card, 0..3).unwrap();
    assert_eq!([receive(&peer), receive(&peer), receive(&peer)], [0, 1, 2]);

    let frame = numbered(5, 300);
    peer.send_to(&frame, &local).unwrap();
    eventually("the frame", || card.received(0));
    let mut got = vec![0; 300];
    memory.read_bytes(0, &mut got);
    assert_eq!(got, frame);

    drop((card, rig));
    assert!(!local.exists() && remote.exists());
}

#[test]
fn a_remote_that_never_reads_is_an_error_and_loses_nothing_when_it_reads_after_all() {
    let (_directory, local, remote) = sockets();
    let peer = bound(&remote);
    let rig = dgram_rig(&local, &remote, Duration::from_millis(300));
    let mut card = RawE1000::open(&rig);
    send(&mut card, 0..1000).unwrap();
    let error = error_of(&card);
    let expected = format!("the wire is full: {} has not read for 0.3 s", remote.display());
    assert!(error.contains(&expected), "{error}");
    assert!(rig.drain().unwrap_err().to_string().contains(&expected));
    for expected in 0..1000 {
        assert_eq!(receive(&peer), expected);
    }
    rig.drain().unwrap();
    send(&mut card, 1000..1001).unwrap();
    assert_eq!(receive(&peer), 1000);
}

#[test]
fn a_remote_that_is_missing_is_named_and_gets_the_frames_when_it_appears() {
    let (_directory, local, remote) = sockets();
    let rig = dgram_rig(&local, &remote, Duration::from_millis(300));
    let mut card = RawE1000::open(&rig);
    send(&mut card, 0..2).unwrap();
    let error = error_of(&card);
    assert!(error.contains(&remote.display().to_string()) && error.contains("there is no such socket"), "{error}");

    let peer = bound(&remote);
    assert_eq!([receive(&peer), receive(&peer)], [0, 1]);
    rig.drain().unwrap();

    drop(peer);
    send(&mut card, 2..3).unwrap();
    let error = error_of(&card);
    assert!(error.contains("no program listens"), "{error}");
    std::fs::remove_file(&remote).unwrap();
    assert_eq!(receive(&bound(&remote)), 2);
}

#[test]
fn a_local_socket_that_is_in_use_is_told() {
    let (_directory, local, remote) = sockets();
    let _other = bound(&local);
    let error = start(HostWire::Dgram { local: local.clone(), remote: remote.clone() }).map(drop).unwrap_err();
    assert!(matches!(&error, RigError::Wire(WireError::InUse { path }) if *path == local), "{error}");
    assert!(local.exists(), "the socket is another program's");
    let nowhere = local.join("below");
    let error = start(HostWire::Dgram { local: nowhere, remote }).map(drop).unwrap_err();
    assert!(matches!(error, RigError::Wire(WireError::Bind { .. })), "{error}");
}

#[test]
fn two_rigs_with_crossed_sockets_are_connected() {
    let (_directory, left, right) = sockets();
    let (a, b) = (dgram_rig(&left, &right, LONG), dgram_rig(&right, &left, LONG));
    let (mut sender, mut receiver) = (RawE1000::open(&a), RawE1000::open(&b));
    let memory = SharedMemory::new("buffers", 4096).unwrap();
    let buffer = receiver.space.map_memory(&memory, Access::ReadWrite).unwrap();
    receiver.receive_into(&[buffer.iova(); RX_DESCRIPTORS as usize]);
    sender.post_bytes(&numbered(3, 999));
    sender.ring().unwrap();
    eventually("the frame", || receiver.received(0));
    let mut got = vec![0; 999];
    memory.read_bytes(0, &mut got);
    assert_eq!(got, numbered(3, 999));
}

#[test]
fn udp_to_10_0_2_2_arrives_at_a_socket_of_this_host() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let rig = start(WireConfig::default()).unwrap();
    let mut card = RawE1000::open(&rig);
    let payload: Vec<u8> = (0..1400u32).map(|n| (n * 7) as u8).collect();
    let frame = udp_frame(HOST, socket.local_addr().unwrap().port(), &payload);
    assert_eq!(check(&frame).unwrap().protocol, Protocol::Udp);
    for _ in 0..20 {
        card.post_bytes(&frame);
    }
    card.ring().unwrap();
    let mut got = [0; 2048];
    for _ in 0..20 {
        let len = socket.recv(&mut got).unwrap();
        assert_eq!(got[..len], payload);
    }
}

#[test]
fn a_forwarded_port_of_this_host_leads_to_the_device() {
    // A port that was free a moment ago; another program may take it meanwhile.
    let mut tries = 0..5;
    let (rig, port) = loop {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let forwards = vec![format!("udp:127.0.0.1:{port}-10.0.2.15:4000").parse().unwrap()];
        match start(HostWire::User { forwards }) {
            Ok(rig) => break (rig, port),
            Err(error) => assert!(tries.next().is_some(), "{error}"),
        }
    };
    let mut card = RawE1000::open(&rig);
    let memory = SharedMemory::new("buffers", 4096).unwrap();
    let buffer = card.space.map_memory(&memory, Access::ReadWrite).unwrap();
    card.receive_into(&[buffer.iova(); RX_DESCRIPTORS as usize]);
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"hello", ("127.0.0.1", port)).unwrap();
    eventually("a frame", || card.received(0));
    // Before it can send the datagram, slirp asks who 10.0.2.15 is.
    let mut frame = [0; 60];
    memory.read_bytes(0, &mut frame);
    assert_eq!(check(&frame).unwrap().protocol, Protocol::Arp);
    assert_eq!(frame[38..42], [10, 0, 2, 15]);
}

#[test]
fn a_forward_that_cannot_be_had_is_told_in_qemus_words() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let forward = format!("udp:127.0.0.1:{}-:80", taken.local_addr().unwrap().port());
    let error = start(HostWire::User { forwards: vec![forward.parse().unwrap()] }).map(drop).unwrap_err();
    assert!(matches!(&error, RigError::Start(reason) if reason.contains(&forward)), "{error}");
}

#[test]
fn a_capture_has_the_frames_on_every_wire() {
    let directory = tempfile::tempdir().unwrap();
    let (_sockets, local, remote) = sockets();
    let peer = bound(&remote);
    let (end, wire) = wire::local();
    let wires = [WireConfig::default(), WireConfig::Local(end), HostWire::Dgram { local, remote }.into()];
    for (count, wire) in wires.into_iter().enumerate() {
        let path = directory.path().join(format!("a, b {count}.pcap"));
        let rig = Rig::start(RigConfig { wire, pcap: Some(path.clone()), ..RigConfig::new(Model::E1000) }).unwrap();
        let mut card = RawE1000::open(&rig);
        let frame = numbered(3, 1234);
        card.post_bytes(&frame);
        card.ring().unwrap();
        drop((card, rig));
        // The file's header is 24 bytes, a packet's 16.
        let capture = std::fs::read(path).unwrap();
        assert_eq!(capture[..4], 0xa1b2_c3d4u32.to_ne_bytes());
        assert_eq!(capture[24 + 16..24 + 16 + 1234], frame);
    }
    assert_eq!(receive(&peer), 3);
    assert_eq!(number(&wire.receive(LONG).unwrap()), 3);

    let nowhere = directory.path().join("missing").join("x.pcap");
    let error = Rig::start(RigConfig { pcap: Some(nowhere.clone()), ..RigConfig::default() }).map(drop).unwrap_err();
    assert!(matches!(&error, RigError::Pcap { path, source } if *path == nowhere && source.kind() == ErrorKind::NotFound), "{error}");
}

/// Set for the copy of this program that is in a network namespace of its own.
const INSIDE: &str = "PAGEWIRE_TEST_IN_NAMESPACE";

#[test]
fn a_tap_interface_connects_the_device_to_the_kernel() {
    let own_namespace = || {
        let mut command = Command::new("unshare");
        command.arg("-n");
        command
    };
    let made = own_namespace().args(["ip", "tuntap", "add", "dev", "rig0", "mode", "tap"]).output();
    if !made.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: network namespaces and TAP interfaces need root, /dev/net/tun, unshare and ip (iproute2)");
        return;
    }
    let output = own_namespace()
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "inside_a_namespace_udp_over_tap_arrives", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
}

/// No test of its own: what the test above starts in a namespace.
#[test]
fn inside_a_namespace_udp_over_tap_arrives() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let ip = |arguments: &str| assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success(), "ip {arguments}");
    ip("tuntap add dev rig0 mode tap");
    ip("address add 10.0.2.2/24 dev rig0");
    ip("link set rig0 up");
    let socket = UdpSocket::bind("10.0.2.2:0").unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();

    let rig = start(HostWire::Tap { name: "rig0".into() }).unwrap();
    let mut card = RawE1000::open(&rig);
    let mut frame = udp_frame(HOST, socket.local_addr().unwrap().port(), b"over tap");
    frame[..6].fill(0xff);
    card.post_bytes(&frame);
    card.ring().unwrap();
    let mut got = [0; 64];
    let len = socket.recv(&mut got).unwrap();
    assert_eq!(&got[..len], b"over tap");

    // While one rig has it, no other can.
    let error = start(HostWire::Tap { name: "rig0".into() }).map(drop).unwrap_err().to_string();
    assert!(error.contains("busy") && error.contains("ip tuntap add dev rig0"), "{error}");
}

#[test]
fn a_name_that_no_interface_has_is_refused() {
    for name in ["", "a-name-too-long-", "a/b", "a b", ".."] {
        let error = start(HostWire::Tap { name: name.into() }).map(drop).unwrap_err();
        assert!(matches!(error, RigError::Wire(WireError::TapName(_))), "{error}");
    }
}
