//! Clients of `pagewire serve` that are slow, vanish, or mean ill: each is bounded in time and memory, and disturbs nobody else.

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use etherparse::{PacketBuilder, SlicedPacket, TcpHeader, TransportSlice};
use hw_sim::wire::check::Protocol;
use pagewire_tests::peer::{Heard, Peer, ping};
use pagewire_tests::web::{self, Server};
use pagewire_tests::{content, wait_for};

#[test]
fn half_a_request_is_answered_with_408_and_silence_with_an_end() {
    let directory = content::directory();
    content::file(directory.path(), 10);
    let server = Server::start(directory.path(), "--request-timeout 0.5 --keep-alive 1");
    let mut silent = server.connect();
    let mut half = server.connect();
    half.send("GET /10.bin HT");
    let answer = half.answer();
    assert_eq!(answer.status, 408);
    assert!(answer.head.contains("Connection: close\r\n"));
    assert!(half.is_ended());
    assert!(silent.is_ended());

    // Slow-loris: always a bit more, never all.
    let mut loris = server.connect();
    loris.send("GET /10.bin HTTP/1.1\r\n");
    let begin = Instant::now();
    wait_for("the end of its time", || {
        loris.send("X: y\r\n");
        std::thread::sleep(Duration::from_millis(20));
        server.log().iter().filter(|line| line.contains("\"-\" 408")).nth(1).map(drop)
    });
    assert!(begin.elapsed() >= Duration::from_millis(400));

    // After a request there is more time for the next one, and then as little.
    let mut kept = server.connect();
    kept.ask("/10.bin");
    assert_eq!(kept.answer().status, 200);
    let begin = Instant::now();
    assert!(kept.is_ended());
    assert!(begin.elapsed() >= Duration::from_millis(700), "{:?}", begin.elapsed());
    let mut second = server.connect();
    second.ask("/10.bin");
    assert_eq!(second.answer().status, 200);
    second.send("GET");
    assert_eq!(second.answer().status, 408);
    assert_eq!(server.stop().number("/http/responses/408"), 3);
}

#[test]
fn who_never_reads_is_cut_off_and_the_file_is_free_again() {
    let directory = content::directory();
    let (path, _) = content::file(directory.path(), 40_000_000);
    let server = Server::start(directory.path(), "--stall-timeout 2");
    let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.ask("/40000000.bin"));
    wait_for("the server's patience to end", || (server.log().len() == 8).then_some(()));
    for line in server.log() {
        assert!(line.ends_with("cut off: the client takes its answer too slowly"), "{line}");
    }
    // No lease is left: a writer does not wait.
    let begin = Instant::now();
    fs::OpenOptions::new().write(true).open(&path).expect("a writer");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    for mut client in clients {
        assert!(client.drain() < 40_000_000);
    }
    server.wait_until_idle();
    let account = server.stop();
    assert_eq!((account.number("/http/cut_off"), account.number("/connected")), (8, 0));
}

#[test]
fn a_slow_client_that_goes_on_reading_gets_all() {
    let directory = content::directory();
    let (_, sent) = content::file(directory.path(), 1_000_000);
    let server = Server::start(directory.path(), "--stall-timeout 1");
    let output = directory.path().join("got");
    server.get(&format!("-f --limit-rate 300K -o {}", output.display()), "/1000000.bin");
    content::assert_same(&fs::read(&output).expect("the download"), &sent);
    server.wait_until_idle();
    assert_eq!(server.stop().number("/http/cut_off"), 0);
}

#[test]
fn downloads_that_are_given_up_leave_nothing_behind() {
    let directory = content::directory();
    let (path, sent) = content::file(directory.path(), 20_000_000);
    let server = Server::start(directory.path(), "");
    server.get("-f -o /dev/null -r 0-9", "/20000000.bin");
    let before = server.descriptors();
    for round in 0..20 {
        let mut client = server.connect();
        client.ask("/20000000.bin");
        let mut some = [0; 1000];
        std::io::Read::read_exact(&mut client.socket, &mut some).expect("a beginning");
        // Some say first that they ask no more.
        if round % 3 == 1 {
            client.socket.shutdown(std::net::Shutdown::Write).expect("a connection");
        }
        if round % 3 < 2 {
            client.crash();
        }
    }
    wait_for("the server to notice", || (server.log().iter().filter(|line| line.contains("cut off: ")).count() == 20).then_some(()));
    assert_eq!(server.descriptors(), before);
    let begin = Instant::now();
    fs::OpenOptions::new().write(true).open(&path).expect("a writer");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let output = directory.path().join("got");
    server.get(&format!("-f -o {}", output.display()), "/20000000.bin");
    content::assert_same(&fs::read(&output).expect("the download"), &sent);
    server.wait_until_idle();
    let account = server.stop();
    assert_eq!((account.number("/http/cut_off"), account.number("/connected")), (20, 0));
    // The last one may not have heard the last acknowledgement.
    assert!(account.number("/tcp/connections") <= 1, "{}", account.figures);
}

#[test]
fn no_bytes_of_a_client_end_the_server() {
    let directory = content::directory();
    content::file(directory.path(), 10);
    let server = Server::start(directory.path(), "--request-timeout 5");
    let valid = b"GET /10.bin HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1,3-4\r\nIf-None-Match: \"x\"\r\n\r\n";
    for seed in 0..150 {
        let noise = content::bytes(400, seed);
        let mut request = valid.to_vec();
        // Some bytes changed, some put in, some left out; every third is noise alone.
        for change in noise.chunks_exact(4).take(usize::from(noise[0] % 6)) {
            let at = usize::from(change[0]) % request.len();
            match change[1] % 3 {
                0 => request[at] = change[2],
                1 => request.insert(at, change[2]),
                _ => drop(request.remove(at)),
            }
        }
        let mut client = server.connect();
        client.send(if seed % 3 == 0 { &noise } else { &request });
        client.socket.shutdown(std::net::Shutdown::Write).expect("a connection");
        client.drain();
    }
    assert_eq!(server.get("-f -o /dev/null -w %{size_download}", "/10.bin"), "10");
    server.wait_until_idle();
    let account = server.stop();
    assert_eq!(account.number("/connected"), 0);
    assert!(account.number("/http/responses/400") > 50, "{}", account.figures);
}

/// A station that says what it likes.
const STATION: (Ipv4Addr, [u8; 6]) = (Ipv4Addr::new(10, 0, 2, 2), [0x52, 0x55, 10, 0, 2, 2]);

/// A segment to the server.
fn segment(nic: [u8; 6], port: u16, seq: u32, set: impl FnOnce(&mut TcpHeader)) -> Vec<u8> {
    let mut header = TcpHeader::new(port, 80, seq, 64_000);
    set(&mut header);
    let mut frame = Vec::new();
    let packet = PacketBuilder::ethernet2(STATION.1, nic).ipv4(STATION.0.octets(), [10, 0, 2, 15], 64).tcp_header(header);
    packet.write(&mut frame, &[]).expect("a vector takes all");
    frame.resize(frame.len().max(60), 0);
    frame
}

/// The TCP header of a frame.
fn tcp(heard: &Heard) -> Option<TcpHeader> {
    if heard.checked.protocol != Protocol::Tcp {
        return None;
    }
    match SlicedPacket::from_ethernet(&heard.frame).ok()?.transport? {
        TransportSlice::Tcp(segment) => Some(segment.to_header()),
        _ => None,
    }
}

#[test]
fn half_open_connections_are_bounded_and_a_reset_makes_room() {
    let directory = content::directory();
    let peer = Peer::start(directory.path(), &[STATION]);
    let command = web::command(directory.path(), &peer.nic("e1000"), "10.0.2.15/24", "--clients 8");
    let server = Server::begin(command, ([127, 0, 0, 1], 80).into());
    // The NIC says where it is.
    let nic = peer.wait("the announcement", |heard| heard.iter().find_map(|one| one.arp()?.sender_hw_addr().try_into().ok()));
    let answered = |heard: &[Heard]| {
        let mut ports: Vec<u16> = heard.iter().filter_map(tcp).filter(|tcp| tcp.syn && tcp.ack).map(|tcp| tcp.destination_port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    };
    for port in 5000..5040 {
        peer.send(&segment(nic, port, 1000, |tcp| tcp.syn = true));
    }
    let open = peer.wait("as many answers as there may be clients", |heard| Some(answered(heard)).filter(|open| open.len() == 8));
    assert_eq!(open, (5000..5008).collect::<Vec<_>>());
    // One of them gives up, and another gets its place.
    peer.send(&segment(nic, 5000, 1001, |tcp| tcp.rst = true));
    peer.wait("an answer to the next one", |heard| {
        peer.send(&segment(nic, 6000, 1000, |tcp| tcp.syn = true));
        answered(heard).contains(&6000).then_some(())
    });
    // What was asked again meanwhile is taken when this is answered: behind the end it would be refused, too.
    peer.send(&ping(STATION, (Ipv4Addr::new(10, 0, 2, 15), nic), 1, 1, b"behind it"));
    peer.wait("the answer to a ping", |heard| heard.iter().find_map(Heard::echo_reply));
    let account = server.stop();
    assert_eq!((account.number("/tcp/accepted"), account.number("/http/clients")), (0, 0));
    assert!(account.number("/tcp/dropped") >= 32, "{}", account.figures);
    assert_eq!(account.number("/tcp/connections"), 8);
    // Whoever is half open in the end is reset.
    let reset = peer.end().iter().filter_map(tcp).filter(|tcp| tcp.rst).count();
    assert_eq!(reset, 8);
}
