//! How long a cache line takes from one processor to the other and back. On some virtual machines that changes fourfold, for seconds or minutes at a
//! time, as the host moves its processors about: figures of programs that share memory are comparable only where it is the same.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Round trips of a sample, and samples. Few and many: what else runs on the processors interrupts some of them, and the median is taken.
const TRIPS: u32 = 50;
const SAMPLES: usize = 101;

/// The median time of a round trip between processors 0 and 1. Whatever runs there meanwhile is slowed down for some milliseconds.
pub fn measure() -> Duration {
    let allowed = sched_getaffinity(None).expect("the processors of this process");
    assert!(allowed.is_set(0) && allowed.is_set(1), "processors 0 and 1 are needed");
    let (word, over) = (AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(0);
            while !over.load(Ordering::Relaxed) {
                // An odd count is a line that is to go back.
                let count = word.load(Ordering::Acquire);
                if count % 2 == 1 { word.store(count + 1, Ordering::Release) } else { std::hint::black_box(()) }
            }
        });
        scope
            .spawn(|| {
                pin(1);
                let mut samples: Vec<Duration> = (0..SAMPLES).map(|_| sample(&word)).collect();
                over.store(true, Ordering::Relaxed);
                samples.sort();
                samples[SAMPLES / 2] / TRIPS
            })
            .join()
            .expect("no panic")
    })
}

fn sample(word: &AtomicU32) -> Duration {
    let start = Instant::now();
    for _ in 0..TRIPS {
        let count = word.load(Ordering::Relaxed) + 1;
        word.store(count, Ordering::Release);
        while word.load(Ordering::Acquire) == count {
            std::hint::black_box(());
        }
    }
    start.elapsed()
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).expect("two processors");
}
