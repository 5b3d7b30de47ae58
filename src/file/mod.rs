//! Files as something that a device can read.
//!
//! | room | holds |
//! |---|---|
//! | [`source`] | [`Source`]: what is sent — a regular file, or a stream that has to be copied |
//! | [`identity`] | [`Identity`]: which file it is, and which version of it |
//! | [`lease`] | [`Lease`]: the kernel's promise to tell us before anybody changes the file |
//! | [`window`] | [`WindowCache`]: ranges of files that are mapped for the device, kept for the next send |
//!
//! The program never loads a byte from a mapping of a file: what it has to read itself, it reads by `pread`. So a file that is truncated
//! under way cannot raise SIGBUS here.

pub mod identity;
pub mod lease;
pub mod source;
pub mod window;

pub use identity::Identity;
pub use lease::{Lease, LeaseError};
pub use source::{RegularFile, Source, SourceError, Stream};
pub use window::{CacheError, Hold, Span, WindowCache, WindowStatistics};
