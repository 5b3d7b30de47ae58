//! For tests: a space that a device in the test can reach.

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

use hal::barrier::Order;
use hal::progress::ProgressBoard;
use hal::segment::Domain;
use hal::{Access, DmaError, DmaLimits, DmaSpace, Mapping, SharedMemory};

use crate::ring::{Ring, RingConfig};

/// A ring of so many descriptors, and the space in which a test plays its device.
pub(crate) fn ring<R: Ring>(size: u16) -> (Arc<TestSpace>, R) {
    let space = TestSpace::new();
    let shared: Arc<dyn DmaSpace> = space.clone();
    let config = RingConfig { size, event_idx: false, order: Order::Processors };
    (space, R::alone(&shared, "test", config).unwrap())
}

/// Maps memory one piece after the other.
pub(crate) struct TestSpace {
    domain: Domain,
    queues: ProgressBoard,
    maps: Mutex<Vec<(u64, SharedMemory)>>,
}

impl TestSpace {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { domain: Domain::new(), queues: ProgressBoard::new(), maps: Mutex::default() })
    }

    /// The device writes.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        let maps = self.maps.lock().unwrap();
        let (start, memory) = maps.iter().rev().find(|(start, _)| *start <= address).expect("a mapped address");
        memory.write_bytes((address - start) as usize, bytes);
    }

    /// The device reads.
    pub fn read(&self, address: u64, bytes: &mut [u8]) {
        let maps = self.maps.lock().unwrap();
        let (start, memory) = maps.iter().rev().find(|(start, _)| *start <= address).expect("a mapped address");
        memory.read_bytes((address - start) as usize, bytes);
    }
}

impl DmaSpace for TestSpace {
    fn domain(&self) -> Domain {
        self.domain
    }

    fn limits(&self) -> DmaLimits {
        DmaLimits {
            ranges: vec![0..=u64::MAX],
            granule: 4096,
            maps: 100,
            bytes: u64::MAX,
            whole_files: false,
            partial_page: false,
            writable_descriptor: false,
        }
    }

    fn map_memory(&self, memory: &SharedMemory, _access: Access) -> Result<Mapping, DmaError> {
        let mut maps = self.maps.lock().unwrap();
        let start = maps.last().map_or(0x1000, |(start, last)| start + last.len() as u64);
        let len = memory.len() as u64;
        maps.push((start, memory.map_again().map_err(|error| DmaError::Map { len, reason: error.to_string() })?));
        Ok(Mapping::new(self.domain, start, len))
    }

    fn map_file(&self, _file: BorrowedFd<'_>, _range: Range<u64>) -> Result<Mapping, DmaError> {
        Err(DmaError::Unsupported("a file in a test".to_owned()))
    }

    fn unmap(&self, _mapping: Mapping) -> Result<(), DmaError> {
        Ok(())
    }

    fn queues(&self) -> &ProgressBoard {
        &self.queues
    }
}
