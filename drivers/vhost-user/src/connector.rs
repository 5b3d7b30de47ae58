//! How the socket is reached.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::VhostUserError;

/// Between two tries to reach a back end that is being started.
const RETRY: Duration = Duration::from_millis(50);

/// Reaches a back end, again when it was restarted.
#[derive(Debug)]
pub struct Connector {
    path: PathBuf,
    listener: Option<UnixListener>,
}

impl Connector {
    /// Connects to a back end that listens at `path`.
    pub fn client(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), listener: None }
    }

    /// Listens at `path` for a back end that connects. A socket that an earlier program left there is replaced; one that somebody listens at
    /// is not.
    ///
    /// # Errors
    /// [`VhostUserError::Listen`].
    pub fn server(path: impl Into<PathBuf>) -> Result<Self, VhostUserError> {
        let path = path.into();
        let listen = || {
            match UnixListener::bind(&path) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    match UnixStream::connect(&path) {
                        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(&path)?,
                        _ => return Err(error),
                    }
                    UnixListener::bind(&path)
                }
                result => result,
            }
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        };
        match listen() {
            Ok(listener) => Ok(Self { path, listener: Some(listener) }),
            Err(error) => Err(VhostUserError::Listen { path, error }),
        }
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A connection, waiting for the back end at most `patience`: to connect, or to listen.
    pub(crate) fn connect(&self, patience: Duration) -> Result<UnixStream, VhostUserError> {
        let start = Instant::now();
        loop {
            let error = match &self.listener {
                None => match UnixStream::connect(&self.path) {
                    Ok(stream) => return Ok(stream),
                    Err(error) if start.elapsed() < patience && is_absent(&error) => {
                        std::thread::sleep(RETRY);
                        continue;
                    }
                    Err(error) => error,
                },
                Some(listener) => match listener.accept() {
                    Ok((stream, _)) => match stream.set_nonblocking(false) {
                        Ok(()) => return Ok(stream),
                        Err(error) => error,
                    },
                    Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                        let left = patience.saturating_sub(start.elapsed());
                        if left.is_zero() {
                            return Err(VhostUserError::NobodyCame { path: self.path.clone(), waited: patience });
                        }
                        let left = Timespec::try_from(left).ok();
                        // Whatever it says, the next look tells.
                        let _ = poll(&mut [PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)], left.as_ref());
                        continue;
                    }
                    Err(error) => error,
                },
            };
            return Err(VhostUserError::Connect { path: self.path.clone(), error });
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

impl Drop for Connector {
    fn drop(&mut self) {
        if self.listener.is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
