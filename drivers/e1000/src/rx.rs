//! The receive ring (manual 3.2).

use std::collections::VecDeque;
use std::sync::Arc;

use hal::nic::RxCounters;
use hal::pool::PoolMapping;
use hal::receive::{About, RxFlags};
use hal::registers::Width;
use hal::{AddressMap, Buffer, DescriptorRing, DmaSpace, Doorbell, NicError, Pool, Registers, RxBurst, RxQueue, barrier};

use crate::descriptor::{Received, RxErrors, RxStatus, STATUS_BYTE};
use crate::registers::offset;

/// What the device takes a receive buffer to hold (RCTL.BSIZE 0).
pub const BUFFER: u32 = 2048;

/// The largest packet that the device receives, in bytes (manual 13.4.22, LPE).
pub const MAX_PACKET: usize = 16_384;

/// The receive queue of an 82540EM.
pub struct RxRing {
    ring: DescriptorRing,
    addresses: AddressMap,
    doorbell: Doorbell,
    registers: Registers,
    /// The next descriptor to give to the device, which is what the doorbell tells.
    tail: u16,
    /// The next descriptor that the device fills.
    head: u16,
    /// The buffers that the device has, oldest first.
    posted: VecDeque<Buffer>,
    /// The packet of which the end has not come yet.
    packet: Vec<Buffer>,
    packet_bytes: usize,
    /// Dropping until the end of a packet that is longer than any can be.
    overlong: bool,
    counters: RxCounters,
}

impl RxRing {
    pub fn new(space: &Arc<dyn DmaSpace>, registers: &Registers, len: u16) -> Result<Self, NicError> {
        Ok(Self {
            ring: DescriptorRing::new(space, "e1000-rx", len)?,
            addresses: AddressMap::new(&**space),
            doorbell: Doorbell::register(registers, offset::RDT, Width::Double)?,
            registers: registers.clone(),
            tail: 0,
            head: 0,
            posted: VecDeque::with_capacity(len.into()),
            packet: Vec::with_capacity(MAX_PACKET / BUFFER as usize + 1),
            packet_bytes: 0,
            overlong: false,
            counters: RxCounters::default(),
        })
    }

    /// Tells the stopped device where the ring is; it has no buffers then.
    pub fn program(&mut self) -> Result<(), NicError> {
        self.settle();
        let base = self.ring.iova();
        for (register, value) in [
            (offset::RDBAL, base as u32),
            (offset::RDBAH, (base >> 32) as u32),
            (offset::RDLEN, u32::from(self.ring.len()) * DescriptorRing::DESCRIPTOR as u32),
            (offset::RDH, 0),
            (offset::RDT, 0),
            (offset::RDTR, 0),
        ] {
            self.registers.write::<u32>(register, value)?;
        }
        Ok(())
    }

    /// The device is stopped: its buffers return to the pool.
    pub fn settle(&mut self) {
        self.posted.clear();
        self.forget_packet();
        self.overlong = false;
        (self.head, self.tail) = (0, 0);
    }

    /// Whether the device has filled a buffer that was not taken yet.
    pub fn is_done(&self) -> bool {
        !self.posted.is_empty() && RxStatus::from_bits_retain(self.ring.read_byte(self.head, STATUS_BYTE)).contains(RxStatus::DD)
    }

    pub fn attach_pool(&mut self, pool: PoolMapping) -> Result<(), NicError> {
        self.addresses.attach(pool)
    }

    fn forget_packet(&mut self) {
        self.packet.clear();
        self.packet_bytes = 0;
    }

    /// Takes the buffer of a descriptor that is done, with a length that was checked. Whether the packet it belongs to is complete.
    fn accept(&mut self, received: Received, mut buffer: Buffer) -> bool {
        let len = usize::from(received.len);
        let end = received.status.contains(RxStatus::EOP);
        self.packet_bytes += len;
        self.overlong |= self.packet_bytes > MAX_PACKET || self.packet.len() == self.packet.capacity();
        // A packet has no empty buffers, so that each can be sent on.
        if !self.overlong && len > 0 {
            buffer.set_len(len);
            self.packet.push(buffer);
        }
        if !end {
            return false;
        }
        // Errors are valid with EOP; an error spoils the whole packet.
        let spoiled = received.errors.intersects(RxErrors::SPOILED) || self.packet_bytes == 0;
        if self.overlong || spoiled {
            self.counters.dropped += 1;
            self.overlong = false;
            self.forget_packet();
            return false;
        }
        true
    }
}

fn flags(received: Received) -> RxFlags {
    let Received { status, errors, .. } = received;
    let mut flags = RxFlags::empty();
    if !status.contains(RxStatus::IXSM) {
        flags.set(RxFlags::IPV4_CHECKSUM_GOOD, status.contains(RxStatus::IPCS) && !errors.contains(RxErrors::IPE));
        flags.set(RxFlags::L4_CHECKSUM_GOOD, status.contains(RxStatus::TCPCS) && !errors.contains(RxErrors::TCPE));
    }
    flags.set(RxFlags::VLAN_STRIPPED, status.contains(RxStatus::VP));
    flags
}

impl RxQueue for RxRing {
    fn capacity(&self) -> usize {
        usize::from(self.ring.len()) - 1
    }

    fn refill(&mut self, pool: &mut Pool) -> Result<usize, NicError> {
        let room = self.capacity() - self.posted.len();
        let mut count = 0;
        while count < room {
            let Some(buffer) = pool.take() else { break };
            if buffer.capacity() < BUFFER as usize {
                return Err(NicError::Config(format!(
                    "receive buffers of {} bytes; the 82540EM is set to {BUFFER}: make the pool's buffers at least that large",
                    buffer.capacity()
                )));
            }
            let Some(address) = self.addresses.buffer(&buffer) else { return Err(NicError::UnmappedSegment) };
            self.ring.write(self.tail, [address, 0]);
            self.tail = self.ring.next(self.tail);
            self.posted.push_back(buffer);
            count += 1;
        }
        if count > 0 {
            barrier::write();
            self.counters.doorbells += 1;
            self.doorbell.ring(self.tail.into())?;
        }
        Ok(count)
    }

    fn receive(&mut self, burst: &mut RxBurst, limit: usize) -> Result<usize, NicError> {
        let mut count = 0;
        while count < limit && !self.posted.is_empty() {
            let done = self.ring.read_byte(self.head, STATUS_BYTE);
            if !RxStatus::from_bits_retain(done).contains(RxStatus::DD) {
                break;
            }
            barrier::read();
            let received = Received::new(self.ring.read_high(self.head));
            if u32::from(received.len) > BUFFER {
                // The queue stands still here until a reset: the buffers stay the device's, which may write to them.
                return Err(NicError::Protocol(format!(
                    "a received length of {} bytes in a buffer of {BUFFER} (receive descriptor {})",
                    received.len, self.head
                )));
            }
            let Some(mut buffer) = self.posted.pop_front() else { break };
            self.head = self.ring.next(self.head);
            if received.is_whole() && self.packet_bytes == 0 && !self.overlong {
                // Nearly all packets: in one buffer, and without a fault.
                buffer.set_len(received.len.into());
                self.counters.packets += 1;
                self.counters.bytes += u64::from(received.len);
                burst.push_buffer(buffer, About { flags: flags(received), vlan_tag: received.vlan_tag, ..About::default() });
                count += 1;
            } else if self.accept(received, buffer) {
                self.counters.packets += 1;
                self.counters.bytes += self.packet_bytes as u64;
                let about = About { flags: flags(received), vlan_tag: received.vlan_tag, ..About::default() };
                burst.push(self.packet.drain(..), about);
                self.packet_bytes = 0;
                count += 1;
            }
        }
        Ok(count)
    }

    fn skim(&mut self, limit: usize, known: &mut dyn FnMut(&Buffer, &About) -> bool) -> Result<usize, NicError> {
        let (mut count, mut head, mut tail, mut bytes) = (0, self.head, self.tail, 0);
        while count < limit
            && let Some(buffer) = self.posted.front_mut()
        {
            if !RxStatus::from_bits_retain(self.ring.read_byte(head, STATUS_BYTE)).contains(RxStatus::DD) {
                break;
            }
            barrier::read();
            let received = Received::new(self.ring.read_high(head));
            let whole = received.is_whole() && u32::from(received.len) <= BUFFER && self.packet_bytes == 0 && !self.overlong;
            let Some(address) = self.addresses.buffer(buffer).filter(|_| whole) else { break };
            buffer.set_len(received.len.into());
            if !known(buffer, &About { flags: flags(received), vlan_tag: received.vlan_tag, ..About::default() }) {
                break;
            }
            // The place that it leaves makes room for it behind the others.
            self.ring.write(tail, [address, 0]);
            (head, tail) = (self.ring.next(head), self.ring.next(tail));
            self.posted.rotate_left(1);
            bytes += u64::from(received.len);
            count += 1;
        }
        if count > 0 {
            (self.head, self.tail) = (head, tail);
            self.counters.packets += count as u64;
            self.counters.bytes += bytes;
            barrier::write();
            self.counters.doorbells += 1;
            self.doorbell.ring(tail.into())?;
        }
        Ok(count)
    }

    fn counters(&self) -> RxCounters {
        self.counters
    }
}
