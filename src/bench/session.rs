//! NICs that are measured, with their packet buffers.

use std::any::Any;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hal::{Access, DmaError, DmaSpace, Mapping, Nic, NicError, Pool, PoolConfig, Segment};

use super::figures::{Figures, Kind};
use super::forward::{Direction, Forwarder, Forwarding};
use super::idle::Idle;
use super::latency::{self, Latency, Pinger};
use super::load::{BUFFER, HEADER, header};
use super::rx::Receiver;
use super::tx::{Shape, Transmitter};
use super::{BenchError, Load, threads};

/// One or two NICs, and a pool of packet buffers for each of their queues, which stay over several measurements.
pub struct Session {
    // In this order: the NICs stop before their buffers go.
    nics: Vec<Box<dyn Nic>>,
    pools: Vec<Pool>,
    /// Pairs of queues of the first NIC behind the measured ones, that are served beside the first.
    idle: usize,
    /// Packets go around already.
    injected: bool,
}

/// Buffers of a queue besides those that its receive rings hold: three of the largest bursts. Not more, so that they stay in the processor's cache.
const BUFFERS: u32 = 768;

impl Session {
    /// NICs that were opened with so many queues.
    ///
    /// # Errors
    /// [`BenchError::Load`] when one has fewer; no memory; what the NIC says.
    pub fn new(nics: Vec<Box<dyn Nic>>, queues: usize) -> Result<Self, BenchError> {
        Self::with_idle(nics, queues, 0)
    }

    /// The same for NICs that have `idle` queues more, which [`transmit`](Self::transmit) serves beside the first, and over which nothing goes.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_idle(mut nics: Vec<Box<dyn Nic>>, queues: usize, idle: usize) -> Result<Self, BenchError> {
        if !(1..=2).contains(&nics.len()) {
            return Err(BenchError::Load(format!("{} NICs; a measurement has one or two", nics.len())));
        }
        let mut held = 0;
        for nic in &mut nics {
            let (tx, rx) = nic.queues();
            let most = tx.min(rx);
            let wanted = queues.saturating_add(idle);
            if queues == 0 || wanted > most {
                return Err(BenchError::Load(format!("{wanted} queues; this {} has {most}", nic.model())));
            }
            held += nic.rx(0).capacity() as u32;
        }
        let mut pools = Vec::with_capacity(queues);
        for queue in 0..queues {
            let beside = if queue == 0 { idle } else { 0 };
            let buffers = held.saturating_mul(1 + beside as u32).saturating_add(BUFFERS);
            let pool = Pool::new(PoolConfig { buffers, buffer_size: BUFFER }).map_err(BenchError::Memory)?;
            for nic in &mut nics {
                let mapping = pool.attach(&nic.space()).map_err(NicError::from)?;
                for pair in queues..queues + beside {
                    nic.attach_pool_of(pair, mapping.clone())?;
                }
                nic.attach_pool_of(queue, mapping)?;
            }
            pools.push(pool);
        }
        Ok(Self { nics, pools, idle, injected: false })
    }

    /// Sends until the time is over or `stop` is set. With `prebuilt`, the headers are written once, beforehand.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn transmit(&mut self, load: &Load, prebuilt: bool, stop: &AtomicBool) -> Result<Figures, BenchError> {
        let idle_queues = self.idle;
        self.with_shape(load, HEADER, |nics, pools, shape| {
            let shape = Shape { prebuilt, ..shape };
            let (mut targets, sources) = nics[0].split();
            let beside = targets.split_off(pools.len().min(targets.len())).into_iter().zip(sources.into_iter().skip(pools.len()));
            let mut idle = Some(Idle::new(beside.take(idle_queues).collect()));
            let queues = targets.into_iter().zip(pools);
            let works = queues
                .map(|(target, pool)| Transmitter::new(target, pool, shape.clone(), load.burst).beside(idle.take().unwrap_or_default()));
            let works = works.collect();
            let done = threads::run(works, load, stop)?;
            let shares: Vec<_> = done.iter().map(|(work, tally)| (*tally, work.share())).collect();
            Ok(Figures { prebuilt, idle_queues, ..Figures::sum(Kind::Tx, load, &shares) })
        })
    }

    /// Receives until the time is over or `stop` is set, and drops what came.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn receive(&mut self, load: &Load, stop: &AtomicBool) -> Result<Figures, BenchError> {
        self.check(load, HEADER)?;
        self.counting_drops(|Self { nics, pools, .. }| {
            let (targets, sources) = nics[0].split();
            let queues = sources.into_iter().zip(targets).zip(pools);
            let works = queues.map(|((source, beside), pool)| Receiver::new(source, beside, pool, load.burst)).collect();
            let done = threads::run(works, load, stop)?;
            let shares: Vec<_> = done.iter().map(|(work, tally)| (*tally, work.share())).collect();
            Ok(Figures::sum(Kind::Rx, load, &shares))
        })
    }

    /// Sends on what is received until the time is over or `stop` is set: between two NICs in both directions, on one NIC back where it came from.
    /// What is injected at the start goes around from then on, also in the next measurement of this session: nothing is injected again then.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn forward(&mut self, load: &Load, forwarding: Forwarding, stop: &AtomicBool) -> Result<Figures, BenchError> {
        self.check(load, HEADER)?;
        let [len] = load.segments[..] else { return Err(BenchError::Load("packets of several segments; those injected have one".into())) };
        let most = self.nics.iter_mut().map(|nic| nic.rx(0).capacity()).min().unwrap_or(0);
        if forwarding.inject > most {
            return Err(BenchError::Load(format!("{} packets to inject; the receive ring holds {most}", forwarding.inject)));
        }
        let forwarding = Forwarding { inject: if self.injected { 0 } else { forwarding.inject }, ..forwarding };
        self.injected |= forwarding.inject > 0;
        let mut frame = header(len.into()).to_vec();
        frame.resize(len as usize, 0);
        self.counting_drops(|Self { nics, pools, .. }| {
            let direction = |source, target| Direction::new(source, target, load.burst);
            let forwarder = |directions, pool| Forwarder::new(directions, pool, load.burst, forwarding, frame.clone());
            let works = match nics.as_mut_slice() {
                [one] => {
                    let (targets, sources) = one.split();
                    let queues = targets.into_iter().zip(sources).zip(pools);
                    queues.map(|((target, source), pool)| forwarder(vec![direction(source, target)], pool)).collect()
                }
                [left, right, ..] => {
                    let (left, right) = (left.split(), right.split());
                    let queues = left.0.into_iter().zip(left.1).zip(right.0.into_iter().zip(right.1)).zip(pools);
                    let works = queues.map(|(((left_target, left_source), (right_target, right_source)), pool)| {
                        forwarder(vec![direction(left_source, right_target), direction(right_source, left_target)], pool)
                    });
                    works.collect()
                }
                [] => Vec::new(),
            };
            let done = threads::run(works, load, stop)?;
            let shares: Vec<_> = done.iter().map(|(work, tally)| (*tally, work.share())).collect();
            Ok(Figures::sum(Kind::Forward, load, &shares))
        })
    }

    /// Sends a packet, waits until it is back from the other end, sends the next one, until the time is over or `stop` is set.
    ///
    /// # Errors
    /// [`BenchError`]; [`BenchError::Silent`] when the other end sends nothing back.
    pub fn latency(&mut self, load: &Load, stop: &AtomicBool) -> Result<Figures, BenchError> {
        if self.pools.len() != 1 {
            return Err(BenchError::Load("several queues; latency is measured with one packet under way, on one queue".into()));
        }
        let load = &Load { burst: 1, ..load.clone() };
        self.counting_drops(|session| {
            session.with_shape(load, latency::LEAST, |nics, pools, shape| {
                let (targets, sources) = nics[0].split();
                let queues = targets.into_iter().zip(sources).zip(pools);
                let works = queues.map(|((target, source), pool)| Pinger::new(source, target, pool, shape.clone())).collect();
                let done = threads::run(works, load, stop)?;
                let shares: Vec<_> = done.iter().map(|(work, tally)| (*tally, work.share())).collect();
                let figures = Figures::sum(Kind::Latency, load, &shares);
                let latency = done.first().map(|(work, _)| Latency::new(work.times(), figures.seconds));
                Ok(Figures { latency, ..figures })
            })
        })
    }

    /// What every measurement needs.
    fn check(&self, load: &Load, least: usize) -> Result<(), BenchError> {
        load.check(least, &self.nics[0].capabilities())?;
        let (cpus, queues) = (load.cpus.len(), self.pools.len());
        if cpus != 0 && cpus != queues {
            return Err(BenchError::Load(format!("{cpus} processors for {queues} queues; name one for each")));
        }
        Ok(())
    }

    /// Measures with packets of the load's segments.
    fn with_shape(
        &mut self,
        load: &Load,
        least: usize,
        measure: impl FnOnce(&mut [Box<dyn Nic>], &mut [Pool], Shape<'_>) -> Result<Figures, BenchError>,
    ) -> Result<Figures, BenchError> {
        self.check(load, least)?;
        let (first, rest) = (load.segments[0] as usize, &load.segments[1..]);
        let payload = Payload::map(&self.nics[0].space(), rest)?;
        let shape = payload.segments(rest).map(|rest| Shape::new(first, rest));
        let done = shape.map_err(BenchError::from).and_then(|shape| measure(&mut self.nics, &mut self.pools, shape));
        if done.is_err() {
            // Frames may still refer to the payload. A device that cannot be stopped has lost its bus, and the first error says more.
            let _ = self.nics[0].stop();
        }
        payload.unmap()?;
        done
    }

    /// Adds what the NICs dropped meanwhile by their own count.
    fn counting_drops(&mut self, measure: impl FnOnce(&mut Self) -> Result<Figures, BenchError>) -> Result<Figures, BenchError> {
        let before = dropped(&mut self.nics)?;
        let figures = measure(self)?;
        Ok(Figures { drops: figures.drops + dropped(&mut self.nics)?.saturating_sub(before), ..figures })
    }
}

/// Packets that found no buffer.
fn dropped(nics: &mut [Box<dyn Nic>]) -> Result<u64, NicError> {
    nics.iter_mut().try_fold(0, |sum, nic| Ok(sum + nic.statistics()?.rx_missed))
}

/// Pages for the further segments of a packet, mapped for the NIC: of a temporary file, as in a send, or, where the NIC takes no files, of
/// nothing but memory; nothing when there are none.
struct Payload {
    space: Arc<dyn DmaSpace>,
    /// With what keeps the pages.
    mapped: Option<(Mapping, Box<dyn Any>)>,
}

impl Payload {
    fn map(space: &Arc<dyn DmaSpace>, lens: &[u32]) -> Result<Self, BenchError> {
        let space = Arc::clone(space);
        let Some(longest) = lens.iter().max() else { return Ok(Self { space, mapped: None }) };
        let len = u64::from(*longest).next_multiple_of(space.limits().granule);
        let file = tempfile::tempfile().map_err(BenchError::Memory)?;
        file.set_len(len).map_err(BenchError::Memory)?;
        let mapped: (Mapping, Box<dyn Any>) = match space.map_file(file.as_fd(), 0..len) {
            Ok(mapping) => (mapping, Box::new(file)),
            Err(DmaError::Unsupported(_)) => {
                let memory = space.memory("pagewire-payload", len as usize).map_err(BenchError::Memory)?;
                (space.map_memory(&memory, Access::ReadWrite).map_err(NicError::from)?, Box::new(memory))
            }
            Err(error) => return Err(NicError::from(error).into()),
        };
        Ok(Self { space, mapped: Some(mapped) })
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
