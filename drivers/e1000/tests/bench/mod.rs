//! A driver on a model, with a pool; and what has to be true at the end of every test.
#![allow(dead_code)] // each test program uses a part

use std::sync::Arc;
use std::time::Duration;

use hal::{Buffer, Burst, DmaSpace, Mapping, Nic, Offload, Pool, PoolConfig, RxBurst};
use hw_sim::model::{Model, Received};

use crate::headers::content;

/// Buffers of the pool.
pub const BUFFERS: u32 = 1024;
/// Time enough for a queue to count as hung.
pub const LONG: Duration = Duration::from_secs(6);

pub struct Bench<M, N> {
    pub model: M,
    pub nic: N,
    pub pool: Pool,
}

impl<M: Model, N: Nic> Bench<M, N> {
    /// A driver that was started on the model, and a pool for it.
    pub fn of(model: M, mut nic: N) -> Self {
        let pool = Pool::new(PoolConfig { buffers: BUFFERS, buffer_size: 2048 }).unwrap();
        nic.attach_pool(pool.attach(&nic.space()).unwrap()).unwrap();
        Self { model, nic, pool }
    }

    /// A pool buffer with these bytes.
    #[track_caller]
    pub fn buffer(&mut self, bytes: &[u8]) -> Buffer {
        let mut buffer = self.pool.take().expect("a free buffer");
        buffer.set(bytes);
        buffer
    }

    /// A burst of frames of one segment each.
    pub fn burst(&mut self, frames: &[(Vec<u8>, Offload)]) -> Burst<'static> {
        let mut burst = Burst::with_capacity(frames.len());
        for (bytes, offload) in frames {
            burst.push(self.buffer(bytes), *offload);
        }
        burst
    }

    /// Posts all of a burst, lets time pass, and reaps. Returns what left.
    #[track_caller]
    pub fn send(&mut self, mut burst: Burst<'_>) -> Vec<Vec<u8>> {
        let frames = burst.len();
        assert_eq!(self.nic.tx(0).post(&mut burst).unwrap(), frames);
        let sent = self.model.step();
        assert_eq!(self.nic.tx(0).reap().unwrap(), frames);
        sent
    }

    /// One frame of one segment.
    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8], offload: Offload) -> Vec<Vec<u8>> {
        let burst = self.burst(&[(bytes.to_vec(), offload)]);
        self.send(burst)
    }

    /// The device receives a frame, which must find buffers.
    #[track_caller]
    pub fn deliver(&mut self, frame: &[u8]) {
        self.nic.rx(0).refill(&mut self.pool).unwrap();
        assert_eq!(self.model.receive(frame), Received::Delivered);
    }

    /// What the driver has received.
    #[track_caller]
    pub fn received(&mut self) -> Vec<Vec<u8>> {
        let mut burst = RxBurst::default();
        self.nic.rx(0).receive(&mut burst, usize::MAX).unwrap();
        bytes_of(&burst)
    }

    /// Whether a frame gets through the filters to the driver.
    #[track_caller]
    pub fn hears(&mut self, frame: &[u8]) -> bool {
        self.nic.rx(0).refill(&mut self.pool).unwrap();
        let outcome = self.model.receive(frame);
        let received = self.received();
        assert_eq!(received.len(), usize::from(outcome == Received::Delivered), "{outcome:?}");
        outcome == Received::Delivered
    }

    /// How many buffers the pool has now.
    pub fn free_buffers(&mut self) -> usize {
        free(&mut self.pool)
    }

    /// The end of every test: the device was used as its manual says, it reached for nothing that is not mapped, the pool is whole, and
    /// nothing stays mapped.
    #[track_caller]
    pub fn finish(self) {
        let model = self.model.clone();
        assert_eq!(model.violations(), [""; 0]);
        assert_eq!(model.faulted_accesses(), []);
        self.finish_broken("a device that behaves");
        assert_eq!(model.violations(), [""; 0], "while it was closed");
    }

    /// The end of a test in which the device misbehaved: whatever it did, the NIC can be dropped, the pool is whole and nothing stays mapped.
    #[track_caller]
    pub fn finish_broken(self, what: &str) {
        let Self { model, nic, mut pool } = self;
        drop(nic);
        assert_eq!(free(&mut pool), BUFFERS as usize, "{what}");
        assert_eq!(model.mappings(), 0, "{what}");
    }
}

fn free(pool: &mut Pool) -> usize {
    std::iter::from_fn(|| pool.take()).collect::<Vec<_>>().len()
}

/// The packets of a burst, put together.
pub fn bytes_of(burst: &RxBurst) -> Vec<Vec<u8>> {
    burst
        .packets()
        .map(|packet| {
            let mut bytes = vec![0; packet.bytes as usize];
            assert_eq!(packet.copy_to(&mut bytes), bytes.len());
            bytes
        })
        .collect()
}

/// A file of `len` bytes of [`content`] 0, mapped for the NIC; unmapped when dropped.
pub struct Window {
    pub content: Vec<u8>,
    pub mapping: Option<Mapping>,
    space: Arc<dyn DmaSpace>,
}

impl Window {
    pub fn new(space: Arc<dyn DmaSpace>, len: usize) -> Self {
        let content = content(0, len);
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &content).unwrap();
        let mapping = space.map_file(std::os::fd::AsFd::as_fd(&file), 0..len as u64).unwrap();
        Self { content, mapping: Some(mapping), space }
    }

    pub fn segment(&self, offset: usize, len: usize) -> hal::Segment<'_> {
        self.mapping.as_ref().and_then(|mapping| mapping.segment(offset as u64, len as u32)).expect("inside the window")
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        if let Some(mapping) = self.mapping.take() {
            self.space.unmap(mapping).unwrap();
        }
    }
}
