//! A path through a network that delays, loses, duplicates and reorders what it carries: what `netem` is to a kernel. Time is an argument, and what
//! happens to a packet is decided by a seed and its place in the order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use fastrand::Rng;

/// What a path does to packets. Chances are in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Impairment {
    /// How long each is on its way.
    pub delay: Duration,
    /// By how much more it may be, drawn for each by itself: what comes later may be there first.
    pub jitter: Duration,
    /// How many are lost.
    pub loss: u64,
    /// How many come twice.
    pub duplication: u64,
    /// Bytes a second, 0 for no bound.
    pub rate: u64,
    /// With a bounded rate: how many bytes may wait, what does not fit is lost.
    pub queue: u64,
    /// With a bounded rate: bytes that each packet takes beyond its own.
    pub overhead: u64,
}

/// One direction of a path.
#[derive(Debug)]
pub struct Path {
    impairment: Impairment,
    random: Rng,
    /// By their time and their order.
    under_way: BinaryHeap<Reverse<(Duration, u64, Vec<u8>)>>,
    order: u64,
    free_at: Duration,
    lost: u64,
    carried: u64,
}

impl Path {
    /// A path. The same packets in the same order meet the same fate for the same `seed`.
    pub fn new(impairment: Impairment, seed: u64) -> Self {
        let (under_way, order, free_at, lost, carried) = Default::default();
        Self { impairment, random: Rng::with_seed(seed), under_way, order, free_at, lost, carried }
    }

    /// A packet enters.
    pub fn send(&mut self, packet: Vec<u8>, now: Duration) {
        let Impairment { loss, duplication, .. } = self.impairment;
        self.carried += 1;
        let leaves = self.leaves(packet.len() as u64, now);
        // Drawn for each, so that the fate of one does not depend on that of others.
        let (lost, twice) = (self.happens(loss), self.happens(duplication));
        let late = [self.late(), self.late()];
        let Some(leaves) = leaves.filter(|_| !lost) else {
            self.lost += 1;
            return;
        };
        if twice {
            self.enqueue(packet.clone(), leaves + late[1]);
        }
        self.enqueue(packet, leaves + late[0]);
    }

    /// When a packet has left the queue; `None` when there is no room in it.
    fn leaves(&mut self, len: u64, now: Duration) -> Option<Duration> {
        let Impairment { rate, queue, overhead, .. } = self.impairment;
        if rate == 0 {
            return Some(now);
        }
        let (len, waiting) = (len + overhead, self.free_at.saturating_sub(now));
        if waiting.as_nanos() as u64 * rate / 1_000_000_000 + len > queue {
            return None;
        }
        self.free_at = self.free_at.max(now) + Duration::from_nanos(len * 1_000_000_000 / rate);
        Some(self.free_at)
    }

    /// True so many times in a million.
    fn happens(&mut self, millionths: u64) -> bool {
        self.random.u64(..1_000_000) < millionths
    }

    fn late(&mut self) -> Duration {
        let jitter = self.impairment.jitter.as_nanos() as u64;
        Duration::from_nanos(if jitter > 0 { self.random.u64(..jitter) } else { 0 })
    }

    fn enqueue(&mut self, packet: Vec<u8>, at: Duration) {
        self.order += 1;
        self.under_way.push(Reverse((at + self.impairment.delay, self.order, packet)));
    }

    /// When the next packet arrives.
    pub fn next(&self) -> Option<Duration> {
        self.under_way.peek().map(|Reverse((at, ..))| *at)
    }

    /// A packet that has arrived by now.
    pub fn take(&mut self, now: Duration) -> Option<Vec<u8>> {
        if self.next()? > now {
            return None;
        }
        self.under_way.pop().map(|Reverse((.., packet))| packet)
    }

    /// How many packets entered.
    pub fn carried(&self) -> u64 {
        self.carried
    }

    /// How many of them were lost.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sends 10,000 numbered packets, one a millisecond. When each arrived, in the order of arrival.
    fn arrivals(impairment: Impairment, seed: u64) -> Vec<(u32, Duration)> {
        let (mut path, mut arrived) = (Path::new(impairment, seed), Vec::new());
        let number = |packet: Vec<u8>| u32::from_be_bytes(packet[..4].try_into().unwrap());
        for sent in 0..10_000_u32 {
            let now = MS * sent;
            path.send(sent.to_be_bytes().repeat(25), now);
            while let Some(packet) = path.take(now) {
                arrived.push((number(packet), now));
            }
        }
        while let Some(at) = path.next() {
            assert_eq!(path.take(at - Duration::from_nanos(1)), None);
            arrived.push((number(path.take(at).unwrap()), at));
        }
        assert_eq!(path.carried(), 10_000);
        assert!(impairment.duplication > 0 || path.lost() == 10_000 - arrived.len() as u64);
        arrived
    }

    #[test]
    fn without_an_impairment_all_arrives_at_once_and_in_order() {
        assert_eq!(arrivals(Impairment::default(), 1), (0..10_000).map(|number| (number, MS * number)).collect::<Vec<_>>());
    }

    #[test]
    fn a_delay_is_kept() {
        let delayed = arrivals(Impairment { delay: 20 * MS, ..Impairment::default() }, 1);
        assert_eq!(delayed, (0..10_000).map(|number| (number, MS * (number + 20))).collect::<Vec<_>>());
    }

    #[test]
    fn about_as_many_are_lost_as_asked_for_and_the_same_ones_for_a_seed() {
        let lossy = Impairment { loss: 50_000, ..Impairment::default() };
        for seed in 0..5 {
            let arrived = arrivals(lossy, seed);
            // Five standard deviations.
            assert!((10_000 - arrived.len()).abs_diff(500) < 110, "{} of 10,000", arrived.len());
            assert_eq!(arrived, arrivals(lossy, seed));
            assert_ne!(arrived, arrivals(lossy, seed + 100));
        }
    }

    #[test]
    fn jitter_reorders_and_duplicates_come_behind_the_first() {
        let jittered = Impairment { delay: 5 * MS, jitter: 4 * MS, duplication: 10_000, ..Impairment::default() };
        let arrived = arrivals(jittered, 3);
        assert!(arrived.is_sorted_by_key(|(_, at)| *at) && !arrived.is_sorted());
        assert!((arrived.len() - 10_000).abs_diff(100) < 50, "{}", arrived.len());
        let mut times = arrived.iter().map(|(number, at)| (*number, at.saturating_sub(MS * *number)));
        // Seen when the next one is sent: up to a millisecond later.
        assert!(times.all(|(_, took)| (5 * MS..=10 * MS).contains(&took)));
    }

    #[test]
    fn a_bounded_rate_makes_a_queue_that_overflows() {
        // A packet of 100 bytes each millisecond; 50 of them go through in 100 ms, and 10 wait.
        let narrow = Impairment { rate: 50_000, queue: 1000, ..Impairment::default() };
        let arrived = arrivals(narrow, 1);
        assert!(arrived.len().abs_diff(5000) <= 10, "{}", arrived.len());
        assert!(arrived.iter().all(|(number, at)| *at - MS * *number <= 21 * MS));
    }
}
