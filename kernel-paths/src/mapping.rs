//! A shared mapping of a file, from which sockets send.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The first bytes of a file, mapped and read in. No reference to them is ever made: other processes may write them.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    pub(crate) fn new(file: &File, len: usize) -> io::Result<Self> {
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a mapping at an address of the kernel's choice replaces nothing.
        let start = unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ, flags, file, 0) }?;
        Ok(Self { start: NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?, len })
    }

    /// The address of `offset`, and how many bytes there are from it on, at most `most`.
    pub(crate) fn part(&self, offset: usize, most: usize) -> (*const u8, usize) {
        assert!(offset <= self.len, "an offset inside the mapping");
        // SAFETY: the offset is inside the mapping or at its end.
        let start = unsafe { self.start.as_ptr().add(offset) };
        (start, most.min(self.len - offset))
    }

    /// One `send` of at most `most` bytes from `offset` on.
    pub(crate) fn send(&self, socket: BorrowedFd<'_>, offset: usize, most: usize, flags: libc::c_int) -> io::Result<usize> {
        let (start, len) = self.part(offset, most);
        // SAFETY: the kernel alone reads the bytes, which are mapped as long as `self` is; it answers an error where the file has become shorter.
        let sent = unsafe { libc::send(socket.as_raw_fd(), start.cast(), len, flags) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is what was mapped, and nothing refers to it: no reference was made, and the senders wait until the kernel has let go.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}
