//! Split rings (VIRTIO 1.3, 2.7).

use super::chain::Fault;
use super::descriptor::SIZE;
use super::features::Features;
use super::queue::{Lie, Queue};
use crate::model::space::Space;

impl Queue {
    /// New entries of the available ring.
    pub(super) fn observe_split(&mut self, space: &Space) -> Vec<String> {
        let mut wrong = Vec::new();
        let Some(index) = self.read_u16(space, self.layout.driver + 2) else { return wrong };
        let added = u64::from(index.wrapping_sub(self.available as u16));
        if self.available + added - self.used > self.size() {
            wrong.push(format!(
                "the available index went from {} to {index}, beyond what a queue of {} has room for [2.7.6, 2.7.13]",
                self.available as u16,
                self.size()
            ));
            self.broken = true;
            return wrong;
        }
        for _ in 0..added {
            let entry = self.layout.driver + 4 + 2 * (self.available % self.size());
            let Some(head) = self.read_u16(space, entry) else { return wrong };
            self.walk_split(space, head, &mut wrong);
            if self.broken {
                return wrong;
            }
        }
        wrong
    }

    fn walk_split(&mut self, space: &Space, head: u16, wrong: &mut Vec<String>) {
        let in_order = self.features.contains(Features::IN_ORDER);
        let mut walk = self.walk(space, 1);
        walk.chain.id = head;
        let mut index = head;
        if in_order && u64::from(head) != self.next_head() {
            walk.complain(format!("with VIRTIO_F_IN_ORDER descriptor {head} was made available before {} [2.7.9]", self.next_head()));
        }
        loop {
            if u64::from(index) >= self.size() {
                walk.give_up(format!("descriptor {index} is beyond the queue of {} [2.7.5, 2.7.6]", self.size()));
                break;
            }
            let address = self.layout.descriptors + u64::from(index) * SIZE;
            if walk.chain.snapshot.iter().any(|(seen, _)| *seen == address) {
                walk.give_up(format!("the chain of descriptor {head} has a loop [2.7.5.2]"));
                break;
            }
            let Some(descriptor) = walk.fetch(address) else { break };
            if !walk.visit(descriptor) {
                break;
            }
            let next = descriptor.link;
            if in_order && u64::from(next) != (u64::from(index) + 1) % self.size() {
                walk.complain(format!("with VIRTIO_F_IN_ORDER descriptor {index} goes on at {next} [2.7.5.2]"));
            }
            index = next;
        }
        self.last_descriptor = Some(index);
        self.take_over(walk, wrong);
    }

    /// With VIRTIO_F_IN_ORDER: where the next chain starts.
    fn next_head(&self) -> u64 {
        self.last_descriptor.map_or(0, |last| (u64::from(last) + 1) % self.size())
    }

    /// Writes entries of the used ring: identifier, length, and how many buffers the entry stands for.
    pub(super) fn use_split(&mut self, space: &Space, entries: &[(u16, u32, u64)], lie: Lie) -> Result<(), Fault> {
        let device = self.layout.device;
        for (id, len, buffers) in entries {
            let address = device + 4 + 8 * (self.used % self.size());
            let element = [u32::from(*id).to_le_bytes(), len.to_le_bytes()].concat();
            space.write(address, &element).map_err(|_| (address, 8))?;
            self.used += buffers;
        }
        let jump = if lie == Lie::Jump { self.size() + 1 } else { 0 };
        let index = (self.used + jump) as u16;
        space.write(device + 2, &index.to_le_bytes()).map_err(|_| (device + 2, 2))
    }
}
