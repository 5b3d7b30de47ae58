//! What TCP brings through a path that loses one frame in a hundred, 20 ms there and back: pagewire's against Linux' own CUBIC, over the same cable.
//!
//! ```text
//! cargo bench -p pagewire-tests --bench loss              a table, after three minutes
//! cargo bench -p pagewire-tests --bench loss -- --quick   three seeds of 10 s
//! cargo bench -p pagewire-tests --bench loss -- --reorder nothing is lost, but frames are up to 4 ms late, each by itself
//! cargo bench -p pagewire-tests --bench loss -- --json    one line of JSON
//! ```
//! Both send to a socket of Linux, each in a network of its own, at the same time, so that both have the same machine. The seed decides which
//! frames are lost: the first, the hundredth, whatever is in them. It needs root.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use hw_sim::wire::Impairment;
use pagewire_tests::cable::{Cable, Plug};
use pagewire_tests::command::{send, start};
use pagewire_tests::content;
use pagewire_tests::namespace::Namespace;

const SEEDS: [u64; 3] = [1, 2, 3];
const TARGET: f64 = 0.9;
const RECEIVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const SENDER: &str = "10.9.0.2/24";
/// More than anybody sends in the time: a sparse file.
const FILE: u64 = 1 << 30;

/// The way of the data, and that of the acknowledgements.
fn ways(reorder: bool) -> [Impairment; 2] {
    let back = Impairment { delay: Duration::from_millis(10), ..Impairment::default() };
    let there = if reorder {
        // A bound that is not the machine's.
        Impairment { jitter: Duration::from_millis(4), rate: 2_500_000, queue: 100_000, ..back }
    } else {
        Impairment { loss: 10_000, ..back }
    };
    [there, back]
}

fn main() {
    let asked = |option: &str| std::env::args().any(|argument| argument == option);
    let time = Duration::from_secs(if asked("--quick") { 10 } else { 60 });
    let ways = ways(asked("--reorder"));
    let rates = SEEDS.map(|seed| {
        std::thread::scope(|scope| {
            let ours = scope.spawn(move || pagewire(ways, seed, time));
            let linux = scope.spawn(move || linux(ways, seed, time));
            [ours, linux].map(|rate| rate.join().expect("a rate"))
        })
    });
    let total = |which: usize| rates.iter().map(|rates| rates[which]).sum::<f64>();
    let share = total(0) / total(1);
    if asked("--json") {
        println!("{}", serde_json::json!({"seconds": time.as_secs(), "bytes_per_second": rates, "share": share, "target": TARGET}));
    } else {
        let what = if asked("--reorder") { "20 Mbit/s, out of order" } else { "1 % loss" };
        println!("Mbit/s of payload, {what}, 20 ms there and back, {} s for each seed", time.as_secs());
        println!("{:<8} {:>10} {:>10} {:>8}", "seed", "pagewire", "Linux", "share");
        for (seed, [ours, linux]) in SEEDS.iter().zip(rates) {
            println!("{seed:<8} {:>10.2} {:>10.2} {:>8.2}", ours * 8e-6, linux * 8e-6, ours / linux);
        }
        println!("{:<8} {:>10.2} {:>10.2} {share:>8.2}   target {TARGET}", "mean", total(0) * 8e-6 / 3.0, total(1) * 8e-6 / 3.0);
    }
    assert!(share >= TARGET, "the target was missed");
}

/// Bytes a second from `pagewire send`.
fn pagewire(ways: [Impairment; 2], seed: u64, time: Duration) -> f64 {
    let (network, directory) = (Namespace::new(&[&format!("{RECEIVER}/24")]), content::directory());
    let file = directory.path().join("file");
    std::fs::File::create(&file).and_then(|file| file.set_len(FILE)).expect("a sparse file");
    let listener = listen(&network);
    let target = format!("tcp://{}", listener.local_addr().expect("its address"));
    let (plug, nic) = Plug::nic(directory.path(), "e1000");
    let _cable = Cable::between([plug, network.plug()], ways, seed);
    let _sender = start(send(&file, &nic, &target, &format!("--ip {SENDER}")));
    rate(&listener, time)
}

/// Bytes a second from a socket.
fn linux(ways: [Impairment; 2], seed: u64, time: Duration) -> f64 {
    let (network, other) = (Namespace::new(&[&format!("{RECEIVER}/24")]), Namespace::new(&[SENDER]));
    let listener = listen(&network);
    let target = listener.local_addr().expect("its address");
    let _cable = Cable::between([other.plug(), network.plug()], ways, seed);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            other.enter();
            let mut socket = TcpStream::connect(target).expect("a connection");
            rustix::net::sockopt::set_tcp_congestion(&socket, "cubic").expect("the kernel has CUBIC");
            let zeros = [0; 1 << 16];
            // It ends with the receiver.
            while socket.write_all(&zeros).is_ok() {}
        });
        rate(&listener, time)
    })
}

fn listen(network: &Namespace) -> TcpListener {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            network.enter();
            TcpListener::bind((RECEIVER, 0)).expect("an address")
        });
        inside.join().expect("a listener")
    })
}

/// Bytes a second that come in on the first connection, from its first byte on.
fn rate(listener: &TcpListener, time: Duration) -> f64 {
    let (mut socket, _) = listener.accept().expect("a connection");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
    let (mut block, mut bytes) = (vec![0; 1 << 16], 0);
    let mut begun: Option<Instant> = None;
    loop {
        let len = socket.read(&mut block).expect("bytes");
        assert!(len > 0, "the sender ended after {bytes} bytes");
        bytes += len as u64;
        let elapsed = begun.get_or_insert_with(Instant::now).elapsed();
        if elapsed >= time {
            return bytes as f64 / elapsed.as_secs_f64();
        }
    }
}
