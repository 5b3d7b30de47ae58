//! Any NIC as a `smoltcp::phy::Device`, for programs that want sockets and not files (feature `smoltcp`, which is on by default).
//!
//! smoltcp builds every packet in one piece, so its bytes are copied, once in each direction; files go without a copy through [`send`](crate::send). The
//! NIC computes checksums where it can, and smoltcp is told so.
//!
//! `examples/echo.rs` is a small server on it.

mod offload;

use std::collections::VecDeque;
use std::time::Duration;

use hal::receive::RxFlags;
use hal::{Burst, Nic, NicError, OffloadFlags, Pool, PoolConfig, RxBurst};
use smoltcp::phy::{Checksum, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

use crate::send::push_copied;

/// Packets that are taken from the NIC at once, and frames that may be on their way.
const BATCH: usize = 32;
const IN_FLIGHT: u64 = 64;

/// A NIC for smoltcp.
///
/// Errors cannot pass through smoltcp: after one, nothing is received or sent any more, and [`take_error`](Self::take_error) has it.
pub struct Phy {
    received: Received,
    // In this order: the NIC stops before the buffers go.
    transmit: Transmit,
}

struct Received {
    burst: RxBurst,
    packets: VecDeque<Vec<u8>>,
    /// The memory of packets that smoltcp is done with.
    spare: Vec<Vec<u8>>,
}

struct Transmit {
    nic: Box<dyn Nic>,
    pool: Pool,
    offloads: OffloadFlags,
    /// Frames that the ring had no room for.
    burst: Burst<'static>,
    frame: Vec<u8>,
    error: Option<NicError>,
}

impl Phy {
    /// Makes a NIC ready. Everything that arrives for its address is shown to smoltcp; see [`Nic::set_filter`] for groups.
    ///
    /// # Errors
    /// When there is no memory for packets, or the NIC refuses.
    pub fn new(mut nic: Box<dyn Nic>) -> Result<Self, NicError> {
        let buffers = IN_FLIGHT as u32 + BATCH as u32 + nic.rx(0).capacity() as u32;
        let size = nic.capabilities().max_frame.next_power_of_two().clamp(2048, 16384);
        let pool = Pool::new(PoolConfig { buffers, buffer_size: size as u16 })
            .map_err(|error| NicError::Config(format!("no memory for packets: {error}")))?;
        let space = nic.space();
        nic.attach_pool(pool.attach(&space)?)?;
        let offloads = nic.capabilities().offloads;
        let mut transmit = Transmit { nic, pool, offloads, burst: Burst::with_capacity(BATCH), frame: Vec::new(), error: None };
        transmit.nic.rx(0).refill(&mut transmit.pool)?;
        let received = Received { burst: RxBurst::with_capacity(BATCH), packets: VecDeque::new(), spare: Vec::new() };
        Ok(Self { received, transmit })
    }

    /// The NIC, for its address, link, counters and filters.
    pub fn nic(&mut self) -> &mut dyn Nic {
        &mut *self.transmit.nic
    }

    /// Sleeps until the NIC has received or completed something, at most `timeout`. Returns whether it has.
    ///
    /// # Errors
    /// As [`Nic::wait`].
    pub fn wait(&mut self, timeout: Duration) -> Result<bool, NicError> {
        if !self.received.packets.is_empty() {
            return Ok(true);
        }
        self.transmit.nic.wait(timeout)
    }

    /// What went wrong, once. [`Nic::reset`] is the way on, if there is one.
    pub fn take_error(&mut self) -> Option<NicError> {
        self.transmit.error.take()
    }

    fn take_arrived(&mut self) -> Result<(), NicError> {
        let Self { received: Received { burst, packets, spare }, transmit: Transmit { nic, pool, .. } } = self;
        if nic.rx(0).receive(burst, BATCH)? == 0 {
            return Ok(());
        }
        for packet in burst.packets() {
            // smoltcp knows no VLANs.
            if packet.flags.contains(RxFlags::VLAN_STRIPPED) && packet.vlan_tag & 0xfff != 0 {
                continue;
            }
            let mut bytes = spare.pop().unwrap_or_default();
            bytes.resize(packet.bytes as usize, 0);
            packet.copy_to(&mut bytes);
            if offload::is_intact(&bytes, packet.flags) {
                packets.push_back(bytes);
            } else {
                spare.push(bytes);
            }
        }
        burst.clear();
        nic.rx(0).refill(pool)?;
        Ok(())
    }
}

impl Transmit {
    /// Whether there is room for a frame.
    fn ready(&mut self) -> Result<bool, NicError> {
        let queue = self.nic.tx(0);
        queue.reap()?;
        if !self.burst.is_empty() {
            queue.post(&mut self.burst)?;
        }
        let progress = queue.progress();
        Ok(self.burst.is_empty() && progress.posted() - progress.completed() < IN_FLIGHT)
    }

    fn send(&mut self) -> Result<(), NicError> {
        let work = offload::request(&mut self.frame, self.offloads);
        // Buffers are enough: no more frames are on their way than `ready` allows.
        push_copied(&mut self.burst, &mut self.pool, &self.frame, work);
        self.nic.tx(0).post(&mut self.burst)?;
        Ok(())
    }
}

impl smoltcp::phy::Device for Phy {
    type RxToken<'a> = RxToken<'a>;
    type TxToken<'a> = TxToken<'a>;

    fn receive(&mut self, _timestamp: Instant) -> Option<(RxToken<'_>, TxToken<'_>)> {
        if self.transmit.error.is_some() {
            return None;
        }
        if self.received.packets.is_empty()
            && let Err(error) = self.take_arrived()
        {
            self.transmit.error = Some(error);
            return None;
        }
        // Without room for the answer a packet waits.
        if self.received.packets.is_empty() || !self.transmit.looks_ready() {
            return None;
        }
        let Self { received: Received { packets, spare, .. }, transmit } = self;
        packets.pop_front().map(|packet| (RxToken { packet, spare }, TxToken(transmit)))
    }

    fn transmit(&mut self, _timestamp: Instant) -> Option<TxToken<'_>> {
        self.transmit.looks_ready().then_some(TxToken(&mut self.transmit))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        let nic = self.transmit.nic.capabilities();
        capabilities.medium = Medium::Ethernet;
        // The frame without room for a tag, which smoltcp does not add.
        capabilities.max_transmission_unit = nic.max_frame as usize - 4;
        capabilities.max_burst_size = Some(BATCH);
        capabilities.checksum = ChecksumCapabilities::default();
        // What arrives is checked by the NIC or here; what is sent, by the NIC if it can.
        let by = |flag| if nic.offloads.contains(flag) { Checksum::None } else { Checksum::Tx };
        capabilities.checksum.ipv4 = by(OffloadFlags::IPV4_CHECKSUM);
        capabilities.checksum.udp = by(OffloadFlags::UDP_CHECKSUM);
        capabilities.checksum.tcp = by(OffloadFlags::TCP_CHECKSUM);
        capabilities
    }
}

impl Transmit {
    fn looks_ready(&mut self) -> bool {
        if self.error.is_some() {
            return false;
        }
        self.ready().unwrap_or_else(|error| {
            self.error = Some(error);
            false
        })
    }
}

/// A packet that arrived.
pub struct RxToken<'p> {
    packet: Vec<u8>,
    spare: &'p mut Vec<Vec<u8>>,
}

impl smoltcp::phy::RxToken for RxToken<'_> {
    fn consume<R, F>(self, f: F) -> R
    where
        F: FnOnce(&[u8]) -> R,
    {
        let result = f(&self.packet);
        self.spare.push(self.packet);
        result
    }
}

/// Room for a frame.
pub struct TxToken<'p>(&'p mut Transmit);

impl smoltcp::phy::TxToken for TxToken<'_> {
    fn consume<R, F>(self, len: usize, f: F) -> R
    where
        F: FnOnce(&mut [u8]) -> R,
    {
        self.0.frame.clear();
        self.0.frame.resize(len, 0);
        let result = f(&mut self.0.frame);
        if let Err(error) = self.0.send() {
            self.0.error = Some(error);
        }
        result
    }
}

#[cfg(test)]
mod tests;
