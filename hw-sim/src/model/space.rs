//! What a model can reach: memory and files, mapped at addresses of a range that the model chooses.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::{Range, RangeInclusive};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use hal::memory::SharedMemory;
use hal::progress::ProgressBoard;
use hal::segment::Domain;
use hal::{Access, DmaError, DmaLimits, DmaSpace, Mapping};

/// Who accesses the space.
pub(super) trait Holder: Send {
    /// These addresses are about to be unmapped.
    fn about_to_unmap(&mut self, range: Range<u64>);
}

/// A model's own DMA space. Between mappings lies a granule of nothing, and addresses are used again as late as possible, so that an access
/// past the end, or after the unmapping, never finds other memory.
pub(super) struct Space {
    domain: Domain,
    queues: ProgressBoard,
    table: Mutex<Table>,
    holder: Weak<Mutex<dyn Holder>>,
}

struct Table {
    mappings: BTreeMap<u64, Entry>,
    limits: DmaLimits,
    /// How many mappings there can be altogether.
    capacity: usize,
    next: u64,
}

struct Entry {
    len: u64,
    backing: Backing,
}

enum Backing {
    Memory(SharedMemory, Access),
    /// Read by `pread`, so that a file that was truncated gives zeros and no signal.
    File(File, u64),
}

/// Nothing is mapped there, or not for writing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unmapped;

impl Space {
    pub(super) fn new(addresses: RangeInclusive<u64>, holder: Weak<Mutex<dyn Holder>>) -> Self {
        let limits = DmaLimits {
            granule: 4096,
            maps: 65_535,
            bytes: addresses.end() - addresses.start() + 1,
            ranges: vec![addresses],
            whole_files: false,
            partial_page: true,
            writable_descriptor: false,
        };
        let table = Table { mappings: BTreeMap::new(), capacity: limits.maps as usize, next: 0, limits };
        Self { domain: Domain::new(), queues: ProgressBoard::new(), table: Mutex::new(table), holder }
    }

    pub(super) fn set_limits(&self, limits: DmaLimits) {
        let mut table = self.table();
        table.capacity = table.mappings.len().saturating_add(limits.maps as usize);
        table.limits = limits;
    }

    pub(super) fn mappings(&self) -> usize {
        self.table().mappings.len()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all of a range is mapped, for writing too if that is asked for.
    pub(super) fn covers(&self, address: u64, len: u64, write: bool) -> bool {
        let table = self.table();
        let writable = |entry: &Entry| matches!(entry.backing, Backing::Memory(_, Access::ReadWrite));
        table.find(address, len).is_ok_and(|(_, entry)| !write || writable(entry))
    }

    /// Reads what the device reads.
    pub(super) fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unmapped> {
        let table = self.table();
        let (offset, entry) = table.find(address, bytes.len() as u64)?;
        match &entry.backing {
            Backing::Memory(memory, _) => memory.read_bytes(offset as usize, bytes),
            Backing::File(file, start) => {
                let mut done = 0;
                while done < bytes.len() {
                    match file.read_at(&mut bytes[done..], start + offset + done as u64) {
                        Ok(0) => break,
                        Ok(len) => done += len,
                        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                        Err(_) => return Err(Unmapped),
                    }
                }
                bytes[done..].fill(0);
            }
        }
        Ok(())
    }

    /// Writes what the device writes.
    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Unmapped> {
        let table = self.table();
        let (offset, entry) = table.find(address, bytes.len() as u64)?;
        match &entry.backing {
            Backing::Memory(memory, Access::ReadWrite) => {
                memory.write_bytes(offset as usize, bytes);
                Ok(())
            }
            _ => Err(Unmapped),
        }
    }
}

impl Table {
    /// The mapping that holds all `len` bytes, and how far into it they are.
    fn find(&self, address: u64, len: u64) -> Result<(u64, &Entry), Unmapped> {
        let (start, entry) = self.mappings.range(..=address).next_back().ok_or(Unmapped)?;
        let offset = address - start;
        let inside = offset.checked_add(len).is_some_and(|end| end <= entry.len);
        if inside { Ok((offset, entry)) } else { Err(Unmapped) }
    }

    fn insert(&mut self, len: u64, backing: Backing) -> Result<u64, DmaError> {
        let full = |reason: String| DmaError::Full { len, reason };
        if self.mappings.len() >= self.capacity {
            return Err(full(format!("the model has room for {} mappings; raise DmaLimits::maps", self.capacity)));
        }
        let used: u64 = self.mappings.values().map(|entry| entry.len).sum();
        if used.saturating_add(len) > self.limits.bytes {
            return Err(full(format!("{used} of {} bytes are mapped; raise DmaLimits::bytes", self.limits.bytes)));
        }
        let iova = self.place(len).ok_or_else(|| full("no range of addresses is long enough".to_owned()))?;
        self.next = iova + len;
        self.mappings.insert(iova, Entry { len, backing });
        Ok(iova)
    }

    /// The first free place behind the last mapping made, or else the first one at all.
    fn place(&self, len: u64) -> Option<u64> {
        let granule = self.limits.granule.max(1);
        let fits = |from: u64| {
            self.limits.ranges.iter().find_map(|range| {
                let mut start = from.max(*range.start()).checked_next_multiple_of(granule)?;
                loop {
                    let last = start.checked_add(len.checked_next_multiple_of(granule)?)?.checked_add(granule)? - 1;
                    if start > *range.end() || last - granule > *range.end() {
                        return None;
                    }
                    match self.mappings.range(..=last).next_back() {
                        Some((at, entry)) if at + entry.len + granule > start => {
                            start = (at + entry.len).checked_add(granule)?.checked_next_multiple_of(granule)?;
                        }
                        _ => return Some(start),
                    }
                }
            })
        };
        fits(self.next.saturating_add(granule)).or_else(|| fits(0))
    }
}

impl DmaSpace for Space {
    fn domain(&self) -> Domain {
        self.domain
    }

    fn limits(&self) -> DmaLimits {
        let table = self.table();
        let maps = table.capacity.saturating_sub(table.mappings.len());
        DmaLimits { maps: u32::try_from(maps).unwrap_or(u32::MAX), ..table.limits.clone() }
    }

    fn map_memory(&self, memory: &SharedMemory, access: Access) -> Result<Mapping, DmaError> {
        let len = memory.len() as u64;
        let again = memory.map_again().map_err(|error| DmaError::Map { len, reason: error.to_string() })?;
        let iova = self.table().insert(len, Backing::Memory(again, access))?;
        Ok(Mapping::new(self.domain, iova, len))
    }

    fn map_file(&self, file: BorrowedFd<'_>, range: Range<u64>) -> Result<Mapping, DmaError> {
        let wanted = range.end.saturating_sub(range.start);
        let refused = |reason: String| DmaError::Map { len: wanted, reason };
        let limits = self.table().limits.clone();
        let file = File::from(file.as_fd().try_clone_to_owned().map_err(|error| refused(error.to_string()))?);
        let size = file.metadata().map_err(|error| refused(error.to_string()))?.len();
        let len = file_mapping(&limits, range.clone(), size)?;
        let flags = rustix::fs::fcntl_getfl(&file).map_err(|error| refused(error.to_string()))?;
        if limits.writable_descriptor && flags & rustix::fs::OFlags::ACCMODE != rustix::fs::OFlags::RDWR {
            return Err(DmaError::Unsupported("the file has to be open for reading and writing".to_owned()));
        }
        let iova = self.table().insert(len, Backing::File(file, range.start))?;
        Ok(Mapping::new(self.domain, iova, len))
    }

    fn unmap(&self, mapping: Mapping) -> Result<(), DmaError> {
        let (iova, len) = (mapping.iova(), mapping.len());
        // The holder first: it looks into the space, never the other way round.
        if let Some(holder) = self.holder.upgrade() {
            holder.lock().unwrap_or_else(PoisonError::into_inner).about_to_unmap(iova..iova + len);
        }
        let mut table = self.table();
        match table.mappings.get(&iova) {
            Some(entry) if entry.len == len && mapping.domain() == self.domain => {
                table.mappings.remove(&iova);
                Ok(())
            }
            _ => Err(DmaError::Unmap { iova, len, reason: "this space has no such mapping".to_owned() }),
        }
    }

    fn queues(&self) -> &ProgressBoard {
        &self.queues
    }
}

/// How many bytes of a file of `size` bytes can be mapped when `range` is asked for.
fn file_mapping(limits: &DmaLimits, range: Range<u64>, size: u64) -> Result<u64, DmaError> {
    let granule = limits.granule.max(1);
    let unsupported = |reason: String| Err(DmaError::Unsupported(reason));
    if !range.start.is_multiple_of(granule) {
        return unsupported(format!("offset {:#x} is not a multiple of {granule} bytes", range.start));
    }
    if range.end > size.checked_next_multiple_of(granule).unwrap_or(u64::MAX) {
        return unsupported(format!("the range ends at {}, the file has {size} bytes", range.end));
    }
    let last = if limits.partial_page { size } else { size / granule * granule };
    if limits.whole_files && (range.start != 0 || range.end < last) {
        return unsupported("only a whole file can be mapped, from its start".to_owned());
    }
    let end = if limits.partial_page { range.end } else { range.end / granule * granule };
    match end.min(last).checked_sub(range.start) {
        Some(len) if len > 0 => Ok(len),
        _ => unsupported("no byte of the range can be mapped".to_owned()),
    }
}
