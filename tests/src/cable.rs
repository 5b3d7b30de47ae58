//! A cable that impairs what goes over it, between the kernel of a namespace and a NIC, or two kernels.

use std::fmt;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hw_sim::wire::{Impairment, MAX_FRAME, Path};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};
use tun_rs::SyncDevice;

/// How long a station may take to make room for a frame: then it is lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// What one end of a cable is plugged into.
pub enum Plug {
    /// A TAP interface: the kernel of its namespace.
    Tap(SyncDevice),
    /// A simulated NIC with a datagram wire.
    Nic {
        /// this end's socket
        socket: UnixDatagram,
        /// the NIC's
        nic: PathBuf,
    },
}

impl fmt::Debug for Plug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tap(_) => "Tap",
            Self::Nic { .. } => "Nic",
        })
    }
}

impl Plug {
    /// A plug for a NIC, with sockets in `directory`, and the address of that NIC for a model (and further options).
    ///
    /// # Panics
    /// When there is one already.
    pub fn nic(directory: &FilePath, model: &str) -> (Self, String) {
        let (nic, here) = (directory.join("nic"), directory.join("cable"));
        let socket = UnixDatagram::bind(&here).expect("a socket in the temporary directory");
        socket.set_write_timeout(Some(PATIENCE)).expect("a time-out");
        let address = format!("sim:{model},wire=dgram:{}:{}", nic.display(), here.display());
        (Self::Nic { socket, nic }, address)
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tap(tap) => tap.as_fd(),
            Self::Nic { socket, .. } => socket.as_fd(),
        }
    }

    /// A frame that is there.
    fn receive(&self, buffer: &mut [u8]) -> Option<Vec<u8>> {
        let len = match self {
            Self::Tap(tap) => tap.recv(buffer).ok()?,
            Self::Nic { socket, .. } => recv(socket, &mut *buffer, RecvFlags::DONTWAIT).ok()?.0,
        };
        Some(buffer[..len].to_vec())
    }

    /// What nobody takes is lost, as on every cable.
    fn send(&self, frame: &[u8]) {
        let _ = match self {
            Self::Tap(tap) => tap.send(frame).map(drop),
            Self::Nic { socket, nic } => socket.send_to(frame, nic).map(drop),
        };
    }
}

/// A cable with an impairment in each direction. It is pulled out when this is dropped.
#[derive(Debug)]
pub struct Cable {
    /// Dropped to end the threads.
    running: Option<PipeWriter>,
    threads: Vec<JoinHandle<Path>>,
}

impl Cable {
    /// Connects two plugs. Which frames are lost each way is decided by `seed`, and the order in which they come.
    ///
    /// # Panics
    /// When the system has no pipe or no thread left.
    pub fn between(plugs: [Plug; 2], impairments: [Impairment; 2], seed: u64) -> Self {
        let (stop, running) = io::pipe().expect("a pipe");
        let [one, other] = plugs.map(Arc::new);
        let ways = [(Arc::clone(&one), Arc::clone(&other)), (other, one)];
        let threads = ways.into_iter().zip(impairments).zip(0..).map(|(((from, to), impairment), way)| {
            let (path, stop) = (Path::new(impairment, 2 * seed + way), stop.try_clone().expect("a descriptor"));
            std::thread::Builder::new().name("cable".into()).spawn(move || carry(&from, &to, path, &stop)).expect("a thread")
        });
        Self { threads: threads.collect(), running: Some(running) }
    }

    /// Pulls it out. What each direction has carried and lost.
    ///
    /// # Panics
    /// When a direction failed.
    pub fn end(mut self) -> [Path; 2] {
        self.running = None;
        let mut paths = self.threads.drain(..).map(|thread| thread.join().expect("it carried to the end"));
        [paths.next(), paths.next()].map(|path| path.expect("two directions"))
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.running = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Carries frames one way, until the other end of `stop` is closed.
fn carry(from: &Plug, to: &Plug, mut path: Path, stop: &PipeReader) -> Path {
    let (start, mut buffer) = (Instant::now(), vec![0; MAX_FRAME]);
    loop {
        let now = start.elapsed();
        while let Some(frame) = path.take(now) {
            to.send(&frame);
        }
        let wait = path.next().map(|at| at.saturating_sub(start.elapsed()));
        let wait = wait.map(|wait| Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() });
        let watched = [from.descriptor(), stop.as_fd()];
        let [from_fd, stop_fd] = &watched;
        let mut ready = [PollFd::new(from_fd, PollFlags::IN), PollFd::new(stop_fd, PollFlags::IN)];
        // A signal ends the wait early, and nothing else can go wrong with it.
        let _ = poll(&mut ready, wait.as_ref());
        if !ready[1].revents().is_empty() {
            return path;
        }
        while let Some(frame) = from.receive(&mut buffer) {
            path.send(frame, start.elapsed());
        }
    }
}
