//! smoltcp on the real driver and the in-process model; frames are written and read by etherparse.

use e1000::{E1000, E1000Config};
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use hal::OffloadFlags;
use hw_sim::model::e1000::{E1000Model, Fault};
use hw_sim::wire;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Checksum, Device};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr};

use super::Phy;

const OWN: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
const CLIENT: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
const OWN_IP: [u8; 4] = [192, 0, 2, 1];
const CLIENT_IP: [u8; 4] = [192, 0, 2, 2];

struct Server {
    model: E1000Model,
    phy: Phy,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: smoltcp::iface::SocketHandle,
    now: i64,
}

impl Server {
    fn new(config: E1000Config) -> Self {
        let model = E1000Model::new(hal::MacAddress(OWN));
        let mut phy = Phy::new(Box::new(E1000::start(model.device(), config).unwrap())).unwrap();
        let mut interface = Interface::new(Config::new(EthernetAddress(OWN).into()), &mut phy, Instant::ZERO);
        interface.update_ip_addrs(|addresses| addresses.push(IpCidr::new(std::net::IpAddr::from(OWN_IP).into(), 24)).unwrap());
        let mut sockets = SocketSet::new(Vec::new());
        let buffer = || tcp::SocketBuffer::new(vec![0; 4096]);
        let mut listener = tcp::Socket::new(buffer(), buffer());
        listener.listen(7).unwrap();
        let socket = sockets.add(listener);
        let mut server = Self { model, phy, interface, sockets, socket, now: 0 };
        // The client's own question tells its address.
        let arp = etherparse::ArpEthIpv4Packet {
            operation: etherparse::ArpOperation::REQUEST,
            sender_mac: CLIENT,
            sender_ipv4: CLIENT_IP,
            target_mac: [0; 6],
            target_ipv4: OWN_IP,
        };
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(CLIENT, [0xff; 6]).arp(arp.into()).write(&mut frame).unwrap();
        frame.resize(60, 0);
        assert_eq!(server.exchange(&frame).len(), 1, "the answer to ARP");
        server
    }

    /// Gives the server a frame, and returns what it sends, each frame checked with its checksums.
    fn exchange(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        self.model.receive(frame);
        self.poll()
    }

    fn poll(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        for _ in 0..4 {
            self.now += 1;
            self.interface.poll(Instant::from_millis(self.now), &mut self.phy, &mut self.sockets);
            sent.extend(self.model.step());
        }
        for frame in &sent {
            wire::check(frame).unwrap();
        }
        assert_eq!(self.model.violations(), Vec::<String>::new());
        sent
    }
}

fn segment(
    flags: fn(etherparse::PacketBuilderStep<etherparse::TcpHeader>) -> etherparse::PacketBuilderStep<etherparse::TcpHeader>,
    seq: u32,
    data: &[u8],
) -> Vec<u8> {
    let mut frame = Vec::new();
    let step = PacketBuilder::ethernet2(CLIENT, OWN).ipv4(CLIENT_IP, OWN_IP, 64).tcp(4000, 7, seq, 8192);
    flags(step).write(&mut frame, data).unwrap();
    frame.resize(frame.len().max(60), 0);
    frame
}

fn tcp_of(frame: &[u8]) -> etherparse::TcpHeader {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("no TCP") };
    tcp.to_header()
}

/// A connection is opened, and five bytes come back.
fn echo(config: E1000Config) -> Server {
    let mut server = Server::new(config);
    let answer = server.exchange(&segment(|step| step.syn(), 100, b""));
    let greeting = tcp_of(&answer[0]);
    assert!(greeting.syn && greeting.ack && greeting.acknowledgment_number == 101);
    let acknowledge = greeting.sequence_number.wrapping_add(1);
    let mut data = Vec::new();
    let step = PacketBuilder::ethernet2(CLIENT, OWN).ipv4(CLIENT_IP, OWN_IP, 64).tcp(4000, 7, 101, 8192).ack(acknowledge).psh();
    step.write(&mut data, b"hello").unwrap();
    data.resize(60, 0);
    server.exchange(&data);
    let socket = server.sockets.get_mut::<tcp::Socket<'_>>(server.socket);
    let received = socket.recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap();
    assert_eq!(received, b"hello");
    socket.send_slice(&received).unwrap();
    let answer = server.poll();
    let last = answer.last().unwrap();
    assert_eq!(&last[wire::check(last).unwrap().payload], b"hello");
    server
}

#[test]
fn a_connection_works_with_checksums_by_the_nic() {
    let server = echo(E1000Config::default());
    let capabilities = server.phy.capabilities();
    assert_eq!((capabilities.max_transmission_unit, capabilities.medium), (1514, smoltcp::phy::Medium::Ethernet));
    for by_the_nic in [capabilities.checksum.ipv4, capabilities.checksum.tcp, capabilities.checksum.udp] {
        assert!(matches!(by_the_nic, Checksum::None));
    }
    assert!(server.model.context_descriptors() > 0, "the NIC was asked");
}

#[test]
fn a_connection_works_with_checksums_by_smoltcp() {
    let server = echo(E1000Config { offloads: OffloadFlags::empty(), ..E1000Config::default() });
    assert!(matches!(server.phy.capabilities().checksum.tcp, Checksum::Tx));
    assert_eq!(server.model.context_descriptors(), 0);
}

#[test]
fn a_damaged_packet_is_not_shown() {
    let mut server = Server::new(E1000Config::default());
    let good = segment(|step| step.syn(), 100, b"");
    for at in [26, 40] {
        let mut damaged = good.clone();
        damaged[at] ^= 0x10;
        assert!(server.exchange(&damaged).is_empty(), "byte {at}");
    }
    assert_eq!(server.exchange(&good).len(), 1);
}

#[test]
fn a_device_that_breaks_the_protocol_is_told_and_ends_it() {
    let mut server = Server::new(E1000Config::default());
    server.model.set_fault(Fault::RxLengthTooLong);
    assert!(server.exchange(&segment(|step| step.syn(), 100, b"")).is_empty());
    let error = server.phy.take_error().expect("an error");
    assert!(matches!(error, hal::NicError::Protocol(_)), "{error}");
    assert!(server.phy.take_error().is_none());
}
