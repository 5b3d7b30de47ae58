//! NICs that are measured, with their packet buffers.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hal::{DmaSpace, Mapping, Nic, NicError, Pool, PoolConfig, Segment};

use super::figures::{Figures, Kind};
use super::load::{BUFFER, HEADER};
use super::tx::{Shape, Transmitter};
use super::{BenchError, Load, threads};

/// One or two NICs, and a pool of packet buffers for each of their queues, which stay over several measurements.
pub struct Session {
    // In this order: the NICs stop before their buffers go.
    nics: Vec<Box<dyn Nic>>,
    pools: Vec<Pool>,
}

/// Buffers of a queue besides those that its receive rings hold: three of the largest bursts. Not more, so that they stay in the processor's cache.
const BUFFERS: u32 = 768;

impl Session {
    /// NICs that were opened with so many queues.
    ///
    /// # Errors
    /// [`BenchError::Load`] when one has fewer; no memory; what the NIC says.
    pub fn new(mut nics: Vec<Box<dyn Nic>>, queues: usize) -> Result<Self, BenchError> {
        let mut held = 0;
        for nic in &mut nics {
            let (tx, rx) = nic.queues();
            let most = tx.min(rx);
            if !(1..=most).contains(&queues) {
                return Err(BenchError::Load(format!("{queues} queues; this {} has {most}", nic.model())));
            }
            held += nic.rx(0).capacity() as u32;
        }
        let mut pools = Vec::with_capacity(queues);
        for queue in 0..queues {
            let pool = Pool::new(PoolConfig { buffers: held + BUFFERS, buffer_size: BUFFER }).map_err(BenchError::Memory)?;
            for nic in &mut nics {
                let mapping = pool.attach(&nic.space()).map_err(NicError::from)?;
                nic.attach_pool_of(queue, mapping)?;
            }
            pools.push(pool);
        }
        Ok(Self { nics, pools })
    }

    fn first(&mut self) -> Result<&mut dyn Nic, BenchError> {
        match self.nics.first_mut() {
            Some(nic) => Ok(&mut **nic),
            None => Err(BenchError::Load("a measurement needs a NIC".into())),
        }
    }

    /// Sends until the time is over or `stop` is set. With `prebuilt`, the headers are written once, beforehand.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn transmit(&mut self, load: &Load, prebuilt: bool, stop: &AtomicBool) -> Result<Figures, BenchError> {
        let nic = self.first()?;
        load.check(HEADER.len(), &nic.capabilities())?;
        let payload = Payload::map(&nic.space(), &load.segments[1..])?;
        let done = self.transmit_segments(load, &payload, prebuilt, stop);
        if done.is_err() {
            // Frames may still refer to the payload.
            self.first()?.stop()?;
        }
        payload.unmap()?;
        done
    }

    fn transmit_segments(&mut self, load: &Load, payload: &Payload, prebuilt: bool, stop: &AtomicBool) -> Result<Figures, BenchError> {
        let shape = Shape { first: load.segments[0] as usize, rest: payload.segments(&load.segments[1..])?, prebuilt };
        let Self { nics, pools } = self;
        let (queues, _) = nics[0].split();
        let works = queues.into_iter().zip(pools).map(|(queue, pool)| Transmitter::new(queue, pool, shape.clone(), load.burst)).collect();
        let done = threads::run(works, load, stop)?;
        let shares: Vec<_> = done.iter().map(|(work, tally)| (*tally, work.share())).collect();
        Ok(Figures { prebuilt, ..Figures::sum(Kind::Tx, load, &shares) })
    }
}

/// Pages of a temporary file for the further segments of a packet, mapped for the NIC, as in a send; nothing when there are none.
struct Payload {
    space: Arc<dyn DmaSpace>,
    mapped: Option<(Mapping, File)>,
}

impl Payload {
    fn map(space: &Arc<dyn DmaSpace>, lens: &[u32]) -> Result<Self, BenchError> {
        let space = Arc::clone(space);
        let Some(longest) = lens.iter().max() else { return Ok(Self { space, mapped: None }) };
        let len = u64::from(*longest).next_multiple_of(space.limits().granule);
        let file = tempfile::tempfile().map_err(BenchError::Memory)?;
        file.set_len(len).map_err(BenchError::Memory)?;
        let mapping = space.map_file(file.as_fd(), 0..len).map_err(NicError::from)?;
        Ok(Self { space, mapped: Some((mapping, file)) })
    }

    fn segments(&self, lens: &[u32]) -> Result<Vec<Segment<'_>>, NicError> {
        let Some((mapping, _)) = &self.mapped else { return Ok(Vec::new()) };
        lens.iter().map(|len| mapping.segment(0, *len).ok_or(NicError::UnmappedSegment)).collect()
    }

    fn unmap(self) -> Result<(), NicError> {
        match self.mapped {
            Some((mapping, _)) => Ok(self.space.unmap(mapping)?),
            None => Ok(()),
        }
    }
}
