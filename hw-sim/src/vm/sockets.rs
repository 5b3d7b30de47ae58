//! The sockets that QEMU connects to, in a directory that is gone as soon as it has.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::VmError;
use crate::rig::process::Process;
use crate::rig::timeout::{poll_until, wait_readable};

/// How long a QEMU may take to connect: it has nothing to do before, but this host may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Sockets {
    directory: tempfile::TempDir,
    listeners: Vec<(String, UnixListener)>,
}

impl Sockets {
    pub(crate) fn new() -> Result<Self, VmError> {
        let directory = tempfile::Builder::new().prefix("pagewire-vm-").tempdir();
        Ok(Self { directory: directory.map_err(VmError::setup("make a temporary directory"))?, listeners: Vec::new() })
    }

    /// Where they are.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Makes the socket `name` and returns its path.
    pub(crate) fn listen(&mut self, name: &str) -> Result<PathBuf, VmError> {
        let path = self.directory.path().join(name);
        let what = "make a socket in the temporary directory (a shorter TMPDIR may help)";
        let listener = UnixListener::bind(&path).map_err(VmError::setup(what))?;
        listener.set_nonblocking(true).map_err(VmError::setup("prepare a socket"))?;
        self.listeners.push((name.to_owned(), listener));
        Ok(path)
    }

    /// QEMU's connection to the socket `name`; its last words, when it ends instead.
    pub(crate) fn accept(&self, name: &str, process: &Process) -> Result<UnixStream, VmError> {
        let missing = || VmError::Start(format!("QEMU has not connected its {name}"));
        let (_, listener) = self.listeners.iter().find(|(listening, _)| listening == name).ok_or_else(missing)?;
        let deadline = Instant::now() + PATIENCE;
        let answer = poll_until(deadline, || match listener.accept() {
            Ok((stream, _)) => Some(Ok(stream)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                let ended = process.obituary(Duration::ZERO).map(|reason| Err(VmError::Start(reason)));
                if ended.is_none() {
                    wait_readable(&[listener.as_fd()], deadline.min(Instant::now() + Duration::from_millis(20)));
                }
                ended
            }
            Err(source) => Some(Err(VmError::setup("accept QEMU's connection")(source))),
        });
        let stream = answer.unwrap_or_else(|| Err(missing()))?;
        stream.set_nonblocking(false).map_err(VmError::setup("prepare a socket"))?;
        Ok(stream)
    }
}
