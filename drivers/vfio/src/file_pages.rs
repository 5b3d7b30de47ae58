//! A range of a file in this process' address space: the page-cache pages themselves, for the kernel to find and pin. Never read from.
#![allow(unsafe_code)]

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use rustix::fs::{FileType, fstat, fstatfs};
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mprotect, munmap};

use hal::memory::PAGE;

/// `HUGETLBFS_MAGIC` (linux/magic.h).
const HUGETLBFS: u64 = 0x958458f6;

/// A file's pages, mapped shared and read-only.
pub(crate) struct FilePages {
    base: NonNull<u8>,
    /// Whole pages; what the kernel's mapping has.
    len: usize,
}

// SAFETY: the pointer is never read through; what is done with the mapping may be done from any thread.
unsafe impl Send for FilePages {}
// SAFETY: as above.
unsafe impl Sync for FilePages {}

impl FilePages {
    /// Maps the pages of `range` and reads them into the page cache. The range is inside the file and starts at a page.
    ///
    /// Shared, since a private mapping is copied when it is pinned (Linux 6.2 and later), without any error.
    pub(crate) fn map(file: BorrowedFd<'_>, range: &Range<u64>) -> io::Result<Self> {
        let stat = fstat(file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file: it has no pages to map"));
        }
        if range.is_empty() || range.end > stat.st_size as u64 {
            let reason = format!("bytes {}..{} of a file of {} bytes", range.start, range.end, stat.st_size);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let huge = fstatfs(file).ok().filter(|system| system.f_type as u64 == HUGETLBFS).map(|system| system.f_bsize as usize);
        let len = usize::try_from(range.end - range.start).ok().and_then(|len| len.checked_next_multiple_of(huge.unwrap_or(PAGE)));
        let len = len.ok_or(io::ErrorKind::OutOfMemory)?;
        let pages = Self::map_with(file, range.start, len, MapFlags::SHARED)?;
        // SAFETY: the range is the mapping's own, and the advice changes no content.
        match unsafe { madvise(pages.base.as_ptr().cast(), len, Advice::LinuxPopulateRead) } {
            Ok(()) => Ok(pages),
            // Linux before 5.14. It populates as far as it can and says nothing; the pin then finds what is missing.
            Err(rustix::io::Errno::INVAL) => Self::map_with(file, range.start, len, MapFlags::SHARED | MapFlags::POPULATE),
            Err(error) => Err(error.into()),
        }
    }

    fn map_with(file: BorrowedFd<'_>, start: u64, len: usize, flags: MapFlags) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice; nothing else is touched.
        let base = unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ, flags, file, start)? };
        Ok(Self { base: NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?, len })
    }

    /// Where the mapping is.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The length in bytes, whole pages.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes every access from this process: a load from the pages is a fault from now on. The device's is not concerned.
    pub(crate) fn protect(&self) -> io::Result<()> {
        // SAFETY: the range is the mapping's own, and nothing in this process loads from it.
        unsafe { mprotect(self.base.as_ptr().cast(), self.len, MprotectFlags::empty())? };
        Ok(())
    }
}

impl Drop for FilePages {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and no reference to it exists.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    fn file(len: usize) -> std::fs::File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; len]).unwrap();
        file
    }

    #[test]
    fn a_partial_last_page_is_mapped_whole() {
        let file = file(5000);
        let mut pages = FilePages::map(file.as_fd(), &(0..5000)).unwrap();
        assert_eq!(pages.len(), 8192);
        pages.protect().unwrap();
        pages = FilePages::map(file.as_fd(), &(4096..5000)).unwrap();
        assert_eq!(pages.len(), 4096);
    }

    #[test]
    fn what_has_no_pages_is_refused() {
        let file = file(5000);
        for (start, end) in [(0, 5001), (4096, 4096), (8192, 9000), (5000, 4096), (0, u64::MAX)] {
            let range = start..end;
            assert_eq!(FilePages::map(file.as_fd(), &range).err().unwrap().kind(), io::ErrorKind::InvalidInput, "{range:?}");
        }
        let (pipe, _) = io::pipe().unwrap();
        assert!(FilePages::map(pipe.as_fd(), &(0..10)).err().unwrap().to_string().contains("regular file"));
    }
}
