//! What TCP costs, in instructions for a KiB that is sent and acknowledged: all of [`Stack::poll`], the driver included, counted by valgrind's
//! callgrind.
//!
//! ```text
//! cargo bench --bench tcp            a table
//! cargo bench --bench tcp -- --json  one line of JSON
//! ```
//! One connection over the e1000 model, warm windows, bursts of 65,160 bytes, four of them under way. A case says how many ACKs the peer sends for
//! a burst; each case runs twice, short and long, and the difference counts.

mod counting;

use std::time::Duration;

use counting::{count, measured};
use e1000::{E1000, E1000Config};
use etherparse::PacketBuilder;
use hal::Nic;
use hw_sim::model::e1000::{E1000Model, Received};
use pagewire::net::Interface;
use pagewire::send::{Port, PortConfig};
use pagewire::tcp::{Event, SharedFile, Socket, Stack, StackConfig};

/// Bursts of the short and of the long run.
const RUNS: [usize; 2] = [20, 220];
/// The bytes of a burst: 45 segments with timestamps.
const BURST: u32 = 45 * 1448;
/// The window of the peer, and how it is scaled.
const WINDOW: (u16, u8) = (((4 * BURST) >> 5) as u16, 5);
/// Warm bytes of the file.
const FILE: u64 = 4 << 20;

/// A case, and what it may cost.
struct Case {
    name: &'static str,
    what: &'static str,
    /// ACKs for a burst.
    acks: u32,
    /// Whether each is taken by a poll of its own.
    apart: bool,
    target: f64,
}

const CASES: [Case; 4] = [
    Case { name: "acks-1", what: "1 ACK for 64 KiB", acks: 1, apart: false, target: 60.0 },
    Case { name: "acks-2", what: "2 ACKs for 64 KiB", acks: 2, apart: false, target: 60.0 },
    Case { name: "acks-22", what: "22 ACKs for 64 KiB, taken at once", acks: 22, apart: false, target: 250.0 },
    Case { name: "acks-22-apart", what: "22 ACKs for 64 KiB, a poll for each", acks: 22, apart: true, target: 250.0 },
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((name, bursts)) = counting::child(&arguments) {
        return run(CASES.iter().find(|case| case.name == name).expect("a case"), bursts);
    }
    let json = arguments.iter().any(|argument| argument == "--json");
    let valgrind = counting::valgrind();
    let mut missed = false;
    if !json {
        println!("{:<44} {:>12} {:>8}", "instructions a KiB, all of the stack", "pagewire", "target");
    }
    let mut figures = serde_json::Map::new();
    for case in &CASES {
        let [short, long] = RUNS.map(|bursts| count(&valgrind, case.name, bursts));
        let cost = (long - short) as f64 / ((RUNS[1] - RUNS[0]) as f64 * f64::from(BURST) / 1024.0);
        missed |= cost > case.target;
        figures.insert(case.name.into(), serde_json::json!({"instructions_per_kib": cost, "target": case.target}));
        if !json {
            println!("{:<44} {cost:>12.1} {:>8}", case.what, case.target);
        }
    }
    if json {
        println!("{}", serde_json::Value::Object(figures));
    }
    assert!(!missed, "a target was missed");
}

const PEER: ([u8; 6], [u8; 4], u16) = ([0x52, 0x54, 0, 0, 0, 2], [192, 0, 2, 2], 51_000);
const OWN: ([u8; 6], [u8; 4], u16) = ([0x52, 0x54, 0, 0, 0, 1], [192, 0, 2, 1], 1033);
/// Where the TCP header begins in a frame.
const TCP: usize = 34;

/// The peer: what it has of the stream, as sequence numbers.
struct Peer {
    model: E1000Model,
    /// What is acknowledged, and what has arrived.
    acknowledged: u32,
    arrived: u32,
    /// The latest timestamp of the stack.
    stamp: [u8; 4],
    now: Duration,
}

impl Peer {
    /// Takes what the stack has sent: everything in order.
    fn take(&mut self) {
        for frame in self.model.step() {
            let word = |at: usize| -> [u8; 4] { frame[at..at + 4].try_into().expect("four bytes") };
            let (header, total) = (usize::from(frame[TCP + 12] >> 4) * 4, usize::from(u16::from_be_bytes([frame[16], frame[17]])));
            let syn = u32::from(frame[TCP + 13] >> 1 & 1);
            self.arrived = u32::from_be_bytes(word(TCP + 4)) + (total - 20 - header) as u32 + syn;
            // Before the timestamps are two bytes, in a SYN an MSS option too.
            let options = TCP + 20 + 4 * syn as usize;
            assert_eq!(frame[options + 2], 8, "timestamps");
            self.stamp = word(options + 4);
        }
    }

    fn send(&self, seq: u32, options: &[u8], syn: bool) {
        let packet = PacketBuilder::ethernet2(PEER.0, OWN.0).ipv4(PEER.1, OWN.1, 64).tcp(PEER.2, OWN.2, seq, WINDOW.0);
        let packet = if syn { packet.syn() } else { packet.ack(self.acknowledged) };
        let mut frame = Vec::new();
        packet.options_raw(options).expect("options").write(&mut frame, &[]).expect("a frame");
        frame.resize(frame.len().max(60), 0);
        assert_eq!(self.model.receive(&frame), Received::Delivered);
    }

    /// The timestamps option, with nothing in front of it.
    fn stamps(&self) -> [u8; 10] {
        let mut option = [8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
        option[2..6].copy_from_slice(&(self.now.as_millis() as u32).to_be_bytes());
        option[6..].copy_from_slice(&self.stamp);
        option
    }

    fn acknowledge(&mut self, upto: u32) {
        self.acknowledged = upto;
        self.send(1, &[&[1, 1][..], &self.stamps()].concat(), false);
    }
}

fn poll(stack: &mut Stack, now: Duration) {
    measured(&mut || {
        stack.poll(now).expect("it goes on");
        while stack.next_event().is_some() {}
    });
}

fn run(case: &Case, bursts: usize) {
    let model = E1000Model::new(OWN.0.map(|byte| format!("{byte:02x}")).join(":").parse().expect("an address"));
    let nic = E1000::start(model.device(), E1000Config::default()).expect("it starts");
    let interface = Interface::new(nic.mac(), "192.0.2.1/24".parse().expect("an address"), None, 1500, None).expect("an interface");
    let port = Port::new(Box::new(nic), interface, PortConfig::default()).expect("a port");
    let mut stack = Stack::new(port, StackConfig { secret: Some([7; 16]), ..StackConfig::default() }).expect("a stack");
    stack.listen(OWN.2, 8).expect("nobody listens there");
    let mut peer = Peer { model, acknowledged: 0, arrived: 0, stamp: [0; 4], now: Duration::from_secs(1) };

    let scale = WINDOW.1;
    peer.send(0, &[&[2, 4, 5, 0xb4, 4, 2][..], &peer.stamps(), &[1, 3, 3, scale]].concat(), true);
    stack.poll(peer.now).expect("it goes on");
    peer.take();
    peer.now += Duration::from_millis(4);
    peer.acknowledge(peer.arrived);
    stack.poll(peer.now).expect("it goes on");
    let socket = accepted(&mut stack);
    let named = tempfile::NamedTempFile::new().expect("a file");
    named.as_file().set_len(FILE).expect("room");
    let file = SharedFile::open(named.path()).expect("it opens");

    let mut steady = 0;
    while steady < bursts {
        if socket.queued(&stack).expect("it is open") < FILE {
            socket.sendfile(&mut stack, &file, 0..FILE).expect("it is queued");
        }
        let under_way = peer.arrived.wrapping_sub(peer.acknowledged);
        peer.now += Duration::from_millis(1);
        if steady == 0 && under_way < 4 * BURST {
            // Until the congestion window is open.
            peer.acknowledge(peer.acknowledged.wrapping_add(under_way.min(BURST)));
            stack.poll(peer.now).expect("it goes on");
        } else {
            assert_eq!(under_way, 4 * BURST, "one burst goes out for one that is acknowledged");
            let start = peer.acknowledged;
            for number in 1..=case.acks {
                peer.acknowledge(start.wrapping_add(BURST / 1448 * number / case.acks * 1448));
                if case.apart && number < case.acks {
                    poll(&mut stack, peer.now);
                }
            }
            poll(&mut stack, peer.now);
            steady += 1;
        }
        peer.take();
    }
    assert_eq!(peer.model.violations(), Vec::<String>::new());
}

fn accepted(stack: &mut Stack) -> Socket {
    while let Some(event) = stack.next_event() {
        if let Event::Incoming(listener) = event {
            return listener.accept(stack).expect("a connection");
        }
    }
    panic!("the handshake is not complete")
}
