//! How far queues are, and when a retired mapping may be unmapped.
//!
//! Every queue counts the frames it has posted and the frames that are completed, both monotonic and in order: frame *n* is done once
//! `completed >= n`. To retire a mapping, take a [`Fence`] of the space's queues; once the fence has [passed](Fence::passed), no
//! descriptor refers to the mapping. No reference count and no work for each segment: one store a burst.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crossbeam::utils::CachePadded;

/// The two counters of one queue. Written by the queue, read by anybody.
#[derive(Debug, Default)]
pub struct Progress {
    posted: CachePadded<AtomicU64>,
    completed: CachePadded<AtomicU64>,
}

impl Progress {
    /// Frames posted since the queue was made.
    pub fn posted(&self) -> u64 {
        self.posted.load(Ordering::Acquire)
    }

    /// Frames completed since the queue was made.
    pub fn completed(&self) -> u64 {
        self.completed.load(Ordering::Acquire)
    }

    /// The queue is about to hand `total` frames (since it was made) to the device. Before the doorbell.
    #[inline]
    pub fn set_posted(&self, total: u64) {
        self.posted.store(total, Ordering::Release);
    }

    /// The device is done with `total` frames (since the queue was made).
    #[inline]
    pub fn set_completed(&self, total: u64) {
        self.completed.store(total, Ordering::Release);
    }

    /// The device has been stopped: nothing that was posted will be read any more.
    pub fn settle(&self) {
        self.set_completed(self.posted());
    }
}

/// The queues that read from one DMA space.
#[derive(Debug, Default)]
pub struct ProgressBoard {
    queues: Mutex<Vec<Weak<Progress>>>,
}

impl ProgressBoard {
    /// A board without queues.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a queue; it is forgotten when the returned counters are dropped.
    pub fn join(&self) -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|queue| queue.strong_count() > 0);
        queues.push(Arc::downgrade(&progress));
        progress
    }

    /// A fence behind everything that is posted now, on any queue of the space.
    pub fn fence(&self) -> Fence {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        Fence {
            waits: queues
                .iter()
                .filter_map(Weak::upgrade)
                .map(|queue| (queue.posted(), queue))
                .filter(|(posted, queue)| queue.completed() < *posted)
                .collect(),
        }
    }
}

/// A moment in the life of some queues: it passes when all that was posted before it is completed.
#[derive(Debug)]
pub struct Fence {
    waits: Vec<(u64, Arc<Progress>)>,
}

impl Fence {
    /// Whether everything that was posted before the fence is done.
    pub fn passed(&self) -> bool {
        self.waits.iter().all(|(posted, queue)| queue.completed() >= *posted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_passes_when_what_was_posted_before_it_is_completed() {
        let board = ProgressBoard::new();
        let (first, second) = (board.join(), board.join());
        first.set_posted(5);
        second.set_posted(2);
        second.set_completed(2);
        let fence = board.fence();
        first.set_posted(9);
        first.set_completed(4);
        assert!(!fence.passed());
        first.set_completed(5);
        assert!(fence.passed());
    }

    #[test]
    fn a_stopped_queue_lets_the_fence_pass() {
        let board = ProgressBoard::new();
        let queue = board.join();
        queue.set_posted(3);
        let fence = board.fence();
        queue.settle();
        assert!(fence.passed());
    }

    #[test]
    fn a_board_without_queues_has_nothing_to_wait_for() {
        let board = ProgressBoard::new();
        drop(board.join());
        assert!(board.fence().passed());
    }
}
