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
mod peer;

use std::time::Duration;

use counting::{count, measured};
use pagewire::tcp::{SharedFile, Stack};
use peer::{Peer, SEGMENT};

/// Bursts of the short and of the long run.
const RUNS: [usize; 2] = [20, 220];
/// The bytes of a burst: 45 segments with timestamps.
const BURST: u32 = 45 * SEGMENT;
/// The window of the peer, and how it is scaled.
const WINDOW: (u16, u8) = (((4 * BURST) >> 5) as u16, 5);
/// Warm bytes of the file.
const FILE: u64 = 4 << 20;

/// A case.
struct Case {
    name: &'static str,
    what: &'static str,
    /// ACKs for a burst.
    acks: u32,
    /// Whether each is taken by a poll of its own.
    apart: bool,
}

const CASES: [Case; 4] = [
    Case { name: "acks-1", what: "1 ACK for 64 KiB", acks: 1, apart: false },
    Case { name: "acks-2", what: "2 ACKs for 64 KiB", acks: 2, apart: false },
    Case { name: "acks-22", what: "22 ACKs for 64 KiB, taken at once", acks: 22, apart: false },
    Case { name: "acks-22-apart", what: "22 ACKs for 64 KiB, a poll for each", acks: 22, apart: true },
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((name, bursts)) = counting::child(&arguments) {
        return run(CASES.iter().find(|case| case.name == name).expect("a case"), bursts);
    }
    let json = arguments.iter().any(|argument| argument == "--json");
    let valgrind = counting::valgrind();
    if !json {
        println!("{:<44} {:>12}", "instructions a KiB, all of the stack", "pagewire");
    }
    let mut figures = serde_json::Map::new();
    for case in &CASES {
        let [short, long] = RUNS.map(|bursts| count(&valgrind, case.name, bursts));
        let cost = (long - short) as f64 / ((RUNS[1] - RUNS[0]) as f64 * f64::from(BURST) / 1024.0);
        figures.insert(case.name.into(), serde_json::json!({ "instructions_per_kib": cost }));
        if !json {
            println!("{:<44} {cost:>12.1}", case.what);
        }
    }
    if json {
        println!("{}", serde_json::Value::Object(figures));
    }
}

fn poll(stack: &mut Stack, now: Duration) {
    measured(&mut || {
        stack.poll(now).expect("it goes on");
        while stack.next_event().is_some() {}
    });
}

fn run(case: &Case, bursts: usize) {
    let (mut stack, mut peer, sockets) = Peer::connected(1, WINDOW);
    let socket = sockets[0];
    let named = tempfile::NamedTempFile::new().expect("a file");
    named.as_file().set_len(FILE).expect("room");
    let file = SharedFile::open(named.path()).expect("it opens");

    let mut steady = 0;
    while steady < bursts {
        if socket.queued(&stack).expect("it is open") < FILE {
            socket.sendfile(&mut stack, &file, 0..FILE).expect("it is queued");
        }
        let under_way = peer.clients[0].under_way();
        peer.now += Duration::from_millis(1);
        if steady == 0 && under_way < 4 * BURST {
            // Until the congestion window is open.
            peer.acknowledge(0, peer.clients[0].acknowledged.wrapping_add(under_way.min(BURST)));
            stack.poll(peer.now).expect("it goes on");
        } else {
            assert_eq!(under_way, 4 * BURST, "one burst goes out for one that is acknowledged");
            let start = peer.clients[0].acknowledged;
            for number in 1..=case.acks {
                peer.acknowledge(0, start.wrapping_add(BURST / SEGMENT * number / case.acks * SEGMENT));
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
