//! What the NIC needs of its queues, whatever their layout.

use hal::pool::PoolMapping;
use hal::virtio::QueueLayout;
use hal::{Doorbell, NicError, RxQueue, TxQueue};

use crate::ring::Violation;

/// A transmit queue over any layout.
pub(crate) trait Transmit: TxQueue {
    fn layout(&self) -> QueueLayout;
    /// The device knows the queue.
    fn enabled(&mut self, doorbell: Doorbell);
    fn attach_pool(&mut self, pool: PoolMapping) -> Result<(), NicError>;
    /// The device is stopped: buffers are the program's again, the ring is as new. Returns how many frames had not completed.
    fn settle(&mut self) -> u64;
    fn max_segments(&self) -> u16;
    fn has_used(&self) -> bool;
    fn arm(&mut self);
    fn disarm(&mut self);
    /// Packets and bytes that were completed.
    fn sent(&self) -> (u64, u64);
}

/// A receive queue over any layout.
pub(crate) trait Receive: RxQueue {
    fn layout(&self) -> QueueLayout;
    /// The device knows the queue.
    fn enabled(&mut self, doorbell: Doorbell);
    fn attach_pool(&mut self, pool: PoolMapping) -> Result<(), NicError>;
    /// The device is stopped: buffers return to their pool, the ring is as new.
    fn settle(&mut self);
    fn has_used(&self) -> bool;
    fn arm(&mut self);
    fn disarm(&mut self);
}

/// A queue's doorbell, and whether the queue may be used.
pub(crate) struct Queue {
    index: u16,
    doorbell: Option<Doorbell>,
    /// What the device did that it must not do.
    broken: Option<String>,
}

impl Queue {
    pub fn new(index: u16) -> Self {
        Self { index, doorbell: None, broken: None }
    }

    pub fn enabled(&mut self, doorbell: Doorbell) {
        self.doorbell = Some(doorbell);
    }

    /// The device has forgotten the queue.
    pub fn settled(&mut self) {
        self.doorbell = None;
        self.broken = None;
    }

    /// Rings with the queue's number.
    #[inline(always)]
    pub fn ring(&self) -> Result<(), NicError> {
        match &self.doorbell {
            Some(doorbell) => Ok(doorbell.ring(self.index.into())?),
            None => Err(self.error()),
        }
    }

    /// Whether the queue can be used.
    #[inline(always)]
    pub fn check(&self) -> Result<(), NicError> {
        if self.doorbell.is_some() && self.broken.is_none() { Ok(()) } else { Err(self.error()) }
    }

    /// The device broke the rules: the queue stands still until a reset, and the buffers stay the device's, which may use them.
    #[cold]
    pub fn stop(&mut self, Violation(what): Violation) -> NicError {
        self.broken = Some(format!("{what} (queue {})", self.index));
        self.error()
    }

    #[cold]
    #[inline(never)]
    fn error(&self) -> NicError {
        match &self.broken {
            Some(what) => NicError::Protocol(what.clone()),
            None => NicError::Config(format!("queue {} is stopped; reset the NIC to start it again", self.index)),
        }
    }
}
