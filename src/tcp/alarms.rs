//! When which connection wants to be looked at: a heap with one place for each, so that connections which wait cost nothing.

use std::time::Duration;

/// The alarms of connections, which are named by small numbers.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    /// A binary heap, the earliest first.
    heap: Vec<(Duration, u32)>,
    /// Where each connection is in the heap.
    places: Vec<Option<u32>>,
}

impl Alarms {
    /// Wakes `who` at `at`, or earlier if it was to be woken earlier: an alarm that is put off needs no work until it rings.
    pub fn set(&mut self, who: u32, at: Duration) {
        if self.places.len() <= who as usize {
            self.places.resize(who as usize + 1, None);
        }
        let place = match self.places[who as usize] {
            Some(place) if self.heap[place as usize].0 <= at => return,
            Some(place) => {
                self.heap[place as usize].0 = at;
                place as usize
            }
            None => {
                self.heap.push((at, who));
                self.heap.len() - 1
            }
        };
        self.rise(place);
    }

    /// When `who` is woken, if it is.
    #[inline]
    pub fn of(&self, who: u32) -> Option<Duration> {
        let place = (*self.places.get(who as usize)?)?;
        Some(self.heap.get(place as usize)?.0)
    }

    /// Does not wake `who`.
    pub fn clear(&mut self, who: u32) {
        if let Some(place) = self.places.get(who as usize).copied().flatten() {
            self.remove(place as usize);
        }
    }

    /// When the first one rings.
    pub fn first(&self) -> Option<Duration> {
        self.heap.first().map(|(at, _)| *at)
    }

    /// One whose time has come.
    pub fn take(&mut self, now: Duration) -> Option<u32> {
        let (at, who) = *self.heap.first()?;
        if at > now {
            return None;
        }
        self.remove(0);
        Some(who)
    }

    fn remove(&mut self, place: usize) {
        let (_, who) = self.heap.swap_remove(place);
        self.places[who as usize] = None;
        if place < self.heap.len() {
            let place = self.rise(place);
            self.sink(place);
        }
    }

    /// Moves an entry up to where it belongs; returns where that is.
    fn rise(&mut self, mut place: usize) -> usize {
        let entry = self.heap[place];
        while place > 0 && entry.0 < self.heap[(place - 1) / 2].0 {
            let above = (place - 1) / 2;
            self.put(place, self.heap[above]);
            place = above;
        }
        self.put(place, entry);
        place
    }

    fn sink(&mut self, mut place: usize) {
        let entry = self.heap[place];
        loop {
            let child = match (self.heap.get(2 * place + 1), self.heap.get(2 * place + 2)) {
                (Some(left), Some(right)) if right.0 < left.0 => 2 * place + 2,
                (Some(_), _) => 2 * place + 1,
                _ => break,
            };
            if entry.0 <= self.heap[child].0 {
                break;
            }
            self.put(place, self.heap[child]);
            place = child;
        }
        self.put(place, entry);
    }

    fn put(&mut self, place: usize, entry: (Duration, u32)) {
        self.heap[place] = entry;
        self.places[entry.1 as usize] = Some(place as u32);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Action {
        Set(u32, u64),
        Clear(u32),
        Take(u64),
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            4 => (0..20_u32, 0..100_u64).prop_map(|(who, at)| Action::Set(who, at)),
            1 => (0..25_u32).prop_map(Action::Clear),
            2 => (0..110_u64).prop_map(Action::Take),
        ]
    }

    proptest! {
        #[test]
        fn they_ring_in_order_and_once(actions in proptest::collection::vec(action(), 0..200)) {
            let (mut alarms, mut model) = (Alarms::default(), BTreeMap::<u32, u64>::new());
            for action in actions {
                match action {
                    Action::Set(who, at) => {
                        alarms.set(who, Duration::from_nanos(at));
                        let earliest = model.get(&who).map_or(at, |earlier| at.min(*earlier));
                        model.insert(who, earliest);
                    }
                    Action::Clear(who) => {
                        alarms.clear(who);
                        model.remove(&who);
                    }
                    Action::Take(now) => {
                        let first = model.values().min().copied().filter(|first| *first <= now);
                        match alarms.take(Duration::from_nanos(now)) {
                            Some(who) => prop_assert_eq!(model.remove(&who), first),
                            None => prop_assert_eq!(first, None),
                        }
                    }
                }
                prop_assert_eq!(alarms.first(), model.values().min().map(|at| Duration::from_nanos(*at)));
                prop_assert_eq!(alarms.heap.len(), model.len());
                for who in 0..25 {
                    prop_assert_eq!(alarms.of(who), model.get(&who).map(|at| Duration::from_nanos(*at)));
                }
            }
        }
    }
}
