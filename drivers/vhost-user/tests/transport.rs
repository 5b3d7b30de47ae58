//! The transport against a back end that is not ours. Rings are written by hand, as the specification has them.

mod back_end;

use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use back_end::{BackEnd, VERSION_1};
use hal::virtio::{DeviceStatus, QueueLayout, VirtioTransport};
use hal::{BusError, DmaError, DmaMemory, DmaSpace, Doorbell};
use pagewire_vhost_user::{Connector, Options, VhostUser, VhostUserError};

const SIZE: u16 = 8;

/// Two split rings in one piece of memory (VIRTIO 1.3, 2.7), each in its own half.
struct Rings {
    memory: DmaMemory,
    sent: u16,
}

const HALF: usize = 4096;
const AVAILABLE: usize = 1024;
const USED: usize = 2048;
const DATA: usize = 3072;

impl Rings {
    fn new(transport: &VhostUser) -> Self {
        let memory = DmaMemory::new(&transport.dma(), "rings", 2 * HALF).unwrap();
        Self { memory, sent: 0 }
    }

    fn enable(&mut self, transport: &mut VhostUser) -> Doorbell {
        self.memory.memory().write_bytes(0, &[0; 2 * HALF]);
        self.sent = 0;
        let layout = |half: u64| {
            let base = self.memory.iova() + half * HALF as u64;
            QueueLayout { size: SIZE, descriptors: base, driver: base + AVAILABLE as u64, device: base + USED as u64 }
        };
        transport.enable_queue(0, layout(0)).unwrap();
        let doorbell = transport.enable_queue(1, layout(1)).unwrap();
        transport
            .set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER | DeviceStatus::FEATURES_OK | DeviceStatus::DRIVER_OK)
            .unwrap();
        doorbell
    }

    /// A header of zeros, and then what is at `address`.
    fn send(&mut self, doorbell: &Doorbell, address: u64, len: u32) {
        let memory = self.memory.memory();
        let descriptor = |index: usize, address: u64, len: u32, flags: u16, next: u16| {
            let at = HALF + 16 * index;
            memory.write(at, address);
            memory.write(at + 8, len);
            memory.write(at + 12, flags);
            memory.write(at + 14, next);
        };
        descriptor(0, self.memory.iova() + (HALF + DATA) as u64, 12, 1, 1);
        descriptor(1, address, len, 0, 0);
        memory.write(HALF + AVAILABLE + 4 + 2 * usize::from(self.sent % SIZE), 0_u16);
        self.sent += 1;
        memory.atomic_u16(HALF + AVAILABLE + 2).store(self.sent, Ordering::Release);
        doorbell.ring(1).unwrap();
    }

    fn used(&self) -> u16 {
        self.memory.memory().atomic_u16(HALF + USED + 2).load(Ordering::Acquire)
    }
}

fn options() -> Options {
    Options { files: true, ..Options::default() }
}

fn start(transport: &mut VhostUser) {
    transport.set_status(DeviceStatus::empty()).unwrap();
    transport.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER).unwrap();
    assert_ne!(transport.device_features().unwrap() & VERSION_1, 0);
    transport.set_driver_features(VERSION_1).unwrap();
}

#[test]
fn what_the_rings_name_arrives_and_a_restarted_back_end_is_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let pending = BackEnd::listen(&path, 0);
    let mut transport = VhostUser::open(Connector::client(&path), options()).unwrap();
    let back_end = pending.connected();
    start(&mut transport);
    let mut interrupt = transport.interrupt(Some(1)).unwrap();
    let mut rings = Rings::new(&transport);
    let doorbell = rings.enable(&mut transport);

    // A file's own pages.
    let file = tempfile::tempfile().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[7; 5000], 0).unwrap();
    let space = transport.dma();
    let window = space.map_file(file.as_fd(), 0..5000).unwrap();
    rings.send(&doorbell, window.iova() + 100, 4000);
    assert!(interrupt.wait(Duration::from_secs(20)).unwrap());
    assert_eq!(rings.used(), 1);
    assert_eq!(back_end.frames.lock().unwrap().as_slice(), [[vec![0; 12], vec![7; 4000]].concat()]);
    assert_eq!(*back_end.counts.lock().unwrap(), [1]);

    drop(back_end);
    wait_for("the end to be noticed", || transport.status().err().filter(|error| error.to_string().contains("the back end is gone")));
    let pending = BackEnd::listen(&path, 0);
    start(&mut transport);
    let back_end = pending.connected();
    let mut interrupt = transport.interrupt(Some(1)).unwrap();
    let doorbell = rings.enable(&mut transport);
    assert!(transport.status().unwrap().contains(DeviceStatus::DRIVER_OK));
    // What was mapped before is mapped again.
    rings.send(&doorbell, window.iova(), 10);
    assert!(interrupt.wait(Duration::from_secs(20)).unwrap());
    assert_eq!(back_end.frames.lock().unwrap().as_slice(), [[vec![0; 12], vec![7; 10]].concat()]);
    space.unmap(window).unwrap();
    assert_eq!(space.limits().maps, 7, "the rings' region is left");
}

#[test]
fn a_reset_tells_a_back_end_nothing_twice() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let pending = BackEnd::listen_with_slots(&path);
    let mut transport = VhostUser::open(Connector::client(&path), options()).unwrap();
    let back_end = pending.connected();
    start(&mut transport);
    let mut interrupt = transport.interrupt(Some(1)).unwrap();
    let mut rings = Rings::new(&transport);
    let data = rings.memory.iova() + (HALF + DATA) as u64;
    for round in 1..4 {
        let doorbell = rings.enable(&mut transport);
        rings.send(&doorbell, data, 3);
        // A back end may interrupt for nothing when it gets to know a queue.
        while rings.used() == 0 {
            assert!(interrupt.wait(Duration::from_secs(20)).unwrap(), "round {round}");
        }
        assert_eq!(back_end.frames.lock().unwrap().len(), round);
        start(&mut transport);
    }
    assert!(transport.dma().limits().maps > 8);
}

#[test]
fn a_back_end_may_be_the_one_that_connects() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let connector = Connector::server(&path).unwrap();
    let pending = BackEnd::connect(&path, 0);
    let mut transport = VhostUser::open(connector, options()).unwrap();
    let back_end = pending.connected();
    start(&mut transport);
    let mut interrupt = transport.interrupt(Some(1)).unwrap();
    let mut rings = Rings::new(&transport);
    let doorbell = rings.enable(&mut transport);
    let data = rings.memory.iova() + (HALF + DATA) as u64;
    rings.send(&doorbell, data, 3);
    assert!(interrupt.wait(Duration::from_secs(20)).unwrap());
    assert_eq!(back_end.frames.lock().unwrap().as_slice(), [[0; 15]]);
    drop((transport, rings));
    assert!(!path.exists(), "the socket is taken away");
}

#[test]
fn the_front_ends_own_features_are_not_offered() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let (csum, everything) = (1, (1 << 30) - 1);
    let access_platform = 1 << 33;
    let pending = BackEnd::listen(&path, everything | access_platform);
    let mut transport = VhostUser::open(Connector::client(&path), Options::default()).unwrap();
    let _back_end = pending.connected();
    let features = transport.device_features().unwrap();
    let (mac, status, control, mq, protocol) = (1 << 5, 1 << 16, 1 << 17, 1 << 22, 1 << 30);
    assert_eq!(features & (csum | VERSION_1), csum | VERSION_1);
    assert_eq!(features & (mac | status | control | mq | protocol | access_platform), 0);
    assert_eq!(transport.withheld_features().unwrap() & (csum | mac | control | access_platform), mac | control | access_platform);
    assert_eq!(transport.implicit_pairs(), Some(transport.queues().unwrap() / 2));
    let mut pairs = [0; 2];
    transport.read_config(8, &mut pairs).unwrap();
    assert_eq!(u16::from_le_bytes(pairs), transport.queues().unwrap() / 2);
    assert!(matches!(transport.read_config(60, &mut [0; 8]), Err(BusError::Register(_))));
    assert!(matches!(transport.interrupt(None), Err(BusError::NoInterrupt { .. })));
    let file = tempfile::tempfile().unwrap();
    let refused = transport.dma().map_file(file.as_fd(), 0..1).unwrap_err();
    assert!(matches!(&refused, DmaError::Unsupported(reason) if reason.contains("files=on")), "{refused}");
}

#[test]
fn regions_are_bounded_and_files_have_to_be_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let pending = BackEnd::listen(&path, 0);
    let mut transport = VhostUser::open(Connector::client(&path), options()).unwrap();
    let _back_end = pending.connected();
    start(&mut transport);
    let space = transport.dma();
    let file = tempfile::tempfile().unwrap();
    file.set_len(10_000).unwrap();
    for range in [0..0, 4096..8192, 0..10_001] {
        assert!(matches!(space.map_file(file.as_fd(), range), Err(DmaError::Unsupported(_))));
    }
    let held: Vec<_> = (0..8).map(|_| space.map_file(file.as_fd(), 0..10_000).unwrap()).collect();
    assert!(matches!(space.map_file(file.as_fd(), 0..10_000), Err(DmaError::Full { .. })));
    let addresses: std::collections::HashSet<u64> = held.iter().map(hal::Mapping::iova).collect();
    assert_eq!(addresses.len(), 8);
    held.into_iter().for_each(|mapping| space.unmap(mapping).unwrap());
    assert_eq!(space.limits().maps, 8);
}

#[test]
fn nobody_there_is_told_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let soon = Options { patience: Duration::from_millis(100), ..Options::default() };
    let told = |connector| VhostUser::open(connector, soon.clone()).err().expect("nobody is there").to_string();
    assert!(told(Connector::client(&path)).contains("start the back end first, or listen for it"));
    let nobody = told(Connector::server(&path).unwrap());
    assert!(nobody.contains("no back end connected within 100ms"), "{nobody}");
    // A socket that was left behind, and one that is in use.
    drop(UnixListener::bind(&path).unwrap());
    assert!(told(Connector::client(&path)).contains("start it again"));
    let listener = Connector::server(&path).unwrap();
    let refused = Connector::server(&path).unwrap_err();
    assert!(refused.to_string().contains("another program listens there"), "{refused}");
    drop(listener);
    assert!(!path.exists());
}

#[test]
fn what_is_no_socket_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, "precious").unwrap();
    let refused = Connector::server(&path).unwrap_err();
    assert!(refused.to_string().contains("or it is no socket"), "{refused}");
    let error = VhostUser::open(Connector::client(&path), Options::default()).err().unwrap();
    assert!(error.to_string().contains("it is no socket; name that"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    // Nor is taken away what somebody has put in the place of the socket.
    let socket = directory.path().join("socket");
    let listener = Connector::server(&socket).unwrap();
    std::fs::rename(&path, &socket).unwrap();
    drop(listener);
    assert_eq!(std::fs::read(&socket).unwrap(), b"precious");
}

#[test]
fn who_listens_waits_for_one_that_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let connector = Connector::server(&path).unwrap();
    // Another program that wants to listen there, and a back end that has come and gone.
    assert!(matches!(Connector::server(&path), Err(VhostUserError::Listen { .. })));
    drop(UnixStream::connect(&path).unwrap());
    let pending = BackEnd::connect(&path, 0);
    let mut transport = VhostUser::open(connector, options()).unwrap();
    let _back_end = pending.connected();
    start(&mut transport);
}

#[test]
fn a_wait_is_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    for server in [false, true] {
        let stop = Arc::new(AtomicBool::new(false));
        let long = Options { patience: Duration::from_secs(600), stop: Some(Arc::clone(&stop)), ..Options::default() };
        let connector = if server { Connector::server(&path).unwrap() } else { Connector::client(&path) };
        let waiting = std::thread::spawn(move || VhostUser::open(connector, long).err());
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(waiting.join().unwrap(), Some(VhostUserError::Stopped(_))));
    }
}

#[test]
fn a_back_end_that_does_not_answer_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let silent = std::thread::spawn(move || listener.accept().unwrap());
    let start = Instant::now();
    let soon = Options { patience: Duration::from_millis(200), ..Options::default() };
    let error = VhostUser::open(Connector::client(&path), soon).err().expect("it does not answer");
    assert!(matches!(error, VhostUserError::Greeting { message: "VHOST_USER_GET_FEATURES", .. }), "{error}");
    assert!(start.elapsed() >= Duration::from_millis(200));
    drop(silent.join());
}

#[test]
fn a_space_outlives_its_transport() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let pending = BackEnd::listen(&path, 0);
    let mut transport = VhostUser::open(Connector::client(&path), options()).unwrap();
    let back_end = pending.connected();
    start(&mut transport);
    let rings = Rings::new(&transport);
    let space: Arc<dyn DmaSpace> = transport.dma();
    drop(back_end);
    drop(transport);
    drop(rings);
    assert_eq!(space.limits().maps, 8);
}

/// Waits until `look` gives something.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "waited for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
