//! A receiver that is not the engine: bookkeeping by sets of ranges, headers read by etherparse, its own rules for ACKs and windows.

use std::collections::BTreeMap;
use std::time::Duration;

use etherparse::{TcpHeader as Header, TcpOptionElement, TcpSlice};
use fastrand::Rng;

use super::super::content;
use super::host::Station;

/// What kind of receiver it is.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    pub sack: bool,
    pub timestamps: bool,
    pub scale: Option<u8>,
    pub mss: u16,
    /// the buffer in bytes
    pub buffer: u64,
    /// bytes a millisecond that are taken out; 0 takes all at once
    pub reading: u64,
    /// how many segments one ACK is for
    pub every: u32,
    /// how often, in millionths of the segments, it forgets what it has out of order (RFC 2018 8)
    pub reneging: u64,
}

/// It accepts a connection, receives a stream to its end, answers the FIN with its own.
pub struct Receiver {
    habits: Habits,
    random: Rng,
    isn: u32,
    peer_isn: Option<u32>,
    /// Positions that have arrived behind `next`: start to end. And the order in which they came.
    ranges: BTreeMap<u64, u64>,
    latest: u64,
    next: u64,
    read: u64,
    read_at: Duration,
    edge: u64,
    expected: u64,
    fin: bool,
    fin_acknowledged: bool,
    recent: u32,
    owed: u32,
    answer: bool,
    ack_at: Option<Duration>,
    told_zero: bool,
    /// Segments that had arrived before.
    pub duplicates: u64,
}

impl Receiver {
    pub fn new(habits: Habits, expected: u64, seed: u64) -> Self {
        Self {
            habits,
            random: Rng::with_seed(seed),
            isn: seed as u32 ^ 0xffff_0000,
            peer_isn: None,
            ranges: BTreeMap::new(),
            latest: 0,
            next: 0,
            read: 1,
            read_at: Duration::ZERO,
            edge: 0,
            expected,
            fin: false,
            fin_acknowledged: false,
            recent: 0,
            owed: 0,
            answer: false,
            ack_at: None,
            told_zero: false,
            duplicates: 0,
        }
    }

    fn take_out(&mut self, now: Duration) {
        let arrived = self.next.min(self.expected + 1).max(1);
        if self.habits.reading == 0 {
            self.read = arrived;
        } else if now >= self.read_at {
            self.read = arrived.min(self.read + 20 * self.habits.reading);
            self.read_at = now + Duration::from_millis(20);
        }
        if self.told_zero && self.window() >= u64::from(self.habits.mss).min(self.habits.buffer / 2) {
            self.answer = true;
        }
    }

    /// What there is room for.
    fn window(&self) -> u64 {
        let scale = self.habits.scale.unwrap_or(0);
        let free = self.habits.buffer - (self.next.min(self.expected + 1).max(1) - self.read);
        let edge = (self.next + free).max(self.edge);
        let units = (edge - self.next) >> scale;
        units.min(65535) << scale
    }

    fn header(&mut self, seq: u32, now: Duration) -> Header {
        let window = self.window();
        self.told_zero = window < u64::from(self.habits.mss);
        self.edge = self.edge.max(self.next + window);
        let mut header = Header::new(80, 51000, seq, (window >> self.habits.scale.unwrap_or(0)) as u16);
        header.ack = true;
        header.acknowledgment_number = self.peer_isn.unwrap().wrapping_add(self.next as u32);
        let mut options = Vec::new();
        if self.habits.timestamps {
            options.push(TcpOptionElement::Timestamp(now.as_millis() as u32, self.recent));
        }
        if self.habits.sack && !self.ranges.is_empty() {
            let number = |at: u64| self.peer_isn.unwrap().wrapping_add(at as u32);
            let mut blocks: Vec<_> = self.ranges.iter().map(|(&start, &end)| (start, end)).collect();
            // The latest first, the others as they are.
            blocks.sort_by_key(|&(start, end)| !(start..end).contains(&self.latest));
            let mut blocks = blocks.into_iter().take(3).map(|(start, end)| (number(start), number(end)));
            let first = blocks.next().unwrap();
            options.push(TcpOptionElement::SelectiveAcknowledgement(first, [blocks.next(), blocks.next(), None]));
        }
        header.set_options(&options).unwrap();
        header
    }

    fn bytes(header: &Header) -> Vec<u8> {
        header.to_bytes().to_vec()
    }

    fn insert(&mut self, start: u64, end: u64) {
        if end <= self.next || self.ranges.range(..=start).next_back().is_some_and(|(_, &known)| known >= end) {
            self.duplicates += 1;
        }
        let mut range = (start.max(self.next), end);
        if range.0 >= range.1 {
            return;
        }
        self.latest = range.0;
        let touched: Vec<u64> =
            self.ranges.iter().filter(|&(&from, &to)| from <= range.1 && range.0 <= to).map(|(&from, _)| from).collect();
        for from in touched {
            let to = self.ranges.remove(&from).unwrap();
            range = (range.0.min(from), range.1.max(to));
        }
        if range.0 <= self.next {
            self.next = range.1;
        } else {
            self.ranges.insert(range.0, range.1);
        }
    }
}

impl Station for Receiver {
    fn receive(&mut self, bytes: &[u8], now: Duration) {
        let slice = TcpSlice::from_slice(bytes).expect("a header that another parser can read");
        let header = slice.to_header();
        assert!(!header.rst, "reset at {now:?}: {}", self.describe());
        let mut stamp = None;
        for option in header.options_iterator() {
            if let TcpOptionElement::Timestamp(value, _) = option.expect("an option that another parser can read") {
                stamp = Some(value);
            }
        }
        if header.syn {
            self.peer_isn.get_or_insert(header.sequence_number);
            self.next = self.next.max(1);
            self.recent = stamp.unwrap_or(0);
            self.answer = true;
            return;
        }
        let Some(peer_isn) = self.peer_isn else { return };
        assert_eq!(stamp.is_some(), self.habits.timestamps, "timestamps as agreed");
        let offset = header.sequence_number.wrapping_sub(peer_isn.wrapping_add(self.next as u32)) as i32;
        let start = self.next.checked_add_signed(offset.into()).expect("a number of the stream");
        let payload = slice.payload();
        let end = start + payload.len() as u64 + u64::from(header.fin);
        if self.fin && header.acknowledgment_number == self.isn.wrapping_add(2) {
            self.fin_acknowledged = true;
        }
        assert!(payload.len() + header.header_len() <= 20 + usize::from(self.habits.mss), "{} bytes of payload", payload.len());
        assert!(end <= self.edge.max(self.next + 1), "position {end} is sent, {} was allowed: {}", self.edge, self.describe());
        if !payload.is_empty() {
            assert_eq!(payload, content(start - 1, payload.len()), "the stream at {}", start - 1);
            assert!(start > 0 && start - 1 + payload.len() as u64 <= self.expected, "more than was offered");
        }
        if header.fin {
            assert_eq!(end - 1, self.expected + 1, "a FIN before the end");
        }
        if end == start {
            // A probe asks for an answer.
            self.answer |= start < self.next;
            return;
        }
        let (holes, next) = (self.ranges.len(), self.next);
        if let Some(stamp) = stamp.filter(|_| start <= self.next) {
            self.recent = stamp;
        }
        self.insert(start, end);
        if self.random.u64(..1_000_000) < self.habits.reneging {
            self.ranges.clear();
        }
        self.fin |= self.next == self.expected + 2;
        self.owed += 1;
        if holes > 0 || !self.ranges.is_empty() || self.next == next || self.owed >= self.habits.every || self.fin {
            self.answer = true;
        } else {
            self.ack_at.get_or_insert(now + Duration::from_millis(40));
        }
    }

    fn send(&mut self, now: Duration) -> Vec<Vec<u8>> {
        if self.peer_isn.is_none() {
            return Vec::new();
        }
        self.take_out(now);
        if self.next == 1 && std::mem::take(&mut self.answer) {
            let mut header = self.header(self.isn, now);
            header.syn = true;
            header.window_size = self.habits.buffer.min(65535) as u16;
            self.edge = self.edge.max(1 + u64::from(header.window_size));
            let mut options = vec![TcpOptionElement::MaximumSegmentSize(self.habits.mss)];
            if self.habits.sack {
                options.push(TcpOptionElement::SelectiveAcknowledgementPermitted);
            }
            if let Some(scale) = self.habits.scale {
                options.push(TcpOptionElement::WindowScale(scale));
            }
            if self.habits.timestamps {
                options.push(TcpOptionElement::Timestamp(now.as_millis() as u32, self.recent));
            }
            header.set_options(&options).unwrap();
            return vec![Self::bytes(&header)];
        }
        if self.ack_at.is_some_and(|at| at <= now) {
            self.answer = true;
        }
        let fin = self.fin && !self.fin_acknowledged;
        if !std::mem::take(&mut self.answer) {
            return Vec::new();
        }
        self.owed = 0;
        self.ack_at = None;
        let mut header = self.header(self.isn.wrapping_add(if self.fin && self.fin_acknowledged { 2 } else { 1 }), now);
        header.fin = fin;
        if fin {
            // Again, until it is acknowledged.
            self.ack_at = Some(now + Duration::from_millis(700));
        }
        vec![Self::bytes(&header)]
    }

    fn deadline(&self) -> Option<Duration> {
        let reads = (self.habits.reading > 0 && self.read < self.next.min(self.expected + 1)).then_some(self.read_at);
        [self.ack_at, reads].into_iter().flatten().min()
    }

    fn is_done(&self) -> bool {
        self.fin && self.fin_acknowledged
    }

    fn describe(&self) -> String {
        format!(
            "receiver: next {} of {}, edge {}, ranges {:?}, fin {} {}",
            self.next, self.expected, self.edge, self.ranges, self.fin, self.fin_acknowledged
        )
    }
}
