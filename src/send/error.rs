//! What can go wrong with a send.

use std::io;

use hal::{DmaError, NicError};

use crate::file::{LeaseError, SourceError};
use crate::net::NetError;
use crate::tcp::SocketError;

impl SendError {
    /// Whether somebody did not want to wait for a device any longer that was not there.
    pub fn is_stopped(&self) -> bool {
        matches!(self, Self::Nic(error) if error.is_stopped())
    }
}

/// Why a send could not begin or go on. The [report](crate::send::Report) says how far it came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The NIC.
    #[error("{0}")]
    Nic(#[from] NicError),
    /// An address, or a neighbour that does not answer.
    #[error("{0}")]
    Net(#[from] NetError),
    /// A mapping.
    #[error("{0}")]
    Dma(#[from] DmaError),
    /// The range does not lie in the file.
    #[error("--offset {offset} is past the end of {name}, which has {size} bytes")]
    Offset {
        /// the wanted offset in bytes
        offset: u64,
        /// the file
        name: String,
        /// its size in bytes
        size: u64,
    },
    /// A stream cannot be entered in the middle.
    #[error("--offset needs a regular file, which {0} is not")]
    StreamOffset(String),
    /// Reading failed.
    #[error("reading {name}: {error}")]
    Read {
        /// the file or stream
        name: String,
        /// what the system said
        error: io::Error,
    },
    /// `--stability lease`, and there is none.
    #[error("no lease on {name}: {error}; --stability auto sends it all the same, and trusts that nobody changes it")]
    NoLease {
        /// the file
        name: String,
        /// why
        error: LeaseError,
    },
    /// What is to be sent could not be opened.
    #[error("{0}")]
    Source(#[from] SourceError),
    /// What is to be sent as a file is none.
    #[error("{0} is not a regular file, so it has no pages that a NIC could read; send its bytes instead")]
    NotAFile(String),
    /// A connection.
    #[error("{0}")]
    Socket(#[from] SocketError),
    /// Memory for packet buffers.
    #[error("no memory for packet buffers: {0}")]
    Pool(io::Error),
    /// A configuration that cannot be.
    #[error("{0}")]
    Config(String),
}
