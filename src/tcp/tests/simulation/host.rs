//! An engine with a program that writes a stream and reads one.

use std::time::Duration;

use fastrand::Rng;

use super::super::{content, isn, segments};
use crate::tcp::*;

/// What takes part in a transfer.
pub trait Station {
    fn receive(&mut self, bytes: &[u8], now: Duration);
    /// The segments to send now.
    fn send(&mut self, now: Duration) -> Vec<Vec<u8>>;
    fn deadline(&self) -> Option<Duration>;
    /// Whether its part is done.
    fn is_done(&self) -> bool;
    /// What it has to say when things go wrong.
    fn describe(&self) -> String;
}

/// An engine, and its program.
pub struct Host {
    pub connection: Option<Connection>,
    config: TcpConfig,
    /// How many bytes it sends, and how many it expects.
    to_send: u64,
    expected: u64,
    pub got: u64,
    /// Bytes a millisecond that it reads, and the reads it owes; 0 reads all at once.
    reading: u64,
    read_at: Duration,
    random: Rng,
    isn: u32,
    /// When it sent or was waiting for nothing last, and the time-outs in a row since then.
    last: Duration,
    in_a_row: u32,
    /// The longest round trip of the path, if time-outs are to be judged by it, and the longest time that a time-out took so far.
    pub longest_round_trip: Option<Duration>,
    longest_wait: Duration,
    pub segments: u64,
    pub resent: u64,
    pub done_at: Option<Duration>,
}

impl Host {
    pub fn new(connection: Option<Connection>, config: TcpConfig, to_send: u64, expected: u64, seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let isn = match random.u8(..6) {
            0 => 0,
            1 => 1,
            2 => u32::MAX,
            3 => u32::MAX - 2000,
            4 => 0x7fff_ffff,
            _ => random.u32(..),
        };
        Self {
            connection,
            config,
            to_send,
            expected,
            got: 0,
            reading: 0,
            read_at: Duration::ZERO,
            random,
            isn,
            last: Duration::ZERO,
            in_a_row: 0,
            longest_round_trip: None,
            longest_wait: Duration::ZERO,
            segments: 0,
            resent: 0,
            done_at: None,
        }
    }

    /// Reads so many bytes a millisecond.
    pub fn reading(mut self, bytes: u64) -> Self {
        self.reading = bytes;
        self
    }

    pub fn client(config: TcpConfig, to_send: u64, expected: u64, seed: u64) -> Self {
        let connection = Connection::connect(config, 51000, 80, isn(seed as u32), Duration::ZERO);
        Self::new(Some(connection), config, to_send, expected, seed)
    }

    pub fn server(config: TcpConfig, to_send: u64, expected: u64, seed: u64) -> Self {
        Self::new(None, config, to_send, expected, seed)
    }

    /// What a program does: writes in pieces, reads, checks what it reads.
    fn run_program(&mut self, now: Duration) {
        let Some(connection) = &mut self.connection else { return };
        if connection.state() != State::SynSent && !connection.is_closed() {
            if self.to_send > 0 && connection.unsent() < 100_000 {
                let piece = self.to_send.min(1 + self.random.u64(..300_000));
                connection.offer(piece).unwrap();
                self.to_send -= piece;
            }
            if self.to_send == 0 {
                connection.shutdown();
            }
        }
        let mut most = usize::MAX;
        if self.reading > 0 {
            if now < self.read_at {
                return;
            }
            most = (self.reading * 10) as usize;
            self.read_at = now + Duration::from_millis(10);
        }
        let mut some = [0; 8192];
        while most > 0 {
            let len = connection.read(&mut some[..most.min(8192)]);
            if len == 0 {
                break;
            }
            assert_eq!(some[..len], *content(self.got, len), "the stream at {}", self.got);
            self.got += len as u64;
            most -= len;
        }
        assert!(self.got <= self.expected);
    }
}

impl Station for Host {
    fn receive(&mut self, bytes: &[u8], now: Duration) {
        let segment = Segment::parse(bytes).unwrap();
        if let Some(connection) = &mut self.connection {
            let events = connection.receive(&segment, now);
            // A back-off lasts until there is a sample, which is when something new is acknowledged (RFC 6298 5.7, Karn's rule).
            if events.intersects(Events::ACKNOWLEDGED | Events::ESTABLISHED) {
                self.in_a_row = 0;
            }
        } else if segment.header.flags == Flags::SYN {
            self.connection = Some(Connection::accept(self.config, &segment, isn(self.isn), now));
        }
        self.last = now;
    }

    fn send(&mut self, now: Duration) -> Vec<Vec<u8>> {
        self.run_program(now);
        let Some(connection) = &mut self.connection else { return Vec::new() };
        let mut all = Vec::new();
        let passed = connection.deadline().is_some_and(|at| at <= now);
        while let Some(out) = connection.poll(now) {
            let len = out.payload.end - out.payload.start;
            let bits = out.header.flags & (Flags::FIN | Flags::SYN | Flags::RST);
            assert!(len <= u64::from(out.mss) || bits.is_empty(), "{out:?}");
            assert!(len <= u64::from(self.config.max_burst.max(out.mss.into())), "{out:?}");
            assert!(out.payload.end <= connection.offered());
            self.segments += 1;
            self.resent += u64::from(out.retransmission && len > 0);
            let more = segments(&out);
            assert!(more.iter().all(|bytes| bytes.len() <= 20 + usize::from(self.config.mss)), "{out:?}");
            all.extend(more);
            assert!(all.len() < 100_000, "{connection:?} does not stop");
        }
        if !all.is_empty() {
            let waited = now.saturating_sub(self.last);
            if let Some(round_trip) = self.longest_round_trip {
                // RFC 6298 2.3: no sample is longer than this, and the variation no more than the sample. Where an ACK was lost the sample
                // has a time-out in it.
                let sample = round_trip + self.longest_wait;
                let timeout = sample + (4 * sample).max(Duration::from_millis(200));
                // Without a sample it is 1 s, and 3 s after a lost SYN.
                let timeout = if connection.round_trip().is_some() { timeout } else { timeout.max(Duration::from_secs(3)) };
                let explained = timeout.saturating_mul(1 << self.in_a_row.min(10)).min(Duration::from_secs(60));
                assert!(waited <= explained, "a stall of {waited:?} until {now:?}, {explained:?} explained: {connection:?}");
            }
            if passed {
                self.longest_wait = self.longest_wait.max(waited);
            }
            self.last = now;
            self.in_a_row += u32::from(passed);
        } else if connection.acknowledged() == connection.offered() {
            self.last = now;
        }
        assert!(connection.deadline().is_none_or(|at| at > now), "{connection:?} wants to be polled again at {now:?}");
        if self.is_done() && self.done_at.is_none() {
            self.done_at = Some(now);
        }
        all
    }

    fn deadline(&self) -> Option<Duration> {
        let connection = self.connection.as_ref()?;
        let reads = (self.reading > 0 && connection.readable() > 0).then_some(self.read_at);
        [connection.deadline(), reads].into_iter().flatten().min()
    }

    fn is_done(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| {
            assert_eq!(connection.error(), None, "{connection:?}");
            let over = matches!(connection.state(), State::TimeWait | State::Closed);
            assert!(!over || connection.acknowledged() == connection.offered());
            over && self.to_send == 0 && self.got == self.expected
        })
    }

    fn describe(&self) -> String {
        format!("got {} of {}, {} left, {:?}", self.got, self.expected, self.to_send, self.connection)
    }
}
