//! The stack on the in-process model of the NIC, in virtual time, and smoltcp as an independent peer at the other end of the wire. Every frame
//! that leaves the NIC is checked by etherparse.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use e1000::{E1000, E1000Config};
use hal::{MacAddress, Nic};
use hw_sim::model::Model;
use hw_sim::model::e1000::E1000Model;
use hw_sim::wire::check::{Checked, Protocol};
use smoltcp::iface::{Config, Interface as Peer, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, IpEndpoint};

use crate::file::Source;
use crate::net::{Interface, vlan};
use crate::send::{Port, PortConfig, Stability, Step};
use crate::tcp::{Event, SharedFile, Socket, Stack, StackConfig, StackReport};

pub const PEER: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 2]);
pub const PORT: u16 = 1033;

/// What the program under test does with an event; it has the stack.
pub type Program<'p> = &'p mut dyn FnMut(&mut Stack, Event);

/// The peer's NIC: two queues of frames.
#[derive(Default)]
struct Queues {
    arrived: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

pub struct Bench<M = E1000Model> {
    pub model: M,
    pub stack: Stack,
    pub now: Duration,
    /// All frames that left the NIC, checked.
    pub wire: Vec<(Checked, Vec<u8>)>,
    /// Which frames from the NIC the wire loses.
    pub loses: Box<dyn FnMut(&Checked) -> bool>,
    own: IpAddr,
    /// In which all frames have to be; the peer knows nothing of it.
    vlan: Option<u16>,
    peer: Peer,
    queues: Queues,
    pub sockets: SocketSet<'static>,
    received: HashMap<SocketHandle, Vec<u8>>,
    next_port: u16,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(E1000Config::default(), PortConfig::default(), StackConfig::default(), "192.0.2.1/24", "192.0.2.2")
    }

    pub fn with(nic: E1000Config, port: PortConfig, config: StackConfig, own: &str, peer_address: &str) -> Self {
        let model = E1000Model::new("52:54:00:00:00:01".parse().unwrap());
        let mtu = nic.mtu;
        let nic = E1000::start(model.device(), nic).unwrap();
        let interface = Interface::new(nic.mac(), own.parse().unwrap(), None, mtu, None).unwrap();
        Self::on(model, Box::new(nic), interface, port, config, peer_address)
    }
}

impl<M: Model> Bench<M> {
    /// On a NIC whose device is this model.
    pub fn on(model: M, nic: Box<dyn Nic>, interface: Interface, port: PortConfig, config: StackConfig, peer_address: &str) -> Self {
        let own = interface.address();
        let port = Port::new(nic, interface, port).unwrap();
        let mut stack = Stack::new(port, StackConfig { secret: Some([7; 16]), ..config }).unwrap();
        stack.listen(PORT, 64).unwrap();
        let mut queues = Queues::default();
        let mut peer = Peer::new(Config::new(HardwareAddress::Ethernet(EthernetAddress(PEER.0))), &mut queues, Instant::ZERO);
        let peer_address: IpAddr = peer_address.parse().unwrap();
        peer.update_ip_addrs(|addresses| addresses.push(IpCidr::new(peer_address.into(), own.prefix())).unwrap());
        Self {
            model,
            stack,
            now: Duration::ZERO,
            wire: Vec::new(),
            loses: Box::new(|_| false),
            own: own.address(),
            vlan: interface.vlan(),
            peer,
            queues,
            sockets: SocketSet::new(Vec::new()),
            received: HashMap::new(),
            next_port: 50_000,
        }
    }

    /// The peer opens a connection to the stack, with a receive buffer of so many bytes.
    pub fn open(&mut self, buffer: usize) -> SocketHandle {
        self.open_to(PORT, buffer)
    }

    pub fn open_to(&mut self, port: u16, buffer: usize) -> SocketHandle {
        let mut socket = tcp::Socket::new(tcp::SocketBuffer::new(vec![0; buffer]), tcp::SocketBuffer::new(vec![0; 4096]));
        self.next_port += 1;
        socket.connect(self.peer.context(), IpEndpoint::new(self.own.into(), port), self.next_port).unwrap();
        self.sockets.add(socket)
    }

    /// The peer waits for a connection.
    pub fn wait_at(&mut self, port: u16) -> SocketHandle {
        let mut socket = tcp::Socket::new(tcp::SocketBuffer::new(vec![0; 65_536]), tcp::SocketBuffer::new(vec![0; 4096]));
        socket.listen(port).unwrap();
        self.sockets.add(socket)
    }

    pub fn peer_socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// One step of everything: the stack, the wire, the peer, whose sockets read all that they have unless `reads` says otherwise.
    pub fn step(&mut self, program: Program<'_>, reads: bool) {
        let step = self.stack.poll(self.now).unwrap();
        while let Some(event) = self.stack.next_event() {
            program(&mut self.stack, event);
        }
        let mut moved = matches!(step, Step::Busy);
        for frame in self.model.step() {
            let checked = hw_sim::wire::check(&frame).unwrap_or_else(|error| panic!("{error}: {frame:02x?}"));
            assert_eq!(checked.vlan, self.vlan);
            if !(self.loses)(&checked) {
                let mut plain = frame.clone();
                assert_eq!(vlan::take(&mut plain), self.vlan);
                self.queues.arrived.push_back(plain);
            }
            self.wire.push((checked, frame));
            moved = true;
        }
        let instant = Instant::from_micros(self.now.as_micros() as i64);
        self.peer.poll(instant, &mut self.queues, &mut self.sockets);
        for (handle, socket) in self.sockets.iter_mut() {
            let smoltcp::socket::Socket::Tcp(socket) = socket else { continue };
            if reads && socket.can_recv() {
                let received = self.received.entry(handle).or_default();
                socket.recv(|bytes| (bytes.len(), received.extend_from_slice(bytes))).unwrap();
                moved = true;
            }
        }
        self.peer.poll(instant, &mut self.queues, &mut self.sockets);
        while let Some(mut frame) = self.queues.sent.pop_front() {
            self.vlan.into_iter().for_each(|tag| vlan::insert(&mut frame, tag));
            self.model.receive(&frame);
            moved = true;
        }
        self.now += if moved { Duration::from_micros(10) } else { Duration::from_millis(1) };
    }

    /// Steps until `done`, at most `span` of virtual time.
    pub fn run_until(&mut self, span: Duration, program: Program<'_>, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = self.now + span;
        while !done(self) {
            assert!(self.now < deadline, "not done after {span:?}: {:?}", self.stack.report());
            self.step(program, true);
        }
    }

    /// What a socket of the peer has received.
    pub fn received(&self, handle: SocketHandle) -> &[u8] {
        self.received.get(&handle).map_or(&[], Vec::as_slice)
    }

    /// A socket that the caller reads himself has received these bytes.
    pub fn take(&mut self, handle: SocketHandle, bytes: &[u8]) {
        self.received.entry(handle).or_default().extend_from_slice(bytes);
    }

    /// A frame from anywhere arrives at the NIC.
    pub fn inject(&mut self, frame: &[u8]) {
        self.model.receive(frame);
    }

    /// One client takes what the program sends until the connection is closed by the stack. Returns what it received, and the report.
    pub fn download(&mut self, program: Program<'_>) -> (Vec<u8>, StackReport) {
        let client = self.open(65_536);
        self.run_until(Duration::from_secs(60), program, |bench| {
            let socket = bench.peer_socket(client);
            !socket.may_recv() && !matches!(socket.state(), tcp::State::SynSent)
        });
        self.peer_socket(client).close();
        let (content, report) = (self.received(client).to_vec(), self.stack.report());
        for _ in 0..20 {
            self.step(program, true);
        }
        (content, report)
    }

    /// The TCP frames that left the NIC.
    pub fn segments(&self) -> impl Iterator<Item = &Checked> {
        self.wire.iter().map(|(checked, _)| checked).filter(|checked| checked.protocol == Protocol::Tcp)
    }

    pub fn assert_clean(&self) {
        assert_eq!(self.model.violations(), Vec::<String>::new());
        assert_eq!(self.model.faulted_accesses(), []);
    }
}

/// A program that sends to everyone who connects, once, and closes.
pub fn serve(mut send: impl FnMut(&mut Stack, Socket)) -> impl FnMut(&mut Stack, Event) {
    move |stack, event| {
        if let Event::Incoming(listener) = event {
            while let Some(socket) = listener.accept(stack) {
                send(stack, socket);
                socket.close(stack);
            }
        }
    }
}

/// A file of so many bytes, and what is in it. It is closed.
pub fn file(len: usize) -> (tempfile::TempPath, Vec<u8>) {
    let content: Vec<u8> = (0..len as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&content).unwrap();
    (file.into_temp_path(), content)
}

pub fn shared(path: &std::path::Path, stability: Stability) -> SharedFile {
    match Source::open(path).unwrap() {
        Source::File(file) => SharedFile::new(file, stability).unwrap(),
        Source::Stream(_) => panic!("a regular file"),
    }
}

impl Device for Queues {
    type RxToken<'a> = RxToken;
    type TxToken<'a> = TxToken<'a>;

    fn receive(&mut self, _: Instant) -> Option<(RxToken, TxToken<'_>)> {
        let frame = self.arrived.pop_front()?;
        Some((RxToken(frame), TxToken(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<TxToken<'_>> {
        Some(TxToken(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

struct RxToken(Vec<u8>);
struct TxToken<'q>(&'q mut VecDeque<Vec<u8>>);

impl smoltcp::phy::RxToken for RxToken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl smoltcp::phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}
