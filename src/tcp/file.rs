//! A file as connections send it: opened once, kept from changing once, sent to any number of peers.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use crate::file::{Lease, RegularFile, Source};
use crate::send::{SendError, Stability, secure};

/// A file that connections send from, and what keeps it from changing meanwhile. Clones are the same file.
///
/// The file may be changed again when nobody has a clone any more: the program has dropped its own, and each connection drops its clones as
/// their bytes are acknowledged, or as it ends. Whoever changes it before waits for the lease, is noticed, and ends the connections that are
/// in the middle of it.
#[derive(Clone, Debug)]
pub struct SharedFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: Arc<RegularFile>,
    lease: Option<Lease>,
    stability: String,
    /// Without a lease: its size or times were found to be others.
    changed: AtomicBool,
}

impl SharedFile {
    /// Opens a file by its path, and keeps it from changing by a lease where there is one, else by trust.
    ///
    /// # Errors
    /// As [`Source::open`]; [`SendError::NotAFile`] for what has no pages, such as a pipe.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SendError> {
        match Source::open(path)? {
            Source::File(file) => Self::new(file, Stability::Auto),
            Source::Stream(stream) => Err(SendError::NotAFile(stream.name().to_owned())),
        }
    }

    /// Keeps `file` from changing, as far as `stability` asks for it and the system can.
    ///
    /// # Errors
    /// [`SendError::NoLease`] for [`Stability::Lease`] where there is none; [`SendError::Read`] when its size and times cannot be looked at, and
    /// when they changed since it was opened.
    pub fn new(file: impl Into<Arc<RegularFile>>, stability: Stability) -> Result<Self, SendError> {
        let file = file.into();
        let (lease, stability) = secure(&file, stability)?;
        let failed = |error| SendError::Read { name: file.name().to_owned(), error };
        // What was opened and what is secured have to be the same: lengths and times of the first may have been told already.
        if file.changed().map_err(failed)? {
            return Err(failed(std::io::Error::other("it changed after it was opened; open it again")));
        }
        Ok(Self(Arc::new(Inner { file, lease, stability, changed: AtomicBool::new(false) })))
    }

    /// The file.
    pub fn file(&self) -> &RegularFile {
        &self.0.file
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.0.file.size()
    }

    /// How it is kept from changing: `lease`, or `trust` and why.
    pub fn stability(&self) -> &str {
        &self.0.stability
    }

    /// How it changed or is about to, if that is known; looks at no system call.
    #[inline]
    pub(crate) fn disturbed(&self) -> Option<&'static str> {
        if self.0.lease.as_ref().is_some_and(Lease::broken) {
            Some("another process wants to change it")
        } else if self.0.changed.load(Ordering::Relaxed) {
            Some("its size or times changed during the send; the receiver may have a mixture")
        } else {
            None
        }
    }

    /// Where there is no lease, a change can only be found out afterwards: looks at size and times.
    pub(super) fn look(&self) {
        // A file that cannot even be looked at counts as changed.
        if self.0.lease.is_none() && self.0.file.changed().unwrap_or(true) {
            self.0.changed.store(true, Ordering::Relaxed);
        }
    }

    /// Its bytes could not be read any more.
    pub(super) fn set_changed(&self) {
        self.0.changed.store(true, Ordering::Relaxed);
    }

    /// Lets whoever waits to change the file go on.
    pub(super) fn give_up_lease(&self) {
        if let Some(lease) = &self.0.lease {
            lease.give_up();
        }
    }

    /// To find it again as long as somebody has it.
    pub(crate) fn remember(&self) -> (usize, WeakFile) {
        (Arc::as_ptr(&self.0) as usize, WeakFile(Arc::downgrade(&self.0)))
    }

    /// Whether both are clones of one.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A file that others have.
#[derive(Debug)]
pub(crate) struct WeakFile(Weak<Inner>);

impl WeakFile {
    pub fn upgrade(&self) -> Option<SharedFile> {
        self.0.upgrade().map(SharedFile)
    }

    pub fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}
