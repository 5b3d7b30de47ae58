//! What can go wrong with a back end.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hal::{BusError, RegisterError};

/// A back end that cannot be reached or does not do its part.
#[derive(Debug, thiserror::Error)]
pub enum VhostUserError {
    /// Nobody is there.
    #[error("{}: {error}{}", path.display(), remedy(error, path))]
    Connect {
        /// the socket
        path: PathBuf,
        /// what the system said
        error: io::Error,
    },
    /// There is something else.
    #[error("{}: it is no socket; name that of the back end", .0.display())]
    NoSocket(PathBuf),
    /// Nobody came.
    #[error("{}: no back end connected within {waited:?}; start it as a client of this socket", path.display())]
    NobodyCame {
        /// the socket
        path: PathBuf,
        /// for how long it was listened at
        waited: Duration,
    },
    /// The wait for it was [stopped](crate::Options::stop).
    #[error("{}: stopped while waiting for the back end", .0.display())]
    Stopped(PathBuf),
    /// The socket cannot be listened at.
    #[error("{}: cannot listen: {error}{}", path.display(), remedy_to_listen(error))]
    Listen {
        /// the socket
        path: PathBuf,
        /// what the system said
        error: io::Error,
    },
    /// It was there, and went.
    #[error("{}: the back end is gone: it closed the connection; start it again, and send again", .0.display())]
    Gone(PathBuf),
    /// It does not take a queue.
    #[error(
        "{}: the back end refuses queue {index} of {size} descriptors ({reason}): it may have fewer queues (queues=), or take smaller rings \
         (tx-ring=, rx-ring=)",
        path.display()
    )]
    Queue {
        /// the socket
        path: PathBuf,
        /// the queue
        index: u16,
        /// its descriptors
        size: u16,
        /// what came of it
        reason: String,
    },
    /// It does not greet as a back end does.
    #[error("{}: {message}: {reason}; is it a vhost-user back end, and has it no other front end?", path.display())]
    Greeting {
        /// the socket
        path: PathBuf,
        /// which message, as the protocol names it
        message: &'static str,
        /// what came of it
        reason: String,
    },
    /// A message failed.
    #[error("{}: {message}: {reason}", path.display())]
    Message {
        /// the socket
        path: PathBuf,
        /// which message, as the protocol names it
        message: &'static str,
        /// what came of it
        reason: String,
    },
}

fn remedy_to_listen(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program listens there, or it is no socket, or not yours: name another path",
        _ => "",
    }
}

fn remedy(error: &io::Error, path: &Path) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!("; start the back end first, or listen for it: vhost-user:{},server=on", path.display())
        }
        io::ErrorKind::ConnectionRefused => "; its back end is gone: start it again".into(),
        io::ErrorKind::PermissionDenied => "; you need the right to write to the socket".into(),
        _ => String::new(),
    }
}

impl From<VhostUserError> for BusError {
    fn from(error: VhostUserError) -> Self {
        let text = error.to_string();
        match error {
            VhostUserError::Stopped(_) => Self::Stopped(text),
            // It is there.
            VhostUserError::Greeting { .. } | VhostUserError::Queue { .. } | VhostUserError::NoSocket(_) => Self::Refused(text),
            VhostUserError::Connect { .. }
            | VhostUserError::NobodyCame { .. }
            | VhostUserError::Listen { .. }
            | VhostUserError::Gone(_)
            | VhostUserError::Message { .. } => Self::Register(RegisterError::Unreachable(text)),
        }
    }
}
