//! The free buffers of a pool: given back by any thread, taken by one.
//!
//! Giving back pushes onto a list by compare-and-swap. Taking never pops from that list: it takes the *whole* list by one swap and goes
//! through it privately. So there is no ABA problem, no lock, and one atomic operation for a batch of takes.
//!
//! What came back lately is taken first: its cache lines are still here. So what was never taken lies in short pieces aside. But what came back
//! just now waits for one turn: where a device on another processor has read it, its lines are on their way back meanwhile.

#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, Ordering};

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, Ordering};

use crossbeam::utils::CachePadded;

const EMPTY: u32 = u32::MAX;
const CLOSED: u32 = u32::MAX - 1;

/// The part that any thread may touch: a list head, and for each index the next one.
pub(crate) struct FreeList {
    head: CachePadded<AtomicU32>,
    next: Box<[AtomicU32]>,
}

/// The lists that are private to the taker.
#[derive(Debug)]
pub(crate) struct Chain {
    /// The first index of the one that is being taken from.
    first: u32,
    /// The first index of the one after it.
    waiting: u32,
    /// The first indices of those that were never taken from.
    fresh: Vec<u32>,
}

/// Indices in a list that was never taken from: a usual burst.
const PIECE: u32 = 32;

/// The links of a list, small enough to stay in a register.
#[derive(Clone, Copy)]
pub(crate) struct Links<'l>(&'l [AtomicU32]);

impl<'l> Links<'l> {
    /// As [`FreeList::link`].
    #[inline(always)]
    pub(crate) fn link(self, index: u32, first: u32) {
        self.after(index).store(first, Ordering::Relaxed);
    }

    #[inline(always)]
    #[allow(unsafe_code)]
    fn after(self, index: u32) -> &'l AtomicU32 {
        debug_assert!((index as usize) < self.0.len(), "no index {index} in the list");
        // SAFETY: an index is handed out by `full` and `take` alone, below `len`; what is given back was taken from this list (a buffer keeps
        // its own, private), and EMPTY and CLOSED are told apart before. Unchecked, since it is two comparisons a frame otherwise.
        unsafe { self.0.get_unchecked(index as usize) }
    }
}

/// The list was closed: its owner is gone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closed;

impl FreeList {
    /// A list over the indices below `len`, all of them in the returned chain.
    pub(crate) fn full(len: u32) -> (Self, Chain) {
        assert!(len < CLOSED, "at most {CLOSED} buffers");
        let ends = |index: u32| index + 1 == len || (index + 1).is_multiple_of(PIECE);
        let next = (0..len).map(|index| AtomicU32::new(if ends(index) { EMPTY } else { index + 1 })).collect();
        let fresh = (0..len).step_by(PIECE as usize).collect();
        (Self { head: CachePadded::new(AtomicU32::new(EMPTY)), next }, Chain { first: EMPTY, waiting: EMPTY, fresh })
    }

    /// For each index the next one.
    #[inline(always)]
    pub(crate) fn links(&self) -> Links<'_> {
        Links(&self.next)
    }

    /// Puts `index` in front of `first`, the first index of a chain that is to be given back.
    #[inline(always)]
    pub(crate) fn link(&self, index: u32, first: u32) {
        self.links().link(index, first);
    }

    /// The place of the index that comes after `index`.
    #[inline(always)]
    fn after(&self, index: u32) -> &AtomicU32 {
        self.links().after(index)
    }

    /// Gives a chain of [linked](Self::link) indices back, by one atomic operation.
    #[inline]
    pub(crate) fn give_chain(&self, first: u32, last: u32) -> Result<(), Closed> {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if head == CLOSED {
                return Err(Closed);
            }
            self.link(last, head);
            match self.head.compare_exchange_weak(head, first, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => head = now,
            }
        }
    }

    /// How many indices a chain from `first` to `last` has that was refused.
    pub(crate) fn chain_len(&self, first: u32, last: u32) -> i64 {
        let (mut index, mut len) = (first, 1);
        while index != last {
            index = self.after(index).load(Ordering::Relaxed);
            len += 1;
        }
        len
    }

    /// Takes an index from the chain, which is filled again with all that was given back when it is empty.
    #[inline]
    pub(crate) fn take(&self, chain: &mut Chain) -> Option<u32> {
        self.takes(chain).next()
    }

    /// Takes many, one after the other, by an iterator that ends when there is none.
    #[inline(always)]
    pub(crate) fn takes(&self, chain: &mut Chain) -> impl Iterator<Item = u32> {
        // The first index stays in a register, from which the next one is found at once.
        let mut first = chain.first;
        std::iter::from_fn(move || {
            // Without a call, so that the caller's registers stay as they are.
            if first == EMPTY {
                first = std::mem::replace(&mut chain.waiting, self.head.swap(EMPTY, Ordering::Acquire));
                if first == EMPTY {
                    first = match chain.fresh.pop() {
                        Some(fresh) => fresh,
                        None => std::mem::replace(&mut chain.waiting, EMPTY),
                    };
                    if first == EMPTY {
                        return None;
                    }
                }
            }
            let index = first;
            first = self.after(index).load(Ordering::Relaxed);
            // At once, since nobody says when it is the last one.
            chain.first = first;
            Some(index)
        })
    }

    /// Ends the list: what is given back from now on is refused. Returns how many indices are in the list and the chain.
    pub(crate) fn close(&self, chain: &Chain) -> u32 {
        let heads = [self.head.swap(CLOSED, Ordering::Acquire), chain.first, chain.waiting];
        heads.iter().chain(&chain.fresh).map(|head| self.count(*head)).sum()
    }

    fn count(&self, mut head: u32) -> u32 {
        let mut count = 0;
        while head != EMPTY {
            count += 1;
            head = self.after(head).load(Ordering::Relaxed);
        }
        count
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_index_is_handed_out_once() {
        let (list, mut chain) = FreeList::full(5);
        let taken: HashSet<u32> = std::iter::from_fn(|| list.take(&mut chain)).collect();
        assert_eq!(taken, (0..5).collect());
        list.give_chain(3, 3).unwrap();
        assert_eq!(list.take(&mut chain), Some(3));
        assert_eq!(list.take(&mut chain), None);
    }

    #[test]
    fn what_came_back_waits_for_a_turn_while_there_is_something_else() {
        let (list, mut chain) = FreeList::full(3 * PIECE);
        let first: Vec<u32> = (0..PIECE).filter_map(|_| list.take(&mut chain)).collect();
        first.iter().for_each(|index| list.give_chain(*index, *index).unwrap());
        let second: Vec<u32> = (0..PIECE).filter_map(|_| list.take(&mut chain)).collect();
        assert!(first.iter().all(|index| !second.contains(index)), "fresh ones while they are on their way");
        let third: HashSet<u32> = (0..PIECE).filter_map(|_| list.take(&mut chain)).collect();
        assert_eq!(third, first.into_iter().collect());
        assert_eq!(std::iter::from_fn(|| list.take(&mut chain)).count(), PIECE as usize, "what was never taken comes when nothing is back");
    }

    #[test]
    fn what_waits_counts_when_the_list_is_closed() {
        let (list, mut chain) = FreeList::full(2 * PIECE);
        let index = list.take(&mut chain).unwrap();
        list.give_chain(index, index).unwrap();
        assert!((1..=PIECE).all(|_| list.take(&mut chain).is_some()));
        assert_eq!(chain.waiting, index);
        assert_eq!(list.close(&chain), PIECE);
    }

    #[test]
    fn a_chain_is_given_back_at_once() {
        let (list, mut chain) = FreeList::full(4);
        while list.take(&mut chain).is_some() {}
        list.link(2, 1);
        list.link(0, 2);
        assert_eq!(list.chain_len(0, 1), 3);
        list.give_chain(0, 1).unwrap();
        assert_eq!(std::iter::from_fn(|| list.take(&mut chain)).collect::<Vec<_>>(), [0, 2, 1]);
    }

    #[test]
    fn an_empty_list_has_nothing() {
        let (list, mut chain) = FreeList::full(0);
        assert_eq!(list.take(&mut chain), None);
    }

    #[test]
    fn a_closed_list_counts_what_it_holds_and_refuses_more() {
        let (list, mut chain) = FreeList::full(4);
        let index = list.take(&mut chain).unwrap();
        let out = list.take(&mut chain).unwrap();
        list.give_chain(index, index).unwrap();
        assert_eq!(list.close(&chain), 3);
        assert_eq!(list.give_chain(out, out), Err(Closed));
    }
}

/// All interleavings of two givers and a taker: `RUSTFLAGS="--cfg loom" cargo test -p pagewire-hal --lib free_list`
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn nothing_is_lost_or_doubled() {
        loom::model(|| {
            let (list, mut chain) = FreeList::full(2);
            let list = Arc::new(list);
            let (a, b) = (list.take(&mut chain).unwrap(), list.take(&mut chain).unwrap());
            let givers = [a, b].map(|index| {
                let list = Arc::clone(&list);
                loom::thread::spawn(move || list.give_chain(index, index).unwrap())
            });
            let first = list.take(&mut chain);
            for giver in givers {
                giver.join().unwrap();
            }
            let mut all: Vec<u32> = first.into_iter().chain(std::iter::from_fn(|| list.take(&mut chain))).collect();
            all.sort_unstable();
            assert_eq!(all, [0, 1]);
        });
    }

    #[test]
    fn a_list_that_is_closed_meanwhile_counts_each_index_or_refuses_it() {
        loom::model(|| {
            let (list, mut chain) = FreeList::full(4);
            let list = Arc::new(list);
            let [a, b, c] = std::array::from_fn(|_| list.take(&mut chain).unwrap());
            list.link(a, b);
            let givers = [(a, b), (c, c)].map(|(first, last)| {
                let list = Arc::clone(&list);
                loom::thread::spawn(move || list.give_chain(first, last).map_or_else(|Closed| list.chain_len(first, last), |()| 0))
            });
            let counted = i64::from(list.close(&chain));
            let refused: i64 = givers.into_iter().map(|giver| giver.join().unwrap()).sum();
            assert_eq!(counted + refused, 4);
        });
    }
}
