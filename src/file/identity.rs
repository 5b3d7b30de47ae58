//! Which file, and which version of it.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A file by device and inode, and its version by size and times. Windows are kept under this, never under a path or an address: a file
/// that changed is another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    /// The file as it is now.
    ///
    /// # Errors
    /// What fstat said.
    pub fn of(file: &File) -> io::Result<Self> {
        file.metadata().map(|metadata| Self::from(&metadata))
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// When its bytes were last changed.
    ///
    /// A time that the system's clock cannot represent is its epoch.
    pub fn modified(&self) -> SystemTime {
        let (seconds, nanoseconds) = self.modified;
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let second = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
        second.and_then(|second| second.checked_add(Duration::from_nanos(nanoseconds.unsigned_abs()))).unwrap_or(UNIX_EPOCH)
    }

    /// A text that no other version of the file has, of letters, digits, dots and hyphens.
    pub fn tag(&self) -> String {
        let [modified, changed] = [self.modified, self.changed].map(|(seconds, nanoseconds)| (seconds as u64, nanoseconds as u64));
        format!("{:x}-{:x}-{:x}.{:x}-{:x}.{:x}", self.inode, self.size, modified.0, modified.1, changed.0, changed.1)
    }

    /// Whether it is the same file, of whatever version.
    pub fn same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
