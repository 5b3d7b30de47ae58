//! Transmission: for every packet what DPDK's testpmd does in `txonly`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hal::nic::HANG;
use hal::{Burst, Mapping, Nic, NicError, Offload, Pool, PoolConfig};

use super::load::HEADER;
use super::{BenchError, TxFigures, TxLoad};

/// Sends until the time is over or `stop` is set.
///
/// # Errors
/// [`BenchError`].
pub fn transmit(nic: &mut dyn Nic, load: &TxLoad, stop: &AtomicBool) -> Result<TxFigures, BenchError> {
    load.check()?;
    let rest = &load.segments[1..];
    let mut pool = Pool::new(PoolConfig { buffers: 4096, buffer_size: 2048 }).map_err(BenchError::Memory)?;
    let space = nic.space();
    nic.attach_pool(pool.attach(&space).map_err(NicError::from)?)?;
    // Further segments come from pages of a file, as in a send.
    let payload = match rest.iter().max() {
        Some(longest) => Some(Payload::map(&space, *longest)?),
        None => None,
    };
    let figures = send(nic, &mut pool, payload.as_ref().map(|payload| &payload.mapping), load, stop);
    if let Some(payload) = payload {
        // After an error frames may still refer to it.
        nic.stop()?;
        space.unmap(payload.mapping).map_err(NicError::from)?;
    }
    figures
}

/// Some pages of a temporary file, mapped for the NIC.
struct Payload {
    mapping: Mapping,
    _file: std::fs::File,
}

impl Payload {
    fn map(space: &std::sync::Arc<dyn hal::DmaSpace>, len: u32) -> Result<Self, BenchError> {
        use std::os::fd::AsFd;
        let len = u64::from(len).next_multiple_of(space.limits().granule);
        let file = tempfile::tempfile().map_err(BenchError::Memory)?;
        file.set_len(len).map_err(BenchError::Memory)?;
        let mapping = space.map_file(file.as_fd(), 0..len).map_err(NicError::from)?;
        Ok(Self { mapping, _file: file })
    }
}

fn send(nic: &mut dyn Nic, pool: &mut Pool, payload: Option<&Mapping>, load: &TxLoad, stop: &AtomicBool) -> Result<TxFigures, BenchError> {
    let first = load.segments[0] as usize;
    let rest = &load.segments[1..];
    let queue = nic.tx(0);
    let before = queue.counters();
    let start = Instant::now();
    let (mut frames, mut busy, mut idle_polls) = (0_u64, Duration::ZERO, 0_u64);
    let mut burst = Burst::with_capacity(load.burst);
    let mut last_look = Duration::ZERO;
    loop {
        let now = start.elapsed();
        if now >= load.duration || stop.load(Ordering::Relaxed) {
            break;
        }
        let reaped = queue.reap()?;
        while burst.len() < load.burst {
            let Some(mut buffer) = pool.take() else { break };
            buffer.set(&HEADER);
            buffer.set_len(first);
            burst.push(buffer, Offload::NONE);
            for len in rest {
                let segment = payload.and_then(|payload| payload.segment(0, *len));
                burst.gather(segment.ok_or(NicError::UnmappedSegment)?);
            }
        }
        let posted = queue.post(&mut burst)?;
        frames += reaped as u64;
        if reaped + posted > 0 {
            busy += start.elapsed() - now;
        } else {
            idle_polls += 1;
            if now - last_look > Duration::from_millis(20) {
                last_look = now;
                queue.check(now)?;
            }
        }
    }
    let elapsed = start.elapsed();
    burst.clear();
    let counters = queue.counters();
    // What is still on its way counts when it comes back.
    let drain = Instant::now();
    let posted = counters.frames - before.frames;
    while frames < posted {
        frames += queue.reap()? as u64;
        queue.check(elapsed + drain.elapsed())?;
        if drain.elapsed() > 2 * HANG {
            return Err(
                NicError::Timeout { what: "the completion of the last frames", register: "transmit queue", waited: 2 * HANG }.into()
            );
        }
    }
    let seconds = elapsed.as_secs_f64();
    let per_second = if seconds > 0.0 { frames as f64 / seconds } else { 0.0 };
    Ok(TxFigures {
        frames,
        pps: per_second,
        bits_per_second: per_second * load.segments.iter().sum::<u32>() as f64 * 8.0,
        busy_ns_per_frame: if frames > 0 { busy.as_nanos() as f64 / frames as f64 } else { 0.0 },
        idle_polls,
        doorbells: counters.doorbells - before.doorbells,
        descriptors: counters.descriptors - before.descriptors,
        seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use e1000::{E1000, E1000Config};
    use hw_sim::model::e1000::E1000Model;

    fn run(segments: &[u32]) -> Result<TxFigures, BenchError> {
        let model = E1000Model::new("52:54:00:00:00:01".parse().unwrap());
        model.set_synchronous(true);
        let mut nic = E1000::start(model.device(), E1000Config::default()).unwrap();
        let load = TxLoad { segments: segments.to_vec(), burst: 32, duration: Duration::from_millis(20) };
        let figures = transmit(&mut nic, &load, &AtomicBool::new(false))?;
        assert_eq!(model.violations(), Vec::<String>::new());
        Ok(figures)
    }

    #[test]
    fn every_frame_that_was_posted_is_counted() {
        let one = run(&[64]).unwrap();
        assert!(one.frames > 0 && one.frames == one.descriptors);
        let two = run(&[64, 1400]).unwrap();
        assert_eq!(two.descriptors, 2 * two.frames);
        assert!(two.pps > 0.0 && two.busy_ns_per_frame > 0.0);
    }

    #[test]
    fn a_load_that_cannot_be_is_refused() {
        for segments in [&[][..], &[41], &[2049], &[64, 0]] {
            assert!(matches!(run(segments), Err(BenchError::Load(_))), "{segments:?}");
        }
    }
}
