//! The device's state: status, features, queues, time.

use std::ops::Range;
use std::sync::Arc;

use hal::MacAddress;
use hal::virtio::QueueLayout;

use super::chain::Fault as Access;
use super::config::{ANNOUNCE, LINK_UP, ModelConfig};
use super::control::Control;
use super::fault::Fault;
use super::features::{self, Features};
use super::queue::{Notify, Queue};
use crate::model::space::{Holder, Space};
use crate::model::violations::Violations;

/// Bits of the device status (2.1).
pub(super) const ACKNOWLEDGE: u8 = 1;
pub(super) const DRIVER: u8 = 2;
pub(super) const DRIVER_OK: u8 = 4;
pub(super) const FEATURES_OK: u8 = 8;
pub(super) const NEEDS_RESET: u8 = 64;
pub(super) const FAILED: u8 = 128;

/// What a queue is for (5.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Receive(u16),
    Transmit(u16),
    Control,
}

/// What is counted of a queue, or of the configuration; a reset does not clear it.
#[derive(Clone, Copy, Default)]
pub(super) struct Counters {
    pub doorbells: u64,
    pub superfluous: u64,
    pub interrupts: u64,
    /// An interrupt that nobody has waited for yet.
    pub pending: bool,
}

pub(super) struct State {
    pub config: ModelConfig,
    pub space: Arc<Space>,
    pub mac: MacAddress,
    /// The status field of the configuration.
    pub link: u16,
    pub status: u8,
    pub accepted: Features,
    /// FEATURES_OK was read back.
    pub confirmed: bool,
    pub queues: Vec<Option<Queue>>,
    pub counters: Vec<Counters>,
    /// Queues that were reset, and may be enabled again.
    pub reset_queues: Vec<bool>,
    pub changes: Counters,
    pub control: Control,
    pub fault: Fault,
    pub violations: Violations,
    pub faulted: Vec<Access>,
    pub notify: Notify,
    pub synchronous: bool,
    pub reversed: bool,
    /// Frames on the wire since the last step, with the pair that they left by.
    pub wire: Vec<(u16, Vec<u8>)>,
}

impl State {
    pub(super) fn new(config: ModelConfig, space: Arc<Space>) -> Self {
        let queues = usize::from(config.pairs) * 2 + usize::from(config.features.contains(Features::CTRL_VQ));
        Self {
            mac: config.mac,
            link: LINK_UP,
            status: 0,
            accepted: Features::empty(),
            confirmed: false,
            queues: (0..queues).map(|_| None).collect(),
            counters: vec![Counters::default(); queues],
            reset_queues: vec![false; queues],
            changes: Counters::default(),
            control: Control::new(&config, Features::empty()),
            fault: Fault::None,
            violations: Violations::default(),
            faulted: Vec::new(),
            notify: Notify::Next,
            synchronous: false,
            reversed: false,
            wire: Vec::new(),
            config,
            space,
        }
    }

    pub(super) fn violation(&mut self, what: impl Into<String>) {
        self.violations.add(what.into());
    }

    /// Whether nobody answers for the device any more.
    pub(super) fn gone(&self) -> bool {
        matches!(self.fault, Fault::Vanished | Fault::Unreachable(_))
    }

    /// Whether it processes its queues.
    pub(super) fn live(&self) -> bool {
        !self.gone() && self.status & (DRIVER_OK | NEEDS_RESET) == DRIVER_OK
    }

    pub(super) fn role(&self, index: u16) -> Role {
        let multiqueue = self.accepted.intersects(Features::MQ | Features::RSS);
        let control = if multiqueue { self.config.pairs * 2 } else { 2 };
        match index {
            _ if index == control && self.accepted.contains(Features::CTRL_VQ) => Role::Control,
            _ if index.is_multiple_of(2) => Role::Receive(index / 2),
            _ => Role::Transmit(index / 2),
        }
    }

    /// A bit of the configuration's status field, with the interrupt of a change.
    pub(super) fn change_status_field(&mut self, bit: u16, on: bool) {
        let before = self.link;
        self.link = if on { self.link | bit } else { self.link & !bit };
        if self.link != before && self.live() {
            self.interrupt_of_change();
        }
    }

    /// An error from which only a reset recovers (2.1.2).
    pub(super) fn need_reset(&mut self) {
        if self.status & DRIVER_OK != 0 && self.status & NEEDS_RESET == 0 {
            self.status |= NEEDS_RESET;
            self.interrupt_of_change();
        }
    }

    pub(super) fn reset(&mut self) {
        self.status = 0;
        self.accepted = Features::empty();
        self.confirmed = false;
        self.queues.iter_mut().for_each(|queue| *queue = None);
        self.reset_queues.fill(false);
        self.counters.iter_mut().chain([&mut self.changes]).for_each(|counters| counters.pending = false);
        self.control = Control::new(&self.config, Features::empty());
        self.mac = self.config.mac;
        self.link &= !ANNOUNCE;
        if matches!(self.fault, Fault::TransmitHang | Fault::NeedsResetAfter(_)) {
            self.fault = Fault::None;
        }
    }

    pub(super) fn write_status(&mut self, new: u8) {
        if new == 0 {
            self.reset();
            return;
        }
        let old = self.status;
        let mut new = new & !NEEDS_RESET | old & NEEDS_RESET;
        if old & !new != 0 {
            self.violation(format!("bits {:#x} of the device status were cleared without a reset [2.1.1]", old & !new));
            new |= old;
        }
        for (bit, before, what) in [
            (DRIVER, ACKNOWLEDGE, "DRIVER was set before ACKNOWLEDGE [3.1.1]"),
            (FEATURES_OK, DRIVER, "FEATURES_OK was set before DRIVER [3.1.1]"),
            (DRIVER_OK, FEATURES_OK, "DRIVER_OK was set before FEATURES_OK [3.1.1]"),
        ] {
            if new & !old & bit != 0 && old & before == 0 {
                self.violation(what);
            }
        }
        if new & !old & FEATURES_OK != 0 && !self.features_are_fine() {
            new &= !FEATURES_OK;
        }
        if new & !old & DRIVER_OK != 0 && old & FEATURES_OK != 0 && !self.confirmed {
            self.violation("DRIVER_OK was set without reading FEATURES_OK back [3.1.1]");
        }
        if new & !old & FAILED != 0 {
            new &= !DRIVER_OK;
        }
        self.status = new;
        if new & !old & DRIVER_OK != 0 {
            self.control = Control::new(&self.config, self.accepted);
            (0..self.queues.len() as u16).for_each(|index| self.publish(index));
        }
    }

    pub(super) fn accept(&mut self, accepted: Features) {
        if self.status & DRIVER == 0 {
            self.violation("features were accepted before DRIVER was set [3.1.1]");
        }
        if self.status & FEATURES_OK != 0 {
            self.violation("features were accepted after FEATURES_OK was set [3.1.1]");
            return;
        }
        let unknown = accepted - self.config.features;
        if !unknown.is_empty() {
            self.violation(format!("features {:#x} were accepted that were not offered [2.2.1]", unknown.bits()));
        }
        self.accepted = accepted;
    }

    /// FEATURES_OK is about to be set.
    fn features_are_fine(&mut self) -> bool {
        let (offered, accepted) = (self.config.features, self.accepted);
        let unmet = accepted.unmet();
        let fine = unmet.is_empty() && offered.contains(accepted) && self.fault != Fault::FeaturesRefused;
        unmet.into_iter().for_each(|what| self.violation(what));
        for required in [Features::VERSION_1, Features::ACCESS_PLATFORM] {
            if (offered - accepted).contains(required) {
                self.violation(format!("{} was offered and not accepted [6.1]", features::name(required)));
            }
        }
        fine
    }

    pub(super) fn enable_queue(&mut self, index: u16, layout: QueueLayout) -> Result<(), String> {
        let (size, most) = (layout.size, self.config.queue_size);
        let packed = self.accepted.contains(Features::RING_PACKED);
        if usize::from(index) >= self.queues.len() {
            self.violation(format!("queue {index} was enabled, which does not exist [5.1.2]"));
            return Err("there is no such queue".to_owned());
        }
        if self.fault == Fault::QueueRefused {
            return Err("the device refuses".to_owned());
        }
        if self.status & FEATURES_OK == 0 {
            self.violation(format!("queue {index} was enabled before FEATURES_OK was set [3.1.1]"));
        }
        if self.status & DRIVER_OK != 0 && !self.reset_queues[usize::from(index)] {
            self.violation(format!("queue {index} was enabled after DRIVER_OK was set [3.1.1]"));
        }
        if self.queues[usize::from(index)].is_some() {
            self.violation(format!("queue {index} was enabled twice [4.1.4.3.2]"));
        }
        if size == 0 || size > most || !packed && !size.is_power_of_two() {
            self.violation(format!("queue {index} was enabled with a size of {size}; up to {most} can be had [2.7, 2.8]"));
            return Err(format!("a size of {size}"));
        }
        self.inspect_areas(index, &layout, packed);
        self.queues[usize::from(index)] = Some(Queue::new(layout, self.accepted, &self.space));
        self.reset_queues[usize::from(index)] = false;
        if self.status & DRIVER_OK != 0 {
            self.publish(index);
        }
        Ok(())
    }

    fn inspect_areas(&mut self, index: u16, layout: &QueueLayout, packed: bool) {
        let starts = [layout.descriptors, layout.driver, layout.device];
        let sizes = Queue::area_sizes(layout, packed, self.accepted.contains(Features::EVENT_IDX));
        let alignments = if packed { [16, 4, 4] } else { [16, 2, 4] };
        let names = ["descriptor", "driver", "device"];
        // The device reads the descriptors of a split ring, and writes those of a packed one.
        let written = [packed, false, true];
        for area in 0..3 {
            let (start, name) = (starts[area], names[area]);
            if !start.is_multiple_of(alignments[area]) {
                self.violation(format!("the {name} area of queue {index} is not aligned to {} bytes [2.7, 2.8.10.1]", alignments[area]));
            }
            if !self.space.covers(start, sizes[area], written[area]) {
                self.violation(format!("the {name} area of queue {index} is not in mapped memory [2.6]"));
            }
            for other in 0..area {
                if start < starts[other].saturating_add(sizes[other]) && starts[other] < start.saturating_add(sizes[area]) {
                    self.violation(format!("the {name} area of queue {index} overlaps its {} area [2.7, 2.8]", names[other]));
                }
            }
        }
        let mut index_bytes = [0; 4];
        if !packed && self.space.read(layout.device, &mut index_bytes).is_ok() && index_bytes != [0; 4] {
            self.violation(format!("the flags or the index of the used ring of queue {index} are not 0 at first [2.7.10.1, 3.1.1]"));
        }
    }

    pub(super) fn reset_queue(&mut self, index: u16) {
        if !self.accepted.contains(Features::RING_RESET) {
            self.violation("a queue was reset without VIRTIO_F_RING_RESET [2.6.1]");
        }
        match self.queues.get_mut(usize::from(index)) {
            Some(queue) if queue.is_some() => {
                *queue = None;
                self.reset_queues[usize::from(index)] = true;
            }
            _ => self.violation(format!("queue {index} was reset, which is not enabled [2.6.1.2]")),
        }
    }

    /// Sees what is new in a queue.
    pub(super) fn observe(&mut self, index: u16) {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(index)) else { return };
        let wrong = queue.observe(&self.space);
        let broken = queue.broken;
        wrong.into_iter().for_each(|what| self.violation(format!("queue {index}: {what}")));
        if broken && self.status & DRIVER_OK != 0 {
            self.need_reset();
        }
    }

    /// How a queue is to be notified: commands are always told.
    pub(super) fn notify(&self, index: u16) -> Notify {
        if self.role(index) == Role::Control { Notify::Next } else { self.notify }
    }

    /// Tells the driver when to notify.
    pub(super) fn publish(&mut self, index: u16) {
        let notify = self.notify(index);
        let Some(Some(queue)) = self.queues.get_mut(usize::from(index)) else { return };
        if let Err(fault) = queue.publish(&self.space, notify) {
            self.faulted.push(fault);
        }
    }

    /// As [`publish`](Self::publish), at a moment when buffers may be there that the driver was not asked to tell of.
    pub(super) fn look_and_publish(&mut self, index: u16) {
        self.observe(index);
        if let Some(Some(queue)) = self.queues.get_mut(usize::from(index)) {
            queue.notified |= !queue.waiting.is_empty();
        }
        self.publish(index);
    }

    /// Time passes.
    pub(super) fn step(&mut self) {
        if self.live() {
            for index in 0..self.queues.len() as u16 {
                self.observe(index);
                self.expect_notification(index);
                self.process(index);
            }
        }
    }

    /// The device looks at a queue: was it told of what is there?
    pub(super) fn expect_notification(&mut self, index: u16) {
        if let Some(Some(queue)) = self.queues.get(usize::from(index))
            && queue.owed
        {
            self.violation(format!(
                "queue {index}: buffers were made available without a notification that the device asked for [2.7.10.1, 2.8.10]"
            ));
        }
    }
}

impl Holder for State {
    /// Does the device still own something that refers to it?
    fn about_to_unmap(&mut self, range: Range<u64>) {
        if !self.live() {
            return;
        }
        for index in 0..self.queues.len() as u16 {
            self.observe(index);
            let Some(queue) = &self.queues[usize::from(index)] else { continue };
            if queue.areas().iter().any(|area| area.start < range.end && range.start < area.end) {
                self.violation(format!("queue {index} was unmapped while it was enabled [2.6]"));
            } else if queue.waiting.iter().chain(&queue.lost).any(|chain| chain.refers_to(&range)) {
                self.violation(format!("memory was unmapped while a buffer of queue {index} referred to it [2.6]"));
            }
        }
    }
}
