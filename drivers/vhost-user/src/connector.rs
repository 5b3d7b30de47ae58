//! How the socket is reached.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::error::VhostUserError;

/// Between two tries to reach a back end that is being started, and two looks whether to go on waiting.
const RETRY: Duration = Duration::from_millis(50);
/// When it is told that a back end is waited for: most are there by then.
const SILENCE: Duration = Duration::from_secs(1);

/// For how long something is waited for.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    pub most: Duration,
    /// Who waits is told to give up.
    pub stop: Option<Arc<AtomicBool>>,
}

impl Patience {
    fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed))
    }
}

/// Reaches a back end, again when it was restarted.
#[derive(Debug)]
pub struct Connector {
    path: PathBuf,
    listener: Option<Listener>,
}

#[derive(Debug)]
struct Listener {
    socket: UnixListener,
    /// Which file it is at the path.
    file: Option<(u64, u64)>,
}

impl Connector {
    /// Connects to a back end that listens at `path`.
    pub fn client(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), listener: None }
    }

    /// Listens at `path` for a back end that connects. A socket that an earlier program left there is replaced; one that somebody listens at, and any
    /// other file, is not.
    ///
    /// # Errors
    /// [`VhostUserError::Listen`].
    pub fn server(path: impl Into<PathBuf>) -> Result<Self, VhostUserError> {
        let path = path.into();
        match listen(&path) {
            Ok(socket) => {
                let file = identity(&path);
                Ok(Self { path, listener: Some(Listener { socket, file }) })
            }
            Err(error) => Err(VhostUserError::Listen { path, error }),
        }
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A connection, waiting for the back end: to connect, or to listen.
    pub(crate) fn connect(&self, patience: &Patience) -> Result<UnixStream, VhostUserError> {
        let failed = |error| VhostUserError::Connect { path: self.path.clone(), error };
        let (start, mut told) = (Instant::now(), false);
        loop {
            let absent = match &self.listener {
                None => match connect(&self.path) {
                    Ok(stream) => return Ok(stream),
                    // A file that is no socket refuses connections, too.
                    Err(error) if is_absent(&error) && is_other_file(&self.path) => {
                        return Err(VhostUserError::NoSocket(self.path.clone()));
                    }
                    Err(error) if is_absent(&error) => Some(error),
                    Err(error) => return Err(failed(error)),
                },
                Some(listener) => match listener.socket.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(false).map_err(failed)?;
                        // One that came while nobody was waiting may have gone again. There may be another one behind it.
                        if !has_hung_up(&stream) {
                            return Ok(stream);
                        }
                        None
                    }
                    Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => None,
                    Err(error) => return Err(failed(error)),
                },
            };
            let waited = start.elapsed();
            if patience.is_stopped() {
                return Err(VhostUserError::Stopped(self.path.clone()));
            }
            if waited >= patience.most {
                return Err(match absent {
                    Some(error) => failed(error),
                    None => VhostUserError::NobodyCame { path: self.path.clone(), waited: patience.most },
                });
            }
            if waited >= SILENCE && !told {
                told = true;
                tracing::warn!("{}: waiting for the back end, up to {:?}", self.path.display(), patience.most);
            }
            self.pause(RETRY.min(patience.most - waited));
        }
    }

    /// Until somebody connects, or the time is over.
    fn pause(&self, time: Duration) {
        match &self.listener {
            None => std::thread::sleep(time),
            Some(Listener { socket, .. }) => {
                // Whatever it says, the next look tells.
                let _ = poll(&mut [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)], Timespec::try_from(time).ok().as_ref());
            }
        }
    }
}

/// A connection at once, or none: a back end that does not take connections in time is as good as absent.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_over(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        listener => listener?,
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Whether it is a socket that nobody listens at. To find out, a socket of another kind is connected, which the system refuses in one way when there
/// is nobody, and in another when there is somebody: who listens is not bothered.
fn is_left_over(path: &Path) -> bool {
    let refused = || UnixDatagram::unbound().and_then(|probe| probe.connect(path));
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    is_socket && refused().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Whether there is something else than a socket.
fn is_other_file(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| !file.file_type().is_socket())
}

/// Whether the other end is gone, which it tells unasked.
pub(crate) fn has_hung_up(stream: &UnixStream) -> bool {
    let mut ends = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::empty())];
    matches!(poll(&mut ends, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(count) if count > 0)
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock)
}

impl Drop for Connector {
    fn drop(&mut self) {
        // Somebody may have put another one there.
        if self.listener.as_ref().is_some_and(|listener| listener.file.is_some() && listener.file == identity(&self.path)) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
