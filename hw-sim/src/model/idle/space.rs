//! The DMA space of a device that does nothing.

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};

use hal::progress::ProgressBoard;
use hal::segment::Domain;
use hal::{Access, DmaError, DmaLimits, DmaSpace, Mapping, SharedMemory};

/// Every mapping gets an address of its own; only memory is kept, since nobody reads files here.
pub(super) struct Space {
    domain: Domain,
    queues: ProgressBoard,
    table: Mutex<Vec<(u64, Option<SharedMemory>)>>,
}

const FIRST: u64 = 1 << 32;
const DISTANCE: u64 = 1 << 40;

impl Space {
    pub(super) fn new() -> Self {
        Self { domain: Domain::new(), queues: ProgressBoard::new(), table: Mutex::default() }
    }

    /// Works on the memory that holds `address`, with the offset of the address in it.
    pub(super) fn at<T>(&self, address: u64, work: impl FnOnce(&SharedMemory, usize) -> T) -> Option<T> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        match table.iter().rfind(|(start, _)| *start <= address) {
            Some((start, Some(memory))) => Some(work(memory, (address - start) as usize)),
            _ => None,
        }
    }

    fn place(&self, memory: Option<SharedMemory>, len: u64) -> Mapping {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let start = table.last().map_or(FIRST, |(start, _)| start + DISTANCE);
        table.push((start, memory));
        Mapping::new(self.domain, start, len.min(DISTANCE))
    }
}

impl DmaSpace for Space {
    fn domain(&self) -> Domain {
        self.domain
    }

    fn limits(&self) -> DmaLimits {
        DmaLimits {
            ranges: vec![FIRST..=u64::MAX],
            granule: 4096,
            maps: 4096,
            bytes: u64::MAX,
            whole_files: false,
            partial_page: true,
            writable_descriptor: false,
        }
    }

    fn map_memory(&self, memory: &SharedMemory, _access: Access) -> Result<Mapping, DmaError> {
        let len = memory.len() as u64;
        let again = memory.map_again().map_err(|error| DmaError::Map { len, reason: error.to_string() })?;
        Ok(self.place(Some(again), len))
    }

    fn map_file(&self, _file: BorrowedFd<'_>, range: Range<u64>) -> Result<Mapping, DmaError> {
        if range.is_empty() {
            return Err(DmaError::Unsupported("an empty range".into()));
        }
        Ok(self.place(None, range.end - range.start))
    }

    fn unmap(&self, mapping: Mapping) -> Result<(), DmaError> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).retain(|(start, _)| *start != mapping.iova());
        Ok(())
    }

    fn queues(&self) -> &ProgressBoard {
        &self.queues
    }
}
