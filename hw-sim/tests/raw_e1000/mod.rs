//! An 82540EM driven by its bare registers: just enough of a driver to try the rig without one.
//!
//! Registers and descriptors: Intel 8254x Software Developer's Manual, 3.3 and 13.4.
#![allow(dead_code)] // every test program uses a part

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hal::{BusDevice, DmaMemory, DmaSpace, RegisterError, Registers, barrier};
use pagewire_hw_sim::rig::{Model, Rig, RigConfig};
use pagewire_hw_sim::wire::{self, Wire, WireConfig};

pub const CTRL: u64 = 0x0000;
pub const ICR: u64 = 0x00c0;
pub const ICS: u64 = 0x00c8;
pub const IMS: u64 = 0x00d0;
pub const RCTL: u64 = 0x0100;
pub const TCTL: u64 = 0x0400;
pub const RDBAL: u64 = 0x2800;
pub const TDBAL: u64 = 0x3800;
/// Offsets from RDBAL and TDBAL.
const HIGH: u64 = 0x04;
const LENGTH: u64 = 0x08;
const HEAD: u64 = 0x10;
const TAIL: u64 = 0x18;

pub const CTRL_SLU: u32 = 1 << 6;
pub const TCTL_EN_PSP: u32 = 1 << 1 | 1 << 3;
pub const RCTL_EN_UPE_MPE_BAM: u32 = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 15;
pub const CAUSE_TXDW: u32 = 1 << 0;

/// Command bits in the second word of a descriptor.
const DEXT: u32 = 1 << 29;
const DATA: u32 = 1 << 20;
const EOP: u32 = 1 << 24;
const IFCS: u32 = 1 << 25;
const TSE: u32 = 1 << 26;
const RS: u32 = 1 << 27;
/// TUCMD of a context: TCP, IPv4.
const TUCMD_TCP_IPV4: u32 = 1 << 24 | 1 << 25;
/// POPTS: insert both checksums.
const INSERT_CHECKSUMS: u8 = 3;

const DESCRIPTOR: usize = 16;
pub const TX_DESCRIPTORS: u32 = 4096;
pub const RX_DESCRIPTORS: u32 = 8;
/// The layout of the memory shared with the device.
const TX_RING: usize = 0;
const RX_RING: usize = TX_DESCRIPTORS as usize * DESCRIPTOR;
const HEADERS: usize = RX_RING + 4096;
const HEADERS_LEN: usize = 1 << 20;

pub const DEVICE_MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
pub const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];

pub struct RawE1000 {
    pub memory: DmaMemory,
    pub registers: Registers,
    pub space: Arc<dyn DmaSpace>,
    pub device: Box<dyn BusDevice>,
    tail: u32,
    header_end: usize,
}

/// A rig on a local wire.
pub fn local_rig() -> (Rig, Wire) {
    let (end, wire) = wire::local();
    (Rig::start(RigConfig { wire: WireConfig::Local(end), ..RigConfig::new(Model::E1000) }).unwrap(), wire)
}

impl RawE1000 {
    pub fn open(rig: &Rig) -> Self {
        let mut device = rig.device().unwrap();
        let registers = device.bar(0).unwrap();
        let space = device.dma();
        let memory = DmaMemory::new(&space, "raw-e1000", HEADERS + HEADERS_LEN).unwrap();
        let mut card = Self { memory, registers, space, device, tail: 0, header_end: HEADERS };
        card.device.set_bus_master(true).unwrap();
        card.write(CTRL, card.read(CTRL) | CTRL_SLU);
        card.set_ring(TDBAL, TX_RING, TX_DESCRIPTORS);
        card.write(TCTL, TCTL_EN_PSP);
        card.tail = 0;
        card
    }

    pub fn read(&self, register: u64) -> u32 {
        self.registers.read(register).unwrap()
    }

    pub fn write(&self, register: u64, value: u32) {
        self.registers.write(register, value).unwrap();
    }

    fn set_ring(&self, base: u64, offset: usize, descriptors: u32) {
        let address = self.memory.iova() + offset as u64;
        self.write(base, address as u32);
        self.write(base + HIGH, (address >> 32) as u32);
        self.write(base + LENGTH, descriptors * DESCRIPTOR as u32);
        self.write(base + HEAD, 0);
        self.write(base + TAIL, 0);
    }

    fn push(&mut self, low: u64, high: u64) {
        let offset = TX_RING + self.tail as usize * DESCRIPTOR;
        self.memory.memory().write(offset, low);
        self.memory.memory().write(offset + 8, high);
        self.tail = (self.tail + 1) % TX_DESCRIPTORS;
    }

    fn push_data(&mut self, address: u64, len: usize, last: bool, tse: u32, popts: u8) {
        let word = len as u32 | DEXT | DATA | IFCS | RS | tse | if last { EOP } else { 0 };
        self.push(address, u64::from(word) | u64::from(popts) << 40);
    }

    /// Puts bytes into shared memory; returns their address. The doorbell frees them again.
    pub fn put(&mut self, bytes: &[u8]) -> u64 {
        let offset = self.header_end;
        self.header_end = (offset + bytes.len()).next_multiple_of(8);
        self.memory.memory().write_bytes(offset, bytes);
        self.memory.iova() + offset as u64
    }

    /// Posts a frame of pieces (address, length) as they are.
    pub fn post(&mut self, pieces: &[(u64, usize)]) {
        for (number, &(address, len)) in pieces.iter().enumerate() {
            self.push_data(address, len, number + 1 == pieces.len(), 0, 0);
        }
    }

    /// Posts a frame of bytes.
    pub fn post_bytes(&mut self, frame: &[u8]) {
        let address = self.put(frame);
        self.post(&[(address, frame.len())]);
    }

    /// Posts a TCP segmentation packet: a header of 54 bytes (Ethernet, IPv4, TCP) and pieces of payload.
    pub fn post_tso(&mut self, header: &[u8; 54], pieces: &[(u64, usize)], mss: u16) {
        let payload: usize = pieces.iter().map(|piece| piece.1).sum();
        let checksums = u64::from_le_bytes([14, 24, 33, 0, 34, 50, 0, 0]);
        let word = payload as u32 | DEXT | TSE | TUCMD_TCP_IPV4;
        self.push(checksums, u64::from(word) | 54 << 40 | u64::from(mss) << 48);
        let header = (self.put(header), header.len());
        for (number, &(address, len)) in [&[header], pieces].concat().iter().enumerate() {
            self.push_data(address, len, number == pieces.len(), TSE, INSERT_CHECKSUMS);
        }
    }

    /// Rings the doorbell. QEMU's e1000 has sent everything when this returns.
    pub fn ring(&mut self) -> Result<(), RegisterError> {
        barrier::write();
        self.registers.write(TDBAL + TAIL, self.tail)?;
        self.header_end = HEADERS;
        Ok(())
    }

    /// Whether the device has taken all that was posted.
    pub fn done(&self) -> bool {
        self.read(TDBAL + HEAD) == self.tail
    }

    /// Starts the receiver with all but one of the buffers of 2048 bytes at `addresses`.
    pub fn receive_into(&mut self, addresses: &[u64; RX_DESCRIPTORS as usize]) {
        for (number, &address) in addresses.iter().enumerate() {
            self.memory.memory().write(RX_RING + number * DESCRIPTOR, address);
        }
        self.set_ring(RDBAL, RX_RING, RX_DESCRIPTORS);
        self.write(RDBAL + TAIL, RX_DESCRIPTORS - 1);
        self.write(RCTL, RCTL_EN_UPE_MPE_BAM);
    }

    /// Whether receive descriptor `number` has its done bit.
    pub fn received(&self, number: usize) -> bool {
        self.memory.memory().read::<u8>(RX_RING + number * DESCRIPTOR + 12) & 1 != 0
    }
}

/// Waits for a condition that must come to be, at most 20 s.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} has not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The ones' complement sum of 16-bit words, folded, not complemented (RFC 1071).
pub fn sum(data: &[u8]) -> u16 {
    let mut total: u32 = data.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Ethernet, IPv4 and TCP, as TSO wants them: no lengths, no IP checksum, the seed in the TCP checksum.
pub fn tso_header() -> [u8; 54] {
    let mut header = [0; 54];
    header[..6].copy_from_slice(&GATEWAY_MAC);
    header[6..12].copy_from_slice(&DEVICE_MAC);
    header[12..14].copy_from_slice(&[8, 0]);
    header[14..26].copy_from_slice(&[0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0]);
    header[26..34].copy_from_slice(&[10, 0, 2, 15, 10, 0, 2, 2]);
    header[34..38].copy_from_slice(&[0x03, 0xe8, 0x07, 0xd0]);
    header[38..46].copy_from_slice(&[0, 1, 0xb2, 7, 0, 3, 0x64, 0x0e]);
    header[46..50].copy_from_slice(&[0x50, 0x18, 0xff, 0xff]);
    let seed = sum(&[&header[26..34], &[0, 6]].concat());
    header[50..52].copy_from_slice(&seed.to_be_bytes());
    header
}

/// A whole UDP frame with right checksums.
pub fn udp_frame(to: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let from = Ipv4Addr::new(10, 0, 2, 15);
    let udp_len = (8 + payload.len()) as u16;
    let mut ip = vec![0x45, 0];
    ip.extend((20 + udp_len).to_be_bytes());
    ip.extend([0, 1, 0x40, 0, 64, 17, 0, 0]);
    ip.extend(from.octets());
    ip.extend(to.octets());
    let checksum = !sum(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());

    let mut udp = Vec::new();
    udp.extend(4000u16.to_be_bytes());
    udp.extend(port.to_be_bytes());
    udp.extend(udp_len.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    let checksum = !sum(&[&ip[12..20], &[0, 17], &udp_len.to_be_bytes(), &udp].concat());
    udp[6..8].copy_from_slice(&if checksum == 0 { 0xffff } else { checksum }.to_be_bytes());
    [&GATEWAY_MAC[..], &DEVICE_MAC, &[8, 0], &ip, &udp].concat()
}
