//! What the device does with its queues at a step.

use super::chain::Chain;
use super::fault::Fault;
use super::queue::{Lie, Notify, Queue};
use super::state::{Counters, Role, State};

impl State {
    /// A notification of queue `index` with this value.
    pub(super) fn doorbell(&mut self, index: u16, value: u32) {
        if let Some(counters) = self.counters.get_mut(usize::from(index)) {
            counters.doorbells += 1;
        }
        if self.status & super::state::DRIVER_OK == 0 {
            self.violation(format!("queue {index} was notified before DRIVER_OK was set [3.1.1]"));
            return;
        }
        self.observe(index);
        let data = self.accepted.contains(super::Features::NOTIFICATION_DATA);
        let Some(Some(queue)) = self.queues.get_mut(usize::from(index)) else {
            self.violation(format!("queue {index} was notified, but is not enabled [2.9]"));
            return;
        };
        let expected = if data { notification_data(queue, index) } else { index.into() };
        let lost = queue.written_but_not_available(&self.space).filter(|_| queue.available == queue.seen_at_doorbell);
        let superfluous = !queue.owed;
        (queue.owed, queue.notified, queue.seen_at_doorbell) = (false, true, queue.available);
        self.counters[usize::from(index)].superfluous += u64::from(superfluous);
        if value != expected {
            self.violation(format!("queue {index} was notified with {value:#x} instead of {expected:#x} [2.9]"));
        }
        if let Some(slot) = lost {
            self.violation(format!("queue {index}: descriptor {slot} was written, but is not marked available in this lap [2.8.1]"));
        }
        if matches!(self.role(index), Role::Receive(_)) {
            self.publish(index);
        }
        if self.synchronous {
            self.process(index);
        }
    }

    /// Does the work of a queue, if it was told of any.
    pub(super) fn process(&mut self, index: u16) {
        let polls = self.notify(index) == Notify::Never;
        let role = self.role(index);
        let Some(slot) = self.queues.get_mut(usize::from(index)) else { return };
        if !slot.as_ref().is_some_and(|queue| polls || queue.notified) || !self.live() {
            return;
        }
        match role {
            Role::Receive(_) => {}
            Role::Transmit(pair) => self.process_transmit(index, pair),
            Role::Control => self.process_control(index),
        }
        if let Some(Some(queue)) = self.queues.get_mut(usize::from(index)) {
            queue.notified = false;
            self.publish(index);
        }
    }

    /// The next buffer of a queue, if the device can use it.
    pub(super) fn next_chain(&mut self, index: u16) -> Option<Chain> {
        self.observe(index);
        if !self.live() {
            return None;
        }
        let queue = self.queues.get_mut(usize::from(index))?.as_mut()?;
        let chain = queue.waiting.pop_front()?;
        if !chain.unchanged(&self.space) {
            self.violation(format!("queue {index}: a descriptor was changed while the device owned it [2.7.13.3.1, 2.8.16]"));
        }
        Some(chain)
    }

    fn process_transmit(&mut self, index: u16, pair: u16) {
        let mut done = Vec::new();
        while self.has_work(index) && !self.hangs() {
            let Some(chain) = self.next_chain(index) else { break };
            if pair >= self.control.pairs {
                self.violation(format!("queue {index} was used before its pair was enabled [5.1.6.5.6.1]"));
            }
            if chain.writable() > 0 {
                self.violation(format!("queue {index}: a transmitted buffer has a device-writable part [5.1.6.2]"));
            }
            match chain.read(&self.space) {
                Ok(bytes) => self.transmit(pair, &bytes),
                Err(fault) => self.fail(fault),
            }
            done.push((chain, 0));
        }
        if self.fault == Fault::NoCompletion {
            if let Some(Some(queue)) = self.queues.get_mut(usize::from(index)) {
                queue.lost.extend(done.into_iter().map(|(chain, _)| chain));
            }
            return;
        }
        let in_order = self.accepted.contains(super::Features::IN_ORDER);
        if self.reversed && !in_order {
            done.reverse();
        }
        let lie = match self.fault {
            Fault::UsedIdOutOfRange => Lie::OutOfRange,
            Fault::UsedIdNotInFlight => Lie::NotInFlight,
            Fault::UsedTwice => Lie::Twice,
            Fault::UsedJumps => Lie::Jump,
            _ => Lie::None,
        };
        self.give_back(index, &done, in_order, lie);
    }

    fn has_work(&mut self, index: u16) -> bool {
        self.observe(index);
        self.queues.get(usize::from(index)).is_some_and(|queue| queue.as_ref().is_some_and(|queue| !queue.waiting.is_empty()))
    }

    fn hangs(&mut self) -> bool {
        match &mut self.fault {
            Fault::TransmitHangAfter(0) => self.fault = Fault::TransmitHang,
            Fault::NeedsResetAfter(0) => self.need_reset(),
            Fault::TransmitHangAfter(left) | Fault::NeedsResetAfter(left) => *left -= 1,
            _ => {}
        }
        self.fault == Fault::TransmitHang
    }

    /// An access to memory did not happen.
    pub(super) fn fail(&mut self, fault: super::chain::Fault) {
        self.faulted.push(fault);
        self.need_reset();
    }

    /// Buffers go back to the driver, with an interrupt if it wants one.
    pub(super) fn give_back(&mut self, index: u16, done: &[(Chain, u32)], together: bool, lie: Lie) {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(index)) else { return };
        if done.is_empty() {
            return;
        }
        let before = queue.used;
        let written = queue.give_back(&self.space, done, together, lie);
        let (wanted, wrong) = queue.driver_wants(&self.space);
        let interrupt = queue.triggers(wanted, before..queue.used);
        if let Err(fault) = written {
            self.fail(fault);
        }
        if let Some(wrong) = wrong {
            self.violation(format!("queue {index}: {wrong}"));
        }
        if interrupt {
            raise(&mut self.counters[usize::from(index)], &self.fault);
        }
    }

    /// The configuration changed, or the device needs a reset.
    pub(super) fn interrupt_of_change(&mut self) {
        raise(&mut self.changes, &self.fault);
    }
}

fn raise(counters: &mut Counters, fault: &Fault) {
    if *fault != Fault::InterruptLost {
        counters.interrupts += 1;
        counters.pending = true;
    }
}

/// With VIRTIO_F_NOTIFICATION_DATA: the queue, and where the next buffer will be made available (2.9).
fn notification_data(queue: &Queue, index: u16) -> u32 {
    let next = if queue.packed {
        (queue.available % queue.size()) as u32 | u32::from(queue.wrap(queue.available)) << 15
    } else {
        queue.available as u16 as u32
    };
    u32::from(index) | next << 16
}
