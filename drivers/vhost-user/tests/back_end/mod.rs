//! A back end that is not ours (the crates `vhost-user-backend` and `virtio-queue`): a network device that keeps every frame sent to it, and sends it
//! back.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use vhost::vhost_user::Listener;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{ShutdownHandle, VhostUserBackendMut, VhostUserDaemon, VringRwLock, VringT};
use virtio_queue::QueueT as _;
use vm_memory::{Bytes, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};

/// The header in front of a frame (VIRTIO 1.3, 5.1.6).
const HEADER: usize = 12;

/// `VIRTIO_F_VERSION_1`.
pub const VERSION_1: u64 = 1 << 32;
const PROTOCOL_FEATURES: u64 = 1 << 30;

/// Frames that were sent, headers included.
pub type Frames = Arc<Mutex<Vec<Vec<u8>>>>;

/// How many frames were sent on each pair of queues.
pub type Counts = Arc<Mutex<Vec<u64>>>;

struct LoopBack {
    features: u64,
    slots: bool,
    frames: Frames,
    memory: Option<GuestMemoryAtomic<GuestMemoryMmap>>,
    /// Of each pair of queues.
    waiting: Vec<Vec<Vec<u8>>>,
    counts: Counts,
}

impl LoopBack {
    /// Takes what was sent on a pair, gives back what there is room for.
    fn serve(&mut self, pair: usize, vrings: &[VringRwLock]) -> io::Result<()> {
        let memory = self.memory.as_ref().ok_or_else(|| io::Error::other("rings before memory"))?.memory();
        let broken = |error: virtio_queue::Error| io::Error::other(error.to_string());
        let mut sent = vrings[1].get_mut();
        let mut some = false;
        while let Some(chain) = sent.get_queue_mut().pop_descriptor_chain(memory.clone()) {
            let (head, mut frame) = (chain.head_index(), Vec::new());
            for descriptor in chain {
                let start = frame.len();
                frame.resize(start + descriptor.len() as usize, 0);
                memory.read_slice(&mut frame[start..], descriptor.addr()).map_err(io::Error::other)?;
            }
            self.waiting[pair].push(frame.clone());
            self.counts.lock().unwrap()[pair] += 1;
            self.frames.lock().unwrap().push(frame);
            sent.add_used(head, 0).map_err(broken)?;
            some = true;
        }
        if some {
            sent.signal_used_queue()?;
        }
        drop(sent);
        let mut receives = vrings[0].get_mut();
        let mut some = false;
        while !self.waiting[pair].is_empty() {
            let Some(chain) = receives.get_queue_mut().pop_descriptor_chain(memory.clone()) else { break };
            let mut frame = self.waiting[pair].remove(0);
            frame[..HEADER].fill(0);
            frame[10] = 1; // num_buffers
            let (head, mut done) = (chain.head_index(), 0);
            for descriptor in chain {
                let len = (frame.len() - done).min(descriptor.len() as usize);
                memory.write_slice(&frame[done..done + len], descriptor.addr()).map_err(io::Error::other)?;
                done += len;
            }
            receives.add_used(head, done as u32).map_err(broken)?;
            some = true;
        }
        if some {
            receives.signal_used_queue()?;
        }
        Ok(())
    }
}

impl VhostUserBackendMut for LoopBack {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        2 * self.waiting.len()
    }

    fn max_queue_size(&self) -> usize {
        1024
    }

    fn features(&self) -> u64 {
        self.features | PROTOCOL_FEATURES
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        let slots = if self.slots { VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS } else { VhostUserProtocolFeatures::empty() };
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK | slots
    }

    fn set_event_idx(&mut self, _enabled: bool) {}

    fn update_memory(&mut self, memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        self.memory = Some(memory);
        Ok(())
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK).ok()
    }

    fn handle_event(&mut self, _event: u16, _set: EventSet, vrings: &[VringRwLock], _thread: usize) -> io::Result<()> {
        vrings.chunks(2).enumerate().try_for_each(|(pair, vrings)| self.serve(pair, vrings))
    }
}

/// A back end that runs until it is dropped.
pub struct BackEnd {
    /// What was sent to it.
    pub frames: Frames,
    /// The same, counted.
    pub counts: Counts,
    stop: ShutdownHandle,
    thread: Option<JoinHandle<()>>,
    listens: Option<PathBuf>,
}

impl BackEnd {
    /// Listens at `path` with `features` besides VERSION_1, and serves one connection, made by the time the returned closure's value is asked for.
    pub fn listen(path: &Path, features: u64) -> Pending {
        Self::listen_with(path, features | VERSION_1, 1)
    }

    /// The same with these features and no more, and with several pairs of queues.
    pub fn listen_with(path: &Path, features: u64, pairs: usize) -> Pending {
        let _ = std::fs::remove_file(path);
        let listener = Listener::new(path, true).unwrap();
        Self::start(path, features, pairs, Some(listener), false)
    }

    /// As [`listen`](Self::listen), and it takes one memory region after the other (CONFIGURE_MEM_SLOTS).
    #[allow(dead_code)] // each test program uses a part
    pub fn listen_with_slots(path: &Path) -> Pending {
        Self::start(path, VERSION_1, 1, Some(Listener::new(path, true).unwrap()), true)
    }

    /// Connects to a front end that listens at `path`.
    pub fn connect(path: &Path, features: u64) -> Pending {
        Self::start(path, features | VERSION_1, 1, None, false)
    }

    fn start(path: &Path, features: u64, pairs: usize, listener: Option<Listener>, slots: bool) -> Pending {
        let (frames, counts) = (Frames::default(), Counts::new(Mutex::new(vec![0; pairs])));
        let (own_frames, own_counts) = (Arc::clone(&frames), Arc::clone(&counts));
        let back_end = LoopBack { features, slots, frames: own_frames, memory: None, waiting: vec![Vec::new(); pairs], counts: own_counts };
        let (sender, started) = std::sync::mpsc::channel();
        // The socket of one that connects is not its own.
        let listens = listener.is_some().then(|| path.to_owned());
        let own = path.to_owned();
        let thread = std::thread::spawn(move || {
            let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
            let mut daemon = VhostUserDaemon::new("back-end".into(), Arc::new(RwLock::new(back_end)), memory).unwrap();
            match listener {
                Some(mut listener) => daemon.start(&mut listener).unwrap(),
                None => daemon.start_client(own.to_str().unwrap()).unwrap(),
            }
            sender.send(daemon.shutdown_handle().unwrap()).unwrap();
            // It ends when the front end goes, or by the handle.
            let _ = daemon.wait();
        });
        Pending { frames, counts, started, thread, listens }
    }
}

/// A back end that waits for its connection.
pub struct Pending {
    frames: Frames,
    counts: Counts,
    started: std::sync::mpsc::Receiver<ShutdownHandle>,
    thread: JoinHandle<()>,
    listens: Option<PathBuf>,
}

impl Pending {
    /// The back end, once it is connected.
    pub fn connected(self) -> BackEnd {
        let stop = self.started.recv_timeout(Duration::from_secs(20)).expect("a connection");
        BackEnd { frames: self.frames, counts: self.counts, stop, thread: Some(self.thread), listens: self.listens }
    }
}

impl Drop for BackEnd {
    fn drop(&mut self) {
        self.stop.shutdown();
        let _ = self.thread.take().map(JoinHandle::join);
        if let Some(path) = &self.listens {
            let _ = std::fs::remove_file(path);
        }
    }
}
