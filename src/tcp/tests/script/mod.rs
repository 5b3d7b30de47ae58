//! Scripted packets, as packetdrill has them: a line is a segment, with numbers relative to the initial ones.
//!
//! `S.` are the flags (`.` is ACK), `1:1461` the positions from and to which it goes, then what else it says: `ack 1 win 1000 mss 1460 ws 7
//! sackok sack 3:5,7:9 ts 100:200`, `again` for a retransmission.

mod closing;
mod loss;
mod opening;
mod recovery;
mod silence;
mod trust;
mod window;

use std::fmt::Write;
use std::time::Duration;

use super::{content, isn, ms};
use crate::tcp::*;

/// The initial numbers: both wrap within the first bytes.
const OWN: u32 = u32::MAX - 1000;
const PEER: u32 = u32::MAX - 10;

struct Script {
    connection: Connection,
    now: Duration,
}

/// Timestamps are left out where a test is not about them.
fn plain() -> TcpConfig {
    TcpConfig { timestamps: false, pacing: false, ..TcpConfig::default() }
}

impl Script {
    /// A connection that the peer has opened: it takes segments of 1000 bytes and has a window of 60,000.
    fn accepted(config: TcpConfig) -> Self {
        let mut script = Self::listening(config, "S 0:1 win 60000 mss 1000 sackok");
        let answer = script.sent();
        assert!(answer.len() == 1 && answer[0].starts_with("S. 0:1 ack 1 win "), "{answer:?}");
        script.after(100);
        assert_eq!(script.receive(". 1:1 ack 1 win 60000"), Events::ESTABLISHED);
        assert_eq!(script.sent(), [""; 0]);
        script
    }

    fn listening(config: TcpConfig, syn: &str) -> Self {
        let now = ms(5000);
        let connection = Connection::accept(config, &Segment { header: parse(syn).0, payload: &[] }, isn(OWN), now);
        Self { connection, now }
    }

    fn connecting(config: TcpConfig) -> Self {
        let now = ms(5000);
        Self { connection: Connection::connect(config, 80, 51000, isn(OWN), now), now }
    }

    /// Time passes.
    fn after(&mut self, milliseconds: u64) -> &mut Self {
        self.now += ms(milliseconds);
        self
    }

    /// Time passes until something is due. Returns how many milliseconds.
    fn wait(&mut self) -> u64 {
        let at = self.connection.deadline().expect("nothing is due");
        let waited = at.saturating_sub(self.now);
        self.now = at;
        waited.as_millis() as u64
    }

    fn receive(&mut self, line: &str) -> Events {
        let (header, start, len) = parse(line);
        let payload = if len > 0 { content(start.max(1) - 1, len) } else { &[] };
        self.connection.receive(&Segment { header, payload }, self.now)
    }

    /// What is sent now, by bursts as the NIC gets them.
    fn sent(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(out) = self.connection.poll(self.now) {
            lines.push(line(&out));
            assert!(lines.len() < 1000, "{lines:?}");
        }
        lines
    }

    /// The same without windows.
    fn sent_data(&mut self) -> Vec<String> {
        self.sent()
            .iter()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .map(|mut words| {
                let at = words.iter().position(|&word| word == "win").unwrap();
                words.drain(at..at + 2);
                words.join(" ")
            })
            .collect()
    }

    fn state(&self) -> State {
        self.connection.state()
    }
}

fn line(out: &Outgoing) -> String {
    let header = &out.header;
    let mut text = String::new();
    for (flag, sign) in [(Flags::SYN, 'S'), (Flags::FIN, 'F'), (Flags::RST, 'R'), (Flags::PSH, 'P'), (Flags::ACK, '.')] {
        if header.flags.contains(flag) {
            text.push(sign);
        }
    }
    let start = header.seq.since(Seq(OWN));
    let bits = header.flags.intersection(Flags::SYN | Flags::FIN).bits().count_ones() as i32;
    write!(text, " {start}:{}", start + (out.payload.end - out.payload.start) as i32 + bits).unwrap();
    if header.flags.contains(Flags::ACK) {
        write!(text, " ack {}", header.ack.since(Seq(PEER))).unwrap();
    }
    write!(text, " win {}", header.window).unwrap();
    let options = &header.options;
    if let Some(mss) = options.mss {
        write!(text, " mss {mss}").unwrap();
    }
    if let Some(scale) = options.window_scale {
        write!(text, " ws {scale}").unwrap();
    }
    if options.sack_permitted {
        text.push_str(" sackok");
    }
    if !options.sack.is_empty() {
        let number = |seq: Seq| seq.since(Seq(PEER));
        let blocks: Vec<_> = options.sack.as_slice().iter().map(|&(from, to)| format!("{}:{}", number(from), number(to))).collect();
        write!(text, " sack {}", blocks.join(",")).unwrap();
    }
    if let Some(stamps) = options.timestamps {
        write!(text, " ts {}:{}", stamps.value, stamps.echo).unwrap();
    }
    if out.retransmission {
        text.push_str(" again");
    }
    text
}

/// A header from the peer, the position it starts at, and the length of its payload.
fn parse(line: &str) -> (TcpHeader, u64, usize) {
    let range = |text: &str| {
        let (from, to) = text.split_once(':').unwrap();
        (from.parse::<i64>().unwrap(), to.parse::<i64>().unwrap())
    };
    let mut words = line.split_whitespace();
    let mut flags = Flags::empty();
    for sign in words.next().unwrap().chars() {
        flags |= match sign {
            'S' => Flags::SYN,
            'F' => Flags::FIN,
            'R' => Flags::RST,
            'P' => Flags::PSH,
            '.' => Flags::ACK,
            _ => panic!("{line}"),
        };
    }
    let (start, end) = range(words.next().unwrap());
    let mut header = TcpHeader {
        source_port: 51000,
        destination_port: 80,
        seq: Seq(PEER.wrapping_add(start as u32)),
        ack: Seq(0),
        flags,
        window: 60000,
        options: TcpOptions::default(),
    };
    while let Some(word) = words.next() {
        if word == "sackok" {
            header.options.sack_permitted = true;
            continue;
        }
        let value = words.next().unwrap();
        match word {
            "ack" => header.ack = Seq(OWN.wrapping_add(value.parse::<i64>().unwrap() as u32)),
            "win" => header.window = value.parse().unwrap(),
            "mss" => header.options.mss = Some(value.parse().unwrap()),
            "ws" => header.options.window_scale = Some(value.parse().unwrap()),
            "sack" => {
                for block in value.split(',') {
                    let (from, to) = range(block);
                    let number = |at: i64| Seq(OWN.wrapping_add(at as u32));
                    assert!(header.options.sack.push(number(from), number(to)));
                }
            }
            "ts" => {
                let (value, echo) = range(value);
                header.options.timestamps = Some(Timestamps { value: value as u32, echo: echo as u32 });
            }
            _ => panic!("{line}"),
        }
    }
    let bits = i64::from(flags.intersection(Flags::SYN | Flags::FIN).bits().count_ones());
    (header, start.max(0) as u64, (end - start - bits) as usize)
}
