//! A client whose segments are written down one by one. The bench's own peer has another address and hears nothing of it.

use e1000::E1000Config;
use etherparse::{PacketBuilder, TcpHeader};
use hw_sim::wire::check::Checked;

use super::bench::{Bench, PEER, PORT};
use crate::send::PortConfig;
use crate::tcp::{Event, Socket, StackConfig, TcpConfig};

/// The stack's addresses.
pub const STATION: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
pub const OWN: [u8; 4] = [192, 0, 2, 1];
/// The client's address.
pub const ADDRESS: [u8; 4] = [192, 0, 2, 2];
/// Its port, and the number of its SYN.
const CLIENT: u16 = 50_000;
const ISS: u32 = 1000;
/// The largest segment that it takes, as an option.
const MSS: [u8; 4] = [2, 4, 0x05, 0xb4];

/// A timestamp of the client, as an option.
fn stamped(value: u32) -> Vec<u8> {
    [&[1, 1, 8, 10][..], &value.to_be_bytes(), &[0; 4]].concat()
}

fn frame(mut header: TcpHeader, options: &[u8], change: impl FnOnce(&mut TcpHeader), payload: &[u8]) -> Vec<u8> {
    header.set_options_raw(options).unwrap();
    change(&mut header);
    let mut frame = Vec::new();
    let packet = PacketBuilder::ethernet2(PEER.0, STATION).ipv4(ADDRESS, OWN, 64).tcp_header(header);
    packet.write(&mut frame, payload).unwrap();
    frame
}

/// A segment that acknowledges everything before `ack`, with something else about it.
pub fn segment(ack: u32, stamp: Option<u32>, change: impl FnOnce(&mut TcpHeader)) -> Vec<u8> {
    segment_with(ack, stamp, change, &[])
}

/// As [`segment`], with a payload.
pub fn segment_with(ack: u32, stamp: Option<u32>, change: impl FnOnce(&mut TcpHeader), payload: &[u8]) -> Vec<u8> {
    let header = TcpHeader { ack: true, acknowledgment_number: ack, ..TcpHeader::new(CLIENT, PORT, ISS + 1, 65_535) };
    frame(header, &stamp.map(stamped).unwrap_or_default(), change, payload)
}

/// What the NIC sends, checked; it has room again afterwards.
pub fn sent(bench: &mut Bench) -> Vec<(Checked, Vec<u8>)> {
    bench.model.step().into_iter().map(|frame| (hw_sim::wire::check(&frame).unwrap(), frame)).collect()
}

pub fn poll(bench: &mut Bench) {
    bench.stack.poll(bench.now).unwrap();
}

/// A connection of the client, with timestamps if it has one, on a NIC with so many packet buffers for what is sent. Returns the number of the
/// stack's first byte, too.
pub fn connected(buffers: u32, tcp: TcpConfig, stamp: Option<u32>) -> (Bench, Socket, u32) {
    let (port, config) = (PortConfig { frames: buffers, ..PortConfig::default() }, StackConfig { tcp, ..StackConfig::default() });
    let mut bench = Bench::with(E1000Config::default(), port, config, "192.0.2.1/24", "192.0.2.9");
    let options = [&MSS[..], &stamp.map(stamped).unwrap_or_default()].concat();
    bench.inject(&frame(TcpHeader { syn: true, ..TcpHeader::new(CLIENT, PORT, ISS, 65_535) }, &options, |_| (), &[]));
    poll(&mut bench);
    let first = sent(&mut bench)[0].0.tcp.unwrap().sequence.wrapping_add(1);
    bench.inject(&segment(first, stamp, |_| ()));
    poll(&mut bench);
    let Some(Event::Incoming(listener)) = bench.stack.next_event() else { panic!("a connection") };
    let socket = listener.accept(&mut bench.stack).unwrap();
    (bench, socket, first)
}
