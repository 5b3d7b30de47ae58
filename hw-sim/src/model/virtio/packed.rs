//! Packed rings (VIRTIO 1.3, 2.8).

use super::chain::Fault;
use super::descriptor::{AVAIL, Descriptor, Raw, SIZE, USED, WRITE};
use super::queue::{Lie, Queue};
use crate::model::space::Space;

impl Queue {
    /// The wrap counter at a position.
    pub(super) fn wrap(&self, position: u64) -> bool {
        (position / self.size()).is_multiple_of(2)
    }

    fn slot(&self, position: u64) -> u16 {
        (position % self.size()) as u16
    }

    fn address(&self, slot: u16) -> u64 {
        self.layout.descriptors + u64::from(slot) * SIZE
    }

    pub(super) fn raw(&self, space: &Space, slot: u16) -> Option<Raw> {
        let mut raw = Raw::default();
        space.read(self.address(slot), &mut raw).ok()?;
        Some(raw)
    }

    /// New available descriptors.
    pub(super) fn observe_packed(&mut self, space: &Space) -> Vec<String> {
        let mut wrong = Vec::new();
        // A full ring cannot hold more, and its next descriptor is still marked available from this lap.
        while !self.broken && self.available - self.used < self.size() {
            let (slot, wrap) = (self.slot(self.available), self.wrap(self.available));
            let Some(raw) = self.raw(space, slot) else { return wrong };
            let head = Descriptor::of(&raw, true);
            if !head.is_available(wrap) {
                let both = AVAIL | USED;
                if raw != self.shadow[usize::from(slot)] && head.flags & both == if wrap { both } else { 0 } {
                    wrong.push(format!("descriptor {slot} was marked used by the driver [2.8.1]"));
                    self.shadow[usize::from(slot)] = raw;
                }
                break;
            }
            self.walk_packed(space, &mut wrong);
        }
        wrong
    }

    fn walk_packed(&mut self, space: &Space, wrong: &mut Vec<String>) {
        let mut walk = self.walk(space, 0);
        loop {
            let position = self.available + walk.chain.slots;
            if position - self.used >= self.size() {
                walk.give_up(format!("a list of descriptors is longer than what is free of the queue of {} [2.8.17]", self.size()));
                break;
            }
            let (slot, wrap) = (self.slot(position), self.wrap(position));
            let Some(descriptor) = walk.fetch(self.address(slot)) else { break };
            walk.chain.slots += 1;
            walk.chain.id = descriptor.link;
            if !descriptor.is_available(wrap) {
                walk.give_up(format!("descriptor {slot} is in a list, but was not made available before the list's head [2.8.6, 2.8.17]"));
                break;
            }
            if !walk.visit(descriptor) {
                break;
            }
        }
        for (address, raw) in &walk.chain.snapshot {
            let slot = address.wrapping_sub(self.layout.descriptors) / SIZE;
            if let Some(shadow) = self.shadow.get_mut(slot as usize) {
                *shadow = *raw;
            }
        }
        self.take_over(walk, wrong);
    }

    /// The driver notified, but made nothing available: did it write a descriptor that is not marked so?
    pub(super) fn written_but_not_available(&self, space: &Space) -> Option<u16> {
        let slot = self.slot(self.available);
        let free = self.packed && self.available - self.used < self.size();
        (free && self.raw(space, slot).is_some_and(|raw| raw != self.shadow[usize::from(slot)])).then_some(slot)
    }

    /// Writes used descriptors: identifier, length, and how many descriptors each stands for. The first one is written last, so that the driver
    /// sees them all at once.
    pub(super) fn use_packed(&mut self, space: &Space, entries: &[(u16, u32, u64)], lie: Lie) -> Result<(), Fault> {
        let mut writes = Vec::new();
        for (id, len, slots) in entries {
            writes.push((self.slot(self.used), self.wrap(self.used), *id, *len));
            self.used += slots;
        }
        if lie == Lie::Jump {
            let id = entries.first().map_or(0, |(id, ..)| *id);
            writes.extend((0..self.size()).map(|step| (self.slot(self.used + step), self.wrap(self.used + step), id, 0)));
        }
        for (slot, wrap, id, len) in writes.into_iter().rev() {
            let address = self.address(slot);
            let flags = if wrap { AVAIL | USED } else { 0 } | if len > 0 { WRITE } else { 0 };
            let mut raw = self.raw(space, slot).ok_or((address, SIZE))?;
            raw[8..12].copy_from_slice(&len.to_le_bytes());
            raw[12..14].copy_from_slice(&id.to_le_bytes());
            raw[14..].copy_from_slice(&flags.to_le_bytes());
            space.write(address + 8, &raw[8..14]).map_err(|_| (address + 8, 6))?;
            space.write(address + 14, &raw[14..]).map_err(|_| (address + 14, 2))?;
            self.shadow[usize::from(slot)] = raw;
        }
        Ok(())
    }
}
