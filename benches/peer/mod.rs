//! The other end of a stack in a benchmark: clients on one host, which take all that comes in order, and acknowledge when they are told to.

use std::time::Duration;

use e1000::{E1000, E1000Config};
use etherparse::PacketBuilder;
use hal::Nic;
use hw_sim::model::e1000::{E1000Model, Received};
use pagewire::net::Interface;
use pagewire::send::{Port, PortConfig};
use pagewire::tcp::{Event, Socket, Stack, StackConfig};

/// The bytes of a segment, with timestamps.
pub const SEGMENT: u32 = 1448;
/// The port that the stack listens at.
const PORT: u16 = 1033;
/// The port of the first client; the next one's follow.
const FIRST: u16 = 10_000;
const PEER: ([u8; 6], [u8; 4]) = ([0x52, 0x54, 0, 0, 0, 2], [192, 0, 2, 2]);
const OWN: ([u8; 6], [u8; 4]) = ([0x52, 0x54, 0, 0, 0, 1], [192, 0, 2, 1]);
/// Where the TCP header begins in a frame.
const TCP: usize = 34;

/// What a client has of the stream, as sequence numbers.
#[derive(Clone, Copy, Default)]
pub struct Client {
    /// What is acknowledged, and what has arrived.
    pub acknowledged: u32,
    pub arrived: u32,
    /// The latest timestamp of the stack.
    stamp: [u8; 4],
}

impl Client {
    /// The bytes that have arrived and are not acknowledged.
    pub fn under_way(&self) -> u32 {
        self.arrived.wrapping_sub(self.acknowledged)
    }
}

/// All clients.
pub struct Peer {
    pub model: E1000Model,
    pub clients: Vec<Client>,
    pub now: Duration,
    /// The window that each has, and how it is scaled.
    window: (u16, u8),
}

impl Peer {
    /// A stack on the in-process model, and this many connections to it, one after the other; the sockets are in the order of the clients.
    pub fn connected(clients: usize, window: (u16, u8)) -> (Stack, Self, Vec<Socket>) {
        let model = E1000Model::new(OWN.0.map(|byte| format!("{byte:02x}")).join(":").parse().expect("an address"));
        let nic = E1000::start(model.device(), E1000Config::default()).expect("it starts");
        let interface = Interface::new(nic.mac(), "192.0.2.1/24".parse().expect("an address"), None, 1500, None).expect("an interface");
        let port = Port::new(Box::new(nic), interface, PortConfig::default()).expect("a port");
        let mut stack = Stack::new(port, StackConfig { secret: Some([7; 16]), ..StackConfig::default() }).expect("a stack");
        stack.listen(PORT, 8).expect("nobody listens there");
        let mut peer = Self { model, clients: vec![Client::default(); clients], now: Duration::from_secs(1), window };
        let sockets = (0..clients).map(|client| peer.connect(client, &mut stack)).collect();
        (stack, peer, sockets)
    }

    fn connect(&mut self, client: usize, stack: &mut Stack) -> Socket {
        let scale = self.window.1;
        self.send(client, 0, &[&[2, 4, 5, 0xb4, 4, 2][..], &self.stamps(client), &[1, 3, 3, scale]].concat(), true);
        stack.poll(self.now).expect("it goes on");
        self.take();
        self.now += Duration::from_millis(4);
        self.acknowledge(client, self.clients[client].arrived);
        stack.poll(self.now).expect("it goes on");
        while let Some(event) = stack.next_event() {
            if let Event::Incoming(listener) = event {
                let socket = listener.accept(stack).expect("a connection");
                assert!(listener.accept(stack).is_none(), "one at a time");
                return socket;
            }
        }
        panic!("the handshake is not complete")
    }

    /// Takes what the stack has sent: everything in order.
    pub fn take(&mut self) {
        for frame in self.model.step() {
            let word = |at: usize| -> [u8; 4] { frame[at..at + 4].try_into().expect("four bytes") };
            let client = &mut self.clients[usize::from(u16::from_be_bytes([frame[TCP + 2], frame[TCP + 3]]) - FIRST)];
            let (header, total) = (usize::from(frame[TCP + 12] >> 4) * 4, usize::from(u16::from_be_bytes([frame[16], frame[17]])));
            let syn = u32::from(frame[TCP + 13] >> 1 & 1);
            client.arrived = u32::from_be_bytes(word(TCP + 4)) + (total - 20 - header) as u32 + syn;
            // Before the timestamps are two bytes, in a SYN an MSS option too.
            let options = TCP + 20 + 4 * syn as usize;
            assert_eq!(frame[options + 2], 8, "timestamps");
            client.stamp = word(options + 4);
        }
    }

    fn send(&self, client: usize, seq: u32, options: &[u8], syn: bool) {
        let packet = PacketBuilder::ethernet2(PEER.0, OWN.0).ipv4(PEER.1, OWN.1, 64);
        let packet = packet.tcp(FIRST + client as u16, PORT, seq, self.window.0);
        let packet = if syn { packet.syn() } else { packet.ack(self.clients[client].acknowledged) };
        let mut frame = Vec::new();
        packet.options_raw(options).expect("options").write(&mut frame, &[]).expect("a frame");
        frame.resize(frame.len().max(60), 0);
        assert_eq!(self.model.receive(&frame), Received::Delivered);
    }

    /// The timestamps option, with nothing in front of it.
    fn stamps(&self, client: usize) -> [u8; 10] {
        let mut option = [8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
        option[2..6].copy_from_slice(&(self.now.as_millis() as u32).to_be_bytes());
        option[6..].copy_from_slice(&self.clients[client].stamp);
        option
    }

    /// A client acknowledges everything before a number.
    pub fn acknowledge(&mut self, client: usize, upto: u32) {
        self.clients[client].acknowledged = upto;
        self.send(client, 1, &[&[1, 1][..], &self.stamps(client)].concat(), false);
    }
}
