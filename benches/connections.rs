//! What a packet costs when many connections are open, in instructions, counted by valgrind's callgrind: all of [`Stack::poll`], the driver included.
//!
//! ```text
//! cargo bench --bench connections            a table
//! cargo bench --bench connections -- --json  one line of JSON
//! ```
//! In every turn one client acknowledges two segments and gets two more, in one frame; each has its turn every 100 ms. Files are warm. A case says
//! how many connections are open and how many of them take turns. Each runs twice, short and long, and the difference counts.

mod counting;
mod peer;

use std::time::Duration;

use counting::{count, measured};
use pagewire::tcp::SharedFile;
use peer::{Peer, SEGMENT};

/// The bytes that are acknowledged in a turn.
const STEP: u32 = 2 * SEGMENT;
/// The window of each client, not scaled: two steps are under way.
const WINDOW: (u16, u8) = (2 * STEP as u16, 0);
/// How often each has its turn: two are a round trip.
const ROUND: Duration = Duration::from_millis(100);
/// Warm bytes of the file: more than a client gets.
const FILE: u64 = 4 << 20;
/// How much more a packet may cost than with the fewest connections.
const MOST: f64 = 1.2;
/// So often the clients of a short run have their turn, and of a long one: in between alarms go off for each.
const TURNS: [usize; 2] = [1, 5];
/// And so often before anything is counted, until their round trip is known.
const WARM: usize = 6;

struct Case {
    name: &'static str,
    open: usize,
    active: usize,
}

const CASES: [Case; 4] = [
    Case { name: "10", open: 10, active: 10 },
    Case { name: "1000", open: 1000, active: 1000 },
    Case { name: "10000-idle", open: 10_000, active: 10 },
    Case { name: "10000", open: 10_000, active: 10_000 },
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((name, turns)) = counting::child(&arguments) {
        return run(CASES.iter().find(|case| case.name == name).expect("a case"), turns);
    }
    let json = arguments.iter().any(|argument| argument == "--json");
    let valgrind = counting::valgrind();
    if !json {
        println!("{:<12} {:>12} {:>24} {:>10}", "open", "take turns", "instructions a packet", "to the first");
    }
    let (mut figures, mut first, mut missed) = (serde_json::Map::new(), None, false);
    for case in &CASES {
        let turns = TURNS.map(|turns| turns * case.active);
        let [short, long] = turns.map(|turns| count(&valgrind, case.name, turns));
        // An acknowledgement and a frame.
        let cost = (long - short) as f64 / (turns[1] - turns[0]) as f64 / 2.0;
        let share = cost / *first.get_or_insert(cost);
        missed |= share > MOST;
        figures.insert(case.name.into(), serde_json::json!({"instructions_per_packet": cost, "share": share}));
        if !json {
            println!("{:<12} {:>12} {cost:>24.1} {share:>12.2}", case.open, case.active);
        }
    }
    if json {
        println!("{}", serde_json::Value::Object(figures));
    }
    assert!(!missed, "a packet may cost {MOST} times as much with many connections as with few");
}

fn run(case: &Case, turns: usize) {
    let (mut stack, mut peer, sockets) = Peer::connected(case.open, WINDOW);
    let turn_time = ROUND / case.active as u32;
    let named = tempfile::NamedTempFile::new().expect("a file");
    named.as_file().set_len(FILE).expect("room");
    let file = SharedFile::open(named.path()).expect("it opens");
    // Until the time-outs of the handshakes have gone off, which nobody waits for any more.
    peer.now += Duration::from_secs(2);
    stack.poll(peer.now).expect("it goes on");
    for socket in &sockets[..case.active] {
        socket.sendfile(&mut stack, &file, 0..FILE).expect("it is queued");
        peer.now += turn_time;
        stack.poll(peer.now).expect("it goes on");
        peer.take();
    }
    for turn in 0..WARM * case.active + turns {
        let client = turn % case.active;
        assert_eq!(peer.clients[client].under_way(), 2 * STEP, "client {client} in turn {turn}");
        peer.acknowledge(client, peer.clients[client].acknowledged.wrapping_add(STEP));
        peer.now += turn_time;
        let now = peer.now;
        let mut poll = || {
            stack.poll(now).expect("it goes on");
            while stack.next_event().is_some() {}
        };
        if turn < WARM * case.active {
            poll()
        } else {
            measured(&mut poll)
        }
        peer.take();
    }
    assert_eq!(peer.model.violations(), Vec::<String>::new());
}
