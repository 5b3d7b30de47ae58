//! A wire that is a pair of Unix datagram sockets: one frame a datagram.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded, select};

use super::{End, MAX_FRAME, Wire, WireError, local};

/// How often a frame that cannot be delivered is tried again.
const RETRY: Duration = Duration::from_millis(20);
/// How long one send waits for room at the other end before it looks whether the wire is still wanted.
const PATIENCE: Duration = Duration::from_millis(100);

/// Two threads between a [local](super::local()) wire and the sockets. Ends them and removes the local socket when dropped.
pub(crate) struct Bridge {
    socket: UnixDatagram,
    local: PathBuf,
    delivery: Arc<Delivery>,
    ending: Arc<AtomicBool>,
    /// Dropped to wake a thread that waits at a channel.
    running: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Bridge {
    /// Binds `local` and starts to carry frames to `remote`; the rig's end comes back with it.
    pub(crate) fn start(local_path: &Path, remote: &Path) -> Result<(Self, End), WireError> {
        let socket = UnixDatagram::bind(local_path).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => WireError::InUse { path: local_path.to_owned() },
            _ => WireError::Bind { path: local_path.to_owned(), source },
        })?;
        let (end, wire) = local();
        let (running, stop) = bounded(0);
        let delivery = Arc::new(Delivery::new(remote));
        // Made before anything else can fail, so that the socket file is removed in any case.
        let mut bridge =
            Self { socket, local: local_path.to_owned(), delivery, ending: Arc::default(), running: Some(running), threads: Vec::new() };
        bridge.socket.set_write_timeout(Some(PATIENCE))?;

        let Wire { from_device, to_device, .. } = wire;
        let (socket, delivery, stopped) = (bridge.socket.try_clone()?, Arc::clone(&bridge.delivery), stop.clone());
        bridge.spawn("rig-dgram-out", move || outbound(&socket, &from_device, &delivery, &stopped))?;
        let (socket, ending) = (bridge.socket.try_clone()?, Arc::clone(&bridge.ending));
        bridge.spawn("rig-dgram-in", move || inbound(&socket, &to_device, &ending, &stop))?;
        Ok((bridge, end))
    }

    pub(crate) fn delivery(&self) -> Arc<Delivery> {
        Arc::clone(&self.delivery)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(std::thread::Builder::new().name(name.into()).spawn(work)?);
        Ok(())
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        self.running = None;
        let _ = self.socket.shutdown(Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.local);
    }
}

/// How the delivery of the device's frames to the remote socket is doing.
pub(crate) struct Delivery {
    remote: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Since when the frame at the head has been waiting, and why.
    stalled: Option<(Instant, String)>,
    /// How many frames have been delivered.
    delivered: u64,
}

impl Delivery {
    fn new(remote: &Path) -> Self {
        Self { remote: remote.to_owned(), state: Mutex::default(), changed: Condvar::new() }
    }

    /// Why nothing has been delivered for `timeout`; `None` when that is not so.
    pub(super) fn stalled(&self, timeout: Duration) -> Option<String> {
        let state = self.state();
        let (since, reason) = state.stalled.as_ref()?;
        (since.elapsed() >= timeout).then(|| self.explain(reason, timeout))
    }

    /// For a wire on which frames do move, but not fast enough.
    pub(super) fn behind(&self, timeout: Duration) -> String {
        match &self.state().stalled {
            Some((_, reason)) => self.explain(reason, timeout),
            None => format!("{} does not read as fast as the device sends", self.remote.display()),
        }
    }

    /// Waits until `frames` have been delivered; gives up when none has been for `timeout`.
    pub(super) fn wait_delivered(&self, frames: u64, timeout: Duration) -> Result<(), String> {
        let mut state = self.state();
        while state.delivered < frames {
            if let Some((since, reason)) = &state.stalled
                && since.elapsed() >= timeout
            {
                return Err(self.explain(reason, timeout));
            }
            state = self.changed.wait_timeout(state, RETRY).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    fn explain(&self, reason: &str, timeout: Duration) -> String {
        format!("{} has not read for {} s ({reason})", self.remote.display(), timeout.as_secs_f32())
    }

    fn stall(&self, reason: String) {
        let mut state = self.state();
        let since = state.stalled.as_ref().map_or_else(Instant::now, |(since, _)| *since);
        state.stalled = Some((since, reason));
    }

    fn count(&self) {
        let mut state = self.state();
        state.stalled = None;
        state.delivered += 1;
        drop(state);
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// From the device to the remote socket, in order, each frame until it is delivered.
fn outbound(socket: &UnixDatagram, queue: &Receiver<Vec<u8>>, delivery: &Delivery, stop: &Receiver<()>) {
    loop {
        let frame = select! {
            recv(queue) -> frame => match frame {
                Ok(frame) => frame,
                Err(_) => return,
            },
            recv(stop) -> _ => return,
        };
        while let Err(error) = socket.send_to(&frame, &delivery.remote) {
            // Room may come at any moment, and that send waited for it; a socket that is missing is looked for again.
            let full = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted);
            delivery.stall(match error.kind() {
                io::ErrorKind::NotFound => "there is no such socket: start the program that makes it, or correct the path".to_owned(),
                io::ErrorKind::ConnectionRefused => "no program listens at it any more: start it again".to_owned(),
                _ if full => "its program does not receive".to_owned(),
                _ => error.to_string(),
            });
            let stopped = stop.recv_timeout(if full { Duration::ZERO } else { RETRY });
            if matches!(stopped, Err(crossbeam::channel::RecvTimeoutError::Disconnected)) {
                return;
            }
        }
        delivery.count();
    }
}

/// From the local socket to the device.
fn inbound(socket: &UnixDatagram, queue: &Sender<Vec<u8>>, ending: &AtomicBool, stop: &Receiver<()>) {
    let mut datagram = vec![0; MAX_FRAME + 1];
    loop {
        match socket.recv(&mut datagram) {
            _ if ending.load(Ordering::SeqCst) => return,
            Ok(0) => {}
            Ok(len) if len > MAX_FRAME => tracing::warn!("a datagram above {MAX_FRAME} bytes is no frame and was not given to the device"),
            Ok(len) => select! {
                send(queue, datagram[..len].to_vec()) -> sent => if sent.is_err() { return },
                recv(stop) -> _ => return,
            },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return tracing::warn!("the wire's local socket failed: {error}"),
        }
    }
}
