//! A thread for each queue, pinned to a processor where one was named.

use std::panic::resume_unwind;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::thread::{CpuSet, sched_setaffinity};

use super::meter::{Tally, Work, drive};
use super::{BenchError, Load};

/// Runs each work on a thread of its own, all from the same moment on, until the load's time is over or `stop` is set. When one fails, all end.
pub(super) fn run<W: Work>(works: Vec<W>, load: &Load, stop: &AtomicBool) -> Result<Vec<(W, Tally)>, BenchError> {
    let (failed, together) = (AtomicBool::new(false), Barrier::new(works.len()));
    let on_thread = |mut work: W, cpu: Option<usize>| {
        let over = || stop.load(Ordering::Relaxed) || failed.load(Ordering::Relaxed);
        let begun = cpu.map_or(Ok(()), pin).and_then(|()| work.begin(&over));
        failed.fetch_or(begun.is_err(), Ordering::Relaxed);
        // Also with an error, since the others wait.
        together.wait();
        let tally = begun.and_then(|()| drive(&mut work, load.duration, &over));
        failed.fetch_or(tally.is_err(), Ordering::Relaxed);
        Ok((work, tally?))
    };
    thread::scope(|scope| {
        let on_thread = &on_thread;
        let threads: Vec<_> = works
            .into_iter()
            .enumerate()
            .map(|(index, work)| {
                let cpu = load.cpus.get(index).copied();
                scope.spawn(move || on_thread(work, cpu))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

/// Pins the calling thread.
fn pin(cpu: usize) -> Result<(), BenchError> {
    let refused = |error: std::io::Error| BenchError::Cpu { cpu, error };
    if cpu >= CpuSet::MAX_CPU {
        return Err(refused(std::io::Error::from(rustix::io::Errno::INVAL)));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|error| refused(error.into()))
}
