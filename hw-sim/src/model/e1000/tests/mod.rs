//! Tests that read like the manual's sentences. Descriptors are built by hand.

mod faults;
mod offload;
mod receive;
mod registers;
mod space;
mod transmit;
mod violations;

use std::os::fd::AsFd;
use std::sync::Arc;

use hal::registers::Width;
use hal::{BusDevice, DmaMemory, MacAddress, Registers};
use zerocopy::{Immutable, IntoBytes};

use super::descriptor::{ContextDescriptor, DataDescriptor, LegacyDescriptor, Raw, ReceiveDescriptor};
use super::registers::*;
use super::{E1000Model, Fault, Received};

const MAC: MacAddress = MacAddress([0x52, 0x54, 0x00, 0x12, 0x34, 0x56]);
const PEER: [u8; 6] = [0x02, 0x00, 0x00, 0x00, 0x00, 0x01];
/// Descriptors of each ring.
const ENTRIES: u32 = 16;
/// Where each ring lies in the bench's memory, and the buffers behind them.
const RX_RING: u64 = 1024;
const RX_BUFFERS: u64 = 8192;
const TX_DATA: u64 = 0x2_0000;
const BUFFER: u64 = 2048;

/// A model, opened, with rings and buffers in one piece of memory.
struct Bench {
    model: E1000Model,
    device: Box<dyn BusDevice>,
    registers: Registers,
    memory: DmaMemory,
    tail: u32,
    /// Where the next transmit buffer goes.
    free: u64,
}

impl Bench {
    /// Powered on and opened, nothing programmed.
    fn cold() -> Self {
        let model = E1000Model::new(MAC);
        let mut device = model.device();
        let registers = device.bar(0).unwrap();
        let memory = DmaMemory::new(&device.dma(), "bench", 0x10_0000).unwrap();
        Self { model, device, registers, memory, tail: 0, free: TX_DATA }
    }

    /// Transmit and receive units programmed as 14.4 and 14.5 say, all receive descriptors but one posted.
    fn new() -> Self {
        let mut bench = Self::cold();
        bench.device.set_bus_master(true).unwrap();
        bench.start();
        bench
    }

    fn start(&mut self) {
        let ring = self.memory.iova() as u32;
        self.memory.memory().write_bytes(0, &[0; RX_BUFFERS as usize]);
        self.write(CTRL, (Ctrl::FD | Ctrl::SLU).bits());
        for offset in (MTA..=MTA_LAST).step_by(4) {
            self.write(offset, 0);
        }
        for (offset, value) in [(TDBAL, ring), (TDBAH, 0), (TDLEN, ENTRIES * 16), (TDH, 0), (TDT, 0), (TIPG, 0x0060_200a)] {
            self.write(offset, value);
        }
        self.write(TCTL, (Tctl::EN | Tctl::PSP).bits() | 0x0f << 4 | 0x40 << 12);
        for (offset, value) in [(RDBAL, ring + RX_RING as u32), (RDBAH, 0), (RDLEN, ENTRIES * 16), (RDH, 0)] {
            self.write(offset, value);
        }
        for index in 0..ENTRIES {
            self.memory.memory().write_bytes((RX_RING + u64::from(index) * 16) as usize, self.rx_descriptor(index).as_bytes());
        }
        self.write(RDT, ENTRIES - 1);
        self.write(RCTL, (Rctl::EN | Rctl::BAM | Rctl::SECRC).bits());
        (self.tail, self.free) = (0, TX_DATA);
    }

    fn rx_descriptor(&self, index: u32) -> ReceiveDescriptor {
        ReceiveDescriptor { address: (self.memory.iova() + RX_BUFFERS + u64::from(index) * BUFFER).into(), ..Default::default() }
    }

    fn read(&self, offset: u64) -> u32 {
        self.registers.read(offset).unwrap()
    }

    fn write(&self, offset: u64, value: u32) {
        self.registers.write(offset, value).unwrap();
    }

    /// Puts bytes into memory; returns their bus address.
    fn place(&mut self, bytes: &[u8]) -> u64 {
        self.memory.memory().write_bytes(self.free as usize, bytes);
        let address = self.memory.iova() + self.free;
        self.free += (bytes.len() as u64).next_multiple_of(64);
        address
    }

    /// Writes a transmit descriptor, without the doorbell.
    fn put(&mut self, descriptor: impl IntoBytes + Immutable) {
        self.memory.memory().write_bytes(self.tail as usize * 16, descriptor.as_bytes());
        self.tail = (self.tail + 1) % ENTRIES;
    }

    fn ring(&self) {
        self.write(TDT, self.tail);
    }

    /// The doorbell, and time.
    fn go(&self) -> Vec<Vec<u8>> {
        self.ring();
        self.model.step()
    }

    fn put_legacy(&mut self, bytes: &[u8], cmd: u8) {
        let address = self.place(bytes);
        self.put(legacy(address, bytes.len(), cmd));
    }

    fn put_data(&mut self, bytes: &[u8], dcmd: u8, popts: u8) {
        let address = self.place(bytes);
        self.put(data(address, bytes.len(), dcmd, popts));
    }

    /// The status of a transmit descriptor.
    fn done(&self, index: u32) -> bool {
        self.memory.memory().read::<u8>(index as usize * 16 + 12) & 1 != 0
    }

    fn received(&self, index: u32) -> ReceiveDescriptor {
        let mut raw = Raw::default();
        self.memory.memory().read_bytes((RX_RING + u64::from(index) * 16) as usize, &mut raw);
        zerocopy::transmute!(raw)
    }

    fn rx_bytes(&self, index: u32, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.memory().read_bytes((RX_BUFFERS + u64::from(index) * BUFFER) as usize, &mut bytes);
        bytes
    }

    #[track_caller]
    fn clean(&self) {
        assert_eq!(self.model.violations(), [""; 0]);
        assert_eq!(self.model.faulted_accesses(), []);
    }

    /// Some violation has `text` in it.
    #[track_caller]
    fn violates(&self, text: &str) {
        let violations = self.model.violations();
        assert!(violations.iter().any(|violation| violation.contains(text)), "no {text:?} in {violations:#?}");
    }
}

const EOP: u8 = 1 << 0;
const IFCS: u8 = 1 << 1;
const IC: u8 = 1 << 2;
const TSE: u8 = 1 << 2;
const RS: u8 = 1 << 3;
const DEXT: u8 = 1 << 5;
const VLE: u8 = 1 << 6;
const IDE: u8 = 1 << 7;
const IXSM: u8 = 1;
const TXSM: u8 = 2;

fn legacy(address: u64, length: usize, cmd: u8) -> LegacyDescriptor {
    LegacyDescriptor { address: address.into(), length: (length as u16).into(), cmd, ..Default::default() }
}

fn data(address: u64, length: usize, dcmd: u8, popts: u8) -> DataDescriptor {
    let word = u32::from(dcmd | DEXT) << 24 | 1 << 20 | length as u32;
    DataDescriptor { address: address.into(), dtalen_dtyp_dcmd: word.into(), popts, ..Default::default() }
}

/// A context for IPv4 behind an Ethernet header. `tucmd` of 0: no segmentation; else TSE with PAYLEN, HDRLEN, MSS.
fn context(l4_checksum: u8, tucmd: u8, paylen: usize, hdrlen: u8, mss: u16) -> ContextDescriptor {
    ContextDescriptor {
        ipcss: 14,
        ipcso: 24,
        ipcse: 33.into(),
        tucss: 34,
        tucso: 34 + l4_checksum,
        tucse: 0.into(),
        paylen_dtyp_tucmd: (u32::from(tucmd | DEXT) << 24 | paylen as u32).into(),
        hdrlen,
        mss: mss.into(),
        ..Default::default()
    }
}

/// An Ethernet frame of `len` bytes to the peer.
fn frame(len: usize) -> Vec<u8> {
    let mut frame = [PEER, MAC.0].concat();
    frame.extend([0x88, 0xb5]);
    frame.extend((0..len - 14).map(|byte| byte as u8));
    frame
}

/// The one's complement sum, written once more.
fn ones_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) * 256 + u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
