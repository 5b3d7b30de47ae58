//! The control queue (5.1.6.5): commands, one at a time, each waited for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hal::virtio::QueueLayout;
use hal::{DmaMemory, DmaSpace, Doorbell, NicError};

use crate::device::NAP;
use crate::queue::Queue;
use crate::ring::{Kind, Piece, Ring, RingConfig, Violation};

/// The bytes that the commands of this driver may have: 2,700 addresses, or the largest RSS table.
const ROOM: usize = 68 << 10;
/// Class and command.
const HEAD: usize = 2;
/// What the device answers.
const OK: u8 = 0;
/// Not an answer.
const PENDING: u8 = 0xff;

/// Class and command, as the device knows them, and as people do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    class: u8,
    command: u8,
    name: &'static str,
}

impl Command {
    const fn new(class: u8, command: u8, name: &'static str) -> Self {
        Self { class, command, name }
    }

    pub const PROMISCUOUS: Self = Self::new(0, 0, "VIRTIO_NET_CTRL_RX_PROMISC");
    pub const ALL_MULTICAST: Self = Self::new(0, 1, "VIRTIO_NET_CTRL_RX_ALLMULTI");
    pub const NO_BROADCAST: Self = Self::new(0, 5, "VIRTIO_NET_CTRL_RX_NOBCAST");
    pub const MAC_TABLE: Self = Self::new(1, 0, "VIRTIO_NET_CTRL_MAC_TABLE_SET");
    pub const MAC_ADDRESS: Self = Self::new(1, 1, "VIRTIO_NET_CTRL_MAC_ADDR_SET");
    pub const VLAN_ADD: Self = Self::new(2, 0, "VIRTIO_NET_CTRL_VLAN_ADD");
    pub const VLAN_DELETE: Self = Self::new(2, 1, "VIRTIO_NET_CTRL_VLAN_DEL");
    pub const ANNOUNCED: Self = Self::new(3, 0, "VIRTIO_NET_CTRL_ANNOUNCE_ACK");
    pub const QUEUE_PAIRS: Self = Self::new(4, 0, "VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET");
    pub const RSS: Self = Self::new(4, 1, "VIRTIO_NET_CTRL_MQ_RSS_CONFIG");
    pub const HASH: Self = Self::new(4, 2, "VIRTIO_NET_CTRL_MQ_HASH_CONFIG");
    pub const OFFLOADS: Self = Self::new(5, 0, "VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET");
    pub const TX_COALESCING: Self = Self::new(6, 0, "VIRTIO_NET_CTRL_NOTF_COAL_TX_SET");
    pub const RX_COALESCING: Self = Self::new(6, 1, "VIRTIO_NET_CTRL_NOTF_COAL_RX_SET");
}

/// A control queue over any layout.
pub(crate) trait Commands: Send {
    fn layout(&self) -> QueueLayout;
    fn enabled(&mut self, doorbell: Doorbell);
    /// The device is stopped: the ring is as new.
    fn settle(&mut self);
    /// Sends a command and waits for the answer.
    fn send(&mut self, command: Command, data: &[u8]) -> Result<(), NicError>;
}

pub(crate) struct Control<R: Ring> {
    ring: R,
    memory: DmaMemory,
    queue: Queue,
    patience: Duration,
    /// The place by which the device names the next command.
    next: u32,
    size: u32,
}

impl<R: Ring> Control<R> {
    pub fn new(space: &Arc<dyn DmaSpace>, index: u16, config: RingConfig, patience: Duration) -> Result<Self, NicError> {
        Ok(Self {
            ring: R::alone(space, "virtio-control", config)?,
            memory: DmaMemory::new(space, "virtio-commands", ROOM)?,
            queue: Queue::new(index),
            patience,
            next: 0,
            size: config.size.into(),
        })
    }

    /// Waits for the command to be used.
    fn wait(&mut self, command: Command) -> Result<(), NicError> {
        let start = Instant::now();
        loop {
            match self.ring.peek() {
                Ok(Some(used)) if used.id == self.next % self.size && used.len <= 1 => return Ok(()),
                Ok(Some(used)) => {
                    let what = format!("it answered command {} with {} bytes instead of {}", used.id, used.len, command.name);
                    return Err(self.queue.stop(Violation(what)));
                }
                Ok(None) => {}
                Err(violation) => return Err(self.queue.stop(violation)),
            }
            if start.elapsed() > self.patience {
                // The device still has the command: nothing can be written there before a reset.
                self.queue.stop(Violation(format!("{} was not answered", command.name)));
                return Err(NicError::Timeout { what: command.name, register: "control queue", waited: self.patience });
            }
            std::thread::sleep(NAP);
        }
    }
}

impl<R: Ring> Commands for Control<R> {
    fn layout(&self) -> QueueLayout {
        self.ring.layout()
    }

    fn enabled(&mut self, doorbell: Doorbell) {
        self.queue.enabled(doorbell);
    }

    fn settle(&mut self) {
        self.ring.restart();
        self.queue.settled();
        self.next = 0;
    }

    fn send(&mut self, command: Command, data: &[u8]) -> Result<(), NicError> {
        self.queue.check()?;
        let answer = HEAD + data.len();
        if answer >= ROOM {
            return Err(NicError::Config(format!(
                "{} with {} bytes; this driver sends up to {}",
                command.name,
                data.len(),
                ROOM - HEAD - 1
            )));
        }
        let memory = self.memory.memory();
        memory.write_bytes(0, &[command.class, command.command]);
        memory.write_bytes(HEAD, data);
        memory.write(answer, PENDING);
        let address = self.memory.iova();
        let pieces = [
            Piece { address, len: answer as u32, kind: Kind::Read },
            Piece { address: address + answer as u64, len: 1, kind: Kind::Write },
        ];
        let mut cursor = self.ring.cursor();
        self.ring.put_chain(&mut cursor, pieces.len(), pieces.into_iter());
        if self.ring.publish(cursor) {
            self.queue.ring()?;
        }
        self.wait(command)?;
        self.ring.advance(1, pieces.len() as u16);
        self.next = self.next.wrapping_add(pieces.len() as u32);
        match self.memory.memory().read::<u8>(answer) {
            OK => Ok(()),
            code => Err(NicError::Config(format!("the device refuses {} (answer {code})", command.name))),
        }
    }
}
