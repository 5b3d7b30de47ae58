//! A station at the far end of a datagram wire, made of the standard library and etherparse: nothing of pagewire is in it but the checker of frames.

use std::io;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Icmpv4Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice, VlanId,
};
use hw_sim::wire::check::{Checked, Protocol};

use crate::wait_for;

/// The stations that a peer plays: their addresses, and the Ethernet address of each.
pub type Stations = &'static [(Ipv4Addr, [u8; 6])];

/// A peer that answers ARP requests for its stations, and keeps all that it hears. Every frame is checked when it comes.
#[derive(Debug)]
pub struct Peer {
    socket: UnixDatagram,
    nic: PathBuf,
    here: PathBuf,
    heard: Arc<Mutex<Vec<Heard>>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A frame that has come, without padding and frame check sequence.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Its bytes.
    pub frame: Vec<u8>,
    /// What is in it.
    pub checked: Checked,
}

impl Heard {
    /// What its datagram (or whatever it is) carries.
    pub fn payload(&self) -> &[u8] {
        &self.frame[self.checked.payload.clone()]
    }

    /// What it says, if it is ARP.
    pub fn arp(&self) -> Option<ArpPacket> {
        match SlicedPacket::from_ethernet(&self.frame).ok()?.net? {
            NetSlice::Arp(arp) => Some(arp.to_packet()),
            _ => None,
        }
    }

    /// Identifier, sequence number and data, if it is the answer to a ping.
    pub fn echo_reply(&self) -> Option<(u16, u16, Vec<u8>)> {
        match SlicedPacket::from_ethernet(&self.frame).ok()?.transport? {
            TransportSlice::Icmpv4(message) => match message.icmp_type() {
                Icmpv4Type::EchoReply(header) => Some((header.id, header.seq, message.payload().to_vec())),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Peer {
    /// A peer with its sockets in `directory`.
    ///
    /// # Panics
    /// When there is a peer there already.
    pub fn start(directory: &Path, stations: Stations) -> Self {
        let (nic, here) = (directory.join("nic"), directory.join("peer"));
        let socket = UnixDatagram::bind(&here).expect("a socket in the temporary directory");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a time-out");
        let (heard, ending) = (Arc::default(), Arc::default());
        let mut peer = Self { socket, nic, here, heard, ending, thread: None };
        let (socket, nic) = (peer.socket.try_clone().expect("a descriptor"), peer.nic.clone());
        let (heard, ending) = (Arc::clone(&peer.heard), Arc::clone(&peer.ending));
        peer.thread = Some(std::thread::spawn(move || listen(&socket, &nic, stations, &heard, &ending)));
        peer
    }

    /// A NIC of this model (and further options) that is connected with it.
    pub fn nic(&self, model: &str) -> String {
        format!("sim:{model},wire=dgram:{}:{}", self.nic.display(), self.here.display())
    }

    /// Sends a frame to the NIC.
    ///
    /// # Panics
    /// When the NIC has no socket (yet, or any more).
    pub fn send(&self, frame: &[u8]) {
        self.socket.send_to(frame, &self.nic).unwrap_or_else(|error| panic!("to the NIC: {error}"));
    }

    /// Waits until something in what was heard answers `question`.
    ///
    /// # Panics
    /// When that does not come, which is `what`.
    pub fn wait<T>(&self, what: &str, mut question: impl FnMut(&[Heard]) -> Option<T>) -> T {
        wait_for(what, || {
            assert!(!self.thread.as_ref().is_some_and(JoinHandle::is_finished), "a frame was wrong (see above)");
            question(&self.heard.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }

    /// Waits until some datagrams have come: the send is under way.
    ///
    /// # Panics
    /// When they do not.
    pub fn wait_under_way(&self) {
        self.wait("datagrams", |heard| (heard.iter().filter(|one| one.checked.protocol == Protocol::Udp).count() > 3).then_some(()));
    }

    /// All that was heard, once the sender has ended: what is still in the socket is taken first.
    ///
    /// # Panics
    /// When a frame was wrong.
    pub fn end(mut self) -> Vec<Heard> {
        self.ending.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("every frame is right");
        }
        std::mem::take(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // What was wrong has been told by the thread itself.
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.here);
    }
}

fn listen(socket: &UnixDatagram, nic: &Path, stations: Stations, heard: &Mutex<Vec<Heard>>, ending: &AtomicBool) {
    let mut datagram = vec![0; 70_000];
    loop {
        let last = ending.load(Ordering::SeqCst);
        let frame = match socket.recv(&mut datagram) {
            Ok(len) => datagram[..len].to_vec(),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if last {
                    return;
                }
                continue;
            }
            Err(error) => panic!("the peer's socket: {error}"),
        };
        let checked = hw_sim::wire::check(&frame).unwrap_or_else(|error| panic!("the peer heard a wrong frame: {error}: {frame:02x?}"));
        let one = Heard { frame, checked };
        if let Some(request) = one.arp().filter(|arp| arp.operation == ArpOperation::REQUEST)
            && let Some((address, mac)) = stations.iter().find(|(address, _)| address.octets()[..] == *request.target_protocol_addr())
        {
            let asker = request.sender_hw_addr().try_into().expect("6 bytes");
            let asker_address = <[u8; 4]>::try_from(request.sender_protocol_addr()).expect("4 bytes").into();
            let reply = arp(ArpOperation::REPLY, (*address, *mac), (asker_address, asker), asker, one.checked.vlan);
            // The sender may be gone.
            let _ = socket.send_to(&reply, nic);
        }
        heard.lock().unwrap_or_else(PoisonError::into_inner).push(one);
    }
}

/// An ARP packet in a frame for `to`.
///
/// # Panics
/// Never: the addresses have the lengths of their types.
pub fn arp(operation: ArpOperation, own: (Ipv4Addr, [u8; 6]), other: (Ipv4Addr, [u8; 6]), to: [u8; 6], vlan: Option<u16>) -> Vec<u8> {
    let packet = ArpPacket::new(ArpHardwareId::ETHERNET, EtherType::IPV4, operation, &own.1, &own.0.octets(), &other.1, &other.0.octets())
        .expect("addresses of equal lengths");
    let builder = PacketBuilder::ethernet2(own.1, to);
    let mut frame = Vec::new();
    match vlan {
        Some(vlan) => builder.single_vlan(VlanId::try_new(vlan).expect("12 bits")).arp(packet).write(&mut frame),
        None => builder.arp(packet).write(&mut frame),
    }
    .expect("a vector takes all");
    frame.resize(frame.len().max(60), 0);
    frame
}

/// A ping in a frame.
///
/// # Panics
/// Never: the data is short.
pub fn ping(own: (Ipv4Addr, [u8; 6]), other: (Ipv4Addr, [u8; 6]), id: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(own.1, other.1)
        .ipv4(own.0.octets(), other.0.octets(), 64)
        .icmpv4_echo_request(id, sequence)
        .write(&mut frame, data)
        .expect("a vector takes all");
    frame.resize(frame.len().max(60), 0);
    frame
}
