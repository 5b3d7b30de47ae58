//! A buffer: the elements that a chain of descriptors describes, and what such a chain must not be.

use std::collections::VecDeque;
use std::ops::Range;

use super::descriptor::{Descriptor, INDIRECT, NEXT, Raw, SIZE, WRITE};
use super::features::Features;
use crate::model::space::Space;

/// A contiguous piece of memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element {
    pub address: u64,
    pub len: u32,
    pub write: bool,
}

/// A buffer that the device owns.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    /// Split: the index of its first descriptor. Packed: the buffer's identifier.
    pub id: u16,
    /// How many entries of the available ring, or descriptors of the packed ring, it takes.
    pub slots: u64,
    pub elements: Vec<Element>,
    /// Its descriptors and those of its table, as they were when the device got them.
    pub snapshot: Vec<(u64, Raw)>,
    /// The device cannot use it.
    pub broken: bool,
}

/// An access that did not happen: address and length.
pub(super) type Fault = (u64, u64);

impl Chain {
    pub(super) fn readable(&self) -> usize {
        self.elements.iter().filter(|element| !element.write).map(|element| element.len as usize).sum()
    }

    pub(super) fn writable(&self) -> usize {
        self.elements.iter().filter(|element| element.write).map(|element| element.len as usize).sum()
    }

    /// All that the driver wrote for the device.
    pub(super) fn read(&self, space: &Space) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::with_capacity(self.readable());
        for element in self.elements.iter().filter(|element| !element.write) {
            let start = bytes.len();
            bytes.resize(start + element.len as usize, 0);
            space.read(element.address, &mut bytes[start..]).map_err(|_| (element.address, element.len.into()))?;
        }
        Ok(bytes)
    }

    /// Writes as much as there is room for.
    pub(super) fn write(&self, space: &Space, mut bytes: &[u8]) -> Result<(), Fault> {
        for element in self.elements.iter().filter(|element| element.write) {
            let (piece, rest) = bytes.split_at(bytes.len().min(element.len as usize));
            space.write(element.address, piece).map_err(|_| (element.address, piece.len() as u64))?;
            bytes = rest;
        }
        Ok(())
    }

    /// Whether its descriptors are what they were when the device got them.
    pub(super) fn unchanged(&self, space: &Space) -> bool {
        self.snapshot.iter().all(|(address, before)| {
            let mut now = Raw::default();
            space.read(*address, &mut now).is_ok() && now == *before
        })
    }

    /// Whether it refers to any of these addresses.
    pub(super) fn refers_to(&self, range: &Range<u64>) -> bool {
        let overlaps = |address: u64, len: u64| address < range.end && address.saturating_add(len) > range.start;
        self.elements.iter().any(|element| overlaps(element.address, element.len.into()))
            || self.snapshot.iter().any(|(address, _)| overlaps(*address, SIZE))
    }
}

/// Follows chains, and notes what is wrong with them.
pub(super) struct Walk<'a> {
    pub space: &'a Space,
    pub features: Features,
    pub packed: bool,
    /// The queue's size.
    pub size: u16,
    pub chain: Chain,
    /// What is wrong.
    pub wrong: Vec<String>,
}

impl Walk<'_> {
    pub(super) fn complain(&mut self, what: impl Into<String>) {
        self.wrong.push(what.into());
    }

    /// The chain cannot be used.
    pub(super) fn give_up(&mut self, what: impl Into<String>) {
        self.complain(what);
        self.chain.broken = true;
    }

    /// A descriptor from memory; it becomes a part of the chain.
    pub(super) fn fetch(&mut self, address: u64) -> Option<Descriptor> {
        let mut raw = Raw::default();
        if self.space.read(address, &mut raw).is_err() {
            self.give_up(format!("the descriptor at {address:#x} is not in mapped memory [2.6]"));
            return None;
        }
        self.chain.snapshot.push((address, raw));
        Some(Descriptor::of(&raw, self.packed))
    }

    /// A descriptor of the ring itself. Returns whether the chain goes on.
    pub(super) fn visit(&mut self, descriptor: Descriptor) -> bool {
        if descriptor.flags & INDIRECT == 0 {
            self.element(descriptor);
            return descriptor.flags & NEXT != 0 && !self.chain.broken;
        }
        if !self.features.contains(Features::INDIRECT_DESC) {
            self.give_up("INDIRECT was set without VIRTIO_F_INDIRECT_DESC [2.7.5.3.1, 2.8.19]");
        }
        if descriptor.flags & NEXT != 0 {
            self.give_up("INDIRECT and NEXT were set together [2.7.5.3.1, 2.8.19]");
        } else if self.packed && !self.chain.elements.is_empty() {
            self.give_up("INDIRECT was set in a list of descriptors linked by NEXT [2.8.19]");
        }
        if !self.chain.broken {
            self.table(descriptor);
        }
        false
    }

    /// An indirect table.
    fn table(&mut self, descriptor: Descriptor) {
        let (bytes, start) = (u64::from(descriptor.len), descriptor.address);
        if bytes == 0 || !bytes.is_multiple_of(SIZE) {
            self.give_up(format!("an indirect table has {bytes} bytes, which is not a number of descriptors [2.7.5.3, 2.8.7]"));
            return;
        }
        if !self.space.covers(start, bytes, false) {
            self.give_up(format!("the indirect table of {bytes} bytes at {start:#x} is not in mapped memory [2.6]"));
            return;
        }
        let entries = bytes / SIZE;
        if self.packed && entries > u64::from(self.size) {
            self.complain(format!("an indirect table of {entries} descriptors in a queue of {} [2.8.19]", self.size));
        }
        let mut index = 0;
        for number in 0..=entries {
            if number == entries {
                self.give_up("the chain in an indirect table has a loop [2.7.5.3]");
                return;
            }
            let Some(entry) = self.fetch(start + index * SIZE) else { return };
            if entry.flags & INDIRECT != 0 {
                self.give_up("INDIRECT was set inside an indirect table [2.7.5.3.1, 2.8.19]");
                return;
            }
            self.element(entry);
            if self.packed {
                if entry.flags & !WRITE != 0 {
                    self.complain("flags other than WRITE are set inside an indirect table [2.8.19]");
                }
                index += 1;
                if index == entries {
                    return;
                }
            } else {
                if entry.flags & NEXT == 0 {
                    return;
                }
                if self.features.contains(Features::IN_ORDER) && u64::from(entry.link) != index + 1 {
                    self.complain("with VIRTIO_F_IN_ORDER an indirect table is not in sequence [2.7.5.3.1]");
                }
                index = entry.link.into();
                if index >= entries {
                    self.give_up(format!("an indirect table of {entries} descriptors goes on at {index} [2.7.5.3]"));
                    return;
                }
            }
        }
    }

    fn element(&mut self, descriptor: Descriptor) {
        let Descriptor { address, len, flags, .. } = descriptor;
        let write = flags & WRITE != 0;
        let defined = NEXT | WRITE | INDIRECT | if self.packed { super::descriptor::AVAIL | super::descriptor::USED } else { 0 };
        if flags & !defined != 0 {
            self.complain(format!("reserved flags {:#x} of a descriptor are set [2.7.5, 2.8.13]", flags & !defined));
        }
        if len == 0 {
            self.complain("a descriptor has a length of 0 [2.7.5, 2.8.5]");
        } else if !self.space.covers(address, len.into(), write) {
            let mapped = if write && self.space.covers(address, len.into(), false) { "mapped for writing" } else { "mapped" };
            self.complain(format!("{len} bytes at {address:#x} are not {mapped} [2.6]"));
        }
        if !write && self.chain.elements.last().is_some_and(|last| last.write) {
            self.give_up("a device-readable element follows a device-writable one [2.7.4.2, 2.8.17]");
        }
        self.chain.elements.push(Element { address, len, write });
        if self.chain.elements.len() == usize::from(self.size) + 1 {
            self.complain(format!("a chain is longer than its queue of {} descriptors [2.7.5.3.1, 2.8.17]", self.size));
        }
    }
}

/// What was made available, oldest first.
pub(super) type Chains = VecDeque<Chain>;
