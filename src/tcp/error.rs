//! What can go wrong with a connection of a stack.

use crate::net::NetError;
use crate::send::SendError;

use super::connection::TcpError;

/// Why a connection could not be had, or does no longer do what it is asked. Every text says what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The connection was closed by this program, which has no handle of it any more.
    #[error("this connection was closed by the program itself; a handle is good until close() is called")]
    Gone,
    /// The peer or the path.
    #[error("{0}")]
    Tcp(#[from] TcpError),
    /// An address, or a neighbour that does not answer.
    #[error("{0}")]
    Net(#[from] NetError),
    /// A file changed while it was sent. What was on its way was delivered, then the connection was reset: the peer cannot take it for the whole.
    #[error("{name}: {how}; the peer has its bytes up to {delivered}, and the connection was reset")]
    FileChanged {
        /// the file
        name: String,
        /// what happened to it
        how: String,
        /// where in the file the sending ended: all bytes of the range before that have arrived
        delivered: u64,
    },
    /// The range does not lie in the file.
    #[error("bytes {start}..{end} of {name}, which has {size} bytes; give a range inside the file")]
    Range {
        /// the file
        name: String,
        /// the first byte
        start: u64,
        /// the byte behind the last
        end: u64,
        /// the file's size in bytes
        size: u64,
    },
    /// Something listens on the port already.
    #[error("port {0} has a listener already; close it first, or take another port")]
    PortInUse(u16),
    /// There are as many connections as there may be.
    #[error("there are {0} connections, as many as StackConfig::connections allows; close some, or allow more")]
    Full(usize),
}

/// A random secret could not be drawn.
pub(super) fn no_secret(error: std::io::Error) -> SendError {
    SendError::Config(format!("no random numbers from /dev/urandom, which initial sequence numbers need: {error}"))
}
