//! Tests that read like the specification's sentences. Rings are written by hand.

mod bench;
mod control;
mod faults;
mod notification;
mod offload;
mod packets;
mod receive;
mod start;
mod transmit;
mod violations;

use hal::MacAddress;

use super::features::Features;
use super::{Fault, ModelConfig, Notify, Received, VirtioNetModel};
use bench::*;

const MAC: MacAddress = MacAddress([0x52, 0x54, 0x00, 0x12, 0x34, 0x56]);
const PEER: [u8; 6] = [0x02, 0x00, 0x00, 0x00, 0x00, 0x01];

/// An Ethernet frame of `len` bytes to the peer.
fn frame(len: usize) -> Vec<u8> {
    let mut frame = [PEER, MAC.0].concat();
    frame.extend([0x88, 0xb5]);
    frame.extend((0..len - 14).map(|byte| byte as u8));
    frame
}

/// The same, from the peer.
fn incoming(len: usize) -> Vec<u8> {
    let mut frame = frame(len);
    frame[..6].copy_from_slice(&MAC.0);
    frame[6..12].copy_from_slice(&PEER);
    frame
}
