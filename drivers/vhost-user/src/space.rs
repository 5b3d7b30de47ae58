//! Memory and files that a back end has mapped.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hal::iova::{AddressWidth, Alignment, IovaAllocator};
use hal::memory::HUGE_PAGE;
use hal::progress::ProgressBoard;
use hal::segment::Domain;
use hal::{Access, DmaError, DmaLimits, DmaSpace, Mapping, SharedMemory};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fstat, open};

use crate::error::VhostUserError;
use crate::session::{Region, Session};

const PAGE: u64 = 4096;

/// The addresses that regions are given: any would do, since they are names and nothing else. These look like a guest's memory.
const ADDRESSES: std::ops::RangeInclusive<u64> = 1 << 32..=(1 << 46) - 1;

/// The memory table of a vhost-user back end.
pub struct VhostSpace {
    session: Arc<Mutex<Session>>,
    addresses: Mutex<IovaAllocator>,
    domain: Domain,
    queues: ProgressBoard,
    files: bool,
}

impl VhostSpace {
    pub(crate) fn new(session: Arc<Mutex<Session>>, files: bool) -> Self {
        let addresses = Mutex::new(IovaAllocator::new(&[ADDRESSES], PAGE, AddressWidth::Bits64));
        Self { session, addresses, domain: Domain::new(), queues: ProgressBoard::new(), files }
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn addresses(&self) -> MutexGuard<'_, IovaAllocator> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the back end map all of what `descriptor` is; `len` is in whole pages.
    fn map(&self, descriptor: OwnedFd, len: u64) -> Result<u64, DmaError> {
        let mut session = self.session();
        if session.slots_left() == 0 {
            let reason = "the back end takes no more memory regions: use fewer queues, or fewer files at once".into();
            return Err(DmaError::Full { len, reason });
        }
        let alignment = Alignment { modulus: HUGE_PAGE as u64, phase: 0 };
        let address = self.addresses().allocate(len, alignment);
        let address = address.ok_or_else(|| DmaError::Full { len, reason: "no addresses are left".into() })?;
        session.add(Region { address, len, descriptor }).map_err(|error| {
            self.addresses().release(address, len);
            DmaError::Map { len, reason: error.to_string() }
        })?;
        Ok(address)
    }
}

impl DmaSpace for VhostSpace {
    fn domain(&self) -> Domain {
        self.domain
    }

    fn limits(&self) -> DmaLimits {
        DmaLimits {
            ranges: vec![ADDRESSES],
            granule: PAGE,
            maps: self.session().slots_left() as u32,
            bytes: self.addresses().free_bytes(),
            whole_files: true,
            partial_page: true,
            writable_descriptor: self.files,
        }
    }

    fn map_memory(&self, memory: &SharedMemory, _access: Access) -> Result<Mapping, DmaError> {
        // The back end maps for reading and writing, whatever was asked for.
        let len = memory.len() as u64;
        let descriptor = memory.as_fd().try_clone_to_owned().map_err(|error| DmaError::Map { len, reason: error.to_string() })?;
        Ok(Mapping::new(self.domain, self.map(descriptor, len)?, len))
    }

    fn map_file(&self, file: BorrowedFd<'_>, range: Range<u64>) -> Result<Mapping, DmaError> {
        if !self.files {
            return Err(DmaError::Unsupported(
                "a vhost-user back end maps files for writing too, so they are copied unless files=on asks for it".into(),
            ));
        }
        let len = range.end.saturating_sub(range.start);
        let failed = |reason: String| DmaError::Map { len, reason };
        let size = fstat(file).map_err(|error| failed(error.to_string()))?.st_size as u64;
        if range.start != 0 || range.is_empty() || range.end > size {
            return Err(DmaError::Unsupported(format!("bytes {range:?} of a file of {size} bytes; only whole files are mapped")));
        }
        let descriptor =
            writable(file).map_err(|error| failed(format!("the file cannot be opened for writing, which a back end needs: {error}")))?;
        Ok(Mapping::new(self.domain, self.map(descriptor, size.next_multiple_of(PAGE))?, range.end))
    }

    fn unmap(&self, mapping: Mapping) -> Result<(), DmaError> {
        let (iova, len) = (mapping.iova(), mapping.len());
        if mapping.domain() != self.domain {
            return Err(DmaError::Unmap { iova, len, reason: "it belongs to another space".into() });
        }
        match self.session().remove(iova) {
            Ok(()) => {
                self.addresses().release(iova, len.next_multiple_of(PAGE));
                Ok(())
            }
            Err(error @ (VhostUserError::Message { .. } | VhostUserError::Gone(_))) => {
                // The connection is given up, and everything that the back end had mapped with it. Why is not known later.
                if matches!(error, VhostUserError::Message { .. }) {
                    tracing::warn!("unmapping: {error}");
                }
                self.addresses().release(iova, len.next_multiple_of(PAGE));
                Ok(())
            }
            Err(error) => Err(DmaError::Unmap { iova, len, reason: error.to_string() }),
        }
    }

    fn queues(&self) -> &ProgressBoard {
        &self.queues
    }
}

/// The file again, open for reading and writing: the back end maps what it is sent with both.
fn writable(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    if fcntl_getfl(file)?.contains(OFlags::RDWR) {
        return file.try_clone_to_owned();
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // Without waiting: a lease of our own would be broken by this.
    Ok(open(path, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?)
}
