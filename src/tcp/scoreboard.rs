//! What was sent and is not acknowledged yet, and what became of it (RFC 2018, 6675).

use std::collections::VecDeque;
use std::ops::Range;

use super::nanos::Nanos;

/// What is believed of a range of sent positions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// under way
    InFlight,
    /// reported as arrived, though not yet acknowledged
    Sacked,
    /// lost, and to be sent again
    Lost,
}

/// A range of positions that was sent in one go, or a part of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub start: u64,
    pub end: u64,
    /// when, the last time
    pub sent_at: Nanos,
    pub fate: Fate,
    /// whether it was sent more than once
    pub resent: bool,
}

impl Record {
    fn len(&self) -> u64 {
        self.end - self.start
    }
}

/// The records of all positions from the first unacknowledged one to the next to be sent, in order and without gaps.
///
/// A burst is one record as long as one thing is known of it, and neighbours that have arrived become one: the work of an ACK depends on
/// the holes that it reports, not on the window.
#[derive(Clone, Debug, Default)]
pub(super) struct Scoreboard {
    records: VecDeque<Record>,
    in_flight: u64,
    sacked: u64,
    lost: u64,
    /// No record that ends behind it was sent more than once.
    resent_below: u64,
    /// No record before it is lost.
    lost_from: u64,
}

/// Records beyond this many give their memory back when all is acknowledged.
const KEPT: usize = 16;

impl Scoreboard {
    /// The bytes under way: neither arrived nor lost.
    #[inline]
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// The bytes that were reported as arrived.
    #[inline]
    pub fn sacked(&self) -> u64 {
        self.sacked
    }

    /// The bytes that are lost and not sent again yet.
    #[inline]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether all is acknowledged.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether nothing is known but that it was sent once.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.sacked == 0 && self.lost == 0 && self.records.front().is_none_or(|first| self.resent_below <= first.start)
    }

    /// The first record.
    pub fn first(&self) -> Option<&Record> {
        self.records.front()
    }

    /// The last record.
    pub fn last(&self) -> Option<&Record> {
        self.records.back()
    }

    /// The bytes of the heap that it holds.
    pub fn heap_bytes(&self) -> usize {
        self.records.capacity() * size_of::<Record>()
    }

    /// Adds what is sent for the first time, behind all others.
    pub fn push(&mut self, range: Range<u64>, now: Nanos) {
        debug_assert!(range.start < range.end && self.last().is_none_or(|last| last.end == range.start));
        self.in_flight += range.end - range.start;
        self.records.push_back(Record { start: range.start, end: range.end, sent_at: now, fate: Fate::InFlight, resent: false });
    }

    /// Everything before `upto` has arrived. `arrived` is called with each record, or part of one, for which that is news. Returns how many
    /// bytes that were.
    pub fn acknowledge(&mut self, upto: u64, mut arrived: impl FnMut(&Record)) -> u64 {
        let mut news = 0;
        while let Some(first) = self.records.front_mut() {
            if first.start >= upto {
                break;
            }
            let whole = first.end <= upto;
            let part = Record { end: first.end.min(upto), ..*first };
            first.start = part.end;
            if whole {
                self.records.pop_front();
            }
            *self.count(part.fate) -= part.len();
            if part.fate != Fate::Sacked {
                news += part.len();
                arrived(&part);
            }
        }
        if self.records.is_empty() && self.records.capacity() > KEPT {
            self.records = VecDeque::new();
        }
        news
    }

    /// As [`acknowledge`](Self::acknowledge) where [nothing is known](Self::is_plain) but that it was sent once. Returns when the first of what has
    /// arrived was sent, and the last record of it; `None` when there is nothing.
    #[inline]
    pub fn acknowledge_plain(&mut self, upto: u64) -> Option<(Nanos, Record)> {
        let mut last = *self.records.front()?;
        let first_sent = last.sent_at;
        self.in_flight -= upto - last.start;
        loop {
            if last.end > upto {
                self.records.front_mut()?.start = upto;
                last.end = upto;
                return Some((first_sent, last));
            }
            self.records.pop_front();
            match self.records.front() {
                Some(next) if next.start < upto => last = *next,
                _ => break,
            }
        }
        if self.records.is_empty() && self.records.capacity() > KEPT {
            self.records = VecDeque::new();
        }
        Some((first_sent, last))
    }

    /// The part of `range` that was sent has arrived, out of order. As [`acknowledge`](Self::acknowledge).
    pub fn sack(&mut self, range: Range<u64>, mut arrived: impl FnMut(&Record)) -> u64 {
        let mut news = 0;
        let passed = self.each_missing(range, |own, index| {
            let part = own.records[index];
            news += part.len();
            arrived(&part);
            own.set(index, Fate::Sacked);
        });
        if news > 0 {
            self.merge(passed.start.saturating_sub(1), passed.end);
        }
        news
    }

    /// Marks as lost what is under way and for which `is_lost` says so. `is_lost` also says when it need not be asked any more, for records
    /// that were sent once: those that follow were sent later. Returns the bytes.
    pub fn lose(&mut self, mut is_lost: impl FnMut(&Record) -> Verdict) -> u64 {
        let mut total = 0;
        for index in 0..self.records.len() {
            let record = self.records[index];
            if record.fate != Fate::InFlight {
                continue;
            }
            match is_lost(&record) {
                Verdict::Lost => {
                    total += record.len();
                    self.set(index, Fate::Lost);
                }
                Verdict::Wait => {}
                Verdict::Later if record.start >= self.resent_below => break,
                Verdict::Later => {}
            }
        }
        total
    }

    /// The first `len` bytes, from the first unacknowledged position, are lost, unless they are known to be or have arrived. What a sender
    /// without SACK knows after three duplicates or a partial ACK (RFC 6582).
    pub fn lose_first(&mut self, len: u64) {
        let Some(&first) = self.records.front() else { return };
        if first.fate == Fate::InFlight {
            if first.len() > len {
                self.split(0, first.start + len);
            }
            self.set(0, Fate::Lost);
        }
    }

    /// What is under way in segments larger than `mss` is lost: the path has no room for it. Returns how many bytes.
    pub fn lose_larger(&mut self, mss: u64) -> u64 {
        let before = self.lost;
        for index in 0..self.records.len() {
            let record = self.records[index];
            if record.fate == Fate::InFlight && record.len() > mss {
                self.set(index, Fate::Lost);
            }
        }
        self.lost - before
    }

    /// Everything that has not arrived is lost. With `reneged`, everything that was only reported as arrived is lost as well, as the
    /// receiver threw it away (RFC 2018 8).
    pub fn lose_all(&mut self, reneged: bool) {
        for index in 0..self.records.len() {
            let record = &mut self.records[index];
            if reneged && record.fate == Fate::Sacked {
                // It may be several that were one since they had arrived: when and how often each was sent is not known any more.
                record.resent = true;
                self.resent_below = self.resent_below.max(record.end);
                self.set(index, Fate::Lost);
            } else if record.fate == Fate::InFlight {
                self.set(index, Fate::Lost);
            }
        }
    }

    /// The first run of lost bytes, of `most` bytes at most.
    pub fn next_lost(&mut self, most: u64) -> Option<Range<u64>> {
        if self.lost == 0 {
            return None;
        }
        let from = self.records.partition_point(|record| record.end <= self.lost_from);
        let mut records = self.records.range(from..).skip_while(|record| record.fate != Fate::Lost);
        let first = records.next()?;
        let mut end = first.end;
        for record in records.take_while(|record| record.fate == Fate::Lost) {
            if end - first.start >= most {
                break;
            }
            end = record.end;
        }
        self.lost_from = first.start;
        Some(first.start..end.min(first.start + most))
    }

    /// `range`, which was sent before, is sent again. What of it had arrived stays so.
    pub fn resend(&mut self, range: Range<u64>, now: Nanos) {
        let end = range.end;
        let passed = self.each_missing(range, |own, index| {
            own.set(index, Fate::InFlight);
            let record = &mut own.records[index];
            record.sent_at = now;
            record.resent = true;
        });
        self.merge(passed.start, passed.end);
        self.resent_below = self.resent_below.max(end);
    }

    /// Calls `each` for every record of `range` that has not arrived, cut to the range. Returns which records it went through.
    fn each_missing(&mut self, range: Range<u64>, mut each: impl FnMut(&mut Self, usize)) -> Range<usize> {
        let mut index = self.records.partition_point(|record| record.end <= range.start);
        let from = index;
        while let Some(&record) = self.records.get(index) {
            if record.start >= range.end {
                break;
            }
            if record.fate != Fate::Sacked {
                if record.start < range.start {
                    self.split(index, range.start);
                    index += 1;
                    continue;
                }
                if record.end > range.end {
                    self.split(index, range.end);
                }
                each(self, index);
            }
            index += 1;
        }
        from..index
    }

    fn count(&mut self, fate: Fate) -> &mut u64 {
        match fate {
            Fate::InFlight => &mut self.in_flight,
            Fate::Sacked => &mut self.sacked,
            Fate::Lost => &mut self.lost,
        }
    }

    fn set(&mut self, index: usize, fate: Fate) {
        let record = self.records[index];
        *self.count(record.fate) -= record.len();
        *self.count(fate) += record.len();
        self.records[index].fate = fate;
        if fate == Fate::Lost {
            self.lost_from = self.lost_from.min(record.start);
        }
    }

    /// Makes two of one record, the second from `at`.
    fn split(&mut self, index: usize, at: u64) {
        let second = Record { start: at, ..self.records[index] };
        self.records[index].end = at;
        self.records.insert(index + 1, second);
    }

    /// Makes one of neighbours of which the same is known, among the records `from..=to`.
    fn merge(&mut self, from: usize, to: usize) {
        let to = to.min(self.records.len().saturating_sub(1));
        let mut kept = from;
        for index in from + 1..=to {
            let (left, right) = (self.records[kept], self.records[index]);
            let same =
                left.fate == right.fate && (left.fate == Fate::Sacked || (left.sent_at == right.sent_at && left.resent == right.resent));
            if same {
                self.records[kept].end = right.end;
                self.records[kept].resent |= right.resent;
            } else {
                kept += 1;
                self.records[kept] = right;
            }
        }
        if kept < to {
            self.records.drain(kept + 1..=to);
        }
    }
}

/// What [`Scoreboard::lose`] asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// it is lost
    Lost,
    /// it is not, yet
    Wait,
    /// it was sent too late to be judged
    Later,
}

#[cfg(test)]
mod tests;
