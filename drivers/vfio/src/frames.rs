//! Page frame numbers, from /proc/self/pagemap: the proof that the device reads the file's own pages.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use hal::memory::PAGE;

use crate::file_pages::FilePages;

/// A page of this process, as /proc/PID/pagemap shows it (Documentation/admin-guide/mm/pagemap.rst).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PageFrame(u64);

/// Bits 0 to 54: the number; 61: a file's page; 63: in memory. The others differ from mapping to mapping of the same page.
const KNOWN: u64 = ((1 << 55) - 1) | (1 << 61) | (1 << 63);

impl PageFrame {
    /// The page frame number; `None` when the page is not in memory, or the process is not allowed to know (it takes CAP_SYS_ADMIN).
    pub fn number(self) -> Option<u64> {
        let number = self.0 & ((1 << 55) - 1);
        (self.0 >> 63 & 1 == 1 && number != 0).then_some(number)
    }

    /// The frame with this number, in memory.
    #[cfg(test)]
    pub(crate) fn at(number: u64) -> Self {
        Self(1 << 63 | number)
    }

    /// Whether it is a page of a file or of shared memory (bit 61), not an anonymous copy.
    pub fn is_file_page(self) -> bool {
        self.0 >> 61 & 1 == 1
    }
}

impl std::fmt::Debug for PageFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.number() {
            Some(number) => write!(f, "{number:#x}{}", if self.is_file_page() { " (file)" } else { "" }),
            None => f.write_str("(unknown)"),
        }
    }
}

/// The frames where the page cache has the pages of `range`, found without any pin.
///
/// # Errors
/// When the file cannot be mapped or the page map cannot be read.
pub fn page_cache_frames(file: BorrowedFd<'_>, range: Range<u64>) -> io::Result<Vec<PageFrame>> {
    frames_of(&FilePages::map(file, &range)?)
}

pub(crate) fn frames_of(pages: &FilePages) -> io::Result<Vec<PageFrame>> {
    frames_at(pages.base(), pages.len())
}

/// The frames of `len` bytes at `base`, which is only looked up, never read.
pub(crate) fn frames_at(base: NonNull<u8>, len: usize) -> io::Result<Vec<PageFrame>> {
    let mut bytes = vec![0; len / PAGE * 8];
    File::open("/proc/self/pagemap")?.read_exact_at(&mut bytes, base.as_ptr() as u64 / PAGE as u64 * 8)?;
    Ok(bytes.chunks_exact(8).map(|entry| PageFrame(u64::from_ne_bytes(entry.try_into().expect("chunks of 8")) & KNOWN)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn two_mappings_of_a_file_have_the_same_file_pages() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 10_000]).unwrap();
        let pages = FilePages::map(file.as_fd(), &(0..10_000)).unwrap();
        let frames = frames_of(&pages).unwrap();
        assert_eq!(frames.len(), 3);
        assert!(frames.iter().all(|frame| frame.is_file_page()));
        pages.protect().unwrap();
        assert_eq!(frames_of(&pages).unwrap(), page_cache_frames(file.as_fd(), 0..10_000).unwrap());
    }
}
